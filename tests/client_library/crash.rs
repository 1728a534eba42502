//! The real server is killed while people write.

use std::time::Duration;

use imks::client::{Client, ClientEvent, FileStore, Retry, Socket, nonce};
use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::server::{self, Server};
use crate::{Via, builder, hears, within};

/// Messages between two deaths.
const MESSAGES: usize = 20;

async fn enter(url: &str, token: &str, folder: &std::path::Path) -> (Client, Socket, String) {
    let token = token.to_owned();
    let retry = Retry::forever(Duration::from_millis(20)).answer_timeout(Duration::from_secs(2));
    let client = builder(url, Via::WebSocket)
        .auth_token_provider(move || {
            let token = token.clone();
            async move { Ok(token) }
        })
        .message_retry(retry)
        .outbox(FileStore::new(folder.join("outbox")))
        .build()
        .unwrap();
    let socket = client.socket("/").unwrap();
    let mut ready = socket.stream::<Value>("session:ready");
    within(socket.connect()).await.unwrap();
    let ready = within(ready.next()).await.unwrap().unwrap();
    let channel = ready["channels"][0]["channel_id"].as_str().unwrap().to_owned();
    (client, socket, channel)
}

#[tokio::test]
async fn what_people_write_while_the_server_is_killed_is_stored_once_in_its_order() {
    let database = Database::create(Kind::Sqlite).without_rate_limits();
    let mut imks = Server::start(&database);
    let token = server::token(&database, "alice", &[]);
    let folder = tempfile::tempdir().unwrap();
    let (client, socket, channel) = enter(&imks.url(), &token, folder.path()).await;
    let mut events = client.events();
    let mut written = Vec::new();
    let mut deliveries = Vec::new();
    for round in 0..3 {
        for number in 0..MESSAGES {
            let body = format!("{round}/{number}");
            let message = json!({ "channel_id": channel, "body": body, "nonce": nonce() });
            deliveries.push(socket.send("message:send", &message).await.unwrap());
            written.push(body);
        }
        if round < 2 {
            imks.kill_and_restart(&database);
            hears(&mut events, |event| matches!(event, ClientEvent::Reconnected { .. })).await;
        }
    }
    for delivery in deliveries {
        let answer: Value = within(delivery.acknowledged()).await.unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
    }
    let page = json!({ "channel_id": channel, "limit": 100 });
    let history: Value = within(socket.emit_with_ack("history", &page).into_future()).await.unwrap();
    let messages = history["data"]["messages"].as_array().unwrap_or_else(|| panic!("{history}"));
    let mut stored: Vec<(i64, &str)> =
        messages.iter().map(|it| (it["seq"].as_i64().unwrap(), it["body"].as_str().unwrap())).collect();
    stored.sort_unstable();
    let bodies: Vec<&str> = stored.into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, written);
}
