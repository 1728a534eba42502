//! Traces: the spans of requests that are sampled, and the context that follows a request through the server.
//!
//! A request that is not sampled has no context: what it passes costs a look at an empty variable, and allocates nothing
//! (docs/adr/0070).

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, FutureExt};
use opentelemetry::{KeyValue, Value};
use opentelemetry_proto::tonic::Attributes;
pub use opentelemetry_proto::tonic::trace::v1::Span as SpanData;
use opentelemetry_proto::tonic::trace::v1::Status;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::sync::mpsc;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

use super::metrics::{self, SpanEnd};
use super::traceparent::{SpanId, TraceId, TraceParent};
use crate::clock::now_micros;
use crate::{ImksError, ImksResult};

/// Which requests are traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// The share of the requests that are traced, from 0 to 1.
    pub ratio: f64,
    /// Whether a client that says so decides instead.
    pub parent_based: bool,
    /// Whether what clients say about sampling is believed. Otherwise only their ids are taken: whoever may send any flag
    /// could have everything recorded.
    pub trusts_clients: bool,
}

impl Sampling {
    /// Whether any request can be traced.
    pub fn is_on(&self) -> bool {
        self.ratio > 0.0 || (self.parent_based && self.trusts_clients)
    }

    /// Decides about a request with this parent. `random` is a number of its own.
    fn samples(&self, parent: Option<&TraceParent>, random: u64) -> bool {
        match parent.filter(|_| self.trusts_clients) {
            Some(parent) if self.parent_based => parent.sampled,
            // The last half of a trace's id is random, and the same on all nodes.
            Some(parent) => self.is_below(u128::from_be_bytes(*parent.trace_id.bytes()) as u64),
            None => self.is_below(random),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a ratio needs no 64 bits")]
    fn is_below(&self, number: u64) -> bool {
        // Fifty-three bits are exact, and below one.
        ((number >> 11) as f64) < self.ratio * (1_u64 << 53) as f64
    }
}

/// Decides which requests are traced, and takes their spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    sampling: Sampling,
    /// Where spans wait for the exporter. What finds no room is dropped, and counted.
    ended: mpsc::Sender<SpanData>,
}

impl Tracer {
    /// Creates a tracer whose ended spans go into this queue.
    pub fn new(sampling: Sampling, ended: mpsc::Sender<SpanData>) -> Self {
        Self(Arc::new(Shared { sampling, ended }))
    }

    /// Begins the first span of a request of a client, if the request is sampled. `parent` is what the client says, which
    /// is read only where it counts.
    pub fn accept(&self, name: &str, parent: impl FnOnce() -> Option<TraceParent>) -> Option<Span> {
        let sampling = &self.0.sampling;
        if !sampling.trusts_clients && !sampling.samples(None, random()) {
            return None;
        }
        let parent = parent();
        if sampling.trusts_clients && !sampling.samples(parent.as_ref(), random()) {
            return None;
        }
        let trace_id = parent.map_or_else(new_trace_id, |parent| Some(parent.trace_id))?;
        self.begin(trace_id, parent.map(|parent| parent.span_id), name, SpanKind::Server)
    }

    /// Begins a span of a trace that another node records.
    pub fn join(&self, parent: &TraceParent, name: &str, kind: SpanKind) -> Option<Span> {
        parent.sampled.then(|| self.begin(parent.trace_id, Some(parent.span_id), name, kind))?
    }

    /// Begins a trace of something that no client asks for, if it is sampled.
    pub fn root(&self, name: &str, kind: SpanKind) -> Option<Span> {
        let is_sampled = self.0.sampling.samples(None, random());
        is_sampled.then(|| self.begin(new_trace_id()?, None, name, kind))?
    }

