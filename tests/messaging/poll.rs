//! Polls: `message:send` with a poll, `poll:vote`, `poll:close`, `poll:voters` and `poll:updated`.

use serde_json::{Value, json};

use crate::client::TestClient;
use crate::on_both;
use crate::server::first_channel;

async fn start(client: &mut TestClient, poll: Value) -> Value {
    let channel = first_channel(client);
    let send = json!({ "channel_id": channel, "body": "Lunch?", "poll": poll });
    let sent = client.ok("message:send", send).await;
    assert_eq!(sent["message"]["type"], "poll");
    json!({ "channel_id": channel, "message_id": sent["message"]["id"] })
}

fn choosing(target: &Value, option_ids: &[usize]) -> Value {
    let mut vote = target.clone();
    vote["option_ids"] = json!(option_ids);
    vote
}

fn votes(poll: &Value) -> Vec<&Value> {
    poll["options"].as_array().unwrap().iter().map(|option| &option["votes"]).collect()
}

on_both! {
    async fn votes_are_counted_exactly_shown_to_everybody_and_can_be_changed_until_the_end(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = start(&mut alice, json!({ "question": "Lunch?", "options": ["Soup", "Rice", "Fish"], "max_choices": 2 })).await;
        let poll = bob.expect("message:new").await["poll"].take();
        assert_eq!((&poll["question"], &poll["options"][1]), (&json!("Lunch?"), &json!({ "id": 1, "text": "Rice", "votes": 0 })));
        let voted = bob.ok("poll:vote", choosing(&target, &[0, 1])).await;
        assert_eq!((votes(&voted["poll"]), &voted["poll"]["my_votes"]), (vec![&json!(1), &json!(1), &json!(0)], &json!([0, 1])));
        let update = alice.expect("poll:updated").await;
        assert_eq!((&update["rev"], &update["poll"]["total_votes"], &update["poll"]["total_voters"]), (&json!(1), &json!(2), &json!(1)));
        assert!(update["poll"].get("my_votes").is_none(), "what one chose is not broadcast");
        assert_eq!(bob.ok("poll:vote", choosing(&target, &[1, 0])).await["rev"], 1, "the same again changes nothing");
        alice.ok("poll:vote", choosing(&target, &[1])).await;
        let mut option = target.clone();
        option["option_id"] = json!(1);
        assert_eq!(bob.ok("poll:voters", option).await["user_ids"].as_array().unwrap().len(), 2);
        bob.ok("poll:vote", choosing(&target, &[])).await;
        let page = bob.ok("history", json!({ "channel_id": target["channel_id"] })).await;
        let poll = &page["messages"][0]["poll"];
        assert_eq!((votes(poll), &poll["my_votes"]), (vec![&json!(0), &json!(1), &json!(0)], &json!([])));
        assert_eq!(bob.refused("poll:close", target.clone()).await["details"]["permission"], "MANAGE_MESSAGES");
        let closed = alice.ok("poll:close", target.clone()).await;
        assert_eq!((&closed["poll"]["is_final"], &closed["poll"]["my_votes"]), (&json!(true), &json!(null)));
        assert_eq!(alice.ok("poll:close", target.clone()).await["rev"], closed["rev"]);
        assert_eq!(bob.refused("poll:vote", choosing(&target, &[0])).await["code"], "poll_closed");
        let again = alice.ok("poll:vote", choosing(&target, &[1])).await;
        assert_eq!(again["rev"], closed["rev"], "a late repeat changes nothing and is no error");
    }

    async fn an_anonymous_poll_with_hidden_results_tells_neither_votes_nor_voters(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let poll = json!({ "question": "Who?", "options": ["A", "B"], "anonymous": true, "hide_results": true, "allow_change": false });
        let target = start(&mut alice, poll).await;
        let voted = bob.ok("poll:vote", choosing(&target, &[1])).await;
        assert_eq!((votes(&voted["poll"]), &voted["poll"]["my_votes"]), (vec![&json!(null), &json!(null)], &json!([1])));
        assert_eq!(bob.refused("poll:vote", choosing(&target, &[0])).await["code"], "failed_precondition", "only once");
        let seen = bob.ok("message:get", json!({ "channel_id": target["channel_id"], "message_ids": [target["message_id"]] })).await;
        assert_eq!(seen["messages"][0]["poll"]["my_votes"], json!([1]));
        let mut option = target.clone();
        option["option_id"] = json!(1);
        assert_eq!(alice.refused("poll:voters", option.clone()).await["code"], "failed_precondition");
        let closed = alice.ok("poll:close", target).await;
        assert_eq!(votes(&closed["poll"]), [&json!(0), &json!(1)]);
        assert_eq!(alice.refused("poll:voters", option).await["code"], "failed_precondition");
    }

    async fn a_poll_that_makes_no_sense_is_refused_with_the_field(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let good = json!({ "question": "Q", "options": ["A", "B"] });
        let cases = [
            ("poll.options", "options", json!(["A"])),
            ("poll.options", "options", json!(vec!["A"; 21])),
            ("poll.options[1]", "options", json!(["A", "x".repeat(101)])),
            ("poll.question", "question", json!("x".repeat(301))),
            ("poll.max_choices", "max_choices", json!(3)),
            ("poll.closes_at", "closes_at", json!("2020-01-01T00:00:00Z")),
        ];
        for (field, name, value) in cases {
            let mut poll = good.clone();
            poll[name] = value;
            let error = alice.refused("message:send", json!({ "channel_id": channel, "body": "x", "poll": poll })).await;
            assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_input"), &json!(field)));
        }
        let target = start(&mut alice, good).await;
        for wrong in [&[2][..], &[0, 1]] {
            let error = alice.refused("poll:vote", choosing(&target, wrong)).await;
            assert_eq!(error["details"]["field"], "option_ids", "{wrong:?}");
        }
        let plain = alice.ok("message:send", json!({ "channel_id": channel, "body": "no poll" })).await;
        let none = json!({ "channel_id": channel, "message_id": plain["message"]["id"], "option_ids": [0] });
        assert_eq!(alice.refused("poll:vote", none).await["code"], "not_found");
    }
}
