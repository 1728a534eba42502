//! Retention: messages whose time is over go with everything that belongs to them, everything that counts messages is
//! right afterwards, and a hold keeps all of it.

use futures_util::future::join_all;
use imks::testing::clock::{self, Micros};
use imks::testing::models::append::{Authority, Scope};
use imks::testing::models::channel_state::heads;
use imks::testing::models::emoji::Emoji;
use imks::testing::models::legal_hold::{self, HoldKind};
use imks::testing::models::message::{FLAG_ALSO_IN_CHANNEL, MessageDetail};
use imks::testing::models::message_attachment::{NewAttachment, complete, create, removable};
use imks::testing::models::message_bookmark::{self, BookmarkChange};
use imks::testing::models::message_delete::DeleteMessages;
use imks::testing::models::message_expiring::expired;
use imks::testing::models::message_forward::copy_of;
use imks::testing::models::message_page::Position;
use imks::testing::models::message_pin::AddPin;
use imks::testing::models::message_poll::NewPoll;
use imks::testing::models::message_poll_vote::Vote;
use imks::testing::models::message_reaction::AddReaction;
use imks::testing::models::message_read_state::{baseline, mark, mark_unread, unread};
use imks::testing::models::message_report::{self, NewReport};
use imks::testing::models::message_retention::{
    REMOVED_AT_ONCE, SECOND_LOOK_AFTER, cut, empty_copies, mark_copies, oldest, scrub,
};
use imks::testing::models::message_search_index::follow;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::message_sync::{ChannelSync, Cursor, Limits, sync};
use imks::testing::models::purge::{Purge, PurgeKind};
use imks::testing::models::text::Mentions;
use serde_json::{from_value, json};
use uuid::Uuid;

use crate::support::{Store, Writer, code, edit, id, message, on_both, places_of, places_of_ids, scope};

const MINUTE: Micros = 60 * 1_000_000;

/// Everything that is said from now on is a minute younger than what was said before. Returns a time in between.
async fn time_passes(store: &Store) -> Micros {
    store.execute("UPDATE channel_state SET last_ms = last_ms + 60000").await;
    clock::now_micros() + MINUTE / 2
}

fn moderator(channel: Uuid) -> Scope {
    Scope { authority: Authority::Any, ..scope(channel, id()) }
}

async fn synced(store: &Store, channel: Uuid, seq: i64) -> ChannelSync {
    let limits = Limits { per_channel: 200, total: 1_000, bytes: 1 << 20 };
    let cursor = Cursor { channel_id: channel, seq, rev: 0 };
    let (mut answers, more) = sync(&store.db, Uuid::nil(), &[cursor], limits).await.unwrap();
    assert!(!more);
    answers.remove(0)
}

async fn unread_count(store: &Store, reader: Uuid, channel: Uuid) -> i64 {
    unread(&store.db, reader, &[channel]).await.unwrap()[0].unread_count
}

/// Forwards a message to another channel. Returns what was sent there.
async fn forward(writer: &Writer, original: &MessageDetail, (channel, author): (Uuid, Uuid)) -> Uuid {
    let copy = copy_of(original.clone());
    let send = NewMessage { forward_of: Some(copy), forwards: Some(original.id), ..message("look") };
    writer.send(scope(channel, author), send).await.unwrap().0.id
}

/// Does all that is left to do about copies.
async fn copies_follow(store: &Store) {
    copies_follow_at(store, clock::now_micros()).await;
}

async fn copies_follow_at(store: &Store, now: Micros) {
    while mark_copies(&store.db, now).await.unwrap() {}
    let mut after = Uuid::nil();
    while let Some(last) = empty_copies(&store.db, after).await.unwrap() {
        after = last;
    }
}

