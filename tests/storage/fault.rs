//! The database refuses, disappears and comes back.

use std::time::Duration;

use imks::testing::models::append::Config;
use imks::testing::models::db::Db;
use uuid::Uuid;

use crate::support::{Store, Writer, code, id, message, on_both, scope};

on_both! {
    async fn one_bad_message_harms_no_other_of_its_batch(store: &Store) {
        refuse_poison(store).await;
        let writer = Writer::start(store.db.clone(), Config { lanes: 1, ..Config::default() });
        let (channel, alice) = (id(), id());
        let body = |number| if number == 37 { "poison".to_owned() } else { format!("body {number}") };
        let receipts: Vec<_> = (0..100)
            .map(|number| writer.submit(scope(channel, alice), message(&body(number))).unwrap())
            .collect();
        let mut seqs = Vec::new();
        for (number, receipt) in receipts.into_iter().enumerate() {
            match receipt.await {
                Ok(sent) => seqs.push(sent.message.seq),
                other => assert_eq!((number, code(other)), (37, "internal")),
            }
        }
        assert!(seqs.into_iter().eq(1..=99), "order kept, no hole where the bad one was");
    }
}

async fn refuse_poison(store: &Store) {
    let sql = match store.db {
        Db::Postgres(_) => "ALTER TABLE message ADD CHECK (body <> 'poison')",
        Db::Sqlite(_) => {
            "CREATE TRIGGER poison BEFORE INSERT ON message WHEN NEW.body = 'poison' \
             BEGIN SELECT RAISE(ABORT, 'poison'); END"
        }
    };
    store.execute(sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_again_and_again_lose_and_double_nothing() {
    let store = Store::postgres().await;
    let Db::Postgres(pool) = &store.db else { panic!() };
    let writer = store.writer();
    let (channel, alice) = (id(), id());
    let cut = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = current_schema() || '-lane'";
    for round in 0..20 {
        let send = |number: i32| writer.submit(scope(channel, alice), message(&format!("{round}.{number}")));
        let receipts: Vec<_> = (0..50).map(|number| send(number).unwrap()).collect();
        sqlx::query(cut).execute(pool).await.unwrap();
        for receipt in receipts {
            receipt.await.unwrap();
        }
    }
    assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 1_000);
    assert_eq!(store.number("SELECT COUNT(DISTINCT body) FROM message").await, 1_000);
    assert_eq!(store.number("SELECT MAX(seq) FROM message").await, 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_takes_too_long_is_ended_by_the_database_and_told_as_a_timeout() {
    let store = Store::postgres().await;
    let Db::Postgres(pool) = &store.db else { panic!() };
    let slow = sqlx::query("SELECT pg_sleep(60)").execute(&**pool).await;
    assert_eq!(imks::ImksError::from(slow.unwrap_err()).code(), "timeout");
    assert_eq!(store.number("SELECT COUNT(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_that_migrate_a_postgresql_at_once_all_get_the_schema() {
    let store = Store::empty_postgres().await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(store.opened_again().await);
    }
    for outcome in futures_util::future::join_all(others.iter().map(Db::migrate)).await {
        outcome.unwrap();
    }
    assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_makes_sends_fail_retryably_and_its_return_needs_no_restart() {
    let store = Store::sqlite().await;
    let config = imks::testing::models::db::Config {
        sqlite_busy_timeout: Duration::from_millis(20),
        ..store.config.clone()
    };
    let patient = Config { outage: Duration::from_millis(100), ..Config::default() };
    let writer = Writer::start(Db::connect(&config).await.unwrap(), patient);
    let Db::Sqlite(sqlite) = &store.db else { panic!() };
    let other = sqlite.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(code(writer.send(scope(id(), id()), message("while away")).await), "unavailable");
    other.rollback().await.unwrap();
    assert_eq!(writer.say(id(), id(), "back").await.seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_waits_out_a_short_absence() {
    let store = Store::sqlite().await;
    let writer = Writer::start(store.opened_again().await, Config::default());
    let Db::Sqlite(sqlite) = &store.db else { panic!() };
    let other = sqlite.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let receipt = writer.submit(scope(id(), id()), message("patience")).unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), receipt).await;
    assert!(early.is_err(), "acked what another process still forbids");
    other.rollback().await.unwrap();
    assert_eq!(writer.say(id(), Uuid::now_v7(), "next").await.seq, 1);
    assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 2);
}
