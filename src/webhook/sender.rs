//! The sender of one receiver: it holds the lease, reads the feed, and keeps the cursor.
//!
//! What uses the database while something else is waited for is a task of its own, or done at once: a future that is
//! not polled meanwhile would keep its connection, which on SQLite may be the one that writes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinError;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use uuid::Uuid;

use super::config::Config;
use super::delivery::{Letter, Outcome, Receiver};
use super::metrics;
use super::window::Window;
use crate::error::Cause;
use crate::models::Db;
use crate::models::feed::{Cursor, Event, Feed, Filter, Follower, Position, Step};
use crate::models::lease::Lease;
use crate::models::webhook::{DeadLetter, Endpoint};
use crate::node::NodeId;
use crate::secret::Secret;
use crate::{ImksError, ImksResult, clock};

/// The sender of one receiver on this node.
pub(super) struct Sender {
    id: String,
    receiver: Arc<Receiver>,
    feed: Feed,
    filter: Filter,
    lease: Lease,
    /// Where it reads.
    tasks: TaskTracker,
}

/// A delivery that has ended.
enum Done {
    Event(Event, Letter, Outcome),
    Retry(DeadLetter, Outcome),
}

/// The state of a sender while it holds the lease.
struct Lead {
    window: Window,
    /// The reading of the next events.
    reading: Reading,
    /// The reading of events that were left out, because their channel had too many.
    behind: Option<Reading>,
    deliveries: FuturesUnordered<BoxFuture<'static, Done>>,
    /// The cursor as stored.
    stored: Position,
    /// The deliveries of dead letters.
    retries: usize,
}

/// A step of a follower in a task, which ends when nobody wants it any more.
type Reading = AbortOnDropHandle<Read>;

/// What was read: the next events of one channel, or of all.
struct Read {
    channel: Option<Uuid>,
    follower: Follower,
    step: ImksResult<Step>,
}

/// Why a sender no longer leads.
enum End {
    Stopped,
    Lost,
    Disabled,
}

impl Sender {
    pub(super) fn new(
        url: &Secret,
        receiver: Receiver,
        config: &Config,
        feed: Feed,
        (node, tasks): (NodeId, &TaskTracker),
    ) -> Self {
        let id = id_of(url);
        let filter = Filter { events: config.events.iter().cloned().collect(), ..Filter::default() };
        let lease = Lease::new(format!("webhook {id}"), node.to_string());
        Self { id, receiver: Arc::new(receiver), feed, filter, lease, tasks: tasks.clone() }
    }

