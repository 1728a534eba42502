//! The files of a server without an object store: uploaded and downloaded under addresses that it has signed.

use std::io::SeekFrom;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use uuid::Uuid;

use super::api::Parameters;
use super::failure;
use super::routes::method_not_allowed;
use crate::files::local::{Local, PATH, Transfer};
use crate::{ImksError, ImksResult, clock};

/// Returns the routes of the files.
pub fn routes(local: Local) -> Router {
    Router::new()
        .route(&format!("{PATH}/{{id}}"), get(download).put(upload))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(local)
}

async fn upload(
    State(local): State<Local>,
    Parameters(id): Parameters<String>,
    request: Request,
) -> Response {
    match receive(&local, &id, request).await {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(error) => failure(&error),
    }
}

async fn receive(local: &Local, id: &str, request: Request) -> ImksResult<()> {
    let id = file_id(id)?;
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

async fn download(
    State(local): State<Local>,
    Parameters(id): Parameters<String>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    match answer(&local, &id, &head).await {
        Ok(response) => response,
        Err(error) => failure(&error),
    }
}

async fn answer(local: &Local, id: &str, request: &Parts) -> ImksResult<Response> {
    let id = file_id(id)?;
    let query = request.uri.query().unwrap_or_default();
    let link = local.link("GET", id, query, clock::now_micros())?;
    let (mut file, size, transfer) = local.open_file(id, &link).await?;
    let tag = format!("\"{id}\"");
    let wanted = Wanted::of(request, &tag, size);
    let (first, length) = match wanted {
        Wanted::Nothing => return unsatisfiable(size),
        Wanted::Part { first, length } => (first, length),
        Wanted::Whole => (0, size),
    };
    file.seek(SeekFrom::Start(first)).await.map_err(ImksError::io("reading a file"))?;
    let (mime, disposition) = link.presentation();
    let mut response = Body::from_stream(contents(file, length, transfer)).into_response();
    if wanted != Wanted::Whole {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {first}-{}/{size}", first + length - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, text(range)?);
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, text(tag)?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_DISPOSITION, text(disposition)?);
    for (name, value) in PROTECTION {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Reads the id of a file. A text that is no id is the id of no file.
fn file_id(text: &str) -> ImksResult<Uuid> {
    Uuid::parse_str(text).map_err(|_| ImksError::NotFound("file"))
}

fn text(value: String) -> ImksResult<HeaderValue> {
    value.try_into().map_err(|_| ImksError::Internal("a header"))
}

fn unsatisfiable(size: u64) -> ImksResult<Response> {
    let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    response.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{size}"))?);
    Ok(response)
}

/// What a request asks for (RFC 9110 section 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The file; also for whoever asks for several parts, or for one of a file with another tag.
    Whole,
    /// The `length` bytes from `first`.
    Part { first: u64, length: u64 },
    /// A part that the file does not have.
    Nothing,
}

impl Wanted {
    fn of(request: &Parts, tag: &str, size: u64) -> Self {
        let header = |name| request.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let is_same = header(header::IF_RANGE).is_none_or(|known| known == tag);
        let range = header(header::RANGE).filter(|_| is_same && request.method == Method::GET);
        range.map_or(Self::Whole, |range| Self::of_range(range, size))
    }

    fn of_range(range: &str, size: u64) -> Self {
        let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        let (first, last) = match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last),
            (Some(first), None) if last.is_empty() => (first, u64::MAX),
            (None, Some(0)) if first.is_empty() => return Self::Nothing,
            (None, Some(length)) if first.is_empty() => (size.saturating_sub(length), u64::MAX),
            _ => return Self::Whole,
        };
        match first < size {
            true => Self::Part { first, length: last.min(size - 1) - first + 1 },
            false => Self::Nothing,
        }
    }
}

/// Returns the number that digits stand for. One that is too large is larger than every file.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Returns the next `left` bytes of a file as they are read. The transfer is held until the end.
fn contents(
    file: tokio::fs::File,
    left: u64,
    transfer: Transfer,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::try_unfold((file, left, transfer), async |(mut file, left, transfer)| {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(left.min(CHUNK_BYTES as u64)).read_to_end(&mut chunk).await?;
        let left = left - read as u64;
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(chunk), (file, left, transfer))))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_of_a_file_can_be_asked_for_in_three_ways() {
        for (range, first, length) in [
            ("bytes=0-3", 0, 4),
            ("bytes=5-5", 5, 1),
            ("bytes=4-", 4, 6),
            ("bytes=-3", 7, 3),
            ("bytes=-30", 0, 10),
            ("bytes=0-", 0, 10),
            ("bytes=8-99999999999999999999999", 8, 2),
        ] {
            assert_eq!(Wanted::of_range(range, 10), Wanted::Part { first, length }, "{range}");
        }
        let no_range = ["", "bytes=", "bytes=-", "bytes=3-2", "bytes=a-b", "bytes=+1-2", "lines=0-1"];
        for range in no_range.into_iter().chain(["bytes=0-1,3-4"]) {
            assert_eq!(Wanted::of_range(range, 10), Wanted::Whole, "{range}");
        }
        for range in ["bytes=10-", "bytes=10-12", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(Wanted::of_range(range, 10), Wanted::Nothing, "{range}");
        }
    }
}
