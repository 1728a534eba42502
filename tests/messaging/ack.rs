//! Priority and explicit acknowledgements: `message:send` with `priority` and `ack_requested`, `message:ack`, `message:acks` and
//! `ack:updated`.

use imks::testing::directory::{NewChannel, RoleName};
use serde_json::{Value, json};

use crate::client::TestClient;
use crate::http_request::send;
use crate::on_both;
use crate::server::{first_channel, text};

/// A message of the client that asks for acknowledgements.
async fn ask(client: &mut TestClient, channel: &str) -> Value {
    let request =
        json!({ "channel_id": channel, "body": "read this", "priority": "urgent", "ack_requested": true });
    let sent = client.ok("message:send", request).await;
    json!({ "channel_id": channel, "message_id": sent["message"]["id"] })
}

fn users(page: &Value) -> Vec<String> {
    page["users"].as_array().unwrap().iter().map(|user| text(&user["user_id"])).collect()
}

/// Every page of a list of two each.
async fn all(client: &mut TestClient, target: &Value, state: &str) -> Vec<String> {
    let (mut request, mut found) = (target.clone(), Vec::new());
    (request["state"], request["limit"]) = (json!(state), json!(2));
    loop {
        let page = client.ok("message:acks", request.clone()).await;
        found.extend(users(&page));
        if page["next"].is_null() {
            found.sort();
            return found;
        }
        request["cursor"] = page["next"].clone();
    }
}

fn id(client: &TestClient) -> String {
    text(&client.ready["user"]["id"])
}

