//! Whether the server and the parts it needs are well.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::ImksResult;

type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ImksResult<()>> + Send>> + Send + Sync>;
type Connections = Box<dyn Fn() -> (u64, u64) + Send + Sync>;
type Checks = BTreeMap<&'static str, Check>;

/// Asks the parts of the server how they are.
pub struct Health {
    started: Instant,
    draining: AtomicBool,
    probes: Vec<(&'static str, Probe)>,
    connections: Connections,
    /// Probes run here, so that neither a deadline nor a client that goes away cancels a database query.
    tasks: TaskTracker,
    /// The last answers: however often somebody asks, the parts are asked once per [`CACHE`].
    last: tokio::sync::Mutex<Option<(Instant, Checks)>>,
}

/// Body of `GET /health`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `ok`, `draining` or `unavailable`.
    pub status: &'static str,
    /// Version of imks.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime: u64,
    /// One entry per part; parts that are not configured are `disabled`.
    pub checks: BTreeMap<&'static str, Check>,
    /// Live sessions.
    pub connections: ConnectionCounts,
}

/// How one part is.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// `ok`, `error` or `disabled`.
    pub status: &'static str,
    /// How long the part took to answer.
    pub latency_ms: Option<f64>,
}

/// Live sessions.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ConnectionCounts {
    /// Open now.
    pub active: u64,
    /// Opened since the start.
    pub total: u64,
}

/// Whether new clients should come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// No: the server goes away.
    Draining,
    /// No: a part that is needed does not answer.
    Unavailable,
}

impl Readiness {
    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ok",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Report {
    /// Whether every part that is needed answers.
    pub fn is_ok(&self) -> bool {
        self.status != Readiness::Unavailable.name()
    }
}

impl Health {
    /// Without parts; the clock of the uptime starts now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            draining: AtomicBool::new(false),
            probes: Vec::new(),
            connections: Box::new(|| (0, 0)),
            tasks: TaskTracker::new(),
            last: tokio::sync::Mutex::new(None),
        }
    }

    /// Adds a part that the server needs.
    pub fn probe<F, Fut>(mut self, name: &'static str, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<()>> + Send + 'static,
    {
        self.probes.push((name, Box::new(move || Box::pin(probe()))));
        self
    }

    /// Where the counts of sessions come from: open now, and opened since the start.
    pub fn connections(mut self, count: impl Fn() -> (u64, u64) + Send + Sync + 'static) -> Self {
        self.connections = Box::new(count);
        self
    }

    /// From now on the server is not ready.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new clients should come.
    pub async fn readiness(&self) -> Readiness {
        if self.draining.load(Ordering::Relaxed) {
            return Readiness::Draining;
        }
        let well = self.checks().await.values().all(|check| check.status != ERROR);
        if well { Readiness::Ready } else { Readiness::Unavailable }
    }

    /// The whole state.
    pub async fn report(&self) -> Report {
        let (active, total) = (self.connections)();
        Report {
            status: self.readiness().await.name(),
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.started.elapsed().as_secs(),
            checks: self.checks().await,
            connections: ConnectionCounts { active, total },
        }
    }

    async fn checks(&self) -> Checks {
        let mut last = self.last.lock().await;
        if let Some((_, checks)) = last.as_ref().filter(|(at, _)| at.elapsed() < CACHE) {
            return checks.clone();
        }
        let started = Instant::now();
        let running: Vec<_> =
            self.probes.iter().map(|(name, probe)| (*name, self.tasks.spawn(timed(probe())))).collect();
        let mut checks: Checks = PARTS.iter().map(|part| (*part, DISABLED)).collect();
        for (name, task) in running {
            checks.insert(name, answer(name, task, started).await);
        }
        *last = Some((Instant::now(), checks.clone()));
        checks
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("draining", &self.draining).finish_non_exhaustive()
    }
}

async fn timed(probe: impl Future<Output = ImksResult<()>>) -> (ImksResult<()>, Duration) {
    let started = Instant::now();
    let outcome = probe.await;
    (outcome, started.elapsed())
}

async fn answer(name: &str, task: JoinHandle<(ImksResult<()>, Duration)>, started: Instant) -> Check {
    match tokio::time::timeout_at(started + DEADLINE, task).await {
        Ok(Ok((Ok(()), elapsed))) => Check { status: "ok", latency_ms: Some(millis(elapsed)) },
        Ok(Ok((Err(error), elapsed))) => {
            tracing::warn!(part = name, %error, "health check failed");
            Check { status: ERROR, latency_ms: Some(millis(elapsed)) }
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(part = name, "health check gave no answer");
            Check { status: ERROR, latency_ms: None }
        }
    }
}

/// Milliseconds with microseconds after the point.
fn millis(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

const ERROR: &str = "error";
const DISABLED: Check = Check { status: "disabled", latency_ms: None };
/// Parts that always stand in the report.
const PARTS: [&str; 4] = ["postgres", "redis", "nats", "appks_grpc"];
/// A part that does not answer in this time is not well.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long an answer counts.
const CACHE: Duration = Duration::from_secs(1);
