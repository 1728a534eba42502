//! Read positions and the counts derived from them.

use std::sync::Arc;

use imks::testing::models::message::MessageDetail;
use imks::testing::models::message_edit::EditMessage;
use imks::testing::models::message_mention::{Mentioned, Online};
use imks::testing::models::message_mention_inbox::inbox;
use imks::testing::models::message_read_state::{ReadState, baseline, mark, mark_unread, unread};
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::text::Mentions;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Store, Writer, author_of, edit, id, message, on_both, scope};

async fn counts(store: &Store, user: Uuid, channel: Uuid) -> (i64, i64, i64) {
    let state = unread(&store.db, user, &[channel]).await.unwrap().remove(0);
    (state.read_seq, state.unread_count, state.mention_count)
}

fn numbers(state: ReadState) -> (i64, i64) {
    (state.read_seq, state.unread_count)
}

on_both! {
    async fn a_new_member_has_nothing_unread_and_then_what_comes(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        for _ in 0..3 {
            writer.say(channel, alice, "old").await;
        }
        baseline(&store.db, bob, &[(channel, None)]).await.unwrap();
        baseline(&store.db, alice, &[(channel, None)]).await.unwrap();
        assert_eq!(counts(store, bob, channel).await, (3, 0, 0));
        writer.say(channel, alice, "new").await;
        baseline(&store.db, bob, &[(channel, None)]).await.unwrap();
        assert_eq!(counts(store, bob, channel).await, (3, 1, 0));
        assert_eq!(counts(store, alice, channel).await, (4, 0, 0), "the author has read what she wrote");
    }

    async fn a_late_packet_of_another_device_moves_nothing_back(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        baseline(&store.db, bob, &[(channel, None)]).await.unwrap();
        for _ in 0..5 {
            writer.say(channel, alice, "x").await;
        }
        let (first, moved) = mark(&store.db, bob, channel, 4).await.unwrap();
        assert!(moved);
        assert_eq!((numbers(first), first.user_rev), ((4, 1), 1));
        let (late, moved) = mark(&store.db, bob, channel, 2).await.unwrap();
        assert!(!moved);
        assert_eq!((numbers(late), late.user_rev), ((4, 1), 1));
        assert_eq!(numbers(mark(&store.db, bob, channel, 1_000).await.unwrap().0), (5, 0));
        let back = mark_unread(&store.db, bob, channel, 3).await.unwrap();
        assert_eq!((numbers(back), back.user_rev), ((2, 3), 3));
    }

    async fn deleted_messages_and_thread_replies_are_not_unread(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        baseline(&store.db, bob, &[(channel, None)]).await.unwrap();
        let root = writer.say(channel, alice, "root").await;
        let gone = writer.say(channel, alice, "gone").await;
        let reply = || NewMessage { thread_id: Some(root.id), ..message("in the thread") };
        let (hidden, _) = writer.send(scope(channel, alice), reply()).await.unwrap();
        writer.send(scope(channel, alice), NewMessage { also_send_to_channel: true, ..reply() }).await.unwrap();
        assert_eq!(counts(store, bob, channel).await, (0, 3, 0));
        writer.delete(&gone).await.unwrap();
        writer.delete(&hidden).await.unwrap();
        assert_eq!(counts(store, bob, channel).await, (0, 2, 0));
    }

    async fn mentions_count_until_read_edited_out_or_deleted(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        baseline(&store.db, bob, &[(channel, None)]).await.unwrap();
        baseline(&store.db, alice, &[(channel, None)]).await.unwrap();
        let mentions = |users: &[Uuid], channel| Mentions { users: users.into(), channel, ..Mentions::default() };
        let with = |mentions| NewMessage { mentions, ..message("you") };
        let (direct, _) = writer.send(scope(channel, alice), with(mentions(&[bob, bob], false))).await.unwrap();
        let (wide, _) = writer.send(scope(channel, alice), with(mentions(&[], true))).await.unwrap();
        assert_eq!(counts(store, bob, channel).await, (0, 2, 2));
        assert_eq!(counts(store, alice, channel).await, (2, 0, 0));
        let mut without = edit(&direct, "not you");
        without.mentions = Some(Mentions::default());
        writer.edit(author_of(&direct), without).await.unwrap();
        assert_eq!(counts(store, bob, channel).await, (0, 2, 1));
        writer.delete(&wide).await.unwrap();
        assert_eq!(counts(store, bob, channel).await, (0, 1, 0));
    }

    async fn counts_start_where_the_member_joined(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let all = Mentions { channel: true, ..Mentions::default() };
        for _ in 0..6 {
            let send = NewMessage { mentions: all.clone(), ..message("all") };
            writer.send(scope(channel, alice), send).await.unwrap();
        }
        let join = async |seq: Option<i64>| {
            baseline(&store.db, bob, &[(channel, seq), (id(), seq)]).await.unwrap();
            counts(store, bob, channel).await
        };
        assert_eq!(join(Some(2)).await, (2, 4, 4));
        assert_eq!(inbox(&store.db, bob, &[channel], None, 100, 1 << 20).await.unwrap().mentions.len(), 4);
        assert_eq!(join(None).await, (2, 4, 4), "an unknown number moves nothing");
        assert_eq!(join(Some(4)).await, (4, 2, 2), "left and joined again");
        assert_eq!(join(Some(3)).await, (4, 2, 2));
        mark_unread(&store.db, bob, channel, 1).await.unwrap();
        assert_eq!(join(Some(4)).await, (0, 6, 6), "what the user marked stays");
        assert_eq!(join(Some(100)).await, (6, 0, 0));
    }

    async fn counts_equal_a_recount_after_any_sequence_of_events(store: &Store) {
        let mut runner = TestRunner::deterministic();
        for _ in 0..6 {
            let steps = prop::collection::vec(step(), 1..60).new_tree(&mut runner).unwrap().current();
            Model::start(store).await.run(steps).await;
        }
    }
}

