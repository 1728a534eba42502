//! Digests of channels for clients that do not look at them: once a second, how far each channel has come.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::channel_rooms::digest_room;
use super::push::Push;
use super::resume::Place;
use crate::ImksResult;
use crate::models::channel_state::ChannelHead;
use crate::socket::parser::One;
use crate::socket::{Namespace, Socket};

/// Sent to sockets that get digests, about all channels with news since the last time.
pub(super) const ACTIVITY: Push<Digests<'_>> = Push::new("channel:activity");

/// The news of this node's channels since the last digest. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Activity(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether a client of this node has ever asked for digests. Until then an event costs one atomic load here.
    is_wanted: AtomicBool,
    /// The channels with news. Bounded, because each has a room.
    news: Mutex<BTreeMap<Uuid, Digest>>,
}

/// The payload of `channel:activity`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Digests<'a> {
    /// Each as text, which all events share.
    #[schemars(with = "Vec<Digest>")]
    channels: Vec<&'a RawValue>,
}

/// How far a channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ChannelDigest")]
struct Digest {
    channel_id: Uuid,
    last_seq: i64,
    rev: i64,
    /// The last message, if it is newer than the last digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_message_id: Option<Uuid>,
}

/// The part of `message:new` that a digest has.
#[derive(Deserialize)]
struct NewMessage {
    id: Uuid,
}

/// Returns the payloads that tell how far channels have come that somebody knew up to these places.
pub(super) fn digests(news: &[(&ChannelHead, Place)]) -> ImksResult<Vec<Box<RawValue>>> {
    let digest = |(head, known): &(&ChannelHead, Place)| Digest {
        channel_id: head.channel_id,
        last_seq: head.last_seq,
        rev: head.last_rev,
        last_message_id: head.last_message_id.filter(|_| head.last_seq > known.seq),
    };
    let payload = |some: &[(&ChannelHead, Place)]| -> ImksResult<Box<RawValue>> {
        let texts = some.iter().map(|it| to_raw_value(&digest(it)));
        let texts: Vec<Box<RawValue>> = texts.collect::<Result<_, _>>()?;
        Ok(to_raw_value(&Digests { channels: texts.iter().map(|text| &**text).collect() })?)
    };
    news.chunks(DIGESTS_MAX).map(payload).collect()
}

impl Activity {
    /// Notes events from now on, because a client wants digests. Called before it enters the first room for them.
    pub(super) fn begin(&self) {
        self.0.is_wanted.store(true, Ordering::Release);
    }

    /// Notes an event that was committed, after which the channel has these numbers.
    pub(super) fn note(
        &self,
        namespace: &Namespace,
        channel: Uuid,
        head: (i64, i64),
        event: &str,
        json: &str,
    ) {
        if !self.0.is_wanted.load(Ordering::Acquire) || !namespace.has_room(&digest_room(channel)) {
            return;
        }
        let is_new = event == MESSAGE_NEW;
        let message = is_new.then(|| serde_json::from_str(json).map(|NewMessage { id }| id).ok()).flatten();
        let mut news = self.0.news.lock();
        let digest = news.entry(channel).or_insert(Digest::before(channel));
        digest.add(head, message);
    }

    /// Sends digests until `stop`.
    pub(super) async fn run(self, namespace: Namespace, stop: CancellationToken) {
        let mut ticks = interval(DIGEST_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let news = std::mem::take(&mut *self.0.news.lock());
            if !news.is_empty()
                && let Err(error) = send(&namespace, news.into_values().collect()).await
            {
                tracing::warn!(%error, "digests were not sent");
            }
        }
    }
}

impl Digest {
    fn before(channel_id: Uuid) -> Self {
        Self { channel_id, last_seq: 0, rev: 0, last_message_id: None }
    }

