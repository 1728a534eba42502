//! What back ends do to users, their connections and channels, with the embedded directory.

use std::time::Duration;

use imks::testing::pb::control::sync_membership_request::Change;
use imks::testing::pb::control::{
    DisconnectAllRequest, KickUserRequest, RevokeSessionRequest, SetChannelPolicyRequest,
    SyncMembershipRequest,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::client::TestClient;
use crate::on_both;
use crate::server::{first_channel, text};

pub fn user_of(client: &TestClient) -> String {
    text(&client.ready["user"]["id"])
}

fn change(user: &str, channel: &str, change: Change, version: i64) -> SyncMembershipRequest {
    SyncMembershipRequest { user_id: user.into(), channel_id: channel.into(), change: change.into(), version }
}

/// The payload of the next event with this name, within a second.
pub async fn within_a_second(client: &mut TestClient, name: &str) -> Value {
    let started = Instant::now();
    let payload = timeout(Duration::from_secs(5), client.expect(name)).await.expect(name);
    assert!(started.elapsed() < Duration::from_secs(1), "{name} took {:?}", started.elapsed());
    payload
}

on_both! {
    async fn a_ban_that_has_ended_is_refused_with_the_field_that_says_when_it_ends(backend: Backend) {
        backend.client("alice").await;
        let ban = json!({ "place": "general", "user": "alice", "reason": "", "ends_at": "2020-01-01T00:00:00Z" });
        let refused = backend.put("/bans", ban).await;
        assert_eq!((refused.code(), refused.field()), ((400, "invalid_input"), "ends_at"), "{}", refused.body);
    }

    async fn who_is_kicked_from_a_channel_is_told_why_and_is_no_member_any_more(backend: Backend) {
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let (user, channel) = (user_of(&alice), first_channel(&alice));
        let path = format!("/users/{user}/kick");
        let body = json!({ "channel_id": channel, "reason": "spam", "request_id": "kick-1" });
        let kicked = backend.post(&path, body.clone()).await;
        assert_eq!((kicked.status, &kicked.body["data"]["sockets"]), (200, &json!(1)), "{}", kicked.body);
        let left = within_a_second(&mut alice, "channel:left").await;
        assert_eq!(left, json!({ "channel_id": channel, "reason": "kicked", "message": "spam" }));
        let message = json!({ "channel_id": channel, "body": "still here?" });
        assert_ne!(alice.call("message:send", message.clone()).await["ok"], true);
        bob.ok("message:send", message).await;
        assert_eq!(alice.events_so_far().await, [], "she hears no more of it, and was told once");
        let members = backend.directory().members(&channel).await.unwrap();
        assert!(members.iter().all(|member| member.username != "alice"));
        backend.directory().add_member("general", "alice", Default::default()).await.unwrap();
        assert_eq!(alice.expect("channel:joined").await["channel_id"], channel);
        assert_eq!(backend.post(&path, body).await.body["data"]["sockets"], 1, "the first answer");
        assert_eq!(alice.events_so_far().await, [], "a repeat changes nothing");
    }

    async fn who_is_kicked_out_is_told_why_and_does_not_come_back_by_themselves(backend: Backend) {
        let (mut phone, mut laptop) = (backend.client("alice").await, backend.client("alice").await);
        let mut bob = backend.client("bob").await;
        let request = KickUserRequest {
            user_id: user_of(&phone),
            reason: "go home".into(),
            ..KickUserRequest::default()
        };
        let kicked = backend.grpc().await.kick_user(request).await.unwrap().into_inner();
        assert_eq!(kicked.sockets, 2);
        for device in [&mut phone, &mut laptop] {
            let ended = within_a_second(device, "session:ended").await;
            assert_eq!(ended, json!({ "reason": "kicked", "message": "go home", "reconnect": false }));
            assert!(device.was_dismissed().await, "a stock client stays away after a DISCONNECT packet");
        }
        assert_eq!(bob.events_so_far().await, [], "nobody else is concerned");
    }

    async fn tokens_of_a_revoked_session_are_void_and_its_connection_ends(backend: Backend) {
        let token = backend.token("alice").await;
        let mut alice = TestClient::connect(backend.addr(), &token).await;
        let mut tablet = backend.client("alice").await;
        let session = text(&alice.ready["session_id"]);
        let request = RevokeSessionRequest {
            session_id: session,
            reason: "stolen".into(),
            request_id: "revoke-1".into(),
            ..RevokeSessionRequest::default()
        };
        let mut grpc = backend.grpc().await;
        grpc.revoke_session(request.clone()).await.unwrap();
        grpc.revoke_session(request).await.unwrap();
        assert_eq!(within_a_second(&mut alice, "auth:revoked").await, json!({ "message": "stolen" }));
        assert!(alice.was_dismissed().await);
        let refused = TestClient::open(backend.addr()).await.join(json!({ "token": token })).await.unwrap_err();
        assert_eq!(refused["data"]["code"], "token_revoked");
        assert_eq!(tablet.events_so_far().await, [], "her other session goes on");
        let revoked = backend.post("/sessions/revoke", json!({ "user_id": user_of(&tablet) })).await;
        assert_eq!(revoked.status, 200, "{}", revoked.body);
        assert_eq!(within_a_second(&mut tablet, "auth:revoked").await, json!({}));
        assert!(tablet.was_dismissed().await);
    }

    async fn connections_can_be_ended_by_user_channel_program_and_all_at_once_and_come_back(backend: Backend) {
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let mut kiosk = TestClient::open(backend.addr()).await;
        let token = backend.token("carol").await;
        kiosk.join(json!({ "token": token, "client": { "name": "kiosk" } })).await.unwrap();
        let node = text(&alice.ready["server"]["node"]);
        let end = async |body: Value| {
            let ended = backend.post("/sessions/disconnect", body.clone()).await;
            assert_eq!(ended.status, 200, "{body}: {}", ended.body);
            ended.body["data"]["sockets"].as_i64().unwrap()
        };
        assert_eq!(end(json!({ "node": "elsewhere" })).await, 0);
        assert_eq!(end(json!({ "client_name": "kiosk", "user_id": user_of(&alice) })).await, 0);
        assert_eq!(end(json!({ "client_name": "kiosk", "reason": "new version" })).await, 1);
        let told = within_a_second(&mut kiosk, "session:ended").await;
        assert_eq!(told, json!({ "reason": "disconnected", "message": "new version", "reconnect": true }));
        assert!(!kiosk.was_dismissed().await, "a stock client comes back after a closed transport");
        assert_eq!(end(json!({ "user_id": user_of(&alice), "node": node })).await, 1);
        alice.ended().await;
        let mut alice = backend.client("alice").await;
        assert_eq!(bob.events_so_far().await, []);
        assert_eq!(end(json!({ "channel_id": first_channel(&bob) })).await, 2);
        alice.ended().await;
        bob.ended().await;
        let mut clients = [backend.client("alice").await, backend.client("bob").await];
        let everybody = DisconnectAllRequest { everybody: true, ..DisconnectAllRequest::default() };
        let ended = backend.grpc().await.disconnect_all(everybody).await.unwrap().into_inner();
        assert_eq!(ended.sockets, 2);
        for client in &mut clients {
            client.ended().await;
        }
        for body in [json!({}), json!({ "everybody": true, "node": node })] {
            let refused = backend.post("/sessions/disconnect", body).await;
            assert_eq!(refused.body["error"]["details"]["field"], "everybody", "{}", refused.body);
        }
    }

    async fn members_are_told_in_a_stream_and_the_newest_version_counts(backend: Backend) {
        let channel = backend.channel("club", &["bob"]).await;
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let user = user_of(&alice);
        let stranger = Uuid::now_v7().to_string();
        let changes = futures_util::stream::iter([
            change(&user, &channel, Change::Joined, 5),
            change(&user, &channel, Change::Left, 4),
            change(&stranger, &channel, Change::Joined, 1),
            change(&user, &channel, Change::Joined, 5),
            change("alice", &channel, Change::Joined, 1),
        ]);
        let mut answers = backend.grpc().await.sync_membership(changes).await.unwrap().into_inner();
        let mut seen = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            seen.push((answer.applied, answer.failure.map(|failure| failure.code).unwrap_or_default()));
        }
        let expected = [(true, ""), (false, ""), (false, "not_found"), (true, ""), (false, "invalid_payload")];
        assert_eq!(seen, expected.map(|(applied, code)| (applied, code.to_owned())));
        let joined = within_a_second(&mut alice, "channel:joined").await;
        assert_eq!(joined, json!({ "channel_id": channel, "name": "club" }));
        bob.ok("message:send", json!({ "channel_id": channel, "body": "welcome" })).await;
        assert_eq!(within_a_second(&mut alice, "message:new").await["body"], "welcome");
        let list = json!({ "items": [
            { "user_id": user, "channel_id": channel, "change": "left", "version": 6 },
            { "user_id": user, "channel_id": channel, "change": "joined", "version": 5 },
        ] });
        let told = backend.post("/memberships/sync", list).await;
        let results = json!([{ "applied": true, "failure": null }, { "applied": false, "failure": null }]);
        assert_eq!(told.body["data"]["results"], results, "{}", told.body);
        let left = within_a_second(&mut alice, "channel:left").await;
        assert_eq!(left, json!({ "channel_id": channel, "reason": "removed" }));
        bob.ok("message:send", json!({ "channel_id": channel, "body": "gone" })).await;
        assert_eq!(alice.events_so_far().await, []);
    }

    async fn who_is_made_a_member_hears_what_is_published_after_the_answer(backend: Backend) {
        let mut alice = backend.client("alice").await;
        for round in 0..10 {
            let name = format!("team-{round}");
            let made = backend.put("/channels", json!({ "name": name, "kind": "private" })).await;
            let channel = text(&made.body["data"]["id"]);
            let put = backend.put("/members", json!({ "place": name, "user": "alice" })).await;
            assert_eq!(put.status, 200, "{}", put.body);
            let event = json!({ "target": { "channel_id": channel }, "event": "app:welcome", "payload": round });
            assert_eq!(backend.post("/broadcast", event).await.status, 200);
            assert_eq!(within_a_second(&mut alice, "app:welcome").await, json!(round));
            let content = json!({ "content": { "body": "welcome" } });
            assert_eq!(backend.post(&format!("/channels/{channel}/messages"), content).await.status, 200);
            assert_eq!(within_a_second(&mut alice, "message:new").await["channel_id"], channel);
        }
    }

    async fn text_that_cannot_be_stored_is_refused_with_its_field(backend: Backend) {
        let ban = json!({ "place": "main/", "user": "alice", "reason": "a\0b" });
        let tokens = backend.get("/tokens?user=%00").await;
        for (answer, field) in [
            (backend.put("/users", json!({ "name": "x\0y" })).await, "name"),
            (backend.put("/bans", ban).await, "reason"),
            (tokens, "user"),
        ] {
            let told = &answer.body["error"]["details"]["field"];
            assert_eq!((answer.code(), told), ((400, "invalid_input"), &json!(field)), "{}", answer.body);
        }
    }

    async fn a_workspace_is_no_channel_that_somebody_joins_or_leaves(backend: Backend) {
        let alice = backend.client("alice").await;
        let workspace = backend.get("/workspaces").await.body["data"]["workspaces"][0]["id"].clone();
        let members = async || backend.get("/members?place=main/").await.body["data"]["members"].clone();
        let before = members().await;
        for change in ["joined", "left"] {
            let item = json!({ "user_id": user_of(&alice), "channel_id": workspace, "change": change });
            let told = backend.post("/memberships/sync", json!({ "items": [item] })).await;
            let failure = &told.body["data"]["results"][0]["failure"];
            assert_eq!(failure["code"], "not_found", "{}", told.body);
        }
        assert_eq!(members().await, before);
    }

    async fn a_policy_changes_the_channel_in_the_directory(backend: Backend) {
        let mut alice = backend.client("alice").await;
        let channel = first_channel(&alice);
        let request = SetChannelPolicyRequest {
            channel_id: channel.clone(),
            read_only: Some(true),
            retention_days: Some(30),
            request_id: "policy-1".into(),
            ..SetChannelPolicyRequest::default()
        };
        backend.grpc().await.set_channel_policy(request).await.unwrap();
        let updated = within_a_second(&mut alice, "channel:updated").await;
        assert_eq!((&updated["read_only"], &updated["slow_mode_s"]), (&json!(true), &json!(0)));
        let refused = alice.refused("message:send", json!({ "channel_id": channel, "body": "x" })).await;
        assert_eq!(refused["code"], "channel_read_only");
        let path = format!("/channels/{channel}/policy");
        let body = json!({ "read_only": false, "slow_mode_s": 60 });
        assert_eq!(backend.post(&path, body).await.status, 200);
        assert_eq!(within_a_second(&mut alice, "channel:updated").await["slow_mode_s"], 60);
        alice.ok("message:send", json!({ "channel_id": channel, "body": "x" })).await;
        let refused = alice.refused("message:send", json!({ "channel_id": channel, "body": "y" })).await;
        assert_eq!(refused["code"], "slow_mode");
        let stored = backend.directory().channel_named(&channel).await.unwrap().unwrap();
        assert_eq!((stored.retention_days, stored.slow_mode_s), (30, 60), "what was not named stays");
        let again = json!({ "slow_mode_s": 21_601 });
        assert_eq!(backend.post(&path, again).await.body["error"]["details"]["field"], "slow_mode_s");
    }

    async fn each_call_needs_its_scope_and_names_that_exist(backend: Backend) {
        let alice = backend.client("alice").await;
        let (user, channel) = (user_of(&alice), first_channel(&alice));
        let reader = backend.key("reader", "read,publish").await;
        let nobody = Uuid::now_v7();
        for (path, body, scope) in [
            (format!("/users/{user}/kick"), json!({}), "moderate"),
            ("/sessions/revoke".into(), json!({ "user_id": user }), "moderate"),
            ("/sessions/disconnect".into(), json!({ "everybody": true }), "moderate"),
            ("/permissions/invalidate".into(), json!({}), "users"),
            ("/memberships/sync".into(), json!({ "items": [] }), "users"),
            (format!("/channels/{channel}/policy"), json!({}), "users"),
            ("/signing-keys/refresh".into(), json!({}), "users"),
        ] {
            let refused = backend.post_as(&reader, &path, &[], body).await;
            assert_eq!(refused.code(), (403, "forbidden"), "{path}: {}", refused.body);
            assert_eq!(refused.body["error"]["details"]["permission"], scope, "{path}");
        }
        for (path, body, code) in [
            (format!("/users/{nobody}/kick"), json!({}), "not_found"),
            (format!("/users/{user}/kick"), json!({ "channel_id": nobody }), "not_found"),
            ("/users/alice/kick".into(), json!({}), "invalid_payload"),
            (format!("/users/{user}/kick"), json!({ "reason": "x".repeat(257) }), "invalid_input"),
            ("/sessions/revoke".into(), json!({ "user_id": nobody }), "not_found"),
            ("/sessions/revoke".into(), json!({}), "invalid_input"),
            ("/sessions/revoke".into(), json!({ "user_id": user, "session_id": nobody }), "invalid_input"),
            (format!("/channels/{nobody}/policy"), json!({ "archived": true }), "not_found"),
            ("/permissions/invalidate".into(), json!({ "user_id": "alice" }), "invalid_payload"),
            ("/memberships/sync".into(), json!({ "items": vec![json!({}); 1_001] }), "invalid_input"),
        ] {
            let refused = backend.post(&path, body.clone()).await;
            assert_eq!(refused.code().1, code, "{path} {body}: {}", refused.body);
        }
        let (invalidated, refreshed) = (
            backend.post("/permissions/invalidate", json!({ "user_id": user, "version": 7 })).await,
            backend.post("/signing-keys/refresh", json!({})).await,
        );
        assert_eq!((invalidated.status, refreshed.status), (200, 200), "{}", invalidated.body);
    }

    async fn a_stream_ends_when_its_key_is_revoked(backend: Backend) {
        let (alice, key) = (backend.client("alice").await, backend.key("sync", "users").await);
        let (user, channel) = (user_of(&alice), first_channel(&alice));
        let (sender, changes) = tokio::sync::mpsc::channel(1);
        let changes = futures_util::stream::unfold(changes, |mut changes| async {
            changes.recv().await.map(|change| (change, changes))
        });
        let mut answers = backend.grpc_with(&key).await.sync_membership(changes).await.unwrap().into_inner();
        sender.send(change(&user, &channel, Change::Joined, 1)).await.unwrap();
        assert!(answers.message().await.unwrap().unwrap().applied);
        imks::testing::models::api_key::revoke(&backend.db().await, "sync", 1).await.unwrap();
        let ended = async {
            loop {
                // Once the stream has ended, nobody takes what is sent.
                let _ = sender.send(change(&user, &channel, Change::Joined, 1)).await;
                if let Err(status) = answers.message().await {
                    return status;
                }
            }
        };
        let status = timeout(Duration::from_secs(3), ended).await.expect("within a second or so");
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
    }
}
