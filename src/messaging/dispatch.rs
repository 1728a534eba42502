//! The dispatch from commits to sockets: one task per lane, in commit order, each event encoded once.

use tokio::time::Instant;
use uuid::Uuid;

use super::metrics;
use super::relay::Relay;
use crate::models::append::{Commits, Told};
use crate::models::feed::Feed;
use crate::socket::Namespace;
use crate::socket::parser::RawArgs;
use crate::{ImksError, ImksResult};

/// Broadcasts a lane's commits to their channels until the appender is drained. With a relay, clients of other
/// nodes get them too, in the order of the channel.
pub async fn run(mut commits: Commits, namespace: Namespace, relay: Option<Relay>, feed: Feed) {
    let mut payload = Vec::new();
    while let Some(transaction) = commits.recv().await {
        let started = Instant::now();
        feed.committed();
        match &relay {
            Some(relay) => relay_all(relay, &namespace, &transaction, &mut payload),
            None => transaction.iter().for_each(|told| broadcast(&namespace, told, &mut payload)),
        }
        payload.shrink_to(PAYLOAD_KEPT);
        metrics::DISPATCH_SECONDS.record(started.elapsed());
        // Yields between transactions: otherwise a busy lane would only fill the outboxes of its receivers.
        tokio::task::yield_now().await;
    }
}

/// Hands the events of each channel to the relay.
fn relay_all(relay: &Relay, namespace: &Namespace, transaction: &[Told], payload: &mut Vec<u8>) {
    let mut told: Vec<&Told> = transaction.iter().collect();
    // Stable, so that the order within a channel stays.
    told.sort_by_key(|told| told.channel_id());
    for of_channel in told.chunk_by(|one, other| one.channel_id() == other.channel_id()) {
        if let Err(error) = relay.tell(namespace, of_channel, payload) {
            tracing::warn!(%error, "events of a channel were not sent to other nodes");
        }
    }
}

/// Broadcasts one event. A failure is only logged: a client that misses an event learns of it by `sync`.
fn broadcast(namespace: &Namespace, told: &Told, payload: &mut Vec<u8>) {
    payload.clear();
    let sent = told.write_json(payload).and_then(|()| emit(namespace, told, payload));
    if let Err(error) = sent {
        tracing::debug!(event = told.event(), %error, "event not sent");
    }
}

fn emit(namespace: &Namespace, told: &Told, payload: &[u8]) -> ImksResult<()> {
    let json = std::str::from_utf8(payload).map_err(|_| ImksError::Internal("JSON that is not UTF-8"))?;
    let mut room = Uuid::encode_buffer();
    let room = told.channel_id().hyphenated().encode_lower(&mut room);
    namespace.to(room).emit_args(told.event(), &RawArgs { json, attachments: &[] })
}

/// The most bytes of the payload buffer that are kept between transactions.
const PAYLOAD_KEPT: usize = 64 * 1024;
