//! Which tokens are let in (docs/rpc.md), against a core that may be down, slow or wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use imks::ImksError;
use imks::error::Code;
use imks::testing::auth::{TokenConfig, TokenVerifier};
use imks::testing::clock::now_micros;
use imks::testing::pb::v1;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::core::{FakeCore, Mode};
use support::token::{Key, claims};
use uuid::Uuid;

/// A core with one key of each algorithm, and who trusts it.
struct World {
    core: FakeCore,
    auth: TokenVerifier,
    ed: Key,
    ec: Key,
}

async fn world() -> World {
    world_with(TokenConfig::default()).await
}

async fn world_with(config: TokenConfig) -> World {
    let (core, ed, ec) = (FakeCore::start().await, Key::ed25519("ed"), Key::es256("ec"));
    core.set_keys(vec![ed.listed(), ec.listed()]);
    let auth = TokenVerifier::start(core.client(), config).await.unwrap();
    World { core, auth, ed, ec }
}

/// Refreshes as often as it is asked to.
fn eager() -> TokenConfig {
    TokenConfig { refresh_pause: Duration::ZERO, ..TokenConfig::default() }
}

async fn code(auth: &TokenVerifier, token: &str) -> &'static str {
    match auth.verify(token).await {
        Ok(_) => "ok",
        Err(error) => error.code().as_str(),
    }
}

#[tokio::test]
async fn a_good_token_of_either_algorithm_says_who_it_is() {
    let (world, user) = (world().await, Uuid::now_v7());
    for key in [&world.ed, &world.ec] {
        let identity = world.auth.verify(&key.token(user)).await.unwrap();
        assert_eq!((identity.user_id, &*identity.username), (user, "alice"));
        assert!(identity.expires_at > now_micros());
    }
    assert_eq!(world.core.calls("get_signing_keys"), 1, "no call per token");
}

#[tokio::test]
async fn what_is_no_token_is_refused_without_a_reason() {
    let world = world().await;
    let good = world.ed.token(Uuid::now_v7());
    let parts: Vec<&str> = good.split('.').collect();
    let without_signature = format!("{}.{}.", parts[0], parts[1]);
    let huge = "a".repeat(1_000_000);
    let doubled = format!("{good}.{}", parts[2]);
    let padded = format!("{}=.{}.{}", parts[0], parts[1], parts[2]);
    let cases =
        ["", " ", ".", "..", "a.b.c", "null", "{}", "[]", "42", "Bearer", parts[0], &without_signature];
    for token in cases.into_iter().chain([&*huge, &*doubled, &*padded]) {
        let error = world.auth.verify(token).await.unwrap_err();
        assert_eq!(error.code(), "unauthenticated", "{}", &token[..token.len().min(80)]);
        assert_eq!(error.client_message(), "The token is missing or not valid");
    }
}

#[tokio::test]
async fn only_the_algorithm_of_the_key_is_accepted() {
    let (world, claims) = (world().await, claims("imks", Uuid::now_v7()));
    for alg in ["none", "None", "NONE", "nOnE", "HS256", "HS512", "RS256", "ES384", "eddsa", "ES256", ""] {
        let token = world.ed.sign(&json!({"alg": alg, "kid": "ed"}), &claims);
        assert_eq!(code(&world.auth, &token).await, "unauthenticated", "{alg}");
    }
    for public in [&world.ed, &world.ec] {
        let secrets = [public.public.clone(), pem(&public.public).into_bytes()];
        for secret in secrets {
            let token = hs256(&json!({"alg": "HS256", "kid": public.kid}), &claims, &secret);
            assert_eq!(
                code(&world.auth, &token).await,
                "unauthenticated",
                "the public key as a shared secret"
            );
        }
    }
    let crossed = world.ec.sign(&json!({"alg": "ES256", "kid": "ed"}), &claims);
    assert_eq!(code(&world.auth, &crossed).await, "unauthenticated", "signed with another key of the set");
}

#[tokio::test]
async fn a_token_with_impossible_claims_is_refused() {
    let (world, user, now) = (world().await, Uuid::now_v7(), now_micros() / 1_000_000);
    for (claim, value) in impossible_claims(user, now) {
        let mut claims = claims("imks", user);
        claims[claim] = value.clone();
        let token = world.ed.sign(&world.ed.header(), &claims);
        assert_eq!(code(&world.auth, &token).await, "unauthenticated", "{claim}: {value}");
    }
    for missing in ["exp", "iat", "iss", "aud", "sub"] {
        let mut claims = claims("imks", user);
        claims.as_object_mut().unwrap().remove(missing);
        let token = world.ed.sign(&world.ed.header(), &claims);
        assert_eq!(code(&world.auth, &token).await, "unauthenticated", "without {missing}");
    }
    let text = claims("imks", user).to_string().replacen('{', &format!("{{\"exp\":{},", now + 9), 1);
    let doubled = world.ed.sign_text(&world.ed.header().to_string(), &text);
    assert_eq!(code(&world.auth, &doubled).await, "unauthenticated", "exp twice");
}

