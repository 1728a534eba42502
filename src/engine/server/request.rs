//! The parsing and validation of HTTP requests: queries, WebSocket handshakes and bodies.

use std::borrow::Cow;
use std::pin::pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body::Body;
use http_body_util::BodyExt;

use crate::engine::handshake::query_pairs;
use crate::engine::polling::{Refusal, jsonp};
use crate::engine::request_error::RequestError;
use crate::engine::{Protocol, Transport};

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::SessionUnknown,
            Refusal::Upgraded | Refusal::Overlap => Self::BadRequest,
        }
    }
}

/// The decoded query parameters that the engine uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    transport: Option<Cow<'a, str>>,
    pub(crate) sid: Option<Cow<'a, str>>,
    pub(crate) protocol: Option<Cow<'a, str>>,
    base64: Option<Cow<'a, str>>,
    /// The index of the callback that a script element registered (JSONP).
    pub(crate) jsonp: Option<Cow<'a, str>>,
}

impl<'a> Query<'a> {
    /// Parses a query. If a parameter is repeated, the last one counts.
    pub(crate) fn parse(query: &'a str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in query_pairs(query) {
            let parameter = match &*name {
                "transport" => &mut parsed.transport,
                "sid" => &mut parsed.sid,
                "EIO" => &mut parsed.protocol,
                "b64" => &mut parsed.base64,
                "j" => &mut parsed.jsonp,
                _ => continue,
            };
            *parameter = Some(value);
        }
        parsed
    }

    /// Returns the requested version, if it exists.
    pub(crate) fn version(&self) -> Option<Protocol> {
        match self.protocol.as_deref() {
            Some("4") => Some(Protocol::V4),
            Some("3") => Some(Protocol::V3 { base64: self.base64.is_some() }),
            _ => None,
        }
    }

    pub(crate) fn transport(&self) -> Option<Transport> {
        match self.transport.as_deref() {
            Some("polling") => Some(Transport::Polling),
            Some("websocket") => Some(Transport::WebSocket),
            Some("webtransport") => Some(Transport::WebTransport),
            _ => None,
        }
    }
}

/// Returns the index of the callback, if the request comes from a script element (JSONP).
pub(crate) fn jsonp_index(parts: &Parts) -> Option<Cow<'_, str>> {
    Query::parse(parts.uri.query().unwrap_or_default()).jsonp
}

/// Returns the payload in the body of a POST. The form of a script element has it in one field, which may be
/// missing.
pub(crate) fn payload(parts: &Parts, body: Bytes) -> Option<Bytes> {
    match jsonp_index(parts) {
        Some(_) => jsonp::unwrap(&body),
        None => Some(body),
    }
}

/// Whether a request asks to upgrade from HTTP to WebSocket.
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    has_token(&parts.headers, header::UPGRADE, "websocket")
        && has_token(&parts.headers, header::CONNECTION, "upgrade")
}

/// A WebSocket handshake that conforms to RFC 6455 section 4.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WebSocketHandshake<'a> {
    pub(crate) key: &'a [u8],
    /// The subprotocol that the client prefers, if it names any. All of them are treated alike.
    pub(crate) protocol: Option<&'a str>,
}

/// Checks a WebSocket handshake. The texts of the refusals are those of the reference server.
pub(crate) fn websocket_handshake(parts: &Parts) -> Result<WebSocketHandshake<'_>, RequestError> {
    let bad = RequestError::BadHandshake;
    if parts.method != Method::GET {
        return Err(RequestError::BadMethod);
    }
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
    if STANDARD.decode_slice(key, &mut [0; 18]) != Ok(16) {
        return Err(bad("Missing or invalid Sec-WebSocket-Key header"));
    }
    if parts.headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(bad("Missing or invalid Sec-WebSocket-Version header"));
    }
    let protocol = first_protocol(&parts.headers).ok_or(bad("Invalid Sec-WebSocket-Protocol header"))?;
    Ok(WebSocketHandshake { key, protocol })
}

/// Returns the first offered subprotocol, if there is one. Returns the outer `None` unless all of them are
/// distinct tokens.
fn first_protocol(headers: &HeaderMap) -> Option<Option<&str>> {
    let mut offered = Vec::new();
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        for name in value.to_str().ok()?.split(',').map(str::trim) {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) || offered.contains(&name) {
                return None;
            }
            offered.push(name);
        }
    }
    Some(offered.first().copied())
}

