//! The recovery log that nodes share, in NATS JetStream: a stream of entries for each bucket, and one of sessions. Both are
//! in memory: a server that was restarted has none of it, and the next streams have another epoch.
//!
//! The requests are those of the JetStream API as its documentation describes them, over the core client.

mod jetstream;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_nats::{Client, HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::jetstream::{
    Got, GotMessage, Info, Kind, Receipt, StreamState, failed, receipts, refused, refused_because,
    stream_config, unreadable,
};
use super::nats::Nats;
use crate::bus::BoxFuture;
use crate::clock;
use crate::error::{Cause, ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::recovery_log::{Batch, Found, Keep, RecoveryLog, SavedSession, SessionKey, Tail, Written};

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
    let client = Box::pin(nats.options().await?.connect(nats.servers())).await.map_err(failed)?;
    Ok(Arc::new(NatsLog {
        client,
        prefix: prefix.into(),
        epochs: Mutex::default(),
        stored: Mutex::default(),
    }))
}

/// NATS as the recovery log.
struct NatsLog {
    client: Client,
    prefix: Box<str>,
    /// The epochs of the buckets, as far as they are known.
    epochs: Mutex<HashMap<Box<str>, u64>>,
    /// The sessions that this node has stored or taken.
    stored: Mutex<HashMap<SessionKey, Stored>>,
}

/// The message that holds a session.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    sequence: u64,
    taken_at: Option<i64>,
}

/// A session in its message. Times are microseconds of the clocks of the nodes.
#[derive(Serialize, Deserialize)]
struct Content {
    generation: u64,
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

impl NatsLog {
    fn stream(&self, bucket: &str, kind: Kind) -> String {
        let name = URL_SAFE_NO_PAD.encode(format!("{}:{bucket}", self.prefix));
        format!("imks_recovery_{}_{name}", kind.name())
    }

    /// Returns the subject of a stream of this epoch.
    fn subject(&self, bucket: &str, kind: Kind, epoch: u64) -> String {
        format!("{}.recovery.{}.{}.{epoch}", self.prefix, URL_SAFE_NO_PAD.encode(bucket), kind.name())
    }

    fn session_subject(&self, bucket: &str, epoch: u64, key: SessionKey) -> ImksResult<String> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or(ImksError::Internal("no SHA-256"))?;
        let hash = URL_SAFE_NO_PAD.encode(suite.common.hash_provider.hash(&key.0));
        Ok(format!("{}.session.{hash}", self.subject(bucket, Kind::Sessions, epoch)))
    }

    fn node_subject(&self, bucket: &str, epoch: u64, node: NodeId) -> String {
        format!("{}.node.{node}", self.subject(bucket, Kind::Sessions, epoch))
    }

    async fn api<T: for<'a> Deserialize<'a>>(&self, call: String, body: &Value) -> ImksResult<T> {
        let payload = if body.is_null() { Bytes::new() } else { serde_json::to_vec(body)?.into() };
        let answer =
            Box::pin(self.client.request(format!("$JS.API.{call}"), payload)).await.map_err(failed)?;
        Ok(serde_json::from_slice(&answer.payload)?)
    }

    /// Returns the epoch and the state of the entries of a bucket, whose streams are created if they are missing.
    async fn state(&self, bucket: &str) -> ImksResult<(u64, StreamState)> {
        let stream = self.stream(bucket, Kind::Entries);
        let mut info: Info = self.api(format!("STREAM.INFO.{stream}"), &Value::Null).await?;
        if info.error.as_ref().is_some_and(|error| error.err_code == NOT_FOUND) {
            let mut random = [0; 8];
            getrandom::fill(&mut random)?;
            let subject = self.subject(bucket, Kind::Entries, u64::from_be_bytes(random));
            let config = stream_config(&stream, &subject, Kind::Entries);
            // Another node may be first.
            let _: Value = self.api(format!("STREAM.CREATE.{stream}"), &config).await?;
            info = self.api(format!("STREAM.INFO.{stream}"), &Value::Null).await?;
        }
        let (Some(config), Some(state)) = (info.config, info.state) else { return Err(refused(info.error)) };
        let subject = config.subjects.first().ok_or_else(unreadable)?;
        let epoch = subject.rsplit('.').next().and_then(|epoch| epoch.parse().ok()).ok_or_else(unreadable)?;
        let known = self.epochs.lock().insert(bucket.into(), epoch);
        if known != Some(epoch) {
            self.stored.lock().clear();
            self.create_sessions(bucket, epoch).await?;
        }
        Ok((epoch, state))
    }

