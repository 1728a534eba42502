//! Socket.IO in front of another service: a tower layer that answers Socket.IO clients, and passes on everything else.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Either, Full};
use tower::{Layer, Service};

use crate::http::SocketIo;
use crate::http::config::BoxFuture;
use crate::http::socketio::peer;

/// Puts the server in front of a service: of an axum application with `Router::layer(io)`, of any other with
/// `io.layer(service)`.
///
/// ```
/// # fn run(server: imks::socket::Server) -> imks::ImksResult<()> {
/// use axum::Router;
/// use axum::routing::get;
/// use imks::http::SocketIo;
///
/// let io = SocketIo::start(server, Default::default())?;
/// let app: Router = Router::new().route("/", get(|| async { "a page" })).layer(io);
/// # Ok(()) }
/// ```
impl<S> Layer<S> for SocketIo {
    type Service = WithSocketIo<S>;

    fn layer(&self, inner: S) -> WithSocketIo<S> {
        WithSocketIo { io: self.clone(), inner }
    }
}

/// A service behind a [`SocketIo`]: requests below the path of the engine are those of Socket.IO clients, and all
/// others reach the service.
#[derive(Clone, Debug)]
pub struct WithSocketIo<S> {
    io: SocketIo,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for WithSocketIo<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<Either<Full<Bytes>, R>>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let engine = self.io.engine().clone();
        if engine.matches(request.uri().path()) {
            let peer = peer(&request);
            return Box::pin(async move { Ok(engine.handle(request, peer).await.map(Either::Left)) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(Either::Right)) })
    }
}
