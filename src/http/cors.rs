//! Requests of web pages of other origins to the HTTP API and to files: the pages that may use Socket.IO may use these.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use crate::engine::cors::{CurrentCors, allow_origin, allow_request};

/// Returns the router with answers to preflight requests, and with headers that let pages of the origins in `cors` read
/// its answers. Without a policy, only pages of the same origin can.
pub fn allow(router: Router, cors: &CurrentCors) -> Router {
    router.layer(middleware::from_fn_with_state(cors.clone(), answer))
}

async fn answer(State(cors): State<CurrentCors>, request: Request, next: Next) -> Response {
    let cors = cors.get().filter(|_| request.headers().contains_key(header::ORIGIN));
    let Some(cors) = cors else { return next.run(request).await };
    let asked = request.headers().clone();
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = match is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    if is_preflight {
        allow_request(&cors, &asked, headers);
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    allow_origin(&cors, &asked, headers);
    response
}

/// The headers that pages may read, beside those that they always may.
const EXPOSED: &str = "Content-Range, ETag, Retry-After";

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::put;
    use tower::ServiceExt;

    use super::*;
    use crate::engine::config::{Cors, Origins};

    async fn ask(method: &str, origin: &str) -> Response {
        let cors = Cors { origins: Origins::List(vec!["https://chat.example".into()]), ..Cors::default() };
        let cors = CurrentCors::new(Some(cors));
        let router = allow(Router::new().route("/file", put(async || "stored")), &cors);
        let request = Request::builder()
            .method(method)
            .uri("/file")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "content-type");
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_page_of_an_allowed_origin_may_upload_and_read_the_answer() {
        let preflight = ask("OPTIONS", "https://chat.example").await;
        assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
        assert_eq!(preflight.headers()["access-control-allow-origin"], "https://chat.example");
        assert_eq!(preflight.headers()["access-control-allow-headers"], "content-type");
        assert!(preflight.headers()["access-control-allow-methods"].to_str().unwrap().contains("PUT"));
        let stored = ask("PUT", "https://chat.example").await;
        assert_eq!(stored.status(), StatusCode::OK);
        assert_eq!(stored.headers()["access-control-allow-origin"], "https://chat.example");
        assert!(stored.headers()["access-control-expose-headers"].to_str().unwrap().contains("ETag"));
    }

    #[tokio::test]
    async fn a_page_of_another_origin_may_not() {
        for method in ["OPTIONS", "PUT"] {
            let headers = ask(method, "https://evil.example").await.headers().clone();
            assert!(!headers.contains_key("access-control-allow-origin"), "{method}: {headers:?}");
        }
    }
}