/// The only supported version of the WebSocket protocol.
pub(crate) const VERSION: &str = "13";

fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    values.iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

/// The reason why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge,
    TooSlow,
    /// The client disconnected, or sent invalid HTTP.
    Broken,
}

/// Reads a body of at most `bytes_max` within `timeout`. The limit also applies to a declared length.
pub(crate) async fn read_body<B>(
    headers: &HeaderMap,
    body: B,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, BodyError>
where
    B: Body,
{
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut body = pin!(body);
    let result = tokio::time::timeout(timeout, async {
        if declared.is_some_and(|length: u64| length > bytes_max as u64) {
            return Err(BodyError::TooLarge);
        }
        collect(&mut body, bytes_max).await
    })
    .await
    .unwrap_or(Err(BodyError::TooSlow));
    // A client that asks first (`Expect: 100-continue`) sends nothing after the response.
    if result == Err(BodyError::TooLarge) && !headers.contains_key(header::EXPECT) {
        // A client that is still sending would get a reset instead of the response.
        let _ = tokio::time::timeout(timeout.min(DRAIN_TIME), collect(&mut body, DRAIN_BYTES)).await;
    }
    result
}

async fn collect<B: Body>(body: &mut std::pin::Pin<&mut B>, bytes_max: usize) -> Result<Bytes, BodyError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let length = data.remaining();
        let data = data.copy_to_bytes(length);
        if first.len() + all.len() + data.len() > bytes_max {
            return Err(BodyError::TooLarge);
        }
        // Nearly every body is one piece, which is not copied.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The limits up to which a refused body is read and discarded.
const DRAIN_BYTES: usize = 8 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn of_repeated_parameters_the_last_counts() {
        let query = Query::parse("transport=polling&transport=websocket&EIO=4&EIO=4&sid=a&sid=b&x");
        assert_eq!(query.transport(), Some(Transport::WebSocket));
        assert_eq!((query.version(), query.sid.as_deref()), (Some(Protocol::V4), Some("b")));
        assert_eq!(Query::parse("transport=__proto__").transport(), None);
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("EIO=%34&transport=pol%6Cing&s%69d=a%2Bb");
        assert_eq!((query.version(), query.transport()), (Some(Protocol::V4), Some(Transport::Polling)));
        assert_eq!(query.sid.as_deref(), Some("a+b"));
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(is_upgrade(&parts(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!is_upgrade(&parts(&[("upgrade", "websocket")])));
        assert!(!is_upgrade(&parts(&[("connection", "upgrade"), ("upgrade", "h2c")])));
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION_13: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn a_handshake_that_breaks_a_rule_is_told_which() {
        let protocol = |value| ("sec-websocket-protocol", value);
        let rows: [(&[_], _); 7] = [
            (&[VERSION_13], "Missing or invalid Sec-WebSocket-Key header"),
            (&[VERSION_13, ("sec-websocket-key", "short")], "Missing or invalid Sec-WebSocket-Key header"),
            (&[KEY], "Missing or invalid Sec-WebSocket-Version header"),
            (&[KEY, ("sec-websocket-version", "8")], "Missing or invalid Sec-WebSocket-Version header"),
            (&[KEY, VERSION_13, protocol("")], "Invalid Sec-WebSocket-Protocol header"),
            (&[KEY, VERSION_13, protocol("a, a")], "Invalid Sec-WebSocket-Protocol header"),
            (&[KEY, VERSION_13, protocol("a b")], "Invalid Sec-WebSocket-Protocol header"),
        ];
        for (headers, text) in rows {
            let refused = websocket_handshake(&parts(headers)).map(drop);
            assert_eq!(refused, Err(RequestError::BadHandshake(text)), "{headers:?}");
        }
    }

    #[test]
    fn the_first_subprotocol_is_chosen() {
        let chosen = |values: &[&'static str]| {
            let protocols = values.iter().map(|value| ("sec-websocket-protocol", *value));
            let headers: Vec<_> = [KEY, VERSION_13].into_iter().chain(protocols).collect();
            let parts = parts(&headers);
            websocket_handshake(&parts).unwrap().protocol.map(str::to_owned)
        };
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&["chat-v2"]).as_deref(), Some("chat-v2"));
        assert_eq!(chosen(&["b, a", "c"]).as_deref(), Some("b"));
    }

    proptest! {
        #[test]
        fn any_query_is_parsed(query in "\\PC{0,100}") {
            Query::parse(&query);
        }
    }
}