#[tokio::test]
async fn a_clock_that_was_stepped_back_is_worth_a_retry_and_a_few_seconds_are_nothing() {
    let (world, user) = (world().await, Uuid::now_v7());
    let token = world.ed.token(user);
    let hour_ago = now_micros() - 3_600 * 1_000_000;
    let error = world.auth.verify_at(&token, hour_ago).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Code::Unavailable, true), "{error}");
    let within_leeway = now_micros() - 3_000_000;
    assert!(world.auth.verify_at(&token, within_leeway).await.is_ok());
    let forged = Key::ed25519("ed").token(user);
    let error = world.auth.verify_at(&forged, hour_ago).await.unwrap_err();
    assert_eq!(error.code(), "unauthenticated", "only a good signature is worth waiting for");
}

#[tokio::test]
async fn a_good_token_logs_no_refusal_and_a_bad_one_logs_one() {
    let (world, log) = (world().await, Log::default());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    assert_eq!(code(&world.auth, &world.ed.token(Uuid::now_v7())).await, "ok");
    assert_eq!(log.count("token refused"), 0);
    assert_eq!(code(&world.auth, "no.token").await, "unauthenticated");
    assert_eq!(log.count("token refused"), 1);
}

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock()).matches(text).count()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn audience_lists_and_unknown_claims_are_fine_and_claim_nothing() {
    let (world, user) = (world().await, Uuid::now_v7());
    let mut claims = claims("imks", user);
    claims["aud"] = json!(["other", "imks"]);
    claims["admin"] = json!(true);
    claims["user_id"] = json!(Uuid::now_v7());
    let identity = world.auth.verify(&world.ed.sign(&world.ed.header(), &claims)).await.unwrap();
    assert_eq!(identity.user_id, user);
}

#[tokio::test]
async fn an_expired_token_says_so_but_only_with_a_good_signature() {
    let (world, user) = (world().await, Uuid::now_v7());
    let (token, later) = (world.ed.token(user), now_micros() + 3_700 * 1_000_000);
    assert!(matches!(world.auth.verify_at(&token, later).await, Err(ImksError::TokenExpired)));
    let within_leeway = now_micros() + 3_600 * 1_000_000 + 3_000_000;
    assert!(world.auth.verify_at(&token, within_leeway).await.is_ok(), "clocks differ by seconds");
    let forged = Key::ed25519("ed").token(user);
    let error = world.auth.verify_at(&forged, later).await.unwrap_err();
    assert_eq!(error.code(), "unauthenticated");
}

#[tokio::test]
async fn a_header_cannot_name_a_key_by_other_means() {
    let (world, claims) = (world_with(eager()).await, claims("imks", Uuid::now_v7()));
    let evil = Key::ed25519("evil");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64_url(&evil.public)});
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", elsewhere.local_addr().unwrap());
    let additions: Vec<(&str, Value)> = vec![
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("jwk", jwk),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(null)),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("typ", json!("JWE")),
    ];
    for (name, value) in additions {
        let mut header = world.ed.header();
        header[name] = value;
        assert_eq!(code(&world.auth, &world.ed.sign(&header, &claims)).await, "unauthenticated", "{name}");
    }
    let long = "k".repeat(4_000);
    let kids = ["", "../../etc/passwd", "' OR 1=1 --", &url, &long, "ED", "ed "];
    for kid in kids.map(|kid| json!(kid)).into_iter().chain([json!(null), json!(7), json!(["ed"])]) {
        let token = world.ed.sign(&json!({"alg": "EdDSA", "kid": kid}), &claims);
        assert_eq!(code(&world.auth, &token).await, "unauthenticated", "kid {kid}");
    }
    let without = world.ed.sign(&json!({"alg": "EdDSA"}), &claims);
    assert_eq!(code(&world.auth, &without).await, "unauthenticated", "no kid");
    let twice = world.ed.sign_text(r#"{"alg":"EdDSA","kid":"evil","kid":"ed"}"#, &claims.to_string());
    assert_eq!(code(&world.auth, &twice).await, "unauthenticated", "kid twice");
    let asked = elsewhere.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock), "nothing is fetched from where a token says");
}

