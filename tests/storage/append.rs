//! The write path: numbers, nonces, edits, deletes.

use std::time::Duration;

use imks::testing::models::append::{Authority, Scope};
use imks::testing::models::message_delete::DeleteMessage;
use imks::testing::models::message_edit::{self, EditMessage};
use imks::testing::models::message_page::Position;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::text::Nonce;
use uuid::Uuid;

use crate::support::{author_of, code, edit, id, message, on_both, scope};

on_both! {
    async fn a_message_is_stored_numbered_and_handed_on(store: &Store) {
        let writer = store.writer();
        let (channel, alice) = (id(), id());
        let (first, duplicate) = writer.send(scope(channel, alice), message("hello")).await.unwrap();
        let second = writer.say(channel, alice, "again").await;
        assert_eq!((first.seq, second.seq, duplicate), (1, 2, false));
        assert!(first.id < second.id);
        assert_eq!(store.seen(alice, channel, first.id).await.body, "hello");
        let told = writer.told().await;
        assert!(matches!(&told[..], [("message:new", a), ("message:new", b)] if a["seq"] == 1 && b["seq"] == 2));
    }

    async fn the_same_nonce_is_one_message_and_other_content_is_a_conflict(store: &Store) {
        let writer = store.writer();
        let (channel, alice) = (id(), id());
        let with_nonce = |body: &str| NewMessage { nonce: nonce("n1"), ..message(body) };
        let here = || scope(channel, alice);
        let (first, _) = writer.send(here(), with_nonce("hello")).await.unwrap();
        let (again, duplicate) = writer.send(here(), with_nonce("hello")).await.unwrap();
        assert_eq!((again.id, duplicate), (first.id, true));
        assert_eq!(code(writer.send(here(), with_nonce("other")).await), "nonce_conflict");
        let (elsewhere, duplicate) = writer.send(scope(id(), alice), with_nonce("hello")).await.unwrap();
        assert!(elsewhere.id != first.id && !duplicate);
        assert_eq!(writer.say(channel, alice, "next").await.seq, 2);
    }

    async fn slow_mode_holds_after_a_restart_and_a_retry_passes_it(store: &Store) {
        let (channel, alice, bob) = (id(), id(), id());
        let slow = |channel, author| Scope { slow_mode: Duration::from_secs(3_600), ..scope(channel, author) };
        let send = |name: &str| NewMessage { nonce: nonce(name), ..message("hello") };
        let (first, _) = store.writer().send(slow(channel, alice), send("a")).await.unwrap();
        let writer = store.writer();
        let (again, duplicate) = writer.send(slow(channel, alice), send("a")).await.unwrap();
        assert_eq!((again.id, duplicate), (first.id, true));
        let refusal = writer.send(slow(channel, alice), send("b")).await.unwrap_err();
        assert_eq!((refusal.code().as_str(), refusal.is_retryable()), ("slow_mode", true));
        assert!(refusal.retry_after().is_some_and(|wait| wait > Duration::from_secs(3_500)));
        writer.send(slow(channel, bob), send("b")).await.unwrap();
        writer.send(slow(id(), alice), send("b")).await.unwrap();
        assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 3);
    }

    async fn slow_mode_counts_scheduled_messages_too_and_they_do_not_read_the_channel(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let slow = || Scope { slow_mode: Duration::from_secs(3_600), ..scope(channel, alice) };
        writer.say(channel, bob, "unread").await;
        let later = || NewMessage { scheduled_id: Some(id()), interactive: false, ..message("later") };
        writer.send(slow(), later()).await.unwrap();
        assert_eq!(code(writer.send(slow(), later()).await), "slow_mode");
        assert_eq!(code(writer.send(slow(), message("now")).await), "slow_mode");
        assert_eq!(store.number("SELECT CAST(MAX(last_seq) AS BIGINT) FROM message_author WHERE last_at > 0 AND last_seq <> 1").await, 0);
    }

    async fn of_a_burst_in_slow_mode_one_message_passes_and_its_repeat_is_no_second_one(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let slow = || Scope { slow_mode: Duration::from_secs(3_600), ..scope(channel, alice) };
        let send = |name: &str| NewMessage { nonce: nonce(name), ..message("hello") };
        let receipts = ["a", "b", "a", "c"].map(|name| writer.submit(slow(), send(name)).unwrap());
        let free = writer.submit(scope(channel, alice), send("d")).unwrap();
        let mut outcomes = Vec::new();
        for receipt in receipts {
            let outcome = receipt.await.map(|sent| (sent.message.seq, sent.duplicate));
            outcomes.push(outcome.map_err(|error| error.code().as_str()));
        }
        assert_eq!(outcomes, [Ok((1, false)), Err("slow_mode"), Ok((1, true)), Err("slow_mode")]);
        assert_eq!(free.await.unwrap().message.seq, 2);
    }

    async fn a_repeat_is_found_though_the_thread_is_deleted_and_no_repeat_is_expected(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let root = writer.say(channel, alice, "root").await;
        let reply = || NewMessage { thread_id: Some(root.id), nonce: nonce("r"), ..message("reply") };
        let (first, _) = writer.send(scope(channel, alice), reply()).await.unwrap();
        writer.delete(&root).await.unwrap();
        let (again, duplicate) = writer.send(scope(channel, alice), reply()).await.unwrap();
        assert_eq!((again.id, duplicate), (first.id, true));
        let new = NewMessage { nonce: nonce("s"), ..reply() };
        assert_eq!(code(writer.send(scope(channel, alice), new).await), "message_deleted");
    }

    async fn a_burst_of_repeats_in_one_batch_is_one_message(store: &Store) {
        let writer = store.writer();
        let (channel, alice) = (id(), id());
        let send = || NewMessage { nonce: nonce("n"), ..message("hello") };
        let receipts: Vec<_> = (0..50).map(|_| writer.submit(scope(channel, alice), send()).unwrap()).collect();
        let mut ids: Vec<Uuid> = Vec::new();
        for receipt in receipts {
            ids.push(receipt.await.unwrap().message.id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 1);
        assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 1);
    }

    async fn an_edit_keeps_the_old_text_and_the_same_text_changes_nothing(store: &Store) {
        let writer = store.writer();
        let original = writer.say(id(), id(), "helo").await;
        let edited = writer.edit(author_of(&original), edit(&original, "hello")).await.unwrap();
        assert_eq!((edited.body.as_str(), edited.version, edited.rev), ("hello", 2, 1));
        let same = writer.edit(author_of(&original), edit(&original, "hello")).await.unwrap();
        assert_eq!((same.version, same.rev), (2, 1));
        let stale = EditMessage { expected_version: Some(1), ..edit(&original, "late") };
        assert_eq!(code(writer.edit(author_of(&original), stale).await), "version_mismatch");
        let history = message_edit::edits(&store.db, original.channel_id, original.id).await.unwrap();
        assert_eq!(history.iter().map(|edit| (edit.version, edit.body.as_str())).collect::<Vec<_>>(), [(1, "helo")]);
    }

    async fn only_the_last_fifty_texts_are_kept(store: &Store) {
        let writer = store.writer();
        let original = writer.say(id(), id(), "0").await;
        for version in 1..=60 {
            writer.edit(author_of(&original), edit(&original, &version.to_string())).await.unwrap();
        }
        let history = message_edit::edits(&store.db, original.channel_id, original.id).await.unwrap();
        assert_eq!((history.len(), history[0].body.as_str(), history[49].body.as_str()), (50, "59", "10"));
    }

    async fn a_deleted_message_is_a_tombstone_and_deleting_it_again_is_fine(store: &Store) {
        let writer = store.writer();
        let channel = id();
        let message = writer.say(channel, id(), "secret").await;
        assert_eq!(writer.delete(&message).await.unwrap(), 1);
        assert_eq!(writer.delete(&message).await.unwrap(), 1);
        assert_eq!(code(writer.edit(author_of(&message), edit(&message, "back")).await), "message_deleted");
        let page = store.page(channel, Position::Latest, 10).await;
        assert!(page.messages[0].body.is_empty() && page.messages[0].deleted_at.is_some());
        assert!(!serde_json::to_string(&page).unwrap().contains("secret"));
    }

    async fn nobody_but_its_author_and_a_moderator_changes_a_message(store: &Store) {
        let writer = store.writer();
        let (channel, bob) = (id(), id());
        let message = writer.say(channel, id(), "mine").await;
        let delete = DeleteMessage { message_id: message.id };
        assert_eq!(code(writer.edit(scope(channel, bob), edit(&message, "yours")).await), "forbidden");
        assert_eq!(code(writer.submit(scope(channel, bob), delete).unwrap().await), "forbidden");
        let moderator = Scope { authority: Authority::Any, ..scope(channel, bob) };
        let deleted = writer.submit(moderator, delete).unwrap().await.unwrap();
        assert_eq!(deleted.deleted_by, bob);
    }

    async fn a_message_of_another_channel_does_not_exist(store: &Store) {
        let (writer, alice) = (store.writer(), id());
        let theirs = writer.say(id(), alice, "theirs").await;
        assert_eq!(code(writer.edit(scope(id(), alice), edit(&theirs, "mine")).await), "not_found");
        let reply = NewMessage { reply_to_message_id: Some(theirs.id), ..message("re") };
        assert_eq!(code(writer.send(scope(id(), alice), reply).await), "not_found");
        let reply = NewMessage { thread_id: Some(theirs.id), ..message("re") };
        assert_eq!(code(writer.send(scope(id(), alice), reply).await), "not_found");
    }

    async fn a_reply_quotes_what_it_answers_as_it_is_now(store: &Store) {
        let writer = store.writer();
        let (channel, alice) = (id(), id());
        let question = writer.say(channel, alice, "why?").await;
        let reply = NewMessage { reply_to_message_id: Some(question.id), ..message("so") };
        let (reply, _) = writer.send(scope(channel, alice), reply).await.unwrap();
        assert_eq!(reply.reply_to.as_ref().unwrap().body, "why?");
        writer.delete(&question).await.unwrap();
        let read = store.seen(alice, channel, reply.id).await.reply_to.unwrap();
        assert!(read.body.is_empty() && read.deleted_at.is_some());
    }
}

fn nonce(text: &str) -> Option<Nonce> {
    Some(Nonce::new(text).unwrap())
}
