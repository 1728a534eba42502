//! Accept loop: engine paths to the engine, everything else to the routes.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::engine::Engine;

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    router: Router,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => if let Ok((stream, peer)) = accepted {
                tasks.spawn(connection(stream, peer, engine.clone(), router.clone(), stop.clone()));
            },
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    engine: Engine,
    router: Router,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (engine, router) = (engine.clone(), router.clone());
        async move { Ok::<_, Infallible>(answer(request, peer, engine, router).await) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::select! {
        () = stop.cancelled() => {}
        _ = serving => {}
    }
}

async fn answer(request: Request<Incoming>, peer: SocketAddr, engine: Engine, router: Router) -> Response {
    if engine.matches(request.uri().path()) {
        return engine.handle(request, peer).await.map(Body::new);
    }
    match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