#[tokio::test]
async fn one_issuers_key_does_not_verify_anothers_token() {
    let core = FakeCore::start().await;
    let (one, two) = (Key::ed25519("same"), Key::ed25519("same").of_issuer("two"));
    core.set_keys(vec![one.listed(), two.listed()]);
    let config = TokenConfig { issuers: vec!["imks".into(), "two".into()], ..TokenConfig::default() };
    let auth = TokenVerifier::start(core.client(), config).await.unwrap();
    let user = Uuid::now_v7();
    assert_eq!(code(&auth, &one.token(user)).await, "ok");
    assert_eq!(code(&auth, &two.token(user)).await, "ok");
    let crossed = one.sign(&one.header(), &claims("two", user));
    assert_eq!(code(&auth, &crossed).await, "unauthenticated");
}

#[tokio::test]
async fn after_a_rotation_new_and_old_tokens_are_good_and_a_revoked_key_is_not() {
    let (world, user) = (world_with(eager()).await, Uuid::now_v7());
    let new = Key::ed25519("new");
    world.core.set_keys(vec![new.listed()]);
    assert_eq!(code(&world.auth, &new.token(user)).await, "ok", "an unknown key is looked for");
    assert_eq!(
        code(&world.auth, &world.ed.token(user)).await,
        "ok",
        "a key that left the list has its grace"
    );
    let mut gone = world.ed.listed();
    gone.status = v1::signing_key::Status::Revoked.into();
    let newest = Key::ed25519("newest");
    world.core.set_keys(vec![newest.listed(), gone]);
    assert_eq!(code(&world.auth, &newest.token(user)).await, "ok");
    assert_eq!(code(&world.auth, &world.ed.token(user)).await, "unauthenticated", "revoked");
}

#[tokio::test]
async fn a_key_is_good_between_its_times_only() {
    let (world, user) = (world_with(eager()).await, Uuid::now_v7());
    let mut listed = world.ed.listed();
    listed.not_after_us = now_micros() + 10_000_000;
    world.core.set_keys(vec![listed]);
    // A token of an unknown key makes it look at the list again.
    let _ = world.auth.verify(&Key::ed25519("unknown").token(user)).await;
    let token = world.ed.token(user);
    assert_eq!(code(&world.auth, &token).await, "ok");
    let error = world.auth.verify_at(&token, now_micros() + 20_000_000).await.unwrap_err();
    assert_eq!(error.code(), "unauthenticated");
}

#[tokio::test]
async fn known_keys_survive_a_core_that_is_down_slow_or_wrong() {
    let (world, user) = (world_with(eager()).await, Uuid::now_v7());
    for mode in Mode::FAILURES {
        world.core.mode(mode);
        let unknown = Key::ed25519("unknown").token(user);
        let refused = code(&world.auth, &unknown).await;
        // Garbage is an answer too: the known keys are the keys.
        let expected: &[&str] =
            if mode == Mode::Wrong { &["unauthenticated", "unavailable"] } else { &["unavailable"] };
        assert!(expected.contains(&refused), "{mode:?}: {refused}");
        assert_eq!(code(&world.auth, &world.ed.token(user)).await, "ok", "{mode:?}");
    }
    world.core.stop();
    assert_eq!(code(&world.auth, &world.ed.token(user)).await, "ok", "gone");
}

#[tokio::test]
async fn a_server_that_starts_before_its_core_lets_people_in_when_the_core_is_there() {
    let core = FakeCore::start().await;
    let key = Key::ed25519("ed");
    core.set_keys(vec![key.listed()]);
    core.stop();
    let auth = TokenVerifier::start(core.client(), eager()).await.unwrap();
    let token = key.token(Uuid::now_v7());
    assert_eq!(code(&auth, &token).await, "unavailable");
    core.restart().await;
    let let_in = async { while auth.verify(&token).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), let_in).await.expect("within seconds");
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_one_question() {
    let world = world().await;
    let attempts = (0..200).map(|n| {
        let (auth, token) = (world.auth.clone(), Key::ed25519(&format!("k{n}")).token(Uuid::now_v7()));
        async move { code(&auth, &token).await }
    });
    let answers = futures_util::future::join_all(attempts).await;
    let is_refusal = |answer: &&str| ["unauthenticated", "overloaded"].contains(answer);
    assert!(answers.iter().all(is_refusal), "{answers:?}");
    assert!(answers.contains(&"unauthenticated"), "who caused the question is refused for good");
    for n in 0..50 {
        let token = Key::ed25519(&format!("later{n}")).token(Uuid::now_v7());
        let error = world.auth.verify(&token).await.unwrap_err();
        assert!(error.is_retryable(), "nobody knows yet: {error}");
        assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(10)), "{error}");
    }
    assert!(world.core.calls("get_signing_keys") <= 2, "at the start, and once more at most");
}

