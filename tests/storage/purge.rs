//! Purges: what is deleted for good is nowhere any more, and everything that counts messages is right afterwards.

use futures_util::future::join_all;
use imks::testing::models::append::{Appender, Scope};
use imks::testing::models::db::Db;
use imks::testing::models::emoji::Emoji;
use imks::testing::models::message::AuthorInfo;
use imks::testing::models::message_draft::{NewDraft, set};
use imks::testing::models::message_page::Position;
use imks::testing::models::message_reaction::AddReaction;
use imks::testing::models::message_read_state::{baseline, unread};
use imks::testing::models::purge::{Purge, PurgeKind};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{Store, Writer, edit, id, message, on_both, scope};

/// Takes all steps, each as a node that has just started.
async fn finish(store: &Store, appender: &Appender, ordered: &Purge) -> Purge {
    let mut purge = ordered.clone();
    while !purge.is_finished() {
        purge = purge.renewed(&store.opened_again().await).await.unwrap();
        purge.step(&store.db, appender).await.unwrap();
    }
    purge
}

/// The tables and columns in which a text stands.
async fn places_of(store: &Store, text: &str) -> Vec<String> {
    let columns: Vec<(String, String)> = match &store.db {
        Db::Postgres(pool) => sqlx::query_as(
            "SELECT table_name::TEXT, column_name::TEXT FROM information_schema.columns \
             WHERE table_schema = current_schema() AND data_type = 'text'",
        )
        .fetch_all(pool)
        .await
        .unwrap(),
        Db::Sqlite(sqlite) => sqlx::query_as(
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND c.type = 'TEXT'",
        )
        .fetch_all(&sqlite.reader)
        .await
        .unwrap(),
    };
    let mut places = Vec::new();
    for (table, column) in columns {
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE {column} LIKE '%{text}%'");
        let count: i64 = match &store.db {
            Db::Postgres(pool) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap(),
            Db::Sqlite(sqlite) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&sqlite.reader).await.unwrap()
            }
        };
        if count > 0 {
            places.push(format!("{table}.{column}"));
        }
    }
    places
}

async fn react(writer: &Writer, channel: Uuid, user: Uuid, message_id: Uuid) {
    let add = AddReaction { message_id, emoji: Emoji::new("👍").unwrap() };
    writer.submit(scope(channel, user), add).unwrap().await.unwrap();
}

async fn unread_count(store: &Store, reader: Uuid, channel: Uuid) -> i64 {
    unread(&store.db, reader, &[channel]).await.unwrap()[0].unread_count
}

