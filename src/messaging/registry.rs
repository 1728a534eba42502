//! The table of handlers, shared by Socket.IO and HTTP. A feature registers each request once. The registry
//! parses and times requests, and answers them with the outcome of their handler ([`super::outcome`]).

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::{Either, FutureExt};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Number;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;
use uuid::Uuid;

use super::Config;
use super::api::{Answer, ApiRequest, KEY_FIELD, Method, Route};
use super::app_event;
use super::budget::{AnswerSize, Reservation};
use super::ctx::{Caller, Ctx};
use super::input::{self, Payload};
use super::metrics;
use super::outcome::{self, Handled};
use super::parts::Messaging;
use super::push::Push;
use super::rates::RateLimit;
use super::traced;
use super::turn::Turn;
use crate::contract::{Audience, Contract, Place};
use crate::envelope::{RequestId, Success};
use crate::files::Files;
use crate::rate_limit::Rate;
use crate::socket::{Event, NamespaceBuilder, Socket};
use crate::telemetry::trace::{self, Span};
use crate::{ImksError, ImksResult};

/// An event that a client sends, with the types of its payload and its answer.
pub(super) struct Request<Req, Res> {
    name: &'static str,
    types: PhantomData<fn(Req) -> Res>,
}

impl<Req, Res> Request<Req, Res> {
    /// Creates an event with this name.
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }
}

/// Registers the requests of the features.
pub(super) struct Registry<'a> {
    builder: &'a mut NamespaceBuilder,
    messaging: Messaging,
    registered: Registered,
}

/// What the features registered beside their events.
#[derive(Default)]
pub(super) struct Registered {
    /// The routes of the HTTP API.
    pub routes: Vec<Route>,
    /// The limits in `session:ready` (docs/protocol.md), by name.
    pub limits: BTreeMap<&'static str, Number>,
    /// What clients may send and what they get.
    pub contract: Contract,
}

/// The HTTP status of an answer.
pub(super) enum Status<Res> {
    /// 200.
    Ok,
    /// 201, because each request creates something.
    Created,
    /// 200 for an answer about something that was there before, 201 otherwise.
    CreatedUnless(fn(&Res) -> bool),
}

impl<Res> Status<Res> {
    fn all(&self) -> &'static [u16] {
        match self {
            Self::Ok => &[200],
            Self::Created => &[201],
            Self::CreatedUnless(_) => &[200, 201],
        }
    }

    fn of(&self, answer: &Res) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Created => 201,
            Self::CreatedUnless(was_there) => {
                if was_there(answer) {
                    200
                } else {
                    201
                }
            }
        }
    }
}

/// A request whose answer may be large.
pub(super) trait Large {
    /// Returns the largest size that the answer may reach.
    fn answer_size(&self) -> AnswerSize;
}

impl<'a> Registry<'a> {
    /// Creates a registry that adds its handlers to `builder`.
    pub(super) fn new(builder: &'a mut NamespaceBuilder, messaging: &Messaging) -> Self {
        Self { builder, messaging: messaging.clone(), registered: Registered::default() }
    }

    /// Tells clients a limit of one feature in `session:ready`.
    pub(super) fn advertise(&mut self, name: &'static str, limit: impl Into<Number>) {
        self.registered.limits.insert(name, limit.into());
    }

    /// Tells programs of a type that others refer to by its name.
    pub(super) fn part<T: JsonSchema>(&mut self) {
        self.registered.contract.part::<T>();
    }

    /// Tells programs what clients sign in with.
    pub(super) fn credentials<T: JsonSchema>(&mut self) {
        self.registered.contract.credentials::<T>();
    }

    /// Tells programs of an event that the server sends.
    pub(super) fn sends<T: Serialize + JsonSchema + ?Sized>(&mut self, push: &Push<T>) {
        self.registered.contract.push::<T>(push.name());
    }

    /// Returns the configuration.
    pub(super) fn config(&self) -> &Config {
        self.messaging.config()
    }

    /// Returns the store of attached files.
    pub(super) fn files(&self) -> &Files {
        self.messaging.files()
    }

    /// Creates a rate limit for one feature, with a bucket per user.
    pub(super) fn rate_limit(&self, name: &'static str, rate: Rate) -> RateLimit<Uuid> {
        self.messaging.rates().add(name, rate)
    }

    /// Registers a request with a small answer.
    pub(super) fn on<Req: Input, Res: Output, Fut: Handling<Res>>(
        &mut self,
        request: Request<Req, Res>,
        handler: impl Fn(Ctx, Req) -> Fut + Shared,
    ) -> Entry<'_, 'a, Req, Res, impl Handler<Req, Res>> {
        self.mount(request, move |ctx, request| {
            let handling = handler(ctx, request);
            async move { handling.await.map(Handled::small) }
        })
    }

    /// Registers a request that concerns the connection itself.
    pub(super) fn on_socket<Req: Input, Res: Output, Fut: Handling<Res>>(
        &mut self,
        request: Request<Req, Res>,
        handler: impl Fn(Ctx, Socket, Req) -> Fut + Shared,
    ) {
        self.on(request, move |ctx: Ctx, request| {
            let handler = handler.clone();
            async move {
                let socket = ctx.socket()?;
                handler(ctx, socket, request).await
            }
        });
    }

