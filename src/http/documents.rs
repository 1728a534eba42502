//! The documents about the contract, below [`PREFIX`]: OpenAPI, AsyncAPI and TypeScript. They need no token.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use super::routes::method_not_allowed;
use crate::contract::{DOCUMENTS, Document, Documents, PREFIX};

/// Returns the routes of all documents.
pub fn routes(documents: Documents) -> Router {
    let mut router = Router::new();
    for document in DOCUMENTS {
        let answer = move |State(documents): State<Documents>, headers: HeaderMap| async move {
            serve(&document, documents.text(&document), &headers)
        };
        router = router.route(&format!("{PREFIX}/{}", document.file), get(answer));
    }
    router.method_not_allowed_fallback(method_not_allowed).with_state(documents)
}

/// Answers with the document, or that the caller's copy is still right.
fn serve(document: &Document, text: Bytes, asked: &HeaderMap) -> Response {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|it| it.trim() == tag));
    let headers: [(HeaderName, &str); 4] = [
        (header::ETAG, &tag),
        (header::CONTENT_TYPE, document.mime),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if is_known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, text).into_response()
    }
}
