//! The model: what was done, in plain structures. Every number is counted anew from all of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::operation::{Expect, Mention};

/// The two who may change messages of others and pin them; the first one may mention everybody too.
pub const OWNER: usize = 0;
pub const MODERATOR: usize = 1;

/// Why something is refused: an error code.
pub type Refused = &'static str;

/// What a message says, as far as a repeated nonce must say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub body: String,
    pub thread: Option<usize>,
    pub also: bool,
    pub reply_to: Option<usize>,
    pub mention: Mention,
    pub poll: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Poll {
    /// By voter: one bit for each chosen answer.
    pub votes: BTreeMap<usize, usize>,
    pub closed: bool,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    pub author: usize,
    /// As it was sent.
    pub content: Content,
    pub body: String,
    pub mention: Mention,
    /// The users whom it mentions; everybody if `wide`.
    pub people: BTreeSet<usize>,
    pub wide: bool,
    pub version: i64,
    pub rev: i64,
    pub deleted: bool,
    pub pinned: bool,
    /// Emoji and user, in the order in which they came.
    pub reactions: Vec<(usize, usize)>,
    pub poll: Option<Poll>,
}

impl Message {
    /// Whether it stands in the channel, not only in a thread.
    pub fn counts(&self) -> bool {
        self.content.thread.is_none() || self.content.also
    }

    pub fn mentions(&self, user: usize) -> bool {
        self.author != user && (self.wide || self.people.contains(&user))
    }
}

/// How far a user has read a channel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Position {
    pub marked: i64,
    /// Own messages up to it do not move the position.
    pub floor: i64,
    pub joined: i64,
}

/// How a user stands to a thread.
#[derive(Debug, Clone, Copy)]
pub struct Follower {
    pub following: bool,
    pub decided: i64,
    pub read: i64,
    pub user_rev: i64,
}

/// A position with its counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub read_seq: i64,
    pub unread: i64,
    pub mentions: i64,
}

#[derive(Debug, Default)]
pub struct Channel {
    pub id: String,
    pub name: String,
    pub members: BTreeSet<usize>,
    pub messages: Vec<Message>,
    pub rev: i64,
    /// The version and the value of its key.
    pub key: (i64, String),
    pub nonces: BTreeMap<(usize, usize), usize>,
    pub positions: BTreeMap<usize, Position>,
    /// By the root of the thread and the user.
    pub followers: BTreeMap<(usize, usize), Follower>,
}

impl Channel {
    pub fn last_seq(&self) -> i64 {
        self.messages.len() as i64
    }

    /// The numbers and messages, oldest first.
    pub fn numbered(&self) -> impl DoubleEndedIterator<Item = (i64, &Message)> {
        (1..).zip(&self.messages).collect::<Vec<_>>().into_iter()
    }

    pub fn replies(&self, root: usize) -> impl DoubleEndedIterator<Item = (i64, &Message)> {
        self.numbered().filter(move |(_, message)| message.content.thread == Some(root))
    }

    pub fn pins(&self) -> usize {
        self.messages.iter().filter(|message| message.pinned && !message.deleted).count()
    }

    pub fn counts(&self, user: usize) -> Counts {
        let position = self.positions.get(&user).copied().unwrap_or_default();
        let own = self.numbered().filter(|(_, message)| message.author == user).map(|(seq, _)| seq).max();
        let own = own.filter(|own| *own > position.floor).unwrap_or(0);
        let read_seq = position.marked.max(own);
        let live = || self.numbered().filter(|(seq, message)| *seq > read_seq && !message.deleted);
        let unread = live().filter(|(_, message)| message.counts() && message.author != user).count();
        let mentions = live().filter(|(_, message)| message.mentions(user)).count();
        Counts { read_seq, unread: unread as i64, mentions: mentions as i64 }
    }

