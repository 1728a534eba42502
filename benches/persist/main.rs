//! The persisted path, end to end: `message:send` through sockets until the ack, on SQLite and on PostgreSQL.
//!
//! 200 people send, each with some messages under way; nobody is subscribed, so that storing is measured and not the
//! fan-out, which `benches/load` measures. The server is the real binary; see `docs/performance.md`.
//!
//! ```text
//! cargo bench --bench persist -- [--only sqlite,postgres] [--report FILE]
//! ```
//!
//! PostgreSQL is the server of `IMKS_TEST_POSTGRES_URL`; `make bench` starts one with the disk's guarantees on.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and it measures real time"
)]

#[allow(dead_code, reason = "shared with the load generator")]
#[path = "../load/client.rs"]
mod client;
#[path = "../load/connection.rs"]
mod connection;
#[path = "../load/database.rs"]
mod database;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "../load/frame.rs"]
mod frame;
#[path = "../load/histogram.rs"]
mod histogram;
#[path = "../load/limits.rs"]
mod limits;
#[path = "../load/poller.rs"]
mod poller;
#[path = "../load/server.rs"]
#[allow(dead_code, reason = "shared with the load generator")]
mod server;

mod report;
mod send;
mod world;

use std::{error::Error, time::Duration};

use self::database::Database;
use self::report::Row;
use self::send::{Load, Pace};
use self::world::World;

/// Anything that went wrong, in words.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Messages each sender has under way.
const IN_FLIGHT: usize = 8;

fn main() -> Outcome<()> {
    let mut databases = vec![Database::Sqlite, Database::Postgres];
    let mut report = None;
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--only" => databases.retain(|database| value.split(',').any(|name| name == database.name())),
            "--report" => report = Some(value),
            _ => return Err(format!("unknown option {arg}").into()),
        }
    }
    limits::raise_open_files()?;
    let mut rows = Vec::new();
    for database in databases {
        println!("persist: {} ...", database.name());
        match measure(database, &mut rows) {
            Ok(()) => {}
            Err(error) => println!("{}: failed: {error}", database.name()),
        }
    }
    let text = report::markdown(&rows);
    println!("\n{text}");
    if let Some(path) = report {
        std::fs::write(path, &text)?;
    }
    Ok(())
}

fn measure(database: Database, rows: &mut Vec<Row>) -> Outcome<()> {
    let world = World::create(database)?;
    let flood = Pace::Window(IN_FLIGHT);
    let many = Load { name: "1,000 channels", hot: false, pace: flood }.run(&world)?;
    // Half of what it can: what a person waits for on a healthy system.
    let half = Pace::PerSecond(many.per_second / 2.0);
    rows.push(Row { database, measured: many });
    let hot = Load { name: "one hot channel", hot: true, pace: flood }.run(&world)?;
    rows.push(Row { database, measured: hot });
    let calm = Load { name: "1,000 channels, half of that rate", hot: false, pace: half }.run(&world)?;
    rows.push(Row { database, measured: calm });
    // Let the last acknowledged rows reach the disk before the next database is measured.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}
