//! Attachments: who keeps them, what they count, and when their bytes are removed.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use imks::error::Code;
use imks::testing::clock::{self, Micros};
use imks::testing::models::message_attachment::{
    Attachment, NewAttachment, complete, create, give_up, removable, removed,
};
use imks::testing::models::message_delete::DeleteMessage;
use imks::testing::models::message_edit::EditMessage;
use imks::testing::models::message_scheduled::{
    self, NewScheduled, Scheduled, ScheduledChange, change, fail, take_due,
};
use imks::testing::models::message_scheduled_send::SendScheduled;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::text::Nonce;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Store, code, edit, id, message, on_both, scope};

const DAY: Micros = 24 * 3_600 * 1_000_000;
const LATER: Micros = 60 * 1_000_000;

fn new(user: Uuid, channel: Uuid, size: i64) -> NewAttachment {
    NewAttachment {
        id: id(),
        channel_id: channel,
        uploader_id: user,
        filename: serde_json::from_value(json!("a.txt")).unwrap(),
        mime: serde_json::from_value(json!("text/plain")).unwrap(),
        size,
        sha256: None,
        width: None,
        height: None,
    }
}

/// A file that is uploaded.
async fn uploaded(store: &Store, user: Uuid, channel: Uuid) -> Attachment {
    let now = clock::now_micros();
    let created = create(&store.db, new(user, channel, 5), 1 << 20, now).await.unwrap();
    complete(&store.db, user, created.id, now).await.unwrap()
}

async fn schedule(
    store: &Store,
    user: Uuid,
    channel: Uuid,
    files: &[Uuid],
) -> Result<Scheduled, imks::ImksError> {
    let new = NewScheduled {
        author_id: user,
        channel_id: channel,
        nonce: None,
        payload: "{}".into(),
        attachments: files.to_vec(),
        send_at: clock::now_micros(),
        clears_draft: None,
    };
    Ok(message_scheduled::create(&store.db, new).await?.0)
}

/// Two days pass for the files.
async fn two_days_pass(store: &Store) {
    store.execute("UPDATE message_attachment SET created_at = created_at - 172800000000").await;
}

/// The files whose bytes go now.
async fn swept(store: &Store) -> Vec<Uuid> {
    let now = clock::now_micros();
    removable(&store.db, now, now - DAY).await.unwrap().into_iter().map(|file| file.id).collect()
}

on_both! {
    async fn the_files_of_a_scheduled_message_are_there_when_it_is_sent_days_later(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let file = uploaded(store, alice, channel).await;
        schedule(store, alice, channel, &[file.id]).await.unwrap();
        two_days_pass(store).await;
        assert!(swept(store).await.is_empty());
        let due = take_due(&store.db, clock::now_micros()).await.unwrap().remove(0);
        let nonce = Some(Nonce::new(&due.id.to_string()).unwrap());
        let attachments = vec![file.id];
        let later = NewMessage { nonce, attachments, interactive: false, ..message("later") };
        assert_eq!(code(writer.send(scope(channel, alice), later.clone()).await), "conflict", "it is kept for another");
        let message = NewMessage { scheduled_id: Some(due.id), ..later };
        let sent = writer.submit(scope(channel, alice), SendScheduled { due, message }).unwrap().await.unwrap();
        assert_eq!(sent.message.attachment_count, 1);
        assert!(swept(store).await.is_empty());
    }

    async fn a_file_that_an_edit_adds_goes_with_its_message_though_that_is_deleted_at_once(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let (other, message) = (writer.say(channel, alice, "other").await, writer.say(channel, alice, "x").await);
        let (first, second) = (uploaded(store, alice, channel).await.id, uploaded(store, alice, channel).await.id);
        let with = |message, file| EditMessage { attachments: Some(vec![file]), ..edit(message, "y") };
        writer.edit(scope(channel, alice), with(&other, first)).await.unwrap();
        // One batch, whose first deletion is that of the other message.
        let delete = |message_id| writer.submit(scope(channel, alice), DeleteMessage { message_id }).unwrap();
        let _busy = writer.submit(scope(channel, alice), DeleteMessage { message_id: id() }).unwrap();
        let gone = delete(other.id);
        let edited = writer.submit(scope(channel, alice), with(&message, second)).unwrap();
        let gone_too = delete(message.id);
        gone.await.unwrap();
        assert_eq!(edited.await.unwrap().attachment_count, 1);
        gone_too.await.unwrap();
        assert_eq!(swept(store).await.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([first, second]));
    }

    async fn the_files_of_a_scheduled_message_go_when_it_will_not_be_sent(store: &Store) {
        let (db, channel, alice) = (&store.db, id(), id());
        let files = [uploaded(store, alice, channel).await.id, uploaded(store, alice, channel).await.id];
        let first = schedule(store, alice, channel, &files[..1]).await.unwrap();
        assert_eq!(code(schedule(store, alice, channel, &files[..1]).await), "conflict", "a file has one message");
        assert_eq!(code(schedule(store, alice, id(), &files[1..]).await), "not_found", "of another channel");
        assert_eq!(code(schedule(store, id(), channel, &files[1..]).await), "not_found", "of another user");
        assert!(!give_up(db, alice, files[0], clock::now_micros()).await.unwrap());
        let replace = ScheduledChange::Replace { send_at: clock::now_micros(), payload: "{ }".into(), attachments: files[1..].to_vec() };
        change(db, alice, first.id, None, replace).await.unwrap();
        two_days_pass(store).await;
        assert_eq!(swept(store).await, files[..1], "it was taken out of the message");
        change(db, alice, first.id, None, ScheduledChange::Cancel).await.unwrap();
        assert_eq!(swept(store).await.len(), 2);
        let other = uploaded(store, alice, channel).await;
        schedule(store, alice, channel, &[other.id]).await.unwrap();
        two_days_pass(store).await;
        let due = take_due(db, clock::now_micros()).await.unwrap().remove(0);
        assert!(!swept(store).await.contains(&other.id));
        fail(db, &due, Code::Forbidden).await.unwrap();
        assert!(swept(store).await.contains(&other.id));
    }

    async fn a_file_that_was_given_up_counts_until_nothing_can_be_uploaded_in_its_place(store: &Store) {
        let (db, channel, alice, now) = (&store.db, id(), id(), clock::now_micros());
        let first = create(db, new(alice, channel, 8), 12, now).await.unwrap();
        assert!(give_up(db, alice, first.id, now).await.unwrap());
        let file = removable(db, now, now - LATER).await.unwrap().remove(0);
        assert_eq!((file.id, file.is_last), (first.id, false), "the bytes go at once");
        removed(db, file, now).await.unwrap();
        assert_eq!(removable(db, now, now - LATER).await.unwrap(), []);
        assert_eq!(code(create(db, new(alice, channel, 5), 12, now).await), "limit_reached");
        let file = removable(db, now + 2 * LATER, now + LATER).await.unwrap().remove(0);
        assert!(file.is_last, "whatever was uploaded since goes too");
        removed(db, file, now).await.unwrap();
        create(db, new(alice, channel, 5), 12, now).await.unwrap();
    }

    async fn however_many_files_are_announced_at_once_they_stay_within_the_quota(store: &Store) {
        let (db, channel, alice, now) = (&store.db, id(), id(), clock::now_micros());
        let created = join_all((0..12).map(|_| create(db, new(alice, channel, 5), 20, now))).await;
        assert_eq!(created.iter().filter(|it| it.is_ok()).count(), 4);
    }
}
