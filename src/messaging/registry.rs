//! The table of handlers, shared by Socket.IO and HTTP. A feature registers each request once. The registry
//! parses, counts, times and answers requests, and turns errors into their wire form.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::marker::PhantomData;

use futures_util::future::Either;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::Config;
use super::api::{Answer, ApiRequest, Method, Route};
use super::budget::{AnswerSize, Reservation};
use super::ctx::{Caller, Ctx};
use super::input::{self, Payload};
use super::metrics::{self, EventError};
use super::parts::Messaging;
use super::push::Push;
use super::rates::RateLimit;
use super::turn::Turn;
use crate::envelope::{ErrorBody, Failure, RequestId, Success};
use crate::error::Code;
use crate::models::text::Nonce;
use crate::rate_limit::Rate;
use crate::socket::{Event, NamespaceBuilder, Socket};
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
}

/// The outcome of a handler.
pub(super) struct Handled<Res> {
    data: Res,
    /// Held until the answer has left.
    room: Option<Reservation>,
}

impl<Res> Handled<Res> {
    fn small(data: Res) -> Self {
        Self { data, room: None }
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

    /// Returns the configuration.
    pub(super) fn config(&self) -> &Config {
        self.messaging.config()
    }

    /// Creates a rate limit for one feature, with a bucket per user.
    pub(super) fn rate_limit(&self, name: &'static str, rate: Rate) -> RateLimit<Uuid> {
        self.messaging.rates().add(name, rate)
    }

    /// Registers a request with a small answer.
    pub(super) fn on<Req, Res, F, Fut>(
        &mut self,
        request: Request<Req, Res>,
        handler: F,
    ) -> Entry<'_, 'a, Req, Res, impl Handler<Req, Res>>
    where
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
        F: Fn(Ctx, Req) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
        self.mount(request, move |ctx, request| {
            let handling = handler(ctx, request);
            async move { handling.await.map(Handled::small) }
        })
    }

    /// Registers a request that concerns the connection itself.
    pub(super) fn on_socket<Req, Res, F, Fut>(&mut self, request: Request<Req, Res>, handler: F)
    where
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
        F: Fn(Ctx, Socket, Req) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
        self.on(request, move |ctx: Ctx, request| {
            let handler = handler.clone();
            async move {
                let socket = ctx.socket()?;
                handler(ctx, socket, request).await
            }
        });
    }

    /// Registers a write. Its handler gets a turn, in the order in which requests of the session arrived.
    pub(super) fn on_write<Req, Res, F, Fut>(
        &mut self,
        request: Request<Req, Res>,
        handler: F,
    ) -> Entry<'_, 'a, Req, Res, impl Handler<Req, Res>>
    where
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
        F: Fn(Ctx, Turn, Req) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
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
    pub(super) fn on_read<Req, Res, F, Fut>(
        &mut self,
        request: Request<Req, Res>,
        handler: F,
    ) -> Entry<'_, 'a, Req, Res, impl Handler<Req, Res>>
    where
        Req: Large + DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
        F: Fn(Ctx, Reservation, Req) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
        self.mount(request, move |ctx: Ctx, request: Req| {
            let handler = handler.clone();
            async move {
                let room = ctx.reserve(request.answer_size()).await?;
                let data = handler(ctx, room.clone(), request).await?;
                Ok(Handled { data, room: Some(room) })
            }
        })
    }

    fn mount<Req, Res, H>(&mut self, request: Request<Req, Res>, handler: H) -> Entry<'_, 'a, Req, Res, H>
    where
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send + 'static,
        H: Handler<Req, Res>,
    {
        let name = request.name;
        let (messaging, seconds) = (self.messaging.clone(), metrics::EVENT_SECONDS.child(name));
        let of_events = handler.clone();
        self.builder.on(name, move |mut event: Event| {
            let (started, seconds) = (Instant::now(), seconds.clone());
            let handling = match begin(&messaging, &event) {
                Ok((ctx, request)) => Either::Left(of_events.call(ctx, request)),
                Err(error) => Either::Right(refused(error)),
            };
            let span = tracing::debug_span!(
                "event",
                event = name,
                socket_sid = event.socket().id(),
                namespace = "/"
            );
            async move {
                answer(&mut event, handling.await);
                seconds.record(started.elapsed());
            }
            .instrument(span)
        });
        Entry { registry: self, name, handler, types: PhantomData }
    }

    /// Answers every event without a handler with an error, and returns what was registered beside the
    /// events.
    pub(super) fn finish(self) -> Registered {
        let (messaging, seconds) = (self.messaging.clone(), metrics::EVENT_SECONDS.child(UNKNOWN));
        self.builder.on_unknown(move |mut event: Event| {
            let caller = Caller::on_socket(&messaging, event.socket());
            fail(&mut event, &caller.err().unwrap_or(ImksError::UnknownEvent));
            seconds.record(std::time::Duration::ZERO);
            ready(())
        });
        self.registered
    }
}

/// A function that handles parsed requests.
pub(super) trait Handler<Req, Res>: Clone + Send + Sync + 'static {
    /// The future that the function returns.
    type Handling: Future<Output = ImksResult<Handled<Res>>> + Send + 'static;

    /// Handles one request.
    fn call(&self, ctx: Ctx, request: Req) -> Self::Handling;
}

