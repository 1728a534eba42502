//! The directory as an API with JSON in and JSON out.

use imks::testing::control::api::{Head, Peer};
use imks::testing::control::directory::{DirectoryApi, operations};
use imks::testing::control::{Config, Gate};
use imks::testing::directory::Directory;
use imks::testing::messaging::api::{Call, Method};
use imks::testing::models::db::Db;
use imks::testing::pb::v1::SignInRequest;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{on_each, world};

/// The calls, for callers without a key.
fn api(directory: &Directory, db: &Db) -> DirectoryApi {
    let config = Config { allow_anonymous: true, ..Config::default() };
    DirectoryApi::new(Gate::new(&config, db), Some(directory.clone()))
}

/// The data of the answer, or the error.
async fn call(api: &DirectoryApi, method: Method, noun: &str, fields: Value) -> Value {
    let path = format!("/{noun}");
    let operation = operations().iter().find(|it| (it.method, it.path) == (method, &*path)).unwrap();
    let peer = Peer { is_internal: true, ..Peer::default() };
    let head = Head { authorization: Ok(None), peer, is_page: false };
    let answer = api.answer(operation, head, async { Ok(request(method, &fields)) }).await;
    let mut answer: Value = serde_json::from_slice(&answer.body).unwrap();
    if answer["ok"] == true { answer["data"].take() } else { answer["error"].take() }
}

