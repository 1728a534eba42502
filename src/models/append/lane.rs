//! One lane: takes what has arrived, commits it, answers, hands on. Alone responsible for what happens when the
//! database refuses, stalls or disappears.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::SqlitePool;
use sqlx::{ConnectOptions, Connection as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::plan::{Minted, Plan, Verdict};
use super::{Committed, Config, Job, NewMessage, Outcome, Write, store};
use crate::clock::{self, Timestamp};
use crate::models::db::{BEGIN_SQLITE, Db};
use crate::models::message::{Message, MessageDetail, ReplyPreview};
use crate::models::metrics::{self, AppendProblem};
use crate::models::rows::{Connection, ROWS_LIMIT};
use crate::{ImksError, ImksResult};

/// A task that owns one connection and the order of its channels.
pub(super) struct Lane {
    session: Session,
    config: Config,
    commits: mpsc::Sender<Vec<Committed>>,
    /// Batches for which nonces are looked up before anything is inserted.
    careful: u32,
}

enum Session {
    /// A connection of its own: a lane that was interrupted drops it instead of handing it on.
    Postgres {
        options: Arc<PgConnectOptions>,
        connection: Option<PgConnection>,
    },
    Sqlite(SqlitePool),
}

/// Why a transaction did not happen, or may not have happened.
#[derive(Debug)]
struct Failure {
    error: ImksError,
    /// Trying again can help.
    transient: bool,
    /// A unique index objects: a nonce is there already.
    repeated: bool,
}

impl Lane {
    pub(super) fn new(db: Db, config: Config, commits: mpsc::Sender<Vec<Committed>>) -> Self {
        let session = match db {
            Db::Postgres(pool) => {
                // Every statement of a batch goes by keys it was given; a plan that reads whole tables is never right,
                // yet that is what a fresh table's statistics suggest.
                let options = pool.connect_options();
                let name = format!("{}-lane", options.get_application_name().unwrap_or_default());
                let options = (*options).clone().application_name(&name).options([
                    ("enable_seqscan", "off"),
                    ("enable_hashjoin", "off"),
                    ("enable_mergejoin", "off"),
                    ("plan_cache_mode", "force_generic_plan"),
                ]);
                Session::Postgres { options: Arc::new(options), connection: None }
            }
            Db::Sqlite(sqlite) => Session::Sqlite(sqlite.writer),
        };
        Self { session, config, commits, careful: 0 }
    }

    /// Runs until drained.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, draining: CancellationToken) {
        let limit = self.config.batch.clamp(1, ROWS_LIMIT);
        let mut batch = Vec::with_capacity(limit);
        loop {
            let taken = tokio::select! {
                biased;
                () = draining.cancelled(), if !jobs.is_closed() => {
                    jobs.close();
                    continue;
                }
                taken = jobs.recv_many(&mut batch, limit) => taken,
            };
            if taken == 0 {
                break;
            }
            if self.config.linger_ms > 0 && taken < limit {
                sleep(Duration::from_millis(self.config.linger_ms)).await;
                while batch.len() < limit
                    && let Ok(job) = jobs.try_recv()
                {
                    batch.push(job);
                }
            }
            Box::pin(self.commit_all(std::mem::replace(&mut batch, Vec::with_capacity(limit)))).await;
        }
        if let Session::Postgres { connection: Some(connection), .. } = self.session {
            let _ = connection.close().await;
        }
    }

    /// Commits a batch; halves it, in order, as long as the database refuses something in it.
    async fn commit_all(&mut self, batch: Vec<Job>) {
        let mut waiting = VecDeque::from([batch]);
        while let Some(mut jobs) = waiting.pop_front() {
            match self.commit_persistently(&jobs).await {
                Ok(plan) => self.deliver(jobs, plan).await,
                Err(failure) if !failure.transient && jobs.len() > 1 => {
                    let second = jobs.split_off(jobs.len() / 2);
                    waiting.push_front(second);
                    waiting.push_front(jobs);
                }
                Err(failure) => refuse(jobs, &failure),
            }
        }
    }

    /// Tries until the batch is committed, refused, or too old.
    async fn commit_persistently(&mut self, jobs: &[Job]) -> Result<Plan, Failure> {
        let oldest = jobs.first().map_or_else(Instant::now, |job| job.since);
        let deadline = oldest + Duration::from_millis(self.config.outage_ms);
        let mut pause = FIRST_PAUSE;
        let mut unanswered = None;
        self.careful = self.careful.saturating_sub(1);
        loop {
            let failure = match self.commit_once(jobs, &mut unanswered).await {
                Ok(plan) => return Ok(plan),
                Err(failure) => failure,
            };
            if failure.repeated && self.careful == 0 {
                // Somebody repeats sends; where one repetition is, there are more.
                self.careful = CAREFUL_BATCHES;
                continue;
            }
            if !failure.transient || Instant::now() + pause > deadline {
                return Err(failure);
            }
            metrics::APPEND_PROBLEMS.of(AppendProblem::Retried).increment();
            tracing::warn!(error = ?failure.error, writes = jobs.len(), "batch not committed, trying again");
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn commit_once(&mut self, jobs: &[Job], unanswered: &mut Option<Plan>) -> Result<Plan, Failure> {
        let started = Instant::now();
        let careful = self.careful > 0;
        let outcome = match &mut self.session {
            Session::Sqlite(pool) => commit_sqlite(pool, jobs, careful, unanswered).await,
            Session::Postgres { options, connection } => {
                let limit = Duration::from_millis(self.config.batch_timeout_ms);
                let attempt = Box::pin(commit_postgres(options, connection, jobs, careful, unanswered));
                let outcome = timeout(limit, attempt).await.unwrap_or_else(|_| Err(Failure::timeout()));
                if outcome.as_ref().is_err_and(|failure| failure.transient) {
                    *connection = None;
                }
                outcome
            }
        };
        if outcome.is_ok() {
            metrics::APPEND_BATCH_SIZE.observe(jobs.len() as u64);
            metrics::APPEND_COMMIT_SECONDS.record(started.elapsed());
        }
        outcome
    }

    /// Answers the senders, then hands on what is new.
    async fn deliver(&self, jobs: Vec<Job>, mut plan: Plan) {
        let verdicts = std::mem::take(&mut plan.verdicts);
        let mut sends = plan.sends.into_iter();
        let mut sent: Vec<Arc<MessageDetail>> = Vec::with_capacity(sends.len());
        let mut news = Vec::with_capacity(jobs.len());
        for (job, verdict) in jobs.into_iter().zip(verdicts) {
            let Job { write, reply, .. } = job;
            let outcome = match (verdict, write) {
                (Ok(Verdict::Sent), Write::Send(message)) => {
                    sent.extend(sends.next().map(|minted| Arc::new(detail(message, minted))));
                    repeated(&sent, sent.len().wrapping_sub(1), false)
                }
                (Ok(Verdict::Repeated(index)), _) => repeated(&sent, index, true),
                (Ok(verdict), _) => outcome(verdict),
                (Err(error), _) => Err(error),
            };
            news.extend(outcome.as_ref().ok().and_then(news_of));
            let _ = reply.send(outcome);
        }
        metrics::MESSAGES_STORED.add(sent.len() as u64);
        if !news.is_empty() {
            // A full queue makes this lane wait: acks are out already, and order matters more than haste.
            let _ = self.commits.send(news).await;
        }
    }
}

async fn commit_sqlite(
    pool: &SqlitePool,
    jobs: &[Job],
    careful: bool,
    unanswered: &mut Option<Plan>,
) -> Result<Plan, Failure> {
    let mut pooled = Box::pin(pool.acquire()).await.map_err(Failure::new)?;
    sqlx::query(BEGIN_SQLITE).execute(&mut *pooled).await.map_err(Failure::new)?;
    let outcome = transact(&mut Connection::Sqlite(&mut pooled), jobs, careful, unanswered).await;
    if outcome.is_err() && sqlx::query("ROLLBACK").execute(&mut *pooled).await.is_err() {
        // Some failures roll back by themselves; if this one did not, nobody may get this connection.
        pooled.close_on_drop();
    }
    outcome
}

/// After a transient failure the caller drops the connection, which rolls back.
async fn commit_postgres(
    options: &PgConnectOptions,
    slot: &mut Option<PgConnection>,
    jobs: &[Job],
    careful: bool,
    unanswered: &mut Option<Plan>,
) -> Result<Plan, Failure> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(Box::pin(options.connect()).await.map_err(Failure::new)?),
    };
    sqlx::query("BEGIN").execute(&mut *connection).await.map_err(Failure::new)?;
    let outcome = transact(&mut Connection::Postgres(connection), jobs, careful, unanswered).await;
    if outcome.as_ref().is_err_and(|failure| !failure.transient) {
        sqlx::query("ROLLBACK").execute(&mut *connection).await.map_err(Failure::new)?;
    }
    outcome
}

