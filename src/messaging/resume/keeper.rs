//! The task that stores the journal and the sessions of this node, and forgets what nobody can continue any more. Nothing that
//! is delivered waits for it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::journal::Part;
use super::sessions::{Key, Pending, changed};
use super::{Inner, Place, Resume};
use crate::clock::micros;
use crate::messaging::metrics;
use crate::messaging::timed::timed;
use crate::models::resume::{self as rows, Claim, Last, PARTS_AT_ONCE, StoredPart, StoredSession};
use crate::{ImksError, ImksResult};

/// What is known of the stored journal.
#[derive(Debug)]
pub(super) struct Writer {
    epoch: i64,
    /// The number of the last part.
    n: i64,
    /// Up to which number the journal is stored.
    upto: u64,
    /// The part that is to be stored again, because that failed.
    part: Option<StoredPart>,
    /// When this node last gave a sign of life.
    renewed: Option<Instant>,
    /// Whether the last attempt failed, so that the log tells it once.
    has_failed: bool,
}

impl Writer {
    pub(super) fn new(epoch: i64) -> Self {
        Self { epoch, n: 0, upto: 0, part: None, renewed: None, has_failed: false }
    }

    /// Makes sure that others can find the journal of this node.
    pub(super) async fn present(&mut self, inner: &Inner) -> ImksResult<()> {
        inner.renew(self, true).await
    }
}

impl Resume {
    /// Stores what happens until `stop`, and once more after that.
    pub(in crate::messaging) async fn run(self, stop: CancellationToken) {
        let Some(inner) = &self.0 else { return };
        let mut ticks = interval(STORE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sweep_at, mut stored_at) = (Instant::now() + SWEEP_EVERY, Instant::now());
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
                () = inner.hurry.notified() => false,
                // What comes after a rest is stored at once, the rest of a burst together.
                () = inner.news.notified(), if stored_at.elapsed() >= STORE_EVERY => false,
            };
            inner.store().await;
            stored_at = Instant::now();
            ticks.reset();
            if stopped {
                return;
            }
            if Instant::now() >= sweep_at {
                inner.forget().await;
                sweep_at = Instant::now() + SWEEP_EVERY;
            }
            // Many who hurry share the next time.
            sleep(PAUSE).await;
        }
    }
}

impl Inner {
    /// Stores everything that has happened so far.
    async fn store(&self) {
        let mut writer = self.writer.lock().await;
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let pending = self.sessions.take();
        match self.store_all(&mut writer, pending).await {
            Ok(()) => {
                writer.has_failed = false;
                self.stored.send_replace(number);
            }
            Err(error) if writer.has_failed => tracing::debug!(%error, "sessions are still not stored"),
            Err(error) => {
                writer.has_failed = true;
                tracing::warn!(%error, "sessions are stored later; until then clients that come back get new ones");
            }
        }
    }

    async fn store_all(&self, writer: &mut Writer, mut pending: HashMap<Key, Pending>) -> ImksResult<()> {
        let mut stored = self.renew(writer, !pending.is_empty()).await;
        if stored.is_ok() {
            stored = self.store_sessions(&mut pending).await;
        }
        if let Err(error) = stored {
            self.sessions.put_back(pending);
            return Err(error);
        }
        self.store_journal(writer).await
    }

    /// Gives a sign of life, if it is time to. A node that never had clients gives none.
    async fn renew(&self, writer: &mut Writer, is_at_work: bool) -> ImksResult<()> {
        if writer.epoch != self.journal.epoch() {
            *writer = Writer { has_failed: writer.has_failed, ..Writer::new(self.journal.epoch()) };
        }
        let is_due = match writer.renewed {
            Some(renewed) => renewed.elapsed() >= RENEW_EVERY,
            None => is_at_work,
        };
        if is_due {
            let was_unknown = timed("resume_renew", rows::renew(&self.db, writer.epoch)).await?;
            if was_unknown && writer.n > 0 {
                // What was stored is gone, as after a crash of PostgreSQL, and the rest of the journal says nothing without it.
                self.journal.start_over();
                *writer = Writer::new(self.journal.epoch());
                rows::renew(&self.db, writer.epoch).await?;
            }
            writer.renewed = Some(Instant::now());
        }
        Ok(())
    }

    async fn store_journal(&self, writer: &mut Writer) -> ImksResult<()> {
        if !self.is_used.load(Ordering::Acquire) {
            return Ok(());
        }
        if writer.part.is_none() {
            let Some(part) = self.journal.take(writer.upto) else { return Ok(()) };
            if part.epoch != writer.epoch {
                // A new journal has begun since; its first part belongs to it.
                *writer = Writer { has_failed: writer.has_failed, ..Writer::new(part.epoch) };
            }
            writer.part = Some(stored_part(writer.n + 1, &part));
        }
        // A journal without its node would look like one that was lost.
        if writer.renewed.is_none() {
            self.renew(writer, true).await?;
        }
        if let Some(part) = &writer.part {
            timed("resume_journal", rows::add_part(&self.db, writer.epoch, part)).await?;
            (writer.n, writer.upto) = (part.n, part.upto as u64);
            writer.part = None;
            self.journal.stored(writer.epoch, writer.upto);
        }
        Ok(())
    }