impl<Req, Res, F, Fut> Handler<Req, Res> for F
where
    F: Fn(Ctx, Req) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ImksResult<Handled<Res>>> + Send + 'static,
{
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

impl<Req, Res, H> Entry<'_, '_, Req, Res, H>
where
    Req: DeserializeOwned + Send + 'static,
    Res: Serialize + Send + 'static,
    H: Handler<Req, Res>,
{
    /// Mounts the request on `GET path`, with parameters from the path and the query.
    pub(super) fn get(self, path: &'static str) {
        self.route(Method::Get, path, |_| 200);
    }

    /// Mounts the request on `POST path`, with parameters from the path and the JSON body.
    pub(super) fn post(self, path: &'static str, status: fn(&Res) -> u16) {
        self.route(Method::Post, path, status);
    }

    /// Mounts the request on `PUT path`, with parameters from the path and the JSON body.
    pub(super) fn put(self, path: &'static str) {
        self.route(Method::Put, path, |_| 200);
    }

    /// Mounts the request on `DELETE path`, with parameters from the path and the query.
    pub(super) fn delete(self, path: &'static str) {
        self.route(Method::Delete, path, |_| 200);
    }

    fn route(self, method: Method, path: &'static str, status: fn(&Res) -> u16) {
        let Self { registry, name, handler, .. } = self;
        let (messaging, seconds) = (registry.messaging.clone(), metrics::EVENT_SECONDS.child(name));
        let answer = move |request: ApiRequest| {
            let (messaging, handler, seconds) = (messaging.clone(), handler.clone(), seconds.clone());
            let answering = async move {
                let (started, request_id) = (Instant::now(), RequestId::next());
                let outcome = call(&messaging, request, &handler).await;
                let answer = match outcome {
                    Ok(Handled { data, room }) => {
                        Answer::success(status(&data), &Success::new(&data, &request_id), room)
                    }
                    Err(error) => {
                        note(name, None, &error, &request_id);
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
) -> ImksResult<Handled<Res>> {
    let caller = request.caller(messaging).await?;
    let payload = input::request(&request.payload()?)?;
    handler.call(Ctx::new(messaging, caller), payload).await
}

fn refused<T>(error: ImksError) -> Ready<ImksResult<T>> {
    ready(Err(error))
}

fn begin<Req: DeserializeOwned>(messaging: &Messaging, event: &Event) -> ImksResult<(Ctx, Req)> {
    let caller = Caller::on_socket(messaging, event.socket())?;
    Ok((Ctx::new(messaging, caller), input::request(&Payload::Json(event.args().first_json().into()))?))
}

/// Sends the ack, or an error to a client that did not request an ack.
fn answer<Res: Serialize>(event: &mut Event, outcome: ImksResult<Handled<Res>>) {
    let Handled { data, room } = match outcome {
        Ok(handled) => handled,
        Err(error) => return fail(event, &error),
    };
    let Some(ack) = event.take_ack() else { return };
    let request_id = RequestId::next();
    let envelope = Success::new(&data, &request_id);
    let sent = match room {
        Some(room) => ack.send_holding(&envelope, |bytes| room.for_bytes(bytes)),
        None => ack.send(&envelope),
    };
    note_sent(event, sent);
}

/// Sends an error as the requested ack, or else as the event `error`.
fn fail(event: &mut Event, error: &ImksError) {
    let request_id = RequestId::next();
    note(event.logged_name(), Some(event.socket().id()), error, &request_id);
    if let Some(ack) = event.take_ack() {
        return note_sent(event, ack.send(&Failure::new(error, &request_id)));
    }
    let nonce = event.first::<OnlyNonce>().ok().and_then(|request| request.nonce);
    let payload =
        ErrorEvent { error: ErrorBody::new(error, &request_id), event: event.logged_name().into(), nonce };
    ERROR.to_socket(event.socket(), &payload);
}

fn note_sent(event: &Event, sent: ImksResult<()>) {
    if let Err(error) = sent {
        tracing::debug!(socket_sid = event.socket().id(), %error, "answer not sent");
    }
}

/// Counts and logs an error. Message bodies are never logged.
fn note(name: &str, sid: Option<&str>, error: &ImksError, request_id: &RequestId) {
    match error.code() {
        Code::RateLimited => metrics::EVENT_ERRORS.of(EventError::RateLimited).increment(),
        // A peer that asks for too much at once must not fill the log.
        Code::Overloaded => {
            metrics::EVENT_ERRORS.of(EventError::Failed).increment();
            tracing::debug!(socket_sid = sid, event = name, %request_id, %error, "request failed");
        }
        Code::Unavailable | Code::Timeout => {
            metrics::EVENT_ERRORS.of(EventError::Failed).increment();
            tracing::warn!(socket_sid = sid, event = name, %request_id, %error, "request failed");
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
#[derive(Debug, Serialize)]
struct ErrorEvent {
    #[serde(flatten)]
    error: ErrorBody,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
}

#[derive(Debug, Deserialize)]
struct OnlyNonce {
    #[serde(default)]
    nonce: Option<Nonce>,
}

/// Sent when a request without an ack fails.
const ERROR: Push<ErrorEvent> = Push::new("error");
/// The metric label of all events without a handler, since names from clients must not become time series.
const UNKNOWN: &str = "unknown";