/// From the locks to the commit. `unanswered` is the plan of an attempt whose commit may have happened: until that
/// is known under the locks, nothing new is decided.
async fn transact(
    connection: &mut Connection<'_>,
    jobs: &[Job],
    careful: bool,
    unanswered: &mut Option<Plan>,
) -> Result<Plan, Failure> {
    let states = store::lock(connection, jobs).await.map_err(Failure::new)?;
    if let Some(plan) = unanswered.as_ref() {
        let committed = store::was_committed(connection, plan).await.map_err(Failure::new)?;
        if let Some(plan) = unanswered.take().filter(|_| committed) {
            connection.run("COMMIT").await.map_err(Failure::new)?;
            return Ok(plan);
        }
    }
    let now = clock::now_micros();
    let plan = store::apply(connection, jobs, states, now, careful).await.map_err(Failure::new)?;
    let plan = unanswered.insert(plan);
    connection.run("COMMIT").await.map_err(Failure::new)?;
    Ok(std::mem::take(plan))
}

impl Failure {
    fn new(error: sqlx::Error) -> Self {
        let repeated = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        Self { transient: is_transient(&error), repeated, error: error.into() }
    }

    fn timeout() -> Self {
        Self { error: ImksError::Timeout("database"), transient: true, repeated: false }
    }
}

