//! The pending requests of a polling session, on the HTTP side. The protocol allows one GET and one POST at a
//! time. A second one ends the session, as does a client that disconnects during a request.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Inbox, Payload, Refusal, payload};
use crate::engine::{CloseReason, Protocol};

/// A GET that waits for its payload. Dropping it unanswered (the client disconnected) ends the session.
pub(crate) struct PendingGet {
    inbox: Arc<Inbox>,
    answer: oneshot::Receiver<Payload>,
    armed: bool,
}

/// A POST from its first byte to its response. Dropping it unanswered ends the session.
pub(crate) struct PendingPost {
    inbox: Arc<Inbox>,
    answer: oneshot::Receiver<()>,
    armed: bool,
}

impl PendingGet {
    /// Opens the only GET that a session may have.
    pub(crate) fn open(inbox: Arc<Inbox>) -> Result<Self, Refusal> {
        let (reply, answer) = oneshot::channel();
        inbox.open_get(reply)?;
        Ok(Self { inbox, answer, armed: true })
    }

    /// Waits for the payload.
    pub(crate) async fn payload(mut self) -> Result<Payload, Refusal> {
        let answer = (&mut self.answer).await;
        self.armed = false;
        answer.map_err(|_| self.inbox.refusal())
    }
}

impl Drop for PendingGet {
    fn drop(&mut self) {
        if self.armed {
            self.inbox.fail(CloseReason::TransportError);
        }
    }
}

impl PendingPost {
    /// Opens the only POST that a session may have, before its body is read.
    pub(crate) fn open(inbox: Arc<Inbox>) -> Result<Self, Refusal> {
        let (reply, answer) = oneshot::channel();
        inbox.open_post(reply)?;
        Ok(Self { inbox, answer, armed: true })
    }

    /// Waits until polling no longer carries the session.
    pub(crate) async fn gone(&mut self) -> Refusal {
        let _ = (&mut self.answer).await;
        self.inbox.refusal()
    }

    /// Returns the Engine.IO version of the session.
    pub(crate) fn protocol(&self) -> Protocol {
        self.inbox.protocol()
    }

    /// Discards the body and leaves the session as it is.
    pub(crate) fn ignore(mut self) {
        self.armed = false;
        self.inbox.cancel_post();
    }

    /// Ends the session, because the body is too large.
    pub(crate) fn refuse_size(mut self) {
        self.armed = false;
        self.inbox.fail(CloseReason::TooLarge);
    }

    /// Passes the body to the connection and waits until its packets are accepted.
    pub(crate) async fn submit(mut self, body: &[u8], binary: bool) -> Result<(), Refusal> {
        let (packets, malformed) = payload::decode(self.inbox.protocol(), body, binary);
        self.inbox.submit(packets, malformed)?;
        let answer = (&mut self.answer).await;
        self.armed = false;
        answer.map_err(|_| self.inbox.refusal())
    }
}

impl Drop for PendingPost {
    fn drop(&mut self) {
        if self.armed {
            self.inbox.fail(CloseReason::TransportError);
        }
    }
}
