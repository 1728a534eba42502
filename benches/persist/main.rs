//! The persisted path, end to end: `message:send` through sockets until the ack, on SQLite and on PostgreSQL.
//!
//! 200 people send, each with some messages under way; nobody is subscribed, so that storing is measured and not the
//! fan-out, which `benches/load` measures; in the last load everybody hears everything, and deliveries are measured too.
//! Then 10,000 clients lose their server. The server is the real binary; see `docs/performance.md`.
//!
//! ```text
//! cargo bench --bench persist -- [--only sqlite,postgres] [--report FILE] [--gate]
//! cargo bench --bench persist -- --storm yes [--clients 10000]        only the clients that lose their server
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
mod storm;
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
/// Messages per second into a channel that everybody hears: 20,000 deliveries.
const HEARD_PER_SECOND: f64 = 100.0;

fn main() -> Outcome<()> {
    let mut databases = vec![Database::Sqlite, Database::Postgres];
    let (mut report, mut gate, mut only_storm) = (None, false, false);
    let mut crowd = storm::CLIENTS;
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        if arg == "--gate" {
            gate = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--only" => databases.retain(|database| value.split(',').any(|name| name == database.name())),
            "--report" => report = Some(value),
            "--storm" => only_storm = value == "yes",
            "--clients" => crowd = value.parse()?,
            _ => return Err(format!("unknown option {arg}").into()),
        }
    }
    limits::raise_open_files()?;
    let (mut rows, mut storms, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for database in databases {
        println!("persist: {} ...", database.name());
        let measured = if only_storm { Ok(()) } else { measure(database, &mut rows) };
        let storm = measured.and_then(|()| storm::run(database, crowd));
        match storm {
            Ok(storm) => storms.push(storm),
            Err(error) => {
                println!("{}: failed: {error}", database.name());
                failed.push(format!("{}: failed", database.name()));
            }
        }
    }
    let text = report::markdown(&rows, &storms);
    println!("\n{text}");
    if let Some(path) = report {
        std::fs::write(path, &text)?;
    }
    // What was not measured has kept no budget.
    failed.extend(report::missed(&rows, &storms));
    match failed {
        missed if gate && !missed.is_empty() => Err(format!("budgets missed: {}", missed.join("; ")).into()),
        _ => Ok(()),
    }
}

fn measure(database: Database, rows: &mut Vec<Row>) -> Outcome<()> {
    let world = World::create(database)?;
    let flood = Pace::Window(IN_FLIGHT);
    let many = Load { name: "1,000 channels", hot: false, pace: flood, heard: false }.run(&world)?;
    // Half of what it can: what a person waits for on a healthy system.
    let half = Pace::PerSecond(many.per_second / 2.0);
    rows.push(Row { database, measured: many });
    let hot = Load { name: "one hot channel", hot: true, pace: flood, heard: false }.run(&world)?;
    rows.push(Row { database, measured: hot });
    let calm = Load { name: "1,000 channels, half of that rate", hot: false, pace: half, heard: false }
        .run(&world)?;
    rows.push(Row { database, measured: calm });
    let heard = Pace::PerSecond(HEARD_PER_SECOND);
    let heard = Load { name: "one channel that 200 people hear", hot: true, pace: heard, heard: true };
    rows.push(Row { database, measured: heard.run(&world)? });
    // Let the last acknowledged rows reach the disk before the next database is measured.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}
