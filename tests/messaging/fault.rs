//! What users see while the machine of their server fails it, and for how long; docs/operations.md ("Repair") has the table.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use rustix::process::Resource;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::TestClient;
use crate::command_line::{imks, text};
use crate::http::get;
use crate::machine::{Machine, World, mounting_shell};
use crate::speaker::Speaker;

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_messages_for_now_and_takes_them_when_there_is_space() {
    let Some(shell) = mounting_shell() else { return };
    let world = World::new();
    let token = world.token("alice", "1h");
    std::fs::rename(world.data(), world.path("seed")).unwrap();
    std::fs::create_dir(world.data()).unwrap();
    let seed = world.path("seed").display().to_string();
    let small = format!("mount -t tmpfs -o size=6m tmpfs {0} && cp -a {seed}/. {0} &&", world.data());
    let machine = world.serve_by(shell, &small);
    let mut alice = Speaker::connect(machine.address, &token).await;
    alice.says("before").await;
    let filler = machine.root().join(world.path("data/filler").strip_prefix("/").unwrap());
    fill(&filler);
    alice.is_refused_for_now("when it is full").await;
    alice.finds_what_was_acknowledged().await;
    assert_eq!(get(machine.operators, "/health/live").await.0, 200, "a restart would not help");
    assert_eq!(get(machine.operators, "/health/ready").await.0, 503, "nobody new should come here");
    std::fs::remove_file(&filler).unwrap();
    alice.says("when it is full").await;
    alice.finds_what_was_acknowledged().await;
    while get(machine.operators, "/health/ready").await.0 != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_more_writes_refuses_messages_for_now_whatever_it_says() {
    let world = World::new();
    let token = world.token("alice", "1h");
    let machine = world.serve();
    let mut alice = Speaker::connect(machine.address, &token).await;
    alice.says("before").await;
    for error in [libc::EROFS, libc::EIO, libc::EDQUOT, libc::ENOSPC] {
        let body = format!("while error {error} lasts");
        world.set_faults(0, error);
        alice.is_refused_for_now(&body).await;
        alice.finds_what_was_acknowledged().await;
        world.set_faults(0, 0);
        alice.says(&body).await;
    }
    machine.kill();
    let machine = world.serve();
    alice.comes_back(machine.address, &token).await;
    alice.finds_what_was_acknowledged().await;
}

/// What a server that does not start says.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    text(&output.stderr)
}

#[test]
fn a_directory_that_cannot_be_written_to_is_told_before_anything_listens() {
    let world = World::new();
    std::fs::create_dir(world.data()).unwrap();
    std::fs::write(world.path("file"), "no directory").unwrap();
    let inside = world.path("file/data").display().to_string();
    let output = imks(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &inside], &[]);
    assert!(complaint(&output).contains(&inside), "{}", text(&output.stderr));
    let Some(shell) = mounting_shell() else { return };
    let read_only = format!("mount -t tmpfs -o ro tmpfs {} &&", world.data());
    let told = complaint(&world.command(shell, &read_only).output().unwrap());
    assert!(told.contains(&world.data()) && told.contains("Read-only file system"), "{told}");
    let check = format!("{read_only} exec \"$PROGRAM\" check-config;");
    let told = complaint(&world.command(shell, &check).output().unwrap());
    assert!(told.contains("IMKS_DATA_DIR") && told.contains("Read-only file system"), "{told}");
}

/// Overwrites the file from here on with what is no page of a database.
fn damage(file: &Path, from: u64, bytes: usize) {
    std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .unwrap()
        .write_all_at(&vec![0x5a; bytes], from)
        .unwrap();
}

