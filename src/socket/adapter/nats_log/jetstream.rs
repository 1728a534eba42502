//! JetStream as the recovery log uses it: the settings of its streams, and what they answer.

use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Cause, ImksError, ImksResult};

/// What a stream says when a message is stored, or why it is not.
#[derive(Deserialize)]
pub(super) struct Receipt {
    #[serde(default)]
    pub(super) seq: u64,
    /// Whether the stream had the message already.
    #[serde(default)]
    pub(super) duplicate: bool,
    pub(super) error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) err_code: u64,
    pub(super) description: String,
}

#[derive(Deserialize)]
pub(super) struct Info {
    pub(super) error: Option<Refusal>,
    pub(super) config: Option<StreamConfig>,
    pub(super) state: Option<StreamState>,
}

#[derive(Deserialize)]
pub(super) struct StreamConfig {
    pub(super) subjects: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct StreamState {
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
}

#[derive(Deserialize)]
pub(super) struct Got {
    pub(super) error: Option<Refusal>,
    pub(super) message: Option<GotMessage>,
}

#[derive(Deserialize)]
pub(super) struct GotMessage {
    pub(super) seq: u64,
    pub(super) data: Option<String>,
}

/// The two streams of a bucket.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Entries,
    Sessions,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Entries => "log",
            Self::Sessions => "sessions",
        }
    }
}

pub(super) fn stream_config(name: &str, subject: &str, kind: Kind) -> Value {
    let (age, per_subject, messages, bytes) = match kind {
        Kind::Entries => (ENTRY_SECONDS, -1, ENTRIES_MAX, ENTRIES_BYTES_MAX),
        Kind::Sessions => (SESSION_SECONDS, 1, SESSIONS_MAX, SESSIONS_BYTES_MAX),
    };
    json!({
        "name": name, "subjects": [subject], "retention": "limits", "discard": "old", "storage": "memory",
        "max_age": age * 1_000_000_000, "max_msgs_per_subject": per_subject, "max_msgs": messages, "max_bytes": bytes,
        "num_replicas": 1, "duplicate_window": 120_000_000_000_i64, "allow_direct": true,
    })
}

/// Reads the answers to messages, which come in any order.
pub(super) async fn receipts(replies: &mut Subscriber, count: usize) -> ImksResult<Vec<Receipt>> {
    let mut receipts: Vec<Option<Receipt>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        let Message { subject, payload, status, .. } = replies.next().await.ok_or_else(unreadable)?;
        if status == Some(StatusCode::NO_RESPONDERS) {
            return Err(ImksError::AdapterNats(Cause::new("the stream of the recovery log is gone")));
        }
        let n = subject.rsplit('.').next().and_then(|n| n.parse::<usize>().ok()).ok_or_else(unreadable)?;
        *receipts.get_mut(n).ok_or_else(unreadable)? = Some(serde_json::from_slice(&payload)?);
    }
    receipts.into_iter().collect::<Option<_>>().ok_or_else(unreadable)
}

/// Returns the headers of a message that is stored once, however often it is sent.
pub(super) fn once(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id);
    headers
}

/// Returns the headers of a message that fails unless the last one of its subject has this sequence.
pub(super) fn expecting(sequence: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(EXPECTED, sequence.to_string());
    headers
}

/// Whether a message was refused because the last one of its subject has another sequence.
pub(super) fn is_conflict(refusal: &Refusal) -> bool {
    WRONG_SEQUENCE.contains(&refusal.err_code)
}

pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ImksError {
    ImksError::AdapterNats(Cause::new(error))
}

pub(super) fn refused(error: Option<Refusal>) -> ImksError {
    error.map_or_else(unreadable, |error| refused_because(&error))
}

pub(super) fn refused_because(error: &Refusal) -> ImksError {
    ImksError::AdapterNats(Cause::new(format!("JetStream: {} ({})", error.description, error.err_code)))
}

pub(super) fn lost() -> ImksError {
    ImksError::AdapterNats(Cause::new("the stream of the recovery log has lost entries"))
}

pub(super) fn unreadable() -> ImksError {
    ImksError::AdapterNats(Cause::new("an answer that is not one of the recovery log"))
}

/// The header that makes a message fail unless the last one of its subject has this sequence.
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// The codes of the error that the last message has another sequence than expected.
const WRONG_SEQUENCE: [u64; 2] = [10_071, 10_164];
/// The age of entries in seconds.
const ENTRY_SECONDS: u64 = 600;
/// The lifetime of a session that is not stored again in seconds. Those of connected clients are, at least every twenty
/// minutes.
pub(super) const SESSION_SECONDS: u64 = 3_600;
/// The maximum number of entries in a bucket. The oldest is dropped first.
const ENTRIES_MAX: i64 = 65_536;
/// The maximum size of the entries of a bucket in bytes. The oldest is dropped first.
const ENTRIES_BYTES_MAX: i64 = 64 << 20;
/// The maximum number of sessions in a bucket. The oldest is dropped first.
const SESSIONS_MAX: i64 = 1_048_576;
/// The maximum size of the sessions of a bucket in bytes. The oldest is dropped first.
const SESSIONS_BYTES_MAX: i64 = 128 << 20;
