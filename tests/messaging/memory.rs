//! The memory of large answers has a bound, and reading slowly costs nobody the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use imks::testing::config::Config;
use imks::testing::messaging::AnswerLimits;
use imks::testing::messaging::metrics::ANSWER_BYTES;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::TestClient;
use crate::server::{Kind, TestServer, first_channel};

const MIB: usize = 1 << 20;

/// A server with 1 MiB per connection, 2 MiB per user and 3 MiB in all.
async fn tight_server(wait: Duration) -> TestServer {
    let tight = |config: &mut Config| {
        config.messaging.answers =
            AnswerLimits { connection_bytes: MIB, user_bytes: 2 * MIB, server_bytes: 3 * MIB, wait };
    };
    TestServer::start_with(Kind::Sqlite, tight).await
}

/// Fills a channel with so many messages of the largest size, 32 KiB each; returns its id.
async fn fill(client: &mut TestClient, messages: usize) -> String {
    let channel = first_channel(client);
    let body = "\u{1d54f}".repeat(8_000);
    for _ in 0..messages {
        client.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
    }
    channel
}

/// Watches the gauge of reserved bytes; stopping it returns the largest value.
struct Watch {
    done: Arc<AtomicBool>,
    largest: JoinHandle<i64>,
}

impl Watch {
    fn start() -> Self {
        let (done, largest) = (Arc::new(AtomicBool::new(false)), AtomicI64::new(0));
        let watched = done.clone();
        let largest = tokio::spawn(async move {
            while !watched.load(Ordering::Relaxed) {
                largest.fetch_max(ANSWER_BYTES.get(), Ordering::Relaxed);
                sleep(Duration::from_micros(200)).await;
            }
            largest.into_inner()
        });
        Self { done, largest }
    }

    async fn largest(self) -> usize {
        self.done.store(true, Ordering::Relaxed);
        usize::try_from(self.largest.await.unwrap()).unwrap()
    }
}

