//! Signals of calls between members of a channel.

use serde_json::{Value, json};

use crate::client::TestClient;
use crate::on_both;

fn signal(channel: &str, to: &Value, data: &Value) -> Value {
    json!({ "channel_id": channel, "to": to, "data": data })
}

fn id(client: &TestClient) -> Value {
    client.ready["user"]["id"].clone()
}

on_both! {
    async fn two_members_agree_on_a_call_and_nobody_else_hears_of_it(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob", "carol"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let (mut carol, mut phone) = (server.client("carol").await, server.client("bob").await);
        let bob_id = id(&bob);
        let offer = json!({ "type": "offer", "sdp": "v=0", "candidates": [1, 2.5, null] });
        alice.ok("call:signal", signal(&channel, &id(&bob), &offer)).await;
        for device in [&mut bob, &mut phone] {
            let incoming = device.expect("call:incoming").await;
            assert_eq!((&incoming["from"]["id"], &incoming["to"]), (&id(&alice), &bob_id));
            assert_eq!((&incoming["channel_id"], &incoming["data"]), (&json!(channel), &offer));
        }
        bob.ok("channel:focus", json!({ "channel_ids": [] })).await;
        alice.ok("call:signal", signal(&channel, &Value::Null, &json!("ring"))).await;
        for device in [&mut bob, &mut phone, &mut carol] {
            assert_eq!(device.expect("call:incoming").await["data"], "ring");
        }
        assert_eq!(alice.events_so_far().await.iter().filter(|(name, _)| name == "call:incoming").count(), 0);
        let state = json!({ "channels": [{ "channel_id": channel, "seq": 0, "rev": 0 }] });
        assert_eq!(carol.ok("sync", state).await["channels"][0]["seq"], 0, "nothing is stored");
    }

    async fn who_is_not_in_the_channel_neither_sends_nor_gets_signals(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let mut mallory = server.client("mallory").await;
        let data = json!("ring");
        assert_eq!(mallory.refused("call:signal", signal(&channel, &id(&bob), &data)).await["code"], "not_found");
        assert_eq!(alice.refused("call:signal", signal(&channel, &id(&mallory), &data)).await["code"], "not_found");
        server.directory().remove_member("club", "bob").await.unwrap();
        bob.expect("channel:left").await;
        assert_eq!(alice.refused("call:signal", signal(&channel, &id(&bob), &data)).await["code"], "not_found");
        assert_eq!((bob.events_so_far().await, mallory.events_so_far().await), (vec![], vec![]));
    }

    async fn signals_are_small_and_not_too_many(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, bob) = (server.client("alice").await, server.client("bob").await);
        let large = signal(&channel, &id(&bob), &json!("x".repeat(16 << 10)));
        assert_eq!(alice.refused("call:signal", large).await["details"]["field"], "data");
        let attachment = signal(&channel, &id(&bob), &json!({ "_placeholder": true, "num": 0 }));
        assert_eq!(alice.refused("call:signal", attachment).await["details"]["field"], "data");
        for _ in 0..5 {
            alice.ok("call:signal", signal(&channel, &Value::Null, &json!("ring"))).await;
        }
        let refused = alice.refused("call:signal", signal(&channel, &Value::Null, &json!("ring"))).await;
        assert_eq!((&refused["code"], &refused["details"]["bucket"]), (&json!("rate_limited"), &json!("call:channel")));
    }
}
