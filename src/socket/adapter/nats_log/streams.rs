//! The streams of the recovery log in JetStream: their names, their epochs, and whether they have lost anything.

use std::collections::HashMap;

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use super::jetstream::{
    Info, Kind, Receipt, StreamState, failed, lost, receipts, refused, stream_config, unreadable,
};
use super::{Bucket, NatsLog, Outgoing};
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::recovery_log::SessionKey;

impl NatsLog {
    pub(super) fn stream(&self, bucket: &str, kind: Kind) -> String {
        let name = URL_SAFE_NO_PAD.encode(format!("{}:{bucket}", self.prefix));
        format!("imks_recovery_{}_{name}", kind.name())
    }

    /// Returns the subject of a stream of this epoch.
    pub(super) fn subject(&self, bucket: &str, kind: Kind, epoch: u64) -> String {
        format!("{}.recovery.{}.{}.{epoch}", self.prefix, URL_SAFE_NO_PAD.encode(bucket), kind.name())
    }

    pub(super) fn session_subject(&self, bucket: &str, epoch: u64, key: SessionKey) -> ImksResult<String> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or(ImksError::Internal("no SHA-256"))?;
        let hash = URL_SAFE_NO_PAD.encode(suite.common.hash_provider.hash(&key.0));
        Ok(format!("{}.session.{hash}", self.subject(bucket, Kind::Sessions, epoch)))
    }

    pub(super) fn node_subject(&self, bucket: &str, epoch: u64, node: NodeId) -> String {
        format!("{}.node.{node}", self.subject(bucket, Kind::Sessions, epoch))
    }

    pub(super) async fn api<T: for<'a> Deserialize<'a>>(&self, call: String, body: &Value) -> ImksResult<T> {
        let payload = if body.is_null() { Bytes::new() } else { serde_json::to_vec(body)?.into() };
        let answer =
            Box::pin(self.client.request(format!("$JS.API.{call}"), payload)).await.map_err(failed)?;
        Ok(serde_json::from_slice(&answer.payload)?)
    }

    /// Does something to what is known of a bucket, if anything is.
    pub(super) fn known<T>(&self, bucket: &str, act: impl FnOnce(&mut Bucket) -> T) -> Option<T> {
        self.buckets.lock().get_mut(bucket).map(act)
    }

    /// Returns the epoch and the state of the entries of a bucket, whose streams are created if they are missing, and
    /// replaced if they have lost entries.
    pub(super) async fn state(&self, bucket: &str) -> ImksResult<(u64, StreamState)> {
        for attempt in 0..ATTEMPTS {
            // What is written from now on may not be in the answer.
            let before = self.known(bucket, |known| (known.epoch, known.newest));
            let Some((epoch, state)) = self.info(bucket).await? else {
                self.create(bucket).await?;
                continue;
            };
            // The first message comes right after the stream.
            if state.last_seq == 0 && attempt == 0 {
                sleep(CREATING_MAX).await;
                continue;
            }
            if state.last_seq == 0
                || before.is_some_and(|(known, newest)| known == epoch && state.last_seq < newest)
            {
                self.give_up(bucket).await?;
                continue;
            }
            self.note(bucket, epoch, state.last_seq).await?;
            return Ok((epoch, state));
        }
        Err(lost())
    }

    async fn info(&self, bucket: &str) -> ImksResult<Option<(u64, StreamState)>> {
        let call = format!("STREAM.INFO.{}", self.stream(bucket, Kind::Entries));
        let info: Info = self.api(call, &Value::Null).await?;
        if info.error.as_ref().is_some_and(|error| error.err_code == NOT_FOUND) {
            return Ok(None);
        }
        let (Some(config), Some(state)) = (info.config, info.state) else { return Err(refused(info.error)) };
        let subject = config.subjects.first().ok_or_else(unreadable)?;
        let epoch = subject.rsplit('.').next().and_then(|epoch| epoch.parse().ok()).ok_or_else(unreadable)?;
        Ok(Some((epoch, state)))
    }

    /// Creates the stream of entries with a new epoch. Its first message tells it from a stream that was emptied, since the
    /// server may bring one in memory back without its messages.
    async fn create(&self, bucket: &str) -> ImksResult<()> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let subject = self.subject(bucket, Kind::Entries, u64::from_be_bytes(random));
        let stream = self.stream(bucket, Kind::Entries);
        let config = stream_config(&stream, &subject, Kind::Entries);
        let created: Info = self.api(format!("STREAM.CREATE.{stream}"), &config).await?;
        // Another node may be first.
        if created.error.is_none() {
            let first = Outgoing { subject, headers: HeaderMap::new(), payload: Bytes::new() };
            self.publish(bucket, vec![first]).await?;
        }
        Ok(())
    }

    /// Deletes the stream of entries, because it is not known what is missing in it. The next one has another epoch.
    pub(super) async fn give_up(&self, bucket: &str) -> ImksResult<()> {
        tracing::warn!(bucket, "entries of the recovery log are lost: it begins anew");
        let call = format!("STREAM.DELETE.{}", self.stream(bucket, Kind::Entries));
        let _: Value = self.api(call, &Value::Null).await?;
        self.known(bucket, |known| known.is_there = false);
        Ok(())
    }

    /// Notes what the stream of entries shows.
    async fn note(&self, bucket: &str, epoch: u64, newest: u64) -> ImksResult<()> {
        let is_there = self.known(bucket, |known| {
            known.newest = known.newest.max(newest);
            known.epoch == epoch && known.is_there
        });
        if is_there == Some(true) {
            return Ok(());
        }
        self.create_sessions(bucket, epoch).await?;
        let mut buckets = self.buckets.lock();
        match buckets.get_mut(bucket).filter(|known| known.epoch == epoch) {
            Some(known) => known.is_there = true,
            None => {
                let sent = (0, Instant::now());
                let known = Bucket { epoch, newest, is_there: true, sent, stored: HashMap::new() };
                buckets.insert(bucket.into(), known);
            }
        }
        Ok(())
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

    pub(super) async fn epoch(&self, bucket: &str) -> ImksResult<u64> {
        let known = self.known(bucket, |known| known.is_there.then_some(known.epoch));
        match known.flatten() {
            Some(epoch) => Ok(epoch),
            None => Ok(self.state(bucket).await?.0),
        }
    }

    /// Publishes messages in their order. Returns what the streams say about each.
    pub(super) async fn publish(&self, bucket: &str, messages: Vec<Outgoing>) -> ImksResult<Vec<Receipt>> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
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
            self.known(bucket, |known| known.is_there = false);
        }
        receipts
    }
}

/// How often the streams of a bucket are looked for.
const ATTEMPTS: u32 = 5;
/// How long a node may take from the creation of a stream to its first message.
const CREATING_MAX: Duration = Duration::from_millis(200);
/// The code of the error that there is no such stream.
const NOT_FOUND: u64 = 10_059;
