//! A client comes back: what it has, what it missed, and who may continue its session.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant, sleep, timeout};
use uuid::Uuid;

use super::history::{History, Known};
use super::journal::Mark;
use super::keeper::read_part;
use super::record::{Facts, Former, Record, Standing};
use super::sessions::{Key, Resumable};
use super::together::{Behind, Lasts, Missed};
use super::trail::Trail;
use super::{Inner, Moment, Place, Places, RETURNS_WITHIN, Resume};
use crate::ImksResult;
use crate::auth::Identity;
use crate::clock::micros;
use crate::messaging::metrics::{self, Resumed};
use crate::messaging::push::user_room;
use crate::messaging::timed::timed;
use crate::models::Db;
use crate::models::message_sync::Cursor;
use crate::models::resume::{self as rows, FoundSession, PARTS_AT_ONCE, StoredSession};
use crate::secret::sha256;
use crate::socket::stamped::{Offset, Returning, Session};
use crate::socket::{ConnectPayload, Namespace, NamespaceBuilder, ServerEvent, Socket};

/// A session to which a client comes back, and how far the client has come in each of its channels.
pub(in crate::messaging) struct Found {
    pid: Box<str>,
    key: Key,
    generation: i64,
    record: Record,
    /// The number of the offset that the client has.
    number: u64,
    has: Places,
    /// What the offset itself says, if its node did not live to store the delivery, and up to which number it did. The client
    /// has events beyond `has` then.
    beyond: Option<(Trail, u64)>,
    /// The room for it among those that come back.
    _room: OwnedSemaphorePermit,
}

/// What a client has missed, channel by channel.
#[derive(Default)]
pub(in crate::messaging) struct Replay(Vec<Arc<Missed>>);

impl Replay {
    /// Returns the events.
    pub(in crate::messaging) fn events(&self) -> impl Iterator<Item = &(&'static str, Box<RawValue>)> {
        self.0.iter().flat_map(|missed| &missed.events)
    }

    /// Returns how far the events bring the client, in the channels that they are of.
    pub(in crate::messaging) fn places(&self) -> Places {
        self.0.iter().map(|missed| (missed.channel, missed.at)).collect()
    }

    /// Returns the bytes of the events.
    pub(in crate::messaging) fn bytes(&self) -> usize {
        self.0.iter().map(|missed| missed.bytes).sum()
    }
}

/// What a session tells its client, and what is stored of it.
pub(in crate::messaging) struct Beginning<'a> {
    pub(in crate::messaging) identity: &'a Identity,
    /// Since when the socket has got events with offsets.
    pub(in crate::messaging) moment: Moment,
    /// The channels that it follows, where it begins in each, and what else it is told.
    pub(in crate::messaging) channels: Vec<(Uuid, Place, Option<Facts>)>,
    /// The greatest number in the user's own stream among the read positions that it is told.
    pub(in crate::messaging) user_rev: i64,
    /// Whether its client gets digests.
    pub(in crate::messaging) is_light: bool,
    /// Whether this node delivers no event of a channel up to a place any more. Alone, it delivers what it commits: those up
    /// to what was read are told at any moment, and nobody knows when all are.
    pub(in crate::messaging) has_been_told: &'a (dyn Fn(Uuid, i64) -> bool + Send + Sync),
}

impl Found {
    /// Returns how far the client has come in a channel.
    pub(in crate::messaging) fn place_in(&self, channel: Uuid) -> Option<Place> {
        self.has.get(&channel).copied()
    }

    /// Returns the channels that the session followed.
    pub(in crate::messaging) fn followed(&self) -> impl Iterator<Item = Uuid> {
        self.record.followed().map(|(channel, ..)| channel)
    }

    /// Returns the channels that the client may still think it follows.
    pub(in crate::messaging) fn thought(&self) -> impl Iterator<Item = Uuid> {
        let channels = self.record.channels.iter();
        channels.filter(|(_, standing)| **standing != Standing::Left).map(|(channel, _)| *channel)
    }

    /// Returns the channels that the client has left by itself.
    pub(in crate::messaging) fn left(&self) -> impl Iterator<Item = Uuid> {
        let left = self.record.channels.iter().filter(|(_, standing)| **standing == Standing::Left);
        left.map(|(channel, _)| *channel)
    }