fn request(method: Method, fields: &Value) -> Call {
    let idempotency_key = Some("retry".to_owned());
    if method.has_body() {
        return Call { idempotency_key, body: fields.to_string().into(), ..Call::default() };
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = fields.as_object().unwrap().iter().map(|(name, value)| (name, text(value)));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    Call { idempotency_key, query: Some(query), ..Call::default() }
}

#[tokio::test]
async fn a_team_is_made_with_json_and_a_repeated_request_changes_nothing() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let api = &api(&world.directory, &db);
        for round in 0..2 {
            for (noun, fields) in [
                ("workspaces", json!({ "name": "acme" })),
                ("users", json!({ "name": "alice" })),
                ("users", json!({ "name": "robot", "bot": true })),
                ("channels", json!({ "name": "acme/team", "kind": "private", "slow_mode_s": 3 })),
                ("channels", json!({ "users": ["alice", "robot"] })),
                ("roles", json!({ "workspace": "acme", "name": "pinner", "permissions": ["PIN_MESSAGES"] })),
                ("members", json!({ "place": "acme/", "user": "alice" })),
                ("members", json!({ "place": "acme/team", "user": "alice", "roles": ["member", "pinner"] })),
                ("overrides", json!({ "channel": "acme/team", "role": "pinner", "deny": ["PIN_MESSAGES"] })),
                ("bans", json!({ "place": "acme/", "user": "robot", "reason": "loops", "ends_at": "2100-01-01T00:00:00Z" })),
            ] {
                let answer = call(api, Method::Put, noun, fields).await;
                assert!(answer.get("code").is_none(), "{round} {noun}: {answer}");
            }
            call(api, Method::Post, "tokens", json!({ "user": "alice" })).await;
        }
        let list = async |noun: &str, fields: Value, name: &str| {
            call(api, Method::Get, noun, fields).await[name].as_array().unwrap().clone()
        };
        assert_eq!(list("users", json!({}), "users").await.len(), 2);
        let channels = list("channels", json!({ "workspace": "acme" }), "channels").await;
        assert_eq!((channels.len(), &channels[0]["kind"], &channels[0]["slow_mode_s"]), (1, &json!("private"), &json!(3)));
        let members = list("members", json!({ "place": "acme/team" }), "members").await;
        assert_eq!((members.len(), members[0]["roles"].as_array().unwrap().len()), (1, 3));
        let overrides = list("overrides", json!({ "channel": "acme/team" }), "overrides").await;
        assert_eq!(overrides[0]["deny"], json!(["PIN_MESSAGES"]));
        let bans = list("bans", json!({ "place": "acme/" }), "bans").await;
        assert_eq!((bans.len(), &bans[0]["ends_at"]), (1, &json!("2100-01-01T00:00:00.000Z")));
        assert_eq!(list("tokens", json!({ "user": "alice" }), "sessions").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_in_a_request_is_told_with_its_field() {
    let asked = on_each(|db| async move {
        let world = world(db.clone()).await;
        let api = &api(&world.directory, &db);
        for (noun, fields, code, part) in [
            ("users", json!({}), "invalid_payload", "name"),
            ("users", json!({ "name": "a b" }), "invalid_input", "a b"),
            ("users", json!({ "name": "alice", "bot": "yes" }), "invalid_payload", "bot"),
            ("channels", json!({ "kind": "public" }), "invalid_payload", "name"),
            ("channels", json!({ "name": "team", "kind": "secret" }), "invalid_payload", "kind"),
            ("members", json!({ "place": "nowhere", "user": "alice" }), "not_found", ""),
            ("roles", json!({ "name": "king", "permissions": ["FLY"] }), "invalid_input", "FLY"),
            (
                "bans",
                json!({ "place": "main/", "user": "alice", "ends_at": "soon" }),
                "invalid_input",
                "ends_at",
            ),
            ("users", json!({ "name": "a\0b" }), "invalid_input", "U+0000"),
            ("import", json!({ "user": [{ "name": "a\0b" }] }), "invalid_input", "U+0000"),
            (
                "channels",
                json!({ "name": "team", "retention_days": 99_999 }),
                "invalid_input",
                "retention_days",
            ),
            ("channels", json!({ "name": "team", "slow_mode_s": 99_999 }), "invalid_input", "slow_mode_s"),
            ("overrides", json!({ "channel": "team" }), "invalid_payload", "role or user"),
        ] {
            let answer = call(api, Method::Put, noun, fields).await;
            assert_eq!(answer["code"], code, "{noun}: {answer}");
            assert!(answer["message"].as_str().unwrap().contains(part), "{noun}: {answer}");
        }
        for (noun, fields, field) in [
            ("webhooks", json!({ "channel": "dev", "name": "ci", "avatar": "ftp://x" }), "avatar"),
            ("emoji", json!({ "name": "ship", "picture": "ftp://x" }), "picture"),
        ] {
            call(api, Method::Put, "channels", json!({ "name": "dev" })).await;
            let answer = call(api, Method::Post, noun, fields).await;
            assert_eq!(answer["details"]["field"], field, "{answer}");
        }
        for operation in operations() {
            let noun = operation.path.trim_start_matches('/');
            let answer = call(api, operation.method, noun, json!({ "surprise": true })).await;
            let message = answer["message"].as_str().unwrap();
            assert!(message.starts_with("surprise: is no field here"), "{noun}: {message}");
            assert_eq!(answer["code"], "invalid_payload", "{noun}");
        }
    });
    Box::pin(asked).await;
}

#[tokio::test]
async fn a_refused_request_leaves_nothing_behind() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let api = &api(&world.directory, &db);
        for setting in ["slow_mode_s", "retention_days"] {
            let answer = call(api, Method::Put, "channels", json!({ "name": "team", setting: 99_999 })).await;
            assert_eq!(answer["details"]["field"], setting, "{answer}");
        }
        let channels = call(api, Method::Get, "channels", json!({})).await["channels"].clone();
        assert!(channels.as_array().unwrap().iter().all(|it| it["name"] != "team"), "{channels}");

        call(api, Method::Put, "workspaces", json!({ "name": "acme" })).await;
        call(api, Method::Put, "users", json!({ "name": "alice" })).await;
        for (setting, value) in [("notify_level", "none"), ("muted_until", "never")] {
            let fields = json!({ "place": "acme/", "user": "alice", setting: value });
            let answer = call(api, Method::Put, "members", fields).await;
            assert_eq!(answer["details"]["field"], "place", "{answer}");
        }
        let members = call(api, Method::Get, "members", json!({ "place": "acme/" })).await;
        assert_eq!(members["members"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_user_of_a_login_is_made_before_they_sign_in_for_the_first_time() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let api = &api(&world.directory, &db);
        for issuer in ["", "https://id.example.com"] {
            let name = format!("alice{}", issuer.len());
            let fields = json!({ "name": name, "login": "auth0|1234", "issuer": issuer });
            let made = call(api, Method::Put, "users", fields.clone()).await;
            assert_eq!(call(api, Method::Put, "users", fields).await, made, "a repeat");
            let login = SignInRequest {
                user_id: SignInRequest::user_of(issuer, "auth0|1234").to_string(),
                username: name.clone(),
                ..SignInRequest::default()
            };
            let user = world.core.sign_in(login).await.unwrap().unwrap();
            assert_eq!((made["id"].as_str(), &*user.username), (Some(&*user.id.to_string()), &*name));
        }
        let taken = world.directory.create_user_of_login("bob", false, "", "auth0|1234").await.unwrap_err();
        assert_eq!(taken.code(), "conflict");
        for (fields, code) in [
            (json!({ "name": "bob", "login": "" }), "invalid_input"),
            (json!({ "name": "bob", "login": "2", "id": "bob" }), "invalid_payload"),
            (json!({ "name": "bob", "issuer": "https://id.example.com" }), "invalid_payload"),
        ] {
            assert_eq!(call(api, Method::Put, "users", fields).await["code"], code);
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_is_removed_once_and_one_that_never_was_is_not_found() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let api = &api(&world.directory, &db);
        call(api, Method::Put, "users", json!({ "name": "alice" })).await;
        let session = call(api, Method::Post, "tokens", json!({ "user": "alice" })).await;
        let fields = json!({ "session": session["session_id"] });
        assert_eq!(call(api, Method::Delete, "tokens", fields.clone()).await, json!({}));
        for fields in [fields, json!({ "session": Uuid::now_v7() }), json!({ "session": "x" })] {
            assert_eq!(call(api, Method::Delete, "tokens", fields).await["code"], "not_found");
        }
    })
    .await;
}

#[tokio::test]
async fn keys_are_replaced_and_declared_void_with_json_and_a_channel_is_muted_until_somebody_says_never() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let api = &api(&world.directory, &db);
        let keys = async || call(api, Method::Get, "signing-keys", json!({})).await["keys"].clone();
        let first = keys().await[0].clone();
        let second = call(api, Method::Post, "signing-keys", json!({})).await;
        assert_eq!((second["not_after"].is_null(), &keys().await[0]), (true, &second));
        assert_ne!(first["kid"], second["kid"]);
        call(api, Method::Delete, "signing-keys", json!({ "kid": first["kid"] })).await;
        assert_eq!(keys().await[1]["revoked"], true);
        let again = call(api, Method::Delete, "signing-keys", json!({ "kid": first["kid"] })).await;
        assert_eq!(again["code"], "not_found");

        let seed =
            json!({ "user": [{ "name": "alice" }], "channel": [{ "name": "team", "members": ["alice"] }] });
        let made = call(api, Method::Put, "import", seed.clone()).await;
        assert_eq!(made["memberships"], json!({ "made": 1, "there": 0 }));
        assert_eq!(call(api, Method::Put, "import", seed).await["users"], json!({ "made": 0, "there": 1 }));
        for (until, shown) in
            [("2100-01-01T00:00:00Z", json!("2100-01-01T00:00:00.000Z")), ("never", json!(null))]
        {
            let fields = json!({ "place": "team", "user": "alice", "muted_until": until });
            call(api, Method::Put, "members", fields).await;
            let members = call(api, Method::Get, "members", json!({ "place": "team" })).await;
            assert_eq!(members["members"][0]["muted_until"], shown);
        }
    })
    .await;
}

#[tokio::test]
async fn of_many_who_store_the_same_thing_at_once_all_get_the_one_that_was_made() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let api = &api(&world.directory, &db);
        for (noun, fields) in [
            ("users", json!({ "name": "alice" })),
            ("workspaces", json!({ "name": "acme" })),
            ("channels", json!({ "name": "acme/team" })),
            ("roles", json!({ "workspace": "acme", "name": "pinner", "permissions": ["PIN_MESSAGES"] })),
        ] {
            let all = (0..10).map(|_| call(api, Method::Put, noun, fields.clone()));
            let ids: Vec<Value> = futures_util::future::join_all(all)
                .await
                .into_iter()
                .map(|answer| answer["id"].clone())
                .collect();
            assert!(ids[0].is_string() && ids.iter().all(|id| *id == ids[0]), "{noun}: {ids:?}");
        }
    })
    .await;
}
