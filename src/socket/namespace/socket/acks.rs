//! Acks that a client owes.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::{CLOSED, Socket};
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::packet::Args;
use crate::socket::namespace::ack_collector::PendingAck;

/// Who waits for an ack of this socket.
pub(super) enum AckTarget {
    Single(oneshot::Sender<Args>),
    /// One of many that were sent the same event.
    Broadcast(PendingAck),
}

impl Socket {
    /// Expects an ack with this id.
    pub(crate) fn expect_ack(&self, id: u64) -> ImksResult<oneshot::Receiver<Args>> {
        let (sender, receiver) = oneshot::channel();
        self.expect(id, AckTarget::Single(sender))?;
        Ok(receiver)
    }

    /// Expects one of many acks. A socket that is gone, or owes too many, drops it at once.
    pub(crate) fn expect_ack_among_many(&self, id: u64, ack: PendingAck) -> ImksResult<()> {
        self.expect(id, AckTarget::Broadcast(ack))
    }

    /// Takes an ack of the client; unknown ids answer nothing.
    pub(crate) fn resolve_ack(&self, id: u64, args: Args) {
        let target = self.0.acks.lock().remove(&id);
        match target {
            // The one who asked may have given up in the same moment.
            Some(AckTarget::Single(waiting)) => drop(waiting.send(args)),
            Some(AckTarget::Broadcast(ack)) => ack.resolve(args),
            None => {}
        }
    }

    /// Nobody waits for this ack any more.
    pub(crate) fn forget_ack(&self, id: u64) {
        let target = self.0.acks.lock().remove(&id);
        drop(target);
    }

    /// The number of acks that the client owes.
    pub(crate) fn pending_acks(&self) -> usize {
        self.0.acks.lock().len()
    }

    fn expect(&self, id: u64, target: AckTarget) -> ImksResult<()> {
        let mut acks = self.0.acks.lock();
        // Checked under the lock: whoever closes the socket empties the map under it afterwards.
        let closed = self.0.state.load(Ordering::Acquire) == CLOSED;
        if closed || acks.len() >= PENDING_ACKS_MAX {
            // Dropped without the lock: one of many speaks when it is dropped.
            drop(acks);
            drop(target);
            return Err(match closed {
                true => ImksError::SocketNotFound(self.id().into()),
                false => ImksError::LimitReached("pending acks per socket"),
            });
        }
        acks.insert(id, target);
        Ok(())
    }
}

/// Acks that one client may owe; whoever wants one more gets an error.
pub const PENDING_ACKS_MAX: usize = 1_024;
