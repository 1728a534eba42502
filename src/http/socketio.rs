//! A complete Socket.IO server, which listens itself or is a service inside another application.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::ImksResult;
use crate::engine::{self, Engine};
use crate::http::config::BoxFuture;
use crate::http::listener;
use crate::socket::Server;

/// A [`Server`] with the [`Engine`] below it. Cheap to clone.
///
/// As a [`tower::Service`] it answers the requests of Socket.IO clients, including WebSocket upgrades, for
/// example as `Router::route_service("/socket.io/", io)` of axum. It takes the address of a client from
/// axum's `ConnectInfo<SocketAddr>`, if the request has it.
#[derive(Clone)]
pub struct SocketIo {
    server: Server,
    engine: Engine,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl SocketIo {
    /// Creates an engine and starts to serve its connections. Requires a tokio runtime.
    ///
    /// # Errors
    /// [`crate::ImksError::Config`] for values that cannot work.
    pub fn start(server: Server, config: engine::Config) -> ImksResult<Self> {
        let (engine, tasks, stop) = (Engine::new(config)?, TaskTracker::new(), CancellationToken::new());
        let (serving, accepted) = (server.clone(), engine.clone());
        tasks.spawn(async move { serving.serve(accepted).await });
        Ok(Self { server, engine, tasks, stop })
    }

    /// Listens on an address with the limits of [`listener::Config`], until [`SocketIo::close`].
    ///
    /// # Errors
    /// [`crate::ImksError::Io`] naming the address.
    pub async fn listen(&self, addr: impl Into<SocketAddr>) -> ImksResult<()> {
        let config = listener::Config::default();
        let routes = listener::routes(self.engine.clone(), Router::new(), &config);
        for socket in listener::bind_loopbacks(addr.into())? {
            let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
            self.tasks.spawn(listener::serve(socket, config.clone(), routes.clone(), tasks, stop));
        }
        self.stop.cancelled().await;
        self.tasks.wait().await;
        Ok(())
    }

    /// Closes every connection after its queued packets are sent, stops listening, and waits for both.
    pub async fn close(&self) {
        self.server.close().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns the Socket.IO server with its namespaces.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns the engine, for use with a custom listener.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl<B> Service<Request<B>> for SocketIo
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let engine = self.engine.clone();
        let peer = request.extensions().get().map_or(UNKNOWN_PEER, |ConnectInfo(peer)| *peer);
        Box::pin(async move { Ok(engine.handle(request, peer).await) })
    }
}

impl fmt::Debug for SocketIo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SocketIo").field("sessions", &self.engine.sessions()).finish_non_exhaustive()
    }
}

/// The address of a client whose listener does not provide one.
const UNKNOWN_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
