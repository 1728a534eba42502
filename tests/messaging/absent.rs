//! Notifications for those whom a message mentions while they are not connected.

use std::time::Duration;

use imks::testing::pb::v1;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::core::FakeCore;
use crate::core_outage::World;
use crate::server::first_channel;

/// Waits until the core was told of as many notifications.
async fn notified(core: &FakeCore, count: usize) -> Vec<v1::Notification> {
    let told = async {
        loop {
            let told = core.notified();
            if told.len() >= count {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("the core was not told")
}

fn mention(channel: &str, users: &[Uuid]) -> Value {
    json!({ "channel_id": channel, "body": "look", "mentions": { "users": users } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_core_is_told_of_those_who_are_mentioned_and_away() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let (alice_id, bob) = (world.user(), Uuid::now_v7());
    let mut alice = world.client(alice_id).await;
    let channel = first_channel(&alice);
    let sent = alice.ok("message:send", mention(&channel, &[bob])).await;
    let told = notified(&world.core, 1).await;
    let message = &sent["message"];
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].user_id, bob.to_string());
    assert_eq!((&json!(told[0].message_id), &json!(told[0].seq)), (&message["id"], &message["seq"]));
    assert_eq!((&told[0].channel_id, &told[0].author_id), (&channel, &alice_id.to_string()));
    assert_eq!(told[0].author_username, "alice");

    // Nobody is told of who is there, of silent messages, or of messages without a mention.
    let mut tablet = world.client(alice_id).await;
    let silent = json!({ "channel_id": channel, "body": "x", "mentions": { "users": [bob] }, "flags": 1 });
    alice.ok("message:send", json!({ "channel_id": channel, "body": "nobody" })).await;
    alice.ok("message:send", mention(&channel, &[alice_id])).await;
    tablet.ok("message:send", silent).await;
    let last = alice.ok("message:send", mention(&channel, &[bob])).await;
    let told = notified(&world.core, 2).await;
    assert_eq!(json!(told.last().unwrap().message_id), last["message"]["id"]);
    assert!(told.iter().all(|it| it.user_id == bob.to_string()), "{told:?}");
    assert!(told.iter().all(|it| it.id.len() == 36) && told[0].id != told[1].id);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_that_takes_none_is_asked_once() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    world.core.without_extras();
    let user = world.user();
    let mut alice = world.client(user).await;
    let channel = first_channel(&alice);
    let asked = async {
        while world.core.calls("enqueue") == 0 {
            alice.ok("message:send", mention(&channel, &[Uuid::now_v7()])).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("the core is asked");
    let asked = world.core.calls("enqueue");
    for _ in 0..20 {
        alice.ok("message:send", mention(&channel, &[Uuid::now_v7()])).await;
    }
    assert_eq!((asked, world.core.calls("enqueue")), (1, 1));
    world.server.stop().await;
}
