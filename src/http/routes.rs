//! The routes beside the engine: health, metrics, and a JSON 404 for all other paths.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::ImksError;
use crate::envelope::{Failure, RequestId};
use crate::http::health::{Health, Readiness, Status};
use crate::telemetry::Catalog;
use crate::telemetry::prometheus::{self, Format};

/// The state of the routes.
#[derive(Debug, Clone)]
struct Parts {
    health: Arc<Health>,
    metrics: Catalog,
}

/// The audience of a listener's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Clients and operators, because operators have no listener of their own.
    All,
    /// Clients only, because operators have a listener of their own.
    Clients,
    /// Operators only.
    Operators,
}

/// Returns the routes beside `/socket.io/`. Clients cannot read metrics if operators have their own listener.
pub fn router(audience: Audience, health: Arc<Health>, metrics: Catalog) -> Router {
    let mut router = Router::new()
        .route("/health", get(whole_health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready));
    if audience != Audience::Clients {
        router = router.route("/metrics", get(scrape));
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(protect))
        .with_state(Parts { health, metrics })
}

/// Returns the state of every part, for people and dashboards.
async fn whole_health(State(parts): State<Parts>) -> Response {
    let report = parts.health.report().await;
    let status = match report.status {
        Status::Healthy | Status::Degraded => StatusCode::OK,
        Status::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report)).into_response()
}

/// Reports that the process runs. No part is probed, because restarting imks does not repair a database.
async fn live() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// Reports whether new clients should be routed here.
async fn ready(State(parts): State<Parts>) -> Response {
    let readiness = parts.health.readiness().await;
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        Readiness::Draining | Readiness::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(json!({ "status": readiness.name() }))).into_response()
}

async fn scrape(State(parts): State<Parts>, headers: HeaderMap) -> Response {
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    let page = prometheus::text(parts.metrics, format);
    ([(header::CONTENT_TYPE, format.content_type())], page).into_response()
}

async fn not_found() -> Response {
    failure(&ImksError::NotFound("page"))
}

/// Answers a request with a method that its path does not support.
pub async fn method_not_allowed() -> Response {
    failure(&ImksError::MethodNotAllowed)
}

/// Returns an error in the envelope of the protocol.
pub fn failure(error: &ImksError) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(Failure::new(error, &RequestId::next()))).into_response()
}

/// Adds the headers of every response, which prevent content sniffing and caching.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::http::health::Finding;
    use crate::http::metrics;

    static METRICS: Catalog = &[metrics::INSTRUMENTS];

    async fn get_json(health: Health, path: &str) -> (u16, serde_json::Value) {
        let router = router(Audience::All, Arc::new(health), METRICS);
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_page_that_does_not_exist_is_answered_in_json() {
        let (status, body) = get_json(Health::new(), "/nothing").await;
        assert_eq!((status, &body["ok"], &body["error"]["code"]), (404, &json!(false), &json!("not_found")));
    }

    #[tokio::test]
    async fn clients_do_not_get_the_numbers_when_operators_have_a_listener_of_their_own() {
        let status = async |audience| {
            let router = router(audience, Arc::default(), METRICS);
            let request = Request::get("/metrics").body(Body::empty()).unwrap();
            router.oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!(status(Audience::All).await, 200);
        assert_eq!(status(Audience::Clients).await, 404);
        assert_eq!(status(Audience::Operators).await, 200);
    }

    async fn away() -> crate::ImksResult<()> {
        Err(ImksError::Unavailable("part"))
    }

    #[tokio::test]
    async fn health_has_the_promised_shape() {
        let health = Health::new().needs("postgres", || async { Ok(()) }).connections(|| (3, 7));
        let (status, body) = get_json(health, "/health").await;
        assert_eq!(status, 200);
        assert_eq!(
            (&body["status"], &body["version"]),
            (&json!("healthy"), &json!(env!("CARGO_PKG_VERSION")))
        );
        assert!(body["uptime"].is_u64());
        assert_eq!(body["checks"]["postgres"]["status"], "up");
        assert!(body["checks"]["postgres"]["latency_ms"].is_number());
        for part in ["redis", "nats", "appks_grpc"] {
            assert_eq!(body["checks"][part], json!({ "status": "disabled", "latency_ms": null }));
        }
        assert_eq!(body["connections"], json!({ "active": 3, "total": 7 }));
    }

    #[tokio::test]
    async fn a_server_without_its_database_is_alive_but_not_ready() {
        let without = || Health::new().needs("sqlite", away);
        assert_eq!(get_json(without(), "/health/live").await.0, 200);
        assert_eq!(get_json(without(), "/health/ready").await.0, 503);
        let (status, body) = get_json(without(), "/health").await;
        assert_eq!((status, &body["status"]), (503, &json!("unhealthy")));
        assert_eq!(body["checks"]["sqlite"]["status"], "down");
    }

    #[tokio::test]
    async fn a_server_without_its_core_goes_on_for_those_who_are_connected() {
        let without = || Health::new().needs("sqlite", || async { Ok(()) }).uses("appks_grpc", away);
        assert_eq!(get_json(without(), "/health/ready").await.0, 503);
        let (status, body) = get_json(without(), "/health").await;
        assert_eq!((status, &body["status"]), (200, &json!("degraded")));
        assert_eq!(body["checks"]["appks_grpc"]["status"], "down");
    }

    #[tokio::test]
    async fn what_an_operator_should_look_at_is_degraded_with_its_numbers_and_new_clients_are_served() {
        let waiting = |dead| {
            move || async move { Ok(Finding { is_degraded: dead > 0, numbers: [("dead_letters", dead)].into() }) }
        };
        let with = |dead| Health::new().watches("webhooks", waiting(dead));
        let (status, body) = get_json(with(3), "/health").await;
        assert_eq!((status, &body["status"]), (200, &json!("degraded")));
        assert_eq!(
            (&body["checks"]["webhooks"]["status"], &body["checks"]["webhooks"]["dead_letters"]),
            (&json!("degraded"), &json!(3))
        );
        assert_eq!(get_json(with(3), "/health/ready").await.0, 200);
        let (_, body) = get_json(with(0), "/health").await;
        assert_eq!(
            (&body["status"], &body["checks"]["webhooks"]["status"]),
            (&json!("healthy"), &json!("up"))
        );
    }

    #[tokio::test]
    async fn a_draining_server_is_not_ready() {
        let health = Health::new();
        health.start_draining();
        assert_eq!(get_json(health, "/health/ready").await, (503, json!({ "status": "draining" })));
        let health = Health::new();
        health.start_draining();
        assert_eq!(get_json(health, "/health").await.1["status"], "degraded");
    }
}
