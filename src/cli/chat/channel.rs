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
    /// The highest number of a message that has come since the server was asked.
    heard_seq: i64,
    /// The highest number of a change that has come since the server was asked.
    heard_rev: i64,
    /// Whether more is missing than was when the server was asked.
    is_stale: bool,
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
                while self.messages.len() > MESSAGES_MAX || self.bytes() > BYTES_MAX {
                    self.messages.remove(0);
                }
                true
            }
        }
    }

    /// Notes why a message that was on its way was refused for good.
    pub(super) fn fail(&mut self, nonce: &str, why: &str) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.nonce == nonce) {
            pending.failure = Some(why.to_owned());
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
        self.heard_seq = self.heard_seq.max(seq);
        if self.seq.checked_add(1) == Some(seq) {
            self.seq = seq;
            self.advance();
        } else if seq > self.seq {
            self.want();
        }
    }

    /// Notes that the change with this number has come. One that is missing before it is asked for.
    pub(super) fn note_rev(&mut self, rev: i64) {
        self.heard_rev = self.heard_rev.max(rev);
        if self.rev.checked_add(1) == Some(rev) {
            self.rev = rev;
        } else if rev > self.rev {
            self.want();
        }
    }

    /// Notes that something is missing, which an answer that is on its way need not have.
    pub(super) fn miss(&mut self) {
        self.is_stale = true;
        self.want();
    }

    /// Notes that the server is asked for what is missing. Its answer has everything that was heard of until now.
    pub(super) fn ask(&mut self) {
        (self.catching_up, self.is_stale) = (CatchingUp::Asked, false);
        (self.heard_seq, self.heard_rev) = (0, 0);
    }

    /// Sets how far all is known, after an answer of the server. Events that have overtaken it may be of newer changes
    /// than it has, which it has undone: they are asked for again.
    pub(super) fn caught_up(&mut self, seq: i64, rev: i64) {
        (self.seq, self.rev) = (self.seq.max(seq), rev);
        self.catching_up = CatchingUp::Done;
        self.advance();
        if self.is_stale || self.heard_seq > self.seq || self.heard_rev > self.rev {
            self.catching_up = CatchingUp::Wanted;
        }
    }

    /// Takes it that messages have come which may be as they were when changes were known up to `rev`.
    pub(super) fn recheck(&mut self, rev: i64) {
        if self.rev > rev {
            self.rev = rev;
            self.miss();
        }
    }

    /// Starts over with the numbers of an answer, which may be those of another history. Returns the messages from
    /// before.
    pub(super) fn restart(&mut self, seq: i64, rev: i64) -> Vec<Message> {
        (self.seq, self.rev) = (seq, rev);
        std::mem::take(&mut self.messages)
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

    fn want(&mut self) {
        if matches!(self.catching_up, CatchingUp::Done) {
            self.catching_up = CatchingUp::Wanted;
        }
    }

    fn advance(&mut self) {
        while let Some(next) = self.seq.checked_add(1).filter(|next| self.numbered(*next).is_some()) {
            self.seq = next;
        }
    }

    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.body.len()).sum()
    }
}

/// The most messages of a channel that are kept; the oldest give way.
const MESSAGES_MAX: usize = 2_000;
/// The most bytes of the texts of these messages.
const BYTES_MAX: usize = 8 << 20;

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
        for seq in 3_001..=3_012 {
            channel.insert(Message { body: "x".repeat(1 << 20), ..message(seq) });
        }
        let kept: Vec<i64> = channel.messages().iter().map(|message| message.seq).collect();
        assert_eq!(kept, (3_005..=3_012).collect::<Vec<_>>());
    }

    #[test]
    fn numbers_at_their_end_break_nothing() {
        let mut channel = Channel::new("c".into(), "c".into(), i64::MAX, i64::MAX);
        channel.insert(message(i64::MAX));
        channel.note_seq(i64::MAX);
        channel.note_rev(i64::MAX);
        channel.caught_up(i64::MAX, i64::MAX);
        assert_eq!((channel.seq, channel.catching_up), (i64::MAX, CatchingUp::Done));
    }
}