    /// Whether the client has left a channel by itself.
    pub(in crate::messaging) fn has_left(&self, channel: Uuid) -> bool {
        self.record.has_left(channel)
    }

    /// Whether the client knows a channel as it is now.
    pub(in crate::messaging) fn knows(&self, channel: Uuid, facts: Facts, user_rev: i64) -> bool {
        let known = self.record.channels.get(&channel);
        let is_known = matches!(known, Some(Standing::Follows { facts: known, .. }) if *known == facts.0);
        is_known && user_rev <= self.record.user_rev
    }

    /// Returns what the client misses of channels that are at these places now. `None` if it has more than there is.
    pub(in crate::messaging) fn behind(&self, now: &Places) -> Option<Vec<Cursor>> {
        let mut behind = Vec::new();
        for (channel_id, now) in now {
            let Some(Place { seq, rev }) = self.has.get(channel_id).copied() else { continue };
            if seq > now.seq || rev > now.rev {
                return None;
            }
            if seq < now.seq || rev < now.rev {
                behind.push(Cursor { channel_id: *channel_id, seq, rev });
            }
        }
        Some(behind)
    }
}

impl Resume {
    /// Finds the session that a client names, if it is its own and of this kind, may still continue, and it is known what the client
    /// has.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub(in crate::messaging) async fn find(
        &self,
        payload: &ConnectPayload,
        user: Uuid,
        is_light: bool,
    ) -> ImksResult<Option<Found>> {
        let (Some(inner), Some(returning)) = (&self.0, Returning::find(payload)) else { return Ok(None) };
        let found = match timeout(RETURNS_WITHIN, inner.look(&returning, user)).await {
            Ok(Ok(Ok(found))) if found.record.is_light != is_light => Err(Resumed::UnknownOffset),
            Ok(found) => found?,
            Err(_elapsed) => Err(Resumed::TooMany),
        };
        Ok(found.inspect_err(|why| metrics::RESUMES.of(*why).increment()).ok())
    }

    /// Finds out what a client has, now that it is known where its channels are. Returns false if nobody knows.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub(in crate::messaging) async fn make_sure(&self, found: &mut Found, now: &Places) -> ImksResult<bool> {
        let (Some(inner), Some((trail, stored))) = (&self.0, found.beyond.take()) else { return Ok(true) };
        if let Some(has) = trail.find(&found.has, stored, now) {
            found.has = has;
            return Ok(true);
        }
        let Some(has) = inner.what_it_will_have(&found.record, found.number).await? else {
            metrics::RESUMES.of(Resumed::UnknownOffset).increment();
            return Ok(false);
        };
        found.has = has;
        Ok(true)
    }

    /// Returns the events after these places, of a client that may read them. `None` if that is too much.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub(in crate::messaging) async fn replay(&self, behind: Behind) -> ImksResult<Option<Replay>> {
        let Some(inner) = &self.0 else { return Ok(None) };
        if behind.cursors.is_empty() {
            return Ok(Some(Replay::default()));
        }
        let replay = inner.together.replay(&inner.db, behind).await?.map(Replay);
        // More may have been written meanwhile.
        let replay = replay.filter(|replay| replay.events().count() <= inner.config.missed);
        if replay.is_none() {
            metrics::RESUMES.of(Resumed::MissedTooMuch).increment();
        }
        Ok(replay)
    }

    /// Begins a session that can continue.
    ///
    /// # Errors
    /// [`crate::ImksError::Randomness`].
    pub(in crate::messaging) fn begin(
        &self,
        socket: &Socket,
        beginning: &Beginning<'_>,
    ) -> ImksResult<Session> {
        let mut pid = [0; PID_BYTES];
        getrandom::fill(&mut pid)?;
        let pid: Box<str> = URL_SAFE_NO_PAD.encode(pid).into();
        let key = sha256(pid.as_bytes())?;
        let begins = beginning.stored(key, 0, HashMap::new());
        socket.set_data(Resumable { key, generation: 0, begins: Mutex::new(Some(begins)) });
        Ok(session(pid, beginning.moment))
    }

    /// Continues a session. `None` if somebody else was faster.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub(in crate::messaging) async fn take(
        &self,
        socket: &Socket,
        found: Found,
        beginning: &Beginning<'_>,
    ) -> ImksResult<Option<Session>> {
        let Some(inner) = &self.0 else { return Ok(None) };
        let Found { pid, key, generation, record, number, .. } = found;
        let former = Former::encode(&record, number);
        let left = record.channels.into_iter().filter(|(_, standing)| *standing == Standing::Left);
        let mut stored = beginning.stored(key, generation + 1, left.collect());
        stored.former = Some(former);
        if !inner.together.take(inner, stored).await? {
            metrics::RESUMES.of(Resumed::TakenByOther).increment();
            return Ok(None);
        }
        metrics::RESUMES.of(Resumed::Continued).increment();
        let taken = Taken { user: beginning.identity.user_id, key: key.to_vec(), generation: generation + 1 };
        taken.close_earlier(socket.namespace());
        if let Err(error) = taken.tell_others(socket.namespace()) {
            tracing::debug!(%error, "other nodes do not hear that a session was continued");
        }
        socket.set_data(Resumable { key, generation: generation + 1, begins: Mutex::new(None) });
        let places = beginning.channels.iter().map(|(channel, place, _)| (*channel, *place));
        let is_late = |(channel, place): &(Uuid, Place)| !(beginning.has_been_told)(*channel, place.number());
        let by_subject = |(channel, place): (Uuid, Place)| (channel.as_u128(), place.numbers());
        let late = places.clone().filter(is_late).map(by_subject).collect();
        let covered = places.map(by_subject).collect();
        Ok(Some(Session { covered, late, ..session(pid, beginning.moment) }))
    }

    /// Registers what other nodes say about sessions.
    pub(in crate::messaging) fn listen(&self, builder: &mut NamespaceBuilder) {
        if self.0.is_none() {
            return;
        }
        builder.on_server_event(TAKEN, |event: ServerEvent| {
            match event.parse::<(Taken,)>() {
                Ok((taken,)) => taken.close_earlier(event.namespace()),
                Err(error) => tracing::debug!(%error, "a session that was continued is not known"),
            }
            std::future::ready(())
        });
    }
}

