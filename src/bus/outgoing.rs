//! The queue of messages to the broker: bounded in messages and bytes. What does not fit is dropped and counted.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant, sleep_until};

use super::broker::{Outgoing, lost};
use super::{BusState, metrics};

/// The queue between those who publish, who never wait, and the connection, which sends batches.
pub(super) struct OutgoingQueue {
    queue: Mutex<Queue>,
    filled: Notify,
    state: watch::Sender<BusState>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Outgoing>,
    bytes: usize,
}

impl OutgoingQueue {
    pub(super) fn new(state: watch::Sender<BusState>) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), state }
    }

    /// Adds a message, or drops and counts it if the queue is full.
    pub(super) fn push(&self, outgoing: Outgoing) {
        let mut queue = self.queue.lock();
        let bytes = queue.bytes + outgoing.message.len();
        if queue.messages.len() >= OUTGOING_MAX || bytes > OUTGOING_BYTES_MAX {
            drop(queue);
            return lost(&self.state, metrics::Drop::OutgoingFull, 1);
        }
        queue.bytes = bytes;
        queue.messages.push_back(outgoing);
        drop(queue);
        self.filled.notify_one();
    }

    /// Returns the next messages; empty if there are none.
    pub(super) fn take(&self) -> Vec<Outgoing> {
        let mut queue = self.queue.lock();
        let (mut count, mut bytes) = (0, 0);
        for outgoing in queue.messages.iter().take(BATCH) {
            bytes += outgoing.message.len();
            count += 1;
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        queue.bytes -= bytes;
        queue.messages.drain(..count).collect()
    }

    /// Waits for the next messages: a moment longer on a busy node, so that more of them are sent together.
    pub(super) async fn next(&self, pace: &mut Pace) -> Vec<Outgoing> {
        loop {
            while self.len() == 0 {
                self.filled.notified().await;
            }
            if let Some(due) = pace.due(Instant::now()).filter(|_| self.len() < BATCH) {
                sleep_until(due).await;
            }
            let batch = self.take();
            if !batch.is_empty() {
                pace.sends(batch.len(), Instant::now());
                return batch;
            }
        }
    }

    fn len(&self) -> usize {
        self.queue.lock().messages.len()
    }
}

/// When messages are sent. What goes out alone wakes a thread here, one in the broker and one at each node, which costs more than
/// the message; so those of a busy node wait for each other.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the last ones were sent.
    last: Option<Instant>,
    is_busy: bool,
}

impl Pace {
    /// Returns when the next messages are due. `None`: now; a timer would take until the next millisecond.
    fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.last.filter(|_| self.is_busy)? + PAUSE;
        (due > now).then_some(due)
    }

    /// Notes that so many messages are sent.
    fn sends(&mut self, count: usize, now: Instant) {
        let soon = self.last.is_some_and(|last| now.duration_since(last) < BUSY_WITHIN);
        self.is_busy = soon || count >= BUSY_COUNT;
        self.last = Some(now);
    }
}

/// A node is busy when it sends again within this time: about 5,000 times per second.
const BUSY_WITHIN: Duration = Duration::from_micros(200);

/// A node is also busy when it sends so many messages at once.
const BUSY_COUNT: usize = 4;

/// The time from one batch of a busy node to the next.
const PAUSE: Duration = Duration::from_millis(1);

/// The maximum number of messages that wait for the broker. More are dropped and counted.
pub(crate) const OUTGOING_MAX: usize = 16_384;

/// The maximum number of bytes that wait for the broker. More are dropped and counted.
pub(crate) const OUTGOING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most messages that are sent together.
const BATCH: usize = 256;

/// The bytes from which on no further message is added to a batch.
const BATCH_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn message(bytes: usize) -> Outgoing {
        Outgoing { channel: Arc::from("c"), message: Bytes::from(vec![0; bytes]) }
    }

    #[tokio::test]
    async fn messages_wait_within_a_bound_and_the_others_are_counted() {
        let state = watch::Sender::new(BusState::default());
        let queue = OutgoingQueue::new(state.clone());
        (0..OUTGOING_MAX + 2).for_each(|_| queue.push(message(1)));
        assert_eq!(state.borrow().lost, 2);
        let mut taken = 0;
        while taken < OUTGOING_MAX {
            let batch = queue.next(&mut Pace::default()).await.len();
            assert_eq!(batch, BATCH);
            taken += batch;
        }
        assert!(queue.take().is_empty());
        queue.push(message(OUTGOING_BYTES_MAX));
        queue.push(message(1));
        assert_eq!(state.borrow().lost, 3);
        assert_eq!(queue.take().len(), 1);
        queue.push(message(1));
        assert_eq!((queue.take().len(), state.borrow().lost), (1, 3), "the bytes were given back");
    }

    #[test]
    fn only_messages_of_a_busy_node_wait_for_each_other() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |micros: u64| start + Duration::from_micros(micros);
        assert_eq!(pace.due(at(0)), None);
        pace.sends(1, at(0));
        assert_eq!(pace.due(at(300)), None, "one after another");
        pace.sends(1, at(100));
        assert_eq!(pace.due(at(150)), Some(at(1_100)), "two within a moment");
        assert_eq!(pace.due(at(5_000)), None);
        pace.sends(BUSY_COUNT, at(1_100));
        assert_eq!(pace.due(at(1_200)), Some(at(2_100)), "still many");
        pace.sends(1, at(2_100));
        assert_eq!(pace.due(at(2_150)), None, "no more than one in a pause");
    }
}