    /// Creates the stream of sessions, or replaces one of an earlier epoch.
    async fn create_sessions(&self, bucket: &str, epoch: u64) -> ImksResult<()> {
        let stream = self.stream(bucket, Kind::Sessions);
        let subject = format!("{}.>", self.subject(bucket, Kind::Sessions, epoch));
        for _ in 0..2 {
            let config = stream_config(&stream, &subject, Kind::Sessions);
            let _: Value = self.api(format!("STREAM.CREATE.{stream}"), &config).await?;
            let info: Info = self.api(format!("STREAM.INFO.{stream}"), &Value::Null).await?;
            let Some(config) = info.config else { return Err(refused(info.error)) };
            if config.subjects == [subject.clone()] {
                return Ok(());
            }
            let _: Value = self.api(format!("STREAM.DELETE.{stream}"), &Value::Null).await?;
        }
        Err(unreadable())
    }

    async fn epoch(&self, bucket: &str) -> ImksResult<u64> {
        let known = self.epochs.lock().get(bucket).copied();
        match known {
            Some(epoch) => Ok(epoch),
            None => Ok(self.state(bucket).await?.0),
        }
    }

    /// Publishes messages in their order. Returns what the streams say about each.
    async fn publish(&self, bucket: &str, messages: Vec<Outgoing>) -> ImksResult<Vec<Receipt>> {
        let (inbox, count) = (self.client.new_inbox(), messages.len());
        let mut replies = self.client.subscribe(format!("{inbox}.*")).await.map_err(failed)?;
        for (n, Outgoing { subject, headers, payload }) in messages.into_iter().enumerate() {
            let reply = format!("{inbox}.{n}");
            let published = self.client.publish_with_reply_and_headers(subject, reply, headers, payload);
            Box::pin(published).await.map_err(failed)?;
        }
        self.client.flush().await.map_err(failed)?;
        let receipts = receipts(&mut replies, count).await;
        if receipts.is_err() {
            // Without its stream a message has no receiver: look for the streams again.
            self.epochs.lock().remove(bucket);
        }
        receipts
    }

    async fn write_batch(&self, bucket: &str, batch: &Batch) -> ImksResult<Written> {
        let epoch = self.epoch(bucket).await?;
        let mut messages = Vec::new();
        let subject = self.subject(bucket, Kind::Entries, epoch);
        for (number, entry) in (batch.number..).zip(&batch.entries) {
            let headers = once(&format!("{}-{number}", batch.node));
            messages.push(Outgoing { subject: subject.clone(), headers, payload: entry.clone() });
        }
        for session in &batch.sessions {
            messages.push(self.session_message(bucket, epoch, batch, session)?);
        }
        for (key, _) in &batch.ended {
            let mut headers = HeaderMap::new();
            headers.insert(EXPECTED, self.stored(*key).sequence.to_string());
            let subject = self.session_subject(bucket, epoch, *key)?;
            messages.push(Outgoing { subject, headers, payload: Bytes::new() });
        }
        if let Some(position) = batch.lease {
            let lease = rmp_serde::to_vec_named(&Lease { position, seen_at: clock::now_micros() });
            let payload = lease.map_err(|error| ImksError::AdapterSerialization(Cause::new(error)))?.into();
            let subject = self.node_subject(bucket, epoch, batch.node);
            messages.push(Outgoing { subject, headers: HeaderMap::new(), payload });
        }
        let receipts = self.publish(bucket, messages).await?;
        self.read_receipts(epoch, batch, &receipts)
    }