impl Beginning<'_> {
    fn stored(&self, key: Key, generation: i64, mut channels: HashMap<Uuid, Standing>) -> StoredSession {
        let Mark { epoch, number } = self.moment.0;
        channels.extend(self.channels.iter().map(|(channel, from, facts)| {
            (*channel, Standing::Follows { from: *from, facts: facts.map_or(0, |facts| facts.0) })
        }));
        let record =
            Record { began: self.moment.0, user_rev: self.user_rev, is_light: self.is_light, channels };
        StoredSession {
            key: key.to_vec(),
            user: self.identity.user_id,
            token_session: self.identity.session_id,
            generation,
            epoch,
            began: number as i64,
            user_rev: self.user_rev,
            channels: record.encode(),
            former: None,
        }
    }
}

/// Returns a session that began at a moment and covers nothing.
fn session(pid: Box<str>, Moment(mark): Moment) -> Session {
    let (offset, in_part) = (mark.offset().text(), mark.before().offset().text());
    Session { pid, offset, in_part, covered: HashMap::new(), late: HashMap::new() }
}

/// A session that was continued, for its former owner.
#[derive(Debug, Serialize, Deserialize)]
struct Taken {
    user: Uuid,
    key: Vec<u8>,
    generation: i64,
}

impl Taken {
    /// Closes the connections of earlier generations on this node: their client has gone.
    fn close_earlier(&self, namespace: &Namespace) {
        for socket in namespace.sockets_in(&user_room(self.user)) {
            let session = socket.data::<Resumable>();
            if session.is_some_and(|it| it.key[..] == self.key[..] && it.generation < self.generation) {
                socket.close_connection();
            }
        }
    }

    fn tell_others(&self, namespace: &Namespace) -> ImksResult<()> {
        match namespace.cluster().others().is_empty() {
            true => Ok(()),
            false => namespace.server_side_emit(TAKEN, &(self,)),
        }
    }
}

