//! Incoming webhooks: programs without an account post into a channel, under a secret address
//! (docs/webhooks.md, "Incoming webhooks"). `http` mounts them.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::Control;
use super::input::request_id;
use super::messages::message;
use super::operation::KEY_FIELD;
use crate::contract::{Audience, Contract, Place};
use crate::envelope::{RequestId, Success};
use crate::messaging::api::{Answer, Call, Method, parse};
use crate::models::message::{AuthorInfo, ContentType, MessageType, Priority};
use crate::models::message_send::NewMessage;
use crate::models::text::{MessageBody, Metadata, Nonce};
use crate::rate_limit::{Limiter, Rate, network};
use crate::{ImksError, ImksResult};

/// What a program posts. The names of the fields are those of several products, so that what exists can post as it is;
/// other fields are ignored.
#[derive(Debug, Deserialize, JsonSchema)]
struct Post {
    /// The message, in Markdown. Of `text`, `content` and `body` the first that is there counts, and one is needed.
    text: Option<String>,
    /// The message, if there is no `text`.
    content: Option<String>,
    /// The message, if there is neither `text` nor `content`.
    body: Option<String>,
    /// Another name than the webhook's, up to 64 characters.
    username: Option<String>,
    /// Another picture than the webhook's: an address that starts with `https://` or `http://`.
    avatar_url: Option<String>,
    /// The picture, if there is no `avatar_url`.
    icon_url: Option<String>,
    /// How much the message matters.
    priority: Option<Importance>,
    /// Whether readers are asked to acknowledge the message.
    ack_requested: Option<bool>,
}

/// How much a message matters, in the form of this product or in that of Mattermost.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "no priority, expected one of `normal`, `important`, `urgent`")]
enum Importance {
    /// The priority alone.
    Plain(Priority),
    /// What Mattermost has beside it.
    Detailed {
        /// The priority.
        priority: Option<Priority>,
        /// Whether readers are asked to acknowledge the message.
        requested_ack: Option<bool>,
    },
}

impl Post {
    /// Returns how much the message matters, and whether readers are asked to acknowledge it.
    fn importance(&self) -> (Priority, bool) {
        let (priority, ack) = match self.priority {
            None => (None, None),
            Some(Importance::Plain(priority)) => (Some(priority), None),
            Some(Importance::Detailed { priority, requested_ack }) => (priority, requested_ack),
        };
        (priority.unwrap_or_default(), self.ack_requested.or(ack).unwrap_or_default())
    }
}

/// A post with its address and its key.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "what it describes is read in three places")]
struct Request {
    /// The secret part of the address.
    token: String,
    /// Makes a repeat safe for 24 hours.
    request_id: Option<Nonce>,
    #[serde(flatten)]
    post: Post,
}

/// A field with the name that the program has given it.
#[derive(Debug)]
struct Field {
    name: &'static str,
    value: String,
}

/// The answer to a post.
#[derive(Debug, Serialize, JsonSchema)]
struct Posted {
    /// The message.
    message_id: Uuid,
    /// The number of the message in its channel.
    seq: i64,
    /// Whether an earlier post stored it.
    duplicate: bool,
}

/// Tells programs of the route.
pub fn describe(contract: &mut Contract) {
    contract.endpoint::<Request, Posted>(PLACE);
}

/// The rate limits of incoming webhooks.
pub(super) struct Limits {
    webhooks: Limiter<Uuid>,
    networks: Limiter<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { webhooks: Limiter::new(WEBHOOK_RATE), networks: Limiter::new(NETWORK_RATE) }
    }
}

impl Limits {
    /// Removes idle rate limits. Called periodically.
    pub(super) fn sweep(&self, now: Instant) {
        self.webhooks.sweep(now);
        self.networks.sweep(now);
    }
}

impl Control {
    /// Answers a post to an incoming webhook. The token is the parameter `token` of the path.
    pub async fn post_to_webhook(&self, call: &Call) -> Answer {
        let request_id = RequestId::next();
        match Box::pin(self.posted(call)).await {
            Ok(posted) => Answer::success(200, &Success::new(&posted, &request_id), None),
            Err(error) => {
                tracing::debug!(%error, %request_id, "a post to an incoming webhook was refused");
                Answer::failure(&error, &request_id)
            }
        }
    }

