//! The event `message:send`: from the request of a sender to a committed message.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::channel::{Channel, Write};
use super::ctx::Ctx;
use super::forward::ForwardOf;
use super::poll::StartPoll;
use super::registry::{Registry, Request};
use super::turn::Turn;
use super::{draft, expiring, mention, preview, read_state};
use crate::auth::Permission;
use crate::clock::{self, Micros, Timestamp};
use crate::models::channel_key::Expect;
use crate::models::message::{
    ContentType, FLAG_NO_MENTION_NOTIFY, FLAG_SILENT, FLAG_SUPPRESS_EMBEDS, MessageDetail, MessageType,
};
use crate::models::message_attachment::ATTACHMENTS_MAX;
use crate::models::message_draft::SendDraft;
use crate::models::message_embed::{EMBEDS_MAX, Embeds};
use crate::models::message_mention::Mentioned;
use crate::models::message_send::{NewMessage, Sent};
use crate::models::text::{BODY_CHARS_MAX, Mentions, MessageBody, Nonce};
use crate::{ImksError, ImksResult};

const SEND: Request<SendMessage, Answer> = Request::new("message:send");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.advertise("body_chars", BODY_CHARS_MAX);
    events.advertise("embeds", EMBEDS_MAX);
    let created = |sent: &Answer| if sent.duplicate { 200 } else { 201 };
    events.on_write(SEND, send).post("/channels/{channel_id}/messages", created);
}

/// The payload of `message:send`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SendMessage {
    pub(super) channel_id: Uuid,
    /// May be missing only in a message that forwards another one.
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    pub(super) thread_id: Option<Uuid>,
    #[serde(default)]
    reply_to_message_id: Option<Uuid>,
    #[serde(default)]
    forward_of: Option<ForwardOf>,
    #[serde(default)]
    pub(super) nonce: Option<Nonce>,
    #[serde(default)]
    content_type: ContentType,
    #[serde(default)]
    mentions: Option<Mentions>,
    #[serde(default)]
    flags: i32,
    #[serde(default)]
    also_send_to_channel: bool,
    /// Whether the draft in the same channel and thread is cleared in the same transaction.
    #[serde(default)]
    pub(super) clear_draft: bool,
    #[serde(default)]
    poll: Option<StartPoll>,
    /// When the message deletes itself.
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    expect: Option<Expect>,
    #[serde(default)]
    attachments: Vec<Uuid>,
    #[serde(default)]
    embeds: Embeds,
}

/// The answer to `message:send`.
#[derive(Debug, Serialize)]
struct Answer {
    message: Arc<MessageDetail>,
    duplicate: bool,
}

async fn send(ctx: Ctx, turn: Turn, request: SendMessage) -> ImksResult<Answer> {
    request.check()?;
    ctx.count_send(request.channel_id)?;
    let (clear_draft, thread) = (request.clear_draft, request.thread_id);
    let (channel, message) = prepare(&ctx, request, clock::now_micros()).await?;
    let mentioned = message.mentioned.clone();
    let Sent { message, duplicate } = match clear_draft {
        true => channel.submit(turn, SendDraft(message))?.await?,
        false => channel.submit(turn, message)?.await?,
    };
    if !duplicate {
        preview::request(&ctx, &message);
        ctx.typing().sent(ctx.namespace(), channel.id(), thread, ctx.user());
        read_state::tell_read_by_sending(&ctx, &message);
        mention::tell(ctx.messaging(), ctx.namespace(), &message, &mentioned);
    }
    if clear_draft {
        draft::tell_cleared(&ctx, channel.id(), thread).await;
    }
    Ok(Answer { message, duplicate })
}

/// Returns the message of a person who sends it at `now`, with a proof that the caller may send it.
pub(super) async fn prepare(
    ctx: &Ctx,
    request: SendMessage,
    now: Micros,
) -> ImksResult<(Channel<Write>, NewMessage)> {
    let channel = permitted(ctx, &request).await?;
    let forward_of = match request.forward_of {
        Some(forward_of) => Some(forward_of.copy(ctx).await?),
        None => None,
    };
    let mentioned = mentioned(ctx, channel.id(), request.mentions.as_ref()).await?;
    Ok((channel, NewMessage { forward_of, ..request.into_message(mentioned, now)? }))
}

async fn permitted(ctx: &Ctx, request: &SendMessage) -> ImksResult<Channel<Write>> {
    let permission =
        if request.thread_id.is_some() { Permission::SendInThreads } else { Permission::SendMessages };
    let channel = ctx.writable(request.channel_id, permission).await?;
    if let Some(mentions) = &request.mentions {
        require_mentions(ctx, request.channel_id, mentions).await?;
    }
    for (asked, permission) in [
        (request.poll.is_some(), Permission::CreatePoll),
        (!request.attachments.is_empty(), Permission::AttachFiles),
        (!request.embeds.is_empty(), Permission::EmbedLinks),
    ] {
        if asked {
            ctx.require(request.channel_id, permission).await?;
        }
    }
    Ok(channel)
}

