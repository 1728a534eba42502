//! The directory for back ends, mounted on axum: the calls of `control::directory`, with their routes.

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::on;

use super::api::{Named, Parameters, head, method_filter, read, respond};
use super::routes::{method_not_allowed, protect};
use crate::control::api::PREFIX;
use crate::control::directory::{DirectoryApi, operations};

/// Returns the routes of all calls about the directory.
pub fn routes(api: &DirectoryApi) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        let api = api.clone();
        let answer = move |Parameters(parameters): Parameters<Named>, request: Request| async move {
            let head = head(&request);
            respond(Box::pin(api.answer(operation, head, read(parameters, request, BODY_BYTES_MAX))).await)
        };
        router =
            router.route(&format!("{PREFIX}{}", operation.path), on(method_filter(operation.method), answer));
    }
    router.method_not_allowed_fallback(method_not_allowed).layer(middleware::from_fn(protect))
}

/// The largest body of a request about the directory, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