    fn read_receipts(&self, epoch: u64, batch: &Batch, receipts: &[Receipt]) -> ImksResult<Written> {
        let (entries, rest) = receipts.split_at_checked(batch.entries.len()).ok_or_else(unreadable)?;
        let mut written = Written { epoch, ..Written::default() };
        for receipt in entries {
            if let Some(error) = &receipt.error {
                return Err(refused_because(error));
            }
            written.positions.push(receipt.seq);
        }
        for (session, receipt) in batch.sessions.iter().zip(rest) {
            match &receipt.error {
                None => self.stored.lock().entry(session.key).or_default().sequence = receipt.seq,
                Some(error) if error.err_code == WRONG_SEQUENCE => {
                    self.stored.lock().remove(&session.key);
                    written.taken.push(session.key);
                }
                Some(error) => return Err(refused_because(error)),
            }
        }
        for (key, _) in &batch.ended {
            self.stored.lock().remove(key);
        }
        Ok(written)
    }

    fn stored(&self, key: SessionKey) -> Stored {
        self.stored.lock().get(&key).copied().unwrap_or_default()
    }

    fn session_message(
        &self,
        bucket: &str,
        epoch: u64,
        batch: &Batch,
        session: &SavedSession,
    ) -> ImksResult<Outgoing> {
        let (now, stored) = (clock::now_micros(), self.stored(session.key));
        let content = Content {
            generation: session.generation,
            node: batch.node,
            saved_at: now,
            away_at: session.away_millis.map(|millis| now - to_micros(millis)),
            taken_at: stored.taken_at,
            record: serde_bytes::ByteBuf::from(session.record.to_vec()),
        };
        // The same attempt again must not fail because the first one succeeded.
        let mut headers = once(&format!("{}-{}-{}", batch.node, stored.sequence, hash(&session.record)));
        headers.insert(EXPECTED, stored.sequence.to_string());
        Ok(Outgoing {
            subject: self.session_subject(bucket, epoch, session.key)?,
            headers,
            payload: encode(&content)?,
        })
    }

    async fn read_after(&self, bucket: &str, after: u64) -> ImksResult<Tail> {
        let (epoch, StreamState { first_seq, last_seq }) = self.state(bucket).await?;
        let mut tail = Tail { epoch, last: last_seq, first: first_seq.max(after + 1), entries: Vec::new() };
        let last = last_seq.min(tail.first + ENTRIES_PER_READ - 1);
        if tail.first > last {
            return Ok(tail);
        }
        let call = format!("$JS.API.DIRECT.GET.{}", self.stream(bucket, Kind::Entries));
        let reading = (tail.first..=last).map(|sequence| {
            let body = Bytes::from(format!("{{\"seq\":{sequence}}}"));
            self.client.request(call.clone(), body)
        });
        for message in try_join_all(reading).await.map_err(failed)? {
            // What was removed meanwhile is a gap, which the next read shows.
            if message.status == Some(StatusCode::NOT_FOUND) {
                return Err(unreadable());
            }
            tail.entries.push(message.payload);
        }
        Ok(tail)
    }

    /// Returns the last message of a subject in the stream of sessions.
    async fn last(&self, bucket: &str, subject: &str) -> ImksResult<Option<(u64, Vec<u8>)>> {
        let call = format!("STREAM.MSG.GET.{}", self.stream(bucket, Kind::Sessions));
        let got: Got = self.api(call, &json!({ "last_by_subj": subject })).await?;
        match (got.message, got.error) {
            (Some(GotMessage { seq, data }), _) => {
                let data = STANDARD.decode(data.unwrap_or_default()).map_err(|_| unreadable())?;
                Ok((!data.is_empty()).then_some((seq, data)))
            }
            (None, Some(error)) if error.err_code == NO_MESSAGE => Ok(None),
            (None, error) => Err(refused(error)),
        }
    }