#[tokio::test]
async fn a_key_that_appears_right_after_a_look_is_found_by_the_next_one() {
    let (pause, user) = (Duration::from_secs(2), Uuid::now_v7());
    let world = world_with(TokenConfig { refresh_pause: pause, ..TokenConfig::default() }).await;
    let garbage = Key::ed25519("garbage").token(user);
    assert_eq!(code(&world.auth, &garbage).await, "unauthenticated");
    let new = Key::ed25519("new");
    world.core.set_keys(vec![world.ed.listed(), new.listed()]);
    let (token, other) = (new.token(user), Key::ed25519("other").token(user));
    for token in [&token, &other, &garbage] {
        let error = world.auth.verify(token).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(error.retry_after().is_some_and(|after| after <= pause), "{error}");
    }
    tokio::time::sleep(pause).await;
    assert_eq!(code(&world.auth, &token).await, "ok");
    for token in [&other, &garbage] {
        assert_eq!(code(&world.auth, token).await, "unauthenticated", "the last look was after the token");
    }
    assert_eq!(world.core.calls("get_signing_keys"), 3, "at the start, and one for each pause");
}

#[tokio::test]
async fn a_key_that_is_new_right_after_the_start_is_found_at_once() {
    let (world, new) = (world().await, Key::ed25519("new"));
    world.core.set_keys(vec![new.listed()]);
    assert_eq!(code(&world.auth, &new.token(Uuid::now_v7())).await, "ok");
}

#[tokio::test]
async fn many_tokens_of_a_new_key_share_one_refresh() {
    let (world, new) = (world_with(eager()).await, Key::ed25519("new"));
    world.core.set_keys(vec![new.listed()]);
    let attempts = (0..50).map(|_| {
        let (auth, token) = (world.auth.clone(), new.token(Uuid::now_v7()));
        async move { code(&auth, &token).await }
    });
    let answers = futures_util::future::join_all(attempts).await;
    assert!(answers.iter().all(|answer| *answer == "ok"), "{answers:?}");
    assert!(world.core.calls("get_signing_keys") <= 3);
}

#[tokio::test]
async fn a_revocation_reaches_who_is_connected_and_who_comes_back() {
    let (world, user) = (world().await, Uuid::now_v7());
    let token = world.ed.token(user);
    let identity = world.auth.verify(&token).await.unwrap();
    let mut revoked = world.auth.revoked();
    let (user_id, session_id) = (user.to_string(), String::new());
    world.core.revoke(v1::Revocation { user_id, session_id, revoked_at_us: now_micros() });
    let seen = tokio::time::timeout(Duration::from_secs(1), revoked.recv()).await.unwrap().unwrap();
    assert_eq!(seen.user_id, Some(user));
    assert!(world.auth.is_revoked(&identity));
    assert_eq!(code(&world.auth, &token).await, "token_revoked");
    assert_eq!(code(&world.auth, &world.ed.token(Uuid::now_v7())).await, "ok", "nobody else is concerned");
}

#[tokio::test]
async fn a_revocation_that_cannot_be_read_makes_the_server_read_all_of_them_again() {
    let (world, user) = (world().await, Uuid::now_v7());
    let token = world.ed.token(user);
    assert_eq!(code(&world.auth, &token).await, "ok");
    let mut revoked = world.auth.revoked();
    let broken = v1::Revocation { user_id: "everybody".into(), ..Default::default() };
    let of_user =
        v1::Revocation { user_id: user.to_string(), revoked_at_us: now_micros(), ..Default::default() };
    // The broken one stands before the other one there, too.
    world.core.set_revocations(vec![broken.clone(), of_user]);
    world.core.revoke(broken);
    let seen = tokio::time::timeout(Duration::from_secs(10), revoked.recv()).await.unwrap().unwrap();
    assert_eq!(seen.user_id, Some(user));
    assert_eq!(code(&world.auth, &token).await, "token_revoked");
    let later = Uuid::now_v7();
    let of_later =
        v1::Revocation { user_id: later.to_string(), revoked_at_us: now_micros(), ..Default::default() };
    world.core.revoke(of_later);
    let seen = tokio::time::timeout(Duration::from_secs(10), revoked.recv()).await.unwrap().unwrap();
    assert_eq!(seen.user_id, Some(later), "and the stream goes on");
}

