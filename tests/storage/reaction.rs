//! Reactions: counted once, right under contention, and the same for everybody who looks.

use std::collections::BTreeMap;

use imks::testing::models::append::{Authority, Config, Scope};
use imks::testing::models::emoji::Emoji;
use imks::testing::models::message::MessageDetail;
use imks::testing::models::message_delete::DeleteMessage;
use imks::testing::models::message_reaction::{AddReaction, Reacted, RemoveReaction};
use imks::testing::models::message_sync::{self, Cursor, Limits};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::support::{Store, Writer, author_of, code, edit, id, on_both, scope};

fn emoji(text: &str) -> Emoji {
    Emoji::new(text).unwrap()
}

async fn add(writer: &Writer, user: Uuid, message: &MessageDetail, with: &str) -> Reacted {
    let mutation = AddReaction { message_id: message.id, emoji: emoji(with) };
    writer.submit(scope(message.channel_id, user), mutation).unwrap().await.unwrap()
}

async fn remove(writer: &Writer, user: Uuid, message: &MessageDetail, with: &str) -> Reacted {
    let mutation = RemoveReaction { message_id: message.id, emoji: emoji(with), user_id: None };
    writer.submit(scope(message.channel_id, user), mutation).unwrap().await.unwrap()
}

async fn seen_by(store: &Store, reader: Uuid, message: &MessageDetail) -> Value {
    json!(store.seen(reader, message.channel_id, message.id).await.reactions)
}

on_both! {
    async fn a_reaction_counts_once_and_its_user_sees_it_as_the_own_one(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let message = writer.say(channel, alice, "hello").await;
        let first = add(&writer, alice, &message, "👍").await;
        assert_eq!((first.count, first.rev), (1, 1));
        let again = add(&writer, alice, &message, "👍").await;
        assert_eq!((again.count, again.rev), (1, 1), "the second time changes nothing");
        add(&writer, bob, &message, "👍").await;
        add(&writer, bob, &message, ":ship_it:").await;
        let expected = |me: Uuid| {
            let mut both = json!({ "👍": { "count": 2, "user_ids": [alice, bob], "me": true },
                ":ship_it:": { "count": 1, "user_ids": [bob] } });
            if me == bob {
                both[":ship_it:"]["me"] = true.into();
            }
            both
        };
        assert_eq!(seen_by(store, alice, &message).await, expected(alice));
        assert_eq!(seen_by(store, bob, &message).await, expected(bob));
        let gone = remove(&writer, bob, &message, ":ship_it:").await;
        assert_eq!((gone.count, gone.rev), (0, 4));
        assert_eq!(remove(&writer, bob, &message, ":ship_it:").await, gone);
        let told = writer.told().await;
        assert_eq!(told.iter().map(|(event, _)| *event).collect::<Vec<_>>(),
            ["message:new", "reaction:updated", "reaction:updated", "reaction:updated", "reaction:updated"]);
        let last = &told[4].1;
        assert_eq!(last["reactions"], json!({ "👍": { "count": 2, "user_ids": [alice, bob] } }), "nobody's own view");
        assert_eq!((&last["action"], &last["emoji"], &last["count"], &last["rev"]), (&json!("remove"), &json!(":ship_it:"), &json!(0), &json!(4)));
    }

    async fn what_cannot_be_reacted_to_is_refused(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let message = writer.say(channel, alice, "hello").await;
        let with = |text: &str| AddReaction { message_id: message.id, emoji: emoji(text) };
        assert_eq!(code(writer.submit(scope(id(), bob), with("👍")).unwrap().await), "not_found");
        for number in 0..20 {
            writer.submit(scope(channel, bob), with(&format!(":e{number}:"))).unwrap().await.unwrap();
        }
        assert_eq!(code(writer.submit(scope(channel, bob), with("👍")).unwrap().await), "limit_reached");
        add(&writer, alice, &message, ":e7:").await;
        let of_bob = || RemoveReaction { message_id: message.id, emoji: emoji(":e7:"), user_id: Some(bob) };
        assert_eq!(code(writer.submit(scope(channel, alice), of_bob()).unwrap().await), "forbidden");
        let moderator = Scope { authority: Authority::Any, ..scope(channel, alice) };
        let left = writer.submit(moderator, of_bob()).unwrap().await.unwrap();
        assert_eq!(left.count, 1);
        writer.submit(author_of(&message), DeleteMessage { message_id: message.id }).unwrap().await.unwrap();
        assert_eq!(code(writer.submit(scope(channel, bob), with(":e7:")).unwrap().await), "message_deleted");
        assert_eq!(seen_by(store, bob, &message).await, json!({}), "a tombstone has none");
    }

    async fn who_leaves_the_shown_ones_makes_place_for_another(store: &Store) {
        let (writer, channel) = (store.writer(), id());
        let message = writer.say(channel, id(), "hello").await;
        let users: Vec<Uuid> = (0..12).map(|_| id()).collect();
        for user in &users {
            add(&writer, *user, &message, "👍").await;
        }
        let shown = seen_by(store, users[11], &message).await["👍"].clone();
        assert_eq!((shown["user_ids"].as_array().unwrap().len(), &shown["me"]), (10, &json!(true)));
        for user in &users[..11] {
            remove(&writer, *user, &message, "👍").await;
        }
        assert_eq!(seen_by(store, Uuid::nil(), &message).await, json!({ "👍": { "count": 1, "user_ids": [users[11]] } }));
    }

    async fn a_client_that_was_away_gets_the_message_as_it_is_now(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let message = writer.say(channel, alice, "hello").await;
        let other = writer.say(channel, alice, "again").await;
        add(&writer, alice, &message, "🎉").await;
        writer.edit(author_of(&other), edit(&other, "edited")).await.unwrap();
        add(&writer, alice, &message, "👍").await;
        let limits = Limits { per_channel: 100, total: 100, bytes: 1 << 20 };
        let cursor = Cursor { channel_id: channel, seq: 2, rev: 0 };
        let (mut answers, more) = message_sync::sync(&store.db, alice, &[cursor], limits).await.unwrap();
        let answer = answers.remove(0);
        assert_eq!((answer.rev, answer.reset, more), (3, false, false));
        assert_eq!(answer.changes.iter().map(|change| (change.rev, change.message.seq)).collect::<Vec<_>>(), [(2, 2), (3, 1)]);
        let both = json!({ "🎉": { "count": 1, "user_ids": [alice], "me": true }, "👍": { "count": 1, "user_ids": [alice], "me": true } });
        assert_eq!(json!(answer.changes[1].message.reactions), both);
    }

    async fn many_users_toggling_at_once_leave_what_a_recount_finds(store: &Store) {
        const USERS: usize = 12;
        let (channel, author) = (id(), id());
        let message = store.writer().say(channel, author, "hot").await;
        let (tasks, mut processes) = (TaskTracker::new(), Vec::new());
        for process in 0..3 {
            let writer = Writer::start(store.opened_again().await, Config::default());
            let message = message.clone();
            processes.push(tasks.spawn(async move {
                let users: Vec<Uuid> = (0..USERS).map(|_| id()).collect();
                let mut receipts = Vec::new();
                for step in 0..240 {
                    let (user, with) = (users[(step * 7 + process) % USERS], emoji(["👍", "🎉", ":ok:"][step % 3]));
                    let scope = scope(message.channel_id, user);
                    receipts.push(match step % 4 {
                        3 => writer.submit(scope, RemoveReaction { message_id: message.id, emoji: with, user_id: None }),
                        _ => writer.submit(scope, AddReaction { message_id: message.id, emoji: with }),
                    }.unwrap());
                }
                for receipt in receipts {
                    receipt.await.unwrap();
                }
                writer.told().await
            }));
        }
        let mut revs = Vec::new();
        for process in processes {
            for (_, payload) in process.await.unwrap() {
                revs.push((payload["rev"].as_i64().unwrap(), payload));
            }
        }
        revs.sort_by_key(|(rev, _)| *rev);
        assert!(revs.iter().map(|(rev, _)| *rev).eq(1..=revs.len() as i64), "every rev is told once");
        assert!(revs.len() < 700, "what is committed together is told together: {}", revs.len());
        let stored = seen_by(store, Uuid::nil(), &message).await;
        assert_eq!(revs.last().unwrap().1["reactions"], stored, "the last event has the last state");
        let mut counted = 0;
        for (_, total) in stored.as_object().unwrap() {
            let (count, shown) = (total["count"].as_i64().unwrap(), total["user_ids"].as_array().unwrap().len() as i64);
            assert_eq!(shown, count.min(10));
            counted += count;
        }
        assert_eq!(counted, store.number("SELECT COUNT(*) FROM message_reaction").await);
    }

    async fn reactions_equal_a_model_after_any_sequence_of_events(store: &Store) {
        let mut runner = TestRunner::deterministic();
        for _ in 0..4 {
            let step = (any::<bool>(), 0..14_usize, 0..3_usize);
            let steps = prop::collection::vec(prop::collection::vec(step, 1..20), 1..12).new_tree(&mut runner);
            compare_with_model(store, steps.unwrap().current()).await;
        }
    }
}

