//! Group commit: the one way a message or a mutation is written.
//!
//! Writes wait in a lane, chosen by channel, so that one process never competes with itself for a channel.
//! A lane that is idle writes at once; a busy one takes everything that arrived during its last commit, and
//! commits that together: many senders share one transaction. Within it the channel's counters are locked, repeats
//! are recognised, `seq`, `rev` and ids are given out in arrival order, and everything is inserted with a
//! handful of statements (docs/adr/0007).
//!
//! **Invariant**: a receipt resolves with success only after the commit. **Invariant**: what reaches [`Commits`]
//! is committed and in `seq` and `rev` order per channel.

mod lane;
pub(crate) mod plan;
mod store;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Db;
use super::message::{AuthorInfo, ContentType, Mentions, MessageDetail, MessageType};
use super::metrics::{self, AppendProblem};
use crate::clock::Timestamp;
use crate::{ImksError, ImksResult};

/// How writes are gathered.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Lanes on PostgreSQL, each with a connection of its own. SQLite has one writer, hence one lane.
    pub lanes: usize,
    /// Writes that may wait in one lane; more are refused as overloaded.
    pub queue: usize,
    /// Writes in one transaction.
    pub batch: usize,
    /// How long an idle lane waits for company before it writes. Zero is right unless commits are very slow.
    pub linger_ms: u64,
    /// How long a write outlasts a database that is away before it fails as unavailable.
    pub outage_ms: u64,
    /// How long one transaction may take before its connection is given up and the batch is tried again.
    pub batch_timeout_ms: u64,
    /// Batches that may wait to be broadcast; after that the lane waits for its reader.
    pub commits_queue: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lanes: 4,
            queue: 4_096,
            batch: 256,
            linger_ms: 0,
            outage_ms: 5_000,
            batch_timeout_ms: 10_000,
            commits_queue: 64,
        }
    }
}

/// Something to write.
#[derive(Debug)]
pub enum Write {
    /// A new message.
    Send(NewMessage),
    /// A new text for a message.
    Edit(EditMessage),
    /// A message becomes a tombstone.
    Delete(DeleteMessage),
}

impl Write {
    fn channel(&self) -> Uuid {
        match self {
            Self::Send(message) => message.channel_id,
            Self::Edit(edit) => edit.channel_id,
            Self::Delete(delete) => delete.channel_id,
        }
    }
}

/// A message to store. Limits (length of the body, number of mentions) are the caller's to check.
#[derive(Debug)]
pub struct NewMessage {
    /// Where.
    pub channel_id: Uuid,
    /// Who, as shown to others.
    pub author: AuthorInfo,
    /// What.
    pub body: String,
    /// `type` on the wire.
    pub kind: MessageType,
    /// How the body is to be read.
    pub content_type: ContentType,
    /// Root of the thread this belongs to; must be a message of the same channel that is no thread reply itself.
    pub thread_id: Option<Uuid>,
    /// A thread reply that also stands in the channel and counts as unread there.
    pub also_send_to_channel: bool,
    /// The message this answers; must be in the same channel.
    pub reply_to_message_id: Option<Uuid>,
    /// Who is mentioned.
    pub mentions: Mentions,
    /// `FLAG_*` of [`super::message`].
    pub flags: i32,
    /// The client's name for this send, 1 to 64 characters: repeated within 24 hours by the same author in the
    /// same channel, it returns the first message.
    pub nonce: Option<String>,
    /// A person sent it, who has thereby read the channel. False for scheduled messages, webhooks and bots.
    pub interactive: bool,
    /// Refuse when the author's last message in the channel, scheduled ones and those of programs aside, is
    /// younger; zero for no limit.
    pub slow_mode: Duration,
}

/// A new text for a message.
#[derive(Debug)]
pub struct EditMessage {
    /// Where the message is.
    pub channel_id: Uuid,
    /// Which one.
    pub message_id: Uuid,
    /// Who edits.
    pub editor_id: Uuid,
    /// Refuse when the author is somebody else.
    pub required_author: Option<Uuid>,
    /// The new text.
    pub body: String,
    /// The new mentions; nothing leaves them as they are.
    pub mentions: Option<Mentions>,
    /// Refuse when the stored version is another one.
    pub expected_version: Option<i64>,
}

/// A message to delete.
#[derive(Debug)]
pub struct DeleteMessage {
    /// Where the message is.
    pub channel_id: Uuid,
    /// Which one.
    pub message_id: Uuid,
    /// Who deletes.
    pub actor_id: Uuid,
    /// Refuse when the author is somebody else; nothing when the caller may delete others' messages.
    pub required_author: Option<Uuid>,
}

/// What became of a write.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Stored now, or before by an earlier send with the same nonce.
    Sent {
        /// The message as everybody sees it.
        message: Arc<MessageDetail>,
        /// It was there already.
        duplicate: bool,
    },
    /// The message has this text.
    Edited {
        /// The message as everybody sees it.
        message: Arc<MessageDetail>,
        /// Number of the message's last change.
        rev: i64,
        /// Whether this edit changed anything.
        changed: bool,
    },
    /// The message is a tombstone.
    Deleted {
        /// What is known about the deletion.
        deletion: Arc<Deletion>,
        /// Whether it was this call that deleted it.
        changed: bool,
    },
}

