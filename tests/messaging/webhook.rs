//! Webhooks: what a receiver gets, whatever it answers and whoever ends meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use imks::testing::config::Config;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use crate::collector::{Collector, attribute, hex};
use crate::http_request::send;
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver answers to a request, given what it got before.
type Answer = fn(&[Got], &Got) -> Response;

#[derive(Debug, Clone)]
struct Got {
    id: String,
    headers: HeaderMap,
    text: String,
    body: Value,
}

struct Receiver {
    addr: SocketAddr,
    got: Arc<Inbox>,
}

struct Inbox {
    answer: Answer,
    /// Whether everything is answered with 503.
    is_down: AtomicBool,
    all: Mutex<Vec<Got>>,
    news: Notify,
}

impl Receiver {
    async fn start(answer: Answer) -> Self {
        let got = Arc::new(Inbox {
            answer,
            is_down: AtomicBool::new(false),
            all: Mutex::default(),
            news: Notify::new(),
        });
        let router = axum::Router::new().route("/hook", post(take)).with_state(got.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { addr, got }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    /// Waits until what arrived satisfies a condition, and returns it.
    async fn until(&self, is_enough: impl Fn(&[Got]) -> bool) -> Vec<Got> {
        let wait = async {
            loop {
                let news = self.got.news.notified();
                let all = self.got.all.lock().await.clone();
                if is_enough(&all) {
                    return all;
                }
                news.await;
            }
        };
        match timeout(Duration::from_secs(30), wait).await {
            Ok(all) => all,
            Err(_) => panic!("not in time: {:#?}", self.got.all.lock().await),
        }
    }
}

async fn take(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    let got = Got { id, body: serde_json::from_str(&text).unwrap(), headers, text };
    let mut all = inbox.all.lock().await;
    let answer = match inbox.is_down.load(Ordering::SeqCst) {
        true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        false => (inbox.answer)(&all, &got),
    };
    all.push(got);
    inbox.news.notify_one();
    answer
}

fn ok(_: &[Got], _: &Got) -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn hooked(url: &str) -> impl FnOnce(&mut Config) + use<> {
    let url = url.to_owned();
    move |config| {
        config.webhook.url = vec![url.into()];
        config.webhook.secret = vec![SECRET.into()];
    }
}

async fn say(client: &mut crate::client::TestClient, channel: &str, body: &str) -> Value {
    client.ok("message:send", json!({ "channel_id": channel, "body": body })).await["message"].clone()
}

/// A receiver of webhooks gets what is committed once the server knows it: waits until it does.
async fn begun(receiver: &Receiver, client: &mut crate::client::TestClient, channel: &str) {
    for number in 0.. {
        say(client, channel, &format!("begin {number}")).await;
        if !receiver.got.all.lock().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = say(client, channel, "begun").await["seq"].clone();
    receiver.until(|all| all.iter().any(|got| got.body["data"]["seq"] == last)).await;
    receiver.got.all.lock().await.clear();
}

fn bodies(all: &[Got]) -> Vec<&str> {
    all.iter().map(|got| got.body["data"]["message"]["body"].as_str().unwrap()).collect()
}

async fn start(kind: Kind, answer: Answer) -> (TestServer, Receiver, crate::client::TestClient, String) {
    let receiver = Receiver::start(answer).await;
    let server = TestServer::start_with(kind, hooked(&receiver.url())).await;
    let mut client = server.client("ann").await;
    let channel = first_channel(&client);
    begun(&receiver, &mut client, &channel).await;
    (server, receiver, client, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_is_told_which_span_an_attempt_is_and_one_that_fails_is_seen() {
    fn once_down(before: &[Got], got: &Got) -> Response {
        let is_first = !before.iter().any(|it| it.id == got.id);
        match is_first && got.text.contains("twice") {
            true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            false => StatusCode::OK.into_response(),
        }
    }
    let (receiver, mut collector) = (Receiver::start(once_down).await, Collector::start().await);
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        hooked(&receiver.url())(config);
        collector.configure(config);
    })
    .await;
    let mut ann = server.client("ann").await;
    let channel = first_channel(&ann);
    begun(&receiver, &mut ann, &channel).await;
    say(&mut ann, &channel, "twice").await;
    let all = receiver.until(|all| all.len() == 2).await;
    for (got, (attempt, outcome)) in all.iter().zip([("IntValue(1)", "unavailable"), ("IntValue(2)", "ok")]) {
        let told = got.headers["traceparent"].to_str().unwrap();
        let names = |span: &Span| told == format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
        let span = collector.wait_for(|spans| spans.iter().find(|span| names(span)).cloned()).await;
        assert_eq!((&*span.name, span.kind()), ("webhook", SpanKind::Client));
        assert_eq!(attribute(&span, "imks.webhook_id").as_ref(), Some(&got.id));
        assert_eq!(attribute(&span, "imks.attempt").as_deref(), Some(attempt));
        assert_eq!(attribute(&span, "imks.outcome").as_deref(), Some(outcome));
    }
    server.stop().await;
}

macro_rules! with_receiver {
    ($(async fn $name:ident($kind:ident: Kind) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn run($kind: Kind) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                Box::pin(run(Kind::Sqlite)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                Box::pin(run(Kind::Postgres)).await;
            }
        }
    )*};
}

with_receiver! {
    async fn a_receiver_gets_every_event_in_order_and_can_verify_who_sent_it(kind: Kind) {
        let (server, receiver, mut client, channel) = start(kind, ok).await;
        let message = say(&mut client, &channel, "one").await;
        let edit = json!({ "channel_id": channel, "message_id": message["id"], "body": "two" });
        client.ok("message:edit", edit).await;
        say(&mut client, &channel, "three").await;
        let all = receiver.until(|all| all.len() >= 3).await;
        let kinds: Vec<_> = all.iter().map(|got| got.body["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["message:new", "message:updated", "message:new"]);
        assert_eq!(bodies(&all)[1..], ["two", "three"]);
        let (data, first) = (&all[1].body["data"], &all[0]);
        assert_eq!((&data["channel_id"], &data["rev"]), (&json!(channel), &json!(1)));
        assert_eq!(data["actor_id"], message["author"]["id"]);
        assert_eq!(first.id, format!("{channel}-seq-{}", message["seq"]));
        let timestamp = first.headers["webhook-timestamp"].to_str().unwrap();
        let signature = first.headers["webhook-signature"].to_str().unwrap();
        assert_eq!(verify(SECRET, &first.id, timestamp, &first.text, signature), "true");
        assert_eq!(verify(SECRET, &first.id, timestamp, "{}", signature), "false");
        server.stop().await;
    }

    async fn an_answer_that_is_no_success_is_tried_again_and_the_order_of_the_channel_stays(kind: Kind) {
        fn moody(before: &[Got], got: &Got) -> Response {
            let attempts = before.iter().filter(|it| it.id == got.id).count();
            let body = got.body["data"]["message"]["body"].as_str().unwrap();
            match (body, attempts) {
                ("server error", 0) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                ("too many", 0) => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
                ("elsewhere", 0) => (StatusCode::FOUND, [("location", "/hook")]).into_response(),
                ("huge", _) => "x".repeat(10 << 20).into_response(),
                _ => StatusCode::OK.into_response(),
            }
        }
        let (server, receiver, mut client, channel) = start(kind, moody).await;
        let sent = ["server error", "too many", "elsewhere", "huge", "last"];
        for body in sent {
            say(&mut client, &channel, body).await;
        }
        let all = receiver.until(|all| bodies(all).contains(&"last")).await;
        let expected = [
            "server error", "server error", "too many", "too many", "elsewhere", "elsewhere", "huge", "last",
        ];
        assert_eq!(bodies(&all), expected, "a redirect is not followed, and a huge answer is still a success");
        server.stop().await;
    }

    async fn an_event_that_is_refused_while_others_are_taken_becomes_a_dead_letter(kind: Kind) {
        fn picky(_: &[Got], got: &Got) -> Response {
            match got.text.contains("poison") {
                true => StatusCode::BAD_REQUEST.into_response(),
                false => StatusCode::OK.into_response(),
            }
        }
        let (server, receiver, mut client, channel) = start(kind, picky).await;
        let other = server.channel("other", &["ann"]).await;
        say(&mut client, &channel, "poison").await;
        say(&mut client, &channel, "after").await;
        receiver.until(|all| bodies(all).contains(&"poison")).await;
        say(&mut client, &other, "beside").await;
        let all = receiver.until(|all| bodies(all).contains(&"after")).await;
        assert_eq!(bodies(&all).iter().filter(|body| **body == "poison").count(), 5);
        let beside = bodies(&all).iter().position(|body| *body == "beside").unwrap();
        assert!(beside < all.len() - 1, "other channels did not wait");
        server.stop().await;
    }
}

on_both! {
    async fn without_an_address_nothing_is_sent(server: TestServer) {
        let mut client = server.client("ann").await;
        let channel = first_channel(&client);
        say(&mut client, &channel, "hello").await;
    }
}

/// Checks a signature with Node's own cryptography.
fn verify(secret: &str, id: &str, timestamp: &str, body: &str, signature: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js/webhook_verify.js");
    let output = std::process::Command::new("node")
        .args([script, secret, id, timestamp, body, signature])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A server whose receiver is down, with messages that wait for it; their texts.
async fn waiting(receiver: &Receiver, server: &TestServer) -> Vec<&'static str> {
    let mut client = server.client("ann").await;
    let channel = first_channel(&client);
    begun(receiver, &mut client, &channel).await;
    receiver.got.is_down.store(true, Ordering::SeqCst);
    let texts = ["one", "two", "three"];
    for text in texts {
        say(&mut client, &channel, text).await;
    }
    receiver.until(|all| bodies(all).contains(&"one")).await;
    texts.to_vec()
}

/// The texts that were taken, without repeats, after the receiver is up again.
async fn taken(receiver: &Receiver, last: &str) -> Vec<String> {
    receiver.got.all.lock().await.clear();
    receiver.got.is_down.store(false, Ordering::SeqCst);
    let all = receiver.until(|all| bodies(all).contains(&last)).await;
    let mut texts: Vec<String> = bodies(&all).into_iter().map(str::to_owned).collect();
    texts.dedup();
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_was_down_gets_everything_when_it_is_back_also_from_a_server_that_was_restarted() {
    let (receiver, directory) = (Receiver::start(ok).await, tempfile::tempdir().unwrap());
    let edit = |config: &mut Config| {
        hooked(&receiver.url())(config);
        config.database.data_dir = directory.path().into();
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    let texts = waiting(&receiver, &server).await;
    server.stop().await;
    let again = TestServer::start_with(Kind::Sqlite, edit).await;
    assert_eq!(taken(&receiver, "three").await, texts);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_goes_on_when_the_sender_ends_without_a_word() {
    let (receiver, url) = (Receiver::start(ok).await, crate::postgres::create().await);
    let edit = |config: &mut Config| {
        hooked(&receiver.url())(config);
        config.database.url = Some(url.clone().into());
    };
    let first = TestServer::start_with(Kind::Sqlite, edit).await;
    let texts = waiting(&receiver, &first).await;
    first.stop().await;
    // The row that a node leaves behind that was killed: nobody gives its lease back.
    let mut database = PgConnection::connect(&url).await.unwrap();
    let dead = "INSERT INTO lease SELECT 'webhook ' || id, 'dead', \
        (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT + 6000000 FROM webhook_endpoint";
    sqlx::query(dead).execute(&mut database).await.unwrap();
    let nodes =
        [TestServer::start_with(Kind::Sqlite, edit).await, TestServer::start_with(Kind::Sqlite, edit).await];
    let started = tokio::time::Instant::now();
    assert_eq!(taken(&receiver, "three").await, texts, "one node sends, and each event once");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_is_left_alone_until_an_operator_enables_it() {
    fn gone(_: &[Got], got: &Got) -> Response {
        let status = if got.text.contains("bye") { StatusCode::GONE } else { StatusCode::OK };
        status.into_response()
    }
    let (receiver, directory) = (Receiver::start(gone).await, tempfile::tempdir().unwrap());
    let edit = |config: &mut Config| {
        hooked(&receiver.url())(config);
        config.database.data_dir = directory.path().into();
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    let mut client = server.client("ann").await;
    let channel = first_channel(&client);
    begun(&receiver, &mut client, &channel).await;
    let bye = say(&mut client, &channel, "bye").await;
    receiver.until(|all| bodies(all).contains(&"bye")).await;
    let line = loop {
        let line = imks(&["webhook", "list"], directory.path());
        if line.contains("disabled since") {
            break line;
        }
    };
    assert_eq!(receiver.got.all.lock().await.len(), 1);
    let edit = json!({ "channel_id": channel, "message_id": bye["id"], "body": "hello again" });
    client.ok("message:edit", edit).await;
    imks(&["webhook", "enable", line.split('\t').next().unwrap()], directory.path());
    receiver.until(|all| bodies(all).contains(&"hello again")).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_listed_sent_again_and_dropped() {
    let (receiver, directory) = (Receiver::start(ok).await, tempfile::tempdir().unwrap());
    let edit = |config: &mut Config| {
        hooked(&receiver.url())(config);
        (config.webhook.deadline, config.webhook.give_up) =
            (Duration::from_millis(500), Duration::from_millis(500));
        config.database.data_dir = directory.path().into();
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    waiting(&receiver, &server).await;
    receiver.until(|all| bodies(all).contains(&"three")).await;
    let listed = loop {
        let listed = imks(&["webhook", "dead"], directory.path());
        if listed.lines().count() == 3 {
            break listed;
        }
    };
    assert!(listed.lines().all(|line| line.ends_with("given up\tstatus 503, 2 attempts")), "{listed}");
    let health = send(server.addr(), "GET /health", &[], "").await;
    assert_eq!((health.status, &health.body["status"]), (200, &json!("degraded")));
    let part = &health.body["checks"]["webhooks"];
    assert_eq!(
        (&part["status"], &part["dead_letters"], &part["disabled"]),
        (&json!("degraded"), &json!(3), &json!(0))
    );
    assert_eq!(send(server.addr(), "GET /health/ready", &[], "").await.status, 200, "new clients are served");
    let ids: Vec<&str> = listed.lines().map(|line| line.split('\t').nth(1).unwrap()).collect();
    assert_eq!(imks(&["webhook", "drop", ids[0]], directory.path()), "1\n");
    imks(&["webhook", "retry", "--all"], directory.path());
    receiver.got.all.lock().await.clear();
    receiver.got.is_down.store(false, Ordering::SeqCst);
    receiver.until(|all| ["two", "three"].iter().all(|text| bodies(all).contains(text))).await;
    while !imks(&["webhook", "dead"], directory.path()).is_empty() {
        imks(&["webhook", "retry", "--all"], directory.path());
    }
    let well =
        async { while send(server.addr(), "GET /health", &[], "").await.body["status"] != "healthy" {} };
    timeout(Duration::from_secs(30), well).await.expect("nothing is left to look at");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_do_not_wait_for_dead_letters() {
    let receiver = Receiver::start(ok).await;
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        hooked(&receiver.url())(config);
        (config.webhook.deadline, config.webhook.give_up) =
            (Duration::from_millis(100), Duration::from_millis(100));
        // Who waits for a connection that is never free waits for long.
        config.database.acquire_timeout = Duration::from_secs(60);
    })
    .await;
    let mut client = server.client("ann").await;
    let channel = first_channel(&client);
    begun(&receiver, &mut client, &channel).await;
    let mut channels = Vec::new();
    for number in 0..16 {
        channels.push(server.channel(&format!("room-{number}"), &["ann"]).await);
    }
    receiver.got.is_down.store(true, Ordering::SeqCst);
    let started = tokio::time::Instant::now();
    let dead = || async {
        let db = imks::testing::models::db::Db::connect(server.database()).await.unwrap();
        let count = imks::testing::models::webhook::DeadLetter::count_all(&db).await.unwrap();
        db.close().await;
        count
    };
    for channel in channels.iter().chain(&channels) {
        say(&mut client, channel, "lost").await;
    }
    while dead().await < 32 {
        say(&mut client, &channel, "beside").await;
    }
    assert!(started.elapsed() < Duration::from_secs(45), "{:?}", started.elapsed());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_does_not_wait_for_a_receiver_that_asked_for_time() {
    fn busy(_: &[Got], got: &Got) -> Response {
        match got.text.contains("later") {
            true => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "300")]).into_response(),
            false => StatusCode::OK.into_response(),
        }
    }
    let (server, receiver, mut client, channel) = start(Kind::Sqlite, busy).await;
    say(&mut client, &channel, "later").await;
    receiver.until(|all| bodies(all).contains(&"later")).await;
    let started = tokio::time::Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_refused_does_not_keep_the_others_waiting() {
    fn picky(_: &[Got], got: &Got) -> Response {
        let status = if got.text.contains("poison") { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        status.into_response()
    }
    let (server, receiver, mut client, channel) = start(Kind::Sqlite, picky).await;
    let other = server.channel("other", &["ann"]).await;
    // More than a sender holds.
    for _ in 0..700 {
        say(&mut client, &channel, "poison").await;
    }
    say(&mut client, &other, "beside").await;
    receiver.until(|all| bodies(all).contains(&"beside")).await;
    server.stop().await;
}

/// A server in a process of its own.
struct Process(std::process::Child);

impl Process {
    async fn start(addr: SocketAddr, environment: &[(&str, String)]) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_imks"));
        let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
        command.args(["--listen", &addr.to_string()]).env_clear().envs(environment);
        let child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let process = Self(child);
        let up = async {
            loop {
                if tokio::net::TcpStream::connect(addr).await.is_ok()
                    && send(addr, "GET /health/ready", &[], "").await.status == 200
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), up).await.expect("the server is ready");
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // With SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_in_the_order_of_its_channel_when_the_server_is_killed_while_it_sends() {
    fn slow(_: &[Got], _: &Got) -> Response {
        // So that the server is killed in the middle.
        std::thread::sleep(Duration::from_millis(20));
        StatusCode::OK.into_response()
    }
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (receiver, directory) = (Receiver::start(slow).await, tempfile::tempdir().unwrap());
        let mut environment = vec![
            ("IMKS_DATA_DIR", directory.path().to_str().unwrap().to_owned()),
            ("IMKS_WEBHOOK_URL", receiver.url()),
            ("IMKS_WEBHOOK_SECRET", SECRET.to_owned()),
        ];
        if kind == Kind::Postgres {
            environment.push(("DATABASE_URL", crate::postgres::create().await));
        }
        let run = |arguments: &[&str]| imks_with(arguments, &environment);
        let key = run(&["key", "add", "backend"]).trim().to_owned();
        let addr = free_address().await;
        let process = Process::start(addr, &environment).await;
        let channels = ["red", "green", "blue"].map(|name| add_channel(run, name));
        let authorization = format!("Bearer {key}");
        let post = async |number: usize| {
            let path = format!("POST /api/v1/admin/channels/{}/messages", channels[number % 3]);
            let body = json!({ "content": { "body": number.to_string() } }).to_string();
            let answer = send(addr, &path, &[("authorization", &authorization)], &body).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        // A receiver gets what is committed from its first start on.
        for number in 0.. {
            post(3 * number).await;
            if !receiver.got.all.lock().await.is_empty() {
                break;
            }
        }
        let sent = 90;
        for number in 0..sent {
            post(number).await;
        }
        drop(process);
        let process = Process::start(addr, &environment).await;
        let lasts: Vec<String> = (sent - 3..sent).map(|number| number.to_string()).collect();
        let all = receiver.until(|all| lasts.iter().all(|last| bodies(all).contains(&last.as_str()))).await;
        drop(process);
        for channel in &channels {
            let seen = first_arrivals(&all, channel);
            let complete: Vec<i64> = (seen[0]..).take(seen.len()).collect();
            assert_eq!(seen, complete, "{kind:?}");
            assert!(seen.len() >= sent / 3, "{kind:?}: {seen:?}");
        }
    }
}

/// The numbers of a channel's messages in the order in which each arrived first.
fn first_arrivals(all: &[Got], channel: &str) -> Vec<i64> {
    let of = all.iter().filter(|got| got.body["data"]["channel_id"] == json!(channel));
    let mut seen = Vec::new();
    for seq in of.map(|got| got.body["data"]["seq"].as_i64().unwrap()) {
        if !seen.contains(&seq) {
            seen.push(seq);
        }
    }
    seen
}

/// Makes a channel and returns its id.
fn add_channel(run: impl Fn(&[&str]) -> String, name: &str) -> String {
    run(&["directory", "channel", "add", name]);
    let listed = run(&["directory", "channel", "list"]);
    let line = listed.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[test]
fn settings_that_cannot_work_are_told_before_the_start() {
    let environment = [
        ("IMKS_WEBHOOK_URL", "http://app/hook,http://app/hook"),
        ("IMKS_WEBHOOK_SECRET", SECRET),
        ("IMKS_WEBHOOK_EVENTS", "message:edited"),
    ];
    for command in ["check-config", "serve"] {
        let mut imks = std::process::Command::new(env!("CARGO_BIN_EXE_imks"));
        let output = imks.arg(command).env_clear().envs(environment).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        for part in ["IMKS_WEBHOOK_URL has an address twice", "IMKS_WEBHOOK_EVENTS has the event"] {
            assert!(said.contains(part), "{part} is missing in {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_reads_refuses_the_database_of_another_version_and_changes_nothing() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let server = TestServer::start_with(kind, |_| {}).await;
        let database = server.database();
        let mut environment = vec![("IMKS_DATA_DIR", database.data_dir.to_str().unwrap().to_owned())];
        environment.extend(database.url.as_ref().map(|url| ("DATABASE_URL", url.expose().to_owned())));
        let run = |arguments: &[&str]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_imks"));
            let output =
                command.args(arguments).env_clear().envs(environment.iter().cloned()).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let commands = [["key", "list"], ["webhook", "list"], ["webhook", "dead"]];
        let all = |code: i32, told: &str| {
            for command in commands {
                let (ended, said) = run(&command);
                assert!(ended == Some(code) && said.contains(told), "{command:?}: {said}");
            }
        };
        all(0, "");
        let db = imks::testing::models::db::Db::connect(database).await.unwrap();
        execute(&db, "UPDATE _sqlx_migrations SET version = version + 100000").await;
        all(78, "a newer version");
        execute(&db, "UPDATE _sqlx_migrations SET version = version - 200000").await;
        all(78, "imks migrate");
        execute(&db, "DELETE FROM _sqlx_migrations").await;
        all(78, "imks migrate");
        db.close().await;
        server.stop().await;
    }
}

async fn execute(db: &imks::testing::models::db::Db, sql: &str) {
    use imks::testing::models::db::Db;
    let query = sqlx::AssertSqlSafe(sql);
    match db {
        Db::Postgres(pool) => _ = sqlx::query(query).execute(pool).await.unwrap(),
        Db::Sqlite(sqlite) => _ = sqlx::query(query).execute(&sqlite.writer).await.unwrap(),
    }
}

/// What a command of an operator prints.
fn imks(arguments: &[&str], data: &std::path::Path) -> String {
    imks_with(arguments, &[("IMKS_DATA_DIR", data.to_str().unwrap().to_owned())])
}

fn imks_with(arguments: &[&str], environment: &[(&str, String)]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_imks"));
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    let output = command.args(arguments).env_clear().envs(environment).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
