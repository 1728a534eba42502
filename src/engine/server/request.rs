//! What a request asks for, and which rule it breaks.

use std::pin::pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, header};
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

/// The query parameters that matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) transport: Option<&'a str>,
    pub(crate) sid: Option<&'a str>,
    pub(crate) protocol: Option<&'a str>,
    base64: Option<&'a str>,
    /// Index of the callback that a script element waits with (JSONP).
    pub(crate) jsonp: Option<&'a str>,
}

impl<'a> Query<'a> {
    /// A parameter that is given twice counts as one with an impossible value.
    pub(crate) fn parse(query: &'a str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in query_pairs(query) {
            let place = match name {
                "transport" => &mut parsed.transport,
                "sid" => &mut parsed.sid,
                "EIO" => &mut parsed.protocol,
                "b64" => &mut parsed.base64,
                "j" => &mut parsed.jsonp,
                _ => continue,
            };
            *place = Some(if place.is_some() { "" } else { value });
        }
        parsed
    }

    /// The version asked for, if it is one of those that exist.
    pub(crate) fn version(&self) -> Option<Protocol> {
        match self.protocol {
            Some("4") => Some(Protocol::V4),
            Some("3") => Some(Protocol::V3 { base64: self.base64.is_some() }),
            _ => None,
        }
    }

    pub(crate) fn transport(&self) -> Option<Transport> {
        match self.transport {
            Some("polling") => Some(Transport::Polling),
            Some("websocket") => Some(Transport::WebSocket),
            _ => None,
        }
    }
}

/// Returns the index of the callback that a request waits with, if it comes from a script element (JSONP).
pub(crate) fn jsonp_index(parts: &Parts) -> Option<&str> {
    Query::parse(parts.uri.query().unwrap_or_default()).jsonp
}

/// Returns the payload in the body of a POST: of a script's form one field, otherwise the body itself.
pub(crate) fn payload(parts: &Parts, body: Bytes) -> Bytes {
    match jsonp_index(parts) {
        Some(_) => jsonp::unwrap(&body),
        None => body,
    }
}

/// Whether a request wants to leave HTTP for WebSocket.
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    has_token(&parts.headers, header::UPGRADE, "websocket")
        && has_token(&parts.headers, header::CONNECTION, "upgrade")
}

/// The `Sec-WebSocket-Key` of a request that keeps RFC 6455 section 4.2.1.
pub(crate) fn websocket_key(parts: &Parts) -> Option<&[u8]> {
    let version = parts.headers.get(header::SEC_WEBSOCKET_VERSION)?;
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes();
    let mut nonce = [0; 18];
    let decoded = STANDARD.decode_slice(key, &mut nonce).ok()?;
    (parts.method == Method::GET && version == VERSION && decoded == 16).then_some(key)
}

/// The version of the WebSocket protocol, the only one.
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

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge,
    TooSlow,
    /// The client went away, or sent no valid HTTP.
    Broken,
}

/// Reads a body of at most `bytes_max`, declared or not, within `timeout`.
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
    // One that asks first (`Expect: 100-continue`) sends nothing after the answer.
    if result == Err(BodyError::TooLarge) && !headers.contains_key(header::EXPECT) {
        // A client that is still sending would see a reset instead of the answer.
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
        // Nearly every body is one piece, which is then not copied.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// How much of a body that is refused is read and forgotten, and for how long.
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
    fn repeated_parameters_are_no_transport_and_no_session() {
        let query = Query::parse("transport=polling&transport=websocket&EIO=4&EIO=4&sid=a&sid=b&x");
        assert_eq!((query.transport(), query.protocol, query.sid), (None, Some(""), Some("")));
        assert_eq!(Query::parse("transport=__proto__").transport(), None);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(is_upgrade(&parts(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!is_upgrade(&parts(&[("upgrade", "websocket")])));
        assert!(!is_upgrade(&parts(&[("connection", "upgrade"), ("upgrade", "h2c")])));
    }

    #[test]
    fn a_websocket_key_is_sixteen_bytes() {
        let key = |key, version| {
            let parts = parts(&[("sec-websocket-key", key), ("sec-websocket-version", version)]);
            websocket_key(&parts).is_some()
        };
        assert!(key("dGhlIHNhbXBsZSBub25jZQ==", "13"));
        assert!(!key("dGhlIHNhbXBsZSBub25jZQ==", "8") && !key("short", "13") && !key("", "13"));
    }

    proptest! {
        #[test]
        fn any_query_is_parsed(query in "\\PC{0,100}") {
            Query::parse(&query);
        }
    }
}
