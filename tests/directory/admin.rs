//! The directory as an API with JSON in and JSON out.

use imks::testing::directory::Directory;
use imks::testing::directory::admin::{NOUNS, Request, Verb};
use serde_json::{Value, json};

use super::{on_each, world};

async fn call(directory: &Directory, verb: Verb, noun: &str, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("not an object") };
    match directory.administer(noun, Request { verb, fields, key: Some("retry".into()) }).await {
        Ok(data) => data,
        Err(error) => json!({ "code": error.code(), "message": error.client_message() }),
    }
}

#[tokio::test]
async fn a_team_is_made_with_json_and_a_repeated_request_changes_nothing() {
    on_each(|db| async {
        let directory = &world(db).await.directory;
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
                let answer = call(directory, Verb::Put, noun, fields).await;
                assert!(answer.get("code").is_none(), "{round} {noun}: {answer}");
            }
            call(directory, Verb::Post, "tokens", json!({ "user": "alice" })).await;
        }
        let list = async |noun: &str, fields: Value, name: &str| {
            call(directory, Verb::Get, noun, fields).await[name].as_array().unwrap().clone()
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
    on_each(|db| async {
        let directory = &world(db).await.directory;
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
                "soon",
            ),
            ("overrides", json!({ "channel": "team" }), "invalid_payload", "role or user"),
        ] {
            let answer = call(directory, Verb::Put, noun, fields).await;
            assert_eq!(answer["code"], code, "{noun}: {answer}");
            assert!(answer["message"].as_str().unwrap().contains(part), "{noun}: {answer}");
        }
        for (noun, verbs) in NOUNS {
            for verb in verbs {
                let answer = call(directory, *verb, noun, json!({ "surprise": true })).await;
                let is_list = *verb == Verb::Get && answer.get("code").is_none();
                assert!(answer["code"] == "invalid_payload" && !is_list, "{verb:?} {noun}: {answer}");
            }
        }
    })
    .await;
}
