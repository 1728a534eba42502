//! The calls that write and read messages.

use std::collections::HashSet;

use uuid::Uuid;

use super::input::{at_most, id, ids, optional_id, request_id};
use super::{Caller, Ctx, metrics};
use crate::messaging::backend::{AnswerSize, Reservation};
use crate::models::append::Receipt;
use crate::models::channel_key::{Expect, NewValue};
use crate::models::message::{AuthorInfo, ContentType, FLAG_SILENT, MessageDetail, MessageType, Priority};
use crate::models::message_delete::DeleteMessages;
use crate::models::message_embed::Embeds;
use crate::models::message_mention::Mentioned;
use crate::models::message_page::{PAGE_LIMIT, Page, Position};
use crate::models::message_send::{NewMessage, Sent};
use crate::models::text::{MENTIONED_ROLES_MAX, MENTIONED_USERS_MAX, Mentions, MessageBody, Metadata, Nonce};
use crate::pb::control::{
    self, Content, DeleteMessagesRequest, DeleteMessagesResponse, Failure, GetMessagesRequest,
    GetMessagesResponse, Identity, SendMessageAsRequest, SendMessageAsResponse, SendMessagesRequest,
    SendMessagesResponse, SendResult, SendSystemMessageRequest, SendSystemMessageResponse, Stored, content,
    identity, send_result, send_system_message_request,
};
use crate::{ImksError, ImksResult};

/// `SendMessageAs`.
pub(super) async fn send_as(ctx: Ctx, request: SendMessageAsRequest) -> ImksResult<SendMessageAsResponse> {
    let sent = submit(&ctx, request).await?.await?;
    Ok(SendMessageAsResponse { stored: Some(stored(&sent)) })
}

/// `SendMessages`: all are queued in the order of the request, and then awaited together.
pub(super) async fn send_many(ctx: Ctx, request: SendMessagesRequest) -> ImksResult<SendMessagesResponse> {
    if request.messages.is_empty() {
        return Err(ImksError::invalid("messages", "is empty"));
    }
    at_most("messages", request.messages.len(), MESSAGES_MAX)?;
    let mut receipts = Vec::with_capacity(request.messages.len());
    for message in request.messages {
        receipts.push(submit(&ctx, message).await);
    }
    let mut results = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let outcome = match receipt {
            Ok(receipt) => receipt.await,
            Err(error) => Err(error),
        };
        let result = match outcome {
            Ok(sent) => send_result::Result::Stored(stored(&sent)),
            Err(error) => send_result::Result::Failure(failure(&error)),
        };
        results.push(SendResult { result: Some(result) });
    }
    Ok(SendMessagesResponse { results })
}

/// `SendSystemMessage`.
pub(super) async fn send_system(
    ctx: Ctx,
    request: SendSystemMessageRequest,
) -> ImksResult<SendSystemMessageResponse> {
    use send_system_message_request::Type;
    let kind = match request.r#type() {
        Type::Join => MessageType::SystemJoin,
        Type::Leave => MessageType::SystemLeave,
        Type::Rename => MessageType::SystemRename,
        Type::Pin => MessageType::SystemPin,
        Type::Unspecified => return Err(ImksError::invalid("type", "must be join, leave, rename or pin")),
    };
    let metadata = match request.metadata_json.as_str() {
        "" => None,
        json => Some(Metadata::new(json)?),
    };
    let (body, nonce) = (MessageBody::new(request.body)?, request_id(&request.request_id)?);
    let actor = match optional_id("actor_id", &request.actor_id)? {
        None => AuthorInfo { id: Uuid::nil(), username: SYSTEM.into() },
        Some(user) => {
            let user = ctx.backend().user(user).await?;
            AuthorInfo { id: user.id, username: (*user.username).into() }
        }
    };
    let channel = ctx.backend().channel(id("channel_id", &request.channel_id)?).await?;
    let message = NewMessage { metadata, ..message(kind, ContentType::Plain, body, nonce) };
    let sent = channel.submit(actor, message)?.await?;
    Ok(SendSystemMessageResponse { stored: Some(stored(&sent)) })
}

/// Returns the size of the answer to `GetMessages`.
pub(super) fn size(request: &GetMessagesRequest) -> AnswerSize {
    AnswerSize::of_messages(request.message_ids.len().max(limit(request) as usize))
}

