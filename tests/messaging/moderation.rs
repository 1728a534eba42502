//! What is sensitive is asked of the core each time: the permission, and the token.

use imks::testing::pb::v1;
use serde_json::json;
use uuid::Uuid;

use crate::client::TestClient;
use crate::core::{FakeCore, Mode};
use crate::server::{Kind, TestServer, first_channel};
use crate::token::Key;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moderator_whose_token_the_core_no_longer_wants_deletes_nothing() {
    let (core, key) = (FakeCore::start().await, Key::ed25519("ed"));
    let (author, moderator, channel) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    core.set_keys(vec![key.listed()]);
    for user in [author, moderator] {
        core.set_bits(user, channel, u64::MAX);
        let membership = v1::Membership {
            user_id: user.to_string(),
            channel_id: channel.to_string(),
            channel_name: "club".into(),
            ..Default::default()
        };
        core.set_memberships(user, vec![membership]);
    }
    let known = |id: Uuid| v1::User { id: id.to_string(), username: "carol".into(), ..Default::default() };
    core.set_users(vec![known(moderator)]);
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.core_url = Some(core.url().into())).await;
    let mut alice = TestClient::connect(server.addr(), &key.token(author)).await;
    let mut carol = TestClient::connect(server.addr(), &key.token(moderator)).await;
    let channel = first_channel(&alice);
    let mut targets = Vec::new();
    for body in ["spam", "more", "and more"] {
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
        targets.push(json!({ "channel_id": channel, "message_id": sent["message"]["id"] }));
    }
    assert_eq!(core.calls("verify_token"), 0, "what is not sensitive asks nobody");

    carol.ok("message:delete", targets[0].clone()).await;
    assert_eq!(core.calls("verify_token"), 1);

    core.mode(Mode::Unavailable);
    assert_eq!(carol.refused("message:delete", targets[1].clone()).await["code"], "unavailable");

    core.mode(Mode::Normal);
    core.set_users(vec![]);
    assert_eq!(carol.refused("message:delete", targets[2].clone()).await["code"], "unauthenticated");
    server.stop().await;
}
