//! The acks that one client owes.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::ack_collector::PendingAck;
use crate::socket::codec::packet::Args;

/// The pending acks by id.
#[derive(Default)]
pub(crate) struct PendingAcks(Mutex<HashMap<u64, AckTarget>>);

/// The receiver of an ack.
pub(crate) enum AckTarget {
    Single(oneshot::Sender<Args>),
    /// A broadcast; this ack is one of many.
    Broadcast(PendingAck),
}

/// The reason why a pending ack was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotExpected {
    /// The socket is closed.
    Closed,
    /// The client owes [`PENDING_ACKS_MAX`] acks already.
    TooMany,
}

impl PendingAcks {
    /// Registers a pending ack. `is_closed` runs under the lock, because closing the socket clears the acks
    /// afterwards.
    pub(crate) fn expect(
        &self,
        id: u64,
        target: AckTarget,
        is_closed: impl FnOnce() -> bool,
    ) -> Result<(), NotExpected> {
        let refused = {
            let mut acks = self.0.lock();
            if is_closed() {
                NotExpected::Closed
            } else if acks.len() >= PENDING_ACKS_MAX {
                NotExpected::TooMany
            } else {
                acks.insert(id, target);
                return Ok(());
            }
        };
        // The target is dropped without the lock, because dropping a `PendingAck` calls its sink.
        Err(refused)
    }

    /// Resolves a pending ack. Unknown ids are ignored.
    pub(crate) fn resolve(&self, id: u64, args: Args) {
        let target = self.0.lock().remove(&id);
        match target {
            // The receiver may have given up in the meantime.
            Some(AckTarget::Single(waiting)) => drop(waiting.send(args)),
            Some(AckTarget::Broadcast(ack)) => ack.resolve(args),
            None => {}
        }
    }

    /// Removes a pending ack.
    pub(crate) fn forget(&self, id: u64) {
        let target = self.0.lock().remove(&id);
        drop(target);
    }

    /// Returns the number of pending acks.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Removes all pending acks.
    pub(crate) fn clear(&self) {
        let acks = std::mem::take(&mut *self.0.lock());
        drop(acks);
    }
}

/// The maximum number of pending acks per client. Requesting another ack is an error.
pub const PENDING_ACKS_MAX: usize = 1_024;