/// `GetMessages`.
pub(super) async fn get(
    ctx: Ctx,
    room: Reservation,
    request: GetMessagesRequest,
) -> ImksResult<GetMessagesResponse> {
    let wanted = ids("message_ids", &request.message_ids, MESSAGES_MAX)?;
    if request.limit > PAGE_LIMIT {
        return Err(ImksError::invalid("limit", format!("must be at most {PAGE_LIMIT}")));
    }
    let channel = ctx.backend().channel(id("channel_id", &request.channel_id)?).await?;
    let (messages, has_more) = if wanted.is_empty() {
        let position = match request.before_seq {
            0 => Position::Latest,
            seq => Position::BeforeSeq(seq),
        };
        let page = Page { position, thread_id: None, limit: limit(&request) };
        let page = channel.page(&room, page).await?;
        (page.messages, page.has_more_before)
    } else {
        channel.messages(&room, &wanted).await?
    };
    let json = |message: &MessageDetail| serde_json::to_string(message);
    let messages_json = messages.iter().map(json).collect::<Result<_, _>>()?;
    Ok(GetMessagesResponse { messages_json, has_more })
}

fn limit(request: &GetMessagesRequest) -> u32 {
    if request.limit == 0 { PAGE_DEFAULT } else { request.limit }
}

/// `DeleteMessages`. The author of the deletions is the caller.
pub(super) async fn delete(ctx: Ctx, request: DeleteMessagesRequest) -> ImksResult<DeleteMessagesResponse> {
    if request.message_ids.is_empty() {
        return Err(ImksError::invalid("message_ids", "is empty"));
    }
    if request.reason.chars().count() > REASON_CHARS_MAX {
        return Err(ImksError::invalid("reason", format!("is longer than {REASON_CHARS_MAX} characters")));
    }
    let mut seen = HashSet::new();
    let mut message_ids = ids("message_ids", &request.message_ids, MESSAGES_MAX)?;
    message_ids.retain(|id| seen.insert(*id));
    let channel = ctx.backend().channel(id("channel_id", &request.channel_id)?).await?;
    let (name, reason) = (&*ctx.caller().name, request.reason.as_str());
    let deletions = channel.submit(caller_as_author(ctx.caller()), DeleteMessages { message_ids })?.await?;
    let (channel, count) = (&request.channel_id, deletions.deleted.len());
    tracing::info!(caller = name, channel, count, reason, "a back end deleted messages");
    let texts = |ids: Vec<Uuid>| ids.iter().map(Uuid::to_string).collect();
    Ok(DeleteMessagesResponse {
        deleted_ids: texts(deletions.deleted),
        missing_ids: texts(deletions.skipped),
    })
}

/// Queues the message of a bot or a webhook.
async fn submit(ctx: &Ctx, request: SendMessageAsRequest) -> ImksResult<Receipt<Sent>> {
    let (author, kind) = author(ctx.caller(), request.identity.as_ref())?;
    let content = request.content.ok_or_else(|| missing("content"))?;
    let message = NewMessage {
        expect: request.expect.map(expect).transpose()?,
        ..new_message(kind, content, request_id(&request.request_id)?)?
    };
    let channel = ctx.backend().channel(id("channel_id", &request.channel_id)?).await?;
    let mentioned = channel.mentioned(&message.mentions).await?;
    channel.submit(author, NewMessage { mentioned, ..message })
}

fn caller_as_author(caller: &Caller) -> AuthorInfo {
    AuthorInfo { id: caller.id, username: (*caller.name).into() }
}

/// Returns the author of a message, and its type.
pub(super) fn author(caller: &Caller, identity: Option<&Identity>) -> ImksResult<(AuthorInfo, MessageType)> {
    match identity {
        Some(identity) => named(caller, identity, ["identity.id", "identity.name"]),
        None => Ok((caller_as_author(caller), MessageType::Bot)),
    }
}

/// Returns who an identity is, and the type of their messages. The fields name its id and its name in errors.
pub(super) fn named(
    caller: &Caller,
    identity: &Identity,
    [id_field, name_field]: [&'static str; 2],
) -> ImksResult<(AuthorInfo, MessageType)> {
    let kind = match identity::Kind::try_from(identity.kind) {
        Ok(identity::Kind::Bot | identity::Kind::Unspecified) => MessageType::Bot,
        Ok(identity::Kind::Webhook) => MessageType::Webhook,
        Err(_) => {
            let field = format!("{}.kind", id_field.trim_end_matches(".id"));
            return Err(ImksError::invalid(field, "must be bot or webhook"));
        }
    };
    let name = if identity.name.is_empty() { &*caller.name } else { &*identity.name };
    if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        let reason = format!("must have 1 to {NAME_CHARS_MAX} characters, and no control characters");
        return Err(ImksError::invalid(name_field, reason));
    }
    let id = optional_id(id_field, &identity.id)?.unwrap_or(caller.id);
    Ok((AuthorInfo { id, username: name.into() }, kind))
}

