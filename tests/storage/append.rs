//! The write path: numbers, nonces, edits, deletes.

use std::time::Duration;

use imks::testing::models::append::{Committed, EditMessage, NewMessage, Write};
use imks::testing::models::message::{self, Page, Position};
use imks::testing::models::message_edit;
use uuid::Uuid;

use crate::support::{code, edit, id, message, on_both};

on_both! {
    async fn a_message_is_stored_numbered_and_handed_on(store: &Store) {
        let mut writer = store.writer();
        let (channel, alice) = (id(), id());
        let (first, duplicate) = writer.send(message(channel, alice, "hello")).await.unwrap();
        let second = writer.say(channel, alice, "again").await;
        assert_eq!((first.seq, second.seq, duplicate), (1, 2, false));
        assert!(first.id < second.id);
        assert_eq!(message::get(&store.db, channel, first.id).await.unwrap().body, "hello");
        writer.appender.drain().await;
        let mut news = Vec::new();
        for commits in &mut writer.commits {
            while let Some(batch) = commits.recv().await {
                news.extend(batch);
            }
        }
        assert!(matches!(&news[..], [Committed::Sent(a), Committed::Sent(b)] if a.seq == 1 && b.seq == 2));
    }

    async fn the_same_nonce_is_one_message_and_other_content_is_a_conflict(store: &Store) {
        let writer = store.writer();
        let (channel, alice) = (id(), id());
        let with_nonce = |body: &str| NewMessage { nonce: Some("n1".into()), ..message(channel, alice, body) };
        let (first, _) = writer.send(with_nonce("hello")).await.unwrap();
        let (again, duplicate) = writer.send(with_nonce("hello")).await.unwrap();
        assert_eq!((again.id, duplicate), (first.id, true));
        assert_eq!(code(writer.send(with_nonce("other")).await), "nonce_conflict");
        let (elsewhere, duplicate) =
            writer.send(NewMessage { channel_id: id(), ..with_nonce("hello") }).await.unwrap();
        assert!(elsewhere.id != first.id && !duplicate);
        assert_eq!(writer.say(channel, alice, "next").await.seq, 2);
    }

    async fn slow_mode_holds_after_a_restart_and_a_retry_passes_it(store: &Store) {
        let (channel, alice, bob) = (id(), id(), id());
        let slow = |author, nonce: &str| NewMessage {
            nonce: Some(nonce.into()),
            slow_mode: Duration::from_secs(3_600),
            ..message(channel, author, "hello")
        };
        let (first, _) = store.writer().send(slow(alice, "a")).await.unwrap();
        let writer = store.writer();
        let (again, duplicate) = writer.send(slow(alice, "a")).await.unwrap();
        assert_eq!((again.id, duplicate), (first.id, true));
        let refusal = writer.send(slow(alice, "b")).await.unwrap_err();
        assert_eq!((refusal.code().as_str(), refusal.is_retryable()), ("slow_mode", true));
        assert!(refusal.retry_after().is_some_and(|wait| wait > Duration::from_secs(3_500)));
        writer.send(slow(bob, "b")).await.unwrap();
        let elsewhere = NewMessage { channel_id: id(), ..slow(alice, "b") };
        writer.send(elsewhere).await.unwrap();
        assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 3);
    }

    async fn a_burst_of_repeats_in_one_batch_is_one_message(store: &Store) {
        let writer = store.writer();
        let (channel, alice) = (id(), id());
        let send = || Write::Send(NewMessage { nonce: Some("n".into()), ..message(channel, alice, "hello") });
        let receipts: Vec<_> = (0..50).map(|_| writer.appender.submit(send()).unwrap()).collect();
        let mut ids: Vec<Uuid> = Vec::new();
        for receipt in receipts {
            let imks::testing::models::append::Outcome::Sent { message, .. } = receipt.await.unwrap() else { panic!() };
            ids.push(message.id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 1);
        assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 1);
    }

    async fn an_edit_keeps_the_old_text_and_the_same_text_changes_nothing(store: &Store) {
        let writer = store.writer();
        let original = writer.say(id(), id(), "helo").await;
        let (edited, changed) = writer.edit(edit(&original, "hello")).await.unwrap();
        assert_eq!((edited.body.as_str(), edited.version, edited.rev, changed), ("hello", 2, 1, true));
        let (same, changed) = writer.edit(edit(&original, "hello")).await.unwrap();
        assert_eq!((same.version, same.rev, changed), (2, 1, false));
        let stale = EditMessage { expected_version: Some(1), ..edit(&original, "late") };
        assert_eq!(code(writer.edit(stale).await), "version_mismatch");
        let foreign = EditMessage { required_author: Some(id()), ..edit(&original, "mine") };
        assert_eq!(code(writer.edit(foreign).await), "forbidden");
        let history = message_edit::edits(&store.db, original.channel_id, original.id).await.unwrap();
        assert_eq!(history.iter().map(|edit| (edit.version, edit.body.as_str())).collect::<Vec<_>>(), [(1, "helo")]);
    }

    async fn only_the_last_fifty_texts_are_kept(store: &Store) {
        let writer = store.writer();
        let original = writer.say(id(), id(), "0").await;
        for version in 1..=60 {
            writer.edit(edit(&original, &version.to_string())).await.unwrap();
        }
        let history = message_edit::edits(&store.db, original.channel_id, original.id).await.unwrap();
        assert_eq!((history.len(), history[0].body.as_str(), history[49].body.as_str()), (50, "59", "10"));
    }

    async fn a_deleted_message_is_a_tombstone_and_deleting_it_again_is_fine(store: &Store) {
        let writer = store.writer();
        let channel = id();
        let message = writer.say(channel, id(), "secret").await;
        assert_eq!(writer.delete(&message).await.unwrap(), (1, true));
        assert_eq!(writer.delete(&message).await.unwrap(), (1, false));
        assert_eq!(code(writer.edit(edit(&message, "back")).await), "message_deleted");
        let page = Page { position: Position::Latest, thread_id: None, limit: 10 };
        let page = message::page(&store.db, channel, page).await.unwrap();
        assert!(page.messages[0].body.is_empty() && page.messages[0].deleted_at.is_some());
        assert!(!serde_json::to_string(&page).unwrap().contains("secret"));
    }

    async fn a_message_of_another_channel_does_not_exist(store: &Store) {
        let writer = store.writer();
        let theirs = writer.say(id(), id(), "theirs").await;
        let elsewhere = EditMessage { channel_id: id(), ..edit(&theirs, "mine") };
        assert_eq!(code(writer.edit(elsewhere).await), "not_found");
        let reply = NewMessage { reply_to_message_id: Some(theirs.id), ..message(id(), id(), "re") };
        assert_eq!(code(writer.send(reply).await), "not_found");
        let reply = NewMessage { thread_id: Some(theirs.id), ..message(id(), id(), "re") };
        assert_eq!(code(writer.send(reply).await), "not_found");
    }

    async fn a_reply_quotes_what_it_answers_as_it_is_now(store: &Store) {
        let writer = store.writer();
        let (channel, alice) = (id(), id());
        let question = writer.say(channel, alice, "why?").await;
        let reply = NewMessage { reply_to_message_id: Some(question.id), ..message(channel, alice, "so") };
        let (reply, _) = writer.send(reply).await.unwrap();
        assert_eq!(reply.reply_to.as_ref().unwrap().body, "why?");
        writer.delete(&question).await.unwrap();
        let read = message::get(&store.db, channel, reply.id).await.unwrap().reply_to.unwrap();
        assert!(read.body.is_empty() && read.deleted_at.is_some());
    }

    async fn text_that_one_database_could_not_store_is_refused_by_both(store: &Store) {
        let writer = store.writer();
        assert_eq!(code(writer.send(message(id(), id(), "nul\0")).await), "invalid_input");
    }
}
