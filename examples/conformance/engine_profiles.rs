//! Contracts below Socket.IO: the Engine.IO protocol suite and the test suite of the reference Engine.IO client.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header::SET_COOKIE};
use imks::engine::{Config, Connection, Engine, Event, Frame, Message};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

/// What to do with a message of a connection.
pub type Handler = fn(&Connection, Message);

/// Headers of the latest POST of each session, by session id.
pub type PostHeaders = Arc<Mutex<HashMap<String, String>>>;

/// Engine.IO v4 protocol suite.
pub fn v4() -> Config {
    Config {
        path: "/engine.io".into(),
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        ..Config::default()
    }
}

/// Engine.IO v3 protocol suite.
pub fn v3() -> Config {
    Config { allow_eio3: true, ..v4() }
}

/// Sends every message back as it came.
pub fn echo(connection: &Connection, message: Message) {
    send(connection, &frame(&message));
}

/// Test suite of the reference Engine.IO client.
pub fn client() -> (Config, PostHeaders) {
    let headers = PostHeaders::default();
    let seen = headers.clone();
    let mut config = Config {
        path: "/engine.io".into(),
        ping_interval: Duration::from_millis(500),
        max_payload: 100,
        ..Config::default()
    };
    config.hooks.allow_request = Some(Arc::new(|request| {
        let denied =
            request.uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("deny")));
        Box::pin(async move { if denied { Err("Forbidden".to_owned()) } else { Ok(()) } })
    }));
    config.hooks.initial_headers = Some(Arc::new(|headers, _| set_cookies(headers)));
    config.hooks.on_request = Some(Arc::new(move |request| {
        let sid =
            request.uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("sid=")));
        if let (Some(sid), &Method::POST) = (sid, &request.method) {
            seen.lock().insert(sid.to_owned(), json(&request.headers));
        }
        Ok(())
    }));
    (config, headers)
}

/// Serves every connection with one handler.
pub async fn run(engine: Engine, handler: Handler) {
    let tasks = TaskTracker::new();
    while let Some(mut connection) = engine.accept().await {
        tasks.spawn(async move {
            while let Event::Message(message) = poll_fn(|cx| connection.poll_event(cx, true)).await {
                handler(&connection, message);
            }
        });
    }
}

/// Serves the contract of [`client`].
pub async fn run_client(engine: Engine, headers: PostHeaders) {
    let tasks = TaskTracker::new();
    while let Some(mut connection) = engine.accept().await {
        let headers = headers.clone();
        tasks.spawn(async move {
            send(&connection, &Frame::text("hi"));
            while let Event::Message(message) = poll_fn(|cx| connection.poll_event(cx, true)).await {
                answer(&connection, &message, &headers);
            }
            headers.lock().remove(connection.handshake().sid.expose());
        });
    }
}

fn answer(connection: &Connection, message: &Message, headers: &PostHeaders) {
    let reply = match message {
        Message::Text(text) => match text.as_str() {
            "give binary" => Frame::binary(&[0, 1, 2, 3, 4]),
            "give utf8" => Frame::text("пойду спать всем спокойной ночи"),
            "sendHeaders" => {
                let known = headers.lock().get(connection.handshake().sid.expose()).cloned();
                Frame::text(&known.unwrap_or_else(|| "{}".into()))
            }
            _ => frame(message),
        },
        Message::Binary(_) => frame(message),
    };
    send(connection, &reply);
}

fn frame(message: &Message) -> Frame {
    match message {
        Message::Text(text) => Frame::text(text),
        Message::Binary(data) => Frame::binary(data),
    }
}

fn send(connection: &Connection, frame: &Frame) {
    if let Err(error) = connection.outbox().send(frame.clone()) {
        tracing::warn!(%error, "not sent");
    }
}

fn set_cookies(headers: &mut HeaderMap) {
    let expired = "4=4; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
    for cookie in
        ["1=1; Max-Age=86400", "2=2; Path=/; HttpOnly; Secure; SameSite=Strict", "3=3; Max-Age=0", expired]
    {
        headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
    }
}

fn json(headers: &HeaderMap) -> String {
    let text: serde_json::Map<String, serde_json::Value> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    serde_json::Value::Object(text).to_string()
}