    fn begin(&self, trace_id: TraceId, parent: Option<SpanId>, name: &str, kind: SpanKind) -> Option<Span> {
        let span_id = SpanId::new(random().to_be_bytes())?;
        let data = SpanData {
            trace_id: trace_id.bytes().to_vec(),
            span_id: span_id.bytes().to_vec(),
            parent_span_id: parent.map(|id| id.bytes().to_vec()).unwrap_or_default(),
            flags: FLAG_SAMPLED,
            name: name.into(),
            kind: kind.into(),
            start_time_unix_nano: nanos(),
            ..SpanData::default()
        };
        let context = Context(Arc::new(Position { tracer: self.clone(), trace_id, span_id }));
        Some(Span(Box::new(Open { context, data, began: Instant::now(), outcome: None })))
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Tracer").field(&self.0.sampling).finish()
    }
}

/// A span that further spans can be parts of. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Position>);

struct Position {
    tracer: Tracer,
    trace_id: TraceId,
    span_id: SpanId,
}

impl Context {
    /// Begins a span that is a part of this one.
    pub fn child(&self, name: &str, kind: SpanKind) -> Option<Span> {
        let Position { tracer, trace_id, span_id } = &*self.0;
        tracer.begin(*trace_id, Some(*span_id), name, kind)
    }

    /// Returns what another program is told, so that its spans become parts of this one.
    pub fn parent(&self) -> TraceParent {
        TraceParent { trace_id: self.0.trace_id, span_id: self.0.span_id, sampled: true }
    }

    /// Returns the trace.
    pub fn trace_id(&self) -> TraceId {
        self.0.trace_id
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Context({})", self.parent())
    }
}

/// A span that has begun. It ends when it is dropped.
pub struct Span(Box<Open>);

struct Open {
    context: Context,
    data: SpanData,
    /// When it began by the clock that is never set. The other one may be, while the span is open.
    began: Instant,
    outcome: Option<&'static str>,
}

impl Span {
    /// Returns the context of the parts of this span.
    pub fn context(&self) -> Context {
        self.0.context.clone()
    }

    /// Returns what another program is told, so that its spans become parts of this one.
    pub fn parent(&self) -> TraceParent {
        self.0.context.parent()
    }

    /// Returns the trace.
    pub fn trace_id(&self) -> TraceId {
        self.0.context.trace_id()
    }

    /// Sets the beginning back by what has passed since then.
    pub fn began(&mut self, ago: Duration) {
        let Some(began) = self.0.began.checked_sub(ago) else { return };
        self.0.began = began;
        self.0.data.start_time_unix_nano = self.0.data.start_time_unix_nano.saturating_sub(whole_nanos(ago));
    }

    /// Adds an attribute.
    pub fn note(&mut self, key: &'static str, value: impl Into<Value>) {
        let attribute = Attributes::from([KeyValue::new(key, value)]);
        self.0.data.attributes.extend(attribute.0);
    }

    /// Records that it was done.
    pub fn succeeded(&mut self) {
        self.0.outcome = Some(OK);
        self.0.data.status = None;
    }

    /// Records what came of it. Of several outcomes, the last one counts: what failed may be tried again.
    pub fn outcome<T>(&mut self, outcome: &ImksResult<T>) {
        match outcome {
            Ok(_) => self.succeeded(),
            Err(error) => self.failed(error),
        }
    }

