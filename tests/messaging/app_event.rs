//! Events of clients that the operator's application answers: over HTTP, in this process, or as an echo.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use imks::extension::{Answer, AppEvent, EventHandler};
use imks::testing::application::Handler;
use imks::testing::config::Config;
use imks::{ImksError, ImksResult};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::collector::{Collector, attribute, hex};
use crate::server::{Kind, TestServer, first_channel};
use crate::traces::traceparent;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The application of an operator: `app:chat` gets a `chat_response`, `app:echo` itself, the rest a status.
#[derive(Clone, Default)]
struct Backend {
    got: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Backend {
    async fn start() -> (Self, SocketAddr) {
        let backend = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let route = axum::routing::post(Self::answer);
        let router = axum::Router::new().route("/events", route).with_state(backend.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (backend, addr)
    }

    async fn answer(State(backend): State<Self>, headers: HeaderMap, text: String) -> Response {
        let body: Value = serde_json::from_str(&text).unwrap();
        backend.got.lock().push((headers, text));
        let (message, user) = (&body["payload"], body["user"]["username"].as_str().unwrap());
        let json = |status: u16, body: Value| {
            (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
        };
        match body["event"].as_str().unwrap() {
            "app:chat" => json(
                200,
                json!({ "id": message["id"], "type": "chat_response",
                        "payload": { "text": format!("{user} said {}", message["payload"]["text"]) } }),
            ),
            "app:echo" => json(200, message.clone()),
            "app:picture" => {
                ([(header::CONTENT_TYPE, "application/octet-stream")], [1_u8, 2]).into_response()
            }
            "app:sold_out" => json(409, json!({ "message": "nothing left" })),
            "app:down" => json(500, json!({})),
            "app:silent" => std::future::pending().await,
            _ => json(404, json!({ "code": "unknown_event" })),
        }
    }
}

fn served_by(addr: SocketAddr) -> impl FnOnce(&mut Config) {
    move |config| {
        config.application.url = Some(format!("http://{addr}/events").into());
        config.application.secret = vec![SECRET.into()];
        config.application.deadline = Duration::from_secs(1);
    }
}

#[tokio::test]
async fn a_typed_message_gets_the_response_of_the_application_as_its_answer() {
    let (backend, addr) = Backend::start().await;
    let server = TestServer::start_with(Kind::Sqlite, served_by(addr)).await;
    let mut ann = server.client("ann").await;
    let id = "0190a8c0-0000-7000-8000-000000000001";
    let chat = json!({ "id": id, "type": "chat", "payload": { "text": "hello" } });
    let expected = json!({ "id": id, "type": "chat_response", "payload": { "text": "ann said \"hello\"" } });
    assert_eq!(ann.ok("app:chat", chat.clone()).await, expected);
    assert_eq!(ann.ok("app:echo", chat.clone()).await, chat);
    assert_eq!(ann.ok("app:echo", json!([1, "two"])).await, json!([1, "two"]), "any JSON is a payload");

    let (headers, text) = backend.got.lock()[0].clone();
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["payload"], chat);
    assert_eq!(body["user"], json!({ "id": ann.ready["user"]["id"], "username": "ann" }));
    assert_eq!(body["session_id"], ann.ready["session_id"]);
    assert_eq!(headers["webhook-id"].to_str().unwrap(), body["id"].as_str().unwrap());
    let content =
        format!("{}.{}.{text}", body["id"].as_str().unwrap(), headers["webhook-timestamp"].to_str().unwrap());
    assert_eq!(
        headers["webhook-signature"].to_str().unwrap(),
        signature(&content),
        "receivers verify it as webhooks"
    );
    server.stop().await;
}

/// The signature of Standard Webhooks.
fn signature(content: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let key = jsonwebtoken::EncodingKey::from_secret(&key);
    let made = jsonwebtoken::crypto::sign(content.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("v1,{}", STANDARD.encode(base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(made).unwrap()))
}

#[tokio::test]
async fn a_refusal_of_the_application_has_its_words_and_an_outage_is_told_as_one() {
    let (_backend, addr) = Backend::start().await;
    let server = TestServer::start_with(Kind::Sqlite, served_by(addr)).await;
    let (mut ann, mut bob) = (server.client("ann").await, server.client("bob").await);
    let refused = ann.refused("app:sold_out", json!({})).await;
    assert_eq!((&refused["code"], &refused["message"]), (&json!("conflict"), &json!("nothing left")));
    assert_eq!(ann.refused("app:other", json!({})).await["code"], "unknown_event");
    assert_eq!(ann.refused("other:x", json!({})).await["code"], "unknown_event");
    let down = ann.refused("app:down", json!({})).await;
    assert_eq!((&down["code"], &down["retryable"]), (&json!("unavailable"), &json!(true)));
    // An event on which the application fails keeps nobody from others.
    for _ in 0..6 {
        assert_eq!(ann.refused("app:down", json!({})).await["code"], "unavailable");
    }
    assert_eq!(bob.refused("app:sold_out", json!({})).await["code"], "conflict");

    // While the application is silent, everything else goes on, for the same client as for others.
    let silent = ann.ask("app:silent", json!({})).await;
    ann.ok("ping", json!({})).await;
    let channel = first_channel(&bob);
    bob.ok("message:send", json!({ "channel_id": channel, "body": "still here" })).await;
    assert_eq!(ann.answer(silent).await["error"]["code"], "timeout");
    ann.emit("app:sold_out", json!({ "nonce": "n1" })).await;
    let told = ann.expect("error").await;
    assert_eq!(
        (&told["code"], &told["event"], &told["nonce"]),
        (&json!("conflict"), &json!("app:sold_out"), &json!("n1"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_is_told_which_span_an_event_is_from() {
    let ((backend, addr), mut collector) = (Backend::start().await, Collector::start().await);
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        served_by(addr)(config);
        collector.configure(config);
    })
    .await;
    let mut ann = server.client("ann").await;
    let asks = [
        ("app:echo", "ok"),
        ("app:sold_out", "conflict"),
        ("app:down", "unavailable"),
        ("app:silent", "timeout"),
    ];
    for (number, (event, outcome)) in asks.into_iter().enumerate() {
        let trace = [u8::try_from(number).unwrap() + 1; 16];
        let answer = ann.call(event, json!({ "meta": { "traceparent": traceparent(trace, true) } })).await;
        let app = collector.named(&trace, "app", 1).await.remove(0);
        let asked = collector.named(&trace, "application", 1).await.remove(0);
        assert_eq!(asked.parent_span_id, app.span_id);
        assert_eq!(attribute(&app, "imks.event").as_deref(), Some(event));
        for span in [&app, &asked] {
            assert_eq!(attribute(span, "imks.outcome").as_deref(), Some(outcome), "{span:?}");
            assert_eq!(span.status.is_some(), ["unavailable", "timeout"].contains(&outcome), "{span:?}");
        }
        let told = format!("00-{}-{}-01", hex(&trace), hex(&asked.span_id));
        assert_eq!(backend.got.lock()[number].0["traceparent"], told);
        if outcome == "ok" {
            let ours = format!("00-{}-{}-01", hex(&trace), hex(&app.span_id));
            assert_eq!(answer["meta"]["traceparent"], json!(ours));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn an_application_is_told_of_no_trace_where_there_is_none() {
    let (backend, addr) = Backend::start().await;
    let server = TestServer::start_with(Kind::Sqlite, served_by(addr)).await;
    let mut ann = server.client("ann").await;
    ann.ok("app:echo", json!({ "meta": { "traceparent": traceparent([1; 16], true) } })).await;
    assert!(!backend.got.lock()[0].0.contains_key("traceparent"));
    server.stop().await;
}

#[tokio::test]
async fn nobody_is_asked_where_nothing_is_configured() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut ann = server.client("ann").await;
    assert_eq!(ann.refused("app:chat", json!({})).await["code"], "unknown_event");
    server.stop().await;
}

#[tokio::test]
async fn bytes_go_to_the_application_and_come_back() {
    let (backend, addr) = Backend::start().await;
    let server = TestServer::start_with(Kind::Sqlite, served_by(addr)).await;
    assert_eq!(picture(&server, "app:picture").await, [1, 2]);
    let body: Value = serde_json::from_str(&backend.got.lock()[0].1).unwrap();
    assert_eq!(body["payload"], json!({ "type": "png", "payload": { "_placeholder": true, "num": 0 } }));
    assert_eq!(body["attachments"], json!(["Bwg="]));
    server.stop().await;
    let echo = TestServer::start_with(Kind::Sqlite, |config| config.application.echo = true).await;
    assert_eq!(picture(&echo, "app:anything").await, [7, 8], "in development an event comes back as it was");
    echo.stop().await;
}

/// Sends an event with two bytes in it, and returns the bytes in its answer.
async fn picture(server: &TestServer, event: &str) -> Vec<u8> {
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", server.addr());
    let (mut wire, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let token = server.token("ann").await;
    wire.send(Message::text(format!("40{}", json!({ "token": token })))).await.unwrap();
    let payload = json!([event, { "type": "png", "payload": { "_placeholder": true, "num": 0 } }]);
    wire.send(Message::text(format!("451-7{payload}"))).await.unwrap();
    wire.send(Message::binary(vec![7, 8])).await.unwrap();
    loop {
        match wire.next().await.unwrap().unwrap() {
            Message::Text(text) if text.starts_with("461-7") => {
                assert!(text.contains(r#""ok":true"#), "{text}")
            }
            Message::Binary(bytes) => return bytes.to_vec(),
            _ => {}
        }
    }
}

/// What somebody wrote who embeds the server.
struct Greeter;

impl EventHandler for Greeter {
    async fn handle(&self, event: AppEvent) -> ImksResult<Answer> {
        match event.name.as_str() {
            "app:greet" => Answer::new(&format!("hello {} and {}", event.username, event.parse::<String>()?)),
            _ => Err(ImksError::UnknownEvent),
        }
    }
}

#[tokio::test]
async fn a_server_with_a_handler_of_its_own_answers_without_a_request() {
    let handled = |config: &mut Config| config.application.handler = Some(Handler::new(Greeter));
    let server = TestServer::start_with(Kind::Sqlite, handled).await;
    let mut ann = server.client("ann").await;
    assert_eq!(ann.ok("app:greet", json!("bob")).await, "hello ann and bob");
    assert_eq!(ann.refused("app:greet", json!(1)).await["code"], "invalid_payload");
    assert_eq!(ann.refused("app:other", json!(1)).await["code"], "unknown_event");
    server.stop().await;
}
