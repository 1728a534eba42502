//! Reading back: pages, sync, heads, and the exact shape on the wire.

use std::collections::BTreeMap;

use imks::testing::models::append::Told;
use imks::testing::models::channel_state::heads;
use imks::testing::models::message::MessageDetail;
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

/// What a client has of a channel.
#[derive(Debug, Clone)]
struct Cached {
    cursor: Cursor,
    bodies: BTreeMap<i64, String>,
    has_holes: bool,
}

impl Cached {
    fn new(channel_id: Uuid, messages: &[MessageDetail]) -> Self {
        let bodies: BTreeMap<i64, String> =
            messages.iter().map(|message| (message.seq, message.body.clone())).collect();
        let seq = bodies.keys().next_back().copied().unwrap_or(0);
        Self { cursor: Cursor { channel_id, seq, rev: 0 }, bodies, has_holes: false }
    }

    fn take(&mut self, answer: ChannelSync) {
        assert_eq!(answer.channel_id, self.cursor.channel_id, "the first ones come, in their order");
        if answer.reset {
            (self.bodies, self.has_holes) = (BTreeMap::new(), false);
        }
        self.has_holes |= answer.truncated;
        let changed = answer.changes.into_iter().map(|change| change.message);
        self.bodies
            .extend(answer.messages.into_iter().chain(changed).map(|message| (message.seq, message.body)));
        (self.cursor.seq, self.cursor.rev) = (answer.seq, answer.rev);
    }
}

/// Asks for all channels until there is no more. Returns how often that was.
async fn catch_up(store: &Store, copies: &mut [Cached], limits: Limits) -> usize {
    for round in 1..100 {
        let cursors: Vec<Cursor> = copies.iter().map(|copy| copy.cursor).collect();
        let (answers, more) = limited(store, &cursors, limits).await;
        copies.iter_mut().zip(answers).for_each(|(copy, answer)| copy.take(answer));
        if !more {
            return round;
        }
    }
    panic!("{limits:?}: there is always more")
}

