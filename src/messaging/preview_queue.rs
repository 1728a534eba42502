//! The queue of messages that wait for link previews.

use std::collections::VecDeque;

use http::Uri;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::models::message::AuthorInfo;

/// The messages whose links are still to be looked at.
#[derive(Debug, Default)]
pub(super) struct Previews {
    waiting: Mutex<VecDeque<Wanted>>,
    added: Notify,
}

/// A message with links.
#[derive(Debug)]
pub(super) struct Wanted {
    pub channel_id: Uuid,
    pub message_id: Uuid,
    /// The version of its text.
    pub version: i64,
    pub author: AuthorInfo,
    pub links: Vec<Uri>,
}

impl Previews {
    /// Adds a message. Beyond [`WAITING_MAX`], messages get no previews.
    pub(super) fn add(&self, wanted: Wanted) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push_back(wanted);
            drop(waiting);
            self.added.notify_one();
        }
    }

    /// Returns the next message, once there is one.
    pub(super) async fn next(&self) -> Wanted {
        loop {
            let next = self.waiting.lock().pop_front();
            match next {
                Some(wanted) => return wanted,
                None => self.added.notified().await,
            }
        }
    }
}

/// The most messages whose links wait to be looked at; with the length of addresses, at most 2 MiB.
const WAITING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bounded_number_of_messages_waits_and_the_first_is_next() {
        let previews = Previews::default();
        for number in 0..300 {
            let author = AuthorInfo { id: Uuid::nil(), username: "alice".into() };
            let (channel_id, message_id) = (Uuid::nil(), Uuid::from_u128(number));
            previews.add(Wanted { channel_id, message_id, version: 1, author, links: Vec::new() });
        }
        assert_eq!(previews.next().await.message_id, Uuid::from_u128(0));
        assert_eq!(previews.waiting.lock().len(), WAITING_MAX - 1);
    }
}
