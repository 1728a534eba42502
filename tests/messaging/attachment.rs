//! Attachments: upload, send, download, in a directory of the server and in an object store.

use std::time::Duration;

use imks::testing::clock;
use imks::testing::files::Place;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::api;
use crate::client::TestClient;
use crate::fake_s3::{self, FakeS3};
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel, text};

const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn hello(channel: &str) -> Value {
    json!({ "channel_id": channel, "filename": "grüße.txt", "mime": "text/plain", "size": 5, "sha256": HELLO_SHA256 })
}

/// Creates, uploads to the server itself, and completes.
async fn uploaded(server: &TestServer, client: &mut TestClient, channel: &str) -> String {
    let created = client.ok("attachment:create", hello(channel)).await;
    let url = text(&created["upload"]["url"]);
    assert_eq!(fake_s3::http(server.addr(), "PUT", &url, &[], b"hello").await.status, 201);
    let id = text(&created["attachment"]["id"]);
    let completed = client.ok("attachment:complete", json!({ "attachment_id": id })).await;
    assert_eq!(completed["attachment"], created["attachment"]);
    id
}

on_both! {
    async fn an_uploaded_file_is_shown_with_its_message_and_downloaded_by_members(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let id = uploaded(&server, &mut alice, &channel).await;
        let get = json!({ "channel_id": channel, "attachment_id": id });
        assert_eq!(bob.refused("attachment:get", get.clone()).await["code"], "not_found", "not sent yet");
        let send = json!({ "channel_id": channel, "body": "see this", "attachments": [id], "nonce": "n" });
        let sent = alice.ok("message:send", send.clone()).await;
        let expected = json!([{ "id": id, "filename": "grüße.txt", "mime": "text/plain", "size": 5, "sha256": HELLO_SHA256, "width": null, "height": null }]);
        assert_eq!((&sent["message"]["attachments"], &sent["message"]["attachment_count"]), (&expected, &json!(1)));
        assert_eq!(bob.expect("message:new").await["attachments"], expected);
        let history = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!(history["messages"][0]["attachments"], expected);
        let sync = json!({ "channels": [{ "channel_id": channel, "seq": 0, "rev": 0 }] });
        assert_eq!(bob.ok("sync", sync).await["channels"][0]["messages"][0]["attachments"], expected);
        assert_eq!(alice.ok("message:send", send).await["duplicate"], true, "a retry finds the first message");

        let got = bob.ok("attachment:get", get.clone()).await;
        let file = fake_s3::http(server.addr(), "GET", &text(&got["url"]), &[], b"").await;
        assert_eq!((file.status, file.body.as_slice()), (200, b"hello".as_slice()));
        assert!(file.head.contains("content-type: application/octet-stream\r\n") && file.head.contains("x-content-type-options: nosniff"), "{}", file.head);
        assert!(file.head.contains("content-disposition: attachment; filename=\"gr__e.txt\"; filename*=utf-8''gr%c3%bc%c3%9fe%2etxt"), "{}", file.head);
        let forged = text(&got["url"]).replace("name=", "name=x");
        assert_eq!(fake_s3::http(server.addr(), "GET", &forged, &[], b"").await.status, 404);

        let found = search_has_attachment(&mut bob).await;
        assert_eq!(found["messages"][0]["id"], sent["message"]["id"]);

        alice.ok("message:delete", json!({ "channel_id": channel, "message_id": sent["message"]["id"] })).await;
        assert_eq!(bob.refused("attachment:get", get).await["code"], "not_found");
        let gone = async {
            while fake_s3::http(server.addr(), "GET", &text(&got["url"]), &[], b"").await.status != 404 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(20), gone).await.expect("the bytes are removed with the message");
    }

    async fn an_edit_takes_files_out_of_a_message_and_adds_others(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(uploaded(&server, &mut alice, &channel).await);
        }
        let send = json!({ "channel_id": channel, "body": "two", "attachments": ids[..2] });
        let sent = alice.ok("message:send", send).await["message"].take();
        let edit = |attachments: Value| json!({ "channel_id": channel, "message_id": sent["id"], "body": "two", "attachments": attachments });
        let shown = |message: &Value| -> Vec<String> { message["attachments"].as_array().unwrap().iter().map(|file| text(&file["id"])).collect() };
        let changed = alice.ok("message:edit", edit(json!([ids[2], ids[1]]))).await;
        assert_eq!((shown(&changed["message"]), &changed["message"]["attachment_count"]), (vec![ids[2].clone(), ids[1].clone()], &json!(2)));
        bob.expect("message:new").await;
        let told = bob.expect("message:updated").await;
        assert_eq!((shown(&told), &told["kind"], &told["version"], &told["attachments"]), (shown(&changed["message"]), &json!("edit"), &json!(2), &changed["message"]["attachments"]));
        let again = alice.ok("message:edit", edit(json!([ids[2], ids[1]]))).await;
        assert_eq!(again["rev"], changed["rev"], "the same again changes nothing");
        let get = |id: &str| json!({ "channel_id": channel, "attachment_id": id });
        assert_eq!(bob.refused("attachment:get", get(&ids[0])).await["code"], "not_found");
        bob.ok("attachment:get", get(&ids[2])).await;
        assert_eq!(alice.refused("message:edit", edit(json!([ids[0]]))).await["code"], "not_found", "it is gone");
        let other = json!({ "channel_id": channel, "body": "x", "attachments": [ids[1]] });
        assert_eq!(alice.refused("message:send", other).await["code"], "conflict");
        assert_eq!(alice.refused("message:edit", edit(json!([ids[1], ids[1]]))).await["details"]["field"], "attachments");
        let none = alice.ok("message:edit", edit(json!([]))).await;
        assert_eq!((&none["message"]["attachments"], &none["message"]["attachment_count"]), (&json!([]), &json!(0)));
        let page = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!(page["messages"][0]["attachment_count"], 0);
    }

    async fn the_files_of_a_scheduled_message_are_sent_with_it(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let id = uploaded(&server, &mut alice, &channel).await;
        let send_at = clock::rfc3339(clock::now_micros() + 500_000);
        let later = |id: &str| json!({ "channel_id": channel, "body": "later", "send_at": send_at, "attachments": [id] });
        let missing = alice.refused("schedule:create", later("01909a00-0000-7000-8000-000000000001")).await;
        assert_eq!(missing["code"], "not_found");
        alice.ok("schedule:create", later(&id)).await;
        assert_eq!(alice.ok("attachment:remove", json!({ "attachment_id": id })).await["removed"], false);
        assert_eq!(bob.expect("message:new").await["attachments"][0]["id"], json!(id));
    }

    async fn a_part_of_a_file_can_be_downloaded(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let id = uploaded(&server, &mut alice, &channel).await;
        let url = text(&alice.ok("attachment:get", json!({ "channel_id": channel, "attachment_id": id })).await["url"]);
        let get = async |headers: &[(&str, &str)]| fake_s3::http(server.addr(), "GET", &url, headers, b"").await;
        let whole = get(&[]).await;
        assert!(whole.head.contains("accept-ranges: bytes\r\n"), "{}", whole.head);
        let tag = whole.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        for (range, part, body) in [("bytes=1-3", "1-3", "ell"), ("bytes=-2", "3-4", "lo"), ("bytes=0-", "0-4", "hello")] {
            for headers in [&[("range", range)][..], &[("range", range), ("if-range", tag)]] {
                let answer = get(headers).await;
                assert_eq!((answer.status, answer.body.as_slice()), (206, body.as_bytes()));
                let length = format!("content-length: {}\r\n", body.len());
                let range = format!("content-range: bytes {part}/5\r\n");
                assert!(answer.head.contains(&length) && answer.head.contains(&range), "{}", answer.head);
            }
        }
        let none = get(&[("range", "bytes=5-")]).await;
        assert!(none.status == 416 && none.head.contains("content-range: bytes */5\r\n"), "{}", none.head);
        for headers in [&[("range", "bytes=0-0,2-3")][..], &[("range", "bytes=1-3"), ("if-range", "\"other\"")]] {
            let answer = get(headers).await;
            assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
        }
    }

    async fn only_ones_own_uploaded_and_unused_files_can_be_sent(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let other = server.channel("other", &["alice"]).await;
        let send = |ids: Value| json!({ "channel_id": channel, "body": "x", "attachments": ids });
        let created = alice.ok("attachment:create", hello(&channel)).await;
        let pending = created["attachment"]["id"].clone();
        assert_eq!(alice.refused("message:send", send(json!([pending]))).await["details"]["field"], "attachments");
        assert_eq!(alice.refused("attachment:complete", json!({ "attachment_id": pending })).await["details"]["field"], "attachment_id");
        let id = uploaded(&server, &mut alice, &channel).await;
        assert_eq!(bob.refused("message:send", send(json!([id]))).await["code"], "not_found");
        assert_eq!(bob.refused("attachment:complete", json!({ "attachment_id": id })).await["code"], "not_found");
        assert_eq!(alice.refused("message:send", json!({ "channel_id": other, "body": "x", "attachments": [id] })).await["code"], "not_found");
        assert_eq!(alice.refused("message:send", send(json!([id, id]))).await["code"], "invalid_input");
        let (first, second) = (alice.ask("message:send", send(json!([id]))).await, alice.ask("message:send", send(json!([id]))).await);
        assert_eq!(alice.answer(first).await["ok"], true);
        assert_eq!(alice.answer(second).await["error"]["code"], "conflict", "in the same batch too");
        assert_eq!(alice.ok("attachment:remove", json!({ "attachment_id": id })).await["removed"], false, "a message has it");
        assert_eq!(alice.ok("attachment:remove", json!({ "attachment_id": pending })).await["removed"], true);
        assert_eq!(alice.refused("attachment:complete", json!({ "attachment_id": pending })).await["code"], "not_found");
    }
}