    /// Records an error. The trace is marked as failed if the error is the server's.
    pub fn failed(&mut self, error: &ImksError) {
        self.0.outcome = Some(error.code().as_str());
        let is_ours = error.http_status() >= SERVER_ERRORS;
        self.0.data.status =
            is_ours.then(|| Status { code: StatusCode::Error.into(), message: String::new() });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.0.outcome.is_none() && std::thread::panicking() {
            self.failed(&ImksError::Internal("a panic"));
        }
        let outcome = self.0.outcome.unwrap_or(ABANDONED);
        if outcome != OK && outcome != ABANDONED {
            self.note("error.type", outcome);
        }
        self.note("imks.outcome", outcome);
        let mut data = std::mem::take(&mut self.0.data);
        data.end_time_unix_nano =
            data.start_time_unix_nano.saturating_add(whole_nanos(self.0.began.elapsed()));
        if self.0.context.0.tracer.0.ended.try_send(data).is_err() {
            metrics::SPANS.of(SpanEnd::Dropped).increment();
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Span({} {})", self.0.data.name, self.0.context.parent())
    }
}

/// Returns the context of the request that is being handled, if it is sampled.
pub fn current() -> Option<Context> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Begins a span that is a part of the current one, if the request is sampled.
pub fn child(name: &str, kind: SpanKind) -> Option<Span> {
    current()?.child(name, kind)
}

/// Runs a future as a part of `context`, if there is one.
pub fn within<F: Future>(context: Option<Context>, future: F) -> Either<F, TaskLocalFuture<Context, F>> {
    match context {
        None => Either::Left(future),
        Some(context) => Either::Right(CURRENT.scope(context, future)),
    }
}

/// Runs a future in a span of its own, with its outcome, if the request is sampled.
pub fn spanned<T, F: Future<Output = ImksResult<T>>>(
    name: &'static str,
    future: F,
) -> impl Future<Output = ImksResult<T>> {
    run(child(name, SpanKind::Internal), future)
}

/// Runs a future in `span`, and records its outcome.
pub fn run<T, F: Future<Output = ImksResult<T>>>(
    mut span: Option<Span>,
    future: F,
) -> impl Future<Output = ImksResult<T>> {
    within(span.as_ref().map(Span::context), future).map(move |outcome| {
        span.iter_mut().for_each(|span| span.outcome(&outcome));
        outcome
    })
}

tokio::task_local! {
    /// The span that the running request is in.
    static CURRENT: Context;
}

fn new_trace_id() -> Option<TraceId> {
    let halves = u128::from(random()) << 64 | u128::from(random());
    TraceId::new(halves.to_be_bytes())
}

/// Returns a random number. Whoever guesses it gains nothing, so it costs no system call.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

fn nanos() -> u64 {
    u64::try_from(now_micros()).unwrap_or(0).saturating_mul(1_000)
}

fn whole_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const OK: &str = "ok";
/// The outcome of a span whose work was given up, because the client left or the server ended.
const ABANDONED: &str = "abandoned";
/// The flags of a span: those of W3C, of which there is one.
const FLAG_SAMPLED: u32 = 1;
/// The first HTTP status of errors that are the server's.
const SERVER_ERRORS: u16 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const EVERYTHING: Sampling = Sampling { ratio: 1.0, parent_based: true, trusts_clients: false };

    fn tracer(sampling: Sampling) -> (Tracer, mpsc::Receiver<SpanData>) {
        let (ended, spans) = mpsc::channel(8);
        (Tracer::new(sampling, ended), spans)
    }

    fn attribute(span: &SpanData, key: &str) -> String {
        format!("{:?}", span.attributes.iter().find(|it| it.key == key))
    }

    #[tokio::test]
    async fn the_spans_of_a_request_are_parts_of_what_the_client_says() {
        let (tracer, mut spans) = tracer(EVERYTHING);
        let event = tracer.accept("event", || TraceParent::parse(PARENT));
        let work = spanned("part", async { Err::<(), _>(ImksError::UnknownEvent) });
        drop(run(event, async { spanned("inner", async { Ok(()) }).await }).await);
        drop(work.await);
        let (inner, event) = (spans.recv().await.unwrap(), spans.recv().await.unwrap());
        assert!(spans.try_recv().is_err(), "a part without a request is no span");
        assert_eq!((&*inner.name, &*event.name), ("inner", "event"));
        assert_eq!((&inner.trace_id, &inner.parent_span_id), (&event.trace_id, &event.span_id));
        let parent = TraceParent::parse(PARENT).unwrap();
        assert_eq!(event.trace_id, parent.trace_id.bytes());
        assert_eq!(event.parent_span_id, parent.span_id.bytes());
        assert!(event.end_time_unix_nano >= event.start_time_unix_nano && event.start_time_unix_nano > 0);
        assert!(attribute(&event, "imks.outcome").contains("\"ok\""));
    }

