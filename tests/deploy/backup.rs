//! `imks backup`, and what a server has that is started with one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::client::TestClient;
use super::run::{imks, imks_with};
use super::server::{Kind, TestServer, first_channel, text};

/// Messages that are written before the backup begins.
const BEFORE: usize = 40;
/// Messages that are at least written while it is being made, or after it.
const AFTER: usize = 40;

/// The numbers and texts of all messages of a channel, oldest first.
async fn history(client: &mut TestClient, channel: &str) -> Vec<(u64, String)> {
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let before = messages.first().map(|message| message["id"].clone());
        let mut request = json!({ "channel_id": channel, "limit": 100 });
        if let Some(before) = before {
            request["before"] = before;
        }
        let mut page = client.ok("history", request).await;
        let mut older: Vec<Value> = page["messages"].as_array_mut().unwrap().drain(..).collect();
        older.append(&mut messages);
        messages = older;
        if page["has_more_before"] == false {
            return messages.iter().map(|it| (it["seq"].as_u64().unwrap(), text(&it["body"]))).collect();
        }
    }
}

/// Writes until it is told to stop, and counts what was acknowledged.
async fn write(
    mut writer: TestClient,
    channel: String,
    count: watch::Sender<usize>,
    stop: watch::Receiver<bool>,
) {
    let mut written = 0;
    while !*stop.borrow() {
        let (body, nonce) = (format!("message {written}"), format!("n{written}"));
        writer.ok("message:send", json!({ "channel_id": channel, "body": body, "nonce": nonce })).await;
        written += 1;
        count.send_replace(written);
    }
}

/// A server with a copy of the backup as its database.
async fn restored(backup: &Path, data: PathBuf) -> TestServer {
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(backup, data.join("imks.db")).unwrap();
    TestServer::start_with(Kind::Sqlite, |config| config.database.data_dir = data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_of_a_server_that_is_written_to_has_every_message_that_was_acknowledged_before_it() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (writer, mut reader) = (server.client("ann").await, server.client("ben").await);
    let channel = first_channel(&writer);
    let (count, mut counted) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    let writing = tokio::task::spawn(write(writer, channel.clone(), count, stopped));
    let acknowledged = *counted.wait_for(|written| *written >= BEFORE).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("backup.db");
    let data = server.database().data_dir.to_str().unwrap().to_owned();
    let made = imks(&["backup", backup.to_str().unwrap(), "--data-dir", &data]).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert!(
        made.out.contains("messages, ") && made.err.contains("attachments after it"),
        "{} {}",
        made.out,
        made.err
    );
    let after = *counted.borrow() + AFTER;
    counted.wait_for(|written| *written >= after).await.unwrap();
    stop.send_replace(true);
    writing.await.unwrap();
    let original = history(&mut reader, &channel).await;
    server.stop().await;

    assert_eq!(std::fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let restored = restored(&backup, place.path().join("restored")).await;
    let mut reader = restored.client("ben").await;
    assert_eq!(first_channel(&reader), channel, "users, channels and members are in it");
    let kept = history(&mut reader, &channel).await;
    assert!(
        kept.len() >= acknowledged && kept.len() < original.len(),
        "{acknowledged} {} {}",
        kept.len(),
        original.len()
    );
    assert_eq!(kept, original[..kept.len()]);
    let next =
        reader.ok("message:send", json!({ "channel_id": channel, "body": "on", "nonce": "next" })).await;
    assert_eq!(
        next["message"]["seq"].as_u64().or(next["seq"].as_u64()),
        Some(kept.len() as u64 + 1),
        "{next}"
    );
    restored.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_overwrites_nothing_and_leaves_nothing_behind_when_it_fails() {
    let server = TestServer::start(Kind::Sqlite).await;
    let data = server.database().data_dir.to_str().unwrap().to_owned();
    let place = tempfile::tempdir().unwrap();
    let name = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(name("there"), "precious").unwrap();
    let refused = imks(&["backup", &name("there"), "--data-dir", &data]).await;
    assert!(refused.code == Some(78) && refused.err.contains("exists already"), "{}", refused.err);
    assert_eq!(std::fs::read_to_string(name("there")).unwrap(), "precious");
    let nowhere = imks(&["backup", &name("missing/backup.db"), "--data-dir", &data]).await;
    assert!(nowhere.code == Some(1) && nowhere.err.contains("cannot create"), "{}", nowhere.err);
    let nothing = imks(&["backup", &name("backup.db"), "--data-dir", &name("empty")]).await;
    assert!(nothing.code == Some(78) && nothing.err.contains("there is no database"), "{}", nothing.err);
    let left: Vec<_> =
        std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["there"]);
    server.stop().await;
}

#[tokio::test]
async fn for_postgresql_the_command_to_use_is_told() {
    let url = [("DATABASE_URL", "postgres://imks:hunter2@127.0.0.1:1/imks")];
    let told = imks_with(&["backup", "backup.db"], &url, "").await;
    assert_eq!(told.code, Some(78));
    assert!(told.err.contains("pg_dump --format=custom") && !told.err.contains("hunter2"), "{}", told.err);
}