/// Everything has left, or will within a moment.
async fn nothing_is_reserved() {
    for _ in 0..500 {
        if ANSWER_BYTES.get() == 0 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{} bytes stay reserved", ANSWER_BYTES.get());
}

fn everything(channel: &str) -> Value {
    json!({ "channels": [{ "channel_id": channel, "seq": 0, "rev": 0 }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_much_one_user_asks_for_the_answers_stay_within_their_budget() {
    let server = tight_server(Duration::from_secs(2)).await;
    let channel = fill(&mut server.client("alice").await, 40).await;
    let watch = Watch::start();
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = server.client("alice").await;
        let mut asked = Vec::new();
        for _ in 0..8 {
            asked.push(client.ask("sync", everything(&channel)).await);
            asked.push(client.ask("history", json!({ "channel_id": channel, "limit": 100 })).await);
        }
        clients.push((client, asked));
    }
    // Nobody reads: what does not fit waits, and is refused in the end.
    sleep(Duration::from_secs(3)).await;
    let mut answered = 0;
    for (mut client, asked) in clients {
        for id in asked {
            let answer = client.answer(id).await;
            let refused = (&answer["error"]["code"], &answer["error"]["retryable"]);
            assert!(answer["ok"] == true || refused == (&json!("overloaded"), &json!(true)), "{refused:?}");
            answered += usize::from(answer["ok"] == true);
        }
    }
    assert!(answered > 0, "nobody was answered");
    let largest = watch.largest().await;
    assert!((1..=2 * MIB).contains(&largest), "one user's answers took {largest} bytes");
    nothing_is_reserved().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_that_comes_back_at_once_is_answered_within_the_same_budget() {
    let server = tight_server(Duration::from_secs(60)).await;
    let channel = fill(&mut server.client("alice").await, 8).await;
    let mut clients = Vec::new();
    for number in 0..40 {
        clients.push(server.client(&format!("user{}", number % 20)).await);
    }
    let watch = Watch::start();
    let request = everything(&channel);
    let answers = clients.iter_mut().map(|client| client.ok("sync", request.clone()));
    for answer in futures_util::future::join_all(answers).await {
        assert_ne!(answer["channels"][0]["messages"], json!([]));
    }
    let largest = watch.largest().await;
    assert!((1..=3 * MIB).contains(&largest), "the herd's answers took {largest} bytes");
    nothing_is_reserved().await;
    server.stop().await;
}

/// A line in front of the server that carries so many bytes per second to the client.
async fn slow_line(server: SocketAddr, bytes_per_second: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let line = TcpSocket::new_v4().unwrap();
            line.set_recv_buffer_size(16 << 10).unwrap();
            let (from_server, mut to_server) = line.connect(server).await.unwrap().into_split();
            let (mut from_client, to_client) = client.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(copy_slowly(from_server, to_client, bytes_per_second));
        }
    });
    addr
}

async fn copy_slowly(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes_per_second: usize) {
    let mut chunk = vec![0; 8 << 10];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        sleep(Duration::from_secs_f64(length as f64 / bytes_per_second as f64)).await;
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_on_a_slow_line_gets_its_answers_and_all_events_and_is_never_too_slow() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let channel = fill(&mut alice, 40).await;
    let line = slow_line(server.addr(), 600_000).await;
    let mut bob = TestClient::connect(line, &server.token("bob").await).await;
    let asked = [bob.ask("sync", everything(&channel)).await, bob.ask("sync", everything(&channel)).await];
    for number in 0..20 {
        alice.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
    }
    for id in asked {
        let answer = bob.answer(id).await;
        assert_eq!(answer["ok"], true, "{}", answer["error"]);
    }
    for number in 0..20 {
        assert_eq!(bob.expect("message:new").await["body"], number.to_string());
    }
    nothing_is_reserved().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_escaped_and_quotes_count_with_their_size_in_the_answer() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    let body = "\u{1}".repeat(7_999) + "a";
    let first = alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
    for _ in 0..60 {
        let reply =
            json!({ "channel_id": channel, "body": body, "reply_to_message_id": first["message"]["id"] });
        alice.ok("message:send", reply).await;
    }
    let page = alice.ok("history", json!({ "channel_id": channel, "limit": 100 })).await;
    let synced = alice.ok("sync", everything(&channel)).await;
    for answer in [&page, &synced] {
        let bytes = answer.to_string().len();
        assert!((MIB / 2..MIB + (64 << 10)).contains(&bytes), "an answer of {bytes} bytes");
    }
    assert_eq!(page["has_more_before"], true);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_users_on_slow_lines_do_not_keep_others_from_reading() {
    let limits = |config: &mut Config| {
        let wait = Duration::from_secs(8);
        config.messaging.answers =
            AnswerLimits { connection_bytes: MIB, user_bytes: 2 * MIB, server_bytes: 16 * MIB, wait };
    };
    let server = TestServer::start_with(Kind::Sqlite, limits).await;
    let mut carol = server.client("carol").await;
    let channel = fill(&mut carol, 40).await;
    let line = slow_line(server.addr(), 4_000).await;
    let mut slow = Vec::new();
    for number in 0..24 {
        let token = server.token(&format!("slow{}", number / 2)).await;
        let mut client = TestClient::connect(line, &token).await;
        client.ask("history", json!({ "channel_id": channel, "limit": 100 })).await;
        client.ask("sync", everything(&channel)).await;
        slow.push(client);
    }
    for _ in 0..3 {
        let page = carol.ok("history", json!({ "channel_id": channel, "limit": 1 })).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), 1);
        let page = carol.ok("history", json!({ "channel_id": channel, "limit": 100 })).await;
        assert_ne!(page["messages"], json!([]));
        let synced = carol.ok("sync", everything(&channel)).await;
        assert_ne!(synced["channels"][0]["messages"], json!([]));
        drop(server.client("dave").await);
    }
    drop(slow);
    server.stop().await;
}
