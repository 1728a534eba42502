//! The acks that one client owes.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::ack_collector::PendingAck;
use crate::socket::codec::packet::Args;

/// Ack id → who waits for it.
#[derive(Default)]
pub(crate) struct PendingAcks(Mutex<HashMap<u64, AckTarget>>);

/// Who waits for an ack.
pub(crate) enum AckTarget {
    Single(oneshot::Sender<Args>),
    /// One of many sockets that were sent the same event.
    Broadcast(PendingAck),
}

/// Why no ack is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotExpected {
    /// The socket is closed.
    Closed,
    /// The client owes [`PENDING_ACKS_MAX`] acks already.
    TooMany,
}

impl PendingAcks {
    /// Expects an ack. `is_closed` is asked under the lock: whoever closes the socket clears the acks afterwards.
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
        // The target is dropped without the lock: one of many speaks when it is.
        Err(refused)
    }

    /// Takes an ack of the client; unknown ids answer nothing.
    pub(crate) fn resolve(&self, id: u64, args: Args) {
        let target = self.0.lock().remove(&id);
        match target {
            // The one who asked may have given up in the same moment.
            Some(AckTarget::Single(waiting)) => drop(waiting.send(args)),
            Some(AckTarget::Broadcast(ack)) => ack.resolve(args),
            None => {}
        }
    }

    /// Expects an ack no more.
    pub(crate) fn forget(&self, id: u64) {
        let target = self.0.lock().remove(&id);
        drop(target);
    }

    /// The number of acks that are expected.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Expects nothing any more.
    pub(crate) fn clear(&self) {
        let acks = std::mem::take(&mut *self.0.lock());
        drop(acks);
    }
}

/// Acks that one client may owe; whoever wants one more gets an error.
pub const PENDING_ACKS_MAX: usize = 1_024;