/// Makes the log of each channel so long: all entries are like the first one.
async fn grow_logs(store: &Store, entries: i64) {
    let sql = format!(
        "INSERT INTO channel_change (channel_id, rev, kind, message_id, seq, actor_id, at) \
         WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {entries}) \
         SELECT c.channel_id, n.i, c.kind, c.message_id, c.seq, c.actor_id, c.at \
         FROM channel_change c CROSS JOIN n WHERE c.rev = 1; \
         UPDATE channel_state SET last_rev = {entries}"
    );
    store.execute(&sql).await;
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

    async fn what_is_told_of_missed_changes_has_no_number_beyond_those_that_were_looked_for(store: &Store) {
        let (channel, _) = filled(store, 2).await;
        let writer = store.writer();
        let messages = page(store, channel, Position::Latest, 5).await.messages;
        for (message, body) in [(&messages[0], "one"), (&messages[1], "two"), (&messages[0], "three")] {
            writer.edit(author_of(message), edit(message, body)).await.unwrap();
        }
        // Somebody who looked at the numbers before the last edit, and at the messages after it.
        store.execute("UPDATE channel_state SET last_rev = 2").await;
        let missed = message_sync::missed_events(&store.db, channel, 2, 0).await.unwrap();
        let told = |event: &Told| -> Value {
            let mut json = Vec::new();
            event.write_json(&mut json).unwrap();
            serde_json::from_slice(&json).unwrap()
        };
        let told: Vec<Value> = missed.told.iter().map(told).collect();
        let seen: Vec<_> = told.iter().map(|event| (event["rev"].as_i64(), event["body"].as_str())).collect();
        assert_eq!(seen, [(Some(1), Some("three")), (Some(2), Some("two"))], "a greater number would hide the next changes");
        let answer = sync(store, &[Cursor { channel_id: channel, seq: 2, rev: 0 }], 10).await.remove(0);
        assert_eq!(answer.changes.iter().map(|change| change.rev).collect::<Vec<_>>(), [1, 2]);
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
        let before = sync(store, &[answer(1)], 10).await.remove(0);
        assert_eq!((before.reset, before.messages.len()), (true, 2), "a reset starts from the newest page");
        let after = sync(store, &[answer(2)], 10).await.remove(0);
        assert_eq!((after.reset, after.messages.len()), (false, 0));
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
        assert_eq!((answers[0].reset, answers[0].truncated, more), (true, true, false), "there are earlier ones");
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
        let (other, _) = filled(store, 1).await;
        let cursors = [channel, other].map(|channel_id| Cursor { channel_id, seq: 0, rev: 0 });
        let (answers, more) = limited(store, &cursors, Limits { per_channel: 200, total: 2_000, bytes: MIB }).await;
        assert_eq!((answers.len(), more, answers[0].truncated), (1, true, true));
        assert_eq!(answers[0].seq_range.unwrap().1, 50, "the newest ones come");
    }

    async fn changes_take_the_room_of_later_channels_and_those_come_next(store: &Store) {
        let (writer, alice) = (store.writer().unheard(), id());
        let large = "x".repeat(8_000);
        let (changed, other) = (id(), id());
        for _ in 0..40 {
            let sent = writer.say(changed, alice, "short").await;
            writer.edit(author_of(&sent), edit(&sent, &large)).await.unwrap();
            writer.say(other, alice, &large).await;
        }
        let changed = Cursor { channel_id: changed, seq: 40, rev: 0 };
        let other = Cursor { channel_id: other, seq: 0, rev: 0 };
        let small = Limits { per_channel: 200, total: 2_000, bytes: 400_000 };
        let (answers, more) = limited(store, &[changed, other], small).await;
        assert_eq!((answers.len(), answers[0].changes.len(), answers[0].reset, more), (1, 40, false, true));
        let (answers, more) = limited(store, &[other, changed], small).await;
        assert_eq!((answers.len(), answers[0].messages.len(), answers[0].truncated, more), (1, 40, false, true));
        let (answers, more) = limited(store, &[changed, other], Limits { bytes: MIB, ..small }).await;
        assert_eq!((answers.len(), answers[0].changes.len(), answers[1].messages.len(), more), (2, 40, 40, false));
        // Not even the changes of one channel fit.
        let (answers, more) = limited(store, &[changed, other], Limits { bytes: 200_000, ..small }).await;
        assert_eq!((answers.len(), answers[0].reset, answers[0].changes.len(), more), (1, true, 0, true));
        let newest = &answers[0].messages;
        assert!((20..=30).contains(&newest.len()) && newest.last().unwrap().seq == 40, "{}", newest.len());
        assert!(newest.iter().all(|message| message.body == large));
    }

    async fn channels_behind_one_with_too_many_changes_lose_nothing(store: &Store) {
        let writer = store.writer();
        let (many, few) = (filled(store, 30).await.0, filled(store, 2).await.0);
        for channel in [many, few] {
            for message in page(store, channel, Position::Latest, 100).await.messages {
                writer.edit(author_of(&message), edit(&message, "edited")).await.unwrap();
            }
        }
        let cursors = [(many, 30), (few, 2)].map(|(channel_id, seq)| Cursor { channel_id, seq, rev: 0 });
        let (answers, more) = limited(store, &cursors, Limits { per_channel: 5, total: 20, bytes: MIB }).await;
        assert_eq!((answers.len(), answers[0].reset, answers[0].messages.len(), more), (1, true, 5, true));
        let (answers, more) = limited(store, &cursors[1..], Limits { per_channel: 5, total: 20, bytes: MIB }).await;
        assert_eq!((answers[0].reset, answers[0].changes.len(), more), (false, 2, false));
    }

    async fn whatever_the_limits_are_a_client_that_goes_on_asking_has_everything(store: &Store) {
        let (writer, alice) = (store.writer().unheard(), id());
        let mut copies = Vec::new();
        for length in [5, 900, 20, 8_000] {
            let (channel, _) = filled(store, 6).await;
            let before = page(store, channel, Position::Latest, 100).await.messages;
            copies.push(Cached::new(channel, &before));
            for message in &before[2..5] {
                writer.edit(author_of(message), edit(message, &"y".repeat(length))).await.unwrap();
            }
            for _ in 0..4 {
                writer.say(channel, alice, &"x".repeat(length)).await;
            }
        }
        for (per_channel, total) in [(1, 1), (3, 3), (200, 7), (200, 8), (5, 14), (200, 2_000)] {
            for bytes in [1, 2_000, 12_000, MIB] {
                let limits = Limits { per_channel, total, bytes };
                let mut copies = copies.clone();
                let rounds = catch_up(store, &mut copies, limits).await;
                assert!(rounds <= copies.len(), "{limits:?}: {rounds} rounds");
                for copy in &copies {
                    let channel = copy.cursor.channel_id;
                    let truth = Cached::new(channel, &page(store, channel, Position::Latest, 100).await.messages);
                    let missing = truth.bodies.keys().any(|seq| !copy.bodies.contains_key(seq));
                    assert_eq!(missing, copy.has_holes, "{limits:?}");
                    assert!(copy.bodies.iter().all(|(seq, body)| truth.bodies[seq] == *body), "{limits:?}");
                    assert!(copy.bodies.contains_key(&10), "{limits:?}: the newest message");
                }
            }
        }
    }

    async fn cursors_of_another_history_hide_no_change_behind_them(store: &Store) {
        let (writer, changed, alice) = (store.writer().unheard(), id(), id());
        let mut cursors = Vec::new();
        for _ in 0..10 {
            cursors.push(Cursor { channel_id: filled(store, 1).await.0, seq: 99, rev: 0 });
        }
        for _ in 0..200 {
            writer.say(changed, alice, "x").await;
        }
        cursors.push(Cursor { channel_id: changed, seq: 200, rev: 0 });
        // As many changes in each as are told one by one.
        store.execute("INSERT INTO channel_change (channel_id, rev, kind, message_id, seq, actor_id, at) \
            SELECT s.channel_id, m.seq, 0, m.id, m.seq, m.author_id, m.created_at FROM message m CROSS JOIN channel_state s \
            WHERE m.channel_id = (SELECT channel_id FROM channel_state WHERE last_seq = 200); \
            UPDATE channel_state SET last_rev = 200").await;
        let answers = sync(store, &cursors, 200).await;
        assert!(answers[..10].iter().all(|it| it.reset && it.messages.len() == 1));
        assert_eq!((answers[10].reset, answers[10].changes.len(), answers[10].rev), (false, 200, 200));
    }

    async fn a_log_with_many_entries_is_not_read_from_one_end_to_the_other(store: &Store) {
        let (writer, mut cursors) = (store.writer().unheard(), Vec::new());
        for _ in 0..12 {
            let (channel_id, _) = filled(store, 1).await;
            let message = page(store, channel_id, Position::Latest, 1).await.messages.remove(0);
            writer.edit(author_of(&message), edit(&message, "edited")).await.unwrap();
            cursors.push(Cursor { channel_id, seq: 1, rev: 0 });
        }
        grow_logs(store, 2_000).await;
        let all = Limits { per_channel: 200, total: 2_000, bytes: MIB };
        let (answers, more) = limited(store, &cursors, all).await;
        assert_eq!((answers.len(), more), (10, true), "20,000 entries are looked at for one answer");
        assert!(answers.iter().all(|it| (it.reset, it.changes.len(), it.rev) == (false, 1, 2_000)));
        let (answers, more) = limited(store, &cursors[10..], all).await;
        assert_eq!((answers.len(), more), (2, false));
        store.execute("UPDATE channel_state SET last_rev = 2001").await;
        let (answers, more) = limited(store, &cursors, all).await;
        assert_eq!((answers.len(), more), (12, false), "what is too much for a channel takes nothing from others");
        assert!(answers.iter().all(|it| (it.reset, it.messages.len(), it.rev) == (true, 1, 2_001)));
    }

    async fn a_cursor_from_the_future_is_reset(store: &Store) {
        let (channel, _) = filled(store, 3).await;
        let answer = sync(store, &[Cursor { channel_id: channel, seq: 99, rev: 9 }], 10).await.remove(0);
        assert_eq!((answer.reset, answer.messages.len(), answer.seq, answer.rev), (true, 3, 3, 0));
        assert!(!answer.truncated, "these are all");
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
        "flags": 0, "edited_at": null, "deleted_at": null, "pinned": false, "nonce": "c1f0", "thread": null,
        "priority": "normal", "ack_requested": false, "ack_count": 0, "stream": null
    })
}
