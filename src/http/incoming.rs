//! Incoming webhooks, mounted on axum: posts of programs that know a secret address.

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::on;

use super::api::{Named, Parameters, method_filter, read, respond};
use super::routes::{method_not_allowed, protect};
use crate::contract::PREFIX;
use crate::control::api::Control;
use crate::control::incoming::{PLACE, POST_BYTES_MAX};
use crate::messaging::api::Answer;

/// Returns the route of incoming webhooks.
pub fn routes(control: &Control) -> Router {
    let control = control.clone();
    let answer = move |Parameters(parameters): Parameters<Named>, request: Request| async move {
        let answer = match read(parameters, request, POST_BYTES_MAX).await {
            Ok(call) => control.post_to_webhook(&call).await,
            Err(error) => Answer::refusal(&error),
        };
        respond(answer)
    };
    let path = format!("{PREFIX}{}", PLACE.path);
    let router = Router::new().route(&path, on(method_filter(PLACE.method), answer));
    router.method_not_allowed_fallback(method_not_allowed).layer(middleware::from_fn(protect))
}