impl Inner {
    async fn look(&self, returning: &Returning<'_>, user: Uuid) -> ImksResult<Result<Found, Resumed>> {
        let Some(offset) = returning.offset().filter(|_| returning.pid.len() <= PID_CHARS_MAX) else {
            return Ok(Err(Resumed::UnknownOffset));
        };
        // What this node knows itself is stored first: the client may be faster than the keeper.
        if offset.epoch == self.journal.epoch() && self.settled().await.is_err() {
            return Ok(Err(Resumed::UnknownOffset));
        }
        let key = sha256(returning.pid.as_bytes())?;
        let found = self.together.find(&self.db, key).await?;
        let found = found.filter(|it| it.user_id == user && it.absence <= micros(self.config.window));
        let Some(found) = found else { return Ok(Err(Resumed::NoSession)) };
        let bytes = found.channels.len() + found.former.as_ref().map_or(0, Vec::len);
        let room = u32::try_from(bytes * COPIES).unwrap_or(u32::MAX);
        let Ok(room) = self.room.clone().try_acquire_many_owned(room) else {
            return Ok(Err(Resumed::TooMany));
        };
        let generation = found.generation;
        let Some(record) = record_of(found, &offset) else { return Ok(Err(Resumed::UnknownOffset)) };
        let number = offset.number;
        let known = match (self.what_it_has(&record, number).await?, Trail::decode(number, &offset.trail)) {
            // That may do, so nobody waits for a node that may have died.
            (Known::NotYet(Some(before)), Some(trail)) => Some((before.has, Some((trail, before.upto)))),
            (Known::NotYet(_), _) => self.what_it_will_have(&record, number).await?.map(|has| (has, None)),
            (Known::Has(has), _) => Some((has, None)),
            (Known::Nothing, _) => None,
        };
        let Some((has, beyond)) = known else { return Ok(Err(Resumed::UnknownOffset)) };
        let pid = returning.pid.into();
        Ok(Ok(Found { pid, key, generation, record, number, has, beyond, _room: room }))
    }

    /// Returns what the client of a session has that knows this offset, once its node has stored that. `None` if it does not.
    async fn what_it_will_have(&self, record: &Record, number: u64) -> ImksResult<Option<Places>> {
        for _ in 0..ATTEMPTS {
            sleep(PAUSE).await;
            match self.what_it_has(record, number).await? {
                Known::Has(has) => return Ok(Some(has)),
                Known::NotYet(_) => {}
                Known::Nothing => break,
            }
        }
        Ok(None)
    }

    /// Returns what the client of a session has that knows this offset.
    async fn what_it_has(&self, record: &Record, number: u64) -> ImksResult<Known> {
        let Some(needs_lasts) = self.histories.read(&self.db, record, number).await? else {
            return Ok(Known::Nothing);
        };
        // After the parts: what was made short meanwhile is known twice, and not at all the other way round.
        let lasts = match needs_lasts {
            true => {
                let channels = record.followed().map(|(channel, ..)| channel).collect();
                self.together.lasts(&self.db, record.began.epoch, channels).await?
            }
            false => Lasts::new(),
        };
        Ok(self.histories.of(record, number, &lasts).await)
    }
}

/// Returns the session in which a client has this offset. It may not have heard that its session was continued: it says what it
/// said then, since the first event of a channel that it gets from there has another offset.
fn record_of(found: FoundSession, offset: &Offset) -> Option<Record> {
    let FoundSession { epoch, began, user_rev, channels, former, .. } = found;
    let former = former.and_then(|former| Former::decode(&former));
    if let Some(former) = former.filter(|former| former.is_known_by(offset)) {
        return Some(former.record);
    }
    let began = Mark { epoch, number: began as u64 };
    Record::decode(began, user_rev, &channels).filter(|_| epoch == offset.epoch)
}

/// The stored journals of nodes whose clients come back here, by node. There are few: those that ended of late.
#[derive(Default)]
pub(super) struct Histories {
    all: tokio::sync::Mutex<HashMap<i64, Kept>>,
    used: Mutex<HashMap<i64, Instant>>,
}

/// The stored journal of a node, as far as it was read.
#[derive(Default)]
struct Kept {
    history: History,
    /// The number of the last part.
    n: i64,
    /// When it was last read.
    read_at: Option<Instant>,
}

impl Histories {
    /// Returns what the client of a session has that knows this offset, by what was read.
    async fn of(&self, record: &Record, number: u64, lasts: &Lasts) -> Known {
        let all = self.all.lock().await;
        all.get(&record.began.epoch).map_or(Known::Nothing, |kept| kept.history.of(record, number, lasts))
    }

