//! The API for back ends, mounted on axum: the operations of `control`, with their routes.

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::on;

use super::api::{Named, Parameters, head, method_filter, read, respond};
use super::routes::{method_not_allowed, protect};
use crate::control::api::{Control, PREFIX, REQUEST_BYTES_MAX};

/// Returns the routes of all operations.
pub fn routes(control: &Control) -> Router {
    let mut router = Router::new();
    for operation in Control::operations() {
        let control = control.clone();
        let answer = move |Parameters(parameters): Parameters<Named>, request: Request| async move {
            let head = head(&request);
            respond(
                Box::pin(control.answer(operation, head, read(parameters, request, REQUEST_BYTES_MAX))).await,
            )
        };
        let path = format!("{PREFIX}{}", operation.path);
        router = router.route(&path, on(method_filter(operation.method), answer));
    }
    router
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(protect))
        .merge(super::directory::routes(&control.directory_api()))
}
