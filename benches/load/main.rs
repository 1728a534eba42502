//! Load generator: one thread, raw Engine.IO v4 and Socket.IO v5, any server of the `load` contract.
//!
//! It starts each server itself, drives one workload at a time and reads the CPU time of the server's process, which
//! is the figure to trust on a shared machine. Rounds go through all servers in turn, so that a busy minute of the
//! machine harms all of them alike. See `docs/performance.md`.
//!
//! ```text
//! cargo bench --bench load -- [--only WORKLOAD,…] [--servers imks,node,socketioxide] [--rounds N]
//!                             [--minutes M] [--report FILE] [--gate]
//! cargo bench --bench load -- --tool target/release/imks [--rounds N] [--report FILE]    `imks bench` beside it
//! ```

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and it measures real time"
)]

mod client;
mod connection;
mod echo;
mod fanout;
mod frame;
mod histogram;
mod idle;
mod kind;
mod limits;
mod measure;
mod options;
mod pace;
mod poller;
mod report;
mod server;
mod tool;
mod workload;

use std::{
    error::Error,
    time::{Duration, Instant},
};

use self::{
    kind::Kind, measure::Measured, options::Options, report::Report, server::Server, workload::Workload,
};

/// Anything that went wrong, in words: a failed run is printed and the others go on.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let files = limits::raise_open_files()?;
    println!("load: {} rounds, {} open files per process", options.rounds, files);

    if let Some(tool) = &options.tool {
        let text = tool::compare(tool, options.rounds);
        println!("\n{text}");
        return options.report.as_ref().map_or(Ok(()), |path| Ok(std::fs::write(path, &text)?));
    }
    let servers: Vec<Kind> = options.servers.iter().copied().filter(|kind| kind.is_built()).collect();
    let deadline = Instant::now() + options.time;
    let mut report = Report::default();
    for round in 1..=options.rounds {
        for workload in &options.workloads {
            if round > 1 && Instant::now() > deadline {
                println!("out of time: round {round} stops before {}", workload.name());
                break;
            }
            for kind in &servers {
                run(*kind, *workload, round, files, &mut report);
            }
        }
    }

    let text = report.markdown(&options.workloads, &servers);
    println!("\n{text}");
    if let Some(path) = &options.report {
        std::fs::write(path, &text)?;
    }
    match report.missed(&options.workloads) {
        missed if options.gate && !missed.is_empty() => {
            Err(format!("budgets missed: {}", missed.join("; ")).into())
        }
        _ => Ok(()),
    }
}

/// One workload against one fresh server. A failure is one line in the output and a gap in the table.
fn run(kind: Kind, workload: Workload, round: u32, files: u64, report: &mut Report) {
    // Both ends of every connection count against a limit, but in two processes; upgrades hold two each for a while.
    if workload.connections() as u64 + 512 > files {
        println!("{:>13} {:<14} skipped: needs more open files than {files}", workload.name(), kind.name());
        return;
    }
    let measured = Server::start(|port| kind.command(port)).and_then(|server| workload.run(&server));
    match measured {
        Ok(measured) => {
            println!("{:>13} {:<14} round {round}: {}", workload.name(), kind.name(), line(&measured));
            report.add(workload, kind, measured);
        }
        Err(error) => {
            println!("{:>13} {:<14} round {round}: failed: {error}", workload.name(), kind.name());
            report.fail(workload, kind);
        }
    }
    // Let the kernel finish with the old connections before the next server starts.
    std::thread::sleep(Duration::from_millis(100));
}

fn line(measured: &Measured) -> String {
    let mut text = format!(
        "{:.2} us CPU, {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        measured.cpu_us,
        measured.per_second,
        measured.latency.quantile_ms(0.5),
        measured.latency.quantile_ms(0.99),
    );
    if let Some(kib) = measured.idle_kib {
        text.push_str(&format!(", {kib:.2} KiB each"));
    }
    if let Some(percent) = measured.idle_percent {
        text.push_str(&format!(", {percent:.1} % of a core at rest"));
    }
    if measured.unordered + measured.doubled + measured.lost > 0 {
        text.push_str(&format!(
            ", {} of {} out of order, {} doubled, {} lost",
            measured.unordered, measured.count, measured.doubled, measured.lost
        ));
    }
    text.push_str(&format!(", client {:.2} us", measured.client_cpu_us));
    text
}
