//! The HTTP responses of the engine: status, headers, compression and cross-origin rules.

use std::cmp::{Ordering, Reverse};
use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

use crate::engine::config::{Config, Cors};
use crate::engine::metrics;
use crate::engine::polling::Payload;
use crate::engine::polling::jsonp;
use crate::engine::request_error::RequestError;
use crate::engine::server::cors;
use crate::engine::server::request::{self, WebSocketHandshake};
use crate::error::Code;

pub(crate) type Reply = Response<Full<Bytes>>;

/// Returns a text response.
pub(crate) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = empty(status);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    *reply.body_mut() = Full::new(body.into());
    reply
}

/// Returns a response without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

/// Returns `ok`, as the reference server sends it.
pub(crate) fn ok() -> Reply {
    no_store(text(StatusCode::OK, "text/html", Bytes::from_static(b"ok")))
}

/// Returns the response of a server that is too busy or about to stop.
pub(crate) fn unavailable() -> Reply {
    let mut reply =
        refused(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, "The server is busy, retry later");
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    reply
}

/// Returns the response to a body that is refused, with a code of docs/protocol.md ("Error codes").
pub(crate) fn refused(status: StatusCode, code: Code, message: &str) -> Reply {
    json(status, &code.as_str().into(), message)
}

/// Returns the response to a body over the limit. It has no body: the test suite of the reference client expects none.
pub(crate) fn too_large() -> Reply {
    empty(StatusCode::PAYLOAD_TOO_LARGE)
}

/// Returns the response to a body that took too long to arrive.
pub(crate) fn too_slow() -> Reply {
    refused(StatusCode::REQUEST_TIMEOUT, Code::Timeout, "The body took too long")
}

/// Returns the response to a request for the browser build of the client where it is not served.
pub(crate) fn no_client_bundle() -> Reply {
    json(
        StatusCode::BAD_REQUEST,
        &RequestError::TransportUnknown.code().into(),
        "The client is not served here: set IMKS_CLIENT_BUNDLE_DIR (engine::Config::client_bundle_dir) to the \
         directory dist of the npm package socket.io-client",
    )
}

/// Returns an Engine.IO error (docs/protocol.md, "Transport").
pub(crate) fn error(error: &RequestError, parts: &Parts, upgrade: bool) -> Reply {
    metrics::REQUESTS_REFUSED.of(error).increment();
    let status = match error {
        RequestError::Forbidden(_) if !upgrade => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut reply = json(status, &error.code().into(), error.message());
    if !upgrade {
        return reply;
    }
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if parts.headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version != request::VERSION) {
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(request::VERSION));
    }
    reply
}

fn json(status: StatusCode, code: &serde_json::Value, message: &str) -> Reply {
    let message = serde_json::Value::from(message);
    text(status, "application/json", format!(r#"{{"code":{code},"message":{message}}}"#))
}

/// Returns a polling payload, compressed if it is large enough and the client supports it.
pub(crate) fn payload(config: &Config, parts: &Parts, payload: Payload) -> Reply {
    let (body, content_type) = match (payload.binary, request::jsonp_index(parts)) {
        (true, _) => (payload.body, "application/octet-stream"),
        (false, Some(index)) => (jsonp::wrap(&index, &payload.body), "text/javascript; charset=UTF-8"),
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

/// Returns `101 Switching Protocols` with the negotiated extensions.
pub(crate) fn switching(asked: WebSocketHandshake<'_>, extensions: Option<HeaderValue>) -> Reply {
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = tungstenite::handshake::derive_accept_key(asked.key);
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = asked.protocol.and_then(|protocol| HeaderValue::from_str(protocol).ok()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    if let Some(extensions) = extensions {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, extensions);
    }
    reply
}

/// Returns the response that begins to carry the stream of a WebTransport session, which another node has.
pub(crate) fn carries_stream() -> Reply {
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    reply
}

/// Returns the response to a preflight request, or `None` for any other request.
pub(crate) fn preflight(cors: &Cors, parts: &Parts) -> Option<Reply> {
    if parts.method != Method::OPTIONS {
        return None;
    }
    let mut reply = empty(StatusCode::NO_CONTENT);
    cors::allow_request(cors, &parts.headers, reply.headers_mut());
    Some(reply)
}

/// Adds the headers that every response has.
pub(crate) fn decorate(config: &Config, cors: Option<&Cors>, parts: &Parts, reply: &mut Reply) {
    let headers = reply.headers_mut();
    if let Some(cors) = cors {
        cors::allow_origin(cors, &parts.headers, headers);
    }
    for (name, value) in &config.extra_headers {
        headers.append(name.clone(), value.clone());
    }
    if let Some(edit) = &config.hooks.headers {
        edit(headers, parts);
    }
}

/// Returns `gzip` or `deflate`. The coding with the higher weight wins, then the one that is named explicitly
/// (not by `*`), then the one that is named first.
pub(crate) fn accepted_coding(headers: &HeaderMap) -> Option<&'static str> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let accepted: Vec<(&str, f32)> = values.flat_map(|value| value.split(',')).map(weighted).collect();
    let preference = |coding: &str| {
        let named = accepted.iter().position(|(name, _)| name.eq_ignore_ascii_case(coding));
        let place = named.or_else(|| accepted.iter().position(|(name, _)| *name == "*"))?;
        let weight = accepted[place].1;
        (weight > 0.0).then_some((weight, named.is_some(), Reverse(place)))
    };
    // The last of equal ones is chosen: `gzip`.
    let preferences = ["deflate", "gzip"].map(|coding| (preference(coding), coding));
    let best = preferences.into_iter().filter(|(preference, _)| preference.is_some());
    best.max_by(|(one, _), (other, _)| one.partial_cmp(other).unwrap_or(Ordering::Equal))
        .map(|(_, coding)| coding)
}

/// Parses the name and weight of an `Accept-Encoding` entry. An invalid weight refuses the coding.
fn weighted(entry: &str) -> (&str, f32) {
    let mut parts = entry.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight =
        parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")));
    (name, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

/// Returns the body in this coding, or `None` if compression fails.
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
        assert_eq!(coding("gzip;q=0.2, deflate;q=0.8"), Some("deflate"));
        assert_eq!(coding("deflate, gzip"), Some("deflate"));
        assert_eq!(coding("*"), Some("gzip"));
        assert_eq!(coding("*, deflate"), Some("deflate"));
        assert_eq!(coding("gzip;q=0, *;q=0.5"), Some("deflate"));
        assert_eq!(coding("*;q=0"), None);
        assert_eq!(coding("gzip;level=1;q=0"), None);
    }

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        let asked = WebSocketHandshake { key: b"dGhlIHNhbXBsZSBub25jZQ==", protocol: Some("chat-v2") };
        let reply = switching(asked, None);
        assert_eq!(reply.headers()["sec-websocket-protocol"], "chat-v2");
        assert_eq!(reply.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
