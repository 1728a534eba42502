//! Logins that an HTTP hook of the operator decides about.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use imks::testing::config::Config;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::api::send;
use crate::client::TestClient;
use crate::collector::{Collector, attribute, hex};
use crate::command_line::{imks, text};
use crate::server::{Kind, TestServer};
use crate::traces::traceparent;

/// What the hook does with a request.
#[derive(Clone)]
enum Mode {
    /// Answers with this status and body.
    Answer(u16, String),
    /// Never answers.
    Silent,
}

/// The header `Authorization` and the body of a request.
type Asked = (Option<String>, Value);

/// A hook that answers what it is told to, and keeps what it was asked.
#[derive(Clone)]
struct Hook {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    traceparents: Arc<Mutex<Vec<String>>>,
}

impl Hook {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(Mutex::new(Mode::Answer(401, String::new())));
        let hook = Self { address, mode, asked: Arc::default(), traceparents: Arc::default() };
        let router =
            axum::Router::new().route("/login", axum::routing::post(Self::handle)).with_state(hook.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        hook
    }

    async fn handle(State(hook): State<Self>, headers: HeaderMap, body: String) -> (StatusCode, String) {
        let secret = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let parent = headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned());
        hook.traceparents.lock().extend(parent);
        hook.asked.lock().push((secret, serde_json::from_str(&body).unwrap()));
        let mode = hook.mode.lock().clone();
        match mode {
            Mode::Answer(status, body) => (StatusCode::from_u16(status).unwrap(), body),
            Mode::Silent => std::future::pending().await,
        }
    }

    fn answers(&self, status: u16, body: &Value) {
        *self.mode.lock() = Mode::Answer(status, body.to_string());
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }

    async fn server(&self, edit: impl FnOnce(&mut Config)) -> TestServer {
        let url = format!("http://{}/login", self.address);
        let configure = |config: &mut Config| {
            config.hook.url = Some(url.into());
            config.hook.deadline = Duration::from_millis(500);
            edit(config);
        };
        TestServer::start_with(Kind::Sqlite, configure).await
    }
}

