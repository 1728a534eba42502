//! What people do all day, in a database with a million messages: history, catching up, signing in, search, reactions,
//! and ten thousand users who read one channel. On SQLite and on PostgreSQL, over sockets, against the real binary.
//!
//! ```text
//! cargo bench --bench reads -- [--only sqlite,postgres] [--messages N] [--users N] [--report FILE]
//! ```
//!
//! PostgreSQL is the server of `IMKS_TEST_POSTGRES_URL`; `make bench` starts one with the disk's guarantees on.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures,
    reason = "a measuring program: it prints, it measures real time, and it ends where something is wrong"
)]

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../../tests/support/client.rs"]
mod client;
#[path = "../load/database.rs"]
mod database;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../../tests/plan/fill.rs"]
mod fill;
#[path = "../load/histogram.rs"]
mod histogram;
#[path = "../load/limits.rs"]
mod limits;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "../load/server.rs"]
mod server;

mod load;
mod world;

use std::error::Error;
use std::fmt::Write;

use self::database::Database;
use self::load::Row;
use self::world::World;

/// Anything that went wrong, in words.
type Outcome<T> = Result<T, Box<dyn Error>>;

const MESSAGES: i64 = 1_000_000;
const USERS: u64 = 10_000;

fn main() -> Outcome<()> {
    let mut databases = vec![Database::Sqlite, Database::Postgres];
    let (mut messages, mut users, mut report) = (MESSAGES, USERS, None);
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--only" => databases.retain(|database| value.split(',').any(|name| name == database.name())),
            "--messages" => messages = value.parse()?,
            "--users" => users = value.parse()?,
            "--report" => report = Some(value),
            _ => return Err(format!("unknown option {arg}").into()),
        }
    }
    limits::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for database in databases {
        println!("reads: {}, {messages} messages ...", database.name());
        let world = runtime.block_on(World::create(database, messages, users))?;
        runtime.block_on(load::measure(&world, &mut rows))?;
    }
    let text = markdown(messages, &rows);
    println!("\n{text}");
    if let Some(path) = report {
        std::fs::write(path, &text)?;
    }
    Ok(())
}

fn markdown(messages: i64, rows: &[Row]) -> String {
    let mut text = format!(
        "## Reading, among {messages} messages: from the request to its answer\n\n\
         | database | request | at once | answers | p50 ms | p99 ms | server CPU us |\n|---|---|---:|---:|---:|---:|---:|\n"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} | {:.1} | {:.0} |",
            row.database.name(),
            row.name,
            row.at_once,
            row.count,
            row.latency.quantile_ms(0.5),
            row.latency.quantile_ms(0.99),
            row.cpu_us,
        );
    }
    text
}
