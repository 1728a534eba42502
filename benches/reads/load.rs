//! The requests, and how long their answers take.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::Outcome;
use super::client::TestClient;
use super::database::Database;
use super::fill::channel;
use super::histogram::Histogram;
use super::world::{CHANNELS, World};

/// What one kind of request gave.
pub struct Row {
    pub database: Database,
    pub name: &'static str,
    pub at_once: usize,
    pub count: usize,
    pub latency: Histogram,
    pub cpu_us: f64,
}

/// Those of ten thousand users who ask at the same time.
const CROWD: usize = 64;

/// Who looks at a streamed message, how many pieces it has, and how far apart they come: a server takes 20 in a second.
const STREAM_READERS: u64 = 100;
const STREAM_PIECES: usize = 100;
const STREAM_PACE: Duration = Duration::from_millis(60);
/// A piece: a few tokens of an assistant.
const STREAM_TEXT: &str = "a few words more, ";

/// Users who connect at the same time.
const CONNECTS: usize = 8;

pub async fn measure(world: &World, rows: &mut Vec<Row>) -> Outcome<()> {
    rows.push(sign_in(world).await?);
    pages(world, rows).await?;
    catching_up(world, rows).await?;
    for (name, words) in [
        ("`search`: a word of all messages", "something"),
        ("`search`: a rare word and a common one", "seldom number"),
        ("`search`: a rare word in Chinese", "上海"),
    ] {
        let search = |_| ("search", json!({ "q": words }));
        rows.push(ask(world, name, readers(world, 2).await, 10, search).await?);
    }
    let hot = world.size.message(0, world.size.seqs() - 1);
    let react = |number: usize| {
        let event = if number.is_multiple_of(2) { "reaction:add" } else { "reaction:remove" };
        (event, json!({ "channel_id": channel(0), "message_id": hot, "emoji": "🔥" }))
    };
    rows.push(ask(world, "reactions to one message", readers(world, 32).await, 20, react).await?);
    rows.push(streamed(world).await?);
    rows.push(crowd(world).await?);
    Ok(())
}

/// Connections of users with many channels.
async fn readers(world: &World, count: u64) -> Vec<TestClient> {
    let mut clients = Vec::new();
    for user in 0..count {
        clients.push(world.client(user).await);
    }
    clients
}

async fn pages(world: &World, rows: &mut Vec<Row>) -> Outcome<()> {
    let there = |number: usize| number as u64 * 7 % CHANNELS;
    let newest = |number| ("history", json!({ "channel_id": channel(there(number)), "limit": 50 }));
    rows.push(ask(world, "`history`, the newest 50", readers(world, 8).await, 50, newest).await?);
    let around = |number| {
        let middle = world.size.message(there(number), world.size.seqs() / 2);
        ("history", json!({ "channel_id": channel(there(number)), "around": middle, "limit": 50 }))
    };
    rows.push(ask(world, "`history`, 50 around", readers(world, 8).await, 50, around).await?);
    Ok(())
}

async fn catching_up(world: &World, rows: &mut Vec<Row>) -> Outcome<()> {
    let (seqs, revs) = (world.size.seqs(), world.size.revs());
    for (name, count, behind) in [
        ("`sync` of 200 channels, 1,000 missed", 200, 5),
        ("`sync` of 500 channels, unread counts only", CHANNELS, 0),
    ] {
        let cursor = |number| json!({ "channel_id": channel(number), "seq": seqs - behind, "rev": revs });
        let request = json!({ "channels": (0..count).map(cursor).collect::<Vec<_>>() });
        let sync = |_| ("sync", request.clone());
        rows.push(ask(world, name, readers(world, 4).await, 10, sync).await?);
    }
    Ok(())
}

