//! The task that removes what has been kept for long enough: messages, and the content of deleted ones (docs/adr/0052).
//! One node at a time works at it, and makes pauses between the steps.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::channel_rooms;
use super::parts::Messaging;
use super::push::Push;
use super::ticks;
use super::timed::timed;
use crate::ImksResult;
use crate::clock::{self, Micros};
use crate::models::lease::Lease;
use crate::models::message_retention::{self, CHANNELS_AT_ONCE, Cut, Horizon, Oldest};
use crate::socket::Namespace;

/// How long messages are kept.
#[derive(Debug, Clone)]
pub struct Retention {
    /// How long messages are kept in channels without a rule of their own; zero for ever.
    pub messages: Duration,
    /// How long the content of deleted messages is kept; zero for ever.
    pub deleted: Duration,
    /// How often the server looks for what is over.
    pub every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            messages: Duration::ZERO,
            deleted: Duration::from_hours(30 * 24),
            every: Duration::from_mins(10),
        }
    }
}

impl Retention {
    /// Whether no message goes while it can still be sent once more.
    pub fn is_possible(&self) -> bool {
        self.messages.is_zero() || clock::micros(self.messages) >= DAY
    }
}

/// Sent to a room when its oldest messages were removed. Lossy: `sync` and `session:ready` say the same.
pub(super) const HORIZON: Push<Horizon> = Push::new("channel:horizon");

/// Removes what is over, until `stop`, while this node holds the lease.
pub(super) async fn run(messaging: Messaging, namespace: Namespace, stop: CancellationToken) {
    let lease = Lease::new("retention", clock::new_id().to_string());
    let worker = Worker { messaging, namespace, lease, stop };
    let (mut time, worker) = (Steady::new(clock::now_micros()), &worker);
    ticks::repeat(worker.messaging.config().retention.every, &worker.stop, || {
        let now = time.follow(clock::now_micros());
        async move {
            if let Err(error) = worker.look(now).await {
                tracing::warn!(%error, "what has been kept for long enough is removed later");
            }
            false
        }
    })
    .await;
    if let Err(error) = worker.lease.give_back(worker.messaging.db()).await {
        tracing::debug!(%error, "the lease of retention ends by itself");
    }
}

/// The time by which messages are judged. A clock that is set forward is followed at most [`HASTE`] times as fast as time
/// passes: a wrong one does not remove everything at once, and somebody can see it before it has removed much.
#[derive(Debug)]
struct Steady {
    at: Micros,
    since: Instant,
}

impl Steady {
    fn new(clock: Micros) -> Self {
        Self { at: clock, since: Instant::now() }
    }

    /// Returns the time when the clock says `clock`.
    fn follow(&mut self, clock: Micros) -> Micros {
        let passed = clock::micros(self.since.elapsed());
        let time = clock.min(self.at.saturating_add(passed.saturating_mul(HASTE)));
        if clock.saturating_sub(time) > HOUR {
            let ahead_s = clock.saturating_sub(time) / 1_000_000;
            tracing::warn!(
                ahead_s,
                "the clock was set forward: what it says to be over is removed little by little"
            );
        }
        // A clock that is set back and then right again has not been set forward.
        (self.at, self.since) = (self.at.max(time), Instant::now());
        time
    }
}

struct Worker {
    messaging: Messaging,
    namespace: Namespace,
    lease: Lease,
    stop: CancellationToken,
}

impl Worker {
    /// Looks at everything once.
    async fn look(&self, now: Micros) -> ImksResult<()> {
        if !self.may_go_on().await? {
            return Ok(());
        }
        if let Err(error) = self.scrub(now).await {
            tracing::warn!(%error, "the content of deleted messages is removed later");
        }
        let outcome = self.cut_everywhere(now).await;
        // After both: what they removed may have copies.
        if let Err(error) = self.empty_copies().await {
            tracing::warn!(%error, "the text of forwarded copies is removed later");
        }
        outcome
    }

    /// Removes the messages whose time is over.
    async fn cut_everywhere(&self, now: Micros) -> ImksResult<()> {
        let mut after = Uuid::nil();
        loop {
            let channels = timed("oldest", message_retention::oldest(self.messaging.db(), after)).await?;
            self.cut_some(&channels, now).await?;
            let is_last = i64::try_from(channels.len()).is_ok_and(|count| count < CHANNELS_AT_ONCE);
            match channels.last() {
                Some(last) if !is_last && self.may_go_on().await? => after = last.channel_id,
                _ => return Ok(()),
            }
        }
    }

    async fn may_go_on(&self) -> ImksResult<bool> {
        Ok(!self.stop.is_cancelled() && self.lease.take(self.messaging.db()).await?)
    }

    /// Waits as long as a step took, so that half of the time is left for everybody else.
    async fn pause(&self, started: Instant) {
        self.stop.run_until_cancelled(sleep(started.elapsed())).await;
    }

