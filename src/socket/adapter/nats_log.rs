//! The recovery log that nodes share, in NATS JetStream: a stream of entries for each bucket, and one of sessions. Both are
//! in memory: a server that was restarted has none of it, and the next streams have another epoch.
//!
//! The requests are those of the JetStream API as its documentation describes them, over the core client.

mod cuts;
mod jetstream;
mod streams;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use self::cuts::Cuts;
use self::jetstream::{
    EXPECTED, Got, GotMessage, Kind, Receipt, SESSION_SECONDS, StreamState, expecting, failed, is_conflict,
    lost, once, refused, refused_because, unreadable,
};
use super::nats::Nats;
use crate::bus::BoxFuture;
use crate::clock;
use crate::error::{Cause, ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::recovery_log::{
    Batch, Expected, Found, Keep, RecoveryLog, SavedSession, SessionKey, Tail, Written,
};

/// Opens the recovery log of a cluster in the NATS servers at `urls`, as [`nats::connect`](super::nats::connect) takes them.
/// They need JetStream, of version 2.9 or newer. Names of streams and subjects begin with `prefix`.
///
/// # Errors
/// [`ImksError::Config`] for URLs that cannot be used; [`ImksError::AdapterNats`] if no server can be reached.
pub async fn open(
    urls: &str,
    credentials: Option<PathBuf>,
    prefix: &str,
) -> ImksResult<Arc<dyn RecoveryLog>> {
    let nats = Nats::new(urls, credentials, prefix)?;
    let (options, cuts) = Cuts::follow(nats.options().await?);
    let client = Box::pin(options.connect(nats.servers())).await.map_err(failed)?;
    Ok(Arc::new(NatsLog { client, cuts, prefix: prefix.into(), buckets: Mutex::default() }))
}

/// NATS as the recovery log.
struct NatsLog {
    client: Client,
    cuts: Cuts,
    prefix: Box<str>,
    buckets: Mutex<HashMap<Box<str>, Bucket>>,
}

/// What is known of a bucket.
struct Bucket {
    epoch: u64,
    /// The newest sequence that its stream of entries ever showed to this node.
    newest: u64,
    /// Whether both streams were there when they were looked at.
    is_there: bool,
    /// The batch that was sent last: its number, and when that was first.
    sent: (u64, Instant),
    /// The sessions that this node has stored or taken.
    stored: HashMap<SessionKey, Stored>,
}

impl Bucket {
    /// Notes which message holds a session that this node has stored, or that none of its messages does.
    fn note(&mut self, key: SessionKey, generation: u64, sequence: Option<u64>) {
        let known = self.stored.get(&key).filter(|stored| stored.generation == generation);
        match sequence {
            Some(sequence) => {
                let taken_at = known.and_then(|stored| stored.taken_at);
                self.stored.insert(key, Stored { generation, sequence, taken_at, noted: Instant::now() });
            }
            None if known.is_some() => drop(self.stored.remove(&key)),
            None => {}
        }
    }
}

/// The message that holds a session of this generation.
#[derive(Debug, Clone, Copy)]
struct Stored {
    generation: u64,
    sequence: u64,
    taken_at: Option<i64>,
    /// When this node learned of it.
    noted: Instant,
}

/// A session in its message. Times are microseconds of the clocks of the nodes.
#[derive(Serialize, Deserialize)]
struct Content {
    generation: u64,
    version: u64,
    node: NodeId,
    saved_at: i64,
    away_at: Option<i64>,
    taken_at: Option<i64>,
    record: serde_bytes::ByteBuf,
}

/// A node in its message.
#[derive(Serialize, Deserialize)]
struct Lease {
    position: u64,
    seen_at: i64,
}

/// A message to a stream.
struct Outgoing {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

/// Writing.
impl NatsLog {
    async fn write_batch(&self, bucket: &str, batch: &Batch) -> ImksResult<Written> {
        let epoch = self.epoch(bucket).await?;
        let newest = self.begin_to_send(bucket, epoch, batch).await?;
        let mut messages = Vec::new();
        let subject = self.subject(bucket, Kind::Entries, epoch);
        for (number, entry) in (batch.number..).zip(&batch.entries) {
            let headers = once(&format!("{}-{number}", batch.node));
            messages.push(Outgoing { subject: subject.clone(), headers, payload: entry.clone() });
        }
        let is_current = epoch == batch.epoch;
        let sessions: &[SavedSession] = if is_current { &batch.sessions } else { &[] };
        // Of one that this node has not stored there is nothing to end.
        let is_stored = |(key, generation): &&(SessionKey, u64)| {
            is_current && self.stored(bucket, *key, *generation).is_some()
        };
        let ended: Vec<(SessionKey, u64)> = batch.ended.iter().filter(is_stored).copied().collect();
        for session in sessions {
            messages.push(self.session_message(bucket, epoch, batch, session)?);
        }
        for (key, generation) in &ended {
            let stored = self.stored(bucket, *key, *generation);
            let headers = expecting(stored.map_or(0, |stored| stored.sequence));
            let subject = self.session_subject(bucket, epoch, *key)?;
            messages.push(Outgoing { subject, headers, payload: Bytes::new() });
        }
        let receipts = self.publish(bucket, messages).await?;
        let (entries, rest) = receipts.split_at_checked(batch.entries.len()).ok_or_else(unreadable)?;
        let positions = self.read_positions(bucket, entries, newest).await?;
        let taken = self.read_sessions(bucket, epoch, sessions, &ended, rest).await?;
        // It calls current what is stored, so that comes first.
        if let Some(position) = batch.lease.filter(|_| is_current) {
            self.renew_lease(bucket, epoch, batch.node, position).await?;
        }
        Ok(Written { epoch, positions, taken })
    }

    /// Prepares for sending a batch. Returns the newest sequence before it.
    async fn begin_to_send(&self, bucket: &str, epoch: u64, batch: &Batch) -> ImksResult<u64> {
        let now = Instant::now();
        let begun = self.known(bucket, |known| {
            if !batch.again || known.sent.0 != batch.number || known.epoch != epoch {
                known.sent = (batch.number, now);
            }
            (known.newest, now.duration_since(known.sent.1))
        });
        let (newest, since) = begun.ok_or_else(lost)?;
        // The stream may have the first attempt and no longer recognise it, and then it would be there twice.
        if since > RECOGNISED_MAX && !batch.entries.is_empty() {
            self.give_up(bucket).await?;
            return Err(lost());
        }
        Ok(newest)
    }

    /// Returns the positions of entries. `newest` is the newest sequence before they were sent.
    async fn read_positions(&self, bucket: &str, receipts: &[Receipt], newest: u64) -> ImksResult<Vec<u64>> {
        let stored = |receipt: &Receipt| receipt.error.is_none();
        let refusal = receipts.iter().position(|receipt| receipt.error.is_some());
        // Later ones must not be before it when it is sent again, and are if it was lost on its way and has come now.
        let in_order = receipts.iter().filter(|it| it.error.is_none()).is_sorted_by_key(|it| it.seq);
        let torn = !in_order || refusal.is_some_and(|n| receipts.iter().skip(n).any(stored));
        let emptied = receipts.iter().any(|it| stored(it) && !it.duplicate && it.seq <= newest);
        if torn || emptied {
            self.give_up(bucket).await?;
            return Err(lost());
        }
        if let Some(error) = receipts.iter().find_map(|receipt| receipt.error.as_ref()) {
            return Err(refused_because(error));
        }
        let last = receipts.iter().map(|receipt| receipt.seq).max().unwrap_or_default();
        self.known(bucket, |known| known.newest = known.newest.max(last));
        Ok(receipts.iter().map(|receipt| receipt.seq - FIRST_MESSAGE).collect())
    }

    /// Returns the sessions that other nodes have taken.
    async fn read_sessions(
        &self,
        bucket: &str,
        epoch: u64,
        sessions: &[SavedSession],
        ended: &[(SessionKey, u64)],
        receipts: &[Receipt],
    ) -> ImksResult<Vec<SessionKey>> {
        let (mut taken, mut again) = (Vec::new(), false);
        let ends = ended.iter().map(|(key, generation)| (*key, *generation, false));
        let saved = sessions.iter().map(|session| (session.key, session.generation, true));
        for ((key, generation, is_saved), receipt) in saved.chain(ends).zip(receipts) {
            let sequence = match &receipt.error {
                None if is_saved => Some(receipt.seq),
                None => None,
                Some(error) if is_conflict(error) => {
                    let found = self.found_again(bucket, epoch, key, generation, is_saved).await?;
                    again |= found.is_some();
                    if is_saved && found.is_none() {
                        taken.push(key);
                    }
                    found
                }
                Some(error) => return Err(refused_because(error)),
            };
            self.known(bucket, |known| known.note(key, generation, sequence));
        }
        match again {
            true => {
                Err(ImksError::AdapterNats(Cause::new("a session is stored otherwise than this node knows")))
            }
            false => Ok(taken),
        }
    }

    /// Returns the sequence that a session has got without this node's knowledge, such as by an attempt without an answer,
    /// or `None` if it is another node's or there is nothing to end.
    async fn found_again(
        &self,
        bucket: &str,
        epoch: u64,
        key: SessionKey,
        generation: u64,
        is_saved: bool,
    ) -> ImksResult<Option<u64>> {
        let subject = self.session_subject(bucket, epoch, key)?;
        Ok(match self.last(bucket, &subject).await? {
            None => is_saved.then_some(0),
            Some((sequence, data)) if data.is_empty() => is_saved.then_some(sequence),
            Some((sequence, data)) => {
                (decode::<Content>(&data)?.generation == generation).then_some(sequence)
            }
        })
    }

    async fn renew_lease(&self, bucket: &str, epoch: u64, node: NodeId, position: u64) -> ImksResult<()> {
        let payload = encode(&Lease { position, seen_at: clock::now_micros() })?;
        let subject = self.node_subject(bucket, epoch, node);
        let lease = Outgoing { subject, headers: HeaderMap::new(), payload };
        match self.publish(bucket, vec![lease]).await?.into_iter().find_map(|receipt| receipt.error) {
            Some(error) => Err(refused_because(&error)),
            None => Ok(()),
        }
    }

    /// Returns what this node has stored of a session of this generation.
    fn stored(&self, bucket: &str, key: SessionKey, generation: u64) -> Option<Stored> {
        let stored = self.known(bucket, |known| known.stored.get(&key).copied()).flatten();
        stored.filter(|stored| stored.generation == generation)
    }

    fn session_message(
        &self,
        bucket: &str,
        epoch: u64,
        batch: &Batch,
        session: &SavedSession,
    ) -> ImksResult<Outgoing> {
        let (now, stored) = (clock::now_micros(), self.stored(bucket, session.key, session.generation));
        let sequence = stored.map_or(0, |stored| stored.sequence);
        let content = Content {
            generation: session.generation,
            version: session.version,
            node: batch.node,
            saved_at: now,
            away_at: session.away_millis.map(|millis| now - to_micros(millis)),
            taken_at: stored.and_then(|stored| stored.taken_at),
            record: serde_bytes::ByteBuf::from(session.record.to_vec()),
        };
        let subject = self.session_subject(bucket, epoch, session.key)?;
        // The same attempt again must not fail because the first one succeeded. Other sessions may have the same record.
        let mut headers = once(&format!("{subject}-{}-{sequence}-{}", batch.node, hash(&session.record)));
        headers.insert(EXPECTED, sequence.to_string());
        Ok(Outgoing { subject, headers, payload: encode(&content)? })
    }
}

/// Reading, and taking.
impl NatsLog {
    async fn read_after(&self, bucket: &str, after: u64) -> ImksResult<Tail> {
        let (epoch, StreamState { first_seq, last_seq }) = self.state(bucket).await?;
        let first = first_seq.saturating_sub(FIRST_MESSAGE).max(after + 1);
        let mut tail = Tail { epoch, last: last_seq - FIRST_MESSAGE, first, entries: Vec::new() };
        let last = tail.last.min(first + ENTRIES_PER_READ - 1);
        if first > last {
            return Ok(tail);
        }
        let call = format!("$JS.API.DIRECT.GET.{}", self.stream(bucket, Kind::Entries));
        let reading = (first..=last).map(|position| {
            let body = Bytes::from(format!("{{\"seq\":{}}}", position + FIRST_MESSAGE));
            self.client.request(call.clone(), body)
        });
        for (position, message) in (first..).zip(try_join_all(reading).await.map_err(failed)?) {
            match message.status {
                None | Some(StatusCode::OK) => tail.entries.push(message.payload),
                // What was removed is a gap.
                Some(StatusCode::NOT_FOUND) => {
                    tail.first = position + 1;
                    tail.entries.clear();
                }
                Some(_) => return Err(unreadable()),
            }
        }
        Ok(tail)
    }

    /// Returns the last message of a subject in the stream of sessions. It is empty if the session has ended.
    async fn last(&self, bucket: &str, subject: &str) -> ImksResult<Option<(u64, Vec<u8>)>> {
        let call = format!("STREAM.MSG.GET.{}", self.stream(bucket, Kind::Sessions));
        let got: Got = self.api(call, &json!({ "last_by_subj": subject })).await?;
        match (got.message, got.error) {
            (Some(GotMessage { seq, data }), _) => {
                Ok(Some((seq, STANDARD.decode(data.unwrap_or_default()).map_err(|_| unreadable())?)))
            }
            (None, Some(error)) if error.err_code == NO_MESSAGE => Ok(None),
            (None, error) => Err(refused(error)),
        }
    }

    async fn session(&self, bucket: &str, subject: &str) -> ImksResult<Option<(u64, Content)>> {
        let last = self.last(bucket, subject).await?.filter(|(_, data)| !data.is_empty());
        last.map(|(sequence, data)| Ok((sequence, decode(&data)?))).transpose()
    }

    async fn find_session(&self, bucket: &str, key: SessionKey) -> ImksResult<Option<Found>> {
        let epoch = self.epoch(bucket).await?;
        let subject = self.session_subject(bucket, epoch, key)?;
        let Some((_, Content { node, .. })) = self.session(bucket, &subject).await? else { return Ok(None) };
        let lease = self.last(bucket, &self.node_subject(bucket, epoch, node)).await?;
        let lease: Option<Lease> = lease.map(|(_, data)| decode(&data)).transpose()?;
        // The lease is about what was stored before it: what is read now is not older than that.
        let Some((_, content)) = self.session(bucket, &subject).await? else { return Ok(None) };
        let (epoch_now, StreamState { last_seq, .. }) = self.state(bucket).await?;
        if content.node != node || epoch_now != epoch {
            return Ok(None);
        }
        let (now, seen) = (clock::now_micros(), lease.as_ref().map_or(0, |lease| lease.seen_at));
        let millis = |since: i64| u64::try_from((now - since) / 1_000).unwrap_or_default();
        Ok(Some(Found {
            epoch,
            last: last_seq - FIRST_MESSAGE,
            node,
            generation: content.generation,
            version: content.version,
            connected: content.away_at.is_none(),
            away_millis: millis(content.away_at.unwrap_or(content.saved_at.max(seen))),
            // By a clock that is ahead it was not just now.
            taken_millis: content.taken_at.map(|since| (now - since).unsigned_abs() / 1_000),
            lease: lease.map(|lease| lease.position),
            record: content.record.into_vec().into(),
        }))
    }

    async fn take_session(
        &self,
        bucket: &str,
        key: SessionKey,
        expected: Expected,
        node: NodeId,
    ) -> ImksResult<bool> {
        let epoch = self.epoch(bucket).await?;
        let subject = self.session_subject(bucket, epoch, key)?;
        let Some((sequence, mut content)) = self.session(bucket, &subject).await? else { return Ok(false) };
        let is_version = expected.version.is_none_or(|version| version == content.version);
        if content.generation != expected.generation || !is_version {
            return Ok(false);
        }
        let now = clock::now_micros();
        content.generation += 1;
        (content.node, content.taken_at) = (node, Some(now));
        content.away_at.get_or_insert(now);
        let generation = content.generation;
        let message = Outgoing { subject, headers: expecting(sequence), payload: encode(&content)? };
        let receipts = self.publish(bucket, vec![message]).await?;
        let receipt = receipts.first().ok_or_else(unreadable)?;
        match &receipt.error {
            None => {
                let (sequence, taken_at, noted) = (receipt.seq, Some(now), Instant::now());
                let stored = Stored { generation, sequence, taken_at, noted };
                self.known(bucket, |known| known.stored.insert(key, stored));
                Ok(true)
            }
            Some(error) if is_conflict(error) => Ok(false),
            Some(error) => Err(refused_because(error)),
        }
    }
}

impl RecoveryLog for NatsLog {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn entry_bytes_max(&self) -> usize {
        self.client.max_payload().saturating_sub(HEADER_BYTES)
    }

    fn write<'a>(&'a self, bucket: &'a str, batch: &'a Batch) -> BoxFuture<'a, ImksResult<Written>> {
        Box::pin(self.cuts.until(self.write_batch(bucket, batch)))
    }

    fn read<'a>(&'a self, bucket: &'a str, after: u64) -> BoxFuture<'a, ImksResult<Tail>> {
        Box::pin(self.cuts.until(self.read_after(bucket, after)))
    }

    fn find<'a>(&'a self, bucket: &'a str, key: SessionKey) -> BoxFuture<'a, ImksResult<Option<Found>>> {
        Box::pin(self.cuts.until(self.find_session(bucket, key)))
    }

    fn take<'a>(
        &'a self,
        bucket: &'a str,
        key: SessionKey,
        expected: Expected,
        node: NodeId,
    ) -> BoxFuture<'a, ImksResult<bool>> {
        Box::pin(self.cuts.until(self.take_session(bucket, key, expected, node)))
    }

    /// The streams remove what is old by themselves. What this node knows of it goes too.
    fn trim<'a>(&'a self, bucket: &'a str, _keep: Keep) -> BoxFuture<'a, ImksResult<()>> {
        let lifetime = Duration::from_secs(SESSION_SECONDS);
        self.known(bucket, |known| known.stored.retain(|_, stored| stored.noted.elapsed() < lifetime));
        Box::pin(async { Ok(()) })
    }
}

fn encode(content: &impl Serialize) -> ImksResult<Bytes> {
    let bytes = rmp_serde::to_vec_named(content)
        .map_err(|error| ImksError::AdapterSerialization(Cause::new(error)))?;
    Ok(bytes.into())
}

fn decode<'a, T: Deserialize<'a>>(data: &'a [u8]) -> ImksResult<T> {
    rmp_serde::from_slice(data).map_err(|error| ImksError::AdapterSerialization(Cause::new(error)))
}

/// Returns a number that differs between contents (FNV-1a).
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn to_micros(millis: u64) -> i64 {
    i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

/// The code of the error that there is no such message.
const NO_MESSAGE: u64 = 10_037;
/// The sequence of the message that a stream of entries begins with: the positions of entries count from there.
const FIRST_MESSAGE: u64 = 1;
/// After how long a stream may no longer recognise an entry that is sent again: a little less than its window.
const RECOGNISED_MAX: Duration = Duration::from_secs(110);
/// The entries that are read at once.
const ENTRIES_PER_READ: u64 = 128;
/// What the headers and the subject of an entry take of the largest message.
const HEADER_BYTES: usize = 1_024;
