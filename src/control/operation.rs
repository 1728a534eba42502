//! An operation: one handler, its call over gRPC, its route over HTTP, and the scope that it needs.

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, try_unfold};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use prost::{Message, Name};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Streaming;
use tonic::body::Body;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::caller::Scope;
use super::input::at_most;
use super::once::once;
use super::rpc_status::status_of;
use super::{Ctx, metrics};
use crate::contract::{Audience, Contract, Place};
use crate::envelope::{RequestId, Success};
use crate::messaging::api::{Answer, Method, Payload, parse};
use crate::messaging::backend::{AnswerSize, Reservation};
use crate::{ImksError, ImksResult};

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type OverHttp<C> = Box<dyn Fn(C, Payload<'static>) -> Pending<Answer> + Send + Sync>;
pub(super) type OverGrpc =
    Box<dyn Fn(Ctx, http::Request<Body>) -> Pending<http::Response<Body>> + Send + Sync>;

/// One entry of a table of operations, whose handlers get a context `C`.
pub struct Operation<C = Ctx> {
    /// The name of the call, also in metrics and logs.
    pub(super) name: &'static str,
    /// The method of the route.
    pub method: Method,
    /// The path of the route below the prefix of the API, with its parameters in braces.
    pub path: &'static str,
    pub(super) scope: Scope,
    /// Adds the route to a contract.
    describe: fn(&mut Contract, Place),
    pub(super) http: OverHttp<C>,
    pub(super) grpc: Option<Grpc>,
}

/// The gRPC side of an operation, with the full names of its messages.
pub(super) struct Grpc {
    pub(super) call: OverGrpc,
    #[cfg_attr(not(test), allow(dead_code, reason = "compared with the contract by a test"))]
    pub(super) messages: (String, String),
}

/// The route of an operation: method, path, and the scope that it needs.
pub(super) type Route = (Method, &'static str, Scope);

impl Operation {
    /// Creates an operation that reads, or that repeats of one request id do no harm to.
    pub(super) fn unary<Req: Request, Res: Response, Fut>(
        name: &'static str,
        route: Route,
        handler: impl Fn(Ctx, Req) -> Fut + Shared,
    ) -> Self
    where
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
        Self::both(name, route, move |ctx, request| {
            let handling = handler(ctx, request);
            async move { handling.await.map(Handled::small) }
        })
    }

    /// Creates an operation that happens once per request id.
    pub(super) fn once<Req: Request, Res: Response, Fut>(
        name: &'static str,
        route: Route,
        request_id: fn(&Req) -> &str,
        handler: impl Fn(Ctx, Req) -> Fut + Shared,
    ) -> Self
    where
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
        Self::unary(name, route, move |ctx: Ctx, request: Req| {
            let call = handler(ctx.clone(), request.clone());
            async move { once(ctx, name, (request_id(&request), &request), call).await }
        })
    }

    /// Creates an operation with a large answer, which room is reserved for before its handler runs.
    pub(super) fn large<Req: Request, Res: Response, Fut>(
        name: &'static str,
        route: Route,
        size: fn(&Req) -> AnswerSize,
        handler: impl Fn(Ctx, Reservation, Req) -> Fut + Shared,
    ) -> Self
    where
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
        Self::both(name, route, move |ctx: Ctx, request: Req| {
            let handler = handler.clone();
            async move {
                let room = ctx.backend().reserve(ctx.caller.id, size(&request)).await?;
                let data = handler(ctx, room.clone(), request).await?;
                Ok(Handled { data, room: Some(room) })
            }
        })
    }

    /// Creates an operation on many items, each with an answer of its own: a stream over gRPC, a list over HTTP.
    pub(super) fn each<Req: Request, Res: Response, Fut>(
        name: &'static str,
        (method, path, scope): Route,
        handler: impl Fn(Ctx, Req) -> Fut + Shared,
    ) -> Self
    where
        Fut: Future<Output = Res> + Send + 'static,
    {
        let one = handler.clone();
        let http = over_http(name, move |ctx: Ctx, list: List<Req>| {
            let one = one.clone();
            async move {
                at_most("items", list.items.len(), ITEMS_MAX)?;
                let mut results = Vec::with_capacity(list.items.len());
                for item in list.items {
                    results.push(one(ctx.clone(), item).await);
                }
                Ok(Handled::small(Results { results }))
            }
        });
        let messages = (Req::full_name(), Res::full_name());
        let grpc = Grpc { call: each_over_grpc(name, handler), messages };
        Self {
            name,
            method,
            path,
            scope,
            describe: Contract::endpoint::<List<Req>, Results<Res>>,
            http,
            grpc: Some(grpc),
        }
    }

    /// Creates an operation that is a stream over gRPC, and one page at a time over HTTP.
    pub(super) fn stream<Req: Request, Res: Response, Asked: Input, Page: Output, Opening, Polling>(
        name: &'static str,
        (method, path, scope): Route,
        open: impl Fn(Ctx, Req) -> Opening + Shared,
        poll: impl Fn(Ctx, Asked) -> Polling + Shared,
    ) -> Self
    where
        Opening: Future<Output = ImksResult<BoxStream<'static, ImksResult<Res>>>> + Send + 'static,
        Polling: Future<Output = ImksResult<Page>> + Send + 'static,
    {
        let http = over_http(name, move |ctx, request| {
            let handling = poll(ctx, request);
            async move { handling.await.map(Handled::small) }
        });
        let messages = (Req::full_name(), Res::full_name());
        let grpc = Grpc { call: stream_over_grpc(name, open), messages };
        Self {
            name,
            method,
            path,
            scope,
            describe: Contract::endpoint::<Asked, Page>,
            http,
            grpc: Some(grpc),
        }
    }

    fn both<Req: Request, Res: Response, Fut>(
        name: &'static str,
        (method, path, scope): Route,
        handler: impl Fn(Ctx, Req) -> Fut + Shared,
    ) -> Self
    where
        Fut: Future<Output = ImksResult<Handled<Res>>> + Send + 'static,
    {
        let messages = (Req::full_name(), Res::full_name());
        let grpc = Grpc { call: over_grpc(name, handler.clone()), messages };
        let (describe, http) = (Contract::endpoint::<Req, Res>, over_http(name, handler));
        Self { name, method, path, scope, describe, http, grpc: Some(grpc) }
    }
}

