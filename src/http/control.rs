//! The API for back ends, mounted on axum: the operations of `control`, with their routes.

use axum::Router;
use axum::extract::{Path, Request};
use axum::middleware;
use axum::routing::on;

use super::api::{method_filter, read, respond};
use super::routes::{method_not_allowed, protect};
use crate::control::api::{Control, PREFIX, Peer, REQUEST_BYTES_MAX};
use crate::messaging::api::Answer;

/// Returns the routes of all operations.
pub fn routes(control: &Control) -> Router {
    let mut router = Router::new();
    for operation in Control::operations() {
        let control = control.clone();
        let answer = move |Path(parameters): Path<Vec<(String, String)>>, request: Request| async move {
            let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
            let answer = match read(parameters, request, REQUEST_BYTES_MAX).await {
                Ok(call) => control.answer(operation, &call, &peer).await,
                Err(error) => Answer::refusal(&error),
            };
            respond(answer)
        };
        let path = format!("{PREFIX}{}", operation.path);
        router = router.route(&path, on(method_filter(operation.method), answer));
    }
    let router = router.merge(super::directory::routes(control));
    router.method_not_allowed_fallback(method_not_allowed).layer(middleware::from_fn(protect))
}