/// Each client asks again and again, all at the same time.
async fn ask(
    world: &World,
    name: &'static str,
    mut clients: Vec<TestClient>,
    times: usize,
    request: impl Fn(usize) -> (&'static str, Value),
) -> Outcome<Row> {
    for (number, client) in clients.iter_mut().enumerate() {
        answered(client, request(2 * number)).await;
        answered(client, request(2 * number + 1)).await;
    }
    let at_once = clients.len();
    let cpu = world.server.cpu()?;
    let each = clients.iter_mut().enumerate().map(async |(number, client)| {
        let mut took = Vec::with_capacity(times);
        for time in 0..times {
            took.push(answered(client, request(number * times + time)).await);
        }
        took
    });
    let took: Vec<Duration> = futures_util::future::join_all(each).await.into_iter().flatten().collect();
    row(world, name, at_once, took, cpu)
}

/// How long an answer took. Who is too fast waits, and that does not count.
async fn answered(client: &mut TestClient, (event, payload): (&'static str, Value)) -> Duration {
    loop {
        let started = Instant::now();
        let answer = client.call(event, payload.clone()).await;
        let took = started.elapsed();
        match answer["error"]["retry_after_ms"].as_u64() {
            Some(wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
            None => {
                assert_eq!(answer["ok"], true, "{event}: {answer}");
                return took;
            }
        }
    }
}

/// A reader with many channels connects: from the first byte to `session:ready`.
async fn sign_in(world: &World) -> Outcome<Row> {
    let cpu = world.server.cpu()?;
    let mut took = Vec::new();
    for time in 0..40 {
        let started = Instant::now();
        let client = world.client(time % 4).await;
        took.push(started.elapsed());
        assert_eq!(client.ready["channels"].as_array().unwrap().len() as u64, CHANNELS);
    }
    row(world, "`session:ready` with 500 channels", 1, took, cpu)
}

/// A message grows piece by piece while many look: from a piece to the last reader who has it.
async fn streamed(world: &World) -> Outcome<Row> {
    let mut author = world.client(STREAM_READERS).await;
    let mut readers = readers(world, STREAM_READERS).await;
    let send = json!({ "channel_id": channel(0), "body": "", "stream": true });
    let message = author.ok("message:send", send).await["message"]["id"].take();
    let (cpu, mut took) = (world.server.cpu()?, Vec::new());
    for piece in 0..STREAM_PIECES {
        let started = tokio::time::Instant::now();
        let offset = piece * STREAM_TEXT.len();
        let append =
            json!({ "channel_id": channel(0), "message_id": message, "offset": offset, "text": STREAM_TEXT });
        author.ok("stream:append", append).await;
        futures_util::future::join_all(readers.iter_mut().map(|reader| reader.expect("message:append")))
            .await;
        took.push(started.elapsed());
        tokio::time::sleep_until(started + STREAM_PACE).await;
    }
    row(world, "a piece of a streamed message, 100 readers", 1, took, cpu)
}

/// Everybody opens the same channel and reads it to its end.
async fn crowd(world: &World) -> Outcome<Row> {
    let users = 0..world.tokens.len() as u64;
    let clients: Vec<TestClient> =
        stream::iter(users).map(|user| world.client(user)).buffer_unordered(CONNECTS).collect().await;
    let cpu = world.server.cpu()?;
    let read = async |mut client: TestClient| {
        let started = Instant::now();
        client.ok("history", json!({ "channel_id": channel(0), "limit": 50 })).await;
        client.ok("read:mark", json!({ "channel_id": channel(0), "seq": world.size.seqs() })).await;
        (started.elapsed(), client)
    };
    let read: Vec<(Duration, TestClient)> =
        stream::iter(clients).map(read).buffer_unordered(CROWD).collect().await;
    // The clients leave when all have read.
    let (took, _clients): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    row(world, "`history` and `read:mark`, each user once, one channel", CROWD, took, cpu)
}

fn row(world: &World, name: &'static str, at_once: usize, took: Vec<Duration>, cpu: f64) -> Outcome<Row> {
    let (mut latency, count) = (Histogram::default(), took.len());
    took.into_iter().for_each(|took| latency.record(took));
    let cpu_us = (world.server.cpu()? - cpu) * 1e6 / count as f64;
    println!("  {name}: p50 {:.1} ms, p99 {:.1} ms", latency.quantile_ms(0.5), latency.quantile_ms(0.99));
    Ok(Row { database: world.database, name, at_once, count, latency, cpu_us })
}
