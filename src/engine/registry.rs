//! The live sessions by id, and the gauges that count them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::engine::duplex::Duplex;
use crate::engine::outbox::Queue;
use crate::engine::polling::{Inbox, Refusal};
use crate::engine::{CloseReason, Protocol, Sid, Transport, metrics};

/// The table of live sessions.
pub(crate) struct Registry {
    sessions: DashMap<Sid, LiveSession>,
    live: AtomicUsize,
}

/// The parts of a live session that requests can reach.
#[derive(Clone)]
pub(crate) struct LiveSession {
    queue: Arc<Queue>,
    /// The inbox of its requests; `None` once polling no longer carries the session.
    inbox: Option<Arc<Inbox>>,
}

impl LiveSession {
    pub(crate) fn new(queue: Arc<Queue>, inbox: Option<Arc<Inbox>>) -> Self {
        Self { queue, inbox }
    }

    /// Returns the inbox of its requests, if polling carries the session.
    pub(crate) fn inbox(&self) -> Option<&Arc<Inbox>> {
        self.inbox.as_ref()
    }

    /// Offers a wire to the session, which must still be polling and have no other candidate.
    pub(crate) fn offer(&self, wire: Box<Duplex>) -> Result<(), (Refusal, Box<Duplex>)> {
        match &self.inbox {
            Some(inbox) => inbox.offer(wire),
            None => Err((Refusal::Upgraded, wire)),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.queue.protocol
    }

    pub(crate) fn transport(&self) -> Transport {
        self.queue.transport()
    }
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { sessions: DashMap::new(), live: AtomicUsize::new(0) }
    }

    /// Adds a session. Returns false if the id is already in use.
    pub(crate) fn insert(&self, sid: &Sid, session: LiveSession) -> bool {
        let Entry::Vacant(entry) = self.sessions.entry(sid.clone()) else { return false };
        let transport = session.transport();
        entry.insert(session);
        self.live.fetch_add(1, Ordering::Relaxed);
        metrics::SESSIONS_OPENED.of(transport).increment();
        metrics::SESSIONS.of(transport).add(1);
        true
    }

    pub(crate) fn get(&self, sid: &str) -> Option<LiveSession> {
        self.sessions.get(sid).map(|entry| entry.value().clone())
    }

    /// Removes a session that has ended on `transport`.
    pub(crate) fn remove(&self, sid: &Sid, transport: Transport, reason: CloseReason) {
        if self.sessions.remove(sid).is_some() {
            self.live.fetch_sub(1, Ordering::Relaxed);
            metrics::SESSIONS.of(transport).add(-1);
            metrics::SESSIONS_CLOSED.of(reason).increment();
        }
    }

    /// Moves a session from polling to `transport`.
    pub(crate) fn switched(&self, sid: &Sid, transport: Transport) {
        let inbox = self.sessions.get_mut(sid).and_then(|mut session| session.inbox.take());
        drop(inbox);
        metrics::SESSIONS.of(Transport::Polling).add(-1);
        metrics::SESSIONS.of(transport).add(1);
    }

    pub(crate) fn len(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}
