//! What users do, at random. Numbers are taken modulo what there is when the operation is carried out.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Whom a message mentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mention {
    Nobody,
    User(usize),
    Moderators,
    Channel,
    Here,
}

/// What must be so for a message to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Nothing,
    LastSeq { right: bool },
    Key { right: bool },
}

#[derive(Debug, Clone)]
pub struct Send {
    pub user: usize,
    pub channel: usize,
    pub body: usize,
    pub thread: Option<usize>,
    pub also: bool,
    pub reply_to: Option<usize>,
    pub mention: Mention,
    pub nonce: Option<usize>,
    pub clear_draft: bool,
    pub poll: bool,
    pub expect: Expect,
}

/// One step of a conversation. `message` counts the messages of the channel.
#[derive(Debug, Clone)]
pub enum Operation {
    Send(Send),
    /// Sends of several users at once: who, and with which nonce.
    Burst {
        channel: usize,
        sends: Vec<(usize, Option<usize>)>,
    },
    /// Reactions of several users to one message at once.
    Crowd {
        channel: usize,
        message: usize,
        users: Vec<usize>,
        emoji: usize,
    },
    Edit {
        user: usize,
        channel: usize,
        message: usize,
        body: usize,
        mention: Option<Mention>,
        version: Option<bool>,
    },
    Delete {
        user: usize,
        channel: usize,
        message: usize,
    },
    DeleteBulk {
        channel: usize,
        messages: Vec<usize>,
    },
    React {
        user: usize,
        channel: usize,
        message: usize,
        emoji: usize,
        add: bool,
    },
    Pin {
        user: usize,
        channel: usize,
        message: usize,
        add: bool,
    },
    Vote {
        user: usize,
        channel: usize,
        message: usize,
        choices: usize,
    },
    ClosePoll {
        user: usize,
        channel: usize,
        message: usize,
    },
    Mark {
        user: usize,
        channel: usize,
        seq: usize,
    },
    MarkThread {
        user: usize,
        channel: usize,
        message: usize,
        seq: usize,
    },
    MarkUnread {
        user: usize,
        channel: usize,
        seq: usize,
    },
    MarkAll {
        user: usize,
    },
    Follow {
        user: usize,
        channel: usize,
        message: usize,
        following: bool,
    },
    Join {
        user: usize,
        channel: usize,
    },
    Leave {
        user: usize,
        channel: usize,
    },
    Bookmark {
        user: usize,
        channel: usize,
        message: usize,
        note: Option<usize>,
    },
    Unbookmark {
        user: usize,
        channel: usize,
        message: usize,
    },
    Draft {
        user: usize,
        channel: usize,
        thread: Option<usize>,
        body: usize,
    },
    Schedule {
        user: usize,
        channel: usize,
        clear_draft: bool,
    },
    Reschedule {
        user: usize,
        which: usize,
        body: usize,
    },
    Cancel {
        user: usize,
        which: usize,
    },
    Disconnect {
        user: usize,
        device: usize,
    },
    Connect {
        user: usize,
        device: usize,
    },
}

const ANY: std::ops::Range<usize> = 0..64;

fn mention() -> impl Strategy<Value = Mention> {
    prop_oneof![
        6 => Just(Mention::Nobody),
        3 => ANY.prop_map(Mention::User),
        1 => Just(Mention::Moderators),
        1 => Just(Mention::Channel),
        1 => Just(Mention::Here),
    ]
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        8 => Just(Expect::Nothing),
        1 => any::<bool>().prop_map(|right| Expect::LastSeq { right }),
        1 => any::<bool>().prop_map(|right| Expect::Key { right }),
    ]
}

fn send() -> impl Strategy<Value = Operation> {
    let place = (ANY, ANY, ANY, option::weighted(0.4, ANY), any::<bool>());
    let rest = (
        option::weighted(0.2, ANY),
        mention(),
        option::weighted(0.4, 0..3_usize),
        any::<bool>(),
        proptest::bool::weighted(0.2),
    );
    (place, rest, expect()).prop_map(
        |((user, channel, body, thread, also), (reply_to, mention, nonce, clear_draft, poll), expect)| {
            Operation::Send(Send {
                user,
                channel,
                body,
                thread,
                also,
                reply_to,
                mention,
                nonce,
                clear_draft,
                poll,
                expect,
            })
        },
    )
}

