//! A channel as `imks chat` knows it: its messages without holes, what is on its way, and who is there.

use std::collections::BTreeMap;

use super::message::Message;

/// A channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) unread: i64,
    /// The number up to which all messages are known.
    pub(super) seq: i64,
    /// The number up to which all changes are known.
    pub(super) rev: i64,
    pub(super) catching_up: CatchingUp,
    pub(super) has_history: bool,
    pub(super) is_left: bool,
    /// Who types, until when in milliseconds, by user.
    pub(super) typing: BTreeMap<String, (String, u64)>,
    /// Who is online: the status by user.
    pub(super) online: BTreeMap<String, String>,
    /// What was sent and is not acknowledged.
    pub(super) pending: Vec<Pending>,
    messages: Vec<Message>,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) nonce: String,
    pub(super) body: String,
    /// Why it was refused for good.
    pub(super) failure: Option<String>,
}

/// Whether a channel must be synchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum CatchingUp {
    /// All is known.
    #[default]
    Done,
    /// There is a hole.
    Wanted,
    /// The server was asked.
    Asked,
    /// The server did not answer; it is asked again after a pause.
    Failed,
}

impl Channel {
    /// Creates a channel without messages, of which all is known up to these numbers.
    pub(super) fn new(id: String, name: String, seq: i64, rev: i64) -> Self {
        Self { id, name, seq, rev, ..Self::default() }
    }

    /// Returns the messages that are known, in their order.
    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Returns the message with this number.
    pub(super) fn numbered(&self, seq: i64) -> Option<&Message> {
        let at = self.messages.binary_search_by_key(&seq, |message| message.seq).ok()?;
        self.messages.get(at)
    }

    /// Returns the message with this id.
    pub(super) fn find(&mut self, id: &str) -> Option<&mut Message> {
        self.messages.iter_mut().rev().find(|message| message.id == id)
    }

    /// Adds a message at its place. Returns whether it is new. What was on its way with its nonce has arrived.
    pub(super) fn insert(&mut self, message: Message) -> bool {
        if let Some(nonce) = &message.nonce {
            self.pending.retain(|pending| pending.nonce != *nonce);
        }
        match self.messages.binary_search_by_key(&message.seq, |known| known.seq) {
            Ok(_) => false,
            Err(0) if self.messages.len() >= MESSAGES_MAX => false,
            Err(at) => {
                self.messages.insert(at, message);
                if self.messages.len() > MESSAGES_MAX {
                    self.messages.remove(0);
                }
                true
            }
        }
    }

    /// Replaces a message that is known.
    pub(super) fn replace(&mut self, message: Message) {
        if let Some(known) = self.find(&message.id) {
            *known = message;
        }
    }

    /// Notes that the message with this number has come. One that is missing before it is asked for.
    pub(super) fn note_seq(&mut self, seq: i64) {
        if seq == self.seq + 1 {
            self.seq = seq;
            self.advance();
        } else if seq > self.seq {
            self.miss();
        }
    }

    /// Notes that the change with this number has come. One that is missing before it is asked for.
    pub(super) fn note_rev(&mut self, rev: i64) {
        if rev == self.rev + 1 {
            self.rev = rev;
        } else if rev > self.rev {
            self.miss();
        }
    }

    /// Notes that something is missing.
    pub(super) fn miss(&mut self) {
        if matches!(self.catching_up, CatchingUp::Done) {
            self.catching_up = CatchingUp::Wanted;
        }
    }

    /// Sets how far all is known, after an answer of the server.
    pub(super) fn caught_up(&mut self, seq: i64, rev: i64) {
        (self.seq, self.rev) = (self.seq.max(seq), self.rev.max(rev));
        self.catching_up = CatchingUp::Done;
        self.advance();
    }

    /// Forgets all messages: they cannot be connected to newer ones.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
    }

    /// Removes messages up to this number.
    pub(super) fn drop_up_to(&mut self, seq: i64) {
        self.messages.retain(|message| message.seq > seq);
    }

    /// Returns who types at this time, and forgets the others.
    pub(super) fn typists(&mut self, now_ms: u64) -> Vec<String> {
        self.typing.retain(|_, (_, until)| *until > now_ms);
        self.typing.values().map(|(name, _)| name.clone()).collect()
    }

    fn advance(&mut self) {
        while self.numbered(self.seq + 1).is_some() {
            self.seq += 1;
        }
    }
}

/// The most messages of a channel that are kept; the oldest give way.
const MESSAGES_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: i64) -> Message {
        Message { id: format!("m{seq}"), seq, ..Message::default() }
    }

    #[test]
    fn messages_stand_in_their_order_and_each_once() {
        let mut channel = Channel::default();
        for seq in [3, 1, 2, 3, 1] {
            channel.insert(message(seq));
        }
        assert_eq!(channel.messages().iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_hole_is_noticed_once_and_closed_by_what_the_server_answers() {
        let mut channel = Channel { seq: 5, ..Channel::default() };
        channel.insert(message(8));
        channel.note_seq(8);
        assert_eq!((channel.seq, channel.catching_up), (5, CatchingUp::Wanted));
        channel.catching_up = CatchingUp::Asked;
        channel.insert(message(9));
        channel.note_seq(9);
        assert_eq!(channel.catching_up, CatchingUp::Asked);
        channel.caught_up(7, 0);
        assert_eq!((channel.seq, channel.catching_up), (9, CatchingUp::Done));
    }

    #[test]
    fn what_was_on_its_way_has_arrived_when_its_message_comes() {
        let mut channel = Channel::default();
        channel.pending.push(Pending { nonce: "n".into(), body: "hi".into(), failure: None });
        channel.insert(Message { nonce: Some("n".into()), ..message(1) });
        assert!(channel.pending.is_empty());
    }

    #[test]
    fn who_has_stopped_typing_is_forgotten() {
        let mut channel = Channel::default();
        channel.typing.insert("u".into(), ("bob".into(), 1_000));
        assert_eq!((channel.typists(999), channel.typists(1_000)), (vec!["bob".to_owned()], vec![]));
    }

    #[test]
    fn the_oldest_messages_give_way() {
        let mut channel = Channel::default();
        for seq in 1..=2_010 {
            channel.insert(message(seq));
        }
        assert_eq!((channel.messages().len(), channel.messages()[0].seq), (2_000, 11));
        assert!(!channel.insert(message(3)));
    }
}