/// Whom a message mentions, by their places: by name, by role, as online.
#[derive(Debug, Clone, Default)]
struct Whom {
    users: Vec<usize>,
    with_role: Vec<usize>,
    online: Option<Vec<usize>>,
    many_online: bool,
    channel: bool,
}

impl Whom {
    fn mentions(&self, users: [Uuid; 3]) -> (Mentions, Mentioned) {
        let ids = |places: &[usize]| places.iter().map(|place| users[*place]).collect::<Vec<_>>();
        let roles = if self.with_role.is_empty() { Vec::new() } else { vec![Uuid::from_u128(1)] };
        let here = self.online.is_some();
        let mentions = Mentions { users: ids(&self.users), roles, channel: self.channel, here };
        let online = match &self.online {
            None => Online::Nobody,
            Some(_) if self.many_online => Online::Many,
            Some(online) => Online::Users(ids(online)),
        };
        (mentions, Mentioned { with_role: ids(&self.with_role), online })
    }

    fn reason(&self, user: usize) -> Option<&'static str> {
        let online = self.online.as_ref();
        let reasons = [
            (self.users.contains(&user), "user"),
            (self.channel, "channel"),
            (self.with_role.contains(&user), "role"),
            (online.is_some_and(|online| self.many_online || online.contains(&user)), "here"),
        ];
        reasons.into_iter().find(|(is_so, _)| *is_so).map(|(_, reason)| reason)
    }
}

fn whom() -> impl Strategy<Value = Whom> {
    let some = || prop::collection::vec(0..3_usize, 0..3);
    (some(), some(), prop::option::weighted(0.3, some()), prop::bool::ANY, prop::bool::weighted(0.2))
        .prop_map(|(users, with_role, online, many_online, channel)| Whom {
            users,
            with_role,
            online,
            many_online,
            channel,
        })
}

#[derive(Debug, Clone)]
enum Step {
    Send { author: usize, interactive: bool, thread: bool, whom: Whom },
    Edit { message: usize, whom: Whom },
    Delete(usize),
    Mark { user: usize, seq: i64 },
    MarkUnread { user: usize, seq: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, prop::bool::weighted(0.7), prop::bool::weighted(0.2), whom())
            .prop_map(|(author, interactive, thread, whom)| Step::Send { author, interactive, thread, whom }),
        1 => (0..40_usize, whom()).prop_map(|(message, whom)| Step::Edit { message, whom }),
        1 => (0..40_usize).prop_map(Step::Delete),
        2 => (0..3_usize, 0..40_i64).prop_map(|(user, seq)| Step::Mark { user, seq }),
        1 => (0..3_usize, 1..40_i64).prop_map(|(user, seq)| Step::MarkUnread { user, seq }),
    ]
}