/// Says things that leave rows in every table that knows of messages. Returns the messages.
pub async fn everything(store: &Store, writer: &Writer, channel: Uuid, alice: Uuid, bob: Uuid) -> Vec<Uuid> {
    let (of_alice, of_bob, now) = (scope(channel, alice), scope(channel, bob), clock::now_micros());
    let file = NewAttachment {
        id: id(),
        channel_id: channel,
        uploader_id: alice,
        filename: from_value(json!("marmalade.txt")).unwrap(),
        mime: from_value(json!("text/plain")).unwrap(),
        size: 5,
        sha256: None,
        width: None,
        height: None,
    };
    let file = create(&store.db, file, 1 << 20, now).await.unwrap().id;
    complete(&store.db, alice, file, now).await.unwrap();
    let poll = NewPoll {
        question: from_value(json!("marmalade?")).unwrap(),
        options: ["yes", "no"].map(|text| from_value(json!(text)).unwrap()).into(),
        max_choices: 1,
        anonymous: false,
        hide_results: false,
        allow_change: true,
        open_for: Some(MINUTE),
        secret: Uuid::from_u128(7),
    };
    let mentions = Mentions { users: vec![bob], ..Mentions::default() };
    let root = NewMessage { attachments: vec![file], poll: Some(poll), mentions, ..message("marmalade") };
    let root = writer.send(of_alice.clone(), root).await.unwrap().0;
    let reply = NewMessage { thread_id: Some(root.id), ..message("more marmalade") };
    let reply = writer.send(of_bob.clone(), reply).await.unwrap().0;
    writer.edit(of_alice.clone(), edit(&root, "marmalade again")).await.unwrap();
    let add = AddReaction { message_id: root.id, emoji: Emoji::new("👍").unwrap() };
    writer.submit(of_bob.clone(), add).unwrap().await.unwrap();
    writer.submit(of_bob.clone(), AddPin { message_id: root.id }).unwrap().await.unwrap();
    writer.submit(of_bob, Vote { message_id: root.id, option_ids: vec![0] }).unwrap().await.unwrap();
    let note = BookmarkChange { note: Some(Some(from_value(json!("marmalade")).unwrap())), remind_at: None };
    message_bookmark::add(&store.db, bob, channel, root.id, note).await.unwrap();
    let report = NewReport {
        channel_id: channel,
        message_id: root.id,
        reporter_id: bob,
        reason: from_value(json!("spam")).unwrap(),
        note: None,
    };
    message_report::create(&store.db, &report).await.unwrap();
    let gone = writer.say(channel, alice, "marmalade that was deleted").await;
    writer.delete(&gone).await.unwrap();
    follow(&store.db, vec![channel]).await.unwrap();
    vec![root.id, reply.id, gone.id]
}

/// Where the id of a message that is gone may stand: in logs that end by themselves, as a position, where a file waits for
/// its bytes to be removed, and where somebody may be forwarding it.
const LEFT: [&str; 7] = [
    "channel_change.message_id",
    "channel_state.horizon_id",
    "channel_state.last_message_id",
    "message_attachment.message_id",
    "message_gone.original_id",
    "message_read_state.read_message_id",
    "message_report.message_id",
];

