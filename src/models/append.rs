//! Group commit: the only way in which a channel is changed.
//!
//! Mutations wait in a lane, chosen by channel, so that one process never competes with itself for a channel.
//! An idle lane writes at once. A busy lane takes everything that arrived during its last commit and commits
//! it together, so that many senders share one transaction. The transaction locks the counters of its
//! channels, detects repeated sends, assigns `seq`, `rev` and ids in order of arrival, and writes everything
//! with a few statements (docs/adr/0007). Each feature implements what its changes mean as a [`Mutation`].
//!
//! **Invariant**: a receipt resolves with success only after the commit. **Invariant**: everything in
//! [`Commits`] is committed, and in `seq` and `rev` order per channel.

mod batch;
mod channel;
mod failure;
mod lane;
mod mutation;
pub(crate) mod records;
mod store;
mod told;
mod writes;
mod written;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Db;
use super::metrics::{self, AppendProblem};
use crate::background;
use crate::{ImksError, ImksResult};
pub use channel::LockedChannel;
use mutation::Job;
pub use mutation::{Authority, Mutation, References, Scope};
pub(crate) use told::ChangeEvent;
pub use told::{Payload, Told};
pub use writes::Writes;
pub use written::Written;

/// How mutations are grouped into transactions.
#[derive(Debug, Clone)]
pub struct Config {
    /// The lanes on PostgreSQL, each with its own connection. SQLite has one writer, hence one lane.
    pub lanes: usize,
    /// The most mutations that may wait in one lane; more are refused as overloaded.
    pub queue: usize,
    /// The most mutations in one transaction. A lane goes beyond 256 only while it falls behind.
    pub batch: usize,
    /// How long an idle lane waits for more mutations. Zero is right unless commits are very slow.
    pub linger: Duration,
    /// How long a mutation waits for a database that does not answer before it fails as unavailable.
    pub outage: Duration,
    /// How long one transaction may take before its connection is abandoned and the batch is retried.
    pub batch_timeout: Duration,
    /// The most transactions that may wait to be broadcast; beyond that, the lane waits for its reader.
    pub commits_queue: usize,
    /// Whether transactions are recorded in the feed.
    pub feed: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lanes: 4,
            queue: 4_096,
            batch: 1_024,
            linger: Duration::ZERO,
            outage: Duration::from_secs(5),
            batch_timeout: Duration::from_millis(2_500),
            commits_queue: 64,
            feed: true,
        }
    }
}

/// The handle that accepts mutations. Cloning shares the lanes.
#[derive(Debug, Clone)]
pub struct Appender {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lanes: Vec<mpsc::Sender<Job>>,
    written: Arc<Written>,
    writes: Arc<Writes>,
    tasks: TaskTracker,
    draining: CancellationToken,
}

/// The commits of one lane, in order.
#[derive(Debug)]
pub struct Commits(mpsc::Receiver<Transaction>);

/// A committed transaction.
#[derive(Debug)]
pub struct Transaction {
    /// Its events.
    pub told: Vec<Told>,
    /// When it was committed.
    pub committed: Instant,
}

impl Commits {
    /// Returns the next transaction, or `None` once the appender is drained. Cancel safe.
    pub async fn recv(&mut self) -> Option<Transaction> {
        self.0.recv().await
    }
}

/// A future that resolves when a mutation is committed or refused. Dropping it does not cancel the mutation.
#[derive(Debug)]
pub struct Receipt<D>(oneshot::Receiver<ImksResult<D>>);

impl<D> Future for Receipt<D> {
    type Output = ImksResult<D>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(outcome) => outcome,
            Err(_) => Err(ImksError::Unavailable("append lane")),
        })
    }
}

impl Appender {
    /// Starts the lanes. Every returned [`Commits`] must be read, because a lane with a full queue stops.
    pub fn start(db: Db, config: Config) -> (Self, Vec<Commits>) {
        let lanes = match db {
            Db::Postgres(_) => config.lanes.max(1),
            Db::Sqlite(_) => 1,
        };
        let (tasks, draining) = (TaskTracker::new(), CancellationToken::new());
        let (written, writes) = (Arc::new(Written::default()), Arc::new(Writes::default()));
        let (mut senders, mut commits) = (Vec::with_capacity(lanes), Vec::with_capacity(lanes));
        for _ in 0..lanes {
            let (jobs_in, jobs) = mpsc::channel(config.queue.max(1));
            let (commits_in, commits_out) = mpsc::channel(config.commits_queue.max(1));
            let notes = (written.clone(), writes.clone());
            let lane = lane::Lane::new(db.clone(), config.clone(), commits_in, notes);
            tasks.spawn(background::essential("append", lane.run(jobs, draining.clone())));
            senders.push(jobs_in);
            commits.push(Commits(commits_out));
        }
        (Self { shared: Arc::new(Shared { lanes: senders, written, writes, tasks, draining }) }, commits)
    }

    /// Queues a mutation in the lane of its channel without waiting. Mutations of one channel are decided in
    /// the order of these calls.
    ///
    /// # Errors
    /// [`ImksError::Overloaded`] when the lane is full, [`ImksError::Stopping`] while draining. The
    /// receipt then resolves with what the mutation decided, or with [`ImksError::Unavailable`] when the
    /// outcome is unknown; a retry with the same nonce finds out.
    pub fn submit<M: Mutation>(&self, scope: Scope, mutation: M) -> ImksResult<Receipt<M::Done>> {
        let lane = &self.shared.lanes[lane_of(scope.channel_id, self.shared.lanes.len())];
        let (job, receipt) = Job::new(scope, mutation);
        let (job, error): (Job, fn() -> ImksError) = match lane.try_send(job) {
            Ok(()) => return Ok(Receipt(receipt)),
            Err(TrySendError::Full(job)) => {
                metrics::APPEND_PROBLEMS.of(AppendProblem::Refused).increment();
                (job, || ImksError::Overloaded { retry_after: RETRY_AFTER })
            }
            Err(TrySendError::Closed(job)) => (job, || ImksError::Stopping),
        };
        // Its span ends with this. Nobody has the receipt.
        job.mutation.fail(error());
        Err(error())
    }

    /// Returns the channels that were written to and not yet taken.
    pub fn written(&self) -> &Written {
        &self.shared.written
    }

    /// Returns whether the database takes writes.
    pub fn writes(&self) -> &Writes {
        &self.shared.writes
    }

    /// Stops accepting mutations, and returns when all accepted ones are committed or have failed.
    pub async fn drain(&self) {
        self.shared.draining.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// Returns the lane of a channel. Channel ids are v7: only their last bytes are random.
fn lane_of(channel: Uuid, lanes: usize) -> usize {
    let low = channel.as_u64_pair().1.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    usize::try_from(low).unwrap_or(0) % lanes
}

/// The retry delay sent to a client whose lane is full; roughly how long a full lane takes to empty.
const RETRY_AFTER: Duration = Duration::from_millis(500);
