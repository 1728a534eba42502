//! Connecting, and what a connection costs at rest.

use std::time::{Duration, Instant};

use super::{
    Outcome,
    client::{Client, Via},
    measure::{Mark, Measured},
    server::Server,
};

/// Time for the last upgrades to settle before the CPU time is read: their cost belongs to the connecting.
const SETTLE: Duration = Duration::from_millis(300);
/// How long the connections rest before the memory is read.
const HOLD: Duration = Duration::from_secs(4);

/// Opens `count` connections and holds them.
pub fn run(server: &Server, count: usize, via: Via) -> Outcome<Measured> {
    let mut client = Client::new()?;
    let empty = server.resident_kib()?;
    let mark = Mark::now(server)?;
    let start = Instant::now();
    let latency = client.connect(server.address, count, via)?;
    let took = start.elapsed();
    hold(&mut client, server, SETTLE)?;
    let mut measured = mark.until_now(server, count as u64, latency)?;
    measured.per_second = count as f64 / took.as_secs_f64();
    let resting = (Instant::now(), server.cpu()?);
    hold(&mut client, server, HOLD)?;
    measured.idle_percent = Some((server.cpu()? - resting.1) / resting.0.elapsed().as_secs_f64() * 100.0);
    measured.idle_kib = Some((server.resident_kib()? - empty) / count as f64);
    Ok(measured)
}

fn hold(client: &mut Client, server: &Server, time: Duration) -> Outcome<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        client.turn(Duration::from_millis(50), server.address, |_, _, _, _| {})?;
    }
    Ok(())
}
