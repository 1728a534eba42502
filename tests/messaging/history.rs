//! `history` and `message:get`.

use serde_json::{Value, json};

use crate::client::TestClient;
use crate::on_both;
use crate::server::first_channel;

async fn fill(client: &mut TestClient, channel: &str, count: usize) -> Vec<Value> {
    let mut ids = Vec::new();
    for number in 1..=count {
        let sent =
            client.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
        ids.push(sent["message"]["id"].clone());
    }
    ids
}

fn seqs(page: &Value) -> Vec<i64> {
    page["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_i64().unwrap()).collect()
}

on_both! {
    async fn pages_walk_the_channel_without_holes_or_repeats(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        fill(&mut alice, &channel, 25).await;
        let (mut seen, mut before) = (Vec::new(), Value::Null);
        loop {
            let page = alice.ok("history", json!({ "channel_id": channel, "before": before, "limit": 10 })).await;
            seen.splice(0..0, seqs(&page));
            before = page["messages"][0]["id"].clone();
            if page["has_more_before"] == false {
                break;
            }
        }
        assert_eq!(seen, (1..=25).collect::<Vec<i64>>());
    }

    async fn a_page_after_and_around_a_message(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let ids = fill(&mut alice, &channel, 9).await;
        let after = alice.ok("history", json!({ "channel_id": channel, "after": ids[3], "limit": 3 })).await;
        assert_eq!((seqs(&after), &after["has_more_before"], &after["has_more_after"], &after["seq_range"]),
            (vec![5, 6, 7], &json!(true), &json!(true), &json!([5, 7])));
        let around = alice.ok("history", json!({ "channel_id": channel, "around": ids[4], "limit": 4 })).await;
        assert_eq!(seqs(&around), [3, 4, 5, 6]);
    }

    async fn messages_are_fetched_by_id_but_only_from_their_channel(server: TestServer) {
        let other = server.channel("other", &["alice"]).await;
        let mut alice = server.client("alice").await;
        let general = alice.ready["channels"].as_array().unwrap().iter()
            .find(|channel| channel["name"] == "general").unwrap()["channel_id"].as_str().unwrap().to_owned();
        let ids = fill(&mut alice, &general, 2).await;
        let got = alice.ok("message:get", json!({ "channel_id": general, "message_ids": ids })).await;
        assert_eq!(seqs(&got), [1, 2]);
        let elsewhere = alice.ok("message:get", json!({ "channel_id": other, "message_ids": ids })).await;
        assert_eq!(seqs(&elsewhere), Vec::<i64>::new());
    }
}