    async fn find_session(&self, bucket: &str, key: SessionKey) -> ImksResult<Option<Found>> {
        let (epoch, StreamState { last_seq, .. }) = self.state(bucket).await?;
        let subject = self.session_subject(bucket, epoch, key)?;
        let Some((_, data)) = self.last(bucket, &subject).await? else { return Ok(None) };
        let content: Content = decode(&data)?;
        let lease = self.last(bucket, &self.node_subject(bucket, epoch, content.node)).await?;
        let lease: Option<Lease> = lease.map(|(_, data)| decode(&data)).transpose()?;
        let (now, seen) = (clock::now_micros(), lease.as_ref().map_or(0, |lease| lease.seen_at));
        let millis = |since: i64| u64::try_from((now - since) / 1_000).unwrap_or_default();
        Ok(Some(Found {
            epoch,
            last: last_seq,
            node: content.node,
            generation: content.generation,
            connected: content.away_at.is_none(),
            away_millis: millis(content.away_at.unwrap_or(content.saved_at.max(seen))),
            taken_millis: content.taken_at.map(millis),
            lease: lease.map(|lease| lease.position),
            record: content.record.into_vec().into(),
        }))
    }

    async fn take_session(
        &self,
        bucket: &str,
        key: SessionKey,
        generation: u64,
        node: NodeId,
    ) -> ImksResult<bool> {
        let epoch = self.epoch(bucket).await?;
        let subject = self.session_subject(bucket, epoch, key)?;
        let Some((sequence, data)) = self.last(bucket, &subject).await? else { return Ok(false) };
        let (mut content, now): (Content, _) = (decode(&data)?, clock::now_micros());
        if content.generation != generation {
            return Ok(false);
        }
        content.generation += 1;
        (content.node, content.taken_at) = (node, Some(now));
        content.away_at.get_or_insert(now);
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED, sequence.to_string());
        let message = Outgoing { subject, headers, payload: encode(&content)? };
        let receipts = self.publish(bucket, vec![message]).await?;
        let receipt = receipts.first().ok_or_else(unreadable)?;
        match &receipt.error {
            None => {
                self.stored.lock().insert(key, Stored { sequence: receipt.seq, taken_at: Some(now) });
                Ok(true)
            }
            Some(error) if error.err_code == WRONG_SEQUENCE => Ok(false),
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
        Box::pin(self.write_batch(bucket, batch))
    }

    fn read<'a>(&'a self, bucket: &'a str, after: u64) -> BoxFuture<'a, ImksResult<Tail>> {
        Box::pin(self.read_after(bucket, after))
    }

    fn find<'a>(&'a self, bucket: &'a str, key: SessionKey) -> BoxFuture<'a, ImksResult<Option<Found>>> {
        Box::pin(self.find_session(bucket, key))
    }

    fn take<'a>(
        &'a self,
        bucket: &'a str,
        key: SessionKey,
        generation: u64,
        node: NodeId,
    ) -> BoxFuture<'a, ImksResult<bool>> {
        Box::pin(self.take_session(bucket, key, generation, node))
    }

    /// The streams remove what is old by themselves.
    fn trim<'a>(&'a self, _bucket: &'a str, _keep: Keep) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Returns the headers of a message that is stored once, however often it is sent.
fn once(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id);
    headers
}

fn encode(content: &Content) -> ImksResult<Bytes> {
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

/// The header that makes a message fail unless the last one of its subject has this sequence.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// Codes of errors of JetStream: no such stream, no such message, and another last sequence than expected.
const NOT_FOUND: u64 = 10_059;
const NO_MESSAGE: u64 = 10_037;
const WRONG_SEQUENCE: u64 = 10_071;
/// The entries that are read at once.
const ENTRIES_PER_READ: u64 = 128;
/// What the headers and the subject of an entry take of the largest message.
const HEADER_BYTES: usize = 1_024;