on_both! {
    async fn a_message_whose_time_is_over_goes_with_everything_that_belongs_to_it(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let old = everything(store, &writer, channel, alice, bob).await;
        mark(&store.db, bob, channel, 1).await.unwrap();
        let places = places_of_ids(store, &old).await;
        assert!(places.len() > 12, "the test must leave rows everywhere: {places:?}");
        let before = time_passes(store).await;
        let kept = writer.say(channel, alice, "kept").await;
        let done = cut(&store.db, channel, before).await.unwrap().unwrap();
        assert_eq!((done.removed, done.horizon.horizon_seq, done.horizon.horizon_id), (3, 3, old[2]));
        assert_eq!(cut(&store.db, channel, before).await.unwrap(), None, "there is no more");
        let places = places_of_ids(store, &old).await;
        assert!(places.iter().all(|place| LEFT.contains(&place.as_str())), "{places:?}");
        assert_eq!(places_of(store, "marmalade").await, ["message_attachment.filename"], "until its bytes are removed");
        assert_eq!(store.number("SELECT COUNT(*) FROM message_attachment WHERE deleted_at IS NOT NULL").await, 1);
        assert_eq!(store.number("SELECT COUNT(*) FROM message_tombstone").await, 0);
        assert_eq!(store.number("SELECT message_count FROM channel_state").await, 1);
        let page = store.page(channel, Position::Latest, 10).await;
        assert_eq!((page.messages.len(), page.messages[0].id, page.has_more_before), (1, kept.id, false));
        assert!(!store.page(channel, Position::After(old[0]), 10).await.has_more_before);
        assert_eq!(writer.say(channel, alice, "and the next").await.seq, 5);
    }

    async fn a_client_that_was_away_learns_where_the_history_begins_and_what_is_left(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        join_all((0..5).map(|n| writer.send(scope(channel, alice), message(&format!("old {n}"))))).await;
        let before = time_passes(store).await;
        let kept = [writer.say(channel, alice, "one").await.id, writer.say(channel, alice, "two").await.id];
        assert_eq!(synced(store, channel, 5).await.horizon_seq, 0);
        let done = cut(&store.db, channel, before).await.unwrap().unwrap();
        for seq in 0..=7 {
            let answer = synced(store, channel, seq).await;
            let ids: Vec<Uuid> = answer.messages.iter().map(|message| message.id).collect();
            let expected = &kept[usize::try_from((seq - 5).clamp(0, 2)).unwrap()..];
            assert_eq!((ids.as_slice(), answer.truncated, answer.reset), (expected, false, false), "from {seq}");
            assert_eq!((answer.horizon_seq, answer.horizon_id), (5, Some(done.horizon.horizon_id)));
        }
        let beyond = synced(store, channel, 8).await;
        assert!(beyond.reset && beyond.messages.len() == 2, "a cursor of another history");
        let head = heads(&store.db, &[channel]).await.unwrap()[0];
        assert_eq!((head.last_seq, head.horizon_seq), (7, 5));
        // Everything is over: the channel is empty, and says so.
        let all = clock::now_micros() + 10 * MINUTE;
        assert_eq!(cut(&store.db, channel, all).await.unwrap().unwrap().horizon.horizon_seq, 7);
        let empty = synced(store, channel, 0).await;
        assert!(empty.messages.is_empty() && !empty.truncated && empty.horizon_seq == 7);
        assert!(store.page(channel, Position::Latest, 10).await.messages.is_empty());
    }

    async fn what_is_unread_is_exactly_what_is_left(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let root = writer.say(channel, alice, "1").await.id;
        for number in 2..=9 {
            let flags = if number % 4 == 0 { FLAG_ALSO_IN_CHANNEL } else { 0 };
            let thread_id = (number % 2 == 0).then_some(root);
            let send = NewMessage { thread_id, also_send_to_channel: flags != 0, ..message(&number.to_string()) };
            let sent = writer.send(scope(channel, alice), send).await.unwrap().0;
            if number % 3 == 0 {
                writer.delete(&sent).await.unwrap();
            }
            if number == 5 {
                time_passes(store).await;
            }
        }
        let readers: Vec<Uuid> = (0..=9).map(|_| id()).collect();
        for (seq, reader) in (0_i64..).zip(&readers) {
            baseline(&store.db, *reader, &[(channel, Some(0))]).await.unwrap();
            mark(&store.db, *reader, channel, seq).await.unwrap();
        }
        let counted = |message: &MessageDetail, after: i64| {
            message.seq > after && message.deleted_at.is_none()
                && (message.thread_id.is_none() || message.flags & FLAG_ALSO_IN_CHANNEL != 0)
        };
        for before in [0, clock::now_micros() + MINUTE / 2, clock::now_micros() + 10 * MINUTE] {
            cut(&store.db, channel, before).await.unwrap();
            let left = store.page(channel, Position::Latest, 100).await.messages;
            for (seq, reader) in (0_i64..).zip(&readers) {
                let expected = left.iter().filter(|message| counted(message, seq)).count();
                assert_eq!(unread_count(store, *reader, channel).await, expected as i64, "read {seq}, {} left", left.len());
            }
            assert_eq!(store.number("SELECT message_count FROM channel_state").await,
                left.iter().filter(|message| message.deleted_at.is_none()).count() as i64);
        }
        // Whoever goes back to what is gone has nothing unread there, and a new member nothing at all.
        assert_eq!(mark_unread(&store.db, readers[9], channel, 2).await.unwrap().unread_count, 0);
        let late = id();
        baseline(&store.db, late, &[(channel, Some(3))]).await.unwrap();
        assert_eq!(unread_count(store, late, channel).await, 0);
        writer.say(channel, alice, "new").await;
        assert_eq!((unread_count(store, late, channel).await, unread_count(store, readers[0], channel).await), (1, 1));
    }

    async fn a_long_history_goes_in_steps_and_writers_go_on_between_them(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        join_all((0..1_100).map(|n| writer.send(scope(channel, alice), message(&n.to_string())))).await;
        let before = time_passes(store).await;
        let first = cut(&store.db, channel, before).await.unwrap().unwrap();
        assert_eq!((first.removed as i64, first.horizon.horizon_seq), (REMOVED_AT_ONCE, REMOVED_AT_ONCE));
        assert_eq!(writer.say(channel, alice, "between").await.seq, 1_101);
        let all = oldest(&store.db, Uuid::nil()).await.unwrap();
        assert!(all.iter().any(|it| it.channel_id == channel && it.created_at.is_some()));
        assert_eq!(cut(&store.db, channel, before).await.unwrap().unwrap().removed, 100);
        assert_eq!(store.page(channel, Position::Latest, 10).await.messages.len(), 1);
    }

    async fn replies_outlive_the_first_message_of_their_thread_and_can_be_deleted(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let root = writer.say(channel, alice, "root").await.id;
        let before = time_passes(store).await;
        let reply = || NewMessage { thread_id: Some(root), ..message("reply") };
        let mut replies = Vec::new();
        for _ in 0..3 {
            replies.push(writer.send(scope(channel, alice), reply()).await.unwrap().0);
        }
        cut(&store.db, channel, before).await.unwrap().unwrap();
        writer.delete(&replies[0]).await.unwrap();
        let rest = DeleteMessages { message_ids: vec![replies[1].id] };
        assert_eq!(writer.submit(moderator(channel), rest).unwrap().await.unwrap().deleted, [replies[1].id]);
        writer.edit(scope(channel, alice), edit(&replies[2], "still here")).await.unwrap();
        let refused = writer.send(scope(channel, alice), reply()).await;
        assert_eq!(code(refused), "not_found", "the thread has ended");
    }

    async fn a_forwarded_copy_is_not_shown_any_more_when_the_original_is_gone(store: &Store) {
        let (writer, channel, other, alice) = (store.writer(), id(), id(), id());
        let original = writer.say(channel, alice, "marmalade").await;
        let copy = copy_of((*original).clone());
        let send = NewMessage { forward_of: Some(copy), forwards: Some(original.id), ..message("look") };
        let sent = writer.send(scope(other, alice), send).await.unwrap().0;
        writer.delete(&original).await.unwrap();
        cut(&store.db, channel, clock::now_micros() + MINUTE).await.unwrap().unwrap();
        let shown = store.seen(alice, other, sent.id).await.forward_of.unwrap();
        assert_eq!((shown.body.as_str(), shown.deleted_at.is_some()), ("", true));
        let edited = writer.edit(scope(other, alice), edit(&sent, "look here")).await.unwrap();
        assert_eq!(edited.forward_of.as_ref().unwrap().body, "");
    }

    async fn the_text_of_a_forwarded_copy_goes_with_that_of_its_original(store: &Store) {
        let (writer, channel, other, alice, bob) = (store.writer(), id(), id(), id(), id());
        let deleted = writer.say(channel, alice, "marmalade").await;
        let removed = writer.say(channel, alice, "jam").await;
        let copies = [
            forward(&writer, &deleted, (other, bob)).await,
            forward(&writer, &deleted, (channel, bob)).await,
            forward(&writer, &removed, (other, bob)).await,
        ];
        writer.delete(&deleted).await.unwrap();
        copies_follow(store).await;
        assert_eq!(places_of(store, "marmalade").await.len(), 2, "it may be asked for");
        assert!(scrub(&store.db, clock::now_micros() + MINUTE).await.unwrap());
        copies_follow(store).await;
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        let deleted_at = store.seen(bob, channel, deleted.id).await.deleted_at;
        for (channel, copy) in [(other, copies[0]), (channel, copies[1])] {
            let seen = store.seen(bob, channel, copy).await;
            let copy = seen.forward_of.unwrap();
            assert_eq!((seen.body.as_str(), copy.body.as_str(), copy.deleted_at), ("look", "", deleted_at));
            assert_eq!((copy.id, copy.channel_id, copy.author.id), (deleted.id, deleted.channel_id, alice));
            assert_eq!(copy.created_at.0 / 1_000, deleted.created_at.0 / 1_000);
        }
        let mut places = places_of(store, "jam").await;
        places.sort();
        assert_eq!(places, ["message.body", "message.forward_of"]);
        cut(&store.db, channel, clock::now_micros() + MINUTE).await.unwrap().unwrap();
        copies_follow(store).await;
        assert_eq!(places_of(store, "jam").await, [""; 0]);
        let copy = store.seen(bob, other, copies[2]).await.forward_of.unwrap();
        assert_eq!((copy.id, copy.body.as_str(), copy.deleted_at), (removed.id, "", Some(copy.created_at)));
        let left = places_of_ids(store, &[deleted.id, removed.id]).await;
        assert!(!left.iter().any(|place| place.starts_with("message_forward.")), "{left:?}");
    }

    async fn a_copy_that_is_sent_when_its_original_is_gone_loses_its_text_too(store: &Store) {
        let (writer, channel, other, alice) = (store.writer(), id(), id(), id());
        let original = writer.say(channel, alice, "marmalade").await;
        cut(&store.db, channel, clock::now_micros() + MINUTE).await.unwrap().unwrap();
        forward(&writer, &original, (other, alice)).await;
        assert_eq!(places_of(store, "marmalade").await, ["message.forward_of"]);
        copies_follow(store).await;
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
    }

    async fn a_copy_that_is_stored_while_its_original_is_being_removed_loses_its_text_too(store: &Store) {
        let (writer, channel, other, alice) = (store.writer(), id(), id(), id());
        let original = writer.say(channel, alice, "marmalade").await;
        cut(&store.db, channel, clock::now_micros() + MINUTE).await.unwrap().unwrap();
        copies_follow(store).await;
        // Whoever stored it saw the original still, and was not seen by those who looked for copies.
        forward(&writer, &original, (other, alice)).await;
        store.execute("UPDATE message_forward SET original_gone = FALSE").await;
        copies_follow(store).await;
        assert_eq!(places_of(store, "marmalade").await, ["message.forward_of"]);
        copies_follow_at(store, clock::now_micros() + SECOND_LOOK_AFTER).await;
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(store.number("SELECT COUNT(*) FROM message_gone").await, 0, "nobody can forward it any more");
    }

    async fn however_many_copies_there_are_they_lose_their_text_in_small_steps(store: &Store) {
        let (writer, channel, other, alice) = (store.writer().unheard(), id(), id(), id());
        let original = writer.say(channel, alice, "marmalade").await;
        join_all((0..REMOVED_AT_ONCE + 100).map(|_| forward(&writer, &original, (other, alice)))).await;
        cut(&store.db, channel, clock::now_micros() + MINUTE).await.unwrap().unwrap();
        let marked = "SELECT COUNT(*) FROM message_forward WHERE original_gone";
        assert_eq!(store.number(marked).await, 0, "the removal of a message does not wait for its copies");
        assert!(mark_copies(&store.db, clock::now_micros()).await.unwrap());
        assert_eq!(store.number(marked).await, REMOVED_AT_ONCE);
        assert!(empty_copies(&store.db, Uuid::nil()).await.unwrap().is_some());
        assert_eq!(store.number(marked).await, 0);
        copies_follow(store).await;
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
    }

    async fn a_purge_is_finished_although_a_hold_keeps_copies_elsewhere(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let (held, free) = (id(), id());
        let original = writer.say(channel, alice, "marmalade").await;
        for place in [held, free] {
            forward(&writer, &original, (place, id())).await;
        }
        legal_hold::set(&store.db, (HoldKind::Channel, held), "case 7", "ops").await.unwrap();
        let mut ordered = Purge::order(&store.db, id(), (PurgeKind::Channel, channel), 0, ("ops", "asked for")).await.unwrap();
        for _ in 0..10 {
            if !ordered.is_finished() {
                ordered.step(&store.db, &writer.appender).await.unwrap();
                ordered = ordered.renewed(&store.db).await.unwrap();
            }
        }
        assert!(ordered.is_finished());
        assert_eq!(store.number("SELECT COUNT(*) FROM message WHERE forward_of LIKE '%marmalade%'").await, 1);
        legal_hold::release(&store.db, held, "ops").await.unwrap();
        copies_follow(store).await;
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
    }

    async fn a_hold_on_a_copy_keeps_its_text_until_it_is_released(store: &Store) {
        let (writer, sender, reader) = (store.writer(), id(), id());
        for (kind, target) in [(HoldKind::Channel, id()), (HoldKind::User, sender), (HoldKind::User, reader)] {
            let (channel, alice) = (id(), id());
            let other = if kind == HoldKind::Channel { target } else { id() };
            let original = writer.say(channel, alice, "marmalade").await;
            forward(&writer, &original, (other, sender)).await;
            baseline(&store.db, reader, &[(other, None)]).await.unwrap();
            legal_hold::set(&store.db, (kind, target), "case 7", "ops").await.unwrap();
            cut(&store.db, channel, clock::now_micros() + MINUTE).await.unwrap().unwrap();
            copies_follow(store).await;
            assert_eq!(places_of(store, "marmalade").await, ["message.forward_of"], "{kind:?}");
            legal_hold::release(&store.db, target, "ops").await.unwrap();
            copies_follow(store).await;
            assert_eq!(places_of(store, "marmalade").await, [""; 0], "{kind:?}");
        }
    }

    async fn an_upgrade_finds_the_copies_whose_originals_are_gone(store: &Store) {
        // An earlier version knew no copy of a user who was taken out.
        for earlier in ["", "DELETE FROM message_forward; "] {
            let (writer, removed, channel, other, alice) = (store.writer(), id(), id(), id(), id());
            let originals = [
                writer.say(removed, alice, "marmalade").await,
                writer.say(channel, alice, "marmalade").await,
                writer.say(channel, alice, "jam").await,
            ];
            for original in &originals {
                forward(&writer, original, (other, alice)).await;
            }
            cut(&store.db, removed, clock::now_micros() + MINUTE).await.unwrap().unwrap();
            writer.delete(&originals[1]).await.unwrap();
            assert!(scrub(&store.db, clock::now_micros() + MINUTE).await.unwrap());
            assert_eq!(places_of(store, "marmalade").await, ["message.forward_of"]);
            store.execute(&format!("{earlier}{BEFORE_ORIGINALS}")).await;
            store.db.migrate().await.unwrap();
            copies_follow(store).await;
            assert_eq!(places_of(store, "marmalade").await, [""; 0]);
            assert_eq!(places_of(store, "jam").await.len(), 2);
            writer.delete(&originals[2]).await.unwrap();
            assert!(scrub(&store.db, clock::now_micros() + MINUTE).await.unwrap());
            copies_follow(store).await;
            assert_eq!(places_of(store, "jam").await, [""; 0]);
        }
    }

    async fn the_text_of_a_deleted_message_goes_when_it_has_been_deleted_for_long_enough(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let sent = writer.say(channel, alice, "marmalade").await;
        baseline(&store.db, bob, &[(channel, Some(0))]).await.unwrap();
        writer.edit(scope(channel, alice), edit(&sent, "marmalade again")).await.unwrap();
        writer.delete(&sent).await.unwrap();
        writer.say(channel, alice, "toast").await;
        let deleted_at = store.seen(bob, channel, sent.id).await.deleted_at.unwrap().0;
        // A tombstone of an earlier version does not know when.
        store.execute("UPDATE message_tombstone SET deleted_at = 0").await;
        assert!(scrub(&store.db, deleted_at).await.unwrap(), "it has looked when that was");
        assert!(!scrub(&store.db, deleted_at).await.unwrap());
        let mut places = places_of(store, "marmalade").await;
        places.sort();
        assert_eq!(places, ["message.body", "message_edit.body"], "it may be asked for");
        assert!(scrub(&store.db, deleted_at + 1).await.unwrap());
        assert!(!scrub(&store.db, deleted_at + 1).await.unwrap());
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(places_of(store, "toast").await, ["message.body"]);
        assert_eq!(unread_count(store, bob, channel).await, 1);
        assert!(store.seen(bob, channel, sent.id).await.deleted_at.is_some(), "its place in the order stays");
    }

    async fn a_hold_keeps_everything_until_it_is_released(store: &Store) {
        let (writer, channel, alice, reader, program) = (store.writer(), id(), id(), id(), id());
        let now = || clock::now_micros() + 10 * MINUTE;
        let expiring = NewMessage { expires_at: Some(clock::now_micros()), ..message("marmalade") };
        writer.send(scope(channel, alice), expiring).await.unwrap();
        let by_program = NewMessage { interactive: false, ..message("in somebody's name") };
        writer.send(scope(channel, program), by_program).await.unwrap();
        baseline(&store.db, reader, &[(channel, None)]).await.unwrap();
        let old = everything(store, &writer, channel, alice, id()).await;
        let all = DeleteMessages { message_ids: old.clone() };
        writer.submit(moderator(channel), all).unwrap().await.unwrap();
        let held = places_of(store, "marmalade").await;
        for (kind, target) in [(HoldKind::Channel, channel), (HoldKind::User, alice)] {
            legal_hold::set(&store.db, (kind, target), "case 7", "ops").await.unwrap();
            assert_eq!(cut(&store.db, channel, now()).await.unwrap(), None);
            assert!(!scrub(&store.db, now()).await.unwrap());
            assert!(expired(&store.db, now()).await.unwrap().is_empty());
            assert!(removable(&store.db, now(), now()).await.unwrap().is_empty());
            for what in [(PurgeKind::Channel, channel), (PurgeKind::User, alice), (PurgeKind::Name, alice)] {
                let refused = Purge::order(&store.db, id(), what, 0, ("ops", "asked for")).await;
                assert_eq!(code(refused), "failed_precondition", "{kind:?} {what:?}");
            }
            assert_eq!(places_of(store, "marmalade").await, held);
            assert!(legal_hold::release(&store.db, target, "ops").await.unwrap());
        }
        legal_hold::set(&store.db, (HoldKind::Channel, channel), "case 8", "ops").await.unwrap();
        for user in [reader, program] {
            let refused = Purge::order(&store.db, id(), (PurgeKind::User, user), 0, ("ops", "asked for")).await;
            assert_eq!(code(refused), "failed_precondition", "who reads here, or is written for");
        }
        legal_hold::release(&store.db, channel, "ops").await.unwrap();
        for target in [reader, program] {
            legal_hold::set(&store.db, (HoldKind::User, target), "case 8", "ops").await.unwrap();
            assert_eq!(cut(&store.db, channel, now()).await.unwrap(), None, "who reads here, or is written for");
            legal_hold::release(&store.db, target, "ops").await.unwrap();
        }
        assert_eq!(expired(&store.db, now()).await.unwrap().len(), 1);
        assert_eq!(removable(&store.db, now(), now()).await.unwrap().len(), 1);
        assert!(scrub(&store.db, now()).await.unwrap());
        assert!(cut(&store.db, channel, now()).await.unwrap().is_some());
    }

    async fn a_purge_under_way_waits_for_a_hold(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        writer.say(channel, alice, "marmalade").await;
        let mut ordered = Purge::order(&store.db, id(), (PurgeKind::Channel, channel), 0, ("ops", "asked for")).await.unwrap();
        legal_hold::set(&store.db, (HoldKind::Channel, channel), "case 7", "ops").await.unwrap();
        assert_eq!(code(ordered.step(&store.db, &writer.appender).await), "failed_precondition");
        assert_eq!(places_of(store, "marmalade").await, ["message.body"]);
        legal_hold::release(&store.db, channel, "ops").await.unwrap();
        while !ordered.is_finished() {
            ordered.step(&store.db, &writer.appender).await.unwrap();
        }
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
    }

    async fn nobody_is_taken_out_of_what_others_said_in_a_channel_on_hold(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let mentions = Mentions { users: vec![bob], ..Mentions::default() };
        let said = NewMessage { mentions, ..message("ask bob") };
        let said = writer.send(scope(channel, alice), said).await.unwrap().0;
        legal_hold::set(&store.db, (HoldKind::Channel, channel), "case 7", "ops").await.unwrap();
        let mut ordered = Purge::order(&store.db, id(), (PurgeKind::Name, bob), 0, ("ops", "asked for")).await.unwrap();
        let mut refused = Ok(());
        while refused.is_ok() && !ordered.is_finished() {
            refused = ordered.step(&store.db, &writer.appender).await;
        }
        assert_eq!(code(refused), "failed_precondition");
        assert_eq!(store.seen(alice, channel, said.id).await.mentions.users, [bob]);
        legal_hold::release(&store.db, channel, "ops").await.unwrap();
        while !ordered.is_finished() {
            ordered.step(&store.db, &writer.appender).await.unwrap();
        }
        assert_ne!(store.seen(alice, channel, said.id).await.mentions.users, [bob]);
    }

    async fn holds_are_listed_with_who_set_and_who_released_them(store: &Store) {
        let (channel, user) = (id(), id());
        let first = legal_hold::set(&store.db, (HoldKind::Channel, channel), "case 7", "ops").await.unwrap();
        let again = legal_hold::set(&store.db, (HoldKind::Channel, channel), "case 9", "others").await.unwrap();
        assert_eq!(again, first, "a target has one hold");
        let second = legal_hold::set(&store.db, (HoldKind::User, user), "", "ops").await.unwrap();
        let list = async |after, released| legal_hold::list(&store.db, after, 10, released).await.unwrap();
        assert_eq!(list(Uuid::nil(), false).await, [first.clone(), second.clone()]);
        assert_eq!(list(first.id, false).await, std::slice::from_ref(&second));
        assert!(legal_hold::release(&store.db, channel, "boss").await.unwrap());
        assert!(!legal_hold::release(&store.db, channel, "boss").await.unwrap());
        assert_eq!(list(Uuid::nil(), false).await, [second]);
        let past = &list(Uuid::nil(), true).await[0];
        assert_eq!((past.released_by.as_deref(), past.set_by.as_str()), (Some("boss"), "ops"));
        let next = legal_hold::set(&store.db, (HoldKind::Channel, channel), "case 9", "others").await.unwrap();
        assert!(next.id != first.id, "a new hold");
    }

    async fn nobody_removes_anything_once_a_hold_is_set(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        join_all((0..30).map(|n| writer.send(scope(channel, alice), message(&n.to_string())))).await;
        let far = clock::now_micros() + MINUTE;
        let cuts = join_all((0..4).map(|_| async {
            cut(&store.db, channel, far).await.unwrap().map_or(0, |cut| cut.removed)
        }));
        let hold = async {
            legal_hold::set(&store.db, (HoldKind::Channel, channel), "", "ops").await.unwrap();
            store.page(channel, Position::Latest, 100).await.messages.len()
        };
        let (removed, left) = tokio::join!(cuts, hold);
        assert_eq!(removed.iter().sum::<usize>() + left, 30, "what was there when it was set is there");
        assert_eq!(store.page(channel, Position::Latest, 100).await.messages.len(), left);
    }
}

const BEFORE_ORIGINALS: &str = "DROP TABLE message_gone; DROP INDEX message_forward_original; DROP INDEX message_forward_gone; \
    ALTER TABLE message_forward DROP COLUMN original_id; ALTER TABLE message_forward DROP COLUMN original_gone; \
    DELETE FROM _sqlx_migrations WHERE version = 98";
