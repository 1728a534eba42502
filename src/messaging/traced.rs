//! Where requests of clients become parts of traces: what clients say about their traces, and the first span of each
//! request.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::parts::Messaging;
use crate::socket::{ConnectPayload, Event, Socket};
use crate::telemetry::trace::Span;
use crate::telemetry::traceparent::TraceParent;

/// Begins the span of an event that arrived at `since`, if it is sampled. `name` is not the client's.
pub(super) fn event(
    messaging: &Messaging,
    name: &'static str,
    event: &Event,
    since: Instant,
) -> Option<Span> {
    let parent = || parent_of_request(event.args().first_json());
    let mut span = messaging.tracer()?.accept(name, parent)?;
    span.began(since.elapsed());
    note_socket(&mut span, event.socket());
    Some(span)
}

/// Begins the span of a request over HTTP, if it is sampled.
pub(super) fn call(
    messaging: &Messaging,
    name: &'static str,
    route: &'static str,
    parent: Option<TraceParent>,
) -> Option<Span> {
    let mut span = messaging.tracer()?.accept(name, || parent)?;
    span.note("http.route", route);
    Some(span)
}

/// Begins the span of a CONNECT, if it is sampled.
pub(super) fn connect(messaging: &Messaging, socket: &Socket, payload: &ConnectPayload) -> Option<Span> {
    let parent = || {
        let in_auth = payload.parse::<ConnectAuth>().ok().and_then(|auth| auth.traceparent);
        let text = in_auth.as_ref().and_then(Value::as_str);
        TraceParent::parse(text.or_else(|| socket.handshake().header("traceparent"))?)
    };
    let mut span = messaging.tracer()?.accept("socket.connect", parent)?;
    note_socket(&mut span, socket);
    span.note("imks.transport", socket.transport().name());
    Some(span)
}

fn note_socket(span: &mut Span, socket: &Socket) {
    span.note("imks.socket_sid", socket.id().to_owned());
    span.note("imks.namespace", socket.namespace().path().to_owned());
}

/// Reads `meta.traceparent` of a request. Anything else in its place is no parent.
fn parent_of_request(json: &str) -> Option<TraceParent> {
    // Most requests have none, and are not parsed once more.
    memchr::memmem::find(json.as_bytes(), FIELD)?;
    let request: WithMeta<'_> = serde_json::from_str(json).ok()?;
    TraceParent::parse(request.meta?.traceparent?.as_ref())
}

#[derive(Deserialize)]
struct WithMeta<'a> {
    #[serde(borrow, default)]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default)]
    traceparent: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ConnectAuth {
    #[serde(default)]
    traceparent: Option<Value>,
}

const FIELD: &[u8] = b"\"traceparent\"";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_request_names_its_trace_in_meta_and_nowhere_else() {
        let of = |json: String| parent_of_request(&json).map(|parent| parent.to_string());
        assert_eq!(
            of(format!(r#"{{"body":"x","meta":{{"traceparent":"{PARENT}"}}}}"#)).as_deref(),
            Some(PARENT)
        );
        for other in [
            format!(r#"{{"traceparent":"{PARENT}"}}"#),
            r#"{"meta":"traceparent","body":"\"traceparent\""}"#.to_owned(),
            r#"{"meta":{"traceparent":7}}"#.to_owned(),
            r#"{"meta":{"traceparent":null}}"#.to_owned(),
            format!(r#"{{"meta":{{"traceparent":"{PARENT}-x"}}}}"#),
            format!(r#"[{{"meta":{{"traceparent":"{PARENT}"}}}}"#),
        ] {
            assert_eq!(of(other.clone()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = parent_of_request(&text);
            let _ = parent_of_request(&format!(r#"{{"meta":{{"traceparent":{text}}}}}"#));
        }
    }
}