fn about_messages() -> impl Strategy<Value = Operation> {
    let one = (ANY, ANY, ANY);
    prop_oneof![
        4 => (one.clone(), 0..4_usize, option::weighted(0.4, mention()), option::weighted(0.3, any::<bool>())).prop_map(
            |((user, channel, message), body, mention, version)| Operation::Edit { user, channel, message, body, mention, version }),
        3 => one.clone().prop_map(|(user, channel, message)| Operation::Delete { user, channel, message }),
        1 => (ANY, vec(ANY, 1..5)).prop_map(|(channel, messages)| Operation::DeleteBulk { channel, messages }),
        5 => (one.clone(), 0..3_usize, proptest::bool::weighted(0.7)).prop_map(
            |((user, channel, message), emoji, add)| Operation::React { user, channel, message, emoji, add }),
        2 => (one.clone(), proptest::bool::weighted(0.7)).prop_map(
            |((user, channel, message), add)| Operation::Pin { user, channel, message, add }),
        4 => (one.clone(), 0..8_usize).prop_map(
            |((user, channel, message), choices)| Operation::Vote { user, channel, message, choices }),
        1 => one.clone().prop_map(|(user, channel, message)| Operation::ClosePoll { user, channel, message }),
        2 => (ANY, vec((ANY, option::weighted(0.5, 0..2_usize)), 2..7)).prop_map(
            |(channel, sends)| Operation::Burst { channel, sends }),
        1 => (ANY, ANY, vec(ANY, 2..5), 0..3_usize).prop_map(
            |(channel, message, users, emoji)| Operation::Crowd { channel, message, users, emoji }),
    ]
}

fn about_oneself() -> impl Strategy<Value = Operation> {
    let (place, one) = ((ANY, ANY), (ANY, ANY, ANY));
    prop_oneof![
        4 => one.clone().prop_map(|(user, channel, seq)| Operation::Mark { user, channel, seq }),
        2 => (one.clone(), ANY).prop_map(
            |((user, channel, message), seq)| Operation::MarkThread { user, channel, message, seq }),
        3 => one.clone().prop_map(|(user, channel, seq)| Operation::MarkUnread { user, channel, seq }),
        1 => ANY.prop_map(|user| Operation::MarkAll { user }),
        2 => (one.clone(), any::<bool>()).prop_map(
            |((user, channel, message), following)| Operation::Follow { user, channel, message, following }),
        2 => (one.clone(), option::of(0..2_usize)).prop_map(
            |((user, channel, message), note)| Operation::Bookmark { user, channel, message, note }),
        1 => one.clone().prop_map(|(user, channel, message)| Operation::Unbookmark { user, channel, message }),
        3 => (place.clone(), option::of(ANY), 0..4_usize).prop_map(
            |((user, channel), thread, body)| Operation::Draft { user, channel, thread, body }),
        1 => (place.clone(), any::<bool>()).prop_map(
            |((user, channel), clear_draft)| Operation::Schedule { user, channel, clear_draft }),
        1 => (ANY, ANY, 0..3_usize).prop_map(|(user, which, body)| Operation::Reschedule { user, which, body }),
        1 => (ANY, ANY).prop_map(|(user, which)| Operation::Cancel { user, which }),
        1 => place.clone().prop_map(|(user, channel)| Operation::Join { user, channel }),
        1 => place.clone().prop_map(|(user, channel)| Operation::Leave { user, channel }),
        3 => place.clone().prop_map(|(user, device)| Operation::Disconnect { user, device }),
        2 => place.prop_map(|(user, device)| Operation::Connect { user, device }),
    ]
}

/// A conversation with up to so many steps.
pub fn conversation(steps: usize) -> impl Strategy<Value = Vec<Operation>> {
    vec(prop_oneof![3 => send(), 3 => about_messages(), 3 => about_oneself()], steps / 3..steps.max(2))
}
