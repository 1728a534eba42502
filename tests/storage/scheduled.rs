//! Scheduled messages: one of many nodes sends each, whatever ends in between.

use std::collections::HashSet;

use futures_util::future::join_all;
use imks::testing::clock::{self, Micros};
use imks::testing::models::db::Db;
use imks::testing::models::message_scheduled::{
    DueMessage, LEASE, NewScheduled, SCHEDULED_MAX, Scheduled, ScheduledChange, ScheduledState, change,
    create, fail, get, retry, take_due,
};
use imks::testing::models::message_scheduled_send::SendScheduled;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::sweep::{CHANGES_LIFETIME, forget_removed};
use imks::testing::models::text::Nonce;
use imks::testing::models::user_stream::{changes, last_rev};
use uuid::Uuid;

use crate::support::{Store, Writer, code, id, message, on_both, scope};

fn new(author_id: Uuid, channel_id: Uuid, send_at: Micros) -> NewScheduled {
    let (attachments, payload) = (Vec::new(), "{}".into());
    NewScheduled { author_id, channel_id, nonce: None, payload, attachments, send_at, clears_draft: None }
}

/// A scheduled message that is due now.
async fn due_now(store: &Store, author: Uuid, channel: Uuid) -> Scheduled {
    create(&store.db, new(author, channel, clock::now_micros())).await.unwrap().0
}

/// What a node with this lease does.
async fn send(writer: &Writer, channel: Uuid, due: &DueMessage) -> Result<Uuid, imks::ImksError> {
    let nonce = Some(Nonce::new(&due.id.to_string()).unwrap());
    let message = NewMessage { nonce, scheduled_id: Some(due.id), interactive: false, ..message("later") };
    let send = SendScheduled { due: due.clone(), message };
    writer.submit(scope(channel, due.user_id), send)?.await.map(|sent| sent.message.id)
}

