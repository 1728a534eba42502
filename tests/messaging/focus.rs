//! Clients that do not look at their channels: digests, channels in view, and coming back without a loss.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use imks::testing::directory::RoleName;
use serde_json::{Value, json};

use crate::client::TestClient;
use crate::on_both;
use crate::server::{Kind, TestServer, text};
use crate::walk::Documents;

/// A client that connects with `mode: "light"`.
async fn light(server: &TestServer, name: &str) -> TestClient {
    let token = server.token(name).await;
    let mut client = TestClient::open(server.addr()).await;
    client.join(json!({ "token": token, "mode": "light" })).await.unwrap();
    client.ready = client.expect("session:ready").await;
    client
}

/// The channels of a digest, by id.
fn digest(payload: &Value) -> BTreeMap<String, Value> {
    let channels = payload["channels"].as_array().unwrap().iter();
    channels.map(|channel| (text(&channel["channel_id"]), channel.clone())).collect()
}

/// Everything until a digest says this of a channel: the events before it, and how many digests there were.
async fn until(client: &mut TestClient, channel: &str, last_seq: i64) -> (Vec<(String, Value)>, Value) {
    let mut before = Vec::new();
    loop {
        let (name, payload) = client.event().await;
        if name == "channel:activity"
            && let Some(state) = digest(&payload).get(channel)
            && state["last_seq"] == last_seq
        {
            return (before, state.clone());
        }
        before.push((name, payload));
    }
}

async fn send(client: &mut TestClient, channel: &str, body: &str) -> Value {
    client.ok("message:send", json!({ "channel_id": channel, "body": body })).await["message"].take()
}

async fn focus(client: &mut TestClient, channels: &[&str]) -> Vec<Value> {
    let answer = client.ok("channel:focus", json!({ "channel_ids": channels })).await;
    answer["channels"].as_array().unwrap().clone()
}

fn names(events: &[(String, Value)]) -> BTreeSet<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

/// The names of events about a channel.
fn names_of<'a>(events: &'a [(String, Value)], channel: &str) -> BTreeSet<&'a str> {
    events.iter().filter(|(_, it)| it["channel_id"] == channel).map(|(name, _)| name.as_str()).collect()
}

