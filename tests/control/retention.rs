//! Retention and legal holds, as back ends order them and clients see them.

use std::time::Duration;

use imks::testing::clock::{self, Micros};
use imks::testing::config::Config;
use imks::testing::models::db::Db;
use imks::testing::models::message_id;
use imks::testing::pb::control::{ListLegalHoldsRequest, PurgeChannelRequest, SetLegalHoldRequest};
use serde_json::{Value, json};
use tonic::Code;
use uuid::Uuid;

use super::backend::Backend;
use super::server::{Kind, first_channel, text};

const DAY: Micros = 24 * 3_600 * 1_000_000;

/// Makes a message as old as that.
async fn age(backend: &Backend, message: &Value, by: Micros) {
    let at = clock::now_micros() - by;
    let (id, seq) =
        (Uuid::parse_str(message["id"].as_str().unwrap()).unwrap(), message["seq"].as_i64().unwrap());
    let old = message_id::new(at / 1_000, seq, 0);
    let sql = "UPDATE message SET id = $1, created_at = $2 WHERE id = $3";
    match &backend.db().await {
        Db::Postgres(pool) => _ = sqlx::query(sql).bind(old).bind(at).bind(id).execute(pool).await.unwrap(),
        Db::Sqlite(db) => _ = sqlx::query(sql).bind(old).bind(at).bind(id).execute(&db.writer).await.unwrap(),
    }
}

fn often(config: &mut Config) {
    config.messaging.retention.every = Duration::from_millis(50);
}

