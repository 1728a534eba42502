//! Where the HTTP requests of a polling session meet its connection: a slot for each kind, with a lock of its own.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Payload;
use crate::ImksError;
use crate::engine::duplex::Duplex;
use crate::engine::outbox::Queue;
use crate::engine::{CloseReason, Packet, Protocol, Transport};

/// Answers a GET.
pub(crate) type GetReply = oneshot::Sender<Payload>;
/// Answers a POST whose packets were accepted.
pub(crate) type PostReply = oneshot::Sender<()>;

/// Requests on their way to the connection. Holds at most one of each kind.
pub(crate) struct Inbox {
    /// The session's outgoing queue: a request that arrives wakes the connection through it.
    queue: Arc<Queue>,
    /// Absent once polling carries the session no more.
    slots: Mutex<Option<Slots>>,
}

#[derive(Default)]
struct Slots {
    get: Option<GetReply>,
    /// A GET waits, here or with the connection.
    get_open: bool,
    /// Answers the POST whose body is being read; dropped with the session.
    post_reply: Option<PostReply>,
    post: Option<Post>,
    /// A POST is being read, waits here, or waits with the connection.
    post_open: bool,
    /// A wire that wants to take over.
    candidate: Option<Box<Duplex>>,
    /// There is a candidate, here or with the connection.
    candidate_open: bool,
    /// Requests overlapped, or one of them cannot be answered any more.
    failure: Option<CloseReason>,
}

/// Decoded body of a POST.
pub(crate) struct Post {
    pub(crate) packets: Vec<Packet>,
    /// What followed the packets was no packet.
    pub(crate) malformed: bool,
    pub(crate) reply: PostReply,
}

/// What has arrived since the connection last looked.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) get: Option<GetReply>,
    pub(crate) post: Option<Post>,
    pub(crate) candidate: Option<Box<Duplex>>,
    pub(crate) failure: Option<CloseReason>,
}

/// Why a request of a known session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session has ended meanwhile.
    Unknown,
    /// The session is carried by another wire, or about to be.
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

/// The HTTP requests' side.
impl Inbox {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, slots: Mutex::new(Some(Slots::default())) }
    }

    /// Returns the version that the client speaks.
    pub(crate) fn protocol(&self) -> Protocol {
        self.queue.protocol
    }

    /// Offers a wire to the session. It must still be polling and have no other candidate.
    pub(crate) fn offer(&self, wire: Box<Duplex>) -> Result<(), (Refusal, Box<Duplex>)> {
        let mut offered = Some(wire);
        let taken = self.change(|slots| {
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
        self.change(|slots| {
            if std::mem::replace(&mut slots.get_open, true) {
                slots.failure = Some(CloseReason::TransportError);
                return Err(Refusal::Overlap);
            }
            slots.get = Some(reply);
            Ok(())
        })
    }

    pub(super) fn open_post(&self, reply: PostReply) -> Result<(), Refusal> {
        self.change(|slots| {
            if std::mem::replace(&mut slots.post_open, true) {
                slots.failure = Some(CloseReason::TransportError);
                return Err(Refusal::Overlap);
            }
            slots.post_reply = Some(reply);
            Ok(())
        })
    }

    pub(super) fn submit(&self, packets: Vec<Packet>, malformed: bool) -> Result<(), Refusal> {
        self.change(|slots| {
            slots.post = slots.post_reply.take().map(|reply| Post { packets, malformed, reply });
            Ok(())
        })
    }

    /// Lets the next POST in; the one under way brings nothing.
    pub(super) fn cancel_post(&self) {
        // A session that carries on elsewhere, or has ended, is not concerned.
        let _ = self.change(|slots| {
            slots.post_open = false;
            slots.post_reply = None;
            Ok(())
        });
    }

    /// Ends the session, one of whose requests cannot be answered.
    pub(super) fn fail(&self, reason: CloseReason) {
        // A session that carries on elsewhere, or has ended, is not concerned.
        let _ = self.change(|slots| {
            slots.failure = Some(reason);
            Ok(())
        });
    }

    /// Says why there is no inbox any more.
    pub(super) fn refusal(&self) -> Refusal {
        match self.queue.transport() {
            Transport::Polling => Refusal::Unknown,
            Transport::WebSocket | Transport::WebTransport => Refusal::Upgraded,
        }
    }

    /// Changes the slots and wakes the connection.
    fn change(&self, change: impl FnOnce(&mut Slots) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let changed = match self.slots.lock().as_mut() {
            Some(slots) => change(slots),
            None => return Err(self.refusal()),
        };
        self.queue.wake();
        changed
    }
}

/// The connection's side.
impl Inbox {
    /// Takes what has arrived.
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

    /// Whether there is something to take.
    pub(crate) fn has_news(&self) -> bool {
        self.slots.lock().as_ref().is_some_and(|slots| {
            slots.get.is_some()
                || slots.post.is_some()
                || slots.candidate.is_some()
                || slots.failure.is_some()
        })
    }

    /// Whether a POST is under way.
    pub(crate) fn is_posting(&self) -> bool {
        self.slots.lock().as_ref().is_some_and(|slots| slots.post_open)
    }

    /// Lets the next GET in.
    pub(crate) fn free_get(&self) {
        if let Some(slots) = self.slots.lock().as_mut() {
            slots.get_open = false;
        }
    }

    /// Lets the next POST in.
    pub(crate) fn free_post(&self) {
        if let Some(slots) = self.slots.lock().as_mut() {
            slots.post_open = false;
        }
    }

    /// Lets the next candidate in.
    pub(crate) fn free_candidate(&self) {
        if let Some(slots) = self.slots.lock().as_mut() {
            slots.candidate_open = false;
        }
    }

    /// Refuses requests from now on, those included that wait here.
    pub(crate) fn close(&self) {
        let slots = self.slots.lock().take();
        drop(slots);
    }
}