    async fn posted(&self, call: &Call) -> ImksResult<Posted> {
        let limits = &self.0.incoming;
        let refuse = |retry_after| ImksError::RateLimited { bucket: "webhook", retry_after };
        let address = call.peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| network(peer.ip()));
        limits.networks.take(address, Instant::now()).map_err(refuse)?;
        let token = call.parameters.iter().find(|(name, _)| name == "token").map(|(_, token)| token.as_str());
        let token = token.filter(|token| is_token(token)).ok_or(UNKNOWN)?;
        let webhook = self.0.backend.incoming_webhook(token).await?;
        let webhook = webhook.filter(|webhook| webhook.enabled).ok_or(UNKNOWN)?;
        limits.webhooks.take(webhook.id, Instant::now()).map_err(refuse)?;
        let post = read(&call.body)?;
        let key = call.idempotency_key.as_deref().unwrap_or_default();
        let (name, message) = written((webhook.name, webhook.avatar), post, key)?;
        let author = AuthorInfo { id: webhook.id, username: name.into() };
        let channel = self.0.backend.channel(webhook.channel_id).await?;
        let sent = channel.submit(author, message)?.await?;
        Ok(Posted { message_id: sent.message.id, seq: sent.message.seq, duplicate: sent.duplicate })
    }
}

/// Returns the name of the author, and the message. The webhook has a name and a picture for posts without them.
fn written((name, avatar): (String, String), post: Post, key: &str) -> ImksResult<(String, NewMessage)> {
    let (priority, ack_requested) = post.importance();
    let name = post.username.filter(|name| !name.trim().is_empty()).unwrap_or(name);
    if name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        let rule = format!("must have at most {NAME_CHARS_MAX} characters, and no control characters");
        return Err(ImksError::invalid("username", rule));
    }
    let picture = first(AVATAR, [post.avatar_url, post.icon_url]).filter(|picture| !picture.value.is_empty());
    let picture = picture.unwrap_or(Field { name: AVATAR[0], value: avatar });
    let text = first(TEXT, [post.text, post.content, post.body]);
    let Field { name: field, value } = text.ok_or_else(|| wrong(TEXT[0], "is missing"))?;
    let nonce = request_id(key).map_err(|error| about("idempotency-key", error))?;
    let body = MessageBody::new(value).map_err(|error| about(field, error))?;
    let message = NewMessage {
        metadata: metadata(&picture)?,
        priority,
        ack_requested,
        ..message(MessageType::Webhook, ContentType::Markdown, body, nonce)
    };
    Ok((name, message))
}

/// Reads JSON, or a form whose field `payload` is JSON.
fn read(body: &Bytes) -> ImksResult<Post> {
    let mut form = form_urlencoded::parse(body);
    let payload = form.find(|(name, _)| body.starts_with(b"payload=") && name == "payload");
    let body = payload.map_or_else(|| body.clone(), |(_, payload)| payload.into_owned().into());
    parse(&Call { body, ..Call::default() }.payload(PLACE.method, PLACE.key_field)?)
}

