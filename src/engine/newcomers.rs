//! The admission of new sessions: how many there may be at a time that nobody has found good yet, and the share of their
//! places that is kept for clients that come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::Handshake;
use crate::engine::known_clients::KnownClients;

/// The new sessions of an engine, and the clients that it knows.
#[derive(Debug)]
pub(crate) struct Newcomers {
    /// The number of sessions that are new: their holder has not called [`crate::engine::Connection::settle`].
    new: AtomicUsize,
    new_max: AtomicUsize,
    known: Arc<KnownClients>,
}

/// The place of one session: among the new ones, until it is found good.
#[derive(Debug)]
pub(crate) struct Place {
    newcomers: Arc<Newcomers>,
    is_settled: bool,
}

impl Newcomers {
    /// Creates the admission of any number of new sessions.
    pub(crate) fn new() -> Self {
        let known = Arc::new(KnownClients::default());
        Self { new: AtomicUsize::new(0), new_max: AtomicUsize::new(usize::MAX), known }
    }

    /// Sets how many new sessions there may be.
    pub(crate) fn set_max(&self, max: usize) {
        self.new_max.store(max, Ordering::Relaxed);
    }

    /// Takes a place for a session. `None` if there is none left, or if those that are left are kept for clients that
    /// come back.
    pub(crate) fn enter(self: &Arc<Self>, comes_back: bool) -> Option<Place> {
        let max = self.new_max.load(Ordering::Relaxed);
        let max = if comes_back { max } else { for_anybody(max) };
        let one_more = |new| (new < max).then_some(new + 1);
        self.new.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place { newcomers: self.clone(), is_settled: false })
    }

    /// Returns the clients that are known.
    pub(crate) fn known(&self) -> &Arc<KnownClients> {
        &self.known
    }

    /// Whether the client of a new session comes back.
    pub(crate) fn knows(&self, handshake: &Handshake) -> bool {
        self.known.knows(handshake.peer.ip(), handshake.header(AUTHORIZATION))
    }
}

impl Place {
    /// Notes that the session was found good: it is not new any more, and its client is known.
    pub(crate) fn settle(&mut self, handshake: &Handshake) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.newcomers.new.fetch_sub(1, Ordering::Relaxed);
            self.newcomers.known.arrived(handshake.peer.ip(), handshake.header(AUTHORIZATION));
        }
    }

    /// Whether the session was found good.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Notes that the session has ended.
    pub(crate) fn end(self, handshake: &Handshake) {
        if self.is_settled {
            self.newcomers.known.left(handshake.peer.ip(), handshake.header(AUTHORIZATION));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_settled {
            self.newcomers.new.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Returns how many of `max` places anybody may have. The others are kept for clients that come back: a quarter of them.
pub(crate) fn for_anybody(max: usize) -> usize {
    max - max / KEPT_SHARE
}

/// One of how many places is kept for clients that come back.
const KEPT_SHARE: usize = 4;
const AUTHORIZATION: &str = "authorization";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_of_the_places_is_for_clients_that_come_back() {
        let newcomers = Arc::new(Newcomers::new());
        newcomers.set_max(8);
        let new: Vec<Place> = std::iter::from_fn(|| newcomers.enter(false)).collect();
        assert_eq!(new.len(), 6);
        let back: Vec<Place> = std::iter::from_fn(|| newcomers.enter(true)).collect();
        assert_eq!(back.len(), 2);
        drop(back);
        assert!(newcomers.enter(false).is_none() && newcomers.enter(true).is_some());
        drop(new);
        assert!(newcomers.enter(false).is_some());
    }

    #[test]
    fn a_bound_of_few_places_keeps_none() {
        assert_eq!([1, 2, 3, 4, 100].map(for_anybody), [1, 2, 3, 3, 75]);
    }
}
