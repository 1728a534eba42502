//! What a client costs: CPU time per message and memory per connection of the process that holds the clients, of the
//! client library of imks beside rust_socketio and the stock client of npm. See `docs/performance.md`.
//!
//! ```text
//! cargo build --release --example conformance          # for --server imks
//! cargo run --release --manifest-path benches/clients/Cargo.toml -- [--server node|imks]
//!     [--clients imks,rust_socketio,npm] [--only WORKLOAD,…] [--rounds N] [--report FILE]
//! ```
//!
//! It starts the server and each program of clients itself. Rounds go through all programs in turn, each in a fresh
//! process, so that a busy minute of the machine harms all of them alike.

mod host;
#[path = "../load/limits.rs"]
mod limits;
mod ours;
mod program;
mod report;
#[path = "../load/server.rs"]
#[allow(dead_code, reason = "shared with the load generator")]
mod server;
mod shouter;
mod work;

use std::error::Error;
use std::path::PathBuf;

use self::host::Host;
use self::program::{Maker, Program};
use self::report::Report;
use self::server::Server;
use self::shouter::Shouter;
use self::work::{Figures, Workload};

/// Anything that went wrong, in words: a failed run is printed and the others go on.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// The argument with which this program becomes the clients that are measured.
const OURS: &str = "ours";

struct Options {
    server: Host,
    makers: Vec<Maker>,
    workloads: Vec<Workload>,
    rounds: u32,
    report: Option<PathBuf>,
}

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench").peekable();
    if args.next_if(|arg| arg == OURS).is_some() {
        return ours::run(&args.next().ok_or("the clients need a URL")?);
    }
    let options = Options::parse(args)?;
    limits::raise_open_files()?;
    if !options.server.is_built() {
        return Err("the server is not built".into());
    }
    let makers: Vec<Maker> = options.makers.iter().copied().filter(|maker| maker.is_built()).collect();
    let mut report = Report::default();
    for round in 1..=options.rounds {
        for workload in &options.workloads {
            for maker in &makers {
                match run(options.server, *maker, *workload) {
                    Ok(figures) => {
                        println!("{:>12} {:<14} round {round}: {figures}", workload.name(), maker.name());
                        report.add(*workload, *maker, figures);
                    }
                    Err(error) => {
                        println!(
                            "{:>12} {:<14} round {round}: failed: {error}",
                            workload.name(),
                            maker.name()
                        );
                        report.fail(*workload, *maker);
                    }
                }
            }
        }
    }
    let text = report.markdown(options.server, &options.workloads, &makers);
    println!("\n{text}");
    if let Some(path) = &options.report {
        std::fs::write(path, &text)?;
    }
    Ok(())
}

/// One workload of one program of clients, against a fresh server.
fn run(server: Host, maker: Maker, workload: Workload) -> Outcome<Figures> {
    let server = Server::start(|port| server.command(port))?;
    let url = format!("http://{}", server.address);
    let mut program = Program::start(maker.command(&url)?)?;
    let figures = workload.run(&mut program, &Shouter::new(&url)?)?;
    program.end()?;
    Ok(figures)
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self {
            server: Host::Node,
            makers: Maker::ALL.to_vec(),
            workloads: Workload::ALL.to_vec(),
            rounds: 3,
            report: None,
        };
        while let Some(arg) = args.next() {
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.as_str() {
                "--server" => options.server = one(&value, &Host::ALL, Host::name)?,
                "--clients" => options.makers = named(&value, &Maker::ALL, Maker::name)?,
                "--only" => options.workloads = named(&value, &Workload::ALL, Workload::name)?,
                "--rounds" => options.rounds = value.parse()?,
                "--report" => options.report = Some(value.into()),
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        Ok(options)
    }
}

fn named<T: Copy>(list: &str, all: &[T], name: fn(T) -> &'static str) -> Outcome<Vec<T>> {
    list.split(',').map(|wanted| one(wanted, all, name)).collect()
}

fn one<T: Copy>(wanted: &str, all: &[T], name: fn(T) -> &'static str) -> Outcome<T> {
    all.iter().copied().find(|item| name(*item) == wanted).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|item| name(*item)).collect();
        format!("{wanted} is none of {}", known.join(", ")).into()
    })
}
