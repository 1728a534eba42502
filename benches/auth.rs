//! What authentication costs: a permission that is known, a token, and connects with tokens.
//!
//! `cargo bench --bench auth [-- CONNECTS]`; 10,000 connects unless said. Checks are measured in this process; connects on
//! the real binary with SQLite in a temporary directory, as the load generator measures those without a token: WebSocket,
//! 64 at a time, CPU of the server.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    missing_docs,
    reason = "a measurement: it may fail loudly, and it prints a table"
)]

#[allow(dead_code, reason = "shared with the load generator")]
#[path = "load/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "load/connection.rs"]
mod connection;
#[allow(dead_code, reason = "shared with the other benches of the server")]
#[path = "load/database.rs"]
mod database;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "load/frame.rs"]
mod frame;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "load/histogram.rs"]
mod histogram;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "load/poller.rs"]
mod poller;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "load/server.rs"]
mod server;

use std::error::Error;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use imks::testing::app::App;
use imks::testing::auth::{Permission, PermissionConfig, Permissions, TokenConfig, TokenVerifier};
use imks::testing::config::{Config, Drain};
use imks::testing::pb::CoreClient;

use self::client::{Client, Via};
use self::server::Server;

/// Anything that went wrong, in words.
type Outcome<T> = Result<T, Box<dyn Error>>;

const HOUR: Duration = Duration::from_secs(3_600);
const PERMISSIONS: u32 = 10_000_000;
const TOKENS: u32 = 10_000;
const CONNECTS: usize = 10_000;
/// Users who connect in turn, each with a token of their own.
const USERS: usize = 2_000;
/// How long a permission has to stay known before it is measured.
const SETTLED: Duration = Duration::from_millis(500);
/// How long the server has for what it does after connections have come or gone.
const SETTLE: Duration = Duration::from_secs(1);

fn main() -> Outcome<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let connects = numbers.next().unwrap_or(CONNECTS);
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let app = runtime.block_on(Box::pin(App::start(config(directory.path()))))?;
    println!("| what | cost | per |\n|---|---:|---|");
    runtime.block_on(measure_checks(&app));
    let tokens = runtime.block_on(tokens(&app));
    runtime.block_on(app.drain(Drain { delay: Duration::ZERO, deadline: Duration::from_secs(10) }))?;
    let server = Server::start(|port| {
        let mut command = Command::new(database::imks());
        command
            .env("IMKS_DATA_DIR", directory.path())
            .env("RUST_LOG", "warn")
            .env("IMKS_LIMIT_CONNECTS", "off");
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command
    })?;
    measure_connects(&server, &tokens, USERS, "the first connect of a user")?;
    measure_connects(&server, &tokens, connects, "a later one")
}

fn config(data: &std::path::Path) -> Config {
    let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    config.database.data_dir = data.into();
    config
}

async fn measure_checks(app: &App) {
    let directory = app.directory().unwrap();
    let user = directory.ensure_development("alice").await.unwrap();
    let mut tokens = Vec::new();
    for _ in 0..TOKENS {
        tokens.push(directory.issue_token(&user, HOUR).await.unwrap());
    }
    let core = CoreClient::from_channel(directory.channel(), imks::testing::pb::Config::default());
    let verifier = TokenVerifier::start(core.clone(), TokenConfig::default()).await.unwrap();
    let permissions = Permissions::new(core.clone(), PermissionConfig::default());
    let channel = core.list_user_channels(user.id).await.unwrap()[0].channel_id;
    // The streams open meanwhile, and what was known before counts for nothing then.
    while permissions.cached(user.id, channel, Permission::SendMessages).is_none() {
        permissions.require(user.id, channel, Permission::SendMessages).await.unwrap();
        tokio::time::sleep(SETTLED).await;
    }
    let started = Instant::now();
    for _ in 0..PERMISSIONS {
        black_box(permissions.cached(user.id, channel, Permission::SendMessages)).unwrap().unwrap();
    }
    println!("| a permission that is known | {:.0} ns | check |", each(started, PERMISSIONS) * 1e9);
    for what in ["a token (Ed25519)", "a token that was good before"] {
        let started = Instant::now();
        for token in &tokens {
            black_box(verifier.verify(token).await).unwrap();
        }
        println!("| {what} | {:.1} µs | check |", each(started, TOKENS) * 1e6);
    }
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

/// Connects clients, 64 at a time, lets all of them go, and prints the server's CPU for each.
fn measure_connects(server: &Server, tokens: &[String], connects: usize, what: &str) -> Outcome<()> {
    let tokens = tokens.to_vec();
    let mut client =
        Client::with_hello(move |number| format!("40{{\"token\":\"{}\"}}", tokens[number % tokens.len()]))?;
    let each = |before: f64, after: f64| (after - before) * 1e6 / connects as f64;
    let start = server.cpu()?;
    client.connect(server.address, connects, Via::WebSocket)?;
    std::thread::sleep(SETTLE);
    let connected = server.cpu()?;
    drop(client);
    std::thread::sleep(SETTLE);
    let gone = server.cpu()?;
    println!(
        "| {what}, with a token, until `session:ready` | {:.0} µs CPU of the server | connect |",
        each(start, connected)
    );
    println!(
        "| the end of its connection | {:.0} µs CPU of the server | connection |",
        each(connected, gone)
    );
    Ok(())
}
