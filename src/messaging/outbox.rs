//! The messages of other programs (`imks.publish`, docs/publish.md): one node at a time appends them through the lanes,
//! in the order of each channel. The nonce makes each exactly one message, also when the node ends between the commit
//! and the removal, or when a node that was paused goes on beside its successor.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::metrics;
use crate::models::Db;
use crate::models::append::{Appender, Authority, Scope};
use crate::models::lease::Lease;
use crate::models::message::{AuthorInfo, ContentType, MessageType, Priority};
use crate::models::message_embed::Embeds;
use crate::models::message_mention::Mentioned;
use crate::models::message_send::NewMessage;
use crate::models::outbox::{Notices, OutboxMessage, Waiting};
use crate::models::text::{Mentions, MessageBody, Nonce};
use crate::node::NodeId;
use crate::{ImksResult, clock};

/// Appends what other programs have written, until `stop`. Does nothing on SQLite.
pub async fn run(db: Db, appender: Appender, node: NodeId, stop: CancellationToken) {
    if matches!(db, Db::Sqlite(_)) {
        return;
    }
    let outbox = Outbox { lease: Lease::new("outbox", node.to_string()), db, appender };
    stop.run_until_cancelled(Box::pin(outbox.work())).await;
    if let Ok(Err(error)) = timeout(LAST_WORDS_MAX, outbox.lease.give_back(&outbox.db)).await {
        tracing::warn!(%error, "the lease of the outbox was not given back");
    }
}

/// What waits in the outbox, and for how long nothing of it was appended.
#[derive(Debug)]
pub struct Backlog {
    db: Db,
    oldest: Mutex<Oldest>,
}

impl Backlog {
    /// Creates the view of an outbox that was not looked at yet.
    pub fn new(db: &Db) -> Self {
        Self { db: db.clone(), oldest: Mutex::default() }
    }

    /// Returns what waits, and how long the oldest message has been the oldest one.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn look(&self) -> ImksResult<(Waiting, Duration)> {
        let waiting = Waiting::read(&self.db).await?;
        metrics::OUTBOX_WAITING.set(waiting.messages);
        Ok((waiting, self.oldest.lock().unmoved(waiting.oldest, Instant::now())))
    }
}

/// The number of the oldest message, and when it was first seen to be the oldest one.
#[derive(Debug, Default)]
struct Oldest(Option<(i64, Instant)>);

impl Oldest {
    /// Returns how long the oldest message has been the oldest one at `now`.
    fn unmoved(&mut self, oldest: Option<i64>, now: Instant) -> Duration {
        let since = match (self.0, oldest) {
            (Some((known, since)), Some(number)) if known == number => since,
            _ => now,
        };
        self.0 = oldest.map(|number| (number, since));
        now.duration_since(since)
    }
}

struct Outbox {
    db: Db,
    appender: Appender,
    lease: Lease,
}

/// What the node that holds the lease does beside appending.
#[derive(Default)]
struct Chores {
    /// Where notices come in. Without them the outbox is polled.
    notices: Option<Notices>,
    listen_at: Option<Instant>,
    sweep_at: Option<Instant>,
}

impl Chores {
    /// Listens for notices, and removes what failed long ago, when it is time.
    async fn turn(&mut self, db: &Db, now: Instant) -> ImksResult<()> {
        if self.notices.is_none() && self.listen_at.is_none_or(|at| at <= now) {
            self.listen_at = Some(now + LISTEN_EVERY);
            match Notices::open(db).await {
                Ok(notices) => self.notices = notices,
                Err(error) => tracing::warn!(%error, "the outbox is polled, because LISTEN is not possible"),
            }
        }
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = Some(now + SWEEP_EVERY);
            OutboxMessage::sweep(db, clock::now_micros()).await?;
        }
        Ok(())
    }
}

