//! Clusters of three nodes, for each adapter beside a single server and the cluster of Node.js: what a delivery costs where it
//! is made and a broadcast where it begins, what it costs a node that has nobody to tell, and how long it takes.
//!
//! Clients send to the first node, the members of the room are connected to the second one, and the third one has none. The
//! servers are the profiles `load` and `cluster` of the conformance example; see `docs/performance.md`.
//!
//! ```text
//! cargo bench --bench cluster -- [--only redis,nats,postgres,node] [--members N] [--idle N] [--rate N] [--busy N]
//!                                [--seconds S] [--rounds N] [--report FILE] [--gate]
//! ```
//!
//! Brokers are those of `IMKS_TEST_REDIS_URL`, `IMKS_TEST_NATS_URL` and `IMKS_TEST_POSTGRES_URL`; `make bench` starts them.

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
#[allow(dead_code, reason = "shared with the persisted path")]
#[path = "../load/database.rs"]
mod database;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "../load/frame.rs"]
mod frame;
#[path = "../load/histogram.rs"]
mod histogram;
#[path = "../load/idle.rs"]
mod idle;
#[path = "../load/limits.rs"]
mod limits;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "../load/measure.rs"]
mod measure;
#[path = "../load/pace.rs"]
mod pace;
#[path = "../load/poller.rs"]
mod poller;
#[allow(dead_code, reason = "shared with the load generator")]
#[path = "../load/server.rs"]
mod server;

mod nodes;
mod report;
mod trial;

use std::{error::Error, path::PathBuf, time::Duration};

use self::{
    nodes::{Adapter, Nodes},
    report::{Figures, Report},
    trial::{Paced, Rest, Windowed},
};

/// Anything that went wrong, in words: a failed run is printed and the others go on.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// What to run.
struct Options {
    adapters: Vec<Adapter>,
    /// Members of the room in which deliveries are counted.
    members: usize,
    /// Connections whose memory is measured.
    idle: usize,
    /// Broadcasts per second where their time is measured.
    rate: f64,
    /// Broadcasts per second where their cost is measured. One that comes alone wakes threads and processes, which costs more than
    /// itself; those of a busy cluster share that.
    busy: f64,
    /// How long each figure is measured.
    time: Duration,
    rounds: u32,
    report: Option<PathBuf>,
    /// Whether a budget that is missed is an error.
    gate: bool,
}

impl Options {
    /// Reads the arguments after the program's name; `--bench`, which cargo adds, is ignored.
    fn parse(args: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self {
            adapters: Adapter::ALL.to_vec(),
            members: 1_000,
            idle: 2_000,
            rate: 500.0,
            busy: 10_000.0,
            time: Duration::from_secs(3),
            rounds: 3,
            report: None,
            gate: false,
        };
        let mut args = args.filter(|arg| arg != "--bench");
        while let Some(arg) = args.next() {
            if arg == "--gate" {
                options.gate = true;
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.as_str() {
                "--only" => {
                    options.adapters = value.split(',').map(Adapter::named).collect::<Outcome<_>>()?
                }
                "--members" => options.members = value.parse()?,
                "--idle" => options.idle = value.parse()?,
                "--rate" => options.rate = value.parse()?,
                "--busy" => options.busy = value.parse()?,
                "--seconds" => options.time = Duration::from_secs_f64(value.parse()?),
                "--rounds" => options.rounds = value.parse()?,
                "--report" => options.report = Some(value.into()),
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> Outcome<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let files = limits::raise_open_files()?;
    println!(
        "cluster: {} rounds, {} members, {files} open files per process",
        options.rounds, options.members
    );
    let mut report = Report::default();
    for round in 1..=options.rounds {
        // The single server first: everything else is compared with it, in the same minute.
        for adapter in std::iter::once(None).chain(options.adapters.iter().copied().map(Some)) {
            if adapter.is_some_and(|adapter| !adapter.is_there()) {
                continue;
            }
            let name = adapter.map_or(nodes::ALONE, Adapter::name);
            match measure(adapter, &options) {
                Ok(figures) => {
                    println!("{name:>9} round {round}: {}", report::line(&figures));
                    report.add(name, figures);
                }
                Err(error) => {
                    println!("{name:>9} round {round}: failed: {error}");
                    report.fail(name);
                }
            }
        }
    }
    let text = report.markdown(&options);
    println!("\n{text}");
    if let Some(path) = &options.report {
        std::fs::write(path, &text)?;
    }
    match report.missed() {
        missed if options.gate && !missed.is_empty() => {
            Err(format!("budgets missed: {}", missed.join("; ")).into())
        }
        _ => Ok(()),
    }
}

/// All figures of one cluster, or of a single server.
fn measure(adapter: Option<Adapter>, options: &Options) -> Outcome<Figures> {
    let nodes = Nodes::start(adapter)?;
    nodes.meet()?;
    let rest = Rest::of(&nodes, options.time)?;
    // First, while nothing is left of another load that could be used again.
    let idle = match options.idle {
        0 => None,
        count => idle::run(nodes.receiver(), count, client::Via::WebSocket)?.idle_kib,
    };
    let windowed = Windowed { members: options.members }.run(&nodes, &rest, options.time)?;
    let paced = Paced { rate: options.rate }.run(&nodes, &rest, options.time)?;
    let busy = Paced { rate: options.busy }.run(&nodes, &rest, options.time)?;
    Ok(Figures { windowed, paced, busy, idle_kib: idle, rest_percent: rest.percent() })
}
