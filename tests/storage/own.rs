//! Drafts, bookmarks and the user's stream.

use futures_util::future::join_all;
use imks::testing::clock;
use imks::testing::models::message_bookmark::{self, BookmarkChange};
use imks::testing::models::message_draft::{self, NewDraft, SendDraft};
use imks::testing::models::message_read_state::{mark, mark_all};
use imks::testing::models::sweep::{CHANGES_LIFETIME, forget_removed};
use imks::testing::models::user_stream::{changes, last_rev};
use serde_json::{from_value, json};
use uuid::Uuid;

use crate::support::{id, message, on_both, scope};

fn draft(channel: Uuid, body: &str) -> NewDraft {
    let body = from_value(json!(body)).unwrap();
    NewDraft { channel_id: channel, thread_id: None, body, reply_to_message_id: None, base_version: None }
}

on_both! {
    async fn everything_a_user_changes_at_once_has_a_number_of_its_own_and_nothing_deadlocks(store: &Store) {
        let (writer, alice) = (store.writer(), id());
        let channels: Vec<Uuid> = (0..8).map(|_| id()).collect();
        for channel in &channels {
            writer.say(*channel, id(), "hello").await;
        }
        let steps = (0..6).flat_map(|round| channels.iter().map(move |channel| (round, *channel)));
        let work = steps.map(|(round, channel)| {
            let (db, writer, channels) = (&store.db, &writer, &channels);
            async move {
                match round {
                    0 | 1 => drop(message_draft::set(db, alice, draft(channel, &format!("{round}"))).await.unwrap()),
                    2 => drop(mark(db, alice, channel, 1).await.unwrap()),
                    3 => drop(mark_all(db, alice, channels).await.unwrap()),
                    _ => {
                        let send = SendDraft(message("sent"));
                        writer.submit(scope(channel, alice), send).unwrap().await.unwrap();
                    }
                }
            }
        });
        join_all(work).await;
        let head = last_rev(&store.db, alice).await.unwrap();
        let mut all = Vec::new();
        let mut since = 0;
        loop {
            let page = changes(&store.db, alice, since).await.unwrap();
            all.extend(page.drafts.into_iter().map(|draft| (draft.channel_id, draft.user_rev)));
            since = page.rev;
            if !page.more {
                break;
            }
        }
        assert_eq!((all.len(), since), (8, head), "every draft once, and the whole stream");
        assert!(all.is_sorted_by_key(|(_, rev)| *rev));
    }

    async fn a_stream_longer_than_an_answer_is_read_in_parts(store: &Store) {
        let alice = id();
        for number in 0..20 {
            message_draft::set(&store.db, alice, draft(id(), &number.to_string())).await.unwrap();
        }
        let (mut bodies, mut since, mut parts) = (Vec::new(), 0, 0);
        loop {
            let page = changes(&store.db, alice, since).await.unwrap();
            bodies.extend(page.drafts.into_iter().map(|draft| draft.body));
            (since, parts) = (page.rev, parts + 1);
            if !page.more {
                break;
            }
        }
        assert_eq!(bodies, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!((since, parts), (20, 3));
    }

    async fn five_hundred_drafts_are_the_most_and_clearing_one_makes_room(store: &Store) {
        let (alice, first) = (id(), id());
        message_draft::set(&store.db, alice, draft(first, "first")).await.unwrap();
        for _ in 1..message_draft::DRAFTS_MAX {
            message_draft::set(&store.db, alice, draft(id(), "x")).await.unwrap();
        }
        let full = message_draft::set(&store.db, alice, draft(id(), "one more")).await;
        assert_eq!(full.unwrap_err().code(), "limit_reached");
        let before = last_rev(&store.db, alice).await.unwrap();
        message_draft::set(&store.db, alice, draft(first, "changed")).await.unwrap();
        message_draft::set(&store.db, alice, draft(first, "")).await.unwrap();
        message_draft::set(&store.db, alice, draft(id(), "one more")).await.unwrap();
        assert_eq!(last_rev(&store.db, alice).await.unwrap(), before + 3, "a refusal takes no number");
    }

    async fn a_reminder_is_taken_by_one_of_many_nodes(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let saved = writer.say(channel, alice, "hello").await;
        let change = BookmarkChange { remind_at: Some(Some(1_000)), ..BookmarkChange::default() };
        message_bookmark::add(&store.db, alice, channel, saved.id, change).await.unwrap();
        assert_eq!(message_bookmark::take_due(&store.db, 999).await.unwrap(), []);
        let nodes = (0..4).map(|_| message_bookmark::take_due(&store.db, 1_000));
        let taken: Vec<_> = join_all(nodes).await.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].0, taken[0].1.user_rev), (alice, 2));
    }

    async fn what_was_removed_long_ago_is_forgotten_and_an_old_device_starts_anew(store: &Store) {
        let (alice, kept, gone) = (id(), id(), id());
        message_draft::set(&store.db, alice, draft(gone, "x")).await.unwrap();
        message_draft::set(&store.db, alice, draft(kept, "kept")).await.unwrap();
        message_draft::set(&store.db, alice, draft(gone, "")).await.unwrap();
        forget_removed(&store.db, clock::now_micros()).await.unwrap();
        assert_eq!(changes(&store.db, alice, 2).await.unwrap().drafts.len(), 1, "not yet");
        forget_removed(&store.db, clock::now_micros() + 2 * CHANGES_LIFETIME).await.unwrap();
        let old = changes(&store.db, alice, 2).await.unwrap();
        assert_eq!((old.reset, old.rev, old.drafts.len(), old.drafts[0].channel_id), (true, 3, 1, kept));
        assert!(!changes(&store.db, alice, 3).await.unwrap().reset);
    }
}
