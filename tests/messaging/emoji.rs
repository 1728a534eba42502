//! Custom emoji: who keeps them, who sees them, and what a reaction with one is.

use imks::testing::directory::FIRST_WORKSPACE;
use imks::testing::pb::v1;
use serde_json::json;
use uuid::Uuid;

use crate::core::FakeCore;
use crate::core_outage::World;
use crate::on_both;
use crate::server::first_channel;

const PARROT: &str = "https://emoji.example/parrot.gif";

on_both! {
    async fn members_see_the_emoji_of_their_workspace_and_react_with_them(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let empty = alice.ok("emoji:list", json!({ "channel_id": channel })).await;
        assert_eq!((&empty["emoji"], &empty["not_modified"]), (&json!([]), &json!(false)));
        let directory = server.directory();
        let parrot = directory.create_emoji(FIRST_WORKSPACE, "party_parrot", PARROT).await.unwrap();
        let listed = alice.ok("emoji:list", json!({ "channel_id": channel, "etag": empty["etag"] })).await;
        let shown = json!({ "id": parrot.id, "workspace_id": FIRST_WORKSPACE, "name": "party_parrot", "image_url": PARROT });
        assert_eq!((&listed["emoji"], &listed["not_modified"]), (&json!([shown]), &json!(false)));
        let same = alice.ok("emoji:list", json!({ "channel_id": channel, "etag": listed["etag"] })).await;
        assert_eq!((&same["emoji"], &same["not_modified"], &same["etag"]), (&json!([]), &json!(true), &listed["etag"]));
        assert_eq!(alice.ok("emoji:get", json!({ "channel_id": channel, "emoji_id": parrot.id })).await["emoji"], shown);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
        let reaction = json!({ "channel_id": channel, "message_id": sent["message"]["id"], "emoji": ":party_parrot:" });
        assert_eq!(alice.ok("reaction:add", reaction).await["count"], 1);

        directory.remove_emoji(FIRST_WORKSPACE, "party_parrot").await.unwrap();
        let listed = alice.ok("emoji:list", json!({ "channel_id": channel, "etag": listed["etag"] })).await;
        assert_eq!((&listed["emoji"], &listed["not_modified"]), (&json!([]), &json!(false)));
        assert_eq!(alice.refused("emoji:get", json!({ "channel_id": channel, "emoji_id": parrot.id })).await["code"], "not_found");
    }

    async fn a_stranger_does_not_learn_what_a_channel_has(server: TestServer) {
        let hidden = server.channel("hidden", &["bob"]).await;
        let mut alice = server.client("alice").await;
        assert_eq!(alice.refused("emoji:list", json!({ "channel_id": hidden })).await["code"], "not_found");
        let long = json!({ "channel_id": first_channel(&alice), "etag": "x".repeat(129) });
        assert_eq!(alice.refused("emoji:list", long).await["code"], "invalid_input");
    }

    async fn a_name_stands_once_and_needs_a_picture(server: TestServer) {
        let add = async |name: &str, url: &str| {
            server.directory().create_emoji(FIRST_WORKSPACE, name, url).await.map_err(|error| error.code().as_str())
        };
        add("ok", PARROT).await.unwrap();
        assert_eq!(add("ok", PARROT).await.unwrap_err(), "conflict");
        for (name, url) in [("", PARROT), ("a b", PARROT), (&"x".repeat(63), PARROT), ("a", ""), ("a", "javascript:1")] {
            assert_eq!(add(name, url).await.unwrap_err(), "invalid_input", "{name:?} {url}");
        }
        let missing = server.directory().remove_emoji(FIRST_WORKSPACE, "other").await.unwrap_err();
        assert_eq!(missing.code(), "not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_core_keeps_the_emoji_or_has_none() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let user = world.user();
    let mut alice = world.client(user).await;
    let (channel, workspace) = (first_channel(&alice), Uuid::now_v7().to_string());
    world.core.set_channels(vec![v1::Channel {
        id: channel.clone(),
        workspace_id: workspace.clone(),
        kind: v1::channel::Kind::Public.into(),
        name: "general".into(),
        ..Default::default()
    }]);
    let id = Uuid::now_v7().to_string();
    world.core.set_emoji(vec![v1::Emoji {
        id: id.clone(),
        workspace_id: workspace.clone(),
        name: "ship".into(),
        image_url: PARROT.into(),
    }]);
    let listed = alice.ok("emoji:list", json!({ "channel_id": channel })).await;
    assert_eq!(
        listed["emoji"][0],
        json!({ "id": id, "workspace_id": workspace, "name": "ship", "image_url": PARROT })
    );
    assert_eq!(listed["etag"], "1");
    assert_eq!(
        alice.ok("emoji:list", json!({ "channel_id": channel, "etag": "1" })).await["not_modified"],
        true
    );
    world.core.without_extras();
    assert_eq!(alice.ok("emoji:list", json!({ "channel_id": channel })).await["emoji"], json!([]));
    assert_eq!(
        alice.refused("emoji:get", json!({ "channel_id": channel, "emoji_id": id })).await["code"],
        "not_found"
    );
}