impl Outbox {
    async fn work(&self) {
        let mut chores = Chores::default();
        loop {
            let pause = match self.turn(&mut chores).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "messages of other programs wait");
                    chores.notices = None;
                    PAUSE
                }
            };
            let noticed = async {
                match &mut chores.notices {
                    Some(notices) => notices.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                noticed = noticed => if let Err(error) = noticed {
                    tracing::debug!(%error, "the outbox is polled until it is listened to again");
                    chores.notices = None;
                }
            }
        }
    }

    /// Appends what waits, if this node holds the lease. Returns how long to wait for a notice.
    async fn turn(&self, chores: &mut Chores) -> ImksResult<Duration> {
        if !self.lease.take(&self.db).await? {
            *chores = Chores::default();
            return Ok(PAUSE);
        }
        chores.turn(&self.db, Instant::now()).await?;
        let waiting = OutboxMessage::waiting(&self.db).await?;
        if waiting.is_empty() {
            return Ok(PAUSE);
        }
        let appended = self.append_all(waiting).await?;
        Ok(if appended { Duration::ZERO } else { PAUSE })
    }

    /// Appends messages, channel by channel. Returns whether all of them were settled.
    async fn append_all(&self, waiting: Vec<OutboxMessage>) -> ImksResult<bool> {
        let count = waiting.len();
        let mut channels: BTreeMap<Uuid, Vec<OutboxMessage>> = BTreeMap::new();
        for message in waiting {
            channels.entry(message.channel_id).or_default().push(message);
        }
        let work = channels.into_values().map(|messages| self.append_in_order(messages));
        let done: Vec<(Vec<i64>, usize)> = stream::iter(work).buffered(CHANNELS_AT_ONCE).collect().await;
        let numbers: Vec<i64> = done.iter().flat_map(|(numbers, _)| numbers).copied().collect();
        let settled: usize = numbers.len() + done.iter().map(|(_, failed)| failed).sum::<usize>();
        OutboxMessage::remove(&self.db, &numbers).await?;
        Ok(settled == count)
    }

    /// Appends the messages of one channel one after the other. Stops where a retry may help, so that the order
    /// stays. Returns the numbers of those that were appended, and how many failed for good.
    async fn append_in_order(&self, messages: Vec<OutboxMessage>) -> (Vec<i64>, usize) {
        let (mut appended, mut failed) = (Vec::new(), 0);
        for message in messages {
            match self.append(&message).await {
                Ok(()) => appended.push(message.number),
                Err(error) if error.is_retryable() => break,
                Err(error) => {
                    let reason = format!("{}: {}", error.code().as_str(), error.client_message());
                    if message.fail(&self.db, clock::now_micros(), &reason).await.is_err() {
                        break;
                    }
                    metrics::OUTBOX.of(metrics::Outbox::Failed).increment();
                    tracing::warn!(id = %message.id, reason, "a message of another program cannot be sent");
                    failed += 1;
                }
            }
        }
        (appended, failed)
    }

    async fn append(&self, message: &OutboxMessage) -> ImksResult<()> {
        let actor = AuthorInfo { id: message.author_id, username: message.author_name.as_str().into() };
        let scope = Scope {
            channel_id: message.channel_id,
            actor,
            slow_mode: Duration::ZERO,
            authority: Authority::Own,
        };
        self.appender.submit(scope, new_message(message)?)?.await?;
        metrics::OUTBOX.of(metrics::Outbox::Sent).increment();
        Ok(())
    }
}

fn new_message(message: &OutboxMessage) -> ImksResult<NewMessage> {
    Ok(NewMessage {
        body: MessageBody::new(message.body.as_str())?,
        kind: MessageType::from_stored(message.kind),
        content_type: ContentType::Markdown,
        thread_id: None,
        also_send_to_channel: false,
        reply_to_message_id: None,
        forward_of: None,
        forwards: None,
        expires_at: None,
        mentions: Mentions::default(),
        mentioned: Mentioned::default(),
        flags: 0,
        priority: Priority::from_stored(message.priority),
        ack_requested: message.ack_requested,
        stream: false,
        poll: None,
        attachments: Vec::new(),
        embeds: Embeds::default(),
        nonce: Some(Nonce::new(&message.nonce)?),
        expect: None,
        metadata: None,
        scheduled_id: None,
        interactive: false,
    })
}

/// How long the outbox is not looked at without a notice, and how long a node waits that does not hold the lease.
const PAUSE: Duration = Duration::from_secs(1);
/// The channels whose messages are appended at once.
const CHANNELS_AT_ONCE: usize = 32;
/// How often it is tried to listen for notices.
const LISTEN_EVERY: Duration = Duration::from_secs(30);
/// How often messages are removed that failed long ago.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How long an outbox that stops may take to give its lease back.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_is_stuck_while_its_oldest_message_stays_and_not_while_others_come_and_go() {
        let (mut seen, begun) = (Oldest::default(), Instant::now());
        let mut unmoved =
            |oldest, seconds| seen.unmoved(oldest, begun + Duration::from_secs(seconds)).as_secs();
        assert_eq!((unmoved(Some(1), 0), unmoved(Some(1), 70)), (0, 70));
        assert_eq!((unmoved(Some(2), 80), unmoved(Some(3), 90)), (0, 0));
        assert_eq!((unmoved(None, 200), unmoved(None, 300), unmoved(Some(9), 310)), (0, 0, 0));
    }
}
