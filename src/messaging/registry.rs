//! One registration function: it parses once, counts, times, answers, and turns errors into their wire shape.

use std::future::{Ready, ready};

use futures_util::future::Either;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::Instrument;

use super::ctx::{Ctx, Messaging, Push};
use super::input;
use super::metrics::{self, EventError};
use super::wire::{ErrorBody, Failure, RequestId, Success};
use crate::error::Code;
use crate::socket::{Ack, Event, NamespaceBuilder};
use crate::{ImksError, ImksResult};

/// Registers the events of the features.
pub struct Registry<'a> {
    builder: &'a mut NamespaceBuilder,
    messaging: Messaging,
}

impl<'a> Registry<'a> {
    /// Registers on `builder`.
    pub fn new(builder: &'a mut NamespaceBuilder, messaging: &Messaging) -> Self {
        Self { builder, messaging: messaging.clone() }
    }

    /// Handles an event whose first argument is a `Req` and whose answer is a `Res`.
    ///
    /// Handlers of one connection start in the order in which their events arrived.
    pub fn on<Req, Res, F, Fut>(&mut self, name: &'static str, handler: F) -> &mut Self
    where
        Req: DeserializeOwned,
        Res: Serialize + Send + 'static,
        F: Fn(Ctx, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
        let (messaging, seconds) = (self.messaging.clone(), metrics::EVENT_SECONDS.child(name));
        self.builder.on(name, move |event: Event| {
            let (started, seconds) = (Instant::now(), seconds.clone());
            let handling = match begin(&messaging, &event) {
                Ok((ctx, request)) => Either::Left(handler(ctx, request)),
                Err(error) => Either::Right(refused(error)),
            };
            let span = tracing::debug_span!("event", name, socket_sid = event.socket().id(), namespace = "/");
            async move {
                answer(event, handling.await);
                seconds.record(started.elapsed());
            }
            .instrument(span)
        });
        self
    }

    /// Answers every event that has no handler.
    pub fn refuse_unknown(&mut self) {
        let (messaging, seconds) = (self.messaging.clone(), metrics::EVENT_SECONDS.child(UNKNOWN));
        self.builder.on_unknown(move |event: Event| {
            let outcome = Ctx::begin(&messaging, event.socket()).and(Err::<(), _>(ImksError::UnknownEvent));
            answer(event, outcome);
            seconds.record(std::time::Duration::ZERO);
            ready(())
        });
    }
}

fn refused<T>(error: ImksError) -> Ready<ImksResult<T>> {
    ready(Err(error))
}

fn begin<Req: DeserializeOwned>(messaging: &Messaging, event: &Event) -> ImksResult<(Ctx, Req)> {
    let ctx = Ctx::begin(messaging, event.socket())?;
    Ok((ctx, input::request(event.args())?))
}

/// Acks, or tells an error to who did not ask for an ack.
fn answer<Res: Serialize>(mut event: Event, outcome: ImksResult<Res>) {
    let request_id = RequestId::next();
    let sent = match (outcome, event.take_ack()) {
        (Ok(data), Some(ack)) => ack.send(&Success::new(&data, &request_id)),
        (Ok(_), None) => Ok(()),
        (Err(error), ack) => {
            note(&event, &error, &request_id);
            fail(&event, ack, &error, &request_id)
        }
    };
    if let Err(error) = sent {
        tracing::debug!(socket_sid = event.socket().id(), %error, "answer not sent");
    }
}

fn fail(event: &Event, ack: Option<Ack>, error: &ImksError, request_id: &RequestId) -> ImksResult<()> {
    if let Some(ack) = ack {
        return ack.send(&Failure::new(error, request_id));
    }
    let nonce = event.first::<OnlyNonce>().ok().and_then(|request| request.nonce);
    let name = event.name().chars().take(EVENT_NAME_CHARS_MAX).collect();
    let told = ErrorEvent { error: ErrorBody::new(error, request_id), event: name, nonce };
    ERROR.to_socket(event.socket(), &told);
    Ok(())
}

/// Counts and logs a refusal. Bodies are never logged.
fn note(event: &Event, error: &ImksError, request_id: &RequestId) {
    let (sid, name) = (event.socket().id(), event.name());
    match error.code() {
        Code::RateLimited => metrics::EVENT_ERRORS.of(EventError::RateLimited).increment(),
        Code::Unavailable | Code::Overloaded | Code::Timeout => {
            metrics::EVENT_ERRORS.of(EventError::Failed).increment();
            tracing::warn!(socket_sid = sid, event = name, %request_id, %error, "event failed");
        }
        Code::Internal => {
            metrics::EVENT_ERRORS.of(EventError::Failed).increment();
            tracing::error!(socket_sid = sid, event = name, %request_id, ?error, "event failed");
        }
        code => {
            metrics::EVENT_ERRORS.of(EventError::Refused).increment();
            tracing::debug!(socket_sid = sid, event = name, %request_id, %code, "event refused");
        }
    }
}

/// Payload of the event `error`.
#[derive(Debug, Serialize)]
struct ErrorEvent<'a> {
    #[serde(flatten)]
    error: ErrorBody<'a>,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<input::Nonce>,
}

#[derive(Debug, Deserialize)]
struct OnlyNonce {
    #[serde(default)]
    nonce: Option<input::Nonce>,
}

/// Sent for a request without an ack.
const ERROR: Push<ErrorEvent<'_>> = Push::new("error");
/// Label of all events without a handler: names from peers must not become time series.
const UNKNOWN: &str = "unknown";
/// That much of an unknown name goes back to the peer.
const EVENT_NAME_CHARS_MAX: usize = 64;
