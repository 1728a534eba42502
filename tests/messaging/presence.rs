//! `presence:set`, `presence:active`, `presence:subscribe`, `presence:unsubscribe`, `presence:list` and
//! `presence:update`.

use serde_json::json;

use crate::client::TestClient;
use crate::on_both;
use crate::server::first_channel;

on_both! {
    async fn who_watches_somebody_sees_them_come_and_what_they_choose(server: TestServer) {
        let mut alice = server.client("alice").await;
        let token = server.token("bob").await;
        let id = server.directory().ensure_user("bob").await.unwrap().id.to_string();
        let seen = alice.ok("presence:subscribe", json!({ "user_ids": [id] })).await;
        assert_eq!(seen["presences"][0]["status"], "offline");
        let mut phone = TestClient::connect(server.addr(), &token).await;
        let update = alice.expect("presence:update").await;
        assert_eq!((&update["user_id"], &update["status"]), (&json!(id), &json!("online")));
        assert!(update["last_active_at"].is_string());
        let mut laptop = TestClient::connect(server.addr(), &token).await;
        assert_eq!(laptop.ok("presence:set", json!({ "status": "dnd" })).await, json!({ "status": "dnd", "until": null }));
        assert_eq!(phone.expect("presence:own").await["status"], "dnd");
        let next = alice.expect("presence:update").await;
        assert_eq!(next["status"], "dnd", "the second device was no change");
        assert!(next["version"].as_i64() > update["version"].as_i64());
        phone.ok("presence:active", json!({})).await;
        laptop.ok("presence:set", json!({ "status": "invisible" })).await;
        assert_eq!(alice.expect("presence:update").await["status"], "offline");
        let channel = first_channel(&alice);
        let list = alice.ok("presence:list", json!({ "channel_id": channel })).await;
        let users: Vec<_> = list["presences"].as_array().unwrap().iter().map(|it| &it["user_id"]).collect();
        assert_eq!((users, &list["next"]), (vec![&alice.ready["user"]["id"]], &json!(null)));
        alice.ok("presence:unsubscribe", json!({ "user_ids": [id] })).await;
        laptop.ok("presence:set", json!({ "status": "online" })).await;
        let left: Vec<_> = alice.events_so_far().await.into_iter().filter(|(name, _)| name == "presence:update").collect();
        assert_eq!(left, []);
    }

    async fn what_somebody_chose_outlives_the_connection(server: TestServer) {
        let token = server.token("bob").await;
        let id = server.directory().ensure_user("bob").await.unwrap().id.to_string();
        let mut bob = TestClient::connect(server.addr(), &token).await;
        bob.ok("presence:set", json!({ "status": "invisible" })).await;
        drop(bob);
        let mut alice = server.client("alice").await;
        alice.ok("presence:subscribe", json!({ "user_ids": [id] })).await;
        let mut bob = TestClient::connect(server.addr(), &token).await;
        bob.ok("ping", json!({})).await;
        assert_eq!(alice.events_so_far().await, []);
        bob.ok("presence:set", json!({ "status": "online" })).await;
        assert_eq!(alice.expect("presence:update").await["status"], "online");
        let past = bob.refused("presence:set", json!({ "status": "dnd", "until": "2020-01-01T00:00:00Z" })).await;
        assert_eq!((&past["code"], &past["details"]["field"]), (&json!("invalid_input"), &json!("until")));
    }

    async fn strangers_see_nothing_of_each_other(server: TestServer) {
        let mut alice = server.client("alice").await;
        let stranger = server.directory().ensure_user("stranger").await.unwrap().id.to_string();
        let seen = alice.ok("presence:subscribe", json!({ "user_ids": [stranger, uuid::Uuid::nil()] })).await;
        assert_eq!(seen, json!({ "presences": [] }));
        let many: Vec<_> = (0..201).map(|_| uuid::Uuid::now_v7()).collect();
        assert_eq!(alice.refused("presence:subscribe", json!({ "user_ids": many })).await["code"], "invalid_input");
        let secret = server.channel("secret", &["stranger"]).await;
        assert_eq!(alice.refused("presence:list", json!({ "channel_id": secret })).await["code"], "not_found");
    }

    async fn who_shares_no_channel_any_more_sees_nothing_more(server: TestServer) {
        let mut alice = server.client("alice").await;
        let mut bob = server.client("bob").await;
        let bob_id = bob.ready["user"]["id"].clone();
        alice.ok("presence:subscribe", json!({ "user_ids": [bob_id] })).await;
        bob.ok("presence:set", json!({ "status": "idle" })).await;
        assert_eq!(alice.expect("presence:update").await["status"], "idle");
        server.directory().remove_member("general", "bob").await.unwrap();
        bob.expect("channel:left").await;
        // Bob's device may hear of it before Alice's watching has ended.
        let unseen = async {
            for status in ["dnd", "online", "idle"].iter().cycle() {
                bob.ok("presence:set", json!({ "status": status })).await;
                let events = alice.events_so_far().await;
                if events.iter().all(|(name, _)| name != "presence:update") {
                    break;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), unseen).await.expect("alice still sees bob");
    }
}
