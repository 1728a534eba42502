//! `read:mark` and unread counts.

use serde_json::json;

use crate::client::TestClient;
use crate::on_both;
use crate::server::first_channel;

on_both! {
    async fn reading_on_one_device_is_told_to_the_others_and_never_goes_back(server: TestServer) {
        let mut bob = server.client("bob").await;
        let channel = first_channel(&bob);
        let (mut phone, mut laptop) = (server.client("alice").await, server.client("alice").await);
        for number in 0..5 {
            bob.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
        }
        let marked = phone.ok("read:mark", json!({ "channel_id": channel, "seq": 3 })).await;
        assert_eq!(marked, json!({ "read_seq": 3, "unread_count": 2, "mention_count": 0 }));
        let update = laptop.expect("read:updated").await;
        assert_eq!((&update["channel_id"], &update["read_seq"], &update["unread_count"]),
            (&json!(channel), &json!(3), &json!(2)));
        let late = laptop.ok("read:mark", json!({ "channel_id": channel, "seq": 1 })).await;
        assert_eq!(late["read_seq"], 3);
        let beyond = laptop.ok("read:mark", json!({ "channel_id": channel, "seq": 1_000_000 })).await;
        assert_eq!((&beyond["read_seq"], &beyond["unread_count"]), (&json!(5), &json!(0)));
    }

    async fn a_deleted_message_is_not_unread_and_a_mention_counts(server: TestServer) {
        let mut bob = server.client("bob").await;
        let channel = first_channel(&bob);
        let alice = server.client("alice").await;
        let id = alice.ready["user"]["id"].clone();
        let spam = bob.ok("message:send", json!({ "channel_id": channel, "body": "spam" })).await;
        bob.ok("message:send", json!({ "channel_id": channel, "body": "@alice", "mentions": { "users": [id] } })).await;
        bob.ok("message:delete", json!({ "channel_id": channel, "message_id": spam["message"]["id"] })).await;
        let again = server.client("alice").await;
        let state = &again.ready["channels"][0];
        assert_eq!((&state["unread_count"], &state["mention_count"]), (&json!(1), &json!(1)));
    }

    async fn members_of_a_small_channel_see_how_far_the_others_have_read_and_all_can_ask(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let (channel, bob_id) = (first_channel(&alice), bob.ready["user"]["id"].clone());
        for number in 0..3 {
            alice.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
        }
        bob.ok("read:mark", json!({ "channel_id": channel, "seq": 2 })).await;
        assert_eq!(alice.expect("read:updated").await, json!({ "channel_id": channel, "user_id": bob_id, "read_seq": 2 }));
        bob.ok("read:mark", json!({ "channel_id": channel, "seq": 2 })).await;
        assert!(alice.events_so_far().await.is_empty(), "nothing moved");
        let readers = async |client: &mut TestClient, seq: i64| {
            client.ok("read:receipts", json!({ "channel_id": channel, "seq": seq })).await["user_ids"].as_array().unwrap().len()
        };
        assert_eq!((readers(&mut alice, 2).await, readers(&mut alice, 3).await), (2, 1), "the author has read what they wrote");
        for member in 0..49 {
            server.token(&format!("member{member}")).await;
        }
        let large = server.channel("large", &[]).await;
        for member in (0..49).map(|number| format!("member{number}")).chain(["alice".into(), "bob".into()]) {
            server.directory().add_member("large", &member, imks::testing::directory::RoleName::default()).await.unwrap();
        }
        alice.expect("channel:joined").await;
        alice.ok("message:send", json!({ "channel_id": large, "body": "hello" })).await;
        bob.expect("channel:joined").await;
        bob.ok("read:mark", json!({ "channel_id": large, "seq": 1 })).await;
        let told: Vec<_> = alice.events_so_far().await.into_iter().filter(|(name, _)| name == "read:updated").collect();
        assert!(told.is_empty(), "{told:?}");
        let read = alice.ok("read:receipts", json!({ "channel_id": large, "seq": 1 })).await;
        assert_eq!((read["user_ids"].as_array().unwrap().len(), &read["next"]), (2, &json!(null)));
    }

    async fn sending_marks_the_channel_as_read_on_the_other_devices_too(server: TestServer) {
        let mut carol = server.client("carol").await;
        let channel = first_channel(&carol);
        let (mut phone, mut laptop) = (server.client("dave").await, server.client("dave").await);
        for number in 0..3 {
            carol.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
        }
        phone.ok("message:send", json!({ "channel_id": channel, "body": "seen" })).await;
        let update = laptop.expect("read:updated").await;
        assert_eq!((&update["read_seq"], &update["unread_count"]), (&json!(4), &json!(0)));
        let own: Vec<_> = phone.events_so_far().await.into_iter().filter(|(name, _)| name == "read:updated").collect();
        assert_eq!(own, [], "the device that sent knows it from the answer");
    }

    async fn a_channel_marked_unread_is_unread_on_every_device_until_all_is_marked_as_read(server: TestServer) {
        let mut bob = server.client("bob").await;
        let channel = first_channel(&bob);
        let other = server.channel("other", &["alice", "bob"]).await;
        let (mut phone, mut laptop) = (server.client("alice").await, server.client("alice").await);
        for target in [&channel, &channel, &channel, &other] {
            bob.ok("message:send", json!({ "channel_id": target, "body": "x" })).await;
        }
        phone.ok("read:mark", json!({ "channel_id": channel, "seq": 3 })).await;
        let unread = phone.ok("read:mark_unread", json!({ "channel_id": channel, "from_seq": 2 })).await;
        assert_eq!(unread, json!({ "read_seq": 1, "unread_count": 2, "mention_count": 0 }));
        laptop.expect("read:updated").await;
        assert_eq!(laptop.expect("read:updated").await["unread_count"], 2);
        assert_eq!(phone.ok("read:mark_all", json!({})).await, json!({ "updated": 2 }));
        let update = laptop.expect("read:updated_many").await;
        let counts: Vec<_> = update["read_states"].as_array().unwrap().iter().map(|it| &it["unread_count"]).collect();
        assert_eq!(counts, [&json!(0), &json!(0)]);
        assert_eq!(phone.ok("read:mark_all", json!({ "channel_ids": [channel] })).await, json!({ "updated": 0 }));
        let refused = phone.refused("read:mark_unread", json!({ "channel_id": channel, "from_seq": 0 })).await;
        assert_eq!(refused["details"]["field"], "from_seq");
    }
}