/// Whether the database, not the content of the batch, is the reason.
fn is_transient(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else {
        return !matches!(
            error,
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }
        );
    };
    let code = database.code().unwrap_or_default();
    if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // The primary code is the low byte of the extended one.
        return code.parse::<u32>().is_ok_and(|code| SQLITE_TRANSIENT.contains(&(code & 0xff)));
    }
    POSTGRES_TRANSIENT.iter().any(|class| code.starts_with(class))
}

fn refuse(jobs: Vec<Job>, failure: &Failure) {
    tracing::error!(error = ?failure.error, writes = jobs.len(), "writes refused by the database");
    metrics::APPEND_PROBLEMS.of(AppendProblem::Failed).add(jobs.len() as u64);
    for job in jobs {
        let error = match failure.transient {
            true => ImksError::Unavailable("database"),
            false => ImksError::Internal("the database refused this write"),
        };
        let _ = job.reply.send(Err(error));
    }
}

fn detail(message: NewMessage, minted: Minted) -> MessageDetail {
    MessageDetail {
        id: minted.id,
        channel_id: message.channel_id,
        author: message.author,
        body: message.body,
        created_at: Timestamp(minted.created_at),
        reactions: None,
        attachment_count: 0,
        seq: minted.seq,
        version: 1,
        kind: message.kind,
        content_type: message.content_type,
        thread_id: message.thread_id,
        reply_to_message_id: message.reply_to_message_id,
        reply_to: minted.reply_to,
        attachments: Vec::new(),
        embeds: Vec::new(),
        poll: None,
        mentions: message.mentions,
        flags: minted.flags,
        edited_at: None,
        deleted_at: None,
        pinned: false,
        nonce: message.nonce,
        thread: None,
        rev: 0,
    }
}

fn repeated(sent: &[Arc<MessageDetail>], index: usize, duplicate: bool) -> ImksResult<Outcome> {
    let message = sent.get(index).cloned().ok_or(ImksError::Internal("batch out of step"))?;
    Ok(Outcome::Sent { message, duplicate })
}

fn outcome(verdict: Verdict) -> ImksResult<Outcome> {
    Ok(match verdict {
        Verdict::Stored { message, reply_to } => {
            Outcome::Sent { message: view(*message, reply_to), duplicate: true }
        }
        Verdict::Edited { message, reply_to, changed } => {
            Outcome::Edited { rev: message.rev, message: view(*message, reply_to), changed }
        }
        Verdict::Deleted { deletion, changed } => Outcome::Deleted { deletion: Arc::new(deletion), changed },
        Verdict::Sent | Verdict::Repeated(_) => return Err(ImksError::Internal("batch out of step")),
    })
}

fn view(message: Message, reply_to: Option<Box<ReplyPreview>>) -> Arc<MessageDetail> {
    Arc::new(MessageDetail { reply_to, ..message.into() })
}

fn news_of(outcome: &Outcome) -> Option<Committed> {
    Some(match outcome {
        Outcome::Sent { message, duplicate: false } => Committed::Sent(Arc::clone(message)),
        Outcome::Edited { message, changed: true, .. } => Committed::Edited(Arc::clone(message)),
        Outcome::Deleted { deletion, changed: true } => Committed::Deleted(Arc::clone(deletion)),
        _ => return None,
    })
}

/// How long after a repeated send the lane expects more of them.
const CAREFUL_BATCHES: u32 = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Primary result codes: busy, locked, I/O error, full.
const SQLITE_TRANSIENT: [u32; 4] = [5, 6, 10, 13];
/// SQLSTATE classes and codes: connection, insufficient resources, operator intervention, rolled back by the
/// server (deadlock, serialisation), lock not available, system error, read only (a standby before its promotion).
const POSTGRES_TRANSIENT: [&str; 7] = ["08", "53", "57", "40", "55P03", "58", "25006"];