on_both! {
    async fn who_looks_at_nothing_gets_a_digest_for_many_messages_and_mentions_at_once(server: TestServer) {
        let club = server.channel("club", &["alice", "bob"]).await;
        let lab = server.channel("lab", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, light(&server, "bob").await);
        assert_eq!((&alice.ready["mode"], &bob.ready["mode"]), (&json!("full"), &json!("light")));
        let started = Instant::now();
        for number in 0..8 {
            send(&mut alice, &club, &number.to_string()).await;
        }
        let last = send(&mut alice, &lab, "hi").await;
        let (before, state) = until(&mut bob, &lab, 1).await;
        assert_eq!((&state["rev"], &state["last_message_id"]), (&json!(0), &last["id"]));
        assert!(!names(&before).contains("message:new"), "{before:?}");
        let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
        let digests = before.iter().filter(|(name, _)| name == "channel:activity").count();
        assert!(digests <= seconds + 1, "one digest a second: {before:?}");
        let documents = Documents::read(&server).await;
        before.iter().for_each(|(name, payload)| documents.check(name, payload));

        let mention = json!({ "channel_id": club, "body": "@bob", "mentions": { "users": [bob.ready["user"]["id"]] } });
        alice.ok("message:send", mention).await;
        assert_eq!(bob.expect("mention:new").await["seq"], 9);
        alice.ok("reaction:add", json!({ "channel_id": lab, "message_id": last["id"], "emoji": "👍" })).await;
        let mut seen = until(&mut bob, &lab, 1).await.1;
        while seen["rev"] != 1 {
            seen = until(&mut bob, &lab, 1).await.1;
        }
        assert_eq!(seen.get("last_message_id"), None, "there is no new message");
        let news = alice.events_so_far().await;
        assert_eq!(news.iter().filter(|(name, _)| name == "message:new").count(), 10, "who is not light gets all");
    }

    async fn what_is_in_view_comes_whole_and_the_rest_as_digests(server: TestServer) {
        let club = server.channel("club", &["alice", "bob"]).await;
        let lab = server.channel("lab", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let in_view = focus(&mut bob, &[&club]).await;
        assert_eq!((in_view.len(), &in_view[0]["ok"], &in_view[0]["last_seq"]), (1, &json!(true), &json!(0)));
        for channel in [&lab, &club] {
            alice.ok("typing:start", json!({ "channel_id": channel })).await;
            let message = send(&mut alice, channel, "hello").await;
            let thumb = json!({ "channel_id": channel, "message_id": message["id"], "emoji": "👍" });
            alice.ok("reaction:add", thumb).await;
        }
        let (mut seen, _) = until(&mut bob, &lab, 1).await;
        while !names_of(&seen, &club).contains("reaction:updated") {
            seen.push(bob.event().await);
        }
        assert_eq!(names_of(&seen, &lab), BTreeSet::new(), "{seen:?}");
        assert_eq!(names_of(&seen, &club), ["typing", "message:new", "reaction:updated"].into());
        let listed = bob.ok("presence:list", json!({ "channel_id": lab })).await;
        let (me, people) = (&bob.ready["user"]["id"], listed["presences"].as_array().unwrap());
        assert!(people.iter().any(|it| it["user_id"] == *me), "who does not look is online all the same: {listed}");

        assert_eq!(focus(&mut bob, &[]).await, [json!(null); 0]);
        send(&mut alice, &club, "again").await;
        let (seen, state) = until(&mut bob, &club, 2).await;
        assert_eq!((names_of(&seen, &club), &state["rev"]), (BTreeSet::new(), &json!(1)));
        let many = json!({ "channel_ids": vec![club.clone(); 51] });
        assert_eq!(bob.refused("channel:focus", many).await["details"]["field"], "channel_ids");
    }

    async fn who_comes_back_to_a_channel_loses_nothing(server: TestServer) {
        let club = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, light(&server, "bob").await);
        let (mut sent, mut asked) = (Vec::new(), Vec::new());
        for number in 0..7 {
            sent.push(alice.ask("message:send", json!({ "channel_id": club, "body": number.to_string() })).await);
            let view = if number % 2 == 0 { vec![&club] } else { vec![] };
            asked.push(bob.ask("channel:focus", json!({ "channel_ids": view })).await);
        }
        for id in asked {
            assert_eq!(bob.answer(id).await["ok"], true);
        }
        bob.ok("channel:focus", json!({ "channel_ids": [] })).await;
        let head = focus(&mut bob, &[&club]).await[0]["last_seq"].as_i64().unwrap();
        for id in sent {
            assert_eq!(alice.answer(id).await["ok"], true);
        }
        for body in ["a", "b", "c"] {
            send(&mut alice, &club, body).await;
        }
        let mut seen = BTreeSet::new();
        while !seen.contains(&10) {
            seen.insert(bob.expect("message:new").await["seq"].as_i64().unwrap());
        }
        assert!((head + 1..=10).all(|seq| seen.contains(&seq)), "after {head}: {seen:?}");
        let cursor = json!({ "channels": [{ "channel_id": club, "seq": 0, "rev": 0 }] });
        let synced = bob.ok("sync", cursor).await;
        let synced = synced["channels"][0]["messages"].as_array().unwrap().iter().map(|it| it["seq"].as_i64().unwrap());
        assert!(synced.take(usize::try_from(head).unwrap()).eq(1..=head), "sync has what was before");
    }

    async fn who_is_removed_gets_no_digests_and_who_joins_gets_them(server: TestServer) {
        let club = server.channel("club", &["alice", "bob"]).await;
        let lab = server.channel("lab", &["alice"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, light(&server, "bob").await);
        server.directory().remove_member("club", "bob").await.unwrap();
        assert_eq!(bob.expect("channel:left").await["channel_id"], json!(club));
        server.directory().add_member("lab", "bob", RoleName::default()).await.unwrap();
        assert_eq!(bob.expect("channel:joined").await["channel_id"], json!(lab));
        let refused = focus(&mut bob, &[&club]).await;
        assert_eq!((&refused[0]["ok"], &refused[0]["error"]["code"]), (&json!(false), &json!("not_found")));
        send(&mut alice, &club, "is he gone?").await;
        focus(&mut bob, &[]).await;
        send(&mut alice, &club, "yes").await;
        send(&mut alice, &lab, "welcome").await;
        let (mut seen, state) = until(&mut bob, &lab, 1).await;
        seen.push(("channel:activity".to_owned(), json!({ "channels": [state] })));
        assert!(!json!(seen).to_string().contains(&club), "{seen:?}");
        bob.ok("channel:unsubscribe", json!({ "channel_ids": [lab] })).await;
        send(&mut alice, &lab, "are you there?").await;
        let again = bob.ok("channel:subscribe", json!({ "channel_ids": [lab] })).await;
        assert_eq!(again["channels"][0]["last_seq"], 2);
        send(&mut alice, &lab, "here you are").await;
        let (seen, _) = until(&mut bob, &lab, 3).await;
        assert_eq!(seen, [], "nothing comes while unsubscribed, and a subscription is light again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_digests_comes_back_to_a_digest_until_it_has_looked_at_something() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (mut alice, token) = (server.client("alice").await, server.token("bob").await);
    let mut bob = light(&server, "bob").await;
    let channel = crate::server::first_channel(&bob);
    let back = async |before: &TestClient, mode: &str| {
        let mut client = TestClient::open(server.addr()).await;
        let auth = json!({ "token": token, "pid": before.pid, "offset": before.offset, "mode": mode });
        client.join(auth).await.unwrap();
        client.ready = client.expect("session:ready").await;
        assert_eq!(
            (&client.ready["resumed"], &client.ready["mode"]),
            (&json!(client.pid == before.pid), &json!(mode))
        );
        client
    };
    for round in 1..4 {
        let sent = send(&mut alice, &channel, "hi").await;
        let again = back(&bob, "light").await;
        assert_eq!((&again.pid, &again.ready["channels"]), (&bob.pid, &json!([])), "round {round}");
        bob = again;
        let (name, told) = bob.event().await;
        let expected =
            json!({ "channel_id": channel, "last_seq": round, "rev": 0, "last_message_id": sent["id"] });
        assert_eq!((name.as_str(), &told["channels"]), ("channel:activity", &json!([expected])));
    }
    let other = back(&bob, "full").await;
    assert_ne!(other.pid, bob.pid, "everything is more than digests");
    focus(&mut bob, &[&channel]).await;
    let new = back(&bob, "light").await;
    assert_ne!(new.pid, bob.pid);
    server.stop().await;
}