async fn code(server: &TestServer, token: &str) -> String {
    let path = "GET /api/v1/channels/00000000-0000-0000-0000-000000000000/messages";
    let response = send(server.addr(), path, &[("authorization", &format!("Bearer {token}"))], "").await;
    match response.code().1 {
        "not_found" => "ok".into(),
        code => code.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_is_told_which_span_a_question_is_from_and_an_outage_of_it_is_seen() {
    let (hook, mut collector) = (Hook::start().await, Collector::start().await);
    let server = hook.server(|config| collector.configure(config)).await;
    let asks = [(200, "ok"), (401, "ok"), (500, "unavailable")];
    for (number, (status, outcome)) in asks.into_iter().enumerate() {
        hook.answers(status, &json!({"user": {"id": 42, "name": "Alice"}}));
        let trace = [u8::try_from(number).unwrap() + 1; 16];
        let auth = json!({ "token": format!("opaque {number}"), "traceparent": traceparent(trace, true) });
        let mut client = TestClient::open(server.addr()).await;
        client.raw(&format!("40{auth}")).await;
        let asked = |spans: &[Span]| {
            let mut asked = spans.iter().filter(|span| span.name == "login_hook" && span.trace_id == trace);
            asked.next().cloned()
        };
        let span = collector.wait_for(asked).await;
        assert_eq!(attribute(&span, "imks.outcome").as_deref(), Some(outcome), "{status}");
        assert_eq!(span.status.is_some(), status == 500, "a refusal is an answer");
        let told = format!("00-{}-{}-01", hex(&trace), hex(&span.span_id));
        assert!(hook.traceparents.lock().contains(&told), "{:?}", hook.traceparents.lock());
    }
    hook.answers(200, &json!({"user": {"id": 42, "name": "Alice"}}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_says_who_it_is_and_what_they_may_do() {
    let hook = Hook::start().await;
    let server = hook
        .server(|config| {
            config.hook.secret = Some("between us".into());
            config.login.create_channels = true;
        })
        .await;
    let channels = json!({"lobby": "member", "news": ["VIEW_CHANNEL", "READ_HISTORY"]});
    hook.answers(200, &json!({"user": {"id": 42, "name": "Alice"}, "channels": channels, "expires_in": 600}));
    let mut alice = TestClient::connect(server.addr(), "opaque").await;
    assert_eq!(alice.ready["user"]["username"], "Alice");
    assert_eq!(hook.asked.lock()[0], (Some("Bearer between us".into()), json!({"token": "opaque"})));
    for channel in alice.ready["channels"].as_array().unwrap().clone() {
        let request = json!({"channel_id": channel["channel_id"], "body": "hi"});
        let answer = alice.call("message:send", request).await;
        assert_eq!(answer["ok"], channel["name"] == "lobby", "{}: {answer}", channel["name"]);
    }
    TestClient::connect(server.addr(), "opaque").await;
    assert_eq!(hook.asked(), 1, "one question per token and minute");
    alice.ok("auth:refresh", json!({"token": "opaque"})).await;
    assert_eq!(hook.asked(), 2, "a refresh asks");
    hook.answers(200, &json!({"user": {"id": 43}}));
    assert_eq!(alice.refused("auth:refresh", json!({"token": "other"})).await["code"], "unauthenticated");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_nobody_comes_in_and_a_refusal_is_final() {
    let hook = Hook::start().await;
    // Every connect asks.
    let server = hook.server(|config| config.hook.ttl = Duration::ZERO).await;
    for status in [401, 403] {
        hook.answers(status, &json!({}));
        assert_eq!(code(&server, "a").await, "unauthenticated", "{status}");
    }
    for (status, body) in
        [(500, json!({})), (404, json!({})), (200, json!({})), (200, json!({"user": {"id": ""}}))]
    {
        hook.answers(status, &body);
        assert_eq!(code(&server, "a").await, "unavailable", "{status} {body}");
        hook.answers(200, &json!({"user": {"id": "a"}}));
        assert_eq!(code(&server, "a").await, "ok", "after {status} {body}");
    }
    *hook.mode.lock() = Mode::Silent;
    assert_eq!(code(&server, "a").await, "timeout");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_hook_that_is_not_what_it_should_be_lets_nobody_in() {
    let hook = Hook::start().await;
    let server = hook.server(|_| {}).await;
    let id = |id: Value| json!({"user": {"id": id}}).to_string();
    let huge = format!("{{\"user\":{{\"id\":\"a\"}},\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let deep = format!("{{\"user\":{{\"id\":\"a\"}},\"channels\":{}", "[".repeat(100_000));
    let (user, gzip) = (json!({"id": "a"}), "\u{1f}\u{8b}\u{8}".to_owned());
    let bodies = [
        "null".into(),
        "\"a\"".into(),
        "{".into(),
        gzip,
        id(json!(true)),
        id(json!(["a"])),
        id(json!({"id": "a"})),
        id(json!(null)),
        id(json!(1e300)),
        id(json!("x".repeat(10_000))),
        r#"{"user":{"id":"a"},"user":{"id":"b"}}"#.into(),
        json!({"user": {"id": "a", "name": ["A"]}}).to_string(),
        json!({"user": user, "channels": "lobby"}).to_string(),
        json!({"user": user, "channels": ["a/b/c"]}).to_string(),
        json!({"user": user, "channels": {"lobby": "king"}}).to_string(),
        json!({"user": user, "channels": {"lobby": ["EVERYTHING"]}}).to_string(),
        json!({"user": user, "channels": vec!["lobby"; 501]}).to_string(),
        json!({"user": user, "expires_in": -1}).to_string(),
        json!({"user": user, "expires_in": "3600"}).to_string(),
        json!({"user": user, "expires_in": u64::MAX}).to_string(),
        huge,
        deep,
    ];
    let right = json!({"user": user}).to_string();
    let statuses = [204, 301, 302, 307, 418, 503].map(|status| (status, right.clone()));
    for (status, body) in bodies.map(|body| (200, body)).into_iter().chain(statuses) {
        *hook.mode.lock() = Mode::Answer(status, body.clone());
        assert_eq!(code(&server, "a").await, "unavailable", "{status} {}", &body[..body.len().min(80)]);
        // An answer that has its form closes the breaker.
        hook.answers(401, &json!({}));
        assert_eq!(code(&server, "b").await, "unauthenticated");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_is_not_waited_for_by_more_clients_than_there_is_room_for() {
    let hook = Hook::start().await;
    let server = hook
        .server(|config| {
            config.hook.calls_max = 1;
            config.hook.waiting_max = 2;
            config.hook.deadline = Duration::from_secs(3);
        })
        .await;
    *hook.mode.lock() = Mode::Silent;
    let started = std::time::Instant::now();
    let tokens: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let asked = tokens.iter().map(async |token| (code(&server, token).await, started.elapsed()));
    let answers = futures_util::future::join_all(asked).await;
    let at_once = answers.iter().filter(|(_, after)| *after < Duration::from_secs(3));
    let at_once: Vec<&str> = at_once.map(|(code, _)| code.as_str()).collect();
    assert_eq!(at_once, ["overloaded"; 17], "all but one call and two that wait: {answers:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_is_down_is_not_asked_by_everybody() {
    let hook = Hook::start().await;
    let server = hook.server(|_| {}).await;
    hook.answers(503, &json!({}));
    for n in 0..100 {
        assert_eq!(code(&server, &format!("t{n}")).await, "unavailable");
    }
    assert!(hook.asked() < 50, "{} of 100 calls", hook.asked());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_accepts_everybody_or_does_not_answer_is_told_before_it_is_in_use() {
    let (hook, data) = (Hook::start().await, tempfile::tempdir().unwrap());
    let url = format!("http://{}/login", hook.address);
    let check = async || {
        let (url, data) = (url.clone(), data.path().to_str().unwrap().to_owned());
        let environment = move || {
            let environment =
                [("IMKS_AUTH_URL", &*url), ("IMKS_DATA_DIR", &*data), ("IMKS_LISTEN", "127.0.0.1:0")];
            imks(&["check-config"], &environment)
        };
        let output = tokio::task::spawn_blocking(environment).await.unwrap();
        (output.status.success(), text(&output.stderr))
    };
    hook.answers(401, &json!({}));
    let (is_fine, told) = check().await;
    assert!(is_fine, "{told}");
    hook.answers(200, &json!({"user": {"id": "everybody"}}));
    let (is_fine, told) = check().await;
    assert!(!is_fine && told.contains("IMKS_AUTH_URL") && told.contains("nobody has issued"), "{told}");
    hook.answers(500, &json!({}));
    let (is_fine, told) = check().await;
    assert!(!is_fine && told.contains("IMKS_AUTH_URL"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_on_which_the_application_fails_keep_nobody_else_out() {
    let hook = Hook::start().await;
    let server = hook.server(|_| {}).await;
    hook.answers(500, &json!({}));
    for n in 0..20 {
        assert_eq!(code(&server, &format!("t{n}")).await, "unavailable");
    }
    assert_eq!(hook.asked(), 20, "each was asked about");
    hook.answers(200, &json!({"user": {"id": "a"}}));
    assert_eq!(code(&server, "a").await, "ok");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_session_ends_and_the_hook_decides_about_the_next_one() {
    let hook = Hook::start().await;
    let server = hook.server(|_| {}).await;
    hook.answers(200, &json!({"user": {"id": "1", "name": "Alice"}}));
    let mut alice = TestClient::connect(server.addr(), "t").await;
    hook.answers(401, &json!({}));
    server.directory().revoke_user("Alice").await.unwrap();
    alice.expect("auth:revoked").await;
    alice.ended().await;
    assert_eq!(code(&server, "t").await, "unauthenticated", "what the hook said before does not count");
    server.stop().await;
}