    /// Registers a write. Its handler gets a turn, in the order in which requests of the session arrived.
    pub(super) fn on_write<Req: Input, Res: Output, Fut: Handling<Res>>(
        &mut self,
        request: Request<Req, Res>,
        handler: impl Fn(Ctx, Turn, Req) -> Fut + Shared,
    ) -> Entry<'_, 'a, Req, Res, impl Handler<Req, Res>> {
        self.mount(request, move |ctx: Ctx, request| {
            let handler = handler.clone();
            async move {
                // Comes first: polling the turn for the first time fixes the order of this write.
                let turn = ctx.next_turn().await;
                handler(ctx, turn, request).await.map(Handled::small)
            }
        })
    }

    /// Registers a request with a large answer. Its handler gets a reservation, held until the answer has
    /// left.
    pub(super) fn on_read<Req: Input + Large, Res: Output, Fut: Handling<Res>>(
        &mut self,
        request: Request<Req, Res>,
        handler: impl Fn(Ctx, Reservation, Req) -> Fut + Shared,
    ) -> Entry<'_, 'a, Req, Res, impl Handler<Req, Res>> {
        self.mount(request, move |ctx: Ctx, request: Req| {
            let handler = handler.clone();
            async move {
                let room = ctx.reserve(request.answer_size()).await?;
                let data = handler(ctx, room.clone(), request).await?;
                Ok(Handled { data, room: Some(room) })
            }
        })
    }

    fn mount<Req: Input, Res: Output, H: Handler<Req, Res>>(
        &mut self,
        request: Request<Req, Res>,
        handler: H,
    ) -> Entry<'_, 'a, Req, Res, H> {
        let name = request.name;
        self.registered.contract.request::<Req, Res>(name);
        let (messaging, seconds) = (self.messaging.clone(), metrics::EVENT_SECONDS.child(name));
        let of_events = handler.clone();
        self.builder.on(name, move |mut event: Event| {
            let (started, seconds) = (Instant::now(), seconds.clone());
            let since = event.waits_since().unwrap_or(started);
            let traced = traced::event(&messaging, name, &event, since);
            let context = traced.as_ref().map(Span::context);
            let handling = match begin(&messaging, &event, since) {
                Ok((ctx, request)) => Either::Left(of_events.call(ctx, request)),
                Err(error) => Either::Right(refused(error)),
            };
            let handling = trace::within(context, handling);
            let span = tracing::debug_span!(
                "event",
                event = name,
                socket_sid = event.socket().id(),
                namespace = "/",
                outcome = Empty
            );
            async move {
                let outcome = handling.await;
                let trace = traced.as_ref().map(Span::trace_id);
                outcome::answer(&mut event, outcome, traced);
                seconds.record_traced(started.elapsed(), trace);
            }
            .instrument(span)
        });
        Entry { registry: self, name, handler, types: PhantomData }
    }

    /// Passes the events of the operator's application on, answers every other event without a handler with an
    /// error, and returns what was registered beside the events.
    pub(super) fn finish(self) -> Registered {
        let (messaging, seconds) = (self.messaging.clone(), metrics::EVENT_SECONDS.child(UNKNOWN));
        let app_seconds = metrics::EVENT_SECONDS.child(APPLICATION);
        self.builder.answer_refused_events(outcome::refuse);
        self.builder.on_unknown(move |mut event: Event| {
            let caller = Caller::on_socket(&messaging, event.socket());
            let application = messaging.application().filter(|it| it.answers(event.name()));
            match (caller, application) {
                (Ok(caller), Some(application)) => {
                    let (started, seconds) = (Instant::now(), app_seconds.clone());
                    let since = event.waits_since().unwrap_or(started);
                    let traced = traced::event(&messaging, APPLICATION, &event, since);
                    let context = traced.as_ref().map(Span::context);
                    let trace = traced.as_ref().map(Span::trace_id);
                    let answering = app_event::answer(application.clone(), caller, event, traced);
                    let answering = trace::within(context, answering);
                    Either::Left(answering.map(move |()| seconds.record_traced(started.elapsed(), trace)))
                }
                (caller, _) => {
                    outcome::fail(&mut event, &caller.err().unwrap_or(ImksError::UnknownEvent));
                    seconds.record(std::time::Duration::ZERO);
                    Either::Right(ready(()))
                }
            }
        });
        self.registered
    }
}

/// The payload of a request.
pub(super) trait Input: DeserializeOwned + JsonSchema + Send + 'static {}

impl<T: DeserializeOwned + JsonSchema + Send + 'static> Input for T {}

/// The answer to a request.
pub(super) trait Output: Serialize + JsonSchema + Send + 'static {}

impl<T: Serialize + JsonSchema + Send + 'static> Output for T {}

/// The future of a handler.
pub(super) trait Handling<T>: Future<Output = ImksResult<T>> + Send + 'static {}

