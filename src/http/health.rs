//! The health of the server and of the parts it needs.

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

type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ImksResult<Finding>> + Send>> + Send + Sync>;
type Connections = Box<dyn Fn() -> (u64, u64) + Send + Sync>;
type Checks = BTreeMap<&'static str, Check>;

/// The health checks of the server.
pub struct Health {
    started: Instant,
    draining: AtomicBool,
    parts: Vec<Part>,
    connections: Connections,
    /// Probes run as tasks, so that neither a deadline nor a disconnecting client cancels a database query.
    tasks: TaskTracker,
    /// The last results. The parts are probed at most once per [`CACHE`], however many requests arrive.
    last: tokio::sync::Mutex<Option<(Instant, Checks)>>,
}

/// A part of the server, and its probe.
struct Part {
    name: &'static str,
    role: Role,
    probe: Probe,
    /// Whether its failure was told.
    told: AtomicBool,
}

/// What it means when a part is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The server cannot work.
    Needed,
    /// The server works for connected clients, but should not get new ones.
    Used,
    /// The server works, as every other node does too.
    Reported,
}

/// What a part tells of itself besides that it answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Whether an operator should look at it.
    pub is_degraded: bool,
    /// Numbers by their names.
    pub numbers: BTreeMap<&'static str, i64>,
}

/// The body of `GET /health`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub status: Status,
    /// The version of imks.
    pub version: &'static str,
    /// The number of seconds since the start.
    pub uptime: u64,
    /// The result of each part.
    pub checks: Checks,
    /// The numbers of sessions.
    pub connections: ConnectionCounts,
}

/// The status of the whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every part answers.
    Healthy,
    /// A part is unavailable or degraded, or the server is stopping. Connected clients can continue.
    Degraded,
    /// A part that the server cannot work without is unavailable.
    Unhealthy,
}

/// The result of one probe.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub status: PartStatus,
    /// The time that the part took to answer, in milliseconds.
    pub latency_ms: Option<f64>,
    /// What the part tells of itself.
    #[serde(flatten)]
    pub numbers: BTreeMap<&'static str, i64>,
}

/// Whether a part answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartStatus {
    Up,
    /// The part answers, and an operator should look at it.
    Degraded,
    Down,
    /// The part is not configured.
    Disabled,
}

/// The numbers of sessions.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ConnectionCounts {
    /// The number of sessions that are open now.
    pub active: u64,
    /// The number of sessions opened since the start.
    pub total: u64,
}

/// Whether the server should receive new clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The server accepts new clients.
    Ready,
    /// The server is stopping.
    Draining,
    /// A part does not answer.
    Unavailable,
}