/// Returns the people behind the roles and `here` of a message.
pub(super) async fn mentioned(
    ctx: &Ctx,
    channel: Uuid,
    mentions: Option<&Mentions>,
) -> ImksResult<Mentioned> {
    match mentions {
        Some(mentions) => mention::resolve(ctx.messaging(), ctx.namespace(), channel, mentions).await,
        None => Ok(Mentioned::default()),
    }
}

/// Checks the separate permissions for mentioning many people at once.
pub(super) async fn require_mentions(ctx: &Ctx, channel: Uuid, mentions: &Mentions) -> ImksResult<()> {
    if mentions.channel || mentions.here {
        ctx.require(channel, Permission::MentionEveryone).await?;
    }
    if !mentions.roles.is_empty() {
        ctx.require(channel, Permission::MentionRoles).await?;
    }
    Ok(())
}

impl SendMessage {
    /// Checks the rules that the types of the fields do not check.
    pub(super) fn check(&self) -> ImksResult<()> {
        match &self.body {
            Some(text) => MessageBody::check(text, self.content_type == ContentType::E2ee)?,
            None if self.forward_of.is_some() => {}
            None => {
                return Err(ImksError::InvalidField { field: "body".into(), reason: "is missing".into() });
            }
        }
        if self.flags & !FLAGS_OF_CLIENTS != 0 {
            return Err(ImksError::invalid("flags", "has bits that are not known"));
        }
        let distinct: HashSet<&Uuid> = self.attachments.iter().collect();
        if distinct.len() < self.attachments.len() || distinct.len() > ATTACHMENTS_MAX {
            let reason = format!("has an item twice, or more than {ATTACHMENTS_MAX} items");
            return Err(ImksError::invalid("attachments", reason));
        }
        Ok(())
    }

    fn into_message(self, mentioned: Mentioned, now: Micros) -> ImksResult<NewMessage> {
        let kind = match () {
            () if self.poll.is_some() => MessageType::Poll,
            () if self.content_type == ContentType::E2ee => MessageType::E2ee,
            () if self.forward_of.is_some() => MessageType::Forwarded,
            () if self.reply_to_message_id.is_some() => MessageType::Reply,
            () => MessageType::Default,
        };
        let body = match (self.body, self.content_type) {
            (Some(text), ContentType::E2ee) => MessageBody::encrypted(text)?,
            (Some(text), _) => MessageBody::new(text)?,
            (None, _) => MessageBody::default(),
        };
        Ok(NewMessage {
            body,
            kind,
            content_type: self.content_type,
            thread_id: self.thread_id,
            also_send_to_channel: self.also_send_to_channel,
            reply_to_message_id: self.reply_to_message_id,
            forward_of: None,
            mentions: self.mentions.unwrap_or_default(),
            mentioned,
            flags: self.flags,
            poll: self.poll.map(|poll| poll.checked(now)).transpose()?,
            expires_at: self.expires_at.map(|at| expiring::checked(at, now)).transpose()?,
            metadata: None,
            attachments: self.attachments,
            embeds: self.embeds,
            nonce: self.nonce,
            expect: self.expect,
            interactive: true,
        })
    }
}

const FLAGS_OF_CLIENTS: i32 = FLAG_SILENT | FLAG_SUPPRESS_EMBEDS | FLAG_NO_MENTION_NOTIFY;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> ImksResult<SendMessage> {
        let request: SendMessage = serde_json::from_str(json)?;
        request.check().map(|()| request)
    }

    const CHANNEL: &str = "01909a00-0000-7000-8000-000000000001";

    #[test]
    fn the_four_fields_of_the_requirements_are_enough_and_nulls_are_absent() {
        let json = format!(
            r#"{{"channel_id":"{CHANNEL}","body":"hi","thread_id":null,"reply_to_message_id":null}}"#
        );
        let request = parse(&json).unwrap();
        assert_eq!((request.thread_id, request.nonce), (None, None));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        assert!(
            parse(&format!(r#"{{"channel_id":"{CHANNEL}","body":"hi","author":{{"id":1}},"seq":9}}"#))
                .is_ok()
        );
    }

    #[test]
    fn what_cannot_be_stored_is_refused_instead_of_dropped() {
        for field in [r#""flags":8"#, r#""flags":-1"#] {
            let error = parse(&format!(r#"{{"channel_id":"{CHANNEL}","body":"hi",{field}}}"#)).unwrap_err();
            assert_eq!(error.code(), "invalid_input", "{field}");
        }
    }
}
