//! HTTP answers of the engine: status, headers, compression, cross-origin rules.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

use crate::engine::config::{Config, Cors, Origins};
use crate::engine::metrics;
use crate::engine::polling::jsonp;
use crate::engine::polling::{Payload, Refusal};
use crate::engine::request_error::RequestError;
use crate::engine::server::request;
use crate::error::Code;

pub(crate) type Reply = Response<Full<Bytes>>;

/// A text answer.
pub(crate) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = empty(status);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    *reply.body_mut() = Full::new(body.into());
    reply
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

/// For a POST whose session ended before its packets were accepted.
pub(crate) fn refused_post(refusal: Refusal) -> Result<Reply, RequestError> {
    match refusal {
        Refusal::Upgraded => Err(RequestError::BadRequest),
        Refusal::Unknown | Refusal::Overlap => Ok(empty(StatusCode::BAD_REQUEST)),
    }
}

/// `ok`, as the reference sends it.
pub(crate) fn ok() -> Reply {
    no_store(text(StatusCode::OK, "text/html", Bytes::from_static(b"ok")))
}

/// Too busy, or about to stop.
pub(crate) fn unavailable() -> Reply {
    let body = format!(r#"{{"code":"{}","message":"The server is busy, retry later"}}"#, Code::Overloaded);
    let mut reply = text(StatusCode::SERVICE_UNAVAILABLE, "application/json", body);
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    reply
}

/// An Engine.IO error (docs/protocol.md, "Transport"): JSON over HTTP, plain text to a WebSocket request.
pub(crate) fn error(error: &RequestError, upgrade: bool) -> Reply {
    metrics::REQUESTS_REFUSED.of(error).increment();
    let status = match error {
        RequestError::Forbidden(_) if !upgrade => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    if upgrade {
        let mut reply = text(status, "text/html", error.message().to_owned());
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return reply;
    }
    let message = serde_json::Value::from(error.message());
    text(status, "application/json", format!(r#"{{"code":{},"message":{message}}}"#, error.code()))
}

/// A polling payload, compressed if it is worth it and the client can.
pub(crate) fn payload(config: &Config, parts: &Parts, payload: Payload) -> Reply {
    let (body, content_type) = match (payload.binary, request::jsonp_index(parts)) {
        (true, _) => (payload.body, "application/octet-stream"),
        (false, Some(index)) => (jsonp::wrap(index, &payload.body), "text/javascript; charset=UTF-8"),
        (false, None) => (payload.body, "text/plain; charset=UTF-8"),
    };
    let threshold = config.http_compression.unwrap_or(usize::MAX);
    let worth_it = payload.compressible && body.len() >= threshold;
    let coding = if worth_it { accepted_coding(&parts.headers) } else { None };
    let packed = coding.and_then(|coding| Some((coding, compress(coding, &body)?)));
    let (coding, body) = match packed {
        Some((coding, body)) => (Some(coding), Bytes::from(body)),
        None => (None, Bytes::from(body)),
    };
    let mut reply = no_store(text(StatusCode::OK, content_type, body));
    if let Some(coding) = coding {
        reply.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    reply
}

fn no_store(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// `101 Switching Protocols`, with the extensions that were agreed on.
pub(crate) fn switching(key: &[u8], extensions: Option<HeaderValue>) -> Reply {
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = tungstenite::handshake::derive_accept_key(key);
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(extensions) = extensions {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, extensions);
    }
    reply
}

/// The answer to a preflight request; `None` if this is none.
pub(crate) fn preflight(cors: &Cors, parts: &Parts) -> Option<Reply> {
    if parts.method != Method::OPTIONS {
        return None;
    }
    let mut reply = empty(StatusCode::NO_CONTENT);
    let headers = reply.headers_mut();
    let methods = if cors.methods.is_empty() { DEFAULT_METHODS.into() } else { cors.methods.join(",") };
    insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, &methods);
    if !cors.headers.is_empty() {
        insert(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers.join(","));
    } else if let Some(asked) = parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Some(reply)
}

/// Adds what every answer carries.
pub(crate) fn decorate(config: &Config, parts: &Parts, reply: &mut Reply) {
    let headers = reply.headers_mut();
    if let Some(cors) = &config.cors {
        allow_origin(cors, &parts.headers, headers);
    }
    for (name, value) in &config.extra_headers {
        headers.append(name.clone(), value.clone());
    }
    if let Some(edit) = &config.hooks.headers {
        edit(headers, parts);
    }
}

/// Exact comparison of whole origins; nothing is reflected that is not in the list.
fn allow_origin(cors: &Cors, request: &HeaderMap, headers: &mut HeaderMap) {
    match &cors.origins {
        Origins::Any => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Origins::List(allowed) => {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
            let Some(origin) = request.get(header::ORIGIN) else { return };
            if !allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
                return;
            }
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if cors.credentials {
                let yes = HeaderValue::from_static("true");
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // A configured value that is no header value is left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// `gzip` or `deflate`, whichever the client names first without `q=0`.
pub(crate) fn accepted_coding(headers: &HeaderMap) -> Option<&'static str> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    accepted.split(',').find_map(|entry| {
        let (name, quality) = entry.split_once(';').unwrap_or((entry, ""));
        let refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
        let coding = ["gzip", "deflate"].into_iter().find(|coding| name.trim().eq_ignore_ascii_case(coding));
        coding.filter(|_| !refused)
    })
}

/// The body in this coding, if that works.
pub(crate) fn compress(coding: &str, body: &[u8]) -> Option<Vec<u8>> {
    let packed = Vec::with_capacity(body.len() / 4);
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(packed, Compression::fast());
            encoder.write_all(body).and_then(|()| encoder.finish()).ok()
        }
        // HTTP calls the zlib format `deflate`.
        _ => {
            let mut encoder = ZlibEncoder::new(packed, Compression::fast());
            encoder.write_all(body).and_then(|()| encoder.finish()).ok()
        }
    }
}

const DEFAULT_METHODS: &str = "GET,HEAD,PUT,PATCH,POST,DELETE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_the_coding() {
        let coding = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepted_coding(&headers)
        };
        assert_eq!(coding("gzip, deflate, br"), Some("gzip"));
        assert_eq!(coding("br, deflate;q=0.5"), Some("deflate"));
        assert_eq!(coding("gzip;q=0, identity"), None);
        assert_eq!(coding("br"), None);
    }

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        let reply = switching(b"dGhlIHNhbXBsZSBub25jZQ==", None);
        assert_eq!(reply.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
