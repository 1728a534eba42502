//! Mentions: who is told, what counts, and the inbox.

use std::time::Duration;

use imks::testing::clock::now_micros;
use imks::testing::directory::RoleName;
use imks::testing::pb::v1::Membership;
use imks::testing::pb::v1::membership::NotifyLevel;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api;
use crate::client::TestClient;
use crate::core::FakeCore;
use crate::on_both;
use crate::server::{Kind, TestServer, text};
use crate::token::Key;

/// The role `moderator` of the directory.
const MODERATORS: &str = "00000000-0000-7000-8000-000000000003";
const ALL_BITS: u64 = (1 << 13) - 1;

/// The name of everybody whom the directory knows, with their ids as they sign in.
async fn people(server: &TestServer, names: &[&str]) -> Vec<TestClient> {
    let mut clients = Vec::new();
    for name in names {
        clients.push(server.client(name).await);
    }
    clients
}

fn id(client: &TestClient) -> Value {
    client.ready["user"]["id"].clone()
}

/// The kinds of `mention:new` that came so far.
async fn told(client: &mut TestClient) -> Vec<String> {
    let events = client.events_so_far().await;
    events.into_iter().filter(|(name, _)| name == "mention:new").map(|(_, new)| text(&new["kind"])).collect()
}

/// What a fresh connection is told of the channel: unread messages, and those that mention the user.
async fn counts(server: &TestServer, name: &str, channel: &str) -> (i64, i64) {
    let client = server.client(name).await;
    let channels = client.ready["channels"].as_array().unwrap();
    let state = channels.iter().find(|state| state["channel_id"] == channel).unwrap();
    (state["unread_count"].as_i64().unwrap(), state["mention_count"].as_i64().unwrap())
}

async fn mention(client: &mut TestClient, channel: &str, mentions: Value) -> Value {
    let request = json!({ "channel_id": channel, "body": "you", "mentions": mentions });
    client.ok("message:send", request).await["message"].clone()
}