/// The simplest possible opinion of what is unread: looks at every message every time.
struct Model<'a> {
    store: &'a Store,
    writer: Writer,
    channel: Uuid,
    users: [Uuid; 3],
    read: [i64; 3],
    messages: Vec<Kept>,
}

/// A message, whom it mentions, and whether it is deleted.
type Kept = (Arc<MessageDetail>, Whom, bool);

impl<'a> Model<'a> {
    async fn start(store: &'a Store) -> Self {
        let (channel, users) = (id(), [id(), id(), id()]);
        for user in users {
            baseline(&store.db, user, &[(channel, None)]).await.unwrap();
        }
        Self { store, writer: store.writer(), channel, users, read: [0; 3], messages: Vec::new() }
    }

    async fn run(mut self, steps: Vec<Step>) {
        for (number, step) in steps.iter().enumerate() {
            self.apply(step).await;
            for (index, user) in self.users.into_iter().enumerate() {
                let found = counts(self.store, user, self.channel).await;
                let expected = (self.read[index], self.recount(index), self.recount_mentions(index));
                assert_eq!(found, expected, "user {index} after {:?}", &steps[..=number]);
            }
        }
        for index in 0..self.users.len() {
            self.check_inbox(index, &steps).await;
        }
    }

    /// Walks the inbox in small pages.
    async fn check_inbox(&self, user: usize, steps: &[Step]) {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page =
                inbox(&self.store.db, self.users[user], &[self.channel], before, 3, 1 << 20).await.unwrap();
            found.extend(page.mentions.iter().map(|mention| (mention.message.id, json!(mention.kind))));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        let mentions = self.messages.iter().rev().filter(|(_, _, deleted)| !deleted);
        let others = mentions.filter(|(message, ..)| message.author.id != self.users[user]);
        let expected: Vec<_> =
            others.filter_map(|(message, whom, _)| Some((message.id, json!(whom.reason(user)?)))).collect();
        assert_eq!(found, expected, "user {user} after {steps:?}");
    }

    async fn apply(&mut self, step: &Step) {
        let newest = self.messages.len() as i64;
        match *step {
            Step::Send { author, interactive, thread, ref whom } => {
                let root = self.messages.first().filter(|(.., deleted)| thread && !deleted);
                let thread_id = root.map(|(message, ..)| message.id);
                let (mentions, mentioned) = whom.mentions(self.users);
                let send = NewMessage { thread_id, interactive, mentions, mentioned, ..message("x") };
                let scope = scope(self.channel, self.users[author]);
                let sent = self.writer.send(scope, send).await.unwrap().0;
                if interactive {
                    self.read[author] = sent.seq;
                }
                self.messages.push((sent, whom.clone(), false));
            }
            Step::Edit { message, ref whom } => {
                let Some((message, kept, false)) = self.messages.get_mut(message) else { return };
                // Mentions that are the same as before are not looked up anew.
                let (mentions, mentioned) = whom.mentions(self.users);
                if kept.mentions(self.users).0 != mentions {
                    *kept = whom.clone();
                }
                let edit = EditMessage { mentions: Some(mentions), mentioned, ..edit(message, "edited") };
                self.writer.edit(author_of(message), edit).await.unwrap();
            }
            Step::Delete(index) => {
                let Some((message, _, deleted)) = self.messages.get_mut(index) else { return };
                *deleted = true;
                self.writer.delete(message).await.unwrap();
            }
            Step::Mark { user, seq } => {
                self.read[user] = self.read[user].max(seq.min(newest));
                mark(&self.store.db, self.users[user], self.channel, seq).await.unwrap();
            }
            Step::MarkUnread { user, seq } => {
                self.read[user] = (seq - 1).min(newest);
                mark_unread(&self.store.db, self.users[user], self.channel, seq).await.unwrap();
            }
        }
    }

    fn recount(&self, user: usize) -> i64 {
        let counts = |(message, _, deleted): &&Kept| {
            message.seq > self.read[user]
                && !deleted
                && message.author.id != self.users[user]
                && message.thread_id.is_none()
        };
        self.messages.iter().filter(counts).count() as i64
    }

    fn recount_mentions(&self, user: usize) -> i64 {
        let counts = |(message, whom, deleted): &&Kept| {
            message.seq > self.read[user]
                && !deleted
                && message.author.id != self.users[user]
                && whom.reason(user).is_some()
        };
        self.messages.iter().filter(counts).count() as i64
    }
}
