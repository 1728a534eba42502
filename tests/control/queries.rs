//! What a back end learns about users, and what it deletes for good.

use imks::testing::pb::control::{
    GetPresenceRequest, GetSessionsRequest, PurgeUserRequest, purge_user_request::Mode,
};
use serde_json::json;

use crate::on_both;
use crate::server::{first_channel, text};

on_both! {
    async fn a_back_end_sees_who_is_connected_and_what_they_have_not_read(backend: Backend) {
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let (user, channel) = (text(&alice.ready["user"]["id"]), first_channel(&alice));
        let sessions = backend.get(&format!("/sessions?user_id={user}")).await.body;
        let session = &sessions["data"]["sessions"][0];
        assert_eq!(sessions["data"]["sessions"].as_array().unwrap().len(), 1, "{sessions}");
        assert_eq!((&session["user_id"], &session["transport"]), (&json!(user), &json!("websocket")));
        assert!(text(&session["peer"]).starts_with("127.0.0.1:") && session["connected_us"].as_i64() > Some(0));
        assert_eq!(session["username"], "alice");
        assert_eq!(session["rtt_us"], 0, "there was no ping yet");
        let everybody = backend.grpc().await.get_sessions(GetSessionsRequest::default()).await.unwrap();
        assert_eq!(everybody.into_inner().sessions.len(), 2);
        alice.ok("channel:unsubscribe", json!({ "channel_ids": [channel] })).await;
        bob.ok("channel:focus", json!({ "channel_ids": [] })).await;
        for (query, count) in [("", 1), (&*format!("&user_id={user}"), 0)] {
            let there = backend.get(&format!("/sessions?channel_id={channel}{query}")).await.body;
            assert_eq!(there["data"]["sessions"].as_array().unwrap().len(), count, "{query}: {there}");
        }
        alice.ok("channel:subscribe", json!({ "channel_ids": [channel] })).await;
        alice.ok("presence:set", json!({ "status": "dnd" })).await;
        let nobody = uuid::Uuid::nil().to_string();
        let asked = GetPresenceRequest { user_ids: vec![user.clone(), nobody] };
        let presences = backend.grpc().await.get_presence(asked).await.unwrap().into_inner().presences;
        let statuses: Vec<_> = presences.iter().map(|it| it.status.as_str()).collect();
        assert_eq!(statuses, ["dnd", "offline"]);
        let message = json!({ "content": { "body": "hello" } });
        backend.post(&format!("/channels/{channel}/messages"), message).await;
        let unread = backend.get(&format!("/users/{user}/unread?channel_ids={channel}")).await.body;
        let count = &unread["data"]["counts"][0];
        assert_eq!((&count["unread"], &count["last_seq"]), (&json!(1), &json!(1)), "{unread}");
        assert_eq!(backend.get(&format!("/users/{user}/unread")).await.body["data"]["counts"], json!([count]));
        drop(bob);
    }

    async fn a_purged_channel_and_an_erased_user_leave_nothing_and_their_readers_are_told(backend: Backend) {
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let (user, channel) = (text(&alice.ready["user"]["id"]), first_channel(&alice));
        let said = alice.ok("message:send", json!({ "channel_id": channel, "body": "secret" })).await;
        bob.expect("message:new").await;
        let mut grpc = backend.grpc().await;
        let erase = PurgeUserRequest { user_id: user.clone(), mode: Mode::Erase.into(), ..PurgeUserRequest::default() };
        let answer = grpc.purge_user(erase).await.unwrap().into_inner();
        assert_eq!((answer.purged, answer.remaining), (1, false));
        assert_eq!(bob.expect("message:deleted").await["id"], said["message"]["id"]);
        bob.ok("message:send", json!({ "channel_id": channel, "body": "another secret" })).await;
        let purged = backend.post(&format!("/channels/{channel}/purge"), json!({})).await;
        assert_eq!(purged.body["data"], json!({ "purged": 2, "remaining": false }), "the tombstone and the message");
        let history = backend.get(&format!("/channels/{channel}/messages")).await.body;
        assert!(!history.to_string().contains("secret"), "{history}");
        let reader = backend.key("reader", "read,publish").await;
        let refused = backend.post_as(&reader, &format!("/users/{user}/purge"), &[], json!({ "mode": "erase" })).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (403, &json!("forbidden")));
        let unclear = backend.post(&format!("/users/{user}/purge"), json!({})).await;
        assert_eq!((unclear.status, &unclear.body["error"]["details"]["field"]), (400, &json!("mode")));
    }
}