    /// Adds an event. Those of one channel come in order, except that the numbers of a healed hole are those of its end.
    fn add(&mut self, (seq, rev): (i64, i64), message: Option<Uuid>) {
        if seq > self.last_seq || (seq == self.last_seq && message.is_some()) {
            self.last_message_id = message;
        }
        (self.last_seq, self.rev) = (self.last_seq.max(seq), self.rev.max(rev));
    }

    /// Returns the key by which it replaces an earlier one. Without a message it leaves one that has a message in its
    /// place: the client would not learn which message that was.
    fn key(&self) -> String {
        match self.last_message_id {
            Some(_) => self.channel_id.to_string(),
            None => format!("{} changes", self.channel_id),
        }
    }
}

/// Sends digests. Sockets that get those of the same channels share an event that is encoded once, and that replaces an
/// earlier one about the same channels if it still waits.
async fn send(namespace: &Namespace, news: Vec<Digest>) -> ImksResult<()> {
    let texts: Vec<Box<RawValue>> = news.iter().map(to_raw_value).collect::<Result<_, _>>()?;
    for (places, sockets) in by_channels(namespace, &news).await {
        let some = places.iter().filter_map(|place| Some((news.get(*place)?, texts.get(*place)?)));
        let (keys, channels): (Vec<String>, Vec<&RawValue>) =
            some.map(|(digest, text)| (digest.key(), &**text)).unzip();
        let payload = Digests { channels };
        namespace.emit_latest_to(&sockets, &keys.join(" "), ACTIVITY.name(), &One(&payload))?;
        // Receivers run in between: a node may have many sockets that get digests.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Returns the sockets of this node by the digests that they get, each as a place in `news`.
async fn by_channels(namespace: &Namespace, news: &[Digest]) -> HashMap<Vec<usize>, Vec<Socket>> {
    let mut of_sockets = HashMap::<String, (Socket, Vec<usize>)>::new();
    for (place, digest) in news.iter().enumerate() {
        for socket in namespace.sockets_in(&digest_room(digest.channel_id)) {
            match of_sockets.get_mut(socket.id()) {
                Some((_, places)) => places.push(place),
                None => drop(of_sockets.insert(socket.id().to_owned(), (socket, vec![place]))),
            }
        }
        // Others run in between: many sockets may follow each of many channels.
        tokio::task::yield_now().await;
    }
    let mut sockets = HashMap::<Vec<usize>, Vec<Socket>>::new();
    for (socket, all) in of_sockets.into_values() {
        for some in all.chunks(DIGESTS_MAX) {
            sockets.entry(some.to_vec()).or_default().push(socket.clone());
        }
    }
    sockets
}

pub(super) const MESSAGE_NEW: &str = "message:new";
/// How often digests are sent.
const DIGEST_INTERVAL: Duration = Duration::from_secs(1);
/// The most channels in one `channel:activity`.
const DIGESTS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_of_changes_does_not_replace_one_that_has_the_last_message() {
        let channel = Uuid::from_u128(1);
        let digest = |head, message| {
            let mut digest = Digest::before(channel);
            digest.add(head, message);
            digest
        };
        let message = digest((4, 0), Some(Uuid::from_u128(4)));
        assert_ne!(digest((4, 1), None).key(), message.key());
        assert_eq!(digest((5, 1), Some(Uuid::from_u128(5))).key(), message.key());
    }

    #[test]
    fn a_digest_has_the_newest_numbers_and_the_last_message_if_it_is_known() {
        let [first, second] = [1, 2].map(Uuid::from_u128);
        let mut digest = Digest::before(Uuid::nil());
        digest.add((4, 7), Some(first));
        digest.add((4, 8), None);
        assert_eq!((digest.last_seq, digest.rev, digest.last_message_id), (4, 8, Some(first)));
        digest.add((9, 9), None);
        assert_eq!((digest.last_seq, digest.last_message_id), (9, None), "message 9 is not known");
        digest.add((9, 9), Some(second));
        assert_eq!((digest.rev, digest.last_message_id), (9, Some(second)));
    }
}