    #[tokio::test]
    async fn an_error_is_the_outcome_and_only_one_of_the_server_marks_the_trace() {
        let (tracer, mut spans) = tracer(EVERYTHING);
        for (error, is_marked) in [(ImksError::UnknownEvent, false), (ImksError::Unavailable("core"), true)] {
            let code = error.code().as_str();
            drop(run(tracer.accept("event", || None), async { Err::<(), _>(error) }).await);
            let span = spans.recv().await.unwrap();
            assert!(attribute(&span, "imks.outcome").contains(code), "{span:?}");
            assert_eq!(span.status.is_some(), is_marked);
        }
        drop(tracer.accept("event", || None));
        assert!(attribute(&spans.recv().await.unwrap(), "imks.outcome").contains("abandoned"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_span_is_as_long_as_it_took_whatever_the_clock_of_the_machine_says() {
        // The clock of the machine goes on by itself here, and the other one only as far as it is moved.
        let (tracer, mut spans) = tracer(EVERYTHING);
        let mut span = tracer.accept("event", || None).unwrap();
        span.began(Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(3)).await;
        drop(span);
        let span = spans.recv().await.unwrap();
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 5_000_000_000);
    }

    #[tokio::test]
    async fn a_trace_that_nobody_asks_for_begins_by_itself_and_only_as_often_as_configured() {
        let (all, mut spans) = tracer(EVERYTHING);
        drop(all.root("webhook", SpanKind::Client));
        let span = spans.recv().await.unwrap();
        assert!(span.parent_span_id.is_empty() && span.kind() == SpanKind::Client);
        let (none, _spans) = tracer(Sampling { ratio: 0.0, trusts_clients: true, ..EVERYTHING });
        assert!(none.root("webhook", SpanKind::Client).is_none());
    }

    #[tokio::test]
    async fn a_node_that_traces_joins_no_trace_that_its_sender_does_not_record() {
        let (tracer, mut spans) = tracer(EVERYTHING);
        let parent = TraceParent::parse(PARENT).unwrap();
        let unsampled = TraceParent { sampled: false, ..parent };
        assert!(tracer.join(&unsampled, "deliver", SpanKind::Consumer).is_none());
        assert!(spans.try_recv().is_err());
        drop(tracer.join(&parent, "deliver", SpanKind::Consumer).unwrap());
        assert_eq!(spans.recv().await.unwrap().parent_span_id, parent.span_id.bytes());
    }

    #[tokio::test]
    async fn what_failed_before_it_was_done_is_no_failure() {
        let (tracer, mut spans) = tracer(EVERYTHING);
        let mut span = tracer.accept("event", || None).unwrap();
        span.failed(&ImksError::Unavailable("core"));
        span.failed(&ImksError::Unavailable("core"));
        span.succeeded();
        drop(span);
        let span = spans.recv().await.unwrap();
        assert!(attribute(&span, "imks.outcome").contains("\"ok\""), "{span:?}");
        assert_eq!((&span.status, span.attributes.len()), (&None, 1), "{span:?}");
    }

    #[tokio::test]
    async fn a_panic_marks_the_trace() {
        let (tracer, mut spans) = tracer(EVERYTHING);
        let span = tracer.accept("event", || None);
        let panicking: std::thread::JoinHandle<()> = std::thread::spawn(move || {
            let _span = span;
            panic!("a bug");
        });
        assert!(panicking.join().is_err());
        let span = spans.recv().await.unwrap();
        assert!(attribute(&span, "imks.outcome").contains("internal") && span.status.is_some(), "{span:?}");
    }

    #[test]
    fn the_flag_of_a_client_counts_only_where_clients_are_trusted() {
        let parent = TraceParent::parse(PARENT).unwrap();
        let unsampled = TraceParent { sampled: false, ..parent };
        let none = Sampling { ratio: 0.0, ..EVERYTHING };
        let (strict, _ended) = tracer(none);
        assert!(strict.accept("event", || Some(parent)).is_none() && !none.is_on());
        let trusting = Sampling { trusts_clients: true, ..none };
        assert!(
            trusting.is_on() && trusting.samples(Some(&parent), 0) && !trusting.samples(Some(&unsampled), 0)
        );
        assert!(!trusting.samples(None, 0));
        let all = Sampling { trusts_clients: true, parent_based: false, ratio: 1.0 };
        assert!(all.samples(Some(&unsampled), u64::MAX));
        assert!(EVERYTHING.samples(Some(&unsampled), u64::MAX));
    }

    #[test]
    fn a_tenth_of_the_requests_is_about_a_tenth() {
        let tenth = Sampling { ratio: 0.1, ..EVERYTHING };
        let sampled = (0..10_000).filter(|_| tenth.samples(None, random())).count();
        assert!((700..1_300).contains(&sampled), "{sampled}");
    }

    #[test]
    fn spans_without_room_are_dropped_and_counted() {
        let (ended, _spans) = mpsc::channel(1);
        let tracer = Tracer::new(EVERYTHING, ended);
        let before = metrics::SPANS.of(SpanEnd::Dropped).get();
        (0..3).for_each(|_| drop(tracer.accept("event", || None)));
        assert_eq!(metrics::SPANS.of(SpanEnd::Dropped).get() - before, 2);
    }
}
