//! The positions of the packets last sent to a client. With them, a client that gets few packets in a busy
//! namespace needs little of a long log.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// The position of a packet in the log of its namespace, counted from 1.
pub(crate) type Position = u64;

/// The positions of the last packets for one session.
#[derive(Debug)]
pub(super) struct SentPositions(Mutex<Positions>);

#[derive(Debug)]
struct Positions {
    /// The most recent positions, in ascending order.
    recent: VecDeque<Position>,
    /// The position after which `recent` is complete.
    known_after: Position,
}

/// The packet that followed a given one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The packet at this position.
    At(Position),
    /// No packet so far.
    Nothing,
    /// Unknown, because it is too long ago.
    Unknown,
}

impl SentPositions {
    pub(super) fn new(began: Position) -> Self {
        Self(Mutex::new(Positions { recent: VecDeque::new(), known_after: began }))
    }

    /// Records a packet. Has no effect if it was recorded before.
    pub(super) fn note(&self, position: Position) {
        let mut positions = self.0.lock();
        if positions.recent.back().is_some_and(|last| *last >= position) {
            return;
        }
        if positions.recent.len() >= RECENT_MAX
            && let Some(oldest) = positions.recent.pop_front()
        {
            positions.known_after = oldest;
        }
        positions.recent.push_back(position);
    }

    /// Creates the positions of a session about which nothing is known.
    pub(super) fn unknown() -> Self {
        Self::new(Position::MAX)
    }

    /// Notes that everything after a position will be recorded, if nothing was known before.
    pub(super) fn known_after(&self, position: Position) {
        let mut positions = self.0.lock();
        if positions.known_after == Position::MAX {
            positions.known_after = position;
        }
    }

    /// Returns the position of the last packet or, if there was none, the position after which there was none.
    pub(super) fn last(&self) -> Position {
        let positions = self.0.lock();
        positions.recent.back().copied().unwrap_or(positions.known_after)
    }

    /// Returns the first packet after a position.
    pub(super) fn next(&self, position: Position) -> Next {
        let positions = self.0.lock();
        if position < positions.known_after {
            return Next::Unknown;
        }
        let later = positions.recent.iter().find(|recent| **recent > position);
        later.map_or(Next::Nothing, |later| Next::At(*later))
    }
}

/// The number of recorded positions. A client that loses more packets, and got none long before that, gets a
/// new session.
const RECENT_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_next_is_known_for_the_last_packets_only() {
        let sent = SentPositions::new(5);
        assert_eq!((sent.next(5), sent.next(4)), (Next::Nothing, Next::Unknown));
        for n in 1..=33 {
            sent.note(n * 10);
            sent.note(n * 10);
        }
        assert_eq!((sent.next(9), sent.next(10)), (Next::Unknown, Next::At(20)));
        assert_eq!((sent.next(329), sent.next(330)), (Next::At(330), Next::Nothing));
    }
}
