//! What the log says about tokens: nothing about a good one, and one line about a bad one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use imks::testing::clock::now_micros;
use imks::testing::config::Config;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::subscriber::DefaultGuard;

use crate::api::send;
use crate::client::TestClient;
use crate::server::{Kind, TestServer};

/// A shared secret of one's own application.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Everything that this thread logs, at level debug. The runtimes of these tests have one thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The same as lines of JSON.
    fn start_json() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
        let subscriber = lines.json().with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The line that says this.
    fn line(&self, said: &str) -> String {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let line = text.lines().find(|line| line.contains(&format!(": {said} ")) || line.ends_with(said));
        line.unwrap_or_default().to_owned()
    }

    async fn wait_for(&self, said: &str) -> String {
        self.wait_for_all(&[said]).await
    }

    /// Waits for a line that says the first of these, and has the others in it.
    async fn wait_for_all(&self, parts: &[&str]) -> String {
        let starts = format!(": {} ", parts[0]);
        loop {
            let text = String::from_utf8(self.0.lock().clone()).unwrap();
            let has_all = |line: &&str| {
                (line.contains(&starts) || line.ends_with(parts[0]))
                    && parts.iter().all(|part| line.contains(part))
            };
            if let Some(line) = text.lines().find(has_all) {
                return line.to_owned();
            }
            tokio::task::yield_now().await;
        }
    }

    /// The lines about refusals since the last call, without those about requests, which say no more than a code.
    fn refusals(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
        let about = |line: &&str| line.contains("refused") && !line.contains("request refused");
        text.lines().filter(about).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_good_token_logs_no_refusal_and_a_bad_one_logs_why_once_with_user_and_peer() {
    let server = TestServer::start_with(Kind::Sqlite, |config| config.token.leeway = Duration::ZERO).await;
    let user = server.directory().ensure_development("alice").await.unwrap();
    let good = server.token("alice").await;
    let short = server.directory().issue_token(&user, Duration::from_secs(1)).await.unwrap();
    let (log, _guard) = Log::start();
    TestClient::connect(server.addr(), &good).await;
    assert!(log.0.lock().windows(9).any(|text| text == b"signed in"), "the log is at level debug");
    assert_eq!(log.refusals(), Vec::<String>::new());
    while now_micros() < expiry(&short) {
        tokio::task::yield_now().await;
    }
    let forged = format!("{}x", &good[..good.len() - 1]);
    for (token, code, why) in [
        (short.as_str(), "token_expired", "why=\"expired\""),
        (forged.as_str(), "unauthenticated", "why=\"signature\""),
        ("nothing.XYZ9", "unauthenticated", "why=\"parts\""),
    ] {
        let mut client = TestClient::open(server.addr()).await;
        let refused = client.join(json!({ "token": token })).await.unwrap_err();
        assert_eq!(refused["data"]["code"], code);
        check(&log.refusals(), token, why, (code == "token_expired").then(|| user.id.to_string()));
        let bearer = format!("Bearer {token}");
        let path = "GET /api/v1/channels/00000000-0000-0000-0000-000000000000/messages";
        let response = send(server.addr(), path, &[("authorization", &bearer)], "").await;
        assert_eq!(response.code().1, code);
        check(&log.refusals(), token, why, (code == "token_expired").then(|| user.id.to_string()));
    }
    let mut alice = TestClient::connect(server.addr(), &good).await;
    log.refusals();
    alice.refused("auth:refresh", json!({ "token": forged })).await;
    check(&log.refusals(), &forged, "why=\"signature\"", None);
    server.stop().await;
}

#[tokio::test]
async fn a_token_in_the_address_or_in_a_cookie_lets_nobody_in_and_stands_in_no_log() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("alice").await;
    let secret = token.split('.').next_back().unwrap();
    let (log, _guard) = Log::start();
    let cookie = format!("token={token}; access_token={token}; io={token}");
    let query = format!("&token={token}&access_token={token}&auth[token]={token}");
    let mut client = TestClient::open_with(
        server.addr(),
        &query,
        &[("cookie", &cookie), ("origin", "https://evil.example")],
    )
    .await;
    let refused = client.join(json!({})).await.unwrap_err();
    assert_eq!(refused["data"]["code"], "unauthenticated");
    let path = "GET /api/v1/channels/00000000-0000-0000-0000-000000000000/messages";
    let path = format!("{path}?token={token}&access_token={token}");
    let response = send(server.addr(), &path, &[("cookie", &cookie)], "").await;
    assert_eq!(response.code(), (401, "unauthenticated"));
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(text.contains("refused") && !text.contains(secret), "{text}");
    let metrics = crate::http::get(server.addr(), "/metrics").await.1;
    assert!(!metrics.contains(secret), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn the_log_says_who_came_from_where_with_what_and_why_they_left() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("alice").await;
    let user = server.directory().ensure_development("alice").await.unwrap();
    let (log, _guard) = Log::start();
    let mut alice = TestClient::open(server.addr()).await;
    let client = json!({ "name": "web\nINFO forged", "version": "1.4" });
    alice.join(json!({ "token": token, "client": client })).await.unwrap();
    let came = log.line("signed in");
    let ids = format!("user={} username=\"alice\"", user.id);
    let connection =
        format!("connection={}", alice.expect("session:ready").await["connection_id"].as_str().unwrap());
    let said = ["peer=127.0.0.1:", "transport=\"websocket\"", "client=\"webINFO forged 1.4\"", "clients=1"];
    for part in ["INFO", &ids, &connection].into_iter().chain(said) {
        assert!(came.contains(part), "{part}: {came}");
    }
    let bob = server.client("bob").await;
    assert!(log.wait_for_all(&["signed in", "username=\"bob\""]).await.contains("clients=2"));
    let session = |line: &str| {
        let of = |field: &str| line.split(field).nth(1).unwrap().split(' ').next().unwrap().to_owned();
        (of("socket_sid="), of("engine_sid="))
    };
    alice.raw("41").await;
    let left = log.wait_for("left").await;
    assert_eq!(session(&left), session(&came));
    assert!(left.contains("reason=\"client namespace disconnect\"") && left.contains("seconds="), "{left}");
    assert!(left.contains(&connection) && !left.contains("code="), "its connection is open: {left}");
    drop(bob);
    server.stop().await;
}

/// Names of programs that look like fields, and characters that change how a line is seen.
const FORGED: &str = "web user=01a2-ceo username=\"ceo\" \u{202e}gnp\u{2066}.\u{2028}exe\u{200b}\u{feff}";

#[tokio::test]
async fn a_client_forges_no_field_of_a_line_with_the_name_of_its_program() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("alice").await;
    let auth = json!({ "token": token, "client": { "name": FORGED, "version": "1\u{202e}" } });
    let (log, guard) = Log::start();
    TestClient::open(server.addr()).await.join(auth.clone()).await.unwrap();
    let came = log.line("signed in");
    let quoted = r#"client="web user=01a2-ceo username=\"ceo\" gnp.exe 1""#;
    assert!(came.contains(quoted) && came.contains(" username=\"alice\" "), "{came}");
    drop(guard);
    let (log, _guard) = Log::start_json();
    TestClient::open(server.addr()).await.join(auth).await.unwrap();
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let came = text.lines().find(|line| line.contains("signed in")).unwrap();
    let came: Value = serde_json::from_str(came).unwrap();
    assert_eq!(came["fields"]["client"], "web user=01a2-ceo username=\"ceo\" gnp.exe 1");
    assert_eq!(came["fields"]["username"], "alice");
    server.stop().await;
}

