//! The registration of pending acks for events with an ack id.

use tokio::sync::oneshot;

use super::ack_collector::PendingAck;
use super::pending_acks::{AckTarget, NotExpected};
use super::socket::Socket;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::packet::Args;

impl Socket {
    /// Registers a pending ack with this id.
    pub(crate) fn expect_ack(&self, id: u64) -> ImksResult<oneshot::Receiver<Args>> {
        let (sender, receiver) = oneshot::channel();
        self.expect(id, AckTarget::Single(sender))?;
        Ok(receiver)
    }

    /// Registers a pending ack of a broadcast. It is dropped at once if the socket is closed or owes too many
    /// acks.
    pub(crate) fn expect_ack_among_many(&self, id: u64, ack: PendingAck) -> ImksResult<()> {
        self.expect(id, AckTarget::Broadcast(ack))
    }

    fn expect(&self, id: u64, target: AckTarget) -> ImksResult<()> {
        let expected = self.pending_acks().expect(id, target, || self.phase().is_closed());
        expected.map_err(|refused| match refused {
            NotExpected::Closed => ImksError::SocketNotFound(self.id().into()),
            NotExpected::TooMany => ImksError::LimitReached("pending acks per socket"),
        })
    }
}
