//! The sender of one receiver: it holds the lease, reads the feed, and keeps the cursor.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::Config;
use super::delivery::{Letter, Outcome, Receiver};
use super::metrics;
use super::signature::Keys;
use super::window::Window;
use crate::http_client::HttpClient;
use crate::models::Db;
use crate::models::feed::{Cursor, Event, Feed, Filter, Follower, Position, Step};
use crate::models::lease::Lease;
use crate::models::webhook::{DeadLetter, Endpoint};
use crate::node::NodeId;
use crate::secret::Secret;
use crate::{ImksResult, clock};

/// The sender of one receiver on this node.
pub(super) struct Sender {
    id: String,
    receiver: Arc<Receiver>,
    feed: Feed,
    filter: Filter,
    lease: Lease,
}

/// A delivery that has ended.
enum Done {
    Event(Event, Outcome),
    Retry(DeadLetter, Outcome),
}

/// The state of a sender while it holds the lease.
struct Lead {
    window: Window,
    /// The reading of the next events. It is not cancelled by what happens meanwhile.
    reading: BoxFuture<'static, (Follower, ImksResult<Step>)>,
    deliveries: FuturesUnordered<BoxFuture<'static, ImksResult<Done>>>,
    /// The cursor as stored.
    stored: Position,
    /// The deliveries of dead letters.
    retries: usize,
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
        config: &Config,
        client: HttpClient,
        keys: Arc<Keys>,
        feed: Feed,
        node: NodeId,
    ) -> Self {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, url.expose().as_bytes()).simple().to_string();
        let receiver = Receiver {
            url: url.clone(),
            name: url.to_string(),
            client,
            keys,
            deadline: config.deadline,
            give_up: config.give_up,
            taken: AtomicU64::new(0),
        };
        let filter = Filter { events: config.events.iter().cloned().collect(), ..Filter::default() };
        let lease = Lease::new(format!("webhook {id}"), node.to_string());
        Self { id, receiver: Arc::new(receiver), feed, filter, lease }
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
        if let Err(error) = self.lease.give_back(self.db()).await {
            tracing::warn!(%error, "the lease of a sender of webhooks was not given back");
        }
    }

    fn db(&self) -> &Db {
        self.feed.db()
    }

    async fn lead(&self, stop: &CancellationToken) -> ImksResult<End> {
        let Some(start) = self.start().await? else { return Ok(End::Disabled) };
        let follower = self.feed.follow(Cursor::At(start), self.filter.clone());
        let (window, reading) = (Window::new(start), read(follower));
        let deliveries = FuturesUnordered::new();
        let mut lead = Lead { window, reading, deliveries, stored: start, retries: 0 };
        let mut ticks = interval(RENEW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.fill(&mut lead);
            let has_room = lead.window.has_room();
            let end = tokio::select! {
                () = stop.cancelled() => {
                    self.save(&mut lead).await?;
                    return Ok(End::Stopped);
                }
                _ = ticks.tick() => self.tick(&mut lead).await?,
                Some(done) = lead.deliveries.next() => self.settle(&mut lead, done?).await?,
                (follower, step) = &mut lead.reading, if has_room => {
                    self.take(&mut lead, step?);
                    lead.reading = read(follower);
                    None
                }
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

    fn take(&self, lead: &mut Lead, step: Step) {
        match step {
            Step::Events(events, next) => lead.window.push(events, next),
            Step::Gap(next) => {
                tracing::error!(
                    receiver = self.receiver.name,
                    "events were removed before they could be sent"
                );
                lead.window.push(Vec::new(), next);
            }
        }
    }

    /// Starts deliveries while there is room.
    fn fill(&self, lead: &mut Lead) {
        while lead.deliveries.len() < DELIVERIES_MAX
            && let Some(event) = lead.window.start()
        {
            let (receiver, db, endpoint) = (self.receiver.clone(), self.db().clone(), self.id.clone());
            lead.deliveries.push(Box::pin(async move {
                let outcome = deliver(&receiver, &db, endpoint, &event).await?;
                Ok(Done::Event(event, outcome))
            }));
        }
    }

    async fn settle(&self, lead: &mut Lead, done: Done) -> ImksResult<Option<End>> {
        match done {
            Done::Event(_, Outcome::Gone) => return self.disable(lead).await.map(Some),
            Done::Event(event, outcome) => {
                if outcome == Outcome::Taken {
                    let since = u64::try_from(clock::now_micros().saturating_sub(event.at)).unwrap_or(0);
                    metrics::DELIVERY_SECONDS.record(Duration::from_micros(since));
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
                Ok(Done::Retry(letter, outcome))
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

fn read(mut follower: Follower) -> BoxFuture<'static, (Follower, ImksResult<Step>)> {
    Box::pin(async move {
        let step = follower.next().await;
        (follower, step)
    })
}

/// Delivers an event. One that is given up becomes a dead letter, before the cursor may pass it.
async fn deliver(receiver: &Receiver, db: &Db, endpoint_id: String, event: &Event) -> ImksResult<Outcome> {
    let letter = Letter::new(event)?;
    let started = Instant::now();
    let outcome = receiver.deliver(&letter).await;
    if let Outcome::Dead(reason) = &outcome {
        metrics::DEAD.increment();
        let seconds = started.elapsed().as_secs();
        tracing::error!(receiver = receiver.name, id = letter.id, reason, seconds, "a webhook was given up");
        let body = String::from_utf8_lossy(&letter.body).into_owned();
        let dead = DeadLetter {
            endpoint_id,
            id: letter.id,
            body,
            reason: reason.clone(),
            died_at: clock::now_micros(),
            retry: false,
        };
        let removed = dead.store(db).await?;
        if removed > 0 {
            tracing::error!(receiver = receiver.name, removed, "the oldest dead letters were removed");
        }
    }
    Ok(outcome)
}

/// The most deliveries to one receiver at once, of as many channels.
const DELIVERIES_MAX: usize = 16;
/// The most dead letters that are sent again at once.
const RETRIES_MAX: i64 = 8;
/// How often the lease is renewed and the cursor stored.
const RENEW: Duration = Duration::from_secs(1);
/// How long a node waits that does not hold the lease.
const RETRY: Duration = Duration::from_secs(2);