    pub fn thread_counts(&self, root: usize, user: usize) -> Counts {
        let read = self.followers[&(root, user)].read;
        let own = self.replies(root).filter(|(_, reply)| reply.author == user).map(|(seq, _)| seq).max();
        let read_seq = own.unwrap_or(0).max(read);
        let live = || self.replies(root).filter(|(seq, reply)| *seq > read_seq && !reply.deleted);
        let unread = live().filter(|(_, reply)| reply.author != user).count();
        let mentions = live().filter(|(_, reply)| reply.mentions(user)).count();
        Counts { read_seq, unread: unread as i64, mentions: mentions as i64 }
    }

    /// Whom a mention stands for now.
    pub fn people(&self, mention: Mention, author: usize) -> (BTreeSet<usize>, bool) {
        let people = match mention {
            Mention::Nobody | Mention::Channel => BTreeSet::new(),
            Mention::User(user) => BTreeSet::from([user]),
            Mention::Moderators => BTreeSet::from([MODERATOR]),
            Mention::Here => self.members.clone(),
        };
        (people.into_iter().filter(|user| *user != author).collect(), mention == Mention::Channel)
    }

    /// The next change of a message; its number.
    pub fn change(&mut self, message: usize, change: impl FnOnce(&mut Message)) -> i64 {
        self.rev += 1;
        change(&mut self.messages[message]);
        self.messages[message].rev = self.rev;
        self.rev
    }

    pub fn expectation(&self, expect: Expect) -> Result<(), Refused> {
        match expect {
            Expect::LastSeq { right: false } | Expect::Key { right: false } => Err("conflict"),
            _ => Ok(()),
        }
    }

    /// Whether a message can be the first one of a thread.
    pub fn is_root(&self, message: usize) -> bool {
        self.messages[message].content.thread.is_none()
    }

    /// Stores a message that was sent, and the change that a reply makes. Answers with the users whose numbers moved.
    pub fn append(&mut self, message: Message) -> BTreeSet<usize> {
        let (thread, author, mention) = (message.content.thread, message.author, message.mention);
        self.messages.push(message);
        let Some(root) = thread else { return BTreeSet::new() };
        self.change(root, |_| {});
        let seq = self.last_seq();
        let mut causes = BTreeMap::from([(self.messages[root].author, 0)]);
        if let Mention::User(user) = mention {
            causes.insert(user, seq);
        }
        causes.insert(author, seq);
        causes.retain(|user, cause| {
            let read = if *user == author { seq } else { seq - 1 };
            let new = Follower { following: true, decided: *cause, read, user_rev: 0 };
            let follower = self.followers.entry((root, *user));
            let mut is_changed = false;
            let follower = follower.or_insert_with(|| {
                is_changed = true;
                new
            });
            if !follower.following && follower.decided < *cause {
                (follower.following, follower.decided, is_changed) = (true, *cause, true);
            }
            is_changed
        });
        causes.into_keys().collect()
    }

    /// Deletes messages that are there; the replies among them change their threads once.
    pub fn delete(&mut self, messages: &[usize]) {
        let mut roots = BTreeSet::new();
        for message in messages {
            self.change(*message, |message| message.deleted = true);
            roots.extend(self.messages[*message].content.thread);
        }
        // The order of ids is the order of numbers.
        for root in roots {
            self.change(root, |_| {});
        }
    }

    pub fn mark(&mut self, user: usize, seq: i64) -> bool {
        let last = self.last_seq();
        let position = self.positions.entry(user).or_default();
        let moved = seq.min(last) > position.marked;
        position.marked = position.marked.max(seq.min(last));
        moved
    }

    pub fn mark_unread(&mut self, user: usize, from: i64) {
        let last = self.last_seq();
        let position = self.positions.entry(user).or_default();
        (position.marked, position.floor) = ((from.max(1) - 1).min(last), last);
    }

    /// A new member starts with everything read; who comes back starts where they came back.
    pub fn join(&mut self, user: usize) {
        self.members.insert(user);
        let last = self.last_seq();
        let new = Position { marked: last, floor: 0, joined: last };
        let position = self.positions.entry(user).or_insert(new);
        if last > position.joined && last > position.marked {
            (position.marked, position.joined) = (last, last);
        }
    }
}
