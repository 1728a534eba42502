//! `message:send`: from a sender's event to a committed message.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::channel::{Channel, Scope, Write};
use super::ctx::Ctx;
use super::input::{MessageBody, Nonce};
use super::registry::Registry;
use super::turn::Turn;
use crate::auth::Permission;
use crate::models::append::{NewMessage, Outcome, Write as Append};
use crate::models::message::{ContentType, Mentions, MessageDetail, MessageType};
use crate::{ImksError, ImksResult};

/// The events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    let created = |sent: &Sent| if sent.duplicate { 200 } else { 201 };
    events.on_write("message:send", send).post("/channels/{channel_id}/messages", created);
}

/// Payload of `message:send`.
#[derive(Debug, Deserialize)]
struct SendMessage {
    channel_id: Uuid,
    body: MessageBody,
    #[serde(default)]
    thread_id: Option<Uuid>,
    #[serde(default)]
    reply_to_message_id: Option<Uuid>,
    #[serde(default)]
    nonce: Option<Nonce>,
    #[serde(default)]
    content_type: ContentType,
    #[serde(default)]
    mentions: Option<Mentions>,
    #[serde(default)]
    flags: i32,
    #[serde(default)]
    also_send_to_channel: bool,
    /// Parts that this version cannot store: refused rather than dropped in silence.
    #[serde(default)]
    attachments: Vec<Box<RawValue>>,
    #[serde(default)]
    embeds: Vec<Box<RawValue>>,
    #[serde(default)]
    poll: Option<Box<RawValue>>,
}

/// Answer to `message:send`.
#[derive(Debug, Serialize)]
struct Sent {
    #[serde(serialize_with = "shared")]
    message: Arc<MessageDetail>,
    duplicate: bool,
}

async fn send(ctx: Ctx, turn: Turn, request: SendMessage) -> ImksResult<Sent> {
    request.check()?;
    ctx.count_send(request.channel_id)?;
    let channel = permitted(&ctx, &request).await?;
    let receipt = channel.submit(turn, |scope| Append::Send(request.into_message(scope)))?;
    match receipt.await? {
        Outcome::Sent { message, duplicate } => Ok(Sent { message, duplicate }),
        Outcome::Edited { .. } | Outcome::Deleted { .. } => {
            Err(ImksError::Internal("a send became something else"))
        }
    }
}

async fn permitted(ctx: &Ctx, request: &SendMessage) -> ImksResult<Channel<Write>> {
    let permission =
        if request.thread_id.is_some() { Permission::SendInThreads } else { Permission::SendMessages };
    let channel = ctx.writable(request.channel_id, permission).await?;
    if let Some(mentions) = &request.mentions {
        require_mentions(ctx, request.channel_id, mentions).await?;
    }
    Ok(channel)
}

/// Calling for many people at once is a permission of its own.
pub(super) async fn require_mentions(ctx: &Ctx, channel: Uuid, mentions: &Mentions) -> ImksResult<()> {
    if mentions.channel || mentions.here {
        ctx.require(channel, Permission::MentionEveryone).await?;
    }
    if !mentions.roles.is_empty() {
        ctx.require(channel, Permission::MentionRoles).await?;
    }
    Ok(())
}

/// Limits of the lists of mentions.
pub(super) fn check_mentions(mentions: Option<&Mentions>) -> ImksResult<()> {
    let Some(mentions) = mentions else { return Ok(()) };
    if mentions.users.len() > MENTIONED_USERS_MAX {
        return Err(ImksError::invalid("mentions", format!("has more than {MENTIONED_USERS_MAX} users")));
    }
    if mentions.roles.len() > MENTIONED_ROLES_MAX {
        return Err(ImksError::invalid("mentions", format!("has more than {MENTIONED_ROLES_MAX} roles")));
    }
    Ok(())
}

impl SendMessage {
    fn check(&self) -> ImksResult<()> {
        check_mentions(self.mentions.as_ref())?;
        if self.flags & !FLAGS_OF_CLIENTS != 0 {
            return Err(ImksError::invalid("flags", "has bits that are not known"));
        }
        for (field, given) in [
            ("attachments", !self.attachments.is_empty()),
            ("embeds", !self.embeds.is_empty()),
            ("poll", self.poll.is_some()),
        ] {
            if given {
                return Err(ImksError::invalid(field, "is not supported by this version"));
            }
        }
        Ok(())
    }

    fn into_message(self, scope: Scope) -> NewMessage {
        let kind = match self.reply_to_message_id {
            Some(_) => MessageType::Reply,
            None => MessageType::Default,
        };
        NewMessage {
            channel_id: scope.channel_id,
            author: scope.actor,
            body: self.body.into_string(),
            kind,
            content_type: self.content_type,
            thread_id: self.thread_id,
            also_send_to_channel: self.also_send_to_channel,
            reply_to_message_id: self.reply_to_message_id,
            mentions: self.mentions.unwrap_or_default(),
            flags: self.flags,
            nonce: self.nonce.map(Nonce::into_string),
            interactive: true,
            slow_mode: scope.slow_mode,
        }
    }
}

/// Serialises what an `Arc` holds.
pub(super) fn shared<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

const MENTIONED_USERS_MAX: usize = 100;
const MENTIONED_ROLES_MAX: usize = 20;
/// Silent, no embeds, no notification for mentions.
const FLAGS_OF_CLIENTS: i32 = 0b111;

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
        for field in
            [r#""attachments":["x"]"#, r#""poll":{}"#, r#""embeds":[{}]"#, r#""flags":8"#, r#""flags":-1"#]
        {
            let error = parse(&format!(r#"{{"channel_id":"{CHANNEL}","body":"hi",{field}}}"#)).unwrap_err();
            assert_eq!(error.code(), "invalid_input", "{field}");
        }
    }
}