    /// Reads the journal of a session up to a number, as far as it is stored. Returns whether the last deliveries of channels are
    /// needed too; `None` if the journal is gone or incomplete.
    async fn read(&self, db: &Db, record: &Record, number: u64) -> ImksResult<Option<bool>> {
        let (epoch, asked_at) = (record.began.epoch, Instant::now());
        // One at a time: of many who come at once, the first reads what all need.
        let mut all = self.all.lock().await;
        self.used.lock().insert(epoch, Instant::now());
        let kept = all.entry(epoch).or_default();
        let is_known = kept.read_at.is_some_and(|at| number <= kept.history.upto() || at >= asked_at);
        if is_known {
            return Ok(Some(kept.history.needs_lasts(record)));
        }
        let (begun, outcome) = (Instant::now(), kept.read_on(db, epoch).await);
        if let Ok(true) = outcome {
            kept.read_at = Some(begun);
            return Ok(Some(kept.history.needs_lasts(record)));
        }
        all.remove(&epoch);
        outcome.map(|_| None)
    }

    /// Forgets the journals that nobody has asked for of late.
    pub(super) fn forget_unused(&self) {
        let Ok(mut all) = self.all.try_lock() else { return };
        let mut used = self.used.lock();
        used.retain(|_, at| at.elapsed() < KEPT_FOR);
        all.retain(|epoch, _| used.contains_key(epoch));
    }
}

impl Kept {
    /// Reads what was stored since. Returns false if a part is missing.
    async fn read_on(&mut self, db: &Db, epoch: i64) -> ImksResult<bool> {
        loop {
            let parts = timed("resume_parts", rows::parts(db, epoch, self.n)).await?;
            // After the parts: what was made short meanwhile is known twice, and not at all the other way round.
            let folded = timed("resume_folded", rows::folded(db, epoch)).await?;
            let Some(folded) = folded else { return Ok(false) };
            if self.n == 0 {
                self.history.begins_after(folded as u64);
            }
            for part in &parts {
                let follows = part.n == self.n + 1 || (self.n == 0 && folded > 0);
                let Some(read) = read_part(epoch, part).filter(|_| follows) else { return Ok(false) };
                self.n = part.n;
                self.history.add(read);
            }
            if i64::try_from(parts.len()).is_ok_and(|parts| parts < PARTS_AT_ONCE) {
                return Ok(true);
            }
        }
    }
}

/// The server event that tells other nodes of a session that was continued.
const TAKEN: &str = "imks:resumed";
/// The length of a private id: whoever guesses one could claim the session.
const PID_BYTES: usize = 16;
/// The most characters of a private id that are looked at.
const PID_CHARS_MAX: usize = 64;
/// How often a journal is read again for an offset that is not in it yet, because the node has not ended or has only now.
const ATTEMPTS: usize = 2;
/// The pause between two attempts: as long as a node takes to store its journal.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a journal is kept in memory after somebody has asked for it.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// The bytes of a session in memory, for each byte of its channels as they are stored.
const COPIES: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::ResumeConfig;
    use super::*;
    use crate::models::db::Config;
    use crate::socket::packet::Payload;

    #[tokio::test]
    async fn a_client_of_a_crowd_begins_a_new_session_where_it_would_wait_for_long_to_come_back() {
        let config = Config { url: Some("sqlite::memory:".into()), ..Config::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let resume = Resume::new(ResumeConfig::default(), db).unwrap();
        let crowd = resume.0.as_ref().unwrap().together.stall();
        let json = r#"{"pid":"abc","offset":"AAAAAAAAAAAAAAAAAAAAAA"}"#.to_owned();
        let payload = ConnectPayload::new(Some(Payload { json, attachments: Vec::new() }));
        let before = metrics::RESUMES.of(Resumed::TooMany).get();
        // Nothing else happens, so the time passes at once.
        tokio::time::pause();
        let found = resume.find(&payload, Uuid::nil(), false).await;
        assert!(found.unwrap().is_none());
        tokio::time::resume();
        assert_eq!(metrics::RESUMES.of(Resumed::TooMany).get(), before + 1);
        drop(crowd);
        assert!(resume.find(&payload, Uuid::nil(), false).await.unwrap().is_none());
        assert_eq!(metrics::RESUMES.of(Resumed::TooMany).get(), before + 1, "there was no such session");
    }
}
