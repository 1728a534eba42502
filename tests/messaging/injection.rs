//! What is code to a database, to JavaScript, to a log or to a file system is text here, wherever it is sent.

use imks::testing::directory::RoleName;
use serde_json::{Value, json};

use crate::client::TestClient;
use crate::http::get;
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel, text};
use crate::walk::{EVENTS, fill, place};

const HOSTILE: [&str; 8] = [
    "'; DROP TABLE message; --",
    "' OR '1'='1",
    "\\'; SELECT pg_sleep(9); --",
    "100% _ \\ a:* & !b | (c)",
    "$1 ?1 :a {} %s %n",
    "../../etc/passwd",
    "</script><script>\u{202e}\u{1b}[2J\r\nINFO forged",
    "__proto__",
];

/// Where the texts of a payload are, as JSON pointers.
fn texts(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, item)| texts(item, &format!("{at}/{place}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| texts(field, &format!("{at}/{name}"), found));
        }
        _ => {}
    }
}

/// Whether the request was carried out, or refused because of what it says.
fn is_judged(answer: &Value) -> bool {
    let faults = ["internal", "unavailable", "timeout", "overloaded"];
    answer["ok"] == true || !faults.contains(&answer["error"]["code"].as_str().unwrap())
}

on_both! {
    async fn what_is_code_elsewhere_is_text_in_every_field_of_every_event(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        server.directory().add_member("club", "bob", RoleName::Owner).await.unwrap();
        let mut bob = server.client("bob").await;
        let ids = place(&server, &mut bob, &channel).await;
        let token = server.token("bob").await;
        for (event, template, _) in EVENTS {
            let payload = fill(template, &ids, &token);
            let mut places = Vec::new();
            texts(&payload, "", &mut places);
            for (place, hostile) in places.iter().flat_map(|place| HOSTILE.map(|hostile| (place, hostile))) {
                let mut payload = payload.clone();
                *payload.pointer_mut(place).unwrap() = json!(hostile);
                let answer = bob.call(event, payload).await;
                assert!(is_judged(&answer), "{event} with {hostile:?} at {place}: {answer}");
            }
            for place in &places {
                let mut payload = payload.clone();
                *payload.pointer_mut(place).unwrap() = json!("a\u{0}b");
                let answer = bob.call(event, payload).await;
                assert!(is_judged(&answer), "{event} with NUL at {place}: {answer}");
            }
        }
        // Nothing was dropped, and nobody reads more than before.
        let page = bob.ok("message:get", json!({ "channel_id": channel, "message_ids": [ids["asked_id"]] })).await;
        assert_eq!(page["messages"][0]["body"], "read this");
        let mut carol = server.client("carol").await;
        let refused = carol.refused("history", json!({ "channel_id": channel })).await;
        assert_eq!(refused["code"], "not_found");
    }

    async fn what_is_code_elsewhere_comes_back_as_it_was_sent(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        for hostile in HOSTILE {
            let poll = json!({ "question": hostile, "options": [hostile, "other"] });
            let message = json!({
                "channel_id": channel, "body": hostile, "nonce": hostile.replace(char::is_control, " "), "poll": poll, "__proto__": { "body": "x" },
            });
            let sent = alice.ok("message:send", message.clone()).await;
            assert_eq!(alice.ok("message:send", message).await["message"]["id"], sent["message"]["id"]);
            let id = text(&sent["message"]["id"]);
            let read = alice.ok("message:get", json!({ "channel_id": channel, "message_ids": [id] })).await;
            let read = &read["messages"][0];
            assert_eq!(read["body"], hostile);
            let poll = &read["poll"];
            assert_eq!((&poll["question"], &poll["options"][0]["text"]), (&json!(hostile), &json!(hostile)));
            let data = json!({ "__proto__": { "admin": hostile }, "constructor": hostile, hostile: [hostile] });
            let signal = json!({ "channel_id": channel, "to": bob.ready["user"]["id"], "data": data });
            alice.ok("call:signal", signal).await;
            assert_eq!(bob.expect("call:incoming").await["data"], data);
            alice.ok("draft:set", json!({ "channel_id": channel, "body": hostile })).await;
            assert_eq!(alice.ok("draft:list", json!({})).await["drafts"][0]["body"], hostile);
            let saved = json!({ "channel_id": channel, "message_id": id, "note": hostile });
            alice.ok("bookmark:add", saved).await;
            let listed = alice.ok("bookmark:list", json!({ "limit": 1 })).await;
            assert_eq!(listed["bookmarks"][0]["note"], hostile);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_clients_make_up_are_no_events_no_namespaces_and_no_labels() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    // Queries have series from their first time on, and some come in the background.
    let of_names =
        |text: &str| text.lines().filter(|line| !line.starts_with("imks_database_query_seconds")).count();
    let series = async || of_names(&get(server.addr(), "/metrics").await.1);
    assert_eq!(alice.refused("no such event", json!({})).await["code"], "unknown_event");
    let mut other = TestClient::open(server.addr()).await;
    assert_eq!(other.join_at("/nowhere,", json!({})).await.unwrap_err()["message"], "Invalid namespace");
    let before = series().await;
    for name in ["__proto__", "constructor", "toString", "error", "x\"} 1\nimks_forged{a=\"", "\u{1b}[2J"] {
        for number in 0..10 {
            let answer = alice.refused(&format!("{name}{number}"), json!({})).await;
            assert_eq!(answer["code"], "unknown_event", "{name:?}");
        }
    }
    for namespace in ["/__proto__,", "/constructor,", "/a*.>,"] {
        let mut other = TestClient::open(server.addr()).await;
        let refused = other.join_at(namespace, json!({})).await.unwrap_err();
        assert_eq!(refused["message"], "Invalid namespace", "{namespace}");
    }
    let after = get(server.addr(), "/metrics").await.1;
    assert_eq!((of_names(&after), after.contains("forged")), (before, false));
    server.stop().await;
}
