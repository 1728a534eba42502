//! The delivery of one event: attempts with growing pauses until it is taken or given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::config::Config;
use super::metrics::{self, Attempt};
use super::signature::Keys;
use crate::clock::{self, Timestamp};
use crate::http_client::{HttpClient, Limits};
use crate::models::feed::Event;
use crate::secret::Secret;
use crate::telemetry::trace::{self, Span, SpanKind, Tracer};
use crate::{ImksError, ImksResult};

/// A receiver, as it is called.
pub(super) struct Receiver {
    url: Secret,
    /// Its address without credentials, for the log.
    pub name: String,
    client: HttpClient,
    keys: Arc<Keys>,
    deadline: Duration,
    give_up: Duration,
    tracer: Option<Tracer>,
    /// The number of events that it has taken.
    taken: AtomicU64,
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver took it.
    Taken,
    /// It was given up, for this reason.
    Dead(String),
    /// The receiver is gone (410).
    Gone,
}

/// The answer to one attempt.
enum Answer {
    Taken,
    Gone,
    Failed { reason: String, retry_after: Option<Duration> },
}

/// A message to a receiver.
pub(super) struct Letter {
    /// The `webhook-id`, which is the same in each attempt.
    pub id: String,
    pub body: Bytes,
}

/// The body.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    channel_id: Uuid,
    seq: i64,
    rev: i64,
    actor_id: Uuid,
    message: &'a RawValue,
}

impl Letter {
    pub(super) fn new(event: &Event) -> ImksResult<Self> {
        let Event { channel_id, seq, rev, actor_id, .. } = *event;
        let message = serde_json::from_str(&event.message)?;
        let data = Data { channel_id, seq, rev, actor_id, message };
        let body = serde_json::to_vec(&Body { kind: event.name, timestamp: Timestamp(event.at), data })?;
        // Named by the numbers of the channel, so that it stays the same on another node, and after a restore.
        let id = match rev {
            0 => format!("{channel_id}-seq-{seq}"),
            rev => format!("{channel_id}-rev-{rev}"),
        };
        Ok(Self { id, body: body.into() })
    }
}

impl Receiver {
    pub(super) fn new(
        url: &Secret,
        config: &Config,
        client: HttpClient,
        keys: Arc<Keys>,
        tracer: Option<Tracer>,
    ) -> Self {
        Self {
            url: url.clone(),
            name: url.to_string(),
            client,
            keys,
            deadline: config.deadline,
            give_up: config.give_up,
            tracer,
            taken: AtomicU64::new(0),
        }
    }

    /// Delivers a letter, however long it takes.
    pub(super) async fn deliver(&self, letter: &Letter) -> Outcome {
        let (started, taken_before) = (Instant::now(), self.taken.load(Ordering::Relaxed));
        let mut pause = FIRST_PAUSE;
        for attempt in 1_u32.. {
            let (reason, retry_after) = match self.attempt(letter, attempt).await {
                Answer::Taken => {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    return Outcome::Taken;
                }
                Answer::Gone => return Outcome::Gone,
                Answer::Failed { reason, retry_after } => (reason, retry_after),
            };
            tracing::debug!(
                receiver = self.name,
                id = letter.id,
                attempt,
                reason,
                "a webhook was not delivered"
            );
            let takes_others = self.taken.load(Ordering::Relaxed) > taken_before;
            if started.elapsed() >= self.give_up || takes_others && attempt >= ATTEMPTS_BESIDE_OTHERS {
                return Outcome::Dead(format!("{reason}, {attempt} attempts"));
            }
            sleep(retry_after.unwrap_or_else(|| clock::jittered(pause))).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
        Outcome::Dead("tried too often".into())
    }

    /// Delivers a letter once.
    pub(super) async fn once(&self, letter: &Letter) -> Outcome {
        match self.attempt(letter, 1).await {
            Answer::Taken => Outcome::Taken,
            Answer::Gone => Outcome::Gone,
            Answer::Failed { reason, .. } => Outcome::Dead(reason),
        }
    }

    /// Sends a letter once. Its event has waited in the database, so the attempt is a trace of its own.
    async fn attempt(&self, letter: &Letter, number: u32) -> Answer {
        let mut span = self.tracer.as_ref().and_then(|tracer| tracer.root("webhook", SpanKind::Client));
        let answer = trace::within(span.as_ref().map(Span::context), self.send(letter)).await;
        if let Some(span) = &mut span {
            span.note("imks.webhook_id", letter.id.clone());
            span.note("imks.attempt", i64::from(number));
            match &answer {
                Answer::Failed { .. } => span.failed(&ImksError::Unavailable("webhook")),
                Answer::Taken | Answer::Gone => span.succeeded(),
            }
        }
        answer
    }

    async fn send(&self, letter: &Letter) -> Answer {
        let request = match self.request(letter) {
            Ok(request) => request,
            Err(error) => return Answer::Failed { reason: error.to_string(), retry_after: None },
        };
        let limits = Limits { deadline: self.deadline, answer_bytes_max: ANSWER_BYTES_MAX };
        match self.client.deliver("webhook", request, limits).await {
            Ok(head) if head.status.is_success() => {
                metrics::ATTEMPTS.of(Attempt::Delivered).increment();
                Answer::Taken
            }
            Ok(head) if head.status == StatusCode::GONE => Answer::Gone,
            Ok(head) => {
                metrics::ATTEMPTS.of(Attempt::Refused).increment();
                let reason = format!("status {}", head.status.as_u16());
                Answer::Failed { reason, retry_after: retry_after(&head.headers) }
            }
            Err(error) => {
                metrics::ATTEMPTS.of(Attempt::Unanswered).increment();
                let reason = match error {
                    ImksError::Timeout(_) => "no answer in time".into(),
                    _ => "not reached".into(),
                };
                Answer::Failed { reason, retry_after: None }
            }
        }
    }

    fn request(&self, letter: &Letter) -> ImksResult<Request<http_body_util::Full<Bytes>>> {
        let seconds = clock::now_micros() / 1_000_000;
        let body =
            std::str::from_utf8(&letter.body).map_err(|_| ImksError::Internal("JSON that is not UTF-8"))?;
        let request = Request::post(self.url.expose())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("imks/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &letter.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", self.keys.sign(&letter.id, seconds, body)?)
            .body(letter.body.clone().into());
        request.map_err(|_| ImksError::Config("IMKS_WEBHOOK_URL is not a URL".into()))
    }
}

/// Returns how long a receiver asks to wait: `Retry-After` in seconds, at most [`RETRY_AFTER_MAX`].
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(FIRST_PAUSE, RETRY_AFTER_MAX))
}

/// The attempts for an event while the receiver takes others: then it is the event that is refused.
const ATTEMPTS_BESIDE_OTHERS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// The longest wait that a receiver can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// The part of an answer that is read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_may_ask_for_time_within_bounds() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("0"), Some(FIRST_PAUSE));
        assert_eq!(asked("99999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(asked("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