async fn rules(kind: Kind) {
    let backend = Backend::start_with(kind, often).await;
    let mut alice = backend.client("alice").await;
    let channel = first_channel(&alice);
    let mut sent = Vec::new();
    for body in ["one", "two", "three"] {
        sent.push(
            alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await["message"].clone(),
        );
    }
    age(&backend, &sent[0], 3 * DAY).await;
    age(&backend, &sent[1], 2 * DAY).await;
    let days = |days: u32| json!({ "retention_days": days });
    backend.post(&format!("/channels/{channel}/policy"), days(30)).await;
    backend.post(&format!("/channels/{channel}/policy"), days(1)).await;
    let told = alice.expect("channel:horizon").await;
    assert_eq!((&told["channel_id"], &told["horizon_seq"]), (&json!(channel), &json!(2)));
    let page = alice.ok("history", json!({ "channel_id": channel })).await;
    assert_eq!((page["messages"].as_array().unwrap().len(), &page["has_more_before"]), (1, &json!(false)));
    let cursors = json!({ "channels": [{ "channel_id": channel, "seq": 1, "rev": 0 }] });
    let missed = alice.ok("sync", cursors).await["channels"][0].clone();
    assert_eq!((&missed["horizon_seq"], &missed["horizon_id"]), (&json!(2), &told["horizon_id"]));
    assert_eq!((&missed["seq_range"], &missed["truncated"]), (&json!([3, 3]), &json!(false)));
    let bob = backend.client("bob").await;
    assert_eq!(bob.ready["channels"][0]["horizon_seq"], 2);
    drop((alice, bob));
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_older_than_their_channel_keeps_them_go_and_clients_are_told_on_sqlite() {
    rules(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_older_than_their_channel_keeps_them_go_and_clients_are_told_on_postgres() {
    rules(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_default_is_for_channels_without_a_rule_of_their_own() {
    let backend = Backend::start_with(Kind::Sqlite, |config| {
        often(config);
        config.messaging.retention.messages = Duration::from_hours(48);
    })
    .await;
    let kept = backend.channel("kept", &["alice"]).await;
    backend.post(&format!("/channels/{kept}/policy"), json!({ "retention_days": 300 })).await;
    let mut alice = backend.client("alice").await;
    let ready = alice.ready["channels"].as_array().unwrap().clone();
    let general = ready.iter().map(|it| text(&it["channel_id"])).find(|id| *id != kept).unwrap();
    for channel in [&kept, &general] {
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "old" })).await;
        age(&backend, &sent["message"], 3 * DAY).await;
    }
    assert_eq!(alice.expect("channel:horizon").await["channel_id"], json!(general));
    let page = alice.ok("history", json!({ "channel_id": kept })).await;
    assert_eq!(page["messages"][0]["body"], "old");
    drop(alice);
    backend.stop().await;
}

crate::on_both! {
    async fn a_hold_refuses_purges_and_says_why_until_it_is_released(backend: Backend) {
        let mut alice = backend.client("alice").await;
        let (user, channel) = (text(&alice.ready["user"]["id"]), first_channel(&alice));
        alice.ok("message:send", json!({ "channel_id": channel, "body": "evidence" })).await;
        let moderator = backend.key("moderator", "read,publish,moderate,users,tokens").await;
        let hold = json!({ "channel_id": channel, "reason": "case 7" });
        let refused = backend.post_as(&moderator, "/legal-holds", &[], hold.clone()).await;
        assert_eq!((refused.status, &refused.body["error"]["details"]["permission"]), (403, &json!("compliance")));
        let set = backend.post("/legal-holds", hold).await.body["data"]["hold"].clone();
        assert_eq!((&set["reason"], &set["set_by"], &set["user_id"]), (&json!("case 7"), &json!("backend"), &json!("")));
        let purge = format!("/channels/{channel}/purge");
        let erase = (format!("/users/{user}/purge"), json!({ "mode": "erase" }));
        for (path, body) in [(&purge, json!({})), (&erase.0, erase.1)] {
            let refused = backend.post_as(&moderator, path, &[], body).await;
            assert_eq!((refused.status, &refused.body["error"]["code"]), (422, &json!("failed_precondition")));
            assert!(refused.body["error"]["message"].as_str().unwrap().contains("legal hold"), "{}", refused.body);
        }
        let mut grpc = backend.grpc().await;
        let request = PurgeChannelRequest { channel_id: channel.clone(), ..PurgeChannelRequest::default() };
        assert_eq!(grpc.purge_channel(request).await.unwrap_err().code(), Code::FailedPrecondition);
        let on_user = SetLegalHoldRequest { user_id: user.clone(), ..SetLegalHoldRequest::default() };
        grpc.set_legal_hold(on_user).await.unwrap();
        let holds = grpc.list_legal_holds(ListLegalHoldsRequest::default()).await.unwrap().into_inner().holds;
        assert_eq!((holds.len(), holds[0].channel_id.as_str(), holds[1].user_id.as_str()), (2, channel.as_str(), user.as_str()));
        for target in [json!({ "channel_id": channel }), json!({ "user_id": user })] {
            let released = backend.post("/legal-holds/release", target).await;
            assert_eq!(released.body["data"], json!({ "released": true }));
        }
        assert_eq!(backend.get("/legal-holds").await.body["data"]["holds"], json!([]));
        let past = backend.get("/legal-holds?released=true&limit=1").await.body["data"]["holds"].clone();
        assert_eq!((&past[0]["id"], &past[0]["released_by"], &past[1]), (&set["id"], &json!("backend"), &json!(null)));
        let unclear = backend.post("/legal-holds", json!({ "channel_id": channel, "user_id": user })).await;
        assert_eq!((unclear.status, &unclear.body["error"]["details"]["field"]), (400, &json!("channel_id")));
        assert_eq!(backend.post(&purge, json!({})).await.body["data"]["purged"], 1);
    }

    async fn who_was_taken_out_stands_in_a_list_and_clients_are_told(backend: Backend) {
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let (user, channel) = (text(&alice.ready["user"]["id"]), first_channel(&alice));
        alice.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        bob.expect("message:new").await;
        let order = json!({ "mode": "anonymise", "reason": "request 12", "request_id": "r-12" });
        let path = format!("/users/{user}/purge");
        for _ in 0..2 {
            let answer = backend.post(&path, order.clone()).await;
            assert_eq!(answer.body["data"], json!({ "purged": 1, "remaining": false }));
        }
        let updated = bob.expect("message:updated").await;
        assert_eq!((&updated["kind"], &updated["body"]), (&json!("author"), &json!("hello")));
        assert_eq!(updated["author"]["username"], "deleted user");
        let purges = backend.get("/purges").await.body["data"]["purges"].clone();
        let purge = &purges[0];
        assert_eq!((&purge["kind"], &purge["user_id"], &purge["channel_id"]), (&json!("anonymise"), &json!(user), &json!("")));
        assert_eq!((&purge["reason"], &purge["requested_by"], &purge["purged"]), (&json!("request 12"), &json!("backend"), &json!(1)));
        assert!(purge["finished_us"].as_i64() >= purge["requested_us"].as_i64() && purges[1].is_null());
        let next = backend.get(&format!("/purges?before={}", text(&purge["id"]))).await;
        assert_eq!(next.body["data"]["purges"], json!([]));
        let history = backend.get(&format!("/channels/{channel}/messages")).await.body;
        assert!(!history.to_string().contains(&user), "{history}");
    }
}