impl<T, F: Future<Output = ImksResult<T>> + Send + 'static> Handling<T> for F {}

/// A function that any number of connections may call at once.
pub(super) trait Shared: Clone + Send + Sync + 'static {}

impl<F: Clone + Send + Sync + 'static> Shared for F {}

/// A function that handles parsed requests.
pub(super) trait Handler<Req, Res>: Shared {
    /// The future that the function returns.
    type Handling: Handling<Handled<Res>>;

    /// Handles one request.
    fn call(&self, ctx: Ctx, request: Req) -> Self::Handling;
}

impl<Req, Res, F: Fn(Ctx, Req) -> Fut + Shared, Fut: Handling<Handled<Res>>> Handler<Req, Res> for F {
    type Handling = Fut;

    fn call(&self, ctx: Ctx, request: Req) -> Fut {
        self(ctx, request)
    }
}

/// A registered request, which can also be mounted on an HTTP route.
pub(super) struct Entry<'r, 'a, Req, Res, H> {
    registry: &'r mut Registry<'a>,
    name: &'static str,
    handler: H,
    types: PhantomData<fn(Req) -> Res>,
}

impl<Req: Input, Res: Output, H: Handler<Req, Res>> Entry<'_, '_, Req, Res, H> {
    /// Mounts the request on `GET path`, with parameters from the path and the query.
    pub(super) fn get(self, path: &'static str) {
        self.route(Method::Get, path, Status::Ok);
    }

    /// Mounts the request on `POST path`, with parameters from the path and the JSON body.
    pub(super) fn post(self, path: &'static str, status: Status<Res>) {
        self.route(Method::Post, path, status);
    }

    /// Mounts the request on `PUT path`, with parameters from the path and the JSON body.
    pub(super) fn put(self, path: &'static str) {
        self.route(Method::Put, path, Status::Ok);
    }

    /// Mounts the request on `PATCH path`, with parameters from the path and the JSON body.
    pub(super) fn patch(self, path: &'static str) {
        self.route(Method::Patch, path, Status::Ok);
    }

    /// Mounts the request on `DELETE path`, with parameters from the path and the query.
    pub(super) fn delete(self, path: &'static str) {
        self.route(Method::Delete, path, Status::Ok);
    }

    fn route(self, method: Method, path: &'static str, status: Status<Res>) {
        let Self { registry, name, handler, .. } = self;
        let (statuses, audience, status) = (status.all(), Audience::Users, Arc::new(status));
        let place = Place { name, method, path, statuses, audience, key_field: KEY_FIELD };
        registry.registered.contract.endpoint::<Req, Res>(place);
        let (messaging, seconds) = (registry.messaging.clone(), metrics::EVENT_SECONDS.child(name));
        let answer = move |request: ApiRequest| {
            let (messaging, handler, seconds) = (messaging.clone(), handler.clone(), seconds.clone());
            let status = status.clone();
            let answering = async move {
                let (started, request_id) = (Instant::now(), RequestId::next());
                let mut traced = traced::call(&messaging, name, path, request.traceparent());
                let context = traced.as_ref().map(Span::context);
                let outcome = trace::within(context, call(&messaging, request, &handler, started)).await;
                outcome::note_traced(&mut traced, &outcome, &request_id);
                let answer = match outcome {
                    Ok(Handled { data, room }) => {
                        outcome::note_answered(name, None, &request_id);
                        let envelope =
                            Success::new(&data, &request_id).traced(traced.as_ref().map(Span::parent));
                        Answer::success(status.of(&data), &envelope, room)
                    }
                    Err(error) => {
                        outcome::note(name, None, &error, &request_id);
                        Answer::failure(&error, &request_id)
                    }
                };
                seconds.record(started.elapsed());
                answer
            };
            let span = tracing::debug_span!("request", event = name, path);
            Box::pin(answering.instrument(span)) as _
        };
        registry.registered.routes.push(Route::new(method, path, answer));
    }
}

/// Handles a request that arrived over HTTP.
async fn call<Req: DeserializeOwned, Res>(
    messaging: &Messaging,
    request: ApiRequest,
    handler: &impl Handler<Req, Res>,
    since: Instant,
) -> ImksResult<Handled<Res>> {
    let caller = request.caller(messaging).await?;
    let payload = input::request(&request.payload()?)?;
    handler.call(Ctx::new(messaging, caller, since), payload).await
}

fn refused<T>(error: ImksError) -> Ready<ImksResult<T>> {
    ready(Err(error))
}

fn begin<Req: DeserializeOwned>(
    messaging: &Messaging,
    event: &Event,
    since: Instant,
) -> ImksResult<(Ctx, Req)> {
    let caller = Caller::on_socket(messaging, event.socket())?;
    let payload = Payload::Json(event.args().first_json().into());
    Ok((Ctx::new(messaging, caller, since), input::request(&payload)?))
}

/// The metric label of all events without a handler, since names from clients must not become time series.
const UNKNOWN: &str = "unknown";
/// The metric label of all events for the operator's application.
const APPLICATION: &str = "app";