impl<C: 'static> Operation<C> {
    /// Creates an operation that exists over HTTP only.
    pub(super) fn http<Req: Input, Res: Output, Fut>(
        name: &'static str,
        (method, path, scope): Route,
        handler: impl Fn(C, Req) -> Fut + Shared,
    ) -> Self
    where
        Fut: Future<Output = ImksResult<Res>> + Send + 'static,
    {
        let http = over_http(name, move |ctx, request| {
            let handling = handler(ctx, request);
            async move { handling.await.map(Handled::small) }
        });
        Self { name, method, path, scope, describe: Contract::endpoint::<Req, Res>, http, grpc: None }
    }

    /// Adds the route to a contract.
    pub(super) fn tell(&self, contract: &mut Contract) {
        let Self { name, method, path, .. } = *self;
        let audience = Audience::BackEnds;
        let place = Place { name, method, path, statuses: &[200], audience, key_field: KEY_FIELD };
        (self.describe)(contract, place);
    }
}

impl<C> fmt::Debug for Operation<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Operation").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The answer of a handler, and the room that it takes until it has left.
struct Handled<Res> {
    data: Res,
    room: Option<Reservation>,
}

impl<Res> Handled<Res> {
    fn small(data: Res) -> Self {
        Self { data, room: None }
    }
}

fn over_http<C: 'static, Req: Input, Res: Output, Fut>(
    name: &'static str,
    handler: impl Fn(C, Req) -> Fut + Shared,
) -> OverHttp<C>
where
    Fut: Future<Output = ImksResult<Handled<Res>>> + Send + 'static,
{
    Box::new(move |ctx, payload| {
        let handling = parse(&payload).map(|request| handler(ctx, request));
        Box::pin(async move {
            let (started, request_id) = (Instant::now(), RequestId::next());
            let outcome = match handling {
                Ok(handling) => handling.await,
                Err(error) => Err(error),
            };
            metrics::note(name, started, outcome.as_ref().err(), &request_id);
            match outcome {
                Ok(Handled { data, room }) => Answer::success(200, &Success::new(&data, &request_id), room),
                Err(error) => Answer::failure(&error, &request_id),
            }
        })
    })
}

fn over_grpc<Req: Request, Res: Response, Fut>(
    name: &'static str,
    handler: impl Fn(Ctx, Req) -> Fut + Shared,
) -> OverGrpc
where
    Fut: Future<Output = ImksResult<Handled<Res>>> + Send + 'static,
{
    Box::new(move |ctx, request| {
        let (handler, held) = (handler.clone(), Arc::new(Mutex::new(None)));
        let kept = held.clone();
        let service = service_fn(move |request: tonic::Request<Req>| {
            let (handling, kept) = (handler(ctx.clone(), request.into_inner()), kept.clone());
            async move {
                let (started, request_id) = (Instant::now(), RequestId::next());
                let outcome = handling.await;
                metrics::note(name, started, outcome.as_ref().err(), &request_id);
                let Handled { data, room } = outcome.map_err(|error| status_of(&error, &request_id))?;
                *kept.lock() = room;
                Ok::<_, tonic::Status>(tonic::Response::new(data))
            }
        });
        Box::pin(async move {
            let codec = ProstCodec::<Res, Req>::default();
            let mut server = tonic::server::Grpc::new(codec).max_decoding_message_size(BODY_BYTES_MAX);
            let response = server.unary(service, request).await;
            match held.lock().take() {
                Some(room) => response.map(|body| holding(body, room)),
                None => response,
            }
        })
    })
}

