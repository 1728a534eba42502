//! Thousands of clients lose their server at once, which is started again: how long until all of them are back.
//!
//! The clients are those of `imks bench`: they come back as stock clients do, after one to five seconds, and count what
//! was lost. The figures are the server's own, from its metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Outcome;
use super::database::{Database, imks};
use super::world::World;

/// Clients, if no other number is asked for.
pub const CLIENTS: usize = 10_000;
/// Messages per second that all clients hear.
const HEARD: Talk = Talk { channel: "hot", rate: "2" };
/// What so many people write besides: each of them about once a minute. A few clients write and hear it, so that what is
/// measured is the storm, and not a fan-out.
const BESIDES: Talk = Talk { channel: "channel0", rate: "150" };
/// The clients that write besides.
const WRITERS: usize = 20;
/// How long the load is watched before the server is killed.
const BEFORE: Duration = Duration::from_secs(10);
/// How long clients may take to connect for the first time, or again.
const BACK_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// What became of the clients.
pub struct Storm {
    pub database: Database,
    pub clients: usize,
    /// From the moment the server was killed.
    pub back_after: Duration,
    pub not_back: u64,
    /// Those that continued their sessions.
    pub continued: u64,
    pub queries_before: f64,
    pub queries_meanwhile: f64,
    /// Lost, doubled, out of order or wrong.
    pub faults: u64,
}

/// What clients write in a channel.
struct Talk {
    channel: &'static str,
    /// Messages per second.
    rate: &'static str,
}

/// `imks bench`, killed when dropped.
struct Clients(Child);

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills the server of `clients` clients, and starts it again.
pub fn run(database: Database, clients: usize) -> Outcome<Storm> {
    println!("persist: {}: {clients} clients lose their server ...", database.name());
    let mut world = World::create(database)?;
    let mut heard = start(&world, &HEARD, &world.hot, clients)?;
    let mut besides = start(&world, &BESIDES, &world.spread[..1], WRITERS)?;
    let all = clients + WRITERS;
    wait_for(&world, all)?;
    let (before, since) = (queries(&world)?, Instant::now());
    std::thread::sleep(BEFORE);
    let queries_before = (queries(&world)? - before) / since.elapsed().as_secs_f64();
    let killed = Instant::now();
    world.restart()?;
    let listening = Instant::now();
    let not_back = wait_for(&world, all).err().map_or(0, |_| missing(&world, all));
    let back_after = killed.elapsed();
    let queries_meanwhile = queries(&world)? / listening.elapsed().as_secs_f64();
    let continued = figure(&world, CONTINUED)? as u64;
    let faults = finish(&mut heard)? + finish(&mut besides)?;
    Ok(Storm {
        database,
        clients,
        back_after,
        not_back,
        continued,
        queries_before,
        queries_meanwhile,
        faults,
    })
}

fn start(world: &World, talk: &Talk, users: &[String], clients: usize) -> Outcome<Clients> {
    let tokens = world.directory().join(format!("tokens-{}", talk.channel));
    std::fs::write(&tokens, users.join("\n"))?;
    let mut command = Command::new(imks());
    command.arg("bench").arg(format!("http://{}", world.server.address)).args([
        "--scenario",
        "chat",
        "--channel",
        talk.channel,
    ]);
    command.args(["--rolling", "--json", "--message-size", "100", "--rate", talk.rate, "--timeout", "60s"]);
    command.args(["--clients", &clients.to_string()]).arg("--token-file").arg(tokens);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    Ok(Clients(child))
}

/// Waits until so many clients have signed in since the server was started.
fn wait_for(world: &World, clients: usize) -> Outcome<()> {
    let deadline = Instant::now() + BACK_MAX;
    while missing(world, clients) > 0 {
        if Instant::now() > deadline {
            return Err(format!("{} clients are not there", missing(world, clients)).into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn missing(world: &World, clients: usize) -> u64 {
    let there = figure(world, SIGNED_IN).unwrap_or(0.0) as u64;
    (clients as u64).saturating_sub(there)
}

/// Ends the clients as Ctrl-C does, and returns what they say about faults.
fn finish(tool: &mut Clients) -> Outcome<u64> {
    let mut interrupt = Command::new("kill");
    interrupt.args(["-INT", &tool.0.id().to_string()]).status()?;
    let mut said = String::new();
    tool.0.stdout.take().ok_or("no output")?.read_to_string(&mut said)?;
    let summary: Value = serde_json::from_str(&said)?;
    println!("{}", summary["faults"]);
    let count = |name: &str| summary["faults"][name].as_u64().unwrap_or(0);
    Ok(["lost", "duplicates", "out_of_order", "wrong", "failed", "refused"].into_iter().map(count).sum())
}

/// Returns how many queries and commits of messages the database has answered.
fn queries(world: &World) -> Outcome<f64> {
    Ok(figure(world, "imks_database_query_seconds_count")?
        + figure(world, "imks_append_commit_seconds_count")?)
}

/// Returns the sum of the series of a metric that begin with `series`.
fn figure(world: &World, series: &str) -> Outcome<f64> {
    let mut stream = TcpStream::connect(world.server.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| line.starts_with(series));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

const SIGNED_IN: &str = "imks_connects_total{outcome=\"accepted\"}";
const CONTINUED: &str = "imks_resumes_total{outcome=\"continued\"}";
