//! From a commit to the sockets of a channel: one task per lane, in commit order, each event encoded once.

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::metrics;
use super::push::Push;
use crate::clock;
use crate::models::append::{Commits, Committed, Deletion};
use crate::models::message::MessageDetail;
use crate::socket::Namespace;

/// A new message, to its channel.
const NEW: Push<MessageDetail> = Push::new("message:new");
/// A message changed; the payload is all of it, so that who missed the original can insert it.
const UPDATED: Push<Updated<'_>> = Push::new("message:updated");
/// A message is gone.
const DELETED: Push<Gone<'_>> = Push::new("message:deleted");

/// Tells a lane's commits to their channels until the appender is drained.
pub async fn run(mut commits: Commits, namespace: Namespace) {
    while let Some(transaction) = commits.recv().await {
        let started = Instant::now();
        for committed in &transaction {
            broadcast(&namespace, committed);
        }
        metrics::DISPATCH_SECONDS.record(started.elapsed());
        // Receivers get a turn between two transactions, or a busy lane would only fill their queues.
        tokio::task::yield_now().await;
    }
}

fn broadcast(namespace: &Namespace, committed: &Committed) {
    let channel = committed.channel_id();
    match committed {
        Committed::Sent(message) => NEW.to_channel(namespace, channel, message),
        Committed::Edited(message) => {
            let (rev, event_id) = (message.rev, clock::new_id());
            UPDATED.to_channel(namespace, channel, &Updated { message, rev, kind: "edit", event_id });
        }
        Committed::Deleted(deletion) => {
            DELETED.to_channel(namespace, channel, &Gone { deletion, event_id: clock::new_id() });
        }
    }
}

/// Payload of `message:updated`.
#[derive(Debug, Serialize)]
struct Updated<'a> {
    #[serde(flatten)]
    message: &'a MessageDetail,
    rev: i64,
    kind: &'static str,
    event_id: Uuid,
}

/// Payload of `message:deleted`.
#[derive(Debug, Serialize)]
struct Gone<'a> {
    #[serde(flatten)]
    deletion: &'a Deletion,
    event_id: Uuid,
}