on_both! {
    async fn everybody_who_is_mentioned_is_told_why_and_counts_it(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob", "carol", "dave"]).await;
        server.directory().add_member("club", "alice", RoleName::Owner).await.unwrap();
        server.directory().add_member("club", "bob", RoleName::Moderator).await.unwrap();
        let mut all = people(&server, &["alice", "bob", "carol"]).await;
        let [alice, bob, carol] = &mut all[..] else { panic!() };
        let mut stranger = server.client("eve").await;
        let named = mention(alice, &channel, json!({"users": [id(carol), id(&stranger), id(alice)]})).await;
        let new = carol.expect("mention:new").await;
        assert_eq!(new, json!({"channel_id": channel, "message_id": named["id"], "seq": 1, "thread_id": null,
            "kind": "user", "author": named["author"]}));
        mention(alice, &channel, json!({"roles": [MODERATORS]})).await;
        mention(alice, &channel, json!({"here": true, "users": [id(carol)]})).await;
        mention(alice, &channel, json!({"channel": true, "here": true, "roles": [MODERATORS]})).await;
        mention(alice, &channel, json!({"channel": true, "users": [id(bob)]})).await;
        assert_eq!(told(bob).await, ["role", "here", "channel", "user"]);
        assert_eq!(told(carol).await, ["user", "channel", "channel"], "no message twice");
        assert_eq!((told(alice).await.len(), told(&mut stranger).await.len()), (0, 0));
        assert_eq!(counts(&server, "bob", &channel).await, (5, 4));
        assert_eq!(counts(&server, "carol", &channel).await, (5, 4));
        assert_eq!(counts(&server, "dave", &channel).await, (5, 2), "two were for everybody");
        assert_eq!(counts(&server, "alice", &channel).await, (0, 0));
        let synced = carol.ok("sync", json!({"channels": [{"channel_id": channel, "seq": 5, "rev": 0}]})).await;
        assert_eq!(synced["user"]["read_states"][0]["mention_count"], 4);
    }

    async fn a_role_counts_for_those_who_had_it_when_the_message_was_sent(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob", "carol"]).await;
        server.directory().add_member("club", "alice", RoleName::Owner).await.unwrap();
        server.directory().add_member("club", "bob", RoleName::Moderator).await.unwrap();
        let mut all = people(&server, &["alice", "bob", "carol"]).await;
        let sent = mention(&mut all[0], &channel, json!({"roles": [MODERATORS]})).await;
        all[1].expect("mention:new").await;
        server.directory().add_member("club", "carol", RoleName::Moderator).await.unwrap();
        server.directory().add_member("club", "bob", RoleName::Member).await.unwrap();
        assert_eq!(counts(&server, "carol", &channel).await, (1, 0), "a role that came later brings nothing old");
        assert_eq!(counts(&server, "bob", &channel).await, (1, 1), "a role that is lost takes nothing away");
        let edit = |mentions: Value| json!({ "channel_id": channel, "message_id": sent["id"], "body": "edited", "mentions": mentions });
        let again = edit(json!({"roles": [MODERATORS], "users": [id(&all[0])]}));
        all[0].ok("message:edit", again).await;
        assert_eq!(counts(&server, "carol", &channel).await, (1, 1), "an edit mentions who has it now");
        assert_eq!(counts(&server, "bob", &channel).await, (1, 0));
        all[0].ok("message:edit", edit(json!({}))).await;
        assert_eq!(counts(&server, "carol", &channel).await, (1, 0));
        assert_eq!(told(&mut all[2]).await.len(), 0, "an edit notifies nobody");
    }

    async fn the_inbox_has_every_mention_that_may_be_read_newest_first(server: TestServer) {
        let (club, den) = (server.channel("club", &["alice", "bob"]).await, server.channel("den", &["alice", "bob"]).await);
        for channel in ["club", "den"] {
            server.directory().add_member(channel, "alice", RoleName::Owner).await.unwrap();
        }
        let mut all = people(&server, &["alice", "bob"]).await;
        let [alice, bob] = &mut all[..] else { panic!() };
        let mut expected = Vec::new();
        for (channel, mentions, kind) in [
            (&club, json!({"users": [id(bob)]}), Some("user")),
            (&den, json!({"channel": true}), Some("channel")),
            (&club, json!({}), None),
            (&den, json!({"here": true}), Some("here")),
            (&club, json!({"users": [id(bob)], "channel": true}), Some("user")),
            (&den, json!({"users": [id(alice)]}), None),
        ] {
            let message = mention(alice, channel, mentions).await;
            expected.extend(kind.map(|kind| (kind, message["id"].clone())));
        }
        expected.reverse();
        let kinds_and_ids = |inbox: &Value| -> Vec<(String, Value)> {
            let mentions = inbox["mentions"].as_array().unwrap().iter();
            mentions.map(|it| (text(&it["kind"]), it["message"]["id"].clone())).collect()
        };
        let as_expected = |expected: &[(&str, Value)]| -> Vec<(String, Value)> {
            expected.iter().map(|(kind, id)| ((*kind).to_owned(), id.clone())).collect()
        };
        let whole = bob.ok("mentions:list", json!({})).await;
        assert_eq!((kinds_and_ids(&whole), &whole["next"]), (as_expected(&expected), &Value::Null));
        let first = bob.ok("mentions:list", json!({"limit": 3})).await;
        assert_eq!((kinds_and_ids(&first), &first["next"]), (as_expected(&expected[..3]), &expected[2].1));
        let path = format!("GET /api/v1/mentions?limit=3&before={}", text(&first["next"]));
        let bearer = format!("Bearer {}", server.token("bob").await);
        let rest = api::send(server.addr(), &path, &[("authorization", &bearer)], "").await;
        assert_eq!(kinds_and_ids(&rest.body["data"]), as_expected(&expected[3..]));
        server.directory().remove_member("den", "bob").await.unwrap();
        bob.expect("channel:left").await;
        let left = bob.ok("mentions:list", json!({})).await;
        assert!(left["mentions"].as_array().unwrap().iter().all(|it| it["message"]["channel_id"] == json!(club)));
        let gone = json!({ "channel_id": club, "message_id": expected[0].1 });
        alice.ok("message:delete", gone).await;
        assert_eq!(bob.ok("mentions:list", json!({})).await["mentions"].as_array().unwrap().len(), 1);
        assert_eq!(bob.refused("mentions:list", json!({"limit": 101})).await["details"]["field"], "limit");
    }

    async fn a_silent_message_counts_and_tells_nobody(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        server.directory().add_member("club", "alice", RoleName::Owner).await.unwrap();
        let mut all = people(&server, &["alice", "bob"]).await;
        let bob = id(&all[1]);
        for flags in [1, 4] {
            for mentions in [json!({"users": [bob]}), json!({"channel": true})] {
                let request = json!({ "channel_id": channel, "body": "psst", "mentions": mentions, "flags": flags });
                all[0].ok("message:send", request).await;
            }
        }
        assert_eq!(told(&mut all[1]).await.len(), 0);
        assert_eq!(counts(&server, "bob", &channel).await, (4, 4));
    }

    async fn members_hear_when_their_channel_changes(server: TestServer) {
        let channel = server.channel("club", &["alice"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        server.directory().set_channel_state("club", Some(true), None).await.unwrap();
        let updated = tokio::time::timeout(Duration::from_secs(1), alice.expect("channel:updated")).await.unwrap();
        assert_eq!(updated, json!({"channel_id": channel, "name": "club", "kind": "public", "archived": true,
            "read_only": false, "slow_mode_s": 0}));
        assert_eq!(bob.events_so_far().await, [], "who is not in it hears nothing");
        let error = alice.refused("message:send", json!({ "channel_id": channel, "body": "x" })).await;
        assert_eq!(error["code"], "channel_archived", "the cache has heard of it before");
    }
}

/// A core with a channel, and two users in it who may do everything.
struct Two {
    core: FakeCore,
    server: TestServer,
    key: Key,
    channel: Uuid,
    alice: Uuid,
    bob: Uuid,
}

impl Two {
    async fn start() -> Self {
        let (core, key) = (FakeCore::start().await, Key::ed25519("ed"));
        core.set_keys(vec![key.listed()]);
        let server =
            TestServer::start_with(Kind::Sqlite, |config| config.core_url = Some(core.url().into())).await;
        let [channel, alice, bob] = [(); 3].map(|()| Uuid::now_v7());
        let two = Self { core, server, key, channel, alice, bob };
        for user in [alice, bob] {
            two.core.set_bits(user, channel, ALL_BITS);
            two.core.set_memberships(user, vec![two.membership(user)]);
        }
        two
    }

    fn membership(&self, user: Uuid) -> Membership {
        Membership { channel_id: self.channel.to_string(), user_id: user.to_string(), ..Default::default() }
    }

    async fn client(&self, user: Uuid) -> TestClient {
        TestClient::connect(self.server.addr(), &self.key.token(user)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_muted_a_channel_is_not_told_of_mentions_and_hears_so_at_the_next_connect() {
    let two = Two::start().await;
    let (mut alice, channel) = (two.client(two.alice).await, two.channel.to_string());
    let hour = 3_600_000_000;
    let quiet = Membership { notify_level: NotifyLevel::None.into(), ..two.membership(two.bob) };
    let muted = Membership { muted_until_us: now_micros() + hour, ..two.membership(two.bob) };
    let over = Membership { muted_until_us: now_micros() - 1, ..two.membership(two.bob) };
    for (membership, is_told, level) in [(quiet, false, "none"), (muted, false, "all"), (over, true, "all")] {
        two.core.set_memberships(two.bob, vec![membership.clone()]);
        let mut fresh = two.client(two.bob).await;
        let state = &fresh.ready["channels"][0];
        let is_muted = membership.muted_until_us > now_micros();
        assert_eq!((&state["muted"], &state["notify_level"]), (&json!(is_muted), &json!(level)));
        assert_eq!(state["muted_until"].is_string(), is_muted);
        mention(&mut alice, &channel, json!({"users": [two.bob]})).await;
        mention(&mut alice, &channel, json!({"channel": true})).await;
        let expected: &[&str] = if is_told { &["user", "channel"] } else { &[] };
        assert_eq!(told(&mut fresh).await, expected, "{membership:?}");
    }
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_counts_at_once_and_ends_at_its_time() {
    let two = Two::start().await;
    let (mut alice, mut bob) = (two.client(two.alice).await, two.client(two.bob).await);
    let channel = two.channel.to_string();
    let quiet = Membership { notify_level: NotifyLevel::None.into(), ..two.membership(two.bob) };
    let ends_at = now_micros() + 700_000;
    let brief = Membership { muted_until_us: ends_at, ..two.membership(two.bob) };
    two.core.join(quiet);
    // The change has arrived when a mention is not told any more.
    loop {
        mention(&mut alice, &channel, json!({"channel": true})).await;
        if told(&mut bob).await.is_empty() {
            break;
        }
    }
    two.core.join(brief);
    while now_micros() <= ends_at {
        alice.ok("ping", json!({})).await;
    }
    loop {
        mention(&mut alice, &channel, json!({"channel": true})).await;
        mention(&mut alice, &channel, json!({"users": [two.bob]})).await;
        if told(&mut bob).await == ["channel", "user"] {
            break;
        }
    }
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_counts_start_where_the_core_says_that_the_user_joined() {
    let two = Two::start().await;
    let (mut alice, channel) = (two.client(two.alice).await, two.channel.to_string());
    for _ in 0..5 {
        mention(&mut alice, &channel, json!({"channel": true})).await;
    }
    let state = async |joined_seq: i64| {
        let joined = Membership { joined_seq: Some(joined_seq), ..two.membership(two.bob) };
        two.core.set_memberships(two.bob, vec![joined]);
        let bob = two.client(two.bob).await;
        let state = &bob.ready["channels"][0];
        [&state["read_seq"], &state["unread_count"], &state["mention_count"]].map(|it| it.as_i64().unwrap())
    };
    assert_eq!(state(2).await, [2, 3, 3], "they came while nobody told imks");
    assert_eq!(state(2).await, [2, 3, 3]);
    assert_eq!(state(4).await, [4, 1, 1], "left and joined again");
    assert_eq!(state(9).await, [5, 0, 0]);
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_more_people_than_may_be_mentioned_is_refused() {
    let two = Two::start().await;
    let mut alice = two.client(two.alice).await;
    let request =
        json!({ "channel_id": two.channel, "body": "all of you", "mentions": {"roles": [MODERATORS]} });
    two.core.set_mentioned((0..1_000).map(Uuid::from_u128).collect());
    alice.ok("message:send", request.clone()).await;
    two.core.set_mentioned((0..1_001).map(Uuid::from_u128).collect());
    let error = alice.refused("message:send", request).await;
    assert_eq!(
        (&error["code"], &error["details"]["limit"]),
        (&json!("limit_reached"), &json!("mentioned_people"))
    );
    two.server.stop().await;
}
