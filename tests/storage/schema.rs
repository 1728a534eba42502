//! The two schemas are one.

use std::collections::BTreeSet;

use imks::testing::models::db::Db;

use crate::support::Store;

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
    rows.into_iter().filter(|(table, ..)| table != "_sqlx_migrations").collect()
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
    let store = crate::support::Store::postgres().await;
    let imks::testing::models::db::Db::Postgres(pool) = &store.db else { panic!("not PostgreSQL") };
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN SELECT MAX(m.seq) FROM message m WHERE m.channel_id = '01909a00-0000-7000-8000-000000000001' \
         AND m.author_id = '01909a00-0000-7000-8000-000000000002' AND m.seq > 0",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{plan:#?}");
}
