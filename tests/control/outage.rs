//! What back ends see while the core is away.

use imks::testing::pb::v1::{self, channel::Kind as ChannelKind};
use serde_json::json;
use uuid::Uuid;

use crate::backend::Backend;
use crate::core::{FakeCore, Mode};
use crate::server::Kind;

fn channel() -> v1::Channel {
    let (id, kind) = (Uuid::now_v7().to_string(), ChannelKind::Public.into());
    v1::Channel { id, kind, name: "room".into(), ..v1::Channel::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_in_a_channel_that_the_core_was_not_asked_about() {
    let (core, known, other) = (FakeCore::start().await, channel(), channel());
    core.set_channels(vec![known.clone(), other.clone()]);
    let backend = Backend::start_with(Kind::Sqlite, |config| config.core_url = Some(core.url().into())).await;
    let path = |channel: &v1::Channel| format!("/channels/{}/messages", channel.id);
    let send = async |channel: &v1::Channel| {
        let body = json!({ "content": { "body": "x" }, "request_id": "one" });
        backend.post(&path(channel), body).await
    };
    assert_eq!(send(&known).await.status, 200);
    assert_eq!(send(&channel()).await.code(), (404, "not_found"));
    for mode in [Mode::Unavailable, Mode::Wrong, Mode::Huge] {
        core.mode(mode);
        let refused = send(&other).await;
        assert_eq!(refused.code(), (503, "unavailable"), "{mode:?}");
        assert_eq!(refused.body["error"]["retryable"], true);
    }
    assert_eq!(send(&known).await.status, 200, "what is known goes on");
    core.mode(Mode::Normal);
    // The breaker lets a call through after a moment.
    let mut sent = send(&other).await;
    while sent.status == 503 {
        sent = send(&other).await;
    }
    assert_eq!(sent.body["data"]["stored"]["seq"], 1, "the attempts before left nothing: {}", sent.body);
    assert_eq!(sent.body["data"]["stored"]["duplicate"], false);
    backend.stop().await;
}
