//! A fresh, migrated database of each kind for a test.

use std::future::Future;
use std::time::Duration;

use imks::testing::models::db::{Config, Db};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// Runs a test on SQLite and on PostgreSQL, each time with a database of its own.
pub async fn on_each<F: Fn(Db) -> Fut, Fut: Future<Output = ()>>(test: F) {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { data_dir: directory.path().into(), ..Config::default() };
    test(migrated(&config).await).await;

    // A schema of its own: much cheaper than a database of its own.
    let (server, name) = (postgres_url(), format!("imks_test_{}", Uuid::now_v7().simple()));
    let mut admin = Box::pin(PgConnection::connect(&server)).await.expect("PostgreSQL; see `make test`");
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {name}"))).execute(&mut admin).await.unwrap();
    let separator = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{separator}options[search_path]={name}");
    let config = Config {
        url: Some(url.into()),
        max_connections: 4,
        statement_timeout: PATIENCE,
        acquire_timeout: PATIENCE,
        ..Config::default()
    };
    let db = migrated(&config).await;
    test(db.clone()).await;
    db.close().await;
    sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA {name} CASCADE"))).execute(&mut admin).await.unwrap();
}

async fn migrated(config: &Config) -> Db {
    let db = Db::connect(config).await.unwrap();
    db.migrate().await.unwrap();
    db
}

fn postgres_url() -> String {
    std::env::var("IMKS_TEST_POSTGRES_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into())
}

/// Many tests share one machine and one disk: a slow answer is not what they test.
const PATIENCE: Duration = Duration::from_secs(10);
