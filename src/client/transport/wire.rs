//! What all transports have in common: the server that they reach, and what happens when they are open.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

#[cfg(feature = "client-quic")]
use super::quic_config::{QuicConfig, Raw};
use crate::client::address::Address;
use crate::client::core::Path;
use crate::client::error::{ClientError, DisconnectReason};
use crate::client::event::TransportKind;
use crate::engine::Packet;

/// What is needed to reach a server.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    #[cfg(feature = "client-quic")]
    pub(crate) quic: Option<QuicConfig>,
    #[cfg(feature = "client-quic")]
    pub(crate) raw: Option<Raw>,
    pub(crate) headers: HeaderMap,
    /// How long it may take to reach the server, and then to begin the session.
    pub(crate) timeout: Duration,
    /// The size of the largest message, or answer to a request, that is taken from the server.
    pub(crate) message_bytes_max: usize,
    /// Whether large answers come on a second stream, where the server can send them so.
    pub(crate) has_bulk: bool,
    /// Whether WebSockets offer to compress messages.
    pub(crate) compresses: bool,
    /// When bytes last came from the server. A large packet may be on its way for longer than the server may say
    /// nothing, and this tells that from silence.
    pub(crate) heard_at: Arc<Mutex<Instant>>,
}

/// The CONNECTs that may go with the handshake of a transport, with the credentials that are asked for when it is
/// awaited.
pub(crate) type Joins = BoxFuture<'static, Vec<(Path, Utf8Bytes)>>;

impl Dialer {
    /// Whether the next session may begin together with the handshake of its transport.
    #[cfg(feature = "client-quic")]
    pub(crate) fn may_be_early(&self) -> bool {
        self.raw.as_ref().is_some_and(Raw::may_be_early)
    }

    /// Whether the next session may begin together with the handshake of its transport: only QUIC can.
    #[cfg(not(feature = "client-quic"))]
    pub(crate) fn may_be_early(&self) -> bool {
        false
    }

    /// Returns one that reaches the same server and says nothing about the connection of the client, which may be lost
    /// although the server is heard on others.
    pub(crate) fn apart(&self) -> Self {
        Self { heard_at: Arc::new(Mutex::new(Instant::now())), ..self.clone() }
    }

    /// Returns the headers of a request, with the cookies of its session.
    pub(crate) fn headers(&self, cookies: Option<&HeaderValue>) -> HeaderMap {
        let mut headers = self.headers.clone();
        let Some(cookies) = cookies else { return headers };
        let joined = headers.get(COOKIE).map(|own| [own.as_bytes(), b"; ", cookies.as_bytes()].concat());
        let joined = joined.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
        headers.insert(COOKIE, joined.unwrap_or_else(|| cookies.clone()));
        headers
    }
}

/// A session that was begun on polling, as its later requests name it.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) sid: String,
    /// What the answer to the first request has set. Balancers find the server of a session by it.
    pub(crate) cookies: Option<HeaderValue>,
}

/// Returns the cookies that an answer sets, for the next requests. Their attributes do not matter within one session.
pub(super) fn cookies(answer: &HeaderMap) -> Option<HeaderValue> {
    let values = answer.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.filter_map(|value| value.split(';').next()).map(str::trim);
    let pairs: Vec<&str> = pairs.filter(|pair| pair.contains('=')).collect();
    HeaderValue::from_str(&pairs.join("; ")).ok().filter(|cookies| !cookies.is_empty())
}

/// What happened on a transport.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    Packet(Packet),
    /// A packet that has come beside the others. Its message is whole.
    Bulk(Packet),
    /// Another transport has taken over.
    Switched(TransportKind),
    /// No other transport could take over. Polling goes on.
    NotUpgraded(ClientError),
    Closed(DisconnectReason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_an_answer_go_with_the_next_requests_beside_those_of_the_application() {
        let mut answer = HeaderMap::new();
        for cookie in ["io=abc; Path=/; HttpOnly", "node = 7 ;Secure", "nonsense"] {
            answer.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        let cookies = cookies(&answer).unwrap();
        assert_eq!(cookies, "io=abc; node = 7");
        assert!(super::cookies(&HeaderMap::new()).is_none());
        let address = Address::parse("http://a").unwrap();
        let mut dialer = Dialer {
            address,
            tls: None,
            #[cfg(feature = "client-quic")]
            quic: None,
            #[cfg(feature = "client-quic")]
            raw: None,
            headers: HeaderMap::new(),
            timeout: Duration::ZERO,
            message_bytes_max: 0,
            has_bulk: false,
            compresses: false,
            heard_at: Arc::new(Mutex::new(Instant::now())),
        };
        assert_eq!(dialer.headers(Some(&cookies))[COOKIE], "io=abc; node = 7");
        dialer.headers.insert(COOKIE, HeaderValue::from_static("mine=1"));
        assert_eq!(dialer.headers(Some(&cookies))[COOKIE], "mine=1; io=abc; node = 7");
        assert_eq!(dialer.headers(None)[COOKIE], "mine=1");
    }
}