on_both! {
    async fn of_a_purged_channel_only_the_numbers_are_left(store: &Store) {
        let (writer, channel, alice, reader) = (store.writer(), id(), id(), id());
        let first = writer.say(channel, alice, "marmalade").await;
        baseline(&store.db, reader, &[(channel, None)]).await.unwrap();
        writer.edit(scope(channel, alice), edit(&first, "marmalade again")).await.unwrap();
        react(&writer, channel, reader, first.id).await;
        join_all((0..1_100).map(|n| writer.send(scope(channel, alice), message(&format!("marmalade {n}"))))).await;
        assert_eq!(unread_count(store, reader, channel).await, 1_100);
        let ordered = Purge::order(&store.db, id(), (PurgeKind::Channel, channel), 0, "ops").await.unwrap();
        assert_eq!(Purge::next(&store.db, Uuid::nil()).await.unwrap().as_ref(), Some(&ordered));
        let done = finish(store, &writer.appender, &ordered).await;
        assert_eq!((done.purged, Purge::next(&store.db, Uuid::nil()).await.unwrap()), (1_101, None));
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(unread_count(store, reader, channel).await, 0);
        assert_eq!(store.number("SELECT message_count FROM channel_state").await, 0);
        let next = writer.say(channel, alice, "after").await;
        assert_eq!((next.seq, unread_count(store, reader, channel).await), (1_102, 1));
        let told = writer.told().await;
        assert_eq!(told.iter().filter(|(event, _)| *event == "message:deleted").count(), 1_101);
    }

    async fn only_what_is_older_goes_where_a_time_is_given(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        writer.say(channel, alice, "marmalade").await;
        let kept = writer.say(channel, alice, "kept").await;
        let ordered = Purge::order(&store.db, id(), (PurgeKind::Channel, channel), kept.created_at.0, "ops").await.unwrap();
        assert_eq!(finish(store, &writer.appender, &ordered).await.purged, 1);
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(store.page(channel, Position::Latest, 10).await.messages.last().unwrap().body.as_str(), "kept");
    }

    async fn a_repeated_request_deletes_nothing_that_was_written_since(store: &Store) {
        let (writer, channel, alice, request) = (store.writer(), id(), id(), id());
        writer.say(channel, alice, "marmalade").await;
        let what = (PurgeKind::Channel, channel);
        let ordered = Purge::order(&store.db, request, what, 0, "ops").await.unwrap();
        let done = finish(store, &writer.appender, &ordered).await;
        writer.say(channel, alice, "after").await;
        let again = Purge::order(&store.db, request, what, 0, "ops").await.unwrap();
        assert_eq!((again.id(), again.purged, again.is_finished()), (done.id(), 1, true));
        let other = Purge::order(&store.db, request, (PurgeKind::User, alice), 0, "ops").await.unwrap_err();
        assert_eq!(other.code().as_str(), "nonce_conflict");
        assert_eq!(Purge::next(&store.db, Uuid::nil()).await.unwrap(), None);
    }

    async fn of_an_erased_user_nothing_is_left_and_of_others_everything(store: &Store) {
        let (writer, one, two, alice, bob) = (store.writer(), id(), id(), id(), id());
        let name = AuthorInfo { id: alice, username: "marmalade".into() };
        let by_alice = |channel| Scope { actor: name.clone(), ..scope(channel, alice) };
        for channel in [one, two] {
            writer.send(by_alice(channel), message("marmalade")).await.unwrap();
        }
        let bobs = writer.say(one, bob, "bread").await;
        baseline(&store.db, bob, &[(one, None)]).await.unwrap();
        writer.send(by_alice(one), message("marmalade and butter")).await.unwrap();
        react(&writer, one, alice, bobs.id).await;
        react(&writer, one, bob, bobs.id).await;
        let draft = NewDraft {
            channel_id: one,
            thread_id: None,
            body: serde_json::from_value("marmalade".into()).unwrap(),
            reply_to_message_id: None,
            base_version: None,
        };
        set(&store.db, alice, draft).await.unwrap();
        let ordered = Purge::order(&store.db, id(), (PurgeKind::User, alice), 0, "ops").await.unwrap();
        assert_eq!(Purge::order(&store.db, id(), (PurgeKind::User, alice), 0, "ops").await.unwrap(), ordered, "the same order");
        let other = Purge::order(&store.db, id(), (PurgeKind::Name, alice), 0, "ops").await.unwrap_err();
        assert_eq!((other.code().as_str(), other.is_retryable()), ("overloaded", true));
        let done = finish(store, &writer.appender, &ordered).await;
        assert_eq!(done.purged, 3);
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(unread_count(store, bob, one).await, 0);
        let seen = store.seen(bob, one, bobs.id).await;
        let reactions = serde_json::json!(seen.reactions);
        assert_eq!((seen.body.as_str(), &reactions["👍"]["count"]), ("bread", &1.into()));
        assert_eq!(store.number("SELECT COUNT(*) FROM message_draft").await, 0);
        assert_eq!(store.number("SELECT COUNT(*) FROM message_reaction").await, 1, "that of bob");
        let again = Purge::order(&store.db, id(), (PurgeKind::User, alice), 0, "ops").await.unwrap();
        assert!(again != done && finish(store, &writer.appender, &again).await.purged == 0, "an order of its own");
    }

    async fn messages_of_a_user_without_a_name_stay_as_they_are(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let name = AuthorInfo { id: alice, username: "marmalade".into() };
        let by_alice = Scope { actor: name, ..scope(channel, alice) };
        let sent = writer.send(by_alice, message("bread")).await.unwrap().0;
        baseline(&store.db, bob, &[(channel, None)]).await.unwrap();
        let ordered = Purge::order(&store.db, id(), (PurgeKind::Name, alice), 0, "ops").await.unwrap();
        assert_eq!(finish(store, &writer.appender, &ordered).await.purged, 1);
        let seen = store.seen(bob, channel, sent.id).await;
        assert_eq!((seen.body.as_str(), &*seen.author.username), ("bread", "deleted user"));
        assert!(seen.author.id != alice && places_of(store, "marmalade").await.is_empty());
    }
}
