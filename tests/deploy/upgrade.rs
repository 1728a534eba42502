//! A program that is older than its database.

use imks::testing::models::db::{Config, Db};

use super::postgres;
use super::run::imks_with;

/// A migration of a version that does not exist yet.
const OF_THE_FUTURE: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
    SELECT version + 1, 'of the future', success, checksum, 0 FROM _sqlx_migrations ORDER BY version DESC LIMIT 1";

async fn is_refused(config: Config) {
    let db = Db::connect(&config).await.unwrap();
    db.migrate().await.unwrap();
    match &db {
        Db::Postgres(pool) => _ = sqlx::query(OF_THE_FUTURE).execute(pool).await.unwrap(),
        Db::Sqlite(sqlite) => _ = sqlx::query(OF_THE_FUTURE).execute(&sqlite.writer).await.unwrap(),
    }
    db.close().await;
    let url = config.url.as_ref().map(|url| ("DATABASE_URL", url.expose()));
    let directory = ("IMKS_DATA_DIR", config.data_dir.to_str().unwrap());
    let environment: Vec<_> =
        url.into_iter().chain([directory, ("IMKS_INTERNAL_LISTEN", "127.0.0.1:0")]).collect();
    for command in ["serve", "core", "migrate"] {
        let refused = imks_with(&[command, "--listen", "127.0.0.1:0"], &environment, "").await;
        assert_eq!(refused.code, Some(78), "{command}: {}", refused.err);
        let sentence = "a newer version of imks has migrated the database";
        assert!(
            refused.err.contains(sentence) && refused.err.contains("restore the backup"),
            "{}",
            refused.err
        );
    }
}

#[tokio::test]
async fn an_older_program_refuses_a_newer_sqlite_database_with_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    is_refused(Config { data_dir: directory.path().into(), ..Config::default() }).await;
}

#[tokio::test]
async fn an_older_program_refuses_a_newer_postgresql_database_with_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let url = Some(postgres::create().await.into());
    is_refused(Config { url, data_dir: directory.path().into(), ..Config::default() }).await;
}