/// A deletion, as in `message:deleted` (docs/protocol.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the wire contract in docs/protocol.md explains each field")]
pub struct Deletion {
    pub channel_id: Uuid,
    pub id: Uuid,
    pub rev: i64,
    pub deleted_at: Timestamp,
    pub deleted_by: Uuid,
    pub thread_id: Option<Uuid>,
    pub seq: i64,
}

/// A committed write, to be told to the channel.
#[derive(Debug, Clone)]
pub enum Committed {
    /// `message:new`.
    Sent(Arc<MessageDetail>),
    /// `message:updated`; the message carries its `rev`.
    Edited(Arc<MessageDetail>),
    /// `message:deleted`.
    Deleted(Arc<Deletion>),
}

impl Committed {
    /// The channel it happened in.
    pub fn channel_id(&self) -> Uuid {
        match self {
            Self::Sent(message) | Self::Edited(message) => message.channel_id,
            Self::Deleted(deletion) => deletion.channel_id,
        }
    }
}

/// Accepts writes. Cloning shares the lanes.
#[derive(Debug, Clone)]
pub struct Appender {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lanes: Vec<mpsc::Sender<Job>>,
    tasks: TaskTracker,
    draining: CancellationToken,
}

/// A write on its way through a lane.
#[derive(Debug)]
struct Job {
    write: Write,
    reply: oneshot::Sender<ImksResult<Outcome>>,
    since: tokio::time::Instant,
}

/// What one lane committed, in order. One item is one transaction.
#[derive(Debug)]
pub struct Commits(mpsc::Receiver<Vec<Committed>>);

impl Commits {
    /// The next transaction's writes; nothing once the appender is drained. Cancel safe.
    pub async fn recv(&mut self) -> Option<Vec<Committed>> {
        self.0.recv().await
    }
}

/// Resolves when the write is committed or refused. Dropping it does not take the write back.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<ImksResult<Outcome>>);

impl Future for Receipt {
    type Output = ImksResult<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(outcome) => outcome,
            Err(_) => Err(ImksError::Unavailable("append lane")),
        })
    }
}

impl Appender {
    /// Starts the lanes. Every returned [`Commits`] must be read: a lane whose commits nobody takes stops.
    pub fn start(db: Db, config: Config) -> (Self, Vec<Commits>) {
        let lanes = match db {
            Db::Postgres(_) => config.lanes.max(1),
            Db::Sqlite(_) => 1,
        };
        let (tasks, draining) = (TaskTracker::new(), CancellationToken::new());
        let (mut senders, mut commits) = (Vec::with_capacity(lanes), Vec::with_capacity(lanes));
        for _ in 0..lanes {
            let (jobs_in, jobs) = mpsc::channel(config.queue.max(1));
            let (commits_in, commits_out) = mpsc::channel(config.commits_queue.max(1));
            let lane = lane::Lane::new(db.clone(), config.clone(), commits_in);
            tasks.spawn(lane.run(jobs, draining.clone()));
            senders.push(jobs_in);
            commits.push(Commits(commits_out));
        }
        (Self { shared: Arc::new(Shared { lanes: senders, tasks, draining }) }, commits)
    }

    /// Puts a write in its lane, at once and without waiting. Writes to one channel are stored in the order of
    /// these calls.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] for a body with a NUL character, [`ImksError::Overloaded`] when the lane is
    /// full, [`ImksError::Unavailable`] while draining. The receipt then tells: [`ImksError::NonceConflict`],
    /// [`ImksError::NotFound`], [`ImksError::MessageDeleted`], [`ImksError::VersionMismatch`],
    /// [`ImksError::Forbidden`], or [`ImksError::Unavailable`] when the outcome is unknown and a retry with
    /// the same nonce is the way to find out.
    pub fn submit(&self, write: Write) -> ImksResult<Receipt> {
        check_text(&write)?;
        let lane = &self.shared.lanes[lane_of(write.channel(), self.shared.lanes.len())];
        let (reply, receipt) = oneshot::channel();
        let job = Job { write, reply, since: tokio::time::Instant::now() };
        match lane.try_send(job) {
            Ok(()) => Ok(Receipt(receipt)),
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::APPEND_PROBLEMS.of(AppendProblem::Refused).increment();
                Err(ImksError::Overloaded { retry_after: RETRY_AFTER })
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ImksError::Unavailable("shutting down")),
        }
    }

    /// Takes no more writes and returns when all accepted ones are committed or have failed.
    pub async fn drain(&self) {
        self.shared.draining.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// PostgreSQL cannot store NUL in text; refusing it for both databases keeps them alike.
fn check_text(write: &Write) -> ImksResult<()> {
    let (body, nonce) = match write {
        Write::Send(message) => (message.body.as_str(), message.nonce.as_deref().unwrap_or_default()),
        Write::Edit(edit) => (edit.body.as_str(), ""),
        Write::Delete(_) => return Ok(()),
    };
    for (field, text) in [("body", body), ("nonce", nonce)] {
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(ImksError::invalid(field, "must not contain the character U+0000"));
        }
    }
    Ok(())
}

/// Channel ids are v7: their last bytes are random, their first are not.
fn lane_of(channel: Uuid, lanes: usize) -> usize {
    let low = channel.as_u64_pair().1.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    usize::try_from(low).unwrap_or(0) % lanes
}

/// What a client is told when a lane is full; about as long as a full lane takes to empty.
const RETRY_AFTER: Duration = Duration::from_millis(500);