on_both! {
    async fn a_node_that_ends_at_any_step_neither_loses_nor_doubles_a_message(store: &Store) {
        let (db, writer, channel, alice) = (&store.db, store.writer(), id(), id());
        let scheduled = due_now(store, alice, channel).await;
        let now = clock::now_micros();
        // The first node ends when it has taken the message: another one takes it when the lease has ended.
        let dead = take_due(db, now).await.unwrap().remove(0);
        assert_eq!(get(db, alice, scheduled.id).await.unwrap().state, ScheduledState::Dispatching);
        assert!(take_due(db, now + LEASE - 1).await.unwrap().is_empty());
        let heir = take_due(db, now + LEASE).await.unwrap().remove(0);
        // The first one was only slow: it can neither send the message, nor give it back, nor let it fail.
        assert_eq!(code(send(&writer, channel, &dead).await), "unavailable");
        retry(db, &dead, now).await.unwrap();
        assert_eq!(fail(db, &dead, imks::error::Code::Forbidden).await.unwrap(), None);
        let sent = send(&writer, channel, &heir).await.unwrap();
        // The second node ends before it tells anybody: the message is stored as sent, and nobody takes it again.
        assert!(take_due(db, now + 100 * LEASE).await.unwrap().is_empty());
        assert_eq!(code(send(&writer, channel, &heir).await), "unavailable");
        let stored = get(db, alice, scheduled.id).await.unwrap();
        assert_eq!((stored.state, stored.message_id, stored.version, stored.user_rev), (ScheduledState::Sent, Some(sent), 2, 2));
        assert_eq!(changes(db, alice, 1).await.unwrap().scheduled, [stored], "devices that are away learn of it");
        assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 1);
    }

    async fn each_message_is_taken_by_one_of_many_nodes_and_all_are_sent(store: &Store) {
        let (db, writer, channel, alice) = (&store.db, store.writer(), id(), id());
        for _ in 0..20 {
            due_now(store, alice, channel).await;
        }
        let nodes = join_all((0..4).map(|_| take_due(db, clock::now_micros()))).await;
        let taken: Vec<DueMessage> = nodes.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!((taken.len(), taken.iter().map(|due| due.id).collect::<HashSet<_>>().len()), (20, 20));
        let sent = join_all(taken.iter().map(|due| send(&writer, channel, due))).await;
        assert_eq!(sent.into_iter().map(Result::unwrap).collect::<HashSet<_>>().len(), 20);
        assert_eq!(store.number("SELECT COUNT(*) FROM message_scheduled WHERE state = 2").await, 20);
    }

    async fn a_message_that_is_being_sent_cannot_be_cancelled_until_it_is_given_back(store: &Store) {
        let (db, writer, channel, alice) = (&store.db, store.writer(), id(), id());
        let scheduled = due_now(store, alice, channel).await;
        let now = clock::now_micros();
        let due = take_due(db, now).await.unwrap().remove(0);
        let cancel = || change(db, alice, scheduled.id, None, ScheduledChange::Cancel);
        assert_eq!(code(cancel().await), "failed_precondition");
        retry(db, &due, now + LEASE).await.unwrap();
        assert!(take_due(db, now).await.unwrap().is_empty(), "not yet again");
        assert_eq!(cancel().await.unwrap().0.state, ScheduledState::Cancelled);
        assert!(take_due(db, now + 100 * LEASE).await.unwrap().is_empty());
        assert_eq!(code(send(&writer, channel, &due).await), "unavailable");
        assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 0);
    }

    async fn a_failure_is_stored_with_its_code_and_takes_a_number_of_the_stream(store: &Store) {
        let (db, alice) = (&store.db, id());
        let scheduled = due_now(store, alice, id()).await;
        let due = take_due(db, clock::now_micros()).await.unwrap().remove(0);
        let failed = fail(db, &due, imks::error::Code::ChannelArchived).await.unwrap().unwrap();
        assert_eq!((failed.id, failed.state, failed.error.as_deref()), (scheduled.id, ScheduledState::Failed, Some("channel_archived")));
        assert_eq!(fail(db, &due, imks::error::Code::Forbidden).await.unwrap(), None);
        assert_eq!(last_rev(db, alice).await.unwrap(), 2);
    }

    async fn a_hundred_messages_of_a_user_may_wait_and_a_repeated_request_is_not_another_one(store: &Store) {
        let (db, alice, channel, later) = (&store.db, id(), id(), clock::now_micros() + LEASE);
        let first = NewScheduled { nonce: Some(Nonce::new("n").unwrap()), ..new(alice, channel, later) };
        let (scheduled, is_new) = create(db, first.clone()).await.unwrap();
        assert!(is_new);
        for _ in 1..SCHEDULED_MAX {
            create(db, new(alice, channel, later)).await.unwrap();
        }
        assert_eq!(code(create(db, new(alice, channel, later)).await), "limit_reached");
        assert_eq!(create(db, first.clone()).await.unwrap(), (scheduled.clone(), false));
        let other = NewScheduled { send_at: later + 1, ..first };
        assert_eq!(code(create(db, other).await), "nonce_conflict");
        assert_eq!(last_rev(db, alice).await.unwrap(), SCHEDULED_MAX, "a refusal takes no number");
        change(db, alice, scheduled.id, None, ScheduledChange::Cancel).await.unwrap();
        create(db, new(alice, channel, later)).await.unwrap();
    }

    async fn what_was_settled_long_ago_is_forgotten_and_what_waits_is_not(store: &Store) {
        let (db, alice, channel, later) = (&store.db, id(), id(), clock::now_micros() + LEASE);
        let gone = create(db, new(alice, channel, later)).await.unwrap().0;
        let kept = create(db, new(alice, channel, later)).await.unwrap().0;
        change(db, alice, gone.id, None, ScheduledChange::Cancel).await.unwrap();
        forget_removed(db, clock::now_micros() + 2 * CHANGES_LIFETIME).await.unwrap();
        assert_eq!(code(get(db, alice, gone.id).await), "not_found");
        let old = changes(db, alice, 1).await.unwrap();
        assert_eq!((old.reset, old.scheduled), (true, vec![kept]));
    }
}

/// On SQLite, nobody else writes meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_passes_on_while_its_message_is_being_stored_sends_nothing() {
    let store = &Store::postgres().await;
    let (db, writer, channel, alice) = (&store.db, store.writer(), id(), id());
    due_now(store, alice, channel).await;
    let due = take_due(db, clock::now_micros()).await.unwrap().remove(0);
    let Db::Postgres(pool) = db else { panic!("not PostgreSQL") };
    let mut other = pool.begin().await.unwrap();
    sqlx::query("UPDATE message_scheduled SET attempts = attempts + 1").execute(&mut *other).await.unwrap();
    let late = send(&writer, channel, &due);
    let until_it_waits = async {
        let waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted \
            AND transactionid = pg_current_xact_id()::xid";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *other).await.unwrap() == 0 {}
    };
    let mut late = std::pin::pin!(late);
    tokio::select! {
        sent = &mut late => panic!("{sent:?}"),
        () = until_it_waits => {}
    }
    other.commit().await.unwrap();
    assert_eq!(code(late.await), "unavailable");
    assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 0);
}