#[tokio::test]
async fn the_log_says_with_which_code_a_connection_was_closed_and_by_whom() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (log, _guard) = Log::start();
    let mut closes = server.client("closes").await;
    closes.close(4001).await;
    let left = log.wait_for("left").await;
    assert!(left.contains("reason=\"transport close\" code=4001"), "{left}");
    log.0.lock().clear();
    let mut breaks_a_rule = server.client("breaks").await;
    breaks_a_rule.raw("9").await;
    let left = log.wait_for("left").await;
    assert!(left.contains("reason=\"parse error\" code=1002"), "{left}");
    log.0.lock().clear();
    let mut says_so = server.client("says").await;
    says_so.raw("1").await;
    let left = log.wait_for("left").await;
    assert!(left.contains("reason=\"transport close\" code=1000"), "{left}");
    log.0.lock().clear();
    drop(server.client("vanishes").await);
    let left = log.wait_for("left").await;
    assert!(left.contains("reason=\"transport ") && !left.contains("code="), "{left}");
    server.stop().await;
}

#[tokio::test]
async fn at_the_level_debug_the_log_tells_each_request_and_whom_it_reached_and_no_text() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let bob = server.client("bob").await;
    let channel = alice.ready["channels"][0]["channel_id"].clone();
    let (log, _guard) = Log::start();
    alice.ok("message:send", json!({ "channel_id": channel, "body": "for our eyes only" })).await;
    log.wait_for_all(&["broadcast", "namespace=\"/\"", channel.as_str().unwrap(), "receivers=2"]).await;
    let answered = log.wait_for_all(&["request answered", "event=\"message:send\""]).await;
    assert!(answered.contains("DEBUG") && answered.contains("request_id="), "{answered}");
    assert!(!String::from_utf8(log.0.lock().clone()).unwrap().contains("for our eyes only"));
    drop(bob);
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_wrong_tokens_does_not_fill_the_log() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (log, _guard) = Log::start();
    let path = "GET /api/v1/channels/00000000-0000-0000-0000-000000000000/messages";
    for _ in 0..150 {
        send(server.addr(), path, &[("authorization", "Bearer nothing.XYZ9")], "").await;
    }
    let refusals = log.refusals();
    let shown = refusals.iter().filter(|line| line.contains("INFO")).count();
    assert_eq!(refusals.len(), 150);
    assert!((100..150).contains(&shown), "{shown}");
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_sign_ins_without_a_token_does_not_fill_the_log() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (log, _guard) = Log::start();
    for _ in 0..150 {
        let mut client = TestClient::open(server.addr()).await;
        client.join(json!({ "protocol": 99 })).await.unwrap_err();
    }
    let mut refusals = log.refusals();
    refusals.retain(|line| line.contains("sign-in refused"));
    let shown = refusals.iter().filter(|line| line.contains("INFO")).count();
    assert_eq!(refusals.len(), 150);
    assert!((100..150).contains(&shown), "{shown}");
    server.stop().await;
}