    /// Removes the content of messages that were deleted long enough ago.
    async fn scrub(&self, now: Micros) -> ImksResult<()> {
        let deleted = self.messaging.config().retention.deleted;
        if deleted.is_zero() {
            return Ok(());
        }
        let before = now.saturating_sub(clock::micros(deleted));
        while self.may_go_on().await? {
            let started = Instant::now();
            if !timed("scrub", message_retention::scrub(self.messaging.db(), before)).await? {
                break;
            }
            self.pause(started).await;
        }
        Ok(())
    }

    /// Removes the text of copies whose original has lost its own.
    async fn empty_copies(&self) -> ImksResult<()> {
        let db = self.messaging.db();
        while self.may_go_on().await? {
            let started = Instant::now();
            if !timed("mark_copies", message_retention::mark_copies(db, clock::now_micros())).await? {
                break;
            }
            self.pause(started).await;
        }
        let mut after = Uuid::nil();
        while self.may_go_on().await? {
            let started = Instant::now();
            match timed("empty_copies", message_retention::empty_copies(db, after)).await? {
                Some(last) => after = last,
                None => break,
            }
            self.pause(started).await;
        }
        Ok(())
    }

    /// Removes the messages of channels whose time is over.
    async fn cut_some(&self, channels: &[Oldest], now: Micros) -> ImksResult<()> {
        // No rule is shorter than a day, so most channels need no question.
        let old = channels.iter().filter(|it| it.created_at.is_some_and(|at| at < now.saturating_sub(DAY)));
        let old: Vec<(Uuid, Micros)> = old.filter_map(|it| Some((it.channel_id, it.created_at?))).collect();
        if old.is_empty() {
            return Ok(());
        }
        let kept = self.kept(&old.iter().map(|(channel, _)| *channel).collect::<Vec<_>>()).await?;
        for (channel, oldest) in old {
            let before = kept.get(&channel).map(|kept| now.saturating_sub(*kept));
            let Some(before) = before.filter(|before| oldest < *before) else { continue };
            if !self.may_go_on().await? {
                return Ok(());
            }
            // One that fails keeps no other waiting.
            if let Err(error) = self.cut(channel, before).await {
                tracing::warn!(%channel, %error, "messages whose time is over are removed later");
            }
        }
        Ok(())
    }

    /// Returns how long each of these channels keeps its messages. Channels that keep them for ever are left out, and
    /// those that the core does not know.
    async fn kept(&self, channels: &[Uuid]) -> ImksResult<HashMap<Uuid, Micros>> {
        let default = Some(self.messaging.config().retention.messages).filter(|it| !it.is_zero());
        let infos = self.messaging.core().channels(channels).await?;
        let infos = infos.into_iter().map(|channel| self.messaging.permissions().limited(channel));
        let kept = |days: Option<u32>| {
            days.map(|days| i64::from(days).saturating_mul(DAY)).or(default.map(clock::micros))
        };
        Ok(infos.filter_map(|channel| Some((channel.id, kept(channel.retention_days)?))).collect())
    }

    async fn cut(&self, channel: Uuid, before: Micros) -> ImksResult<()> {
        let mut done = None;
        let outcome = self.cut_all(channel, before, &mut done).await;
        if let Some(Cut { horizon, removed }) = done {
            tracing::info!(%channel, removed, horizon = horizon.horizon_seq, "messages were removed: their time is over");
            for room in channel_rooms::all(channel) {
                HORIZON.to_room(&self.namespace, &room, HORIZON.name(), &horizon);
            }
        }
        outcome
    }

    /// Takes steps until nothing is left or one fails, and puts into `done` what they did together.
    async fn cut_all(&self, channel: Uuid, before: Micros, done: &mut Option<Cut>) -> ImksResult<()> {
        loop {
            let started = Instant::now();
            let cut = timed("cut", message_retention::cut(self.messaging.db(), channel, before)).await?;
            let Some(cut) = cut else { return Ok(()) };
            *done = Some(Cut { removed: cut.removed + done.map_or(0, |done| done.removed), ..cut });
            self.pause(started).await;
            if !self.may_go_on().await? {
                return Ok(());
            }
        }
    }
}

const HOUR: Micros = 3_600 * 1_000_000;
/// The shortest time that a rule may say, in microseconds.
const DAY: Micros = 24 * HOUR;
/// How many times as fast as time passes a clock may go.
const HASTE: i64 = 2;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_forward_is_followed_little_by_little_and_one_that_is_set_back_at_once() {
        let mut time = Steady::new(100 * DAY);
        advance(Duration::from_hours(24)).await;
        assert_eq!(time.follow(101 * DAY), 101 * DAY, "a clock that goes right");
        advance(Duration::from_hours(24)).await;
        assert_eq!(time.follow(9_000 * DAY), 103 * DAY);
        assert_eq!(time.follow(9_000 * DAY), 103 * DAY, "looking more often gains nothing");
        assert_eq!(time.follow(50 * DAY), 50 * DAY);
        advance(Duration::from_hours(24)).await;
        assert_eq!(time.follow(103 * DAY), 103 * DAY, "it is right again");
    }
}
