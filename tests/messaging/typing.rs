//! `typing:start`, `typing:stop` and `typing`.

use serde_json::{Value, json};

use crate::on_both;
use crate::server::first_channel;

fn typing(event: &Value) -> (&Value, &Value, &Value) {
    (&event["user"]["username"], &event["typing"], &event["expires_in_ms"])
}

on_both! {
    async fn somebody_who_types_is_seen_until_they_stop_send_leave_or_disconnect(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let target = json!({ "channel_id": channel });
        let (on, off) = ((&json!("alice"), &json!(true), &json!(6_000)), (&json!("alice"), &json!(false), &json!(0)));
        assert_eq!(alice.ok("typing:start", target.clone()).await, json!({ "expires_in_ms": 6_000 }));
        assert_eq!(typing(&bob.expect("typing").await), on);
        alice.ok("typing:stop", target.clone()).await;
        assert_eq!(typing(&bob.expect("typing").await), off);
        alice.ok("typing:start", target.clone()).await;
        assert_eq!(typing(&bob.expect("typing").await), on);
        alice.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        assert_eq!(typing(&bob.expect("typing").await), off);
        alice.ok("typing:start", target.clone()).await;
        assert_eq!(typing(&bob.expect("typing").await), on);
        alice.ok("channel:unsubscribe", json!({ "channel_ids": [channel] })).await;
        assert_eq!(typing(&bob.expect("typing").await), off);
        alice.ok("typing:start", target).await;
        assert_eq!(typing(&bob.expect("typing").await), on);
        drop(alice);
        assert_eq!(typing(&bob.expect("typing").await), off);
    }

    async fn the_lease_ends_by_itself_and_repeats_are_not_told_twice(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = json!({ "channel_id": first_channel(&alice) });
        for _ in 0..3 {
            alice.ok("typing:start", target.clone()).await;
        }
        assert_eq!(bob.expect("typing").await["typing"], true);
        assert_eq!(bob.expect("typing").await["typing"], false, "nobody sent a stop");
        let own: Vec<_> = alice.events_so_far().await.into_iter().filter(|(_, event)| event["typing"] == true).collect();
        assert_eq!(own, [], "the sender is not told");
    }

    async fn only_those_who_may_write_are_seen_typing(server: TestServer) {
        let mut alice = server.client("alice").await;
        let secret = server.channel("secret", &["bob"]).await;
        assert_eq!(alice.refused("typing:start", json!({ "channel_id": secret })).await["code"], "not_found");
        assert_eq!(alice.ok("typing:stop", json!({ "channel_id": secret })).await, json!({}));
    }
}