/// Returns the first field that is there.
fn first<const N: usize>(names: [&'static str; N], values: [Option<String>; N]) -> Option<Field> {
    let mut fields = names.into_iter().zip(values);
    fields.find_map(|(name, value)| Some(Field { name, value: value? }))
}

fn wrong(field: &str, reason: &str) -> ImksError {
    ImksError::InvalidField { field: field.into(), reason: reason.into() }
}

/// Gives the field of an error the name that the program knows.
fn about(field: &'static str, error: ImksError) -> ImksError {
    match error {
        ImksError::InvalidInput { reason, .. } => ImksError::invalid(field, reason),
        other => other,
    }
}

/// Whether a text has the form of a token, so that the core is worth asking.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Returns what a message says about its picture, if it has one.
fn metadata(picture: &Field) -> ImksResult<Option<Metadata>> {
    let Field { name, value: picture } = picture;
    if picture.is_empty() {
        return Ok(None);
    }
    let is_web = picture.starts_with("https://") || picture.starts_with("http://");
    if !is_web
        || picture.len() > URL_BYTES_MAX
        || picture.chars().any(|c| c.is_control() || c.is_whitespace())
    {
        let rule = format!(
            "must be an address of at most {URL_BYTES_MAX} bytes that starts with https:// or http://, \
             without white space and control characters"
        );
        return Err(ImksError::invalid(*name, rule));
    }
    Metadata::new(json!({ "avatar_url": picture }).to_string()).map(Some)
}

/// The route.
pub const PLACE: Place = Place {
    name: "PostToWebhook",
    method: Method::Post,
    path: "/webhooks/{token}",
    statuses: &[200],
    audience: Audience::Everybody,
    key_field: KEY_FIELD,
};
/// The names of the fields of a text and a picture, the first ones before the others.
const TEXT: [&str; 3] = ["text", "content", "body"];
const AVATAR: [&str; 2] = ["avatar_url", "icon_url"];
/// The error for a token that stands for nothing, or for a webhook that takes nothing at the moment.
const UNKNOWN: ImksError = ImksError::NotFound("webhook");
/// The largest post, in bytes.
pub const POST_BYTES_MAX: usize = 64 << 10;
/// The rate of posts to one webhook.
const WEBHOOK_RATE: Rate = Rate::new(5, 30);
/// The rate of posts from one IPv4 address or IPv6 network, whatever their token is: it bounds how often the core is asked.
const NETWORK_RATE: Rate = Rate::new(100, 200);
const TOKEN_BYTES_MIN: usize = 16;
/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 128;
/// The longest name of an author, in characters.
const NAME_CHARS_MAX: usize = 64;
/// The longest address of a picture, in bytes.
const URL_BYTES_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of the author, the text, and the picture; or what is wrong.
    fn posted(body: &str) -> ImksResult<(String, NewMessage)> {
        written(("hook".into(), String::new()), read(&Bytes::copy_from_slice(body.as_bytes()))?, "")
    }

    #[test]
    fn what_several_products_post_is_read() {
        for body in [
            r#"{"text":"hi","username":"ci","icon_url":"https://x.example/i.png","blocks":[]}"#,
            r#"{"content":"hi","username":"ci","avatar_url":"https://x.example/i.png","token":7}"#,
            "payload=%7B%22text%22%3A%22hi%22%2C%22username%22%3A%22ci%22%2C%22icon_url%22%3A%22https%3A%2F%2Fx.example%2Fi.png%22%7D",
        ] {
            let (name, message) = posted(body).unwrap();
            let metadata = message.metadata.unwrap();
            assert_eq!((&*name, message.body.as_str()), ("ci", "hi"));
            assert_eq!(metadata.as_str(), r#"{"avatar_url":"https://x.example/i.png"}"#);
        }
    }

    #[test]
    fn of_several_names_the_first_counts_and_null_is_nothing() {
        for body in [
            r#"{"content":"no","body":"no","text":"hi"}"#,
            r#"{"text":null,"content":"hi","username":null,"priority":null}"#,
        ] {
            let (name, message) = posted(body).unwrap();
            assert_eq!((message.body.as_str(), &*name, message.priority), ("hi", "hook", Priority::Normal));
            assert!(message.metadata.is_none() && !message.ack_requested);
        }
    }

    #[test]
    fn how_much_a_message_matters_is_said_in_two_forms() {
        for fields in [
            r#""priority":"urgent","ack_requested":true"#,
            r#""priority":{"priority":"urgent","requested_ack":true,"persistent_notifications":true}"#,
        ] {
            let (_, message) = posted(&format!(r#"{{"text":"hi",{fields}}}"#)).unwrap();
            assert_eq!((message.priority, message.ack_requested), (Priority::Urgent, true), "{fields}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_post_is_said_in_words_for_people() {
        for (body, sentence) in [
            ("hi", "The body must be JSON"),
            (r#"["hi"]"#, "The body must be an object"),
            ("", "text: is missing"),
            ("{}", "text: is missing"),
            (r#"{"text":null}"#, "text: is missing"),
            (r#"{"content":1}"#, "content: must be text"),
            (r#"{"text":"hi","icon_url":[]}"#, "icon_url: must be text"),
            (r#"{"text":"hi","priority":"high"}"#, "priority: must be one of normal, important, urgent"),
            (r#"{"text":"hi","ack_requested":"yes"}"#, "ack_requested: must be true or false"),
            ("payload=", "text: is missing"),
            ("payload=%7B", "The body must be JSON"),
        ] {
            let error = posted(body).unwrap_err();
            assert_eq!((error.code().as_str(), &*error.client_message()), ("invalid_payload", sentence));
        }
    }

    #[test]
    fn only_an_address_in_the_web_is_a_picture() {
        let metadata = |url: &str| super::metadata(&Field { name: AVATAR[1], value: url.into() });
        assert!(metadata("").unwrap().is_none());
        assert!(metadata("https://x.example/a.png").unwrap().is_some());
        let long = format!("https://{}", "x".repeat(2_048));
        for url in ["javascript:alert(1)", "https://x y", &long] {
            let error = metadata(url).unwrap_err();
            assert_eq!(error.code(), "invalid_input");
            assert!(error.client_message().starts_with("icon_url: "), "{error}");
        }
    }
}
