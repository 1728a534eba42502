//! The two schemas are one.

use std::collections::BTreeSet;

use imks::testing::models::db::Db;
use imks::testing::models::message_send::NewMessage;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{Store, id, message, on_both, scope};

/// (table, column, may be null)
async fn columns(store: &Store) -> BTreeSet<(String, String, bool)> {
    let rows: Vec<(String, String, bool)> = match &store.db {
        Db::Postgres(pool) => sqlx::query_as(
            "SELECT table_name::text, column_name::text, is_nullable = 'YES' FROM information_schema.columns \
             WHERE table_schema = current_schema()",
        )
        .fetch_all(pool)
        .await
        .unwrap(),
        Db::Sqlite(sqlite) => sqlx::query_as(
            "SELECT t.name, c.name, c.\"notnull\" = 0 FROM pragma_table_list t JOIN pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.schema = 'main' AND t.name NOT LIKE 'sqlite_%'",
        )
        .fetch_all(&sqlite.reader)
        .await
        .unwrap(),
    };
    // The index of search is made of what each database brings along.
    let differs = |table: &str| table == "_sqlx_migrations" || table == "message_search";
    rows.into_iter().filter(|(table, ..)| !differs(table)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_have_the_same_tables_and_columns() {
    let (sqlite, postgres) = (Store::sqlite().await, Store::postgres().await);
    let (sqlite, postgres) = (columns(&sqlite).await, columns(&postgres).await);
    assert!(sqlite.len() > 50);
    assert_eq!(sqlite, postgres);
}

#[test]
fn both_directories_have_the_same_migrations() {
    let names = |directory: &str| -> BTreeSet<String> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrate").join(directory);
        std::fs::read_dir(path)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("sqlite"), names("postgres"));
}

/// The plan of a prepared statement is kept: made while the table is empty, it must not be a scan that every later
/// execution repeats over a million messages.
#[tokio::test]
async fn a_plan_made_while_the_tables_are_empty_uses_their_indexes() {
    let (channel, user) =
        ("'01909a00-0000-7000-8000-000000000001'", "'01909a00-0000-7000-8000-000000000002'");
    let store = Store::postgres().await;
    for query in [
        format!(
            "SELECT seq FROM message WHERE channel_id = {channel} AND seq < 9 ORDER BY seq DESC LIMIT 50"
        ),
        format!("SELECT id FROM message WHERE channel_id = {channel} AND author_id = {user} AND nonce = 'a'"),
        format!("SELECT last_seq FROM message_author WHERE author_id = {user} AND channel_id = {channel}"),
    ] {
        let Db::Postgres(pool) = &store.db else { panic!("not PostgreSQL") };
        let plan = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN {query}")));
        let plan: Vec<String> = plan.fetch_all(pool).await.unwrap();
        assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{plan:#?}");
    }
}

/// Compiling a statement takes longer than running any of ours.
#[tokio::test]
async fn no_statement_is_compiled_before_it_runs() {
    let store = Store::postgres().await;
    let Db::Postgres(pool) = &store.db else { panic!("not PostgreSQL") };
    let jit: String = sqlx::query_scalar("SHOW jit").fetch_one(pool).await.unwrap();
    assert_eq!(jit, "off");
}

const BEFORE_MESSAGE_AUTHOR: &str = "DROP TABLE message_author; DROP INDEX message_nonce; \
    CREATE UNIQUE INDEX message_nonce ON message (channel_id, author_id, nonce); \
    CREATE INDEX message_own ON message (channel_id, author_id, seq); \
    DELETE FROM _sqlx_migrations WHERE version = 50";

on_both! {
    async fn an_upgrade_finds_the_newest_message_of_each_author(store: &Store) {
        let (writer, alice, bob) = (store.writer(), id(), id());
        let (here, there) = (id(), id());
        for (channel, author, interactive) in [
            (here, alice, true), (here, bob, true), (here, alice, true), (here, bob, false),
            (there, bob, true), (there, alice, false),
        ] {
            writer.send(scope(channel, author), NewMessage { interactive, ..message("x") }).await.unwrap();
        }
        let written = authors(store).await;
        assert_eq!(written.len(), 3, "alice and bob here, bob there");
        store.execute(BEFORE_MESSAGE_AUTHOR).await;
        store.db.migrate().await.unwrap();
        assert_eq!(authors(store).await, written);
        writer.say(there, alice, "after the upgrade").await;
        assert_eq!(authors(store).await.len(), 4);
    }
}

/// A migration that reads all messages reads the table from end to end, which is what statements of the server never do.
#[tokio::test]
async fn migrations_may_read_a_table_as_it_lies_there() {
    let store = Store::postgres().await;
    store
        .execute(
            "CREATE TABLE seen (seqscan TEXT); \
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
               'BEGIN INSERT INTO seen VALUES (current_setting(''enable_seqscan'')); RETURN NEW; END'; \
             CREATE TRIGGER note BEFORE INSERT ON _sqlx_migrations FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await;
    store.execute(BEFORE_MESSAGE_AUTHOR).await;
    store.db.migrate().await.unwrap();
    assert_eq!(store.number("SELECT COUNT(*) FROM seen WHERE seqscan = 'on'").await, 1);
}

/// (author, channel, seq, cseq, time)
async fn authors(store: &Store) -> BTreeSet<(Uuid, Uuid, i64, i64, i64)> {
    let sql =
        "SELECT author_id, channel_id, last_seq, last_cseq, last_at FROM message_author WHERE last_seq > 0";
    let rows: Vec<_> = match &store.db {
        Db::Postgres(pool) => sqlx::query_as(sql).fetch_all(pool).await.unwrap(),
        Db::Sqlite(sqlite) => sqlx::query_as(sql).fetch_all(&sqlite.reader).await.unwrap(),
    };
    rows.into_iter().collect()
}
