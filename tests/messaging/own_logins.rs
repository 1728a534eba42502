//! Logins of one's own application: tokens that it signs, and the users that stand for them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use imks::testing::clock::now_micros;
use imks::testing::config::Config;
use imks::testing::control::{Scopes, keys};
use imks::testing::directory::NewChannel;
use imks::testing::models::db::Db;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::{Response, send};
use crate::client::TestClient;
use crate::server::{Kind, TestServer};
use crate::token::Key;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The public key in PEM, in a file of its own.
fn pem_file(directory: &tempfile::TempDir, keys: &[&Key]) -> PathBuf {
    let pem = |key: &&Key| {
        let head: &[u8] = match key.algorithm {
            jsonwebtoken::Algorithm::ES256 => &P256_HEAD,
            _ => &ED25519_HEAD,
        };
        let body = STANDARD.encode([head, &key.public].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    };
    let path = directory.path().join("keys.pem");
    std::fs::write(&path, keys.iter().map(pem).collect::<String>()).unwrap();
    path
}

/// A token without anything that an application would not put into it by itself.
fn token(key: &Key, claims: Value) -> String {
    let now = now_micros() / 1_000_000;
    let mut all = json!({"iat": now, "exp": now + 3_600});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    key.sign(&json!({"alg": key.header()["alg"], "typ": "JWT"}), &all)
}

/// What the server says about a token, by a request for a channel that nobody has.
async fn code(server: &TestServer, token: &str) -> String {
    let path = "GET /api/v1/channels/00000000-0000-0000-0000-000000000000/messages";
    let bearer = format!("Bearer {token}");
    let response = send(server.addr(), path, &[("authorization", &bearer)], "").await;
    match response.code().1 {
        "not_found" => "ok".into(),
        code => code.to_owned(),
    }
}

async fn names_of(client: &TestClient) -> Vec<String> {
    let channels = client.ready["channels"].as_array().unwrap();
    let mut names: Vec<String> = channels.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

async fn add_channel(server: &TestServer, name: &str) {
    server
        .directory()
        .create_channel(NewChannel { name: name.into(), ..NewChannel::default() })
        .await
        .unwrap();
}

async fn users_of_an_application_come_in_with_its_own_tokens_on(kind: Kind) {
    let (directory, key, other) = (tempfile::tempdir().unwrap(), Key::ed25519("a"), Key::es256("b"));
    let file = pem_file(&directory, &[&key, &other]);
    let server = TestServer::start_with(kind, |config| config.login.public_key_file = Some(file)).await;
    add_channel(&server, "support").await;
    let claims = json!({"sub": "auth0|42", "name": "Alice M.", "channels": ["support", "unknown"]});
    let mut alice = TestClient::connect(server.addr(), &token(&key, claims.clone())).await;
    assert_eq!(
        (&alice.ready["user"]["username"], names_of(&alice).await),
        (&json!("Alice M."), vec!["support".into()])
    );
    let bob = json!({"sub": "7", "channels": {"support": "guest"}});
    let mut bob = TestClient::connect(server.addr(), &token(&other, bob)).await;
    let channel = alice.ready["channels"][0]["channel_id"].clone();
    alice.ok("message:send", json!({"channel_id": channel, "body": "hi"})).await;
    assert_eq!(bob.expect("message:new").await["author"]["username"], "Alice M.");
    let refused = bob.refused("message:send", json!({"channel_id": channel, "body": "hi"})).await;
    assert_eq!(refused["code"], "forbidden", "a guest reads");
    let again = TestClient::connect(server.addr(), &token(&key, claims)).await;
    assert_eq!(again.ready["user"]["id"], alice.ready["user"]["id"], "the same login is the same user");
    assert_ne!(alice.ready["user"]["id"], bob.ready["user"]["id"]);
    let answer = alice.ok("auth:refresh", json!({"token": token(&key, json!({"sub": "auth0|42"}))})).await;
    assert!(answer["token_expires_at"].is_string());
    let others = alice.refused("auth:refresh", json!({"token": token(&key, json!({"sub": "7"}))})).await;
    assert_eq!(others["code"], "unauthenticated");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_an_application_come_in_with_its_own_tokens_on_sqlite() {
    users_of_an_application_come_in_with_its_own_tokens_on(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_an_application_come_in_with_its_own_tokens_on_postgres() {
    users_of_an_application_come_in_with_its_own_tokens_on(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_for_this_server_is_refused() {
    let (directory, key) = (tempfile::tempdir().unwrap(), Key::ed25519("a"));
    let file = pem_file(&directory, &[&key]);
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.login.public_key_file = Some(file)).await;
    let now = now_micros() / 1_000_000;
    for (claims, expected) in [
        (json!({"sub": "1"}), "ok"),
        (json!({"sub": "1", "iss": "anybody"}), "ok"),
        (json!({"sub": "1", "aud": ["other", "imks"]}), "ok"),
        (json!({"sub": "1", "aud": "reset-password"}), "unauthenticated"),
        (json!({"sub": "1", "aud": []}), "unauthenticated"),
        (json!({"sub": "1", "aud": 7}), "unauthenticated"),
        (json!({"sub": ""}), "unauthenticated"),
        (json!({"sub": 7}), "unauthenticated"),
        (json!({"uid": "1"}), "unauthenticated"),
        (json!({"sub": "1", "exp": now - 60}), "token_expired"),
        (json!({"sub": "1", "exp": now + 90 * 86_400}), "unauthenticated"),
        (json!({"sub": "1", "exp": "9999999999"}), "unauthenticated"),
        (json!({"sub": "1", "nbf": now + 3_000}), "unauthenticated"),
        (json!({"sub": "1", "channels": ["a b"]}), "unauthenticated"),
    ] {
        assert_eq!(code(&server, &token(&key, claims.clone())).await, expected, "{claims}");
    }
    let strangers = token(&Key::ed25519("a"), json!({"sub": "1"}));
    assert_eq!(code(&server, &strangers).await, "unauthenticated");
    let ours = server.token("alice").await;
    assert_eq!(code(&server, &ours).await, "unauthenticated", "the directory signs nothing meanwhile");
    let confused = hs256(json!({"sub": "1"}), &key.public);
    assert_eq!(code(&server, &confused).await, "unauthenticated", "the public key is no secret");
    server.stop().await;
}

/// What the server answers to a back end with a key for everything.
async fn call(server: &TestServer, path: &str, body: Value) -> Response {
    let db = Db::connect(server.database()).await.unwrap();
    let name = uuid::Uuid::now_v7().to_string();
    let key = keys::create(&db, &name, Scopes::parse("all").unwrap(), None).await.unwrap();
    db.close().await;
    let bearer = format!("Bearer {}", key.expose());
    let request = format!("POST /api/v1/admin{path}");
    send(server.addr(), &request, &[("authorization", &bearer)], &body.to_string()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_back_end_gets_tokens_that_this_server_would_refuse() {
    let (directory, key) = (tempfile::tempdir().unwrap(), Key::ed25519("a"));
    let file = pem_file(&directory, &[&key]);
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.login.public_key_file = Some(file)).await;
    server.directory().ensure_user("alice").await.unwrap();
    let refresh = json!({ "refresh_token": format!("imks_refresh_{}", "A".repeat(43)) });
    for (path, body) in [("/tokens", json!({ "user": "alice" })), ("/tokens/refresh", refresh)] {
        let refused = call(&server, path, body).await;
        assert_eq!(refused.code(), (422, "failed_precondition"), "{path}: {}", refused.body);
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(message.contains("Your own application issues the tokens"), "{message}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_that_the_keys_changed_learns_that_they_cannot_be_read_and_the_old_ones_go_on() {
    let (directory, key, next) = (tempfile::tempdir().unwrap(), Key::ed25519("a"), Key::ed25519("b"));
    let file = pem_file(&directory, &[&key]);
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.login.public_key_file = Some(file.clone()))
            .await;
    std::fs::write(&file, "no key at all").unwrap();
    let refused = call(&server, "/signing-keys/refresh", json!({})).await;
    assert_eq!(refused.code(), (422, "failed_precondition"), "{}", refused.body);
    let message = refused.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("The keys could not be read"), "{message}");
    assert_eq!(code(&server, &token(&key, json!({"sub": "1"}))).await, "ok");
    pem_file(&directory, &[&next]);
    assert_eq!(call(&server, "/signing-keys/refresh", json!({})).await.status, 200);
    assert_eq!(code(&server, &token(&next, json!({"sub": "1"}))).await, "ok");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuer_and_audience_are_required_where_they_are_configured() {
    let (directory, key) = (tempfile::tempdir().unwrap(), Key::ed25519("a"));
    let file = pem_file(&directory, &[&key]);
    let edit = |config: &mut Config| {
        config.login.public_key_file = Some(file);
        config.token.issuers = vec!["shop".into(), "blog".into()];
        config.token.audience = Some("chat".into());
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    let id = async |issuer: &str| {
        let token = token(&key, json!({"sub": "1", "iss": issuer, "aud": "chat"}));
        TestClient::connect(server.addr(), &token).await.ready["user"]["id"].clone()
    };
    assert_ne!(id("shop").await, id("blog").await, "the same subject of two issuers is two users");
    for claims in [
        json!({"sub": "1", "iss": "shop"}),
        json!({"sub": "1", "aud": "chat"}),
        json!({"sub": "1", "iss": "x", "aud": "chat"}),
    ] {
        assert_eq!(code(&server, &token(&key, claims.clone())).await, "unauthenticated", "{claims}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_secret_signs_where_it_is_allowed() {
    let edit = |config: &mut Config| {
        config.login.hmac_secret = Some(SECRET.into());
        config.login.allow_hmac = true;
        config.login.user_claim = "id".into();
        config.login.first_channels = vec!["lobby".into()];
        config.login.create_channels = true;
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    let client =
        TestClient::connect(server.addr(), &hs256(json!({"id": 42, "name": "Bo"}), SECRET.as_bytes())).await;
    assert_eq!(
        (&client.ready["user"]["username"], names_of(&client).await),
        (&json!("Bo"), vec!["lobby".into()])
    );
    assert_eq!(
        code(&server, &hs256(json!({"id": 42}), b"another secret of at least 32 bytes")).await,
        "unauthenticated"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_of_one_name_are_two_people_and_a_closed_account_stays_closed() {
    let (directory, key) = (tempfile::tempdir().unwrap(), Key::ed25519("a"));
    let file = pem_file(&directory, &[&key]);
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.login.public_key_file = Some(file)).await;
    let first = TestClient::connect(server.addr(), &token(&key, json!({"sub": "1", "name": "John"}))).await;
    let second = TestClient::connect(server.addr(), &token(&key, json!({"sub": "2", "name": "John"}))).await;
    assert_eq!(first.ready["user"]["username"], "John");
    assert!(second.ready["user"]["username"].as_str().unwrap().starts_with("John-"));
    let renamed = TestClient::connect(server.addr(), &token(&key, json!({"sub": "2", "name": "Jo"}))).await;
    assert_eq!(renamed.ready["user"]["username"], "Jo");
    server.directory().remove_user("John").await.unwrap();
    let mut first = first;
    first.ended().await;
    // Issued a moment after the account was closed: only the account can refuse it.
    let later = now_micros() / 1_000_000 + 3;
    let newer = token(&key, json!({"sub": "1", "name": "John", "iat": later}));
    assert_eq!(code(&server, &newer).await, "unauthenticated");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_may_name_a_channel_of_another_workspace_and_makes_no_workspace() {
    let (directory, key) = (tempfile::tempdir().unwrap(), Key::ed25519("a"));
    let file = pem_file(&directory, &[&key]);
    let edit = |config: &mut Config| {
        config.login.public_key_file = Some(file);
        config.login.create_channels = true;
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    server.directory().create_workspace("acme").await.unwrap();
    let claims = json!({"sub": "1", "channels": {"acme/team": "moderator", "other/team": "owner"}});
    let client = TestClient::connect(server.addr(), &token(&key, claims)).await;
    assert_eq!(names_of(&client).await, ["team"]);
    assert_eq!(server.directory().workspaces().await.unwrap().len(), 2, "main and acme");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_users_on_first_sight_only_those_who_exist_come_in() {
    let (directory, key) = (tempfile::tempdir().unwrap(), Key::ed25519("a"));
    let file = pem_file(&directory, &[&key]);
    let edit = |config: &mut Config| {
        config.login.public_key_file = Some(file);
        config.login.create_users = false;
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    assert_eq!(code(&server, &token(&key, json!({"sub": "1"}))).await, "unauthenticated");
    assert!(server.directory().users().await.unwrap().is_empty());
    server.stop().await;
}

/// A server of a key set that answers what it is told to.
#[derive(Clone)]
struct KeySet {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
    /// Whether a redirect was followed.
    followed: Arc<AtomicBool>,
}

impl KeySet {
    async fn start(keys: &[&Key]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let set = Self { address, answer: Arc::default(), asked: Arc::default(), followed: Arc::default() };
        set.lists(keys);
        let router = axum::Router::new()
            .route("/jwks", axum::routing::get(Self::handle))
            .route("/moved", axum::routing::get(Self::handle_moved))
            .with_state(set.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        set
    }

    async fn handle(State(set): State<Self>) -> (StatusCode, HeaderMap, String) {
        set.asked.fetch_add(1, Ordering::SeqCst);
        let (status, body) = set.answer.lock().clone();
        let mut headers = HeaderMap::new();
        if status == 302 {
            headers.insert("location", format!("http://{}/moved", set.address).parse().unwrap());
        }
        (StatusCode::from_u16(status).unwrap(), headers, body)
    }

    async fn handle_moved(State(set): State<Self>) {
        set.followed.store(true, Ordering::SeqCst);
    }

    fn lists(&self, keys: &[&Key]) {
        let jwk = |key: &&Key| {
            let x = URL_SAFE_NO_PAD.encode(&key.public);
            json!({"kty": "OKP", "crv": "Ed25519", "kid": key.kid, "use": "sig", "alg": "EdDSA", "x": x})
        };
        let keys: Vec<Value> = keys.iter().map(jwk).collect();
        self.answers(200, &json!({ "keys": keys }).to_string());
    }

    fn answers(&self, status: u16, body: &str) {
        *self.answer.lock() = (status, body.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn configure(&self) -> impl FnOnce(&mut Config) {
        let url = format!("http://{}/jwks", self.address);
        move |config| {
            config.login.jwks_url = Some(url.into());
            config.token.refresh_pause = Duration::from_millis(1);
        }
    }
}

fn issued(key: &Key, sub: &str) -> String {
    let now = now_micros() / 1_000_000;
    let claims = json!({"iss": "https://id.example", "aud": "imks", "sub": sub, "iat": now, "exp": now + 60});
    key.sign(&key.header(), &claims)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_identity_provider_are_fetched_and_a_new_one_is_found_at_once() {
    let (old, new) = (Key::ed25519("old"), Key::ed25519("new"));
    let set = KeySet::start(&[&old]).await;
    let server = TestServer::start_with(Kind::Sqlite, set.configure()).await;
    assert_eq!(code(&server, &issued(&old, "1")).await, "ok");
    assert_eq!(code(&server, &issued(&old, "2")).await, "ok");
    assert_eq!(set.asked(), 1, "a known key costs no question");
    set.lists(&[&new]);
    assert_eq!(code(&server, &issued(&new, "1")).await, "ok", "an unknown key is looked for");
    assert_eq!(code(&server, &issued(&old, "1")).await, "ok", "a key that left the set has its grace");
    let without = |name: &str| {
        let mut claims = json!({"iss": "i", "aud": "imks", "sub": "1"});
        claims.as_object_mut().unwrap().remove(name);
        let now = now_micros() / 1_000_000;
        claims["exp"] = json!(now + 60);
        new.sign(&new.header(), &claims)
    };
    assert_eq!(code(&server, &without("nothing")).await, "ok");
    for name in ["iss", "aud", "sub"] {
        assert_eq!(code(&server, &without(name)).await, "unauthenticated", "without {name}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_keys_asks_the_identity_provider_once() {
    let key = Key::ed25519("good");
    let set = KeySet::start(&[&key]).await;
    let edit = set.configure();
    let edit = |config: &mut Config| {
        edit(config);
        config.token.refresh_pause = Duration::from_secs(60);
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    let attempts = (0..200).map(|n| {
        let (server, token) = (&server, issued(&Key::ed25519(&format!("k{n}")), "1"));
        async move { code(server, &token).await }
    });
    let answers = futures_util::future::join_all(attempts).await;
    let is_refusal = |answer: &String| ["unauthenticated", "overloaded"].contains(&answer.as_str());
    assert!(answers.iter().all(is_refusal), "{answers:?}");
    assert!(answers.iter().any(|answer| answer == "unauthenticated"), "who caused the question knows");
    let later = issued(&Key::ed25519("later"), "1");
    assert_eq!(code(&server, &later).await, "overloaded", "nobody knows before the next look");
    assert!(set.asked() <= 2, "at the start, and once more: {}", set.asked());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_set_that_is_down_moved_huge_or_wrong_leaves_the_known_keys_in_use() {
    let key = Key::ed25519("good");
    let set = KeySet::start(&[&key]).await;
    let server = TestServer::start_with(Kind::Sqlite, set.configure()).await;
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(100 << 20));
    let deep = format!("{{\"keys\":{}", "[".repeat(100_000));
    let useless =
        r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256","kid":"unknown"},7,null,{"kty":"RSA"}]}"#;
    for (status, body) in [
        (500, ""),
        (302, ""),
        (204, ""),
        (200, "{}"),
        (200, "<html>"),
        (200, useless),
        (200, &deep),
        (200, &huge),
    ] {
        set.answers(status, body);
        let unknown = issued(&Key::ed25519("unknown"), "1");
        assert_eq!(code(&server, &unknown).await, "unavailable", "{status}");
        assert_eq!(code(&server, &issued(&key, "1")).await, "ok", "{status}");
    }
    assert!(!set.followed.load(Ordering::SeqCst), "a redirect is not followed");
    server.stop().await;
}

/// Answers every request with an endless body, a byte every 20 ms. Returns its address.
async fn dripping() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // An answer before the question is a broken connection, not a slow one.
                let _question = connection.read(&mut [0; 4096]).await;
                let head =
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
                let mut sent = connection.write_all(head).await;
                while sent.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    sent = connection.write_all(b" ").await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_set_or_a_hook_that_sends_a_byte_at_a_time_is_given_up() {
    let url = format!("http://{}/", dripping().await);
    let (hook, set) = (url.clone(), url);
    let with_hook = |config: &mut Config| {
        config.hook.url = Some(hook.into());
        config.hook.deadline = Duration::from_millis(300);
    };
    let server = TestServer::start_with(Kind::Sqlite, with_hook).await;
    assert_eq!(code(&server, "a").await, "timeout");
    server.stop().await;
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.login.jwks_url = Some(set.into())).await;
    assert_eq!(code(&server, &issued(&Key::ed25519("a"), "1")).await, "unavailable");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_characters_that_nobody_sees_is_shown_without_them() {
    let (directory, key) = (tempfile::tempdir().unwrap(), Key::ed25519("a"));
    let file = pem_file(&directory, &[&key]);
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.login.public_key_file = Some(file)).await;
    let name = async |sub: &str, name: &str| {
        let token = token(&key, json!({"sub": sub, "name": name}));
        TestClient::connect(server.addr(), &token).await.ready["user"]["username"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(name("1", "Alice").await, "Alice");
    let second = name("2", "Al\u{200b}ice\u{202e}\u{0}\n").await;
    assert!(second.starts_with("Alice-"), "{second:?} looks like the first one");
    let ids = ["é", "e\u{301}", "a\u{0}b", "a\nb", &"x".repeat(255)].map(|sub| json!({"sub": sub}));
    for claims in &ids {
        assert_eq!(code(&server, &token(&key, claims.clone())).await, "ok", "any text is an id: {claims}");
    }
    assert_eq!(code(&server, &token(&key, json!({"sub": "x".repeat(6_000)}))).await, "unauthenticated");
    let users = server.directory().users().await.unwrap();
    assert_eq!(users.len(), 2 + ids.len(), "what differs in one byte is another user");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_before_its_identity_provider_lets_people_in_later() {
    let key = Key::ed25519("good");
    let set = KeySet::start(&[&key]).await;
    set.answers(503, "");
    let server = TestServer::start_with(Kind::Sqlite, set.configure()).await;
    let token = issued(&key, "1");
    assert_eq!(code(&server, &token).await, "unavailable");
    set.lists(&[&key]);
    let let_in = async { while code(&server, &token).await != "ok" {} };
    tokio::time::timeout(Duration::from_secs(10), let_in).await.expect("within seconds");
    server.stop().await;
}

fn hs256(claims: Value, secret: &[u8]) -> String {
    let now = now_micros() / 1_000_000;
    let mut all = json!({"iat": now, "exp": now + 60});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &all, &key).unwrap()
}

/// What precedes the key in SubjectPublicKeyInfo (RFC 8410).
const ED25519_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What precedes the point in SubjectPublicKeyInfo (RFC 5480).
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
