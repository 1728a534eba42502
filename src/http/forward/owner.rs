//! The owner's end: the route for requests that other nodes have received for sessions of this one.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::forwarder::Forwarder;
use super::head::{self, PATH};
use crate::ImksError;
use crate::engine::Engine;
use crate::http::{failure, metrics};

/// Returns the route. To whoever has not signed with the secret of this node, there is nothing.
pub fn routes(forwarder: &Forwarder, engine: &Engine) -> Router {
    let (forwarder, engine) = (forwarder.clone(), engine.clone());
    let answer = move |request: Request| {
        let (forwarder, engine) = (forwarder.clone(), engine.clone());
        async move { Box::pin(answer(&forwarder, &engine, request)).await }
    };
    Router::new().route(PATH, any(answer))
}

async fn answer(forwarder: &Forwarder, engine: &Engine, request: Request) -> Response {
    if !head::is_signed(forwarder.secret(), request.method(), request.uri(), request.headers()) {
        metrics::FORWARDED_UNSIGNED.increment();
        return failure(&ImksError::NotFound("page")).into_response();
    }
    let mut reply = engine.handle_forwarded(request).await;
    head::mark(engine.node(), reply.headers_mut());
    reply.map(Body::new)
}
