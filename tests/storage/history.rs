//! Reading back: pages, sync, heads, and the exact shape on the wire.

use imks::testing::models::channel_state::heads;
use imks::testing::models::message_page::{self, MessagePage, Page, Position};
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::message_sync::{self, ChannelSync, Cursor, Limits};
use imks::testing::models::sweep::{CHANGES_LIFETIME, sweep};
use imks::testing::models::text::Nonce;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Store, author_of, code, edit, id, message, on_both, scope};

const MIB: usize = 1 << 20;

async fn filled(store: &Store, count: usize) -> (Uuid, Vec<Uuid>) {
    let (writer, channel, alice) = (store.writer(), id(), id());
    let mut ids = Vec::new();
    for number in 1..=count {
        ids.push(writer.say(channel, alice, &number.to_string()).await.id);
    }
    (channel, ids)
}

async fn page(store: &Store, channel: Uuid, position: Position, limit: u32) -> MessagePage {
    store.page(channel, position, limit).await
}

async fn sync(store: &Store, cursors: &[Cursor], per_channel: usize) -> Vec<ChannelSync> {
    limited(store, cursors, Limits { per_channel, total: 2_000, bytes: MIB }).await.0
}

async fn limited(store: &Store, cursors: &[Cursor], limits: Limits) -> (Vec<ChannelSync>, bool) {
    message_sync::sync(&store.db, Uuid::nil(), cursors, limits).await.unwrap()
}

fn summary(page: &MessagePage) -> (Option<(i64, i64)>, usize, bool, bool) {
    (page.seq_range, page.messages.len(), page.has_more_before, page.has_more_after)
}

