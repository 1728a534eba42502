//! A lane: takes the mutations that have arrived, commits them, answers them and passes on their events. It
//! alone handles a database that refuses, stalls or disappears.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::SqlitePool;
use sqlx::{ConnectOptions, Connection as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::batch::Effects;
use super::failure::Failure;
use super::mutation::Job;
use super::writes::Writes;
use super::written::Written;
use super::{Config, Transaction, store};
use crate::models::db::{BEGIN_SQLITE, Db};
use crate::models::metrics::{self, AppendProblem, Stage};
use crate::models::rows::{Connection, ROWS_LIMIT};
use crate::telemetry::trace::Context;
use crate::{ImksError, clock};

/// The task that owns one connection and the order of writes to its channels.
pub(super) struct Lane {
    connection: LaneConnection,
    config: Config,
    commits: mpsc::Sender<Transaction>,
    written: Arc<Written>,
    writes: Arc<Writes>,
    /// The number of further batches that look up nonces before they insert.
    expect_repeats: u32,
}

/// The most mutations in the next batch. Larger batches cost less per mutation but answer later, so the limit
/// grows only while a lane falls behind.
#[derive(Debug, PartialEq, Eq)]
struct BatchLimit {
    now: usize,
    most: usize,
}

impl BatchLimit {
    fn new(configured: usize) -> Self {
        let most = configured.clamp(1, ROWS_LIMIT);
        Self { now: most.min(BATCH_CALM), most }
    }

    /// Doubles the limit if a batch was full and another full one is `waiting` after its commit. Halves it, down
    /// to [`BATCH_CALM`], if less than half of it was used.
    fn adapt(&mut self, taken: usize, waiting: usize) {
        if taken >= self.now && waiting >= self.now {
            self.now = (self.now * 2).min(self.most);
        } else if taken < self.now / 2 {
            self.now = (self.now / 2).max(self.most.min(BATCH_CALM));
        }
    }
}

enum LaneConnection {
    /// A dedicated connection. An interrupted lane drops it instead of returning it to a pool.
    Postgres {
        options: Arc<PgConnectOptions>,
        connection: Option<PgConnection>,
    },
    Sqlite(SqlitePool),
}

impl Lane {
    pub(super) fn new(
        db: Db,
        config: Config,
        commits: mpsc::Sender<Transaction>,
        (written, writes): (Arc<Written>, Arc<Writes>),
    ) -> Self {
        let connection = match db {
            Db::Postgres(pool) => {
                // Every statement of a batch selects rows by key. A plan that reads a whole table is never
                // right, but the statistics of a new table suggest one.
                let options = pool.connect_options();
                let name = format!("{}-lane", options.get_application_name().unwrap_or_default());
                let options = (*options).clone().application_name(&name).options([
                    ("enable_seqscan", "off"),
                    ("enable_hashjoin", "off"),
                    ("enable_mergejoin", "off"),
                    ("plan_cache_mode", "force_generic_plan"),
                ]);
                LaneConnection::Postgres { options: Arc::new(options), connection: None }
            }
            Db::Sqlite(sqlite) => LaneConnection::Sqlite(sqlite.writer),
        };
        Self { connection, config, commits, written, writes, expect_repeats: 0 }
    }

    /// Runs until the lane is drained.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, draining: CancellationToken) {
        let mut limit = BatchLimit::new(self.config.batch);
        let mut batch = Vec::new();
        loop {
            let taken = tokio::select! {
                biased;
                () = draining.cancelled(), if !jobs.is_closed() => {
                    jobs.close();
                    continue;
                }
                taken = jobs.recv_many(&mut batch, limit.now) => taken,
            };
            if taken == 0 {
                break;
            }
            if !self.config.linger.is_zero() && taken < limit.now {
                sleep(self.config.linger).await;
                while batch.len() < limit.now
                    && let Ok(job) = jobs.try_recv()
                {
                    batch.push(job);
                }
            }
            let taken = batch.len();
            Box::pin(self.commit_all(std::mem::take(&mut batch))).await;
            limit.adapt(taken, jobs.len());
        }
        if let LaneConnection::Postgres { connection: Some(connection), .. } = self.connection {
            let _ = connection.close().await;
        }
    }

    /// Commits a batch. While the database refuses something in it, halves it and keeps the order.
    async fn commit_all(&mut self, batch: Vec<Job>) {
        let mut waiting = VecDeque::from([batch]);
        while let Some(mut jobs) = waiting.pop_front() {
            match self.commit_persistently(&mut jobs).await {
                Ok(effects) => self.deliver(jobs, effects).await,
                Err(failure) if !failure.transient && jobs.len() > 1 => {
                    let second = jobs.split_off(jobs.len() / 2);
                    waiting.push_front(second);
                    waiting.push_front(jobs);
                }
                Err(failure) => refuse(jobs, &failure),
            }
        }
    }

    /// Retries until the batch is committed, refused, or past its deadline.
    async fn commit_persistently(&mut self, jobs: &mut [Job]) -> Result<Effects, Failure> {
        let oldest = jobs.first().map_or_else(Instant::now, |job| job.since);
        let deadline = oldest + self.config.outage;
        let mut pause = FIRST_PAUSE;
        let mut unanswered = None;
        self.expect_repeats = self.expect_repeats.saturating_sub(1);
        loop {
            let failure = match self.commit_once(jobs, deadline, &mut unanswered).await {
                Ok(effects) => return Ok(effects),
                Err(failure) => failure,
            };
            if failure.repeated && self.expect_repeats == 0 {
                // A client that repeats one send usually repeats several.
                self.expect_repeats = REPEATS_EXPECTED;
                continue;
            }
            let is_last = !failure.transient || Instant::now() + pause > deadline;
            // What passes at the second attempt, such as a deadlock, says nothing about the database.
            if failure.transient && (is_last || pause > FIRST_PAUSE) {
                self.writes.failed();
            }
            if is_last {
                return Err(failure);
            }
            metrics::APPEND_PROBLEMS.of(AppendProblem::Retried).increment();
            tracing::warn!(error = ?failure.error, writes = jobs.len(), "batch not committed, trying again");
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn commit_once(
        &mut self,
        jobs: &mut [Job],
        deadline: Instant,
        unanswered: &mut Option<Effects>,
    ) -> Result<Effects, Failure> {
        let started = Instant::now();
        let mode = store::Mode { expect_repeats: self.expect_repeats > 0, feed: self.config.feed };
        let outcome = match &mut self.connection {
            LaneConnection::Sqlite(pool) => commit_sqlite(pool, jobs, mode, unanswered).await,
            LaneConnection::Postgres { options, connection } => {
                let left = deadline.saturating_duration_since(started).max(SHORTEST_ATTEMPT);
                let limit = self.config.batch_timeout.min(left);
                let attempt = Box::pin(commit_postgres(options, connection, jobs, mode, unanswered));
                let outcome = timeout(limit, attempt).await.unwrap_or_else(|_| Err(Failure::timeout()));
                if outcome.as_ref().is_err_and(|failure| failure.transient) {
                    *connection = None;
                }
                outcome
            }
        };
        if outcome.is_ok() {
            self.writes.succeeded();
            metrics::APPEND_BATCH_SIZE.observe(jobs.len() as u64);
            metrics::APPEND_COMMIT_SECONDS.record(started.elapsed());
        }
        outcome
    }

    /// Answers the submitters, then passes on the events.
    async fn deliver(&self, jobs: Vec<Job>, effects: Effects) {
        let committed = Instant::now();
        let stage = metrics::STAGE_SECONDS.of(Stage::Commit);
        for job in jobs {
            let trace = job.trace.as_ref().map(Context::trace_id);
            stage.record_traced(committed.duration_since(job.since), trace);
            job.mutation.answer();
        }
        metrics::MESSAGES_STORED.add(effects.appended.len() as u64);
        self.written.add(effects.states.iter().map(|state| state.channel_id));
        if !effects.told.is_empty() {
            // A full queue makes this lane wait: the acks are sent, and order matters more than latency.
            let _ = self.commits.send(Transaction { told: effects.told, committed }).await;
        }
    }
}

async fn commit_sqlite(
    pool: &SqlitePool,
    jobs: &mut [Job],
    mode: store::Mode,
    unanswered: &mut Option<Effects>,
) -> Result<Effects, Failure> {
    let mut pooled = Box::pin(pool.acquire()).await.map_err(Failure::before)?;
    sqlx::query(BEGIN_SQLITE).execute(&mut *pooled).await.map_err(Failure::before)?;
    let outcome = transact(&mut Connection::Sqlite(&mut pooled), jobs, mode, unanswered).await;
    if outcome.is_err() && sqlx::query("ROLLBACK").execute(&mut *pooled).await.is_err() {
        // Some failures roll back by themselves. If this one did not, the connection must not be reused.
        pooled.close_on_drop();
    }
    outcome
}

/// Commits a batch on PostgreSQL. After a transient failure, the caller drops the connection to roll back.
async fn commit_postgres(
    options: &PgConnectOptions,
    slot: &mut Option<PgConnection>,
    jobs: &mut [Job],
    mode: store::Mode,
    unanswered: &mut Option<Effects>,
) -> Result<Effects, Failure> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(Box::pin(options.connect()).await.map_err(Failure::before)?),
    };
    sqlx::query("BEGIN").execute(&mut *connection).await.map_err(Failure::before)?;
    let outcome = transact(&mut Connection::Postgres(connection), jobs, mode, unanswered).await;
    if outcome.as_ref().is_err_and(|failure| !failure.transient) {
        sqlx::query("ROLLBACK").execute(&mut *connection).await.map_err(Failure::new)?;
    }
    outcome
}

