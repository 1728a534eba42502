//! What clients that come back ask of the database, for many of them with one query: a crowd must not keep itself out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::Inner;
use super::journal::{Delivery, Place};
use super::sessions::Key;
use crate::ImksResult;
use crate::error::ImksError;
use crate::messaging::shared_query::SharedQuery;
use crate::messaging::timed::timed;
use crate::models::Db;
use crate::models::message::ANSWER_BYTES_MAX;
use crate::models::message_sync::{Cursor, Limits, MissedEvents, SYNC_LIMIT, TOTAL_LIMIT, missed_events_of};
use crate::models::resume::{self as rows, FoundSession, Last, StoredSession};

/// The kinds of questions.
pub(super) struct Together {
    finds: SharedQuery<Key, Option<FoundSession>>,
    lasts: SharedQuery<(i64, Vec<Uuid>), Lasts>,
    replays: SharedQuery<Behind, Option<Vec<Arc<Missed>>>>,
    takes: SharedQuery<StoredSession, bool>,
}

/// The last deliveries of channels.
pub(super) type Lasts = HashMap<Uuid, Delivery>;

/// What a client misses.
#[derive(Debug, Clone)]
pub(in crate::messaging) struct Behind {
    /// How far it has come, in the channels in which it misses something.
    pub(in crate::messaging) cursors: Vec<Cursor>,
    /// The messages and changes that it misses.
    pub(in crate::messaging) missed: usize,
    /// The bytes for which there is room.
    pub(in crate::messaging) bytes: usize,
}

/// The events of a channel that clients miss, for all of them who are at the same place.
#[derive(Debug)]
pub(in crate::messaging) struct Missed {
    pub(super) channel: Uuid,
    /// How far they bring a client.
    pub(super) at: Place,
    pub(in crate::messaging) events: Vec<(&'static str, Box<RawValue>)>,
    /// The bytes of all events.
    pub(super) bytes: usize,
}

impl Default for Together {
    fn default() -> Self {
        Self {
            finds: SharedQuery::new(QUERIES_AT_ONCE, SESSIONS_MAX),
            lasts: SharedQuery::new(QUERIES_AT_ONCE, CHANNELS_MAX),
            replays: SharedQuery::new(QUERIES_AT_ONCE, TOTAL_LIMIT),
            takes: SharedQuery::new(QUERIES_AT_ONCE, TAKEN_BYTES_MAX),
        }
    }
}

impl Together {
    /// Finds a session.
    pub(super) async fn find(&self, db: &Db, key: Key) -> ImksResult<Option<FoundSession>> {
        let db = db.clone();
        self.finds.ask((key, 1), move |keys| find(db.clone(), keys)).await
    }

    /// Returns the last deliveries of channels in a journal, of those that are known by them only.
    pub(super) async fn lasts(&self, db: &Db, epoch: i64, channels: Vec<Uuid>) -> ImksResult<Lasts> {
        let (db, weight) = (db.clone(), channels.len());
        self.lasts.ask(((epoch, channels), weight), move |asked| lasts(db.clone(), asked)).await
    }

    /// Returns what a client misses. `None` if that cannot be told one by one, or is too much.
    pub(super) async fn replay(&self, db: &Db, behind: Behind) -> ImksResult<Option<Vec<Arc<Missed>>>> {
        let (db, weight) = (db.clone(), behind.missed);
        self.replays.ask((behind, weight), move |asked| replay(db.clone(), asked)).await
    }

    /// Continues a session as this one. Returns false if somebody else was faster.
    pub(super) async fn take(&self, inner: &Arc<Inner>, session: StoredSession) -> ImksResult<bool> {
        let (inner, weight) = (
            Arc::clone(inner),
            ROW_BYTES + session.channels.len() + session.former.as_ref().map_or(0, Vec::len),
        );
        self.takes.ask((session, weight), move |sessions| take(Arc::clone(&inner), sessions)).await
    }