#[tokio::test]
async fn a_core_whose_streams_fail_for_seconds_is_asked_instead_until_they_are_back() {
    let world = world().await;
    assert!(world.auth.is_followed());
    world.core.stop();
    world.core.refuse_streams(Some(tonic::Code::PermissionDenied));
    world.core.restart().await;
    let until = async |is_followed: bool| {
        let reached = async {
            while world.auth.is_followed() != is_followed {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("within seconds");
    };
    until(false).await;
    world.core.refuse_streams(None);
    until(true).await;
}

#[tokio::test]
async fn a_token_without_a_name_gets_it_from_the_core_unless_the_account_is_closed() {
    let (world, user) = (world().await, Uuid::now_v7());
    let mut claims = claims("imks", user);
    claims.as_object_mut().unwrap().remove("username");
    let token = world.ed.sign(&world.ed.header(), &claims);
    assert_eq!(code(&world.auth, &token).await, "unauthenticated", "no such user");
    let mut alice = v1::User { id: user.to_string(), username: "alice".into(), ..Default::default() };
    world.core.set_users(vec![alice.clone()]);
    assert_eq!(&*world.auth.verify(&token).await.unwrap().username, "alice");
    alice.deleted = true;
    world.core.set_users(vec![alice]);
    assert_eq!(code(&world.auth, &token).await, "unauthenticated");
}

#[tokio::test]
async fn a_refreshed_token_is_checked_by_the_core_and_its_silence_is_a_refusal() {
    let (world, user) = (world().await, Uuid::now_v7());
    let token = world.ed.token(user);
    let alice = v1::User { id: user.to_string(), username: "alice".into(), ..Default::default() };
    world.core.set_users(vec![alice]);
    assert!(world.auth.verify_remote(&token).await.is_ok());
    for mode in Mode::FAILURES {
        world.core.mode(mode);
        let error = world.auth.verify_remote(&token).await.unwrap_err();
        assert!(error.is_retryable(), "{mode:?}: {error}");
    }
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_token_get_the_same_answer() {
    let (world, user) = (world().await, Uuid::now_v7());
    let mut claims = claims("imks", user);
    claims.as_object_mut().unwrap().remove("username");
    let unknown = world.ed.sign(&world.ed.header(), &claims);
    let forged = Key::ed25519("ed").token(user);
    let (unknown, forged) = (world.auth.verify(&unknown).await, world.auth.verify(&forged).await);
    let (unknown, forged) = (unknown.unwrap_err(), forged.unwrap_err());
    assert_eq!((unknown.code(), unknown.client_message()), (forged.code(), forged.client_message()));
}

#[tokio::test]
async fn nothing_secret_is_in_what_debug_shows() {
    let (world, user) = (world().await, Uuid::now_v7());
    let token = world.ed.token(user);
    let shown = format!("{:?} {:?}", world.core.client(), world.auth.verify(&token).await.unwrap());
    assert!(!shown.contains(&token));
}

/// A claim, and a value of it that must not be taken for anything.
fn impossible_claims(user: Uuid, now: i64) -> Vec<(&'static str, Value)> {
    vec![
        ("exp", json!(null)),
        ("exp", json!("9999999999")),
        ("exp", json!(-1)),
        ("exp", json!(now as f64 + 60.5)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(now + 400 * 86_400)),
        ("exp", json!(9e99)),
        ("exp", json!([now + 60])),
        ("nbf", json!(now + 3_000)),
        ("nbf", json!("0")),
        ("nbf", json!(null)),
        ("nbf", json!(-5)),
        ("nbf", json!(0.5)),
        ("nbf", json!(u64::MAX)),
        ("iat", json!("0")),
        ("iat", json!(null)),
        ("iss", json!("other")),
        ("iss", json!(["imks"])),
        ("iss", json!(null)),
        ("iss", json!("")),
        ("aud", json!("other")),
        ("aud", json!([])),
        ("aud", json!(["other"])),
        ("aud", json!({"imks": true})),
        ("aud", json!(["imks", 7])),
        ("aud", json!(null)),
        ("sub", json!("")),
        ("sub", json!("alice")),
        ("sub", json!(7)),
        ("sub", json!(null)),
        ("sub", json!(user.simple().to_string())),
        ("sid", json!("session")),
        ("sid", json!(null)),
        ("username", json!(["alice"])),
        ("username", json!("")),
        ("username", json!("a".repeat(5_000))),
    ]
}

fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        base64_url(header.to_string().as_bytes()),
        base64_url(claims.to_string().as_bytes())
    );
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn pem(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}
