//! The subscriptions of this node, by channel. They exist before, during and after any connection.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Inbox;

/// The inboxes of each channel.
#[derive(Default)]
pub(super) struct Routes(HashMap<Arc<str>, Vec<Inbox>>);

/// The difference between the channels that are wanted and those that the broker knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) added: Vec<Arc<str>>,
    pub(super) removed: Vec<Arc<str>>,
}

impl Routes {
    pub(super) fn add(&mut self, channel: &str, inbox: Inbox) {
        match self.0.get_mut(channel) {
            Some(inboxes) => inboxes.push(inbox),
            None => drop(self.0.insert(channel.into(), vec![inbox])),
        }
    }

    /// Passes a message to every inbox of the channel.
    pub(super) fn push(&self, channel: &str, message: &Bytes) {
        for inbox in self.0.get(channel).into_iter().flatten() {
            inbox.push(message.clone());
        }
    }

    /// Removes subscriptions that have ended. Updates `known` to the channels that are wanted now, and returns
    /// what has to be told to the broker.
    pub(super) fn changes(&mut self, known: &mut HashSet<Arc<str>>) -> Changes {
        self.0.retain(|_, inboxes| {
            inboxes.retain(|inbox| !inbox.is_closed());
            !inboxes.is_empty()
        });
        let removed: Vec<_> =
            known.iter().filter(|channel| !self.0.contains_key(*channel)).cloned().collect();
        let added: Vec<_> = self.0.keys().filter(|channel| !known.contains(*channel)).cloned().collect();
        known.retain(|channel| self.0.contains_key(channel));
        known.extend(added.iter().cloned());
        Changes { added, removed }
    }

    /// Reports to the inboxes of these channels that messages arrive from now on.
    pub(super) fn confirm(&self, known: &HashSet<Arc<str>>) {
        let inboxes = known.iter().filter_map(|channel| self.0.get(channel)).flatten();
        inboxes.for_each(Inbox::confirm);
    }

    /// Ends all subscriptions.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::super::{BusState, subscription};
    use super::*;

    #[test]
    fn the_broker_is_told_what_was_added_and_what_has_ended() {
        let state = watch::Sender::new(BusState::default());
        let (mut routes, mut known) = (Routes::default(), HashSet::new());
        let (one, first) = subscription(state.clone());
        let (two, second) = subscription(state);
        routes.add("a", one);
        routes.add("a", two);
        let added = Changes { added: vec!["a".into()], removed: vec![] };
        assert_eq!(routes.changes(&mut known), added);
        assert_eq!(routes.changes(&mut known), Changes::default());
        drop(first);
        assert_eq!(routes.changes(&mut known), Changes::default(), "one is left");
        drop(second);
        assert_eq!(routes.changes(&mut known), Changes { added: vec![], removed: vec!["a".into()] });
    }
}