impl Readiness {
    /// Returns the name in the response.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ok",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Health {
    /// Creates a health check without parts. The uptime starts now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            draining: AtomicBool::new(false),
            parts: Vec::new(),
            connections: Box::new(|| (0, 0)),
            tasks: TaskTracker::new(),
            last: tokio::sync::Mutex::new(None),
        }
    }

    /// Adds a part that the server cannot work without.
    pub fn needs<F, Fut>(self, name: &'static str, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<()>> + Send + 'static,
    {
        self.part(name, Role::Needed, plain(probe))
    }

    /// Adds a part that connected clients can do without.
    pub fn uses<F, Fut>(self, name: &'static str, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<()>> + Send + 'static,
    {
        self.part(name, Role::Used, plain(probe))
    }

    /// Adds a part that is reported, but without which new clients are served too.
    pub fn reports<F, Fut>(self, name: &'static str, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<()>> + Send + 'static,
    {
        self.part(name, Role::Reported, plain(probe))
    }

    /// Adds a part that is reported with what it has found.
    pub fn watches<F, Fut>(self, name: &'static str, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ImksResult<Finding>> + Send + 'static,
    {
        self.part(name, Role::Reported, Box::new(move || Box::pin(probe())))
    }

    fn part(mut self, name: &'static str, role: Role, probe: Probe) -> Self {
        self.parts.push(Part { name, role, probe, told: AtomicBool::new(false) });
        self
    }

    /// Sets the source of the session counts: open now, and opened since the start.
    pub fn connections(mut self, count: impl Fn() -> (u64, u64) + Send + Sync + 'static) -> Self {
        self.connections = Box::new(count);
        self
    }

    /// Makes the server not ready from now on.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns whether the server should receive new clients.
    pub async fn readiness(&self) -> Readiness {
        if self.is_draining() {
            return Readiness::Draining;
        }
        let checks = self.checks().await;
        let mut down = self.down(&checks);
        if down.all(|part| part.role == Role::Reported) { Readiness::Ready } else { Readiness::Unavailable }
    }

    /// Returns the full report.
    pub async fn report(&self) -> Report {
        let (active, total) = (self.connections)();
        let checks = self.checks().await;
        Report {
            status: self.status(&checks),
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.started.elapsed().as_secs(),
            checks,
            connections: ConnectionCounts { active, total },
        }
    }

    fn status(&self, checks: &Checks) -> Status {
        match (self.down(checks).any(|part| part.role == Role::Needed), self.is_draining()) {
            (true, _) => Status::Unhealthy,
            (false, true) => Status::Degraded,
            (false, false) if checks.values().any(Check::is_bad) => Status::Degraded,
            (false, false) => Status::Healthy,
        }
    }

    fn down<'a>(&'a self, checks: &'a Checks) -> impl Iterator<Item = &'a Part> {
        let is_down = |part: &&Part| checks.get(part.name).is_some_and(|it| it.status == PartStatus::Down);
        self.parts.iter().filter(is_down)
    }

    async fn checks(&self) -> Checks {
        let mut last = self.last.lock().await;
        if let Some((_, checks)) = last.as_ref().filter(|(at, _)| at.elapsed() < CACHE) {
            return checks.clone();
        }
        let started = Instant::now();
        let running: Vec<_> =
            self.parts.iter().map(|part| (part, self.tasks.spawn(timed((part.probe)())))).collect();
        let mut checks: Checks = PARTS.iter().map(|part| (*part, DISABLED)).collect();
        for (part, task) in running {
            checks.insert(part.name, answer(part, task, started).await);
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
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Health").field("draining", &self.draining).finish_non_exhaustive()
    }
}

impl Part {
    /// Logs a failure when it begins. It is asked for every second, so what lasts is told at debug.
    fn tell_failure(&self, error: &impl fmt::Display) {
        match self.told.swap(true, Ordering::Relaxed) {
            false => tracing::warn!(part = self.name, %error, "health check failed"),
            true => tracing::debug!(part = self.name, %error, "health check fails still"),
        }
    }

    /// Logs the end of a failure.
    fn tell_success(&self) {
        if self.told.swap(false, Ordering::Relaxed) {
            tracing::info!(part = self.name, "health check succeeds again");
        }
    }
}

impl Check {
    fn is_bad(&self) -> bool {
        matches!(self.status, PartStatus::Down | PartStatus::Degraded)
    }

    fn down(latency_ms: Option<f64>) -> Self {
        Self { status: PartStatus::Down, latency_ms, ..DISABLED }
    }
}

/// Returns a probe that finds nothing but whether the part answers.
fn plain<F, Fut>(probe: F) -> Probe
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ImksResult<()>> + Send + 'static,
{
    Box::new(move || {
        let probe = probe();
        Box::pin(async move { probe.await.map(|()| Finding::default()) })
    })
}

async fn timed(probe: impl Future<Output = ImksResult<Finding>>) -> (ImksResult<Finding>, Duration) {
    let started = Instant::now();
    let outcome = probe.await;
    (outcome, started.elapsed())
}

async fn answer(part: &Part, task: JoinHandle<(ImksResult<Finding>, Duration)>, started: Instant) -> Check {
    match tokio::time::timeout_at(started + DEADLINE, task).await {
        Ok(Ok((Ok(Finding { is_degraded, numbers }), elapsed))) => {
            part.tell_success();
            let status = if is_degraded { PartStatus::Degraded } else { PartStatus::Up };
            Check { status, latency_ms: Some(millis(elapsed)), numbers }
        }
        Ok(Ok((Err(error), elapsed))) => {
            part.tell_failure(&error);
            Check::down(Some(millis(elapsed)))
        }
        Ok(Err(_)) | Err(_) => {
            part.tell_failure(&"no answer");
            Check::down(None)
        }
    }
}

/// Returns milliseconds, with microseconds after the decimal point.
fn millis(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

const DISABLED: Check = Check { status: PartStatus::Disabled, latency_ms: None, numbers: BTreeMap::new() };
/// The parts that are always in the report. `appks_grpc` is the core.
const PARTS: [&str; 4] = ["postgres", "redis", "nats", "appks_grpc"];
/// The time after which a part that has not answered is unhealthy.
const DEADLINE: Duration = Duration::from_secs(2);
/// The time for which a result is cached.
const CACHE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::ImksError;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_lasts_is_told_when_it_begins_and_when_it_ends() {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(lines.finish());
        let works = Arc::new(AtomicBool::new(true));
        let now = works.clone();
        let health = Health::new().needs("sqlite", move || {
            let works = now.load(Ordering::Relaxed);
            async move { works.then_some(()).ok_or(ImksError::Unavailable("the disk")) }
        });
        let mut told = Vec::new();
        for (is_up, checks) in [(true, 2), (false, 5), (true, 2), (false, 3)] {
            works.store(is_up, Ordering::Relaxed);
            for _ in 0..checks {
                tokio::time::sleep(2 * CACHE).await;
                assert_eq!(health.readiness().await == Readiness::Ready, is_up);
            }
            let lines = String::from_utf8(std::mem::take(&mut *log.0.lock())).unwrap();
            told.push(lines.lines().map(|line| line.contains("WARN")).collect::<Vec<_>>());
        }
        assert_eq!(told, [vec![], vec![true], vec![false], vec![true]]);
    }
}