on_both! {
    async fn an_acknowledgement_is_told_to_everybody_counted_once_and_synced(server: TestServer) {
        let (mut alice, mut bob, mut carol) = (server.client("alice").await, server.client("bob").await, server.client("carol").await);
        let channel = first_channel(&alice);
        let target = ask(&mut alice, &channel).await;
        let new = bob.expect("message:new").await;
        assert_eq!((&new["priority"], &new["ack_requested"], &new["ack_count"]), (&json!("urgent"), &json!(true), &json!(0)));
        let acked = bob.ok("message:ack", target.clone()).await;
        assert_eq!((&acked["ack_count"], &acked["rev"], &acked["message_id"]), (&json!(1), &json!(1), &target["message_id"]));
        let update = alice.expect("ack:updated").await;
        assert_eq!((&update["message_id"], &update["ack_count"], &update["rev"]), (&target["message_id"], &json!(1), &json!(1)));
        assert_eq!(update["user_ids"], json!([id(&bob)]));
        assert_eq!(bob.ok("message:ack", target.clone()).await, acked, "once is enough");
        assert_eq!(carol.ok("message:ack", target.clone()).await["ack_count"], 2);
        let cursor = json!({ "channels": [{ "channel_id": channel, "seq": 1, "rev": 0 }] });
        let synced = bob.ok("sync", cursor).await;
        let message = &synced["channels"][0]["changes"][0]["message"];
        assert_eq!((&message["ack_count"], &message["acked"]), (&json!(2), &json!(true)));
        let page = alice.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!((&page["messages"][0]["ack_count"], page["messages"][0].get("acked")), (&json!(2), None), "not her own");
    }

    async fn whoever_may_read_can_be_asked_also_where_only_few_may_write(server: TestServer) {
        let new = NewChannel { name: "news".into(), read_only: true, ..NewChannel::default() };
        let channel = server.directory().create_channel(new).await.unwrap().id.to_string();
        for (name, role) in [("carol", RoleName::Owner), ("bob", RoleName::Member)] {
            server.directory().ensure_user(name).await.unwrap();
            server.directory().add_member("news", name, role).await.unwrap();
        }
        let (mut carol, mut bob) = (server.client("carol").await, server.client("bob").await);
        let target = ask(&mut carol, &channel).await;
        assert_eq!(bob.refused("message:send", json!({ "channel_id": channel, "body": "ok" })).await["code"], "channel_read_only");
        assert_eq!(bob.ok("message:ack", target).await["ack_count"], 1);
    }

    async fn an_archived_channel_takes_no_acknowledgement(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = ask(&mut alice, &channel).await;
        server.directory().set_channel_state("club", Some(true), None).await.unwrap();
        assert_eq!(bob.expect("channel:updated").await["archived"], true);
        assert_eq!(bob.refused("message:ack", target.clone()).await["code"], "channel_archived");
        assert_eq!(bob.ok("message:acks", target).await["ack_count"], 0);
    }

    async fn the_list_says_who_has_and_who_has_not_page_by_page(server: TestServer) {
        let channel = server.channel("team", &["alice", "bob", "carol", "dave", "erin", "fred"]).await;
        let mut alice = server.client("alice").await;
        let target = ask(&mut alice, &channel).await;
        let (mut have, mut have_not) = (Vec::new(), Vec::new());
        for (number, name) in ["bob", "carol", "dave", "erin", "fred"].into_iter().enumerate() {
            let mut client = server.client(name).await;
            match number < 3 {
                true => {
                    client.ok("message:ack", target.clone()).await;
                    have.push(id(&client));
                }
                false => have_not.push(id(&client)),
            }
        }
        have.sort();
        have_not.sort();
        assert_eq!(all(&mut alice, &target, "acked").await, have);
        assert_eq!(all(&mut alice, &target, "missing").await, have_not, "and not the author");
        server.directory().remove_member("team", "fred").await.unwrap();
        assert_eq!(all(&mut alice, &target, "missing").await.len(), 1, "who left is not waited for");
        let token = format!("Bearer {}", server.token("alice").await);
        let path = format!("GET /api/v1/channels/{channel}/messages/{}/acks?state=acked&limit=3", text(&target["message_id"]));
        let page = send(server.addr(), &path, &[("authorization", &token)], "").await;
        assert_eq!((page.status, &page.body["data"]["ack_count"]), (200, &json!(3)));
        assert!(page.body["data"]["users"][0]["acked_at"].is_string());
        for state in ["acked", "missing"] {
            let mut wrong = target.clone();
            (wrong["state"], wrong["cursor"]) = (json!(state), json!("nonsense"));
            let error = alice.refused("message:acks", wrong).await;
            assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_input"), &json!("cursor")), "{state}");
        }
    }

    async fn nobody_acknowledges_what_is_their_own_asks_for_nothing_or_is_gone(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let target = ask(&mut alice, &channel).await;
        assert_eq!(alice.refused("message:ack", target.clone()).await["code"], "failed_precondition");
        let plain = alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
        assert_eq!((&plain["message"]["priority"], &plain["message"]["ack_requested"]), (&json!("normal"), &json!(false)));
        let plain = json!({ "channel_id": channel, "message_id": plain["message"]["id"] });
        for event in ["message:ack", "message:acks"] {
            assert_eq!(bob.refused(event, plain.clone()).await["code"], "failed_precondition", "{event}");
        }
        bob.ok("message:ack", target.clone()).await;
        alice.ok("message:delete", target.clone()).await;
        for event in ["message:ack", "message:acks"] {
            assert_eq!(bob.refused(event, target.clone()).await["code"], "message_deleted", "{event}");
        }
        let gone = json!({ "channel_id": channel, "message_id": channel });
        assert_eq!(bob.refused("message:ack", gone).await["code"], "not_found");
        let wrong = json!({ "channel_id": channel, "body": "x", "priority": "maximal" });
        assert_eq!(bob.refused("message:send", wrong).await["details"]["field"], "priority");
    }

    async fn a_scheduled_message_keeps_its_priority_and_its_request(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let soon = imks::testing::clock::rfc3339(imks::testing::clock::now_micros() + 300_000);
        let request = json!({ "channel_id": channel, "body": "later", "send_at": soon, "priority": "important", "ack_requested": true });
        alice.ok("schedule:create", request).await;
        let new = bob.expect("message:new").await;
        assert_eq!((&new["priority"], &new["ack_requested"]), (&json!("important"), &json!(true)));
    }

    async fn many_who_acknowledge_at_once_are_counted_exactly(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let target = ask(&mut alice, &channel).await;
        let mut clients = Vec::new();
        for number in 0..8 {
            clients.push(server.client(&format!("user{number}")).await);
        }
        let mut asked = Vec::new();
        for client in &mut clients {
            asked.push([client.ask("message:ack", target.clone()).await, client.ask("message:ack", target.clone()).await]);
        }
        for (client, ids) in clients.iter_mut().zip(asked) {
            for id in ids {
                assert_eq!(client.answer(id).await["ok"], true);
            }
        }
        let page = alice.ok("message:acks", target).await;
        assert_eq!((&page["ack_count"], users(&page).len(), &page["next"]), (&json!(8), 8, &json!(null)));
    }
}