async fn search_has_attachment(client: &mut TestClient) -> Value {
    loop {
        let answer = client.call("search", json!({ "has": ["attachment"] })).await;
        if answer["data"]["messages"].as_array().is_some_and(|messages| !messages.is_empty()) {
            return answer["data"].clone();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_has_the_announced_size_and_checksum_or_is_refused() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    let created = alice.ok("attachment:create", hello(&channel)).await;
    let url = text(&created["upload"]["url"]);
    for (body, status) in [(b"hell".as_slice(), 400), (b"hallo", 400), (b"hello!", 400)] {
        assert_eq!(fake_s3::http(server.addr(), "PUT", &url, &[], body).await.status, status);
    }
    let larger = url.replace("size=5", "size=50");
    assert_eq!(fake_s3::http(server.addr(), "PUT", &larger, &[], b"hello").await.status, 404);
    assert_eq!(fake_s3::http(server.addr(), "GET", &url, &[], b"").await.status, 404, "not to download");
    assert_eq!(fake_s3::http(server.addr(), "PUT", &url, &[], b"hello").await.status, 201);
    assert_eq!(fake_s3::http(server.addr(), "PUT", &url, &[], b"hello").await.status, 409, "once");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_have_a_size_and_users_a_quota() {
    let tight = |config: &mut imks::testing::config::Config| {
        (config.attachments.size_max, config.attachments.user_bytes_max) = (8, 12);
    };
    let server = TestServer::start_with(Kind::Sqlite, tight).await;
    let mut alice = server.client("alice").await;
    assert_eq!(
        (&alice.ready["limits"]["attachments"], &alice.ready["limits"]["attachment_bytes"]),
        (&json!(10), &json!(8))
    );
    let channel = first_channel(&alice);
    let create = |size: u64| json!({ "channel_id": channel, "filename": "a", "mime": "a/b", "size": size });
    assert_eq!(alice.refused("attachment:create", create(9)).await["details"]["field"], "size");
    assert_eq!(alice.refused("attachment:create", create(0)).await["details"]["field"], "size");
    let first = alice.ok("attachment:create", create(8)).await;
    let error = alice.refused("attachment:create", create(5)).await;
    assert_eq!(
        (&error["code"], &error["details"]["limit"]),
        (&json!("limit_reached"), &json!("attachment_bytes"))
    );
    alice.ok("attachment:remove", json!({ "attachment_id": first["attachment"]["id"] })).await;
    let error = alice.refused("attachment:create", create(5)).await;
    assert_eq!(error["code"], "limit_reached", "the address of the first is still good");
    let put = fake_s3::http(server.addr(), "PUT", &text(&first["upload"]["url"]), &[], b"12345678").await;
    assert_eq!(put.status, 201);
    alice.ok("attachment:create", create(4)).await;
    server.stop().await;
}

#[allow(clippy::too_many_lines, reason = "one way of a file, from its upload to its removal")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_to_an_object_store_by_requests_that_are_signed_with_their_size_and_checksum() {
    let s3 = FakeS3::start().await;
    let endpoint = format!("http://{}", s3.addr());
    let with_s3 = move |config: &mut imks::testing::config::Config| {
        config.attachments.place = Place::S3;
        config.attachments.s3_endpoint = Some(endpoint);
        config.attachments.s3_bucket = Some("files".into());
        config.attachments.s3_key_id = Some(fake_s3::KEY_ID.into());
        config.attachments.s3_secret = Some(fake_s3::SECRET.into());
    };
    let server = TestServer::start_with(Kind::Sqlite, with_s3).await;
    let token = format!("Bearer {}", server.token("alice").await);
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    let post = |path: String, body: Value| {
        let (token, addr) = (token.clone(), server.addr());
        async move {
            api::send(addr, &format!("POST /api/v1/{path}"), &[("authorization", &token)], &body.to_string())
                .await
        }
    };
    let created = post("attachments".into(), hello(&channel)).await.data();
    let (id, upload) = (text(&created["attachment"]["id"]), &created["upload"]);
    let headers: Vec<(String, String)> = upload["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    let put = async |headers: &[(String, String)], body: &[u8]| {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        fake_s3::http(s3.addr(), "PUT", &text(&upload["url"]), &headers, body).await.status
    };
    assert_eq!(put(&headers, b"hello!").await, 403, "another size is not what was signed");
    assert_eq!(put(&headers, b"hallo").await, 400, "the checksum is that of other bytes");
    assert_eq!(put(&headers[..1], b"hello").await, 403, "a signed header is missing");
    assert_eq!(post(format!("attachments/{id}/complete"), json!({})).await.code(), (400, "invalid_input"));
    assert_eq!(put(&headers, b"hello").await, 200);
    let unconditional: Vec<_> = headers.iter().filter(|(name, _)| name != "if-none-match").cloned().collect();
    assert_eq!(put(&unconditional, b"hello").await, 403, "the condition is signed too");
    post(format!("attachments/{id}/complete"), json!({})).await.data();
    assert_eq!(put(&headers, b"hello").await, 412, "what was checked stays as it is");
    let sent =
        alice.ok("message:send", json!({ "channel_id": channel, "body": "x", "attachments": [id] })).await;
    let path = format!("GET /api/v1/channels/{channel}/attachments/{id}");
    let got = api::send(server.addr(), &path, &[("authorization", &token)], "").await.data();
    let file = fake_s3::http(s3.addr(), "GET", &text(&got["url"]), &[], b"").await;
    assert_eq!((file.status, file.body.as_slice()), (200, b"hello".as_slice()));
    let forged = text(&got["url"]).replace("octet-stream", "html");
    assert_eq!(fake_s3::http(s3.addr(), "GET", &forged, &[], b"").await.status, 403);
    alice.ok("message:delete", json!({ "channel_id": channel, "message_id": sent["message"]["id"] })).await;
    let gone = async {
        while !s3.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.expect("the object is removed with its message");
    server.stop().await;
}