/// Each inner list is submitted at once, so that much of it is committed together.
async fn compare_with_model(store: &Store, bursts: Vec<Vec<(bool, usize, usize)>>) {
    let (writer, channel) = (store.writer(), id());
    let message = writer.say(channel, id(), "x").await;
    let users: Vec<Uuid> = (0..14).map(|_| id()).collect();
    let names = ["👍", "🎉", ":ok:"];
    let mut model: BTreeMap<&str, Vec<Uuid>> = BTreeMap::new();
    for burst in bursts {
        let mut receipts = Vec::new();
        for (adds, user, name) in burst {
            let (user, name) = (users[user], names[name]);
            let (scope, of) = (scope(channel, user), model.entry(name).or_default());
            let before = of.len();
            of.retain(|other| *other != user || adds);
            if adds && !of.contains(&user) {
                of.push(user);
            }
            let count = of.len() as i64;
            let emoji = emoji(name);
            let receipt = match adds {
                true => writer.submit(scope, AddReaction { message_id: message.id, emoji }),
                false => {
                    writer.submit(scope, RemoveReaction { message_id: message.id, emoji, user_id: None })
                }
            };
            receipts.push((receipt.unwrap(), count, before));
        }
        for (receipt, count, before) in receipts {
            assert_eq!(receipt.await.unwrap().count, count, "from {before}");
        }
        for reader in [users[0], users[13]] {
            let seen = seen_by(store, reader, &message).await;
            for (name, of) in &model {
                let total = &seen[*name];
                assert_eq!(total["count"].as_i64().unwrap_or(0), of.len() as i64);
                assert_eq!(total["me"].as_bool().unwrap_or(false), of.contains(&reader), "{name}");
                let shown = total["user_ids"].as_array().cloned().unwrap_or_default();
                assert_eq!(shown.len(), of.len().min(10));
                assert!(shown.iter().all(|user| of.iter().any(|other| json!(other) == *user)));
            }
        }
    }
}
