//! The request that makes a connection a WebSocket, with the offer to compress messages.

use std::pin::pin;

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::io::Io;
use super::wire::{Dialer, Session};
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::TransportKind;

const NAME: &str = TransportKind::WebSocket.name();

/// A connection that is a WebSocket now.
pub(super) struct Upgraded {
    pub(super) io: Io,
    /// What came together with the answer.
    pub(super) early: Bytes,
    /// Whether messages may be compressed.
    pub(super) deflates: bool,
}

/// Asks for a WebSocket.
pub(super) async fn upgrade(dialer: &Dialer, io: Io, session: Option<&Session>) -> ClientResult<Upgraded> {
    let failed = |error| ClientError::connect(NAME, error);
    let key = generate_key();
    let request = request(dialer, session, &key)?;
    let (mut requests, driver) = handshake(TokioIo::new(io)).await.map_err(failed)?;
    let asking = async {
        let answer = requests.send_request(request).await.map_err(failed)?;
        let deflates = accepted(answer.status(), answer.headers(), &key)?;
        let upgraded = hyper::upgrade::on(answer).await.map_err(failed)?;
        Ok((upgraded, deflates))
    };
    let (mut asking, mut driver) = (pin!(asking), pin!(driver.with_upgrades()));
    let mut has_ended = false;
    let asked: ClientResult<_> = loop {
        tokio::select! {
            biased;
            asked = &mut asking => break asked,
            // It hands the connection over, or the answer says why not.
            _ = &mut driver, if !has_ended => has_ended = true,
        }
    };
    let (upgraded, deflates) = asked?;
    let parts = upgraded
        .downcast::<TokioIo<Io>>()
        .map_err(|_| ClientError::connect(NAME, "the connection is not what it was"))?;
    Ok(Upgraded { io: parts.io.into_inner(), early: parts.read_buf, deflates })
}

fn request(dialer: &Dialer, session: Option<&Session>, key: &str) -> ClientResult<Request<Empty<Bytes>>> {
    let mut headers = dialer.headers(session.and_then(|session| session.cookies.as_ref()));
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| ClientError::connect(NAME, error));
    headers.entry(HOST).or_insert(value(&dialer.address.authority)?);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, value(key)?);
    headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(OFFER));
    let target = dialer.address.target(NAME, session.map(|session| &*session.sid));
    let mut request = Request::builder()
        .uri(target)
        .body(Empty::new())
        .map_err(|error| ClientError::connect(NAME, error))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Checks the answer of the server. Returns whether messages may be compressed.
fn accepted(status: StatusCode, headers: &HeaderMap, key: &str) -> ClientResult<bool> {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(ClientError::connect(NAME, format!("{status} instead of a WebSocket")));
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| *accept != derive_accept_key(key.as_bytes())) {
        return Err(ClientError::connect(NAME, "the answer is not for this request"));
    }
    let mut extensions = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    let Some(extension) = extensions.next() else { return Ok(false) };
    let is_ours = extensions.next().is_none() && extension.to_str().is_ok_and(is_offered);
    match is_ours {
        true => Ok(true),
        false => Err(ClientError::connect(NAME, "the server compresses in a way that was not offered")),
    }
}

/// Whether a server has taken the offer, and nothing else: it forgets everything between two messages.
fn is_offered(extension: &str) -> bool {
    let mut parts = extension.split(';').map(str::trim);
    let name = parts.next();
    let mut forgets = false;
    let knows = |part: &str| match part.split_once('=').map_or(part, |(name, _)| name.trim()) {
        "server_no_context_takeover" => {
            forgets = true;
            true
        }
        // A smaller window than the largest is read like that.
        "client_no_context_takeover" | "server_max_window_bits" => true,
        _ => false,
    };
    let knows_all = parts.all(knows);
    name == Some("permessage-deflate") && knows_all && forgets
}

/// The only kind of compression that is offered: without memory between messages, as the server of imks does it.
const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_offered_is_taken() {
        for taken in [OFFER, "permessage-deflate;server_no_context_takeover; server_max_window_bits=10"] {
            assert!(is_offered(taken), "{taken}");
        }
        for other in [
            "permessage-deflate",
            "permessage-deflate; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=9",
            "permessage-bzip2; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover, x",
            "",
        ] {
            assert!(!is_offered(other), "{other}");
        }
    }

    #[test]
    fn an_answer_for_another_request_or_with_another_status_is_none() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let mut headers = HeaderMap::new();
        let ok = StatusCode::SWITCHING_PROTOCOLS;
        assert!(accepted(ok, &headers, key).is_err());
        headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(matches!(accepted(ok, &headers, key), Ok(false)));
        assert!(accepted(StatusCode::OK, &headers, key).is_err());
        headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(OFFER));
        assert!(matches!(accepted(ok, &headers, key), Ok(true)));
        headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("x"));
        assert!(accepted(ok, &headers, key).is_err());
    }
}