    /// Keeps all who look for their sessions waiting.
    #[cfg(test)]
    pub(super) fn stall(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.finds.stall()
    }
}

async fn find(db: Db, keys: Vec<Key>) -> ImksResult<Vec<Option<FoundSession>>> {
    let bytes: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let found = timed("resume_find", rows::find(&db, &bytes)).await?;
    let found: HashMap<Vec<u8>, FoundSession> = found.into_iter().map(|it| (it.key.clone(), it)).collect();
    Ok(keys.iter().map(|key| found.get(&key[..]).cloned()).collect())
}

async fn lasts(db: Db, asked: Vec<(i64, Vec<Uuid>)>) -> ImksResult<Vec<Lasts>> {
    let mut wanted = HashMap::<i64, HashSet<Uuid>>::new();
    for (epoch, channels) in &asked {
        wanted.entry(*epoch).or_default().extend(channels);
    }
    let mut known = HashMap::new();
    for (epoch, channels) in wanted {
        let channels: Vec<Uuid> = channels.into_iter().collect();
        let lasts = timed("resume_lasts", rows::lasts(&db, epoch, &channels)).await?;
        known.extend(lasts.into_iter().map(|last| ((epoch, last.channel_id), delivery(last))));
    }
    let of = |(epoch, channels): &(i64, Vec<Uuid>)| {
        let own = channels.iter().filter_map(|channel| known.get(&(*epoch, *channel)));
        own.map(|last| (last.channel, *last)).collect()
    };
    Ok(asked.iter().map(of).collect())
}

/// Reads what several clients miss: what is missed by many once, and of as many channels as there are with one query. All
/// together they get as many bytes as there is room for.
async fn replay(db: Db, asked: Vec<Behind>) -> ImksResult<Vec<Option<Vec<Arc<Missed>>>>> {
    let mut room: usize = asked.iter().map(|behind| behind.bytes).fold(0, usize::saturating_add);
    let mut left: Vec<Cursor> = asked.iter().flat_map(|behind| &behind.cursors).copied().collect();
    let mut seen = HashSet::new();
    left.retain(|cursor| seen.insert(*cursor));
    let mut known = HashMap::<Cursor, Arc<Missed>>::new();
    while room > 0 && !left.is_empty() {
        // One query is about each channel once.
        let mut channels = HashSet::new();
        let (mut now, later): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|cursor| channels.insert(cursor.channel_id));
        let bytes = room.min(ANSWER_BYTES_MAX);
        let limits = Limits { per_channel: SYNC_LIMIT, total: TOTAL_LIMIT, bytes };
        let read = timed("resume_replay", missed_events_of(&db, &now, limits)).await?;
        if read.is_empty() {
            break;
        }
        left = now.split_off(read.len().min(now.len()));
        left.extend(later);
        for (cursor, missed) in now.into_iter().zip(read) {
            let Some(missed) = missed.map(Missed::new).transpose()? else { continue };
            room = room.saturating_sub(missed.bytes);
            known.insert(cursor, Arc::new(missed));
        }
    }
    let of = |behind: Behind| behind.cursors.iter().map(|cursor| known.get(cursor).cloned()).collect();
    Ok(asked.into_iter().map(of).collect())
}

async fn take(inner: Arc<Inner>, sessions: Vec<StoredSession>) -> ImksResult<Vec<bool>> {
    // Others must be able to find the journal that the sessions are in from now on.
    inner.writer.lock().await.present(&inner).await?;
    timed("resume_take", rows::take(&inner.db, &sessions)).await
}

impl Missed {
    fn new(missed: MissedEvents) -> ImksResult<Self> {
        let MissedEvents { channel, told, seq, rev } = missed;
        let (mut events, mut bytes) = (Vec::with_capacity(told.len()), 0);
        for told in told {
            let mut json = Vec::new();
            told.write_json(&mut json)?;
            bytes += json.len();
            let json = String::from_utf8(json).map_err(|_| ImksError::Internal("JSON that is not UTF-8"))?;
            events.push((told.event(), RawValue::from_string(json)?));
        }
        Ok(Self { channel, at: Place { seq, rev }, events, bytes })
    }
}

fn delivery(last: Last) -> Delivery {
    let Last { channel_id, began, ended, seq, rev } = last;
    Delivery { began: began as u64, ended: ended as u64, channel: channel_id, at: Place { seq, rev } }
}

/// The number of queries of one kind at the same time: those who come meanwhile share the next one.
const QUERIES_AT_ONCE: usize = 1;
/// The most sessions that one query finds.
const SESSIONS_MAX: usize = 128;
/// The most channels whose last deliveries one query reads, unless one session alone has more.
const CHANNELS_MAX: usize = 2_000;
/// The most bytes of sessions that one statement continues, unless one session alone has more.
const TAKEN_BYTES_MAX: usize = 256 << 10;
/// The bytes of a session beside its channels.
const ROW_BYTES: usize = 128;
