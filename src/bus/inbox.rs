//! The two ends of a subscription: the inbox that a pipe fills, and the subscription that is read.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{BusState, metrics};

/// Creates both ends of a subscription. Messages that do not fit are dropped and counted in `state`, because
/// lost messages on a bus are recovered rather than waited for.
pub fn subscription(state: watch::Sender<BusState>) -> (Inbox, Subscription) {
    let (sender, messages) = mpsc::channel(INBOX_MAX);
    let (confirm, confirmed) = watch::channel(false);
    let space = Arc::new(Semaphore::new(INBOX_BYTES_MAX as usize));
    (Inbox { sender, space, confirm, state }, Subscription { messages, confirmed, ended: None })
}

/// The end of a subscription that the pipe fills.
#[derive(Debug, Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Unread>,
    /// The bytes that are left.
    space: Arc<Semaphore>,
    confirm: watch::Sender<bool>,
    state: watch::Sender<BusState>,
}

/// A message with the bytes that it takes up while it is unread.
type Unread = (Bytes, OwnedSemaphorePermit);

impl Inbox {
    /// Reports that the broker has confirmed the subscription: messages arrive from now on.
    pub fn confirm(&self) {
        self.confirm.send_if_modified(|confirmed| !std::mem::replace(confirmed, true));
    }

    /// Adds a message, or drops and counts it if the reader is too far behind.
    pub fn push(&self, message: Bytes) {
        if self.sender.is_closed() {
            return;
        }
        let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let taken = self.space.clone().try_acquire_many_owned(bytes).ok();
        if taken.is_none_or(|space| self.sender.try_send((message, space)).is_err()) {
            metrics::MESSAGES_DROPPED.of(metrics::Drop::InboxFull).increment();
            self.state.send_modify(|state| state.lost += 1);
        }
    }

    /// Whether the subscription has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// The end of a subscription that is read. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<Unread>,
    confirmed: watch::Receiver<bool>,
    /// Notified when the subscription has ended.
    ended: Option<Arc<Notify>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.messages.close();
        if let Some(ended) = &self.ended {
            ended.notify_one();
        }
    }
}

impl Subscription {
    /// Makes the end of the subscription known.
    #[cfg(any(test, feature = "server"))]
    pub(super) fn telling(mut self, ended: Arc<Notify>) -> Self {
        self.ended = Some(ended);
        self
    }

    /// Waits until the broker has confirmed the subscription. A baseline that is read afterwards misses
    /// nothing. Returns false if the pipe was closed first.
    pub async fn confirmed(&mut self) -> bool {
        self.confirmed.wait_for(|confirmed| *confirmed).await.is_ok()
    }

    /// Returns the next message, or `None` once the pipe is closed.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.messages.recv().await.map(|(message, _)| message)
    }
}

/// The maximum number of unread messages of one subscription. Further messages are dropped and counted.
pub const INBOX_MAX: usize = 4_096;

/// The maximum size of the unread messages of one subscription in bytes. Further messages are dropped and counted.
pub const INBOX_BYTES_MAX: u32 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let state = watch::Sender::new(BusState::default());
        let (inbox, mut subscription) = subscription(state.clone());
        inbox.confirm();
        assert!(subscription.confirmed().await);
        for _ in 0..INBOX_MAX + 3 {
            inbox.push(Bytes::from_static(b"x"));
        }
        assert_eq!(state.borrow().lost, 3);
        drop(subscription);
        inbox.push(Bytes::from_static(b"x"));
        assert_eq!((state.borrow().lost, inbox.is_closed()), (3, true), "nobody misses it");
    }

    #[tokio::test]
    async fn a_few_large_messages_fill_an_inbox_as_well() {
        let state = watch::Sender::new(BusState::default());
        let (inbox, mut subscription) = subscription(state.clone());
        let half = Bytes::from(vec![0; INBOX_BYTES_MAX as usize / 2]);
        for _ in 0..3 {
            inbox.push(half.clone());
        }
        assert_eq!(state.borrow().lost, 1);
        assert!(subscription.recv().await.is_some());
        inbox.push(half);
        assert_eq!(state.borrow().lost, 1, "what was read has left room");
    }

    #[tokio::test]
    async fn a_pipe_that_closes_confirms_nothing() {
        let (inbox, mut subscription) = subscription(watch::Sender::new(BusState::default()));
        drop(inbox);
        assert!(!subscription.confirmed().await);
        assert_eq!(subscription.recv().await, None);
    }
}
