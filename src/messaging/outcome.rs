//! The outcome of a request: its answer over Socket.IO, or its error, counted and logged.

use std::error::Error as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;

use super::budget::Reservation;
use super::metrics::{self, EventError};
use super::push::Push;
use crate::envelope::{ErrorBody, Failure, RequestId, Success};
use crate::error::Code;
use crate::models::text::Nonce;
use crate::socket::{self, Ack, Event, Lane, Socket};
use crate::telemetry::trace::Span;
use crate::{ImksError, ImksResult};

/// The outcome of a handler.
pub(super) struct Handled<Res> {
    pub data: Res,
    /// Held until the answer has left.
    pub room: Option<Reservation>,
}

impl<Res> Handled<Res> {
    pub(super) fn small(data: Res) -> Self {
        Self { data, room: None }
    }
}

/// Sends the ack, or an error to a client that did not request an ack, and ends the span of the request.
pub(super) fn answer<Res: Serialize>(
    event: &mut Event,
    outcome: ImksResult<Handled<Res>>,
    mut span: Option<Span>,
) {
    let request_id = RequestId::next();
    if LevelFilter::current() >= LevelFilter::DEBUG {
        let name = outcome.as_ref().map_or_else(|error| error.code().as_str(), |_| "ok");
        tracing::Span::current().record("outcome", name);
    }
    note_traced(&mut span, &outcome, &request_id);
    let Handled { data, room } = match outcome {
        Ok(handled) => handled,
        Err(error) => return fail_as(event, &error, &request_id),
    };
    note_answered(&event.logged_name(), Some(event.socket().id()), &request_id);
    let Some(ack) = event.take_ack() else { return };
    let envelope = Success::new(&data, &request_id).traced(span.as_ref().map(Span::parent));
    let sent = match room {
        // What needs room of its own is history, and what was missed: nobody waits behind it.
        Some(room) => ack.lane(Lane::Bulk).send_holding(&envelope, |bytes| room.for_bytes(bytes)),
        None => ack.send(&envelope),
    };
    note_sent(event.socket(), sent);
}

/// Sends an error as the requested ack, or else as the event `error`.
pub(super) fn fail(event: &mut Event, error: &ImksError) {
    fail_as(event, error, &RequestId::next());
}

/// Sends an error with the id that the span of the request has, too: as the requested ack, or else as the event `error`.
pub(super) fn fail_as(event: &mut Event, error: &ImksError, request_id: &RequestId) {
    note(&event.logged_name(), Some(event.socket().id()), error, request_id);
    if let Some(ack) = event.take_ack() {
        return note_sent(event.socket(), ack.send(&Failure::new(error, request_id)));
    }
    let nonce = event.first::<OnlyNonce>().ok().and_then(|request| request.nonce);
    let name = Some(event.logged_name().into());
    let payload = ErrorEvent { error: ErrorBody::new(error, request_id), event: name, nonce };
    ERROR.to_socket(event.socket(), &payload);
}

/// Records in the span of a request what came of it, and under which name the log and the client know it.
pub(super) fn note_traced<T>(span: &mut Option<Span>, outcome: &ImksResult<T>, request_id: &RequestId) {
    if let Some(span) = span {
        span.outcome(outcome);
        span.note("imks.request_id", request_id.to_string());
    }
}

/// Answers an event that exceeds a limit of the server. Its name was not read.
pub(super) fn refuse(socket: &Socket, refusal: &socket::EventError, ack: Option<Ack>) {
    let (error, request_id) = (ImksError::InvalidPayload(refusal.message.clone()), RequestId::next());
    note("", Some(socket.id()), &error, &request_id);
    if let Some(ack) = ack {
        return note_sent(socket, ack.send(&Failure::new(&error, &request_id)));
    }
    let payload = ErrorEvent { error: ErrorBody::new(&error, &request_id), event: None, nonce: None };
    ERROR.to_socket(socket, &payload);
}

/// Logs an answer that could not be sent.
pub(super) fn note_sent(socket: &Socket, sent: ImksResult<()>) {
    if let Err(error) = sent {
        tracing::debug!(socket_sid = socket.id(), %error, "answer not sent");
    }
}

/// Logs that a request has succeeded.
pub(super) fn note_answered(name: &str, sid: Option<&str>, request_id: &RequestId) {
    tracing::debug!(socket_sid = sid, event = name, %request_id, "request answered");
}

/// Counts and logs an error. Message bodies are never logged.
pub(super) fn note(name: &str, sid: Option<&str>, error: &ImksError, request_id: &RequestId) {
    match error.code() {
        Code::RateLimited => metrics::EVENT_ERRORS.of(EventError::RateLimited).increment(),
        // A peer that asks for too much at once must not fill the log, nor all those whom a stop turns away.
        code if code == Code::Overloaded || matches!(error, ImksError::Stopping) => {
            metrics::EVENT_ERRORS.of(EventError::Failed).increment();
            let cause = error.source().map(tracing::field::display);
            tracing::debug!(socket_sid = sid, event = name, %request_id, %error, cause, "request failed");
        }
        Code::Unavailable | Code::Timeout => {
            metrics::EVENT_ERRORS.of(EventError::Failed).increment();
            let cause = error.source().map(tracing::field::display);
            tracing::warn!(socket_sid = sid, event = name, %request_id, %error, cause, "request failed");
        }
        Code::Internal => {
            metrics::EVENT_ERRORS.of(EventError::Failed).increment();
            tracing::error!(socket_sid = sid, event = name, %request_id, ?error, "request failed");
        }
        code => {
            metrics::EVENT_ERRORS.of(EventError::Refused).increment();
            tracing::debug!(socket_sid = sid, event = name, %request_id, %code, "request refused");
        }
    }
}

/// The payload of the event `error`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ErrorEvent {
    #[serde(flatten)]
    error: ErrorBody,
    /// The name of the event, unless it exceeded a limit and was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
}

#[derive(Debug, Deserialize)]
struct OnlyNonce {
    #[serde(default)]
    nonce: Option<Nonce>,
}

/// Sent when a request without an ack fails.
pub(super) const ERROR: Push<ErrorEvent> = Push::new("error");

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::{Level, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    use super::*;

    /// The levels of what was logged.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().push(*event.metadata().level());
        }
    }

    fn levels(error: &ImksError) -> Vec<Level> {
        let levels = Levels::default();
        let subscriber = tracing_subscriber::registry().with(levels.clone());
        tracing::subscriber::with_default(subscriber, || {
            note("message:send", None, error, &RequestId::next());
        });
        levels.0.lock().clone()
    }

    #[test]
    fn who_is_refused_because_the_server_stops_is_no_warning() {
        assert_eq!(levels(&ImksError::Stopping), [Level::DEBUG]);
        assert_eq!(levels(&ImksError::Unavailable("database")), [Level::WARN]);
    }
}