/// Puts the backup in the place of the file, as docs/operations.md says: without what belongs to the other one.
fn restore(world: &World) {
    for name in ["data/imks.db-wal", "data/imks.db-shm"] {
        let path = world.path(name);
        assert!(!path.exists() || std::fs::remove_file(path).is_ok());
    }
    std::fs::copy(world.path("backup.db"), world.path("data/imks.db")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_named_and_a_backup_takes_its_place() {
    let world = World::new();
    let token = world.token("alice", "1h");
    let machine = world.serve();
    let mut alice = Speaker::connect(machine.address, &token).await;
    alice.says("kept").await;
    let backup = world.path("backup.db").display().to_string();
    let output = imks(&["backup", &backup, "--data-dir", &world.data()], &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    machine.kill();
    let file = world.path("data/imks.db");
    let length = std::fs::metadata(&backup).unwrap().len();
    for (from, bytes) in [(4096, length - 4096), (0, 100)] {
        restore(&world);
        damage(&file, from, bytes.try_into().unwrap());
        // One that starts nevertheless is ended, and has said nothing of it.
        let told = complaint(&world.command(&["timeout", "60", "sh"], "").output().unwrap());
        assert!(told.contains(file.to_str().unwrap()), "{told}");
        assert!(told.contains("malformed") || told.contains("not a database"), "{told}");
    }
    restore(&world);
    let machine = world.serve();
    alice.comes_back(machine.address, &token).await;
    alice.finds_what_was_acknowledged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_open_files_those_who_are_connected_go_on_and_others_come_in_later() {
    let world = World::new();
    let (token, of_bob) = (world.token("alice", "1h"), world.token("bob", "1h"));
    let machine = world.serve();
    let mut alice = Speaker::connect(machine.address, &token).await;
    alice.says("before").await;
    machine.limit(Resource::Nofile, Some(machine.open_files() + 3));
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(TcpStream::connect(machine.address).await.unwrap());
    }
    machine.says("cannot accept connections, trying again");
    alice.says("meanwhile").await;
    alice.finds_what_was_acknowledged().await;
    drop(crowd);
    TestClient::connect(machine.address, &of_bob).await;
    let metrics = get(machine.operators, "/metrics").await.1;
    let failures = metrics.lines().find_map(|line| line.strip_prefix("imks_http_accept_failures_total "));
    assert_ne!(failures, Some("0"), "{metrics}");
    assert!(failures.is_some(), "{metrics}");
}

/// A client with half a message of a megabyte.
async fn half_a_message(machine: &Machine) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(machine.address).await?;
    let head = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&[0x81, 0xff, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 0]).await?;
    stream.write_all(&[b'4'; 900_000]).await?;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_ends_and_has_what_it_acknowledged_when_it_is_back() {
    let world = World::new();
    let token = world.token("alice", "1h");
    let mut machine = world.serve();
    let mut alice = Speaker::connect(machine.address, &token).await;
    alice.says("before").await;
    // As many clients as it has memory for do no harm.
    machine.limit(Resource::As, Some(machine.addresses() + (512 << 20)));
    let mut crowd = Vec::new();
    for _ in 0..50 {
        crowd.push(half_a_message(&machine).await.unwrap());
    }
    alice.says("meanwhile").await;
    machine.limit(Resource::As, Some(machine.addresses()));
    while machine.has_ended().is_none() {
        // Towards the end nobody is accepted any more.
        crowd.extend(half_a_message(&machine).await);
    }
    assert!(!machine.has_ended().unwrap().success(), "whoever started it starts it again");
    let machine = world.serve();
    alice.comes_back(machine.address, &token).await;
    alice.finds_what_was_acknowledged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_an_hour_forward_and_back_ends_no_session_and_keeps_the_order() {
    const HOUR: i64 = 3_600;
    let world = World::new();
    let (token, short) = (world.token("alice", "24h"), world.token("bob", "30m"));
    let machine = world.serve();
    let mut alice = Speaker::connect(machine.address, &token).await;
    let mut bob = TestClient::connect(machine.address, &short).await;
    alice.says("before").await;
    world.set_faults(HOUR, 0);
    alice.says("an hour ahead").await;
    TestClient::connect(machine.address, &token).await;
    world.set_faults(-HOUR, 0);
    alice.says("an hour behind").await;
    // Tokens of the future let nobody in yet, and refuse nobody.
    let mut held = TestClient::open(machine.address).await;
    held.raw(&format!("40{}", json!({ "token": token }))).await;
    machine.says("token refused: a clock is wrong, here or at the issuer of tokens");
    world.set_faults(0, 0);
    alice.says("right again").await;
    assert_eq!(held.event().await.0, "session:ready");
    alice.finds_what_was_acknowledged().await;
    let of = |field: &str| -> Vec<String> {
        alice.acknowledged.iter().map(|message| message[field].as_str().unwrap().to_owned()).collect()
    };
    assert!(of("id").is_sorted(), "{:?}", of("id"));
    assert!(of("created_at").is_sorted(), "{:?}", of("created_at"));
    // Whose token is over by the clock of the server is told so, and comes in again when the clock is right.
    world.set_faults(HOUR, 0);
    bob.expect("auth:expired").await;
    bob.ended().await;
    let mut late = TestClient::open(machine.address).await;
    assert_eq!(late.join(json!({ "token": short })).await.unwrap_err()["data"]["code"], "token_expired");
    world.set_faults(0, 0);
    TestClient::connect(machine.address, &short).await;
}
