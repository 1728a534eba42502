//! The queue of messages to the broker: bounded in messages and bytes. What does not fit is dropped and counted.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

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

    /// Waits for the next messages.
    pub(super) async fn next(&self) -> Vec<Outgoing> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }
}

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
            let batch = queue.next().await.len();
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
}
