//! The connects that are held because they cannot succeed at the moment: a bound on their number and their memory.

use std::sync::Arc;

use parking_lot::Mutex;

use super::metrics;

/// The held connects. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<Mutex<Totals>>);

#[derive(Debug, Default)]
struct Totals {
    connects: usize,
    bytes: usize,
}

/// The place of one held connect, which it leaves when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    held: Held,
    bytes: usize,
}

impl Held {
    /// Takes a place for a connect with `bytes` of payload. `None` if there is none left, or if what is left is kept for
    /// clients that come back: its transport must end now, so that the client asks again later.
    pub(super) fn enter(&self, bytes: usize, comes_back: bool) -> Option<Place> {
        let mut totals = self.0.lock();
        let bytes = bytes + CONNECT_BYTES;
        let kept = |max: usize| if comes_back { 0 } else { max / KEPT_SHARE };
        if totals.connects >= HELD_CONNECTS_MAX - kept(HELD_CONNECTS_MAX)
            || totals.bytes + bytes > HELD_BYTES_MAX - kept(HELD_BYTES_MAX)
        {
            metrics::CONNECTS_NOT_HELD.increment();
            return None;
        }
        totals.connects += 1;
        totals.bytes += bytes;
        metrics::CONNECTS_HELD.add(1);
        Some(Place { held: self.clone(), bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut totals = self.held.0.lock();
        totals.connects -= 1;
        totals.bytes -= self.bytes;
        metrics::CONNECTS_HELD.add(-1);
    }
}

/// The number of connects that are held at once; the transport of a further one ends at once.
const HELD_CONNECTS_MAX: usize = 1 << 16;
/// The memory of the connects that are held at once, in bytes; the transport of a further one ends at once.
const HELD_BYTES_MAX: usize = 64 << 20;
/// One of how many places, and of how many bytes, is kept for clients that come back.
const KEPT_SHARE: usize = 4;
/// What a held connect takes besides its payload, in bytes.
const CONNECT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_connects_and_bytes_are_held_and_one_that_ends_makes_room() {
        let held = Held::default();
        let large = HELD_BYTES_MAX / 2 - CONNECT_BYTES;
        let (first, second) = (held.enter(large, true).unwrap(), held.enter(large, true).unwrap());
        assert!(held.enter(0, true).is_none(), "in bytes");
        drop(first);
        assert!(held.enter(0, true).is_some());
        drop(second);
        let places: Vec<Place> = (0..HELD_CONNECTS_MAX).map(|_| held.enter(0, true).unwrap()).collect();
        assert!(held.enter(0, true).is_none(), "in number");
        drop(places);
        let totals = held.0.lock();
        assert_eq!((totals.connects, totals.bytes), (0, 0));
    }

    #[test]
    fn newcomers_leave_a_quarter_to_clients_that_come_back() {
        let held = Held::default();
        let newcomers: Vec<Place> = std::iter::from_fn(|| held.enter(0, false)).collect();
        assert_eq!(newcomers.len(), HELD_CONNECTS_MAX / 4 * 3);
        assert!(held.enter(0, true).is_some());
        drop(newcomers);
        let large = HELD_BYTES_MAX / 4 * 3 - CONNECT_BYTES;
        let _newcomer = held.enter(large, false).unwrap();
        assert!(held.enter(0, false).is_none() && held.enter(0, true).is_some());
    }
}
