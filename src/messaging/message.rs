//! The event `message:send`: from the request of a sender to a committed message.

use std::collections::HashSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::channel::{Channel, Write};
use super::ctx::Ctx;
use super::forward::ForwardOf;
use super::poll::StartPoll;
use super::push::Push;
use super::registry::{Registry, Request, Status};
use super::turn::Turn;
use super::{draft, expiring, mention, preview, read_state};
use crate::auth::Permission;
use crate::clock::{self, Micros, Timestamp};
use crate::models::channel_key::Expect;
use crate::models::message::{
    ContentType, FLAG_NO_MENTION_NOTIFY, FLAG_SILENT, FLAG_SUPPRESS_EMBEDS, Forward, MessageDetail,
    MessageType, Priority,
};
use crate::models::message_attachment::{ATTACHMENTS_MAX, Attachment};
use crate::models::message_draft::SendDraft;
use crate::models::message_embed::{EMBEDS_MAX, Embed, Embeds};
use crate::models::message_mention::Mentioned;
use crate::models::message_send::{NewMessage, Sent};
use crate::models::text::{BODY_CHARS_MAX, E2EE_BYTES_MAX, Mentions, MessageBody, Nonce};
use crate::{ImksError, ImksResult};

const SEND: Request<SendMessage, Answer> = Request::new("message:send");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    // Messages have both as they are stored.
    events.part::<Attachment>();
    events.part::<Embed>();
    events.sends(&Push::<MessageDetail>::new("message:new"));
    events.advertise("body_chars", BODY_CHARS_MAX);
    events.advertise("embeds", EMBEDS_MAX);
    let created = Status::CreatedUnless(|sent: &Answer| sent.duplicate);
    events.on_write(SEND, send).post("/channels/{channel_id}/messages", created);
}

/// The payload of `message:send`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct SendMessage {
    pub(super) channel_id: Uuid,
    /// May be missing only in a message that forwards another one or that is streamed.
    #[serde(default)]
    #[schemars(length(max = E2EE_BYTES_MAX))]
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
    #[schemars(range(min = 0, max = FLAGS_OF_CLIENTS))]
    flags: i32,
    #[serde(default)]
    also_send_to_channel: bool,
    /// Whether the draft in the same channel and thread is cleared in the same transaction.
    #[serde(default)]
    pub(super) clear_draft: bool,
    #[serde(default)]
    priority: Priority,
    /// Whether readers are asked to acknowledge the message.
    #[serde(default)]
    ack_requested: bool,
    /// Whether the text arrives piece by piece, by `stream:append`.
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    poll: Option<StartPoll>,
    /// When the message deletes itself.
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    expect: Option<Expect>,
    #[serde(default)]
    #[schemars(length(max = ATTACHMENTS_MAX))]
    pub(super) attachments: Vec<Uuid>,
    #[serde(default)]
    embeds: Embeds,
}

/// The answer to `message:send`.
#[derive(Debug, Serialize, JsonSchema)]
struct Answer {
    message: Arc<MessageDetail>,
    duplicate: bool,
}

