//! The directory for back ends, mounted on axum: the calls of `control::directory`, with their routes.

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::MethodRouter;

use super::api::{method_filter, read, respond};
use crate::control::api::{Control, PREFIX, Peer};
use crate::control::directory;
use crate::messaging::api::{Answer, Method};

/// Returns the routes of all calls about the directory.
pub(super) fn routes(control: &Control) -> Router {
    let mut router = Router::new();
    for (noun, methods) in directory::routes() {
        let answers = methods.into_iter().fold(MethodRouter::new(), |answers, method| {
            let control = control.clone();
            answers.on(method_filter(method), move |request: Request| answer(control, noun, method, request))
        });
        router = router.route(&format!("{PREFIX}/{noun}"), answers);
    }
    router
}

async fn answer(control: Control, noun: &'static str, method: Method, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let answer = match read(Vec::new(), request, BODY_BYTES_MAX).await {
        Ok(call) => control.administer(noun, method, call, &peer).await,
        Err(error) => Answer::refusal(&error),
    };
    respond(answer)
}

/// The largest body of a request about the directory, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