    async fn store_sessions(&self, pending: &mut HashMap<Key, Pending>) -> ImksResult<()> {
        let begin: Vec<StoredSession> =
            pending.values().filter(|it| !it.ended).filter_map(|it| it.begins.clone()).collect();
        for some in begin.chunks(SESSIONS_AT_ONCE) {
            timed("resume_begin", rows::put(&self.db, some)).await?;
        }
        // They are stored, whatever becomes of the rest.
        pending.values_mut().filter(|it| !it.ended).for_each(|it| it.begins = None);
        let claims = |wanted: fn(&Pending) -> bool| -> Vec<Claim> {
            let some = pending.iter().filter(|(_, it)| wanted(it));
            some.map(|(key, it)| (key.to_vec(), it.generation)).collect()
        };
        for some in claims(|it| it.came_back && !it.went_away && !it.ended).chunks(SESSIONS_AT_ONCE) {
            timed("resume_back", rows::came_back(&self.db, some)).await?;
        }
        let changing = pending.iter().filter(|(_, it)| !it.channels.is_empty() && !it.ended);
        let changing: Vec<(Claim, &Pending)> =
            changing.map(|(key, it)| ((key.to_vec(), it.generation), it)).collect();
        for some in changing.chunks(SESSIONS_AT_ONCE) {
            self.store_changes(some).await?;
        }
        for some in claims(|it| it.went_away && !it.ended).chunks(SESSIONS_AT_ONCE) {
            timed("resume_away", rows::went_away(&self.db, some)).await?;
        }
        for some in claims(|it| it.ended).chunks(SESSIONS_AT_ONCE) {
            timed("resume_end", rows::end(&self.db, some)).await?;
        }
        Ok(())
    }

    async fn store_changes(&self, changing: &[(Claim, &Pending)]) -> ImksResult<()> {
        let keys: Vec<&[u8]> = changing.iter().map(|((key, _), _)| &key[..]).collect();
        let stored = timed("resume_channels", rows::channels(&self.db, &keys)).await?;
        let (mut changes, mut unknown) = (Vec::new(), Vec::new());
        for (claim, pending) in changing {
            let Some(stored) = stored.get(claim) else { continue };
            match changed(stored, pending.channels.clone()) {
                Some(channels) => changes.push((claim.clone(), channels)),
                // Of a newer version, or too long: nobody may take for true what it does not say.
                None => unknown.push(claim.clone()),
            }
        }
        timed("resume_change", rows::set_channels(&self.db, &changes)).await?;
        rows::end(&self.db, &unknown).await
    }

    /// Forgets what nobody can continue any more, and makes the old part of the journal short.
    async fn forget(&self) {
        let window = micros(self.config.window);
        self.histories.forget_unused();
        let swept =
            timed("resume_sweep", rows::sweep(&self.db, window, i64::from(self.config.sessions))).await;
        if let Err(error) = swept.and(self.fold(window).await) {
            tracing::debug!(%error, "sessions that are over are forgotten later");
        }
    }

    async fn fold(&self, window: i64) -> ImksResult<()> {
        let epoch = self.journal.epoch();
        let bytes = i64::try_from(self.config.journal_bytes).unwrap_or(i64::MAX);
        loop {
            let parts = timed("resume_old", rows::old_parts(&self.db, epoch, window, bytes)).await?;
            let Some(end) = parts.last().map(|last| (last.n, last.upto)) else { return Ok(()) };
            let mut lasts = HashMap::<Uuid, Last>::new();
            for stored in &parts {
                let part = read_part(epoch, stored).ok_or(ImksError::Internal("a damaged journal"))?;
                lasts.extend(part.deliveries.into_iter().map(|it| {
                    let (began, ended) = (it.began as i64, it.ended as i64);
                    let Place { seq, rev } = it.at;
                    (it.channel, Last { channel_id: it.channel, began, ended, seq, rev })
                }));
            }
            let lasts: Vec<Last> = lasts.into_values().collect();
            timed("resume_fold", rows::fold(&self.db, epoch, end, &lasts)).await?;
            metrics::RESUME_FOLDED.add(parts.len() as u64);
            if i64::try_from(parts.len()).is_ok_and(|parts| parts < PARTS_AT_ONCE) {
                return Ok(());
            }
        }
    }
}

fn stored_part(n: i64, part: &Part) -> StoredPart {
    StoredPart { n, upto: part.upto as i64, deliveries: part.encode() }
}

/// Reads a part of a journal. `None` if it is of a version that this node does not know, or damaged.
pub(super) fn read_part(epoch: i64, part: &StoredPart) -> Option<Part> {
    Part::decode(epoch, u64::try_from(part.upto).ok()?, &part.deliveries)
}

/// How often the journal is stored: what a node has delivered since goes with it when it is killed, but for what fits into the
/// offsets of its events.
const STORE_EVERY: Duration = Duration::from_millis(50);
/// The least time from one time that everything is stored to the next.
const PAUSE: Duration = Duration::from_millis(10);
/// How often a node gives a sign of life.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How often is forgotten what is over.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The most sessions that one statement stores.
const SESSIONS_AT_ONCE: usize = 500;