async fn send(ctx: Ctx, turn: Turn, request: SendMessage) -> ImksResult<Answer> {
    request.check()?;
    ctx.count_send(request.channel_id)?;
    let (clear_draft, thread, now) = (request.clear_draft, request.thread_id, clock::now_micros());
    let (channel, looked_up) = match prepare(&ctx, &request, now).await {
        Ok(ready) => ready,
        Err(refusal) => return repeated(&ctx, turn, request, refusal).await,
    };
    let message = request.into_message(looked_up, now)?;
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

/// What a message needs besides the request.
#[derive(Debug, Default)]
pub(super) struct LookedUp {
    forward_of: Option<Box<Forward>>,
    mentioned: Mentioned,
}

/// Checks whether the caller may send a message at `now`. Returns a proof, and what the message needs.
pub(super) async fn prepare(
    ctx: &Ctx,
    request: &SendMessage,
    now: Micros,
) -> ImksResult<(Channel<Write>, LookedUp)> {
    request.check_times(now)?;
    let channel = permitted(ctx, request).await?;
    let forward_of = match request.forward_of {
        Some(forward_of) => Some(forward_of.copy(ctx).await?),
        None => None,
    };
    let mentioned = mentioned(ctx, channel.id(), request.mentions.as_ref()).await?;
    Ok((channel, LookedUp { forward_of, mentioned }))
}

/// Answers a send that is refused now: with the message of the first one with its nonce, which was not refused.
async fn repeated(ctx: &Ctx, turn: Turn, request: SendMessage, refusal: ImksError) -> ImksResult<Answer> {
    if request.nonce.is_none() || refusal.is_retryable() {
        return Err(refusal);
    }
    // Whoever may not see the channel any more learns nothing of it.
    let Ok(channel) = ctx.visible(request.channel_id).await else { return Err(refusal) };
    let message = request.into_message(LookedUp::default(), clock::now_micros())?;
    match channel.submit_repeat(turn, message)?.await {
        Ok(Sent { message, duplicate }) => Ok(Answer { message, duplicate }),
        Err(ImksError::NotFound(_)) => Err(refusal),
        Err(error) => Err(error),
    }
}

async fn permitted(ctx: &Ctx, request: &SendMessage) -> ImksResult<Channel<Write>> {
    let permission =
        if request.thread_id.is_some() { Permission::SendInThreads } else { Permission::SendMessages };
    let channel = ctx.writable(request.channel_id, permission).await?;
    if let Some(mentions) = &request.mentions {
        require_mentions(ctx, request.channel_id, mentions).await?;
    }
    for (asked, permission) in [
        // The reply stands among the messages of the channel too.
        (request.also_send_to_channel, Permission::SendMessages),
        // A quote shows what was written before.
        (request.reply_to_message_id.is_some(), Permission::ReadHistory),
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

/// Checks the attachments that a message is to have.
pub(super) fn check_attachments(ids: &[Uuid]) -> ImksResult<()> {
    let distinct: HashSet<&Uuid> = ids.iter().collect();
    match distinct.len() == ids.len() && ids.len() <= ATTACHMENTS_MAX {
        true => Ok(()),
        false => {
            let reason = format!("has an item twice, or more than {ATTACHMENTS_MAX} items");
            Err(ImksError::invalid("attachments", reason))
        }
    }
}

impl SendMessage {
    /// Checks the rules that the types of the fields do not check.
    pub(super) fn check(&self) -> ImksResult<()> {
        match &self.body {
            Some(text) if self.stream => MessageBody::beginning(text.as_str()).map(drop)?,
            Some(text) => MessageBody::check(text, self.content_type == ContentType::E2ee)?,
            None if self.forward_of.is_some() || self.stream => {}
            None => {
                return Err(ImksError::InvalidField { field: "body".into(), reason: "is missing".into() });
            }
        }
        if self.stream && (self.content_type == ContentType::E2ee || self.poll.is_some()) {
            return Err(ImksError::invalid("stream", "must be false for a poll and for an encrypted body"));
        }
        if self.flags & !FLAGS_OF_CLIENTS != 0 {
            return Err(ImksError::invalid("flags", "has bits that are not known"));
        }
        check_attachments(&self.attachments)?;
        self.poll.iter().try_for_each(StartPoll::check)
    }

    /// Checks that the message can be sent without its author.
    pub(super) fn check_later(&self) -> ImksResult<()> {
        match self.stream {
            true => Err(ImksError::invalid("stream", "must be false for a scheduled message")),
            false => Ok(()),
        }
    }

    /// Checks the rules that hold for a message that is sent at `now`, and not for its repeats.
    fn check_times(&self, now: Micros) -> ImksResult<()> {
        self.expires_at.iter().try_for_each(|at| expiring::check(*at, now))?;
        self.poll.iter().try_for_each(|poll| poll.check_time(now))
    }

    /// Returns the message that is sent at `now`.
    pub(super) fn into_message(self, looked_up: LookedUp, now: Micros) -> ImksResult<NewMessage> {
        let LookedUp { forward_of, mentioned } = looked_up;
        let kind = match () {
            () if self.poll.is_some() => MessageType::Poll,
            () if self.content_type == ContentType::E2ee => MessageType::E2ee,
            () if self.forward_of.is_some() => MessageType::Forwarded,
            () if self.reply_to_message_id.is_some() => MessageType::Reply,
            () => MessageType::Default,
        };
        let body = match (self.body, self.content_type) {
            (Some(text), _) if self.stream => MessageBody::beginning(text)?,
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
            forward_of,
            forwards: self.forward_of.map(|forward| forward.message_id),
            mentions: self.mentions.unwrap_or_default(),
            mentioned,
            flags: self.flags,
            priority: self.priority,
            ack_requested: self.ack_requested,
            stream: self.stream,
            poll: self.poll.map(|poll| poll.start(now)).transpose()?,
            expires_at: self.expires_at.map(|Timestamp(at)| at),
            metadata: None,
            attachments: self.attachments,
            embeds: self.embeds,
            nonce: self.nonce,
            expect: self.expect,
            scheduled_id: None,
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