/// Runs one transaction, from the locks to the commit. `unanswered` holds the effects of an earlier attempt
/// that may have been committed. Nothing new is decided until the locks are held and its outcome is known.
async fn transact(
    connection: &mut Connection<'_>,
    jobs: &mut [Job],
    mode: store::Mode,
    unanswered: &mut Option<Effects>,
) -> Result<Effects, Failure> {
    let states = store::lock(connection, &store::channels_of(jobs)).await.map_err(Failure::new)?;
    if let Some(effects) = unanswered.as_ref() {
        let committed = store::was_committed(connection, effects).await.map_err(Failure::new)?;
        if let Some(effects) = unanswered.take().filter(|_| committed) {
            connection.run("COMMIT").await.map_err(Failure::new)?;
            return Ok(effects);
        }
    }
    let now = clock::now_micros();
    let effects = store::apply(connection, jobs, states, now, mode).await.map_err(Failure::new)?;
    let effects = unanswered.insert(effects);
    connection.run("COMMIT").await.map_err(Failure::new)?;
    Ok(std::mem::take(effects))
}

fn refuse(jobs: Vec<Job>, failure: &Failure) {
    tracing::error!(error = ?failure.error, writes = jobs.len(), "writes refused by the database");
    metrics::APPEND_PROBLEMS.of(AppendProblem::Failed).add(jobs.len() as u64);
    for job in jobs {
        let error = match failure.transient {
            true => ImksError::Unavailable("database"),
            false => ImksError::Internal("the database refused this write"),
        };
        job.mutation.fail(error);
    }
}

