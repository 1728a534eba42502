//! Whether memory comes back: 10,000 sessions of every kind (of WebTransport: of all its kinds together) come and go,
//! again and again, and after each round, once the server says that it holds nothing any more, its resident memory is
//! read. What later rounds add is what leaks. See `docs/performance.md`.
//!
//! ```text
//! cargo build --release --example conformance
//! cargo bench --bench soak -- [--count N] [--rounds N] [--profiles soak,soak-msgpack]
//!                             [--only KIND,…]
//! ```
//!
//! A kind is named as in the output; a part of its name stands for all that have it.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and it measures real time"
)]

mod client;
#[path = "../load/limits.rs"]
mod limits;
#[path = "../load/server.rs"]
#[allow(dead_code, reason = "shared with the load generator")]
mod server;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{TryStreamExt, stream};
use serde_json::Value;

use self::{
    client::{Carrier, Dialer, Kind, Outcome, Parser, Target, visit},
    server::Server,
};

/// Clients at once.
const AT_ONCE: usize = 64;
/// The same, of kinds that wait for a deadline of the server. Each may need two files for a while.
const WAITING_AT_ONCE: usize = 5_000;
/// The same, by WebTransport: what more of them send at once may not fit into the buffers of the two UDP sockets.
const WAITING_WEBTRANSPORT_AT_ONCE: usize = 100;
/// A session of WebTransport costs as much as fifty others: its kinds share the count.
const WEBTRANSPORT_KINDS: usize = 7;
/// How long the server may hold something after the last client has gone: absent clients may come back for ten
/// seconds, and what they could have missed is kept half as long again.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(60);
/// For QUIC and the kernel to forget the last connections, and the allocator to give back what it does not need (10 s).
const SETTLE: Duration = Duration::from_secs(15);

struct Options {
    count: usize,
    rounds: usize,
    only: Vec<String>,
    profiles: Vec<String>,
}

/// Profiles of the conformance example, and how their clients speak.
const PROFILES: [(&str, Parser); 2] = [("soak", Parser::Default), ("soak-msgpack", Parser::MsgPack)];

fn main() -> Outcome<()> {
    let profiles = PROFILES.map(|(profile, _)| profile.to_owned()).to_vec();
    let mut options = Options { count: 10_000, rounds: 3, only: Vec::new(), profiles };
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--count" => options.count = value.parse()?,
            "--rounds" => options.rounds = value.parse()?,
            "--profiles" => options.profiles = value.split(',').map(str::to_owned).collect(),
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            _ => return Err(format!("unknown option {arg}").into()),
        }
    }
    limits::raise_open_files()?;
    let wanted = PROFILES.iter().filter(|(profile, _)| options.profiles.iter().any(|it| it == profile));
    wanted.into_iter().try_for_each(|(profile, parser)| soak(profile, *parser, &options))
}

fn soak(profile: &str, parser: Parser, options: &Options) -> Outcome<()> {
    let wanted =
        |kind: &Kind| options.only.is_empty() || options.only.iter().any(|only| name(*kind).contains(only));
    let kinds: Vec<Kind> = Kind::all(parser).into_iter().filter(wanted).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let server = Server::start(|port| command(profile, port))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = {
        let _inside = runtime.enter();
        Target { address: server.address, dialer: Dialer::new(hashes(server.address)?)? }
    };
    println!("{profile}: {} kinds, {} of each in a round", kinds.len(), options.count);
    println!("before: {:.1} MiB resident", server.resident_kib()? / 1024.0);
    for round in 1..=options.rounds {
        for kind in &kinds {
            let start = Instant::now();
            let count = match kind.carrier {
                Carrier::WebTransport => options.count.div_ceil(WEBTRANSPORT_KINDS),
                _ => options.count,
            };
            runtime.block_on(all(&target, parser, *kind, count))?;
            let seconds = start.elapsed().as_secs_f64();
            let mib = server.resident_kib()? / 1024.0;
            println!("  round {round}, {}: {seconds:.1} s, {mib:.1} MiB right after", name(*kind));
        }
        wait_until_empty(server.address)?;
        let mib = server.resident_kib()? / 1024.0;
        println!("{profile}, after round {round}: {mib:.1} MiB resident, the server holds nothing");
    }
    Ok(())
}

async fn all(target: &Target, parser: Parser, kind: Kind, count: usize) -> Outcome<()> {
    let at_once = match kind.carrier {
        _ if !kind.waits() => AT_ONCE,
        Carrier::WebTransport => WAITING_WEBTRANSPORT_AT_ONCE,
        _ => WAITING_AT_ONCE,
    };
    let visits =
        stream::iter((0..count).map(Ok)).try_for_each_concurrent(at_once, |number| {
            let visited = visit(target, parser, kind, number);
            async move {
                visited.await.map_err(|error| format!("{}, client {number}: {error}", name(kind)).into())
            }
        });
    visits.await
}

fn name(kind: Kind) -> String {
    let Kind { version, carrier, end } = kind;
    format!("{carrier:?}-{version:?}-{end:?}").to_lowercase()
}

fn wait_until_empty(address: SocketAddr) -> Outcome<()> {
    let deadline = Instant::now() + EMPTY_TIMEOUT;
    loop {
        let (_, body) = get(address, "/holdings")?;
        let holdings: Value = serde_json::from_str(&body)?;
        if holdings.as_object().is_some_and(|all| all.values().all(is_nothing)) {
            std::thread::sleep(SETTLE);
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the server still holds {body}").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_nothing(value: &Value) -> bool {
    value.as_array().map_or(value == 0, |parts| parts.iter().all(|part| part == 0))
}

fn hashes(address: SocketAddr) -> Outcome<Vec<[u8; 32]>> {
    let (_, body) = get(address, "/webtransport/certificate-hashes")?;
    let answer: Value = serde_json::from_str(&body)?;
    let hashes = answer["hashes"].as_array().ok_or("no hashes")?.iter();
    hashes
        .map(|hash| {
            let hash = STANDARD.decode(hash["value"].as_str().ok_or("no value")?)?;
            Ok(hash.try_into().map_err(|_| "not 32 bytes")?)
        })
        .collect()
}

/// Head and body of an answer.
fn get(address: SocketAddr, path: &str) -> Outcome<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(EMPTY_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
    Ok((head.to_owned(), body.to_owned()))
}

/// Beside this program: `target/release/deps/soak-…` and `target/release/examples/conformance`.
fn command(profile: &str, port: u16) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap_or_default();
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/conformance"));
    command.args([profile, "--webtransport", "--port", &port.to_string()]);
    command
}