pub(super) fn new_message(
    kind: MessageType,
    content: Content,
    nonce: Option<Nonce>,
) -> ImksResult<NewMessage> {
    let content_type = match content::Format::try_from(content.format) {
        Ok(content::Format::Markdown | content::Format::Unspecified) => ContentType::Markdown,
        Ok(content::Format::Plain) => ContentType::Plain,
        Err(_) => return Err(ImksError::invalid("content.format", "must be markdown or plain")),
    };
    let priority = match content::Priority::try_from(content.priority) {
        Ok(content::Priority::Normal | content::Priority::Unspecified) => Priority::Normal,
        Ok(content::Priority::Important) => Priority::Important,
        Ok(content::Priority::Urgent) => Priority::Urgent,
        Err(_) => {
            return Err(ImksError::invalid("content.priority", "must be normal, important or urgent"));
        }
    };
    let body = match content.stream {
        true => MessageBody::beginning(content.body)?,
        false => MessageBody::new(content.body)?,
    };
    Ok(NewMessage {
        priority,
        ack_requested: content.ack_requested,
        stream: content.stream,
        thread_id: optional_id("content.thread_id", &content.thread_id)?,
        reply_to_message_id: optional_id("content.reply_to_message_id", &content.reply_to_message_id)?,
        mentions: content.mentions.map(mentions).transpose()?.unwrap_or_default(),
        flags: if content.silent { FLAG_SILENT } else { 0 },
        ..message(kind, content_type, body, nonce)
    })
}

fn mentions(mentions: control::Mentions) -> ImksResult<Mentions> {
    Ok(Mentions {
        users: ids("content.mentions.user_ids", &mentions.user_ids, MENTIONED_USERS_MAX)?,
        roles: ids("content.mentions.role_ids", &mentions.role_ids, MENTIONED_ROLES_MAX)?,
        channel: mentions.channel,
        here: mentions.here,
    })
}

fn expect(expected: control::Expect) -> ImksResult<Expect> {
    let control::Expect { last_seq, key, version, value } = expected;
    match last_seq {
        None => NewValue::new(key, version, value).map(Expect::Key),
        Some(last_seq) if key.is_empty() && version == 0 && value.is_empty() => Ok(Expect::LastSeq(last_seq)),
        Some(_) => Err(ImksError::invalid("expect", "must be last_seq, or key, version and value")),
    }
}

/// Returns a message that no person sent.
pub(super) fn message(
    kind: MessageType,
    content_type: ContentType,
    body: MessageBody,
    nonce: Option<Nonce>,
) -> NewMessage {
    NewMessage {
        body,
        kind,
        content_type,
        thread_id: None,
        also_send_to_channel: false,
        reply_to_message_id: None,
        forward_of: None,
        forwards: None,
        expires_at: None,
        mentions: Mentions::default(),
        mentioned: Mentioned::default(),
        flags: 0,
        priority: Priority::Normal,
        ack_requested: false,
        stream: false,
        poll: None,
        attachments: Vec::new(),
        embeds: Embeds::default(),
        metadata: None,
        nonce,
        expect: None,
        scheduled_id: None,
        interactive: false,
    }
}

fn stored(sent: &Sent) -> Stored {
    let Sent { message, duplicate } = sent;
    Stored { message_id: message.id.to_string(), seq: message.seq, duplicate: *duplicate }
}

pub(super) fn failure(error: &ImksError) -> Failure {
    metrics::count(error);
    let wait = error.retry_after().unwrap_or_default();
    Failure {
        code: error.code().as_str().into(),
        message: error.client_message(),
        retryable: error.is_retryable(),
        retry_after_ms: i64::try_from(wait.as_millis()).unwrap_or(i64::MAX),
    }
}

pub(super) fn missing(field: &str) -> ImksError {
    ImksError::InvalidField { field: field.into(), reason: "is missing".into() }
}

/// The most messages that one call sends or names.
const MESSAGES_MAX: usize = 100;
const PAGE_DEFAULT: u32 = 50;
/// The longest reason of a deletion, in characters.
const REASON_CHARS_MAX: usize = 500;
/// The longest name of a bot or a webhook, in characters.
const NAME_CHARS_MAX: usize = 64;
/// The name that notices without an actor show.
const SYSTEM: &str = "system";