#[tokio::test]
async fn a_refused_token_of_ones_own_application_is_logged_with_its_subject_if_the_signature_is_good() {
    let edit = |config: &mut Config| {
        config.login.hmac_secret = Some(SECRET.into());
        config.login.allow_hmac = true;
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    let now = now_micros() / 1_000_000;
    let sign = |claims: &Value, secret: &str| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
    };
    let good = json!({"sub": "auth0|42\n", "exp": now + 60});
    let expired = json!({"sub": "auth0|42\n", "exp": now - 60});
    let others = json!({"sub": "auth0|42\n", "exp": now + 60, "aud": "other"});
    let subject = r#"subject="auth0|42\n""#;
    let (log, _guard) = Log::start();
    for (token, why, level, subject) in [
        (sign(&expired, SECRET), "why=\"expired\"", "INFO", Some(subject)),
        (sign(&others, SECRET), "why=\"audience\"", "INFO", Some(subject)),
        (sign(&good, "another secret of at least 32 bytes"), "why=\"signature\"", "INFO", None),
    ] {
        let mut client = TestClient::open(server.addr()).await;
        client.join(json!({ "token": token })).await.unwrap_err();
        let lines = log.refusals();
        check(&lines, &token, why, None);
        assert!(lines[0].contains(level), "{lines:?}");
        assert_eq!(lines[0].contains("subject="), subject.is_some(), "{lines:?}");
        assert!(subject.is_none_or(|subject| lines[0].contains(subject)), "{lines:?}");
    }
    server.stop().await;
}

/// One line, with the reason and the address of the client, with the user only if the signature is good, and without
/// the token.
fn check(lines: &[String], token: &str, why: &str, user: Option<String>) {
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    assert!(line.contains("token refused") && line.contains(why), "{line}");
    assert!(line.contains("peer=127.0.0.1:"), "{line}");
    assert_eq!(line.contains("user="), user.is_some(), "{line}");
    assert!(user.is_none_or(|user| line.contains(&user)), "{line}");
    let secret = token.split('.').next_back().unwrap();
    assert!(!line.contains(token) && !line.contains(secret), "{line}");
}

/// When a token ends, in microseconds.
fn expiry(token: &str) -> i64 {
    use base64::Engine as _;
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["exp"].as_i64().unwrap() * 1_000_000
}
