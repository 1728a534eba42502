//! The checks of `imks doctor` over HTTP: the handshake of Engine.IO, polling, and the opening of a WebSocket.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::network::Route;
use super::report::{Fault, Outcome};
use super::{ANSWER_MAX, advice};
use crate::http::webtransport::HASHES_PATH;

/// An answer, its body as text.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    /// Returns a header as text.
    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What the server says first.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handshake {
    pub(super) sid: String,
    #[serde(default)]
    pub(super) upgrades: Vec<String>,
    pub(super) ping_interval: u64,
    pub(super) ping_timeout: u64,
    /// The cookies of the answer, as they are sent back.
    #[serde(skip)]
    pub(super) cookies: String,
}

/// What the first request finds.
pub(super) enum First {
    /// A server of Engine.IO.
    Open(Handshake),
    /// Another address than that of a server: other requests to it would only say so again. The text says what is known.
    Misplaced(&'static str),
}

/// Sends one request on a connection of its own.
pub(super) async fn ask(
    route: &Route,
    method: Method,
    target: &str,
    headers: &[(header::HeaderName, &str)],
    body: &'static str,
) -> io::Result<Answer> {
    let (mut sender, driver) =
        http1::handshake(TokioIo::new(route.open().await?)).await.map_err(io::Error::other)?;
    let mut request =
        Request::builder().method(method).uri(target).header(header::HOST, &route.address.authority);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).map_err(io::Error::other)?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(io::Error::other)?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    let driver = async {
        // How the connection ends shows in the exchange.
        let _ = driver.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answered = timeout(ANSWER_MAX, exchange) => {
            answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
        never = driver => never,
    }
}

/// Opens a polling session.
pub(super) async fn handshake(route: &Route) -> (Option<First>, Outcome) {
    let answer = match ask(route, Method::GET, &route.address.target("polling", None), &[], "").await {
        Ok(answer) => answer,
        Err(error) => return (None, Outcome::Failed(no_answer(&error))),
    };
    let handshake = answer.body.strip_prefix('0').and_then(|json| serde_json::from_str(json).ok());
    match handshake {
        Some(handshake) if answer.status == StatusCode::OK => {
            let through = ["server", "via"]
                .iter()
                .filter_map(|name| answer.header(header::HeaderName::from_static(name)))
                .map(|value| format!(", {}", advice::excerpt(value)));
            let through: String = through.collect();
            let handshake = Handshake { cookies: cookies(&answer.headers), ..handshake };
            let text = format!("HTTP 200, Engine.IO 4, offers {}{through}", offers(&handshake.upgrades));
            (Some(First::Open(handshake)), Outcome::Good(text))
        }
        _ => {
            let (status, location) = (answer.status.as_u16(), answer.header(header::LOCATION));
            let first = advice::misplaced(status, &answer.body).map(First::Misplaced);
            (first, Outcome::Failed(advice::handshake(status, location, &answer.body)))
        }
    }
}

fn offers(upgrades: &[String]) -> String {
    let listed: Vec<String> = upgrades.iter().map(|name| advice::excerpt(name)).collect();
    if listed.is_empty() { "polling only".into() } else { listed.join(" and ") }
}

/// Asks for the hashes of the certificate that a server has made by itself. There are none if it has another one.
pub(super) async fn hashes(route: &Route) -> Vec<[u8; 32]> {
    match ask(route, Method::GET, HASHES_PATH, &[], "").await {
        Ok(answer) => read_hashes(&answer.body),
        Err(_) => Vec::new(),
    }
}

fn read_hashes(body: &str) -> Vec<[u8; 32]> {
    let told: Value = serde_json::from_str(body).unwrap_or_default();
    let hash = |told: &Value| -> Option<[u8; 32]> {
        BASE64_STANDARD.decode(told["value"].as_str()?).ok()?.try_into().ok()
    };
    told["hashes"].as_array().into_iter().flatten().filter_map(hash).collect()
}

fn cookies(headers: &HeaderMap) -> String {
    let pairs = headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs: Vec<&str> = pairs.filter_map(|cookie| cookie.split(';').next()).collect();
    pairs.join("; ")
}

fn no_answer(error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::TimedOut {
        return advice::held_back("the answer to an HTTP request", ANSWER_MAX.as_secs());
    }
    Fault::new(
        advice::excerpt(&error.to_string()),
        "the port is open, and what answers there does not speak HTTP/1.1, or ends the connection",
        "check the port, and whether it wants https://",
    )
}

/// Sends a packet in a polling session whose next packets are waited for, and sees whether the answer comes.
pub(super) async fn poll(route: &Route, handshake: &Handshake) -> (Option<()>, Outcome) {
    let target = route.address.target("polling", Some(&handshake.sid));
    let cookie = (header::COOKIE, &*handshake.cookies);
    let headers = if handshake.cookies.is_empty() { &[][..] } else { &[cookie][..] };
    let posting = ask(route, Method::POST, &target, headers, JOIN);
    let answered = tokio::join!(Box::pin(ask(route, Method::GET, &target, headers, "")), Box::pin(posting));
    // Whether the server hears that the session ends does not matter: it forgets it after a while.
    let _ = Box::pin(ask(route, Method::POST, &target, headers, CLOSE)).await;
    let fault = match answered {
        (_, Ok(posted)) if posted.status != StatusCode::OK => {
            advice::polling(posted.status.as_u16(), &posted.body)
        }
        (Ok(polled), Ok(_)) if polled.status == StatusCode::OK => {
            return (Some(()), Outcome::Good("a request that waits is answered at once".into()));
        }
        (Ok(polled), Ok(_)) => advice::polling(polled.status.as_u16(), &polled.body),
        (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => {
            advice::held_back("the answer of a waiting request", ANSWER_MAX.as_secs())
        }
        (Err(error), _) | (_, Err(error)) => no_answer(&error),
    };
    (None, Outcome::Failed(fault))
}

/// Opens a WebSocket and waits for the first packet.
pub(super) async fn websocket(route: &Route) -> (Option<()>, Outcome) {
    match timeout(ANSWER_MAX, open_websocket(route)).await {
        Err(_) => (
            None,
            Outcome::Failed(advice::held_back("the answer to a WebSocket request", ANSWER_MAX.as_secs())),
        ),
        Ok(Err(fault)) => (None, Outcome::Failed(fault)),
        Ok(Ok(text)) => (Some(()), Outcome::Good(text)),
    }
}

async fn open_websocket(route: &Route) -> Result<String, Fault> {
    let stream = route.open().await.map_err(|error| no_answer(&error))?;
    let scheme = if route.tls.is_some() { "wss" } else { "ws" };
    let url = format!("{scheme}://{}{}", route.address.authority, route.address.target("websocket", None));
    let broken = |error: &dyn std::error::Error| no_answer(&io::Error::other(error.to_string()));
    let request = url.into_client_request().map_err(|error| broken(&error))?;
    let (mut websocket, _) = match Box::pin(client_async(request, stream)).await {
        Ok(opened) => opened,
        Err(Error::Http(answer)) => {
            let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
            return Err(advice::websocket(answer.status().as_u16(), &body));
        }
        Err(error) => return Err(broken(&error)),
    };
    let first = timeout(FIRST_MAX, websocket.next()).await;
    // The other side may be gone already.
    let _ = timeout(FIRST_MAX, websocket.close(None)).await;
    match first {
        Ok(Some(Ok(Message::Text(text)))) if text.starts_with('0') => {
            Ok("opened, and its first packet came".into())
        }
        Ok(Some(Ok(_))) => Err(Fault::new(
            "the first packet is none of Engine.IO",
            "another program takes the WebSocket",
            "check address and path",
        )),
        Ok(Some(Err(error))) => Err(broken(&error)),
        Ok(None) => Err(Fault::new(
            "closed before the first packet",
            "a proxy opens the WebSocket and then drops it, or the server refuses it",
            "look into the logs of both",
        )),
        Err(_) => Err(advice::held_back("the first packet of the WebSocket", FIRST_MAX.as_secs())),
    }
}

/// The packet that asks to join the namespace `/`. The answer is a packet, whether the server lets it in or not.
const JOIN: &str = "40";
/// The packet that ends a session.
const CLOSE: &str = "1";
/// The most bytes of an answer that are read.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long the first packet of a WebSocket may take.
const FIRST_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_of_a_certificate_are_read_and_everything_else_is_none() {
        let told = format!(
            r#"{{"hashes":[{{"value":"{}"}},{{"value":"AA=="}}]}}"#,
            BASE64_STANDARD.encode([7_u8; 32])
        );
        assert_eq!(read_hashes(&told), [[7_u8; 32]]);
        for other in ["", "<html>", "{}", r#"{"hashes":[1]}"#] {
            assert!(read_hashes(other).is_empty(), "{other}");
        }
    }
}