    /// Sends while this node holds the lease, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let led = match self.lease.take(self.db()).await {
                Ok(true) => Box::pin(self.lead(&stop)).await,
                Ok(false) => Ok(End::Lost),
                Err(error) => Err(error),
            };
            match led {
                Ok(End::Stopped) => break,
                Ok(End::Lost | End::Disabled) => {}
                Err(error) => tracing::warn!(receiver = self.receiver.name, %error, "webhooks wait"),
            }
            stop.run_until_cancelled(sleep(clock::jittered(RETRY))).await;
        }
        if let Ok(Err(error)) = timeout(LAST_WORDS_MAX, self.lease.give_back(self.db())).await {
            tracing::warn!(%error, "the lease of a sender of webhooks was not given back");
        }
    }

    fn db(&self) -> &Db {
        self.feed.db()
    }

    async fn lead(&self, stop: &CancellationToken) -> ImksResult<End> {
        let Some(start) = stop.run_until_cancelled(self.start()).await else { return Ok(End::Stopped) };
        let Some(start) = start? else { return Ok(End::Disabled) };
        let follower = self.feed.follow(Cursor::At(start), self.filter.clone());
        let (window, reading) = (Window::new(start), self.read(None, follower));
        let deliveries = FuturesUnordered::new();
        let mut lead = Lead { window, reading, behind: None, deliveries, stored: start, retries: 0 };
        let mut ticks = interval(RENEW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.fill(&mut lead)?;
            let has_room = lead.window.has_room();
            let end = tokio::select! {
                () = stop.cancelled() => {
                    // Without it, the next sender repeats what was taken since the last tick.
                    if let Ok(Err(error)) = timeout(LAST_WORDS_MAX, self.save(&mut lead)).await {
                        tracing::warn!(receiver = self.receiver.name, %error, "the cursor was not stored");
                    }
                    return Ok(End::Stopped);
                }
                _ = ticks.tick() => self.tick(&mut lead).await?,
                Some(done) = lead.deliveries.next() => self.settle(&mut lead, done).await?,
                read = &mut lead.reading, if has_room => self.take(&mut lead, read)?,
                Some(read) = OptionFuture::from(lead.behind.as_mut()) => self.take(&mut lead, read)?,
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Returns where to go on, or `None` while the receiver is disabled. A new receiver gets what is committed from
    /// now on.
    async fn start(&self) -> ImksResult<Option<Position>> {
        self.count().await?;
        if let Some(known) = Endpoint::find(self.db(), &self.id).await? {
            return Ok(known.disabled_at.is_none().then(|| known.next()));
        }
        let now = self.feed.follow(Cursor::Now, Filter::default()).begun().await?;
        let (id, name) = (self.id.clone(), self.receiver.name.clone());
        let endpoint = Endpoint { id, name, next_batch: now.batch, next_index: now.index, disabled_at: None };
        endpoint.insert(self.db()).await?;
        Ok(Some(now))
    }

    /// Shows operators what waits for them.
    async fn count(&self) -> ImksResult<()> {
        metrics::DEAD_LETTERS.set(DeadLetter::count_all(self.db()).await?);
        metrics::DISABLED.set(Endpoint::count_disabled(self.db()).await?);
        Ok(())
    }

    fn read(&self, channel: Option<Uuid>, mut follower: Follower) -> Reading {
        AbortOnDropHandle::new(self.tasks.spawn(async move {
            let step = follower.next().await;
            Read { channel, follower, step }
        }))
    }

    fn take(&self, lead: &mut Lead, read: Result<Read, JoinError>) -> ImksResult<Option<End>> {
        let Read { channel, follower, step } = read.map_err(|error| ImksError::Task(Cause::new(error)))?;
        let (events, next) = match step? {
            Step::Events(events, next) => (events, next),
            Step::Gap(next, reason) => {
                let receiver = &self.receiver.name;
                tracing::error!(receiver, ?reason, %next, "events cannot be sent any more");
                (Vec::new(), next)
            }
        };
        match channel {
            None => {
                lead.window.push(events, next);
                lead.reading = self.read(None, follower);
            }
            Some(channel) => {
                lead.window.push_left_out(channel, events, next);
                lead.behind = None;
            }
        }
        Ok(None)
    }

    /// Starts deliveries while there is room, and reads what was left out once there is room for it.
    fn fill(&self, lead: &mut Lead) -> ImksResult<()> {
        while lead.deliveries.len() < DELIVERIES_MAX
            && let Some(event) = lead.window.start()
        {
            let (receiver, letter) = (self.receiver.clone(), Letter::new(&event)?);
            lead.deliveries.push(Box::pin(async move {
                let outcome = receiver.deliver(&letter).await;
                Done::Event(event, letter, outcome)
            }));
        }
        if lead.behind.is_none()
            && let Some((channel, position)) = lead.window.left_out()
        {
            let filter = Filter { channels: [channel].into(), ..self.filter.clone() };
            let follower = self.feed.follow(Cursor::At(position), filter);
            lead.behind = Some(self.read(Some(channel), follower));
        }
        Ok(())
    }

    async fn settle(&self, lead: &mut Lead, done: Done) -> ImksResult<Option<End>> {
        match done {
            Done::Event(event, letter, outcome) => {
                match outcome {
                    Outcome::Taken => {
                        let since = u64::try_from(clock::now_micros().saturating_sub(event.at));
                        metrics::DELIVERY_SECONDS.record(Duration::from_micros(since.unwrap_or(0)));
                    }
                    Outcome::Gone => return self.disable(lead).await.map(Some),
                    Outcome::Dead(reason) => self.give_up(letter, reason).await?,
                }
                lead.window.finish(&event);
            }
            Done::Retry(letter, outcome) => {
                lead.retries -= 1;
                match outcome {
                    Outcome::Taken => letter.taken(self.db()).await?,
                    Outcome::Gone => return self.disable(lead).await.map(Some),
                    Outcome::Dead(reason) => {
                        let died_at = clock::now_micros();
                        DeadLetter { reason, died_at, ..letter }.store(self.db()).await?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Makes an event that was given up a dead letter, before the cursor may pass it.
    async fn give_up(&self, letter: Letter, reason: String) -> ImksResult<()> {
        metrics::DEAD.increment();
        let (receiver, died_at) = (&self.receiver.name, clock::now_micros());
        tracing::error!(receiver, id = letter.id, reason, "a webhook was given up");
        let (endpoint_id, body) = (self.id.clone(), String::from_utf8_lossy(&letter.body).into_owned());
        let dead = DeadLetter { endpoint_id, id: letter.id, body, reason, died_at, retry: false };
        let removed = dead.store(self.db()).await?;
        if removed > 0 {
            tracing::error!(receiver, removed, "the oldest dead letters were removed");
        }
        Ok(())
    }

    /// Renews the lease, stores the cursor, and looks for dead letters that an operator wants to be sent again.
    async fn tick(&self, lead: &mut Lead) -> ImksResult<Option<End>> {
        if !self.lease.take(self.db()).await? || !self.save(lead).await? {
            tracing::info!(receiver = self.receiver.name, "another node sends webhooks now");
            return Ok(Some(End::Lost));
        }
        self.count().await?;
        if lead.retries > 0 {
            return Ok(None);
        }
        for letter in DeadLetter::to_retry(self.db(), &self.id, RETRIES_MAX).await? {
            lead.retries += 1;
            let receiver = self.receiver.clone();
            lead.deliveries.push(Box::pin(async move {
                let again = Letter { id: letter.id.clone(), body: letter.body.clone().into() };
                let outcome = receiver.once(&again).await;
                Done::Retry(letter, outcome)
            }));
        }
        Ok(None)
    }

    /// Stores the cursor, if it has moved. Returns whether this node still holds the lease.
    async fn save(&self, lead: &mut Lead) -> ImksResult<bool> {
        let cursor = lead.window.cursor();
        if cursor == lead.stored {
            return Ok(true);
        }
        lead.stored = cursor;
        Endpoint::advance(self.db(), &self.lease, &self.id, cursor).await
    }

    async fn disable(&self, lead: &mut Lead) -> ImksResult<End> {
        self.save(lead).await?;
        tracing::error!(
            receiver = self.receiver.name,
            "a receiver of webhooks is gone (410): `imks webhook enable` sends again"
        );
        metrics::ATTEMPTS.of(metrics::Attempt::Refused).increment();
        Endpoint::set_disabled(self.db(), &self.id, Some(clock::now_micros())).await?;
        Ok(End::Disabled)
    }
}

/// Returns the id of the receiver with this address.
pub(super) fn id_of(url: &Secret) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, url.expose().as_bytes()).simple().to_string()
}

/// The most deliveries to one receiver at once, of as many channels.
const DELIVERIES_MAX: usize = 16;
/// The most dead letters that are sent again at once.
const RETRIES_MAX: i64 = 8;
/// How often the lease is renewed and the cursor stored.
const RENEW: Duration = Duration::from_secs(1);
/// How long a node waits that does not hold the lease.
const RETRY: Duration = Duration::from_secs(2);
/// How long a sender that stops may take to store its cursor, and to give its lease back.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
