//! The files of a server without an object store: uploaded and downloaded under addresses that it has signed.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::failure;
use super::routes::method_not_allowed;
use crate::files::local::{Local, PATH};
use crate::{ImksError, ImksResult, clock};

/// Returns the routes of the files.
pub fn routes(local: Local) -> Router {
    Router::new()
        .route(&format!("{PATH}/{{id}}"), get(download).put(upload))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(local)
}

async fn upload(State(local): State<Local>, Path(id): Path<Uuid>, request: Request) -> Response {
    match receive(&local, id, request).await {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(error) => failure(&error),
    }
}

async fn receive(local: &Local, id: Uuid, request: Request) -> ImksResult<()> {
    let query = request.uri().query().unwrap_or_default();
    let link = local.link("PUT", id, query, clock::now_micros())?;
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced.is_some_and(|length| length.parse() != Ok(link.size())) {
        return Err(ImksError::invalid("size", format!("is not {} bytes", link.size())));
    }
    let mut incoming = local.receive(id, link).await?;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ImksError::InvalidPayload("The body could not be read".into()))?;
        if let Ok(bytes) = frame.into_data() {
            incoming.write(&bytes).await?;
        }
    }
    incoming.finish().await
}

async fn download(State(local): State<Local>, Path(id): Path<Uuid>, uri: Uri) -> Response {
    match answer(&local, id, uri.query().unwrap_or_default()).await {
        Ok(response) => response,
        Err(error) => failure(&error),
    }
}

async fn answer(local: &Local, id: Uuid, query: &str) -> ImksResult<Response> {
    let link = local.link("GET", id, query, clock::now_micros())?;
    let (file, size, permit) = local.open_file(id).await?;
    let (mime, disposition) = link.presentation();
    let mut response = Body::from_stream(contents(file, permit)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    headers.insert(header::CONTENT_LENGTH, size.into());
    let disposition = HeaderValue::from_str(&disposition);
    headers.insert(header::CONTENT_DISPOSITION, disposition.map_err(|_| ImksError::Internal("a header"))?);
    for (name, value) in PROTECTION {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Returns the bytes of a file as they are read. The permit is held until the end.
fn contents(
    file: tokio::fs::File,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::try_unfold((file, permit), async |(mut file, permit)| {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(chunk), (file, permit))))
    })
}

/// The bytes of a file that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Headers that keep a file from acting as a page of this server.
const PROTECTION: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("cache-control", "private, max-age=300"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ("cross-origin-resource-policy", "cross-origin"),
];
