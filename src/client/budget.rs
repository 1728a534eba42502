//! The room for what waits to be sent: bounded in events and bytes, whatever queue an event stands in.

use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What happens to an event for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The sender waits until there is room.
    #[default]
    Wait,
    /// The sender gets [`ClientError::Full`](crate::client::ClientError::Full).
    Fail,
    /// The new event is dropped, and the sender is told nothing. One that wants an answer fails as with `Fail`.
    DropNewest,
    /// The oldest event that waits for a connection is dropped. Where none does, the new one is.
    DropOldest,
}

/// The room that a client has. Cloning it shares the room.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Room>);

#[derive(Debug)]
struct Room {
    max: Used,
    used: Mutex<Used>,
    freed: Notify,
    /// Whoever waits for room waits in this queue, so that little events do not overtake a large one for ever.
    turn: tokio::sync::Mutex<()>,
}

/// How much waits to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Used {
    /// The number of events and answers.
    pub events: usize,
    /// The bytes of their arguments and attachments.
    pub bytes: usize,
}

/// The place of one event. Dropping it frees the room.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(events: usize, bytes: usize) -> Self {
        let max = Used { events, bytes };
        let turn = tokio::sync::Mutex::default();
        Self(Arc::new(Room { max, used: Mutex::default(), freed: Notify::new(), turn }))
    }

    /// Returns how much waits.
    pub(crate) fn used(&self) -> Used {
        *self.0.used.lock()
    }

    /// Returns a place, or `None` if there is no room.
    pub(crate) fn take(&self, bytes: usize) -> Option<Place> {
        let mut used = self.0.used.lock();
        let after = Used { events: used.events + 1, bytes: used.bytes + bytes };
        if after.events > self.0.max.events || after.bytes > self.0.max.bytes {
            return None;
        }
        *used = after;
        Some(Place { room: self.0.clone(), bytes })
    }

    /// Returns a place even if there is no room. The holder has to make room elsewhere.
    pub(crate) fn take_anyway(&self, bytes: usize) -> Place {
        let mut used = self.0.used.lock();
        *used = Used { events: used.events + 1, bytes: used.bytes + bytes };
        Place { room: self.0.clone(), bytes }
    }

    /// Waits for a place. Returns `None` if there can never be one, because the event is larger than all the room.
    pub(crate) async fn wait(&self, bytes: usize) -> Option<Place> {
        if bytes > self.0.max.bytes || self.0.max.events == 0 {
            return None;
        }
        let _turn = self.0.turn.lock().await;
        Some(self.until(|| self.take(bytes)).await)
    }

    /// Waits until no more waits than there is room for.
    pub(crate) async fn has_room(&self) {
        self.until(|| (!self.is_over()).then_some(())).await;
    }

    /// Waits until there is what `find` looks for, which it may find whenever room is freed.
    async fn until<T>(&self, find: impl Fn() -> Option<T>) -> T {
        loop {
            let mut freed = pin!(self.0.freed.notified());
            freed.as_mut().enable();
            if let Some(found) = find() {
                return found;
            }
            freed.await;
        }
    }

    /// Whether more waits than there is room for.
    pub(crate) fn is_over(&self) -> bool {
        let used = self.0.used.lock();
        used.events > self.0.max.events || used.bytes > self.0.max.bytes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = self.room.used.lock();
        used.events -= 1;
        used.bytes -= self.bytes;
        drop(used);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_event_is_gone() {
        let budget = Budget::new(2, 10);
        let (one, two) = (budget.take(4).unwrap(), budget.take(6).unwrap());
        assert!(budget.take(0).is_none(), "too many events");
        drop(one);
        assert!(budget.take(5).is_none(), "too many bytes");
        assert_eq!(budget.used(), Used { events: 1, bytes: 6 });
        let over = budget.take_anyway(5);
        assert!(budget.is_over());
        drop((two, over));
        assert_eq!(budget.used(), Used::default());
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_that_another_one_leaves() {
        let budget = Budget::new(1, 10);
        assert!(budget.wait(11).await.is_none(), "it would wait for ever");
        let one = budget.take(1).unwrap();
        let (place, ()) = tokio::join!(budget.wait(10), async { drop(one) });
        assert_eq!(place.unwrap().bytes, 10);
    }

    #[tokio::test]
    async fn a_large_event_is_not_overtaken_by_little_ones() {
        let budget = Budget::new(9, 10);
        let one = budget.take(1).unwrap();
        let mut large = pin!(budget.wait(10));
        let mut little = pin!(budget.wait(1));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(little.as_mut().now_or_never().is_none(), "there is room for it, but it is not its turn");
        drop(one);
        let place = large.await.unwrap();
        assert!(little.as_mut().now_or_never().is_none());
        drop(place);
        assert_eq!(little.await.unwrap().bytes, 1);
    }

    #[tokio::test]
    async fn who_took_more_than_the_room_learns_when_that_is_over() {
        let budget = Budget::new(9, 10);
        let (one, two) = (budget.take_anyway(9), budget.take_anyway(9));
        assert!(budget.has_room().now_or_never().is_none());
        tokio::join!(budget.has_room(), async { drop(one) });
        drop(two);
    }
}
