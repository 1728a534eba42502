//! A measured stretch of time: CPU of the server and of this program, what arrived and how late.

use std::time::{Duration, Instant};

use super::{
    Outcome,
    histogram::Histogram,
    server::{self, Server},
};

pub const WARM_UP: Duration = Duration::from_secs(1);
pub const MEASURED: Duration = Duration::from_secs(2);
/// How long what is under way at the end may still take before it counts as lost.
pub const DRAIN: Duration = Duration::from_secs(5);

/// What one run of a workload gave.
pub struct Measured {
    /// Acknowledgements, deliveries or connections.
    pub count: u64,
    /// The server's CPU time for each, in microseconds.
    pub cpu_us: f64,
    /// This program's CPU time for each, in microseconds.
    pub client_cpu_us: f64,
    pub per_second: f64,
    pub latency: Histogram,
    /// Arrived after a later one from the same sender.
    pub unordered: u64,
    /// Arrived twice.
    pub doubled: u64,
    /// Never arrived.
    pub lost: u64,
    /// Resident memory per idle connection, where that was measured.
    pub idle_kib: Option<f64>,
    /// The server's CPU time while its connections rest, in percent of a core, where that was measured.
    pub idle_percent: Option<f64>,
}

/// Readings at one moment.
pub struct Mark {
    at: Instant,
    server: f64,
    client: f64,
}

impl Mark {
    pub fn now(server: &Server) -> Outcome<Self> {
        Ok(Self { at: Instant::now(), server: server.cpu()?, client: server::cpu(std::process::id())? })
    }

    /// What `count` things cost since this mark.
    pub fn until_now(&self, server: &Server, count: u64, latency: Histogram) -> Outcome<Measured> {
        let end = Self::now(server)?;
        if count == 0 {
            return Err("nothing arrived".into());
        }
        let each = |seconds: f64| seconds * 1e6 / count as f64;
        Ok(Measured {
            count,
            cpu_us: each(end.server - self.server),
            client_cpu_us: each(end.client - self.client),
            per_second: count as f64 / (end.at - self.at).as_secs_f64(),
            latency,
            unordered: 0,
            doubled: 0,
            lost: 0,
            idle_kib: None,
            idle_percent: None,
        })
    }
}
