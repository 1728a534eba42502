//! Messages in their simplest form: a text or some bytes for a target, and what became of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ClientResult;
use super::handle::nonce;
use super::socket::Socket;
use crate::socket::Binary;

/// What the server said to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendResult {
    /// Whether the server has taken the message.
    pub success: bool,
    /// The id of the message, where the server has given it one.
    pub message_id: Option<String>,
    /// Why the server has refused it, for people.
    pub error_message: Option<String>,
}

impl Socket {
    /// Sends a text to a channel of imks through the outbox, with a nonce, and waits until it is stored or refused.
    ///
    /// # Errors
    /// Those of [`Socket::send`] and [`Delivery::acknowledged`](crate::client::Delivery::acknowledged): nobody knows then
    /// whether it was stored, and the outbox may still send it.
    pub async fn send_text_message(&self, channel_id: &str, text: &str) -> ClientResult<SendResult> {
        self.deliver("message:send", &json!({ "channel_id": channel_id, "body": text, "nonce": nonce() }))
            .await
    }

    /// Sends bytes to an application through the outbox, as the event `event` with one argument: `target`, `nonce` and, as
    /// a binary attachment, `content`. imks hands events that it does not know to the operator's application.
    ///
    /// # Errors
    /// As [`Socket::send_text_message`].
    pub async fn send_binary_message(
        &self,
        target: &str,
        content: impl Into<Bytes>,
        event: &str,
    ) -> ClientResult<SendResult> {
        let message = BinaryMessage { target, nonce: nonce(), content: Binary(content.into()) };
        self.deliver(event, &message).await
    }

    async fn deliver(&self, event: &str, message: &impl Serialize) -> ClientResult<SendResult> {
        let answer: Answer = self.send(event, message).await?.acknowledged().await?;
        Ok(answer.into())
    }
}

#[derive(Serialize)]
struct BinaryMessage<'a> {
    target: &'a str,
    nonce: String,
    content: Binary,
}

/// The answer of imks, and of every server that answers in its way. What else an application says is its own.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    error: Value,
}

impl From<Answer> for SendResult {
    fn from(answer: Answer) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            success: answer.ok,
            message_id: text(&answer.data["message"]["id"]),
            error_message: text(&answer.error["message"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_became_of_the_message() {
        let read = |json: &str| SendResult::from(serde_json::from_str::<Answer>(json).unwrap());
        let stored = read(r#"{"ok":true,"data":{"message":{"id":"m","seq":1},"more":2}}"#);
        assert_eq!(
            (stored.success, stored.message_id.as_deref(), stored.error_message),
            (true, Some("m"), None)
        );
        let refused = read(r#"{"ok":false,"error":{"code":"forbidden","message":"no","retryable":false}}"#);
        assert_eq!(
            (refused.success, refused.message_id, refused.error_message.as_deref()),
            (false, None, Some("no"))
        );
        for other in [r#"{"ok":true}"#, r#"{"ok":true,"data":{"message":"kept"},"error":null}"#] {
            let stored = read(other);
            assert_eq!((stored.success, stored.message_id, stored.error_message), (true, None, None));
        }
    }
}