/// The most mutations in a batch while the lane keeps up.
const BATCH_CALM: usize = 256;
/// The number of batches after a repeated send in which the lane expects more repeats.
const REPEATS_EXPECTED: u32 = 64;
/// The least time for an attempt past its deadline: the batch may have waited for other batches.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_falls_behind_takes_larger_batches_until_it_has_caught_up() {
        let mut limit = BatchLimit::new(1_000);
        let load =
            [(256, 255), (256, 256), (512, 2_000), (1_000, 9_000), (512, 9_000), (300, 0), (10, 0), (10, 0)];
        let limits = load.map(|(taken, waiting)| {
            limit.adapt(taken, waiting);
            limit.now
        });
        assert_eq!(limits, [256, 512, 1_000, 1_000, 1_000, 500, 256, 256]);
    }

    #[test]
    fn a_batch_is_never_larger_than_configured_nor_than_a_statement() {
        for (configured, first, most) in [(0, 1, 1), (5, 5, 5), (1 << 20, BATCH_CALM, ROWS_LIMIT)] {
            let mut limit = BatchLimit::new(configured);
            assert_eq!(limit.now, first);
            for _ in 0..9 {
                limit.adapt(limit.now, usize::MAX);
            }
            assert_eq!(limit.now, most);
        }
    }
}