fn each_over_grpc<Req: Request, Res: Response, Fut>(
    name: &'static str,
    handler: impl Fn(Ctx, Req) -> Fut + Shared,
) -> OverGrpc
where
    Fut: Future<Output = Res> + Send + 'static,
{
    Box::new(move |ctx, request| {
        let handler = handler.clone();
        let service = service_fn(move |request: tonic::Request<Streaming<Req>>| {
            let items = (request.into_inner(), ctx.clone(), handler.clone());
            // One after the other, so that a caller who sends faster waits.
            let answers = try_unfold(items, move |(mut requests, ctx, handler)| async move {
                let Some(request) = requests.message().await? else { return Ok(None) };
                let (started, request_id) = (Instant::now(), RequestId::next());
                ctx.still_allowed().await.map_err(|error| status_of(&error, &request_id))?;
                let answer = handler(ctx.clone(), request).await;
                metrics::note(name, started, None, &request_id);
                Ok::<_, tonic::Status>(Some((answer, (requests, ctx, handler))))
            })
            .boxed();
            ready(Ok::<_, tonic::Status>(tonic::Response::new(answers)))
        });
        Box::pin(async move {
            let codec = ProstCodec::<Res, Req>::default();
            let mut server = tonic::server::Grpc::new(codec).max_decoding_message_size(BODY_BYTES_MAX);
            server.streaming(service, request).await
        })
    })
}

/// A list of items over HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct List<Req> {
    items: Vec<Req>,
}

/// The answers to the items of a list, in their order.
#[derive(Debug, Serialize, JsonSchema)]
struct Results<Res> {
    results: Vec<Res>,
}

fn stream_over_grpc<Req: Request, Res: Response, Fut>(
    name: &'static str,
    open: impl Fn(Ctx, Req) -> Fut + Shared,
) -> OverGrpc
where
    Fut: Future<Output = ImksResult<BoxStream<'static, ImksResult<Res>>>> + Send + 'static,
{
    Box::new(move |ctx, request| {
        let open = open.clone();
        let service = service_fn(move |request: tonic::Request<Req>| {
            let opening = open(ctx.clone(), request.into_inner());
            async move {
                let (started, request_id) = (Instant::now(), RequestId::next());
                let outcome = opening.await;
                metrics::note(name, started, outcome.as_ref().err(), &request_id);
                let items = outcome.map_err(|error| status_of(&error, &request_id))?;
                Ok::<_, tonic::Status>(tonic::Response::new(
                    items.map(move |item| item.map_err(|error| status_of(&error, &request_id))),
                ))
            }
        });
        Box::pin(async move {
            let codec = ProstCodec::<Res, Req>::default();
            let mut server = tonic::server::Grpc::new(codec).max_decoding_message_size(BODY_BYTES_MAX);
            server.server_streaming(service, request).await
        })
    })
}

/// Returns the body, which keeps the room until it is dropped.
fn holding(body: Body, room: Reservation) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _ = &room;
        frame
    }))
}

/// A request over HTTP.
pub(super) trait Input: DeserializeOwned + JsonSchema + Send + 'static {}

impl<T: DeserializeOwned + JsonSchema + Send + 'static> Input for T {}

/// An answer over HTTP.
pub(super) trait Output: Serialize + JsonSchema + Send + 'static {}

impl<T: Serialize + JsonSchema + Send + 'static> Output for T {}

/// A request of the contract.
pub(super) trait Request: Input + Message + Name + Default + Clone {}

impl<T: Input + Message + Name + Default + Clone> Request for T {}

/// An answer of the contract.
pub(super) trait Response: Output + Message + Name + Default {}

impl<T: Output + Message + Name + Default> Response for T {}

/// A function that any number of calls may use at once.
pub(super) trait Shared: Clone + Send + Sync + 'static {}

impl<F: Clone + Send + Sync + 'static> Shared for F {}

/// Returns the answer to a call that does not reach its handler, or whose handler takes too long.
pub(super) fn refuse(name: &'static str, started: Instant, error: &ImksError) -> http::Response<Body> {
    let request_id = RequestId::next();
    metrics::note(name, started, Some(error), &request_id);
    status_of(error, &request_id).into_http()
}

/// The error of a service that cannot fail.
pub(super) type Never = Infallible;

/// The field that the header `Idempotency-Key` stands for.
pub(super) const KEY_FIELD: &str = "request_id";
/// The most items of a list over HTTP.
const ITEMS_MAX: usize = 1_000;
/// The largest request, in bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;
