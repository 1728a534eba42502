//! The HTTP API under [`PREFIX`]: the routes of `messaging`, mounted on axum.

use std::net::IpAddr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::routes::{failure, method_not_allowed, protect};
use crate::contract::PREFIX;
use crate::control::api::{Head, Peer};
use crate::messaging::api::{Answer, Api, Call, Method, ServerFacts};
use crate::telemetry::traceparent::TraceParent;
use crate::{ImksError, ImksResult};

/// Returns all routes of the API. A body has at most `body_bytes_max` bytes.
pub fn routes(api: &Api, body_bytes_max: usize) -> Router {
    let mut router = Router::new();
    for (route, namespace) in api.routes() {
        let path = format!("{PREFIX}{}", route.path());
        let method = method_filter(route.method());
        let answer = move |Parameters(parameters): Parameters<Named>, request: Request| async move {
            let answer = match read(parameters, request, body_bytes_max).await {
                Ok(call) => route.answer(namespace, call).await,
                Err(error) => Answer::refusal(&error),
            };
            respond(answer)
        };
        router = router.route(&path, on(method, answer));
    }
    let facts = api.facts().clone();
    let answer = move || async move { respond(facts.answer()) };
    router = router.route(&format!("{PREFIX}{}", ServerFacts::path()), get(answer));
    router.method_not_allowed_fallback(method_not_allowed).layer(middleware::from_fn(protect))
}

/// The parameters in the path of a request. A path without them is refused in JSON, like everything else.
pub(super) struct Parameters<T>(pub(super) T);

/// The names of parameters and their values.
pub(super) type Named = Vec<(String, String)>;

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(parameters)) => Ok(Self(parameters)),
            Err(_) => Err(failure(&ImksError::InvalidPayload("The path is not UTF-8".into()))),
        }
    }
}

pub(super) fn method_filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

pub(super) async fn read(
    parameters: Vec<(String, String)>,
    request: Request,
    body_bytes_max: usize,
) -> ImksResult<Call> {
    let (parts, body) = request.into_parts();
    Ok(Call {
        peer: parts.extensions.get().map(|ConnectInfo(peer)| *peer),
        authorization: text(&parts.headers, header::AUTHORIZATION.as_str())?,
        idempotency_key: idempotency_key(&parts.headers)?,
        traceparent: traceparent(&parts.headers),
        parameters,
        query: parts.uri.query().map(str::to_owned),
        body: to_bytes(body, body_bytes_max).await.map_err(unreadable)?,
    })
}

/// Returns what decides whether the body of a request of a back end is read.
pub(super) fn head(request: &Request) -> Head {
    let headers = request.headers();
    Head {
        authorization: text(headers, header::AUTHORIZATION.as_str()),
        peer: request.extensions().get::<Peer>().cloned().unwrap_or_default(),
        is_page: headers.contains_key(header::ORIGIN) || !names_loopback(request),
    }
}

/// Whether a request is for this machine by its name or address. A page whose name was made to resolve to it (DNS rebinding)
/// reads without an `Origin`.
fn names_loopback(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    host.or(request.uri().authority().map(Authority::as_str)).is_some_and(is_loopback)
}

/// Whether a host, with or without a port, is a loopback address or `localhost`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn idempotency_key(headers: &HeaderMap) -> ImksResult<Option<String>> {
    if headers.get_all(IDEMPOTENCY_KEY).iter().count() > 1 {
        return Err(ImksError::invalid(IDEMPOTENCY_KEY, "is there twice"));
    }
    text(headers, IDEMPOTENCY_KEY)
}

/// Returns the span that a request is a part of. Who names two names none, like everybody whose header is malformed.
fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    TraceParent::parse(value.to_str().ok()?)
}

fn text(headers: &HeaderMap, name: &str) -> ImksResult<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text =
        value.to_str().map_err(|_| ImksError::InvalidPayload(format!("The header {name} is not text")))?;
    Ok(Some(text.to_owned()))
}

fn unreadable(error: axum::Error) -> ImksError {
    if error.into_inner().is::<LengthLimitError>() {
        return ImksError::PayloadTooLarge;
    }
    ImksError::InvalidPayload("The body could not be read".into())
}

pub(super) fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Body::from(answer.body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = answer.retry_after {
        // Whole seconds, rounded up so that a retry is never too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

const TRACEPARENT: &str = "traceparent";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_names_two_spans_is_a_part_of_none() {
        let value = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let mut headers = HeaderMap::new();
        assert_eq!(traceparent(&headers), None);
        headers.append(TRACEPARENT, value.clone());
        assert!(traceparent(&headers).is_some());
        headers.append(TRACEPARENT, value);
        assert_eq!(traceparent(&headers), None);
    }
}
