//! The live sessions by id, and their numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::engine::metrics;
use crate::engine::outbox::Shared;
use crate::engine::{CloseReason, Sid, Transport};

/// Table of live sessions.
pub(crate) struct Registry {
    sessions: DashMap<Sid, Arc<Shared>>,
    live: AtomicUsize,
    payload_max: usize,
}

impl Registry {
    pub(crate) fn new(payload_max: usize) -> Self {
        Self { sessions: DashMap::new(), live: AtomicUsize::new(0), payload_max }
    }

    /// Adds a session; false if the id is taken.
    pub(crate) fn insert(&self, sid: &Sid, shared: &Arc<Shared>) -> bool {
        let Entry::Vacant(entry) = self.sessions.entry(sid.clone()) else { return false };
        entry.insert(shared.clone());
        self.live.fetch_add(1, Ordering::Relaxed);
        metrics::SESSIONS_OPENED.of(shared.transport()).increment();
        metrics::SESSIONS.of(shared.transport()).add(1);
        true
    }

    pub(crate) fn get(&self, sid: &str) -> Option<Arc<Shared>> {
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

    /// A session has moved from polling to `transport`.
    pub(crate) fn switched(&self, transport: Transport) {
        metrics::SESSIONS.of(Transport::Polling).add(-1);
        metrics::SESSIONS.of(transport).add(1);
    }

    pub(crate) fn len(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn payload_max(&self) -> usize {
        self.payload_max
    }
}