on_both! {
    async fn pages_lead_from_the_newest_message_to_the_first_and_back(store: &Store) {
        let (channel, ids) = filled(store, 25).await;
        let latest = page(store, channel, Position::Latest, 10).await;
        assert_eq!(summary(&latest), (Some((16, 25)), 10, true, false));
        let before = page(store, channel, Position::Before(latest.messages[0].id), 10).await;
        assert_eq!(summary(&before), (Some((6, 15)), 10, true, true));
        let first = page(store, channel, Position::Before(before.messages[0].id), 10).await;
        assert_eq!(summary(&first), (Some((1, 5)), 5, false, true));
        let after = page(store, channel, Position::After(ids[4]), 10).await;
        assert_eq!(summary(&after), (Some((6, 15)), 10, true, true));
        let last = page(store, channel, Position::After(ids[19]), 10).await;
        assert_eq!(summary(&last), (Some((21, 25)), 5, true, false));
        let around = page(store, channel, Position::Around(ids[12]), 5).await;
        assert_eq!(summary(&around), (Some((11, 15)), 5, true, true));
        let end = page(store, channel, Position::Around(ids[24]), 4).await;
        assert_eq!(summary(&end), (Some((23, 25)), 3, true, false));
    }

    async fn an_empty_channel_has_an_empty_page_and_a_head_of_zeros(store: &Store) {
        let channel = id();
        assert_eq!(summary(&page(store, channel, Position::Latest, 10).await), (None, 0, false, false));
        let head = heads(&store.db, &[channel]).await.unwrap()[0];
        assert_eq!((head.last_seq, head.last_rev, head.last_message_id), (0, 0, None));
    }

    async fn nobody_can_look_around_a_message_of_another_channel(store: &Store) {
        let (_, theirs) = filled(store, 1).await;
        let around = Page { position: Position::Around(theirs[0]), thread_id: None, limit: 5 };
        assert_eq!(code(message_page::page(&store.db, id(), id(), around, MIB).await), "not_found");
        assert!(message_page::get_many(&store.db, id(), id(), &theirs, MIB).await.unwrap().0.is_empty());
    }

    async fn a_thread_has_pages_of_its_own(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let root = writer.say(channel, alice, "root").await;
        for number in 0..5 {
            let reply = NewMessage { thread_id: Some(root.id), ..message(&number.to_string()) };
            writer.send(scope(channel, alice), reply).await.unwrap();
            writer.say(channel, alice, "between").await;
        }
        let thread = Page { position: Position::Latest, thread_id: Some(root.id), limit: 3 };
        let thread = message_page::page(&store.db, alice, channel, thread, MIB).await.unwrap();
        assert_eq!(summary(&thread), (Some((6, 10)), 3, true, false));
        assert!(thread.messages.iter().all(|message| message.thread_id == Some(root.id)));
        let nested = NewMessage { thread_id: Some(thread.messages[0].id), ..message("no") };
        assert_eq!(code(writer.send(scope(channel, alice), nested).await), "not_found");
    }

    async fn sync_brings_what_is_new_and_what_changed(store: &Store) {
        let (channel, _) = filled(store, 5).await;
        let writer = store.writer();
        let before = page(store, channel, Position::Latest, 5).await;
        let cursor = Cursor { channel_id: channel, seq: 5, rev: 0 };
        writer.edit(author_of(&before.messages[1]), edit(&before.messages[1], "edited")).await.unwrap();
        writer.edit(author_of(&before.messages[1]), edit(&before.messages[1], "edited again")).await.unwrap();
        writer.delete(&before.messages[2]).await.unwrap();
        writer.say(channel, id(), "six").await;
        let answer = sync(store, &[cursor], 100).await.remove(0);
        assert_eq!((answer.seq, answer.rev, answer.truncated, answer.reset), (6, 3, false, false));
        assert_eq!(answer.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [6]);
        let changes: Vec<_> =
            answer.changes.iter().map(|change| (change.rev, change.message.seq, change.message.body.as_str())).collect();
        assert_eq!(changes, [(2, 2, "edited again"), (3, 3, "")]);
        let cursor = Cursor { channel_id: channel, seq: answer.seq, rev: answer.rev };
        let nothing = sync(store, &[cursor], 100).await.remove(0);
        assert!(nothing.messages.is_empty() && nothing.changes.is_empty());
    }

    async fn sync_after_a_long_absence_gives_the_newest_page_and_says_so(store: &Store) {
        let (channel, _) = filled(store, 30).await;
        let answer = sync(store, &[Cursor { channel_id: channel, seq: 3, rev: 0 }], 10).await.remove(0);
        assert_eq!((answer.truncated, answer.seq_range, answer.seq), (true, Some((21, 30)), 30));
    }

    async fn what_is_older_than_its_time_is_forgotten_and_a_cursor_before_it_is_reset(store: &Store) {
        let (channel, _) = filled(store, 2).await;
        let writer = store.writer();
        let messages = page(store, channel, Position::Latest, 5).await.messages;
        writer.edit(author_of(&messages[0]), edit(&messages[0], "edited")).await.unwrap();
        writer.edit(author_of(&messages[1]), edit(&messages[1], "edited")).await.unwrap();
        let long_after = imks::testing::clock::now_micros() + CHANGES_LIFETIME + 1_000_000;
        assert_eq!(sweep(&store.db, imks::testing::clock::now_micros()).await.unwrap(), 0);
        assert_eq!(sweep(&store.db, long_after).await.unwrap(), 2);
        let answer = |rev| Cursor { channel_id: channel, seq: 2, rev };
        let answers = sync(store, &[answer(1), answer(2)], 10).await;
        assert_eq!((answers[0].reset, answers[1].reset), (true, false));
        assert_eq!((answers[0].messages.len(), answers[1].messages.len()), (2, 0), "a reset starts from the newest page");
    }

    async fn the_total_holds_over_many_channels_and_the_next_answers_bring_the_rest(store: &Store) {
        let (writer, alice) = (store.writer(), id());
        let mut cursors = Vec::new();
        for _ in 0..10 {
            let channel_id = id();
            for number in 0..3 {
                writer.say(channel_id, alice, &number.to_string()).await;
            }
            cursors.push(Cursor { channel_id, seq: 0, rev: 0 });
        }
        let limits = |total| Limits { per_channel: 200, total, bytes: MIB };
        let (one, more) = limited(store, &cursors, limits(1)).await;
        assert_eq!((one.len(), one[0].messages.len(), one[0].truncated, more), (1, 1, true, true));
        let (some, more) = limited(store, &cursors, limits(7)).await;
        assert_eq!((some.len(), more), (2, true), "a third channel does not fit whole, so it waits");
        assert!(some.iter().all(|channel| channel.messages.len() == 3 && !channel.truncated));
        let (all, more) = limited(store, &cursors, limits(30)).await;
        assert_eq!((all.len(), more), (10, false));
    }

    async fn more_changes_than_fit_are_a_reset_that_brings_the_newest_page(store: &Store) {
        let (channel, _) = filled(store, 5).await;
        let writer = store.writer();
        for message in page(store, channel, Position::Latest, 5).await.messages {
            writer.edit(author_of(&message), edit(&message, "edited")).await.unwrap();
        }
        let cursor = Cursor { channel_id: channel, seq: 5, rev: 0 };
        let (answers, more) =
            limited(store, &[cursor], Limits { per_channel: 200, total: 3, bytes: MIB }).await;
        assert_eq!((answers[0].reset, answers[0].truncated, more), (true, false, false));
        let seen: Vec<_> = answers[0].messages.iter().map(|message| (message.seq, message.body.as_str())).collect();
        assert_eq!(seen, [(3, "edited"), (4, "edited"), (5, "edited")]);
        assert_eq!((answers[0].changes.len(), answers[0].rev), (0, 5));
    }

    async fn answers_end_by_bytes_and_say_so(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        for _ in 0..50 {
            writer.say(channel, alice, &"👍".repeat(8_000)).await;
        }
        let latest = page(store, channel, Position::Latest, 100).await;
        assert!((30..=40).contains(&latest.messages.len()) && latest.has_more_before, "{}", latest.messages.len());
        let first = latest.messages[0].id;
        let rest = page(store, channel, Position::Before(first), 100).await;
        assert_eq!(rest.messages.len() + latest.messages.len(), 50);
        assert!(!rest.has_more_before && rest.has_more_after);
        let ids: Vec<Uuid> = rest.messages.iter().chain(&latest.messages).map(|message| message.id).collect();
        let (some, more) = message_page::get_many(&store.db, alice, channel, &ids, MIB).await.unwrap();
        assert!(some.len() < 50 && more);
        let cursors = [Cursor { channel_id: channel, seq: 0, rev: 0 }, Cursor { channel_id: channel, seq: 49, rev: 0 }];
        let (answers, more) = limited(store, &cursors, Limits { per_channel: 200, total: 2_000, bytes: MIB }).await;
        assert_eq!((answers.len(), more, answers[0].truncated), (1, true, true));
        assert_eq!(answers[0].seq_range.unwrap().1, 50, "the newest ones come");
    }

    async fn a_cursor_from_the_future_is_reset(store: &Store) {
        let (channel, _) = filled(store, 3).await;
        let answer = sync(store, &[Cursor { channel_id: channel, seq: 99, rev: 9 }], 10).await.remove(0);
        assert_eq!((answer.reset, answer.messages.len(), answer.seq, answer.rev), (true, 3, 3, 0));
    }

    async fn a_message_looks_exactly_as_the_contract_says(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let send = NewMessage { nonce: Some(Nonce::new("c1f0").unwrap()), ..message("hello world") };
        let (sent, _) = writer.send(scope(channel, alice), send).await.unwrap();
        let stored = store.seen(alice, channel, sent.id).await;
        for view in [serde_json::to_value(&*sent).unwrap(), serde_json::to_value(&stored).unwrap()] {
            let created_at = view["created_at"].clone();
            assert_eq!(created_at.as_str().unwrap().len(), "2026-06-11T10:00:00.000Z".len());
            assert_eq!(view, expected(sent.id, channel, alice, created_at));
        }
    }
}

fn expected(id: Uuid, channel: Uuid, author: Uuid, created_at: Value) -> Value {
    json!({
        "id": id, "channel_id": channel, "author": {"id": author, "username": "alice"},
        "body": "hello world", "created_at": created_at, "reactions": {}, "attachment_count": 0,
        "seq": 1, "version": 1, "type": "default", "content_type": "markdown",
        "thread_id": null, "reply_to_message_id": null, "reply_to": null,
        "attachments": [], "embeds": [], "poll": null, "forward_of": null, "expires_at": null,
        "mentions": {"users": [], "roles": [], "channel": false, "here": false},
        "flags": 0, "edited_at": null, "deleted_at": null, "pinned": false, "nonce": "c1f0", "thread": null
    })
}
