//! What authentication costs: a permission that is known, a token, and connects with tokens.
//!
//! `cargo bench --bench auth [-- CONNECTS]`; 10,000 connects unless said. Everything runs in this process: the server on
//! threads of its own with SQLite in a temporary directory, the clients on one other thread, whose CPU is not counted.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    missing_docs,
    reason = "a measurement: it may fail loudly, and it prints a table"
)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use imks::socket::rate_limit::Rate;
use imks::testing::app::App;
use imks::testing::auth::{Permission, PermissionConfig, Permissions, TokenConfig, TokenVerifier};
use imks::testing::config::{Config, Drain};
use imks::testing::pb::CoreClient;
use tokio_tungstenite::tungstenite::Message;

const HOUR: Duration = Duration::from_secs(3_600);
const PERMISSIONS: u32 = 10_000_000;
const TOKENS: u32 = 50_000;
const CONNECTS: u32 = 10_000;
/// Users who connect in turn, each with a token of their own.
const USERS: usize = 200;
/// `USER_HZ`: the unit of CPU times in /proc.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let connects = numbers.next().unwrap_or(CONNECTS);
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let app = runtime.block_on(Box::pin(App::start(config(directory.path())))).unwrap();
    println!("| what | cost | per |\n|---|---:|---|");
    runtime.block_on(measure_checks(&app));
    let tokens = runtime.block_on(tokens(&app));
    let address = app.addr();
    let cpu = std::thread::spawn(move || measure_connects(address, &tokens, connects)).join().unwrap();
    println!(
        "| a connect with a token, until `session:ready` | {:.0} µs CPU of the server | connect |",
        cpu * 1e6
    );
    runtime.block_on(app.drain(Drain { delay: Duration::ZERO, deadline: Duration::from_secs(10) })).unwrap();
}

fn config(data: &std::path::Path) -> Config {
    let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    config.database.data_dir = data.into();
    config.messaging.connects = Rate::OFF;
    config
}

async fn measure_checks(app: &App) {
    let directory = app.directory().unwrap();
    let user = directory.ensure_development("alice").await.unwrap();
    let token = directory.issue_token(&user, HOUR).await.unwrap();
    let core = CoreClient::from_channel(directory.channel(), imks::testing::pb::Config::default());
    let verifier = TokenVerifier::start(core.clone(), TokenConfig::default()).await.unwrap();
    let permissions = Permissions::new(core.clone(), PermissionConfig::default());
    let channel = core.list_user_channels(user.id).await.unwrap()[0].channel_id;
    permissions.require(user.id, channel, Permission::SendMessages).await.unwrap();
    let started = Instant::now();
    for _ in 0..PERMISSIONS {
        black_box(permissions.cached(user.id, channel, Permission::SendMessages)).unwrap().unwrap();
    }
    println!("| a permission that is known | {:.0} ns | check |", each(started, PERMISSIONS) * 1e9);
    let started = Instant::now();
    for _ in 0..TOKENS {
        black_box(verifier.verify(&token).await).unwrap();
    }
    println!("| a token (Ed25519) | {:.1} µs | check |", each(started, TOKENS) * 1e6);
}

fn each(started: Instant, count: u32) -> f64 {
    started.elapsed().as_secs_f64() / f64::from(count)
}

async fn tokens(app: &App) -> Vec<String> {
    let directory = app.directory().unwrap();
    let mut tokens = Vec::new();
    for number in 0..USERS {
        let user = directory.ensure_development(&format!("user{number}")).await.unwrap();
        tokens.push(directory.issue_token(&user, HOUR).await.unwrap());
    }
    tokens
}

/// Connects again and again; returns the seconds of CPU of all other threads, per connect.
fn measure_connects(server: SocketAddr, tokens: &[String], connects: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let before = others();
        for token in tokens.iter().cycle().take(connects as usize) {
            let url = format!("ws://{server}/socket.io/?EIO=4&transport=websocket");
            let (mut wire, _) = tokio_tungstenite::connect_async(url).await.unwrap();
            wire.send(Message::text(format!("40{{\"token\":\"{token}\"}}"))).await.unwrap();
            while let Some(Ok(message)) = wire.next().await {
                if message.to_text().unwrap().contains("session:ready") {
                    break;
                }
            }
        }
        (others() - before) / f64::from(connects)
    })
}

/// Seconds of CPU of this process without those of this thread.
fn others() -> f64 {
    cpu("/proc/self/stat") - cpu("/proc/thread-self/stat")
}

fn cpu(path: &str) -> f64 {
    let stat = std::fs::read_to_string(path).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / TICKS_PER_SECOND
}
