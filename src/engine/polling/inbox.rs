//! The inbox of a polling session, where HTTP requests wait for the connection: one slot per kind of request.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Payload;
use crate::ImksError;
use crate::engine::duplex::Duplex;
use crate::engine::outbox::Queue;
use crate::engine::{CloseReason, Packet, Protocol, Transport};

/// The sender of a GET's payload.
pub(crate) type GetReply = oneshot::Sender<Payload>;
/// The sender that answers a POST whose packets were accepted.
pub(crate) type PostReply = oneshot::Sender<()>;

/// The requests that wait for the connection, at most one of each kind.
pub(crate) struct Inbox {
    /// The session's outgoing queue, through which an arriving request wakes the connection.
    queue: Arc<Queue>,
    /// The slots; `None` once polling no longer carries the session.
    slots: Mutex<Option<Slots>>,
}

#[derive(Default)]
struct Slots {
    get: Option<GetReply>,
    /// Whether a GET waits, here or in the connection.
    get_open: bool,
    /// The reply of the POST whose body is being read. It is dropped with the session.
    post_reply: Option<PostReply>,
    post: Option<Post>,
    /// Whether a POST is being read, waits here, or waits in the connection.
    post_open: bool,
    /// The wire that wants to take over.
    candidate: Option<Box<Duplex>>,
    /// Whether there is a candidate, here or in the connection.
    candidate_open: bool,
    /// The failure of the session: requests overlapped, or one of them can no longer be answered.
    failure: Option<CloseReason>,
}

/// The decoded body of a POST.
pub(crate) struct Post {
    pub(crate) packets: Vec<Packet>,
    /// Whether the packets were followed by something that is not a packet.
    pub(crate) malformed: bool,
    pub(crate) reply: PostReply,
}

/// The requests that have arrived since the connection last looked.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) get: Option<GetReply>,
    pub(crate) post: Option<Post>,
    pub(crate) candidate: Option<Box<Duplex>>,
    pub(crate) failure: Option<CloseReason>,
}

/// The reason why a request of a known session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session has ended in the meantime.
    Unknown,
    /// Another wire carries the session, or is about to.
    Upgraded,
    /// Another request of the same kind is open.
    Overlap,
}

impl From<Refusal> for ImksError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::UpgradeSessionClosed,
            Refusal::Upgraded | Refusal::Overlap => Self::UpgradeInvalidState,
        }
    }
}

/// The side of the HTTP requests.
impl Inbox {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, slots: Mutex::new(Some(Slots::default())) }
    }

    /// Returns the Engine.IO version of the client.
    pub(crate) fn protocol(&self) -> Protocol {
        self.queue.protocol
    }

    /// Offers a wire to the session, which must still be polling and have no other candidate.
    pub(crate) fn offer(&self, wire: Box<Duplex>) -> Result<(), (Refusal, Box<Duplex>)> {
        let mut offered = Some(wire);
        let taken = self.try_change(|slots| {
            if std::mem::replace(&mut slots.candidate_open, true) {
                return Err(Refusal::Upgraded);
            }
            slots.candidate = offered.take();
            Ok(())
        });
        match (taken, offered) {
            (Err(refusal), Some(wire)) => Err((refusal, wire)),
            _ => Ok(()),
        }
    }

    pub(super) fn open_get(&self, reply: GetReply) -> Result<(), Refusal> {
        self.try_change(|slots| {
            if std::mem::replace(&mut slots.get_open, true) {
                slots.failure = Some(CloseReason::TransportError);
                return Err(Refusal::Overlap);
            }
            slots.get = Some(reply);
            Ok(())
        })
    }

    pub(super) fn open_post(&self, reply: PostReply) -> Result<(), Refusal> {
        self.try_change(|slots| {
            if std::mem::replace(&mut slots.post_open, true) {
                slots.failure = Some(CloseReason::TransportError);
                return Err(Refusal::Overlap);
            }
            slots.post_reply = Some(reply);
            Ok(())
        })
    }

    pub(super) fn submit(&self, packets: Vec<Packet>, malformed: bool) -> Result<(), Refusal> {
        self.try_change(|slots| {
            slots.post = slots.post_reply.take().map(|reply| Post { packets, malformed, reply });
            Ok(())
        })
    }

    /// Discards the current POST without packets and allows the next one. Does nothing if the session has
    /// ended or is carried by another wire.
    pub(super) fn cancel_post(&self) {
        self.change(|slots| {
            slots.post_open = false;
            slots.post_reply = None;
        });
    }

    /// Ends the session, because one of its requests cannot be answered. Does nothing if the session has
    /// ended or is carried by another wire.
    pub(super) fn fail(&self, reason: CloseReason) {
        self.change(|slots| slots.failure = Some(reason));
    }

    /// Returns the reason why the inbox is closed.
    pub(super) fn refusal(&self) -> Refusal {
        match self.queue.transport() {
            Transport::Polling => Refusal::Unknown,
            Transport::WebSocket | Transport::WebTransport | Transport::Quic => Refusal::Upgraded,
        }
    }

    /// Changes the slots, or refuses a request that cannot be taken, and wakes the connection.
    fn try_change(&self, change: impl FnOnce(&mut Slots) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.change(change).unwrap_or_else(|| Err(self.refusal()))
    }

    /// Changes the slots, if the inbox is open, and wakes the connection.
    fn change<T>(&self, change: impl FnOnce(&mut Slots) -> T) -> Option<T> {
        let changed = self.slots.lock().as_mut().map(change)?;
        self.queue.wake();
        Some(changed)
    }
}

/// The side of the connection.
impl Inbox {
    /// Takes the requests that have arrived.
    pub(crate) fn take(&self) -> Inputs {
        let mut slots = self.slots.lock();
        let Some(slots) = slots.as_mut() else { return Inputs::default() };
        Inputs {
            get: slots.get.take(),
            post: slots.post.take(),
            candidate: slots.candidate.take(),
            failure: slots.failure.take(),
        }
    }

    /// Whether there are requests to take.
    pub(crate) fn has_news(&self) -> bool {
        self.slots.lock().as_ref().is_some_and(|slots| {
            slots.get.is_some()
                || slots.post.is_some()
                || slots.candidate.is_some()
                || slots.failure.is_some()
        })
    }

    /// Whether a POST is in progress.
    pub(crate) fn is_posting(&self) -> bool {
        self.slots.lock().as_ref().is_some_and(|slots| slots.post_open)
    }

    /// Allows the next GET.
    pub(crate) fn free_get(&self) {
        if let Some(slots) = self.slots.lock().as_mut() {
            slots.get_open = false;
        }
    }

    /// Allows the next POST.
    pub(crate) fn free_post(&self) {
        if let Some(slots) = self.slots.lock().as_mut() {
            slots.post_open = false;
        }
    }

    /// Allows the next candidate.
    pub(crate) fn free_candidate(&self) {
        if let Some(slots) = self.slots.lock().as_mut() {
            slots.candidate_open = false;
        }
    }

    /// Refuses requests from now on, including those that wait here.
    pub(crate) fn close(&self) {
        let slots = self.slots.lock().take();
        drop(slots);
    }
}
