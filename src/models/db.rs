//! Two databases behind one enum, with SQL that is written once: [`on!`](crate::models::db::on) runs it on
//! the configured database.
//!
//! Rules that both databases follow: ids are UUIDs, times are BIGINT microseconds, placeholders are `$1..$n`,
//! and times are parameters, never taken from the database. Where the dialects differ (array parameters, row
//! locks), a file has two constants and a `match`.
//!
//! A query future that a client may cancel must not hold a transaction, because sqlx 0.9 reuses a connection
//! whose `BEGIN` was cancelled. Wherever the caller can be cancelled, run the body of
//! [`transaction!`](crate::models::db::transaction) in a task of its own.

mod claim;
pub(crate) mod copy;
mod postgres;
mod probe;
mod schema;
#[cfg(feature = "tools")]
mod scratch;
mod sqlite;
#[cfg(feature = "tools")]
mod trial;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use self::claim::Claim;
pub use self::postgres::PostgresPool;
#[cfg(feature = "tools")]
pub(crate) use self::scratch::Scratch;
use crate::error::Cause;
use crate::secret::Secret;
use crate::{ImksError, ImksResult};

/// The location of the data, and how safely it is written.
#[derive(Debug, Clone)]
pub struct Config {
    /// `postgres://…`, `sqlite:PATH` or `sqlite::memory:`; if absent, the file `imks.db` in
    /// [`Self::data_dir`].
    pub url: Option<Secret>,
    /// The directory of the SQLite file when `url` is absent. Created if missing.
    pub data_dir: PathBuf,
    /// The connections of the PostgreSQL pool, including those of the append lanes.
    pub max_connections: u32,
    /// The reading connections of the SQLite pool. There is always exactly one writing connection.
    pub sqlite_readers: u32,
    /// When SQLite reports a commit: `full` after it is on disk, `normal` before. With `normal`, a crash of
    /// the machine, but not of the process, may lose acked messages.
    pub sqlite_synchronous: Synchronous,
    /// How long an SQLite writer waits for another process that is writing.
    pub sqlite_busy_timeout: Duration,
    /// How long a query waits for a connection before it fails as overloaded.
    pub acquire_timeout: Duration,
    /// The time after which PostgreSQL cancels a statement, or ends a transaction that rests between two of
    /// them; this side gives up half a second later. Does not apply to statements of migrations.
    pub statement_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            data_dir: PathBuf::from("data"),
            max_connections: 16,
            sqlite_readers: 4,
            sqlite_synchronous: Synchronous::Full,
            sqlite_busy_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// Checks the form of the URL, without opening anything.
    ///
    /// # Errors
    /// [`ImksError::Config`] for one that names no database that is known, or is malformed.
    pub fn check_url(&self) -> ImksResult<()> {
        match self.url.as_ref().map(Secret::expose) {
            None => Ok(()),
            Some(url) if is_postgres(url) => postgres::check_url(url),
            Some(url) if is_sqlite(url) => {
                SqliteConnectOptions::from_str(url).map(drop).map_err(invalid_file)
            }
            Some(_) => Err(ImksError::Config(
                "the database URL must start with postgres:// or sqlite: (DATABASE_URL)".into(),
            )),
        }
    }

    /// Returns the SQLite file that [`Db::connect`] would create, if it does not exist.
    pub fn missing_file(&self) -> Option<PathBuf> {
        let file = match self.url.as_ref().map(Secret::expose) {
            None => self.data_dir.join(SQLITE_FILE),
            Some(url) if is_sqlite(url) && !url.contains(":memory:") => {
                SqliteConnectOptions::from_str(url).ok()?.get_filename().to_owned()
            }
            Some(_) => return None,
        };
        (!file.exists()).then(|| absolute(&file))
    }
}

/// The values of SQLite's `synchronous` setting that are safe in WAL mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// A commit is on disk before it is reported: an ack survives a power failure.
    Full,
    /// A commit survives a crash of the process, but not of the machine.
    Normal,
}

/// The database. Cloning shares the pools.
#[derive(Debug, Clone)]
pub enum Db {
    /// PostgreSQL: one pool for everything.
    Postgres(PostgresPool),
    /// SQLite: one connection that writes and several that read.
    Sqlite(SqliteDb),
}

/// The two pools of an SQLite file. For an in-memory database, both are the same single connection.
#[derive(Debug, Clone)]
pub struct SqliteDb {
    /// Exactly one connection: SQLite has one writer, and waiting in this pool is fair, unlike for its lock.
    pub writer: SqlitePool,
    /// Read-only connections; they never wait for the writer (WAL).
    pub reader: SqlitePool,
}

/// Runs one expression on whichever database is configured, with `$pool` bound to its pool.
///
/// `on!(db, pool => expr)` uses the writing pool, `on!(read db, pool => expr)` the reading one.
macro_rules! on {
    (read $db:expr, $pool:ident => $body:expr) => {
        match $db {
            $crate::models::db::Db::Postgres($pool) => $body,
            $crate::models::db::Db::Sqlite(sqlite) => {
                let $pool = &sqlite.reader;
                $body
            }
        }
    };
    ($db:expr, $pool:ident => $body:expr) => {
        match $db {
            $crate::models::db::Db::Postgres($pool) => $body,
            $crate::models::db::Db::Sqlite(sqlite) => {
                let $pool = &sqlite.writer;
                $body
            }
        }
    };
}
#[allow(unused_imports, reason = "used by every module with SQL")]
pub(crate) use on;

/// Runs one expression inside a transaction and commits it: `transaction!(db, tx => expr)`, with queries on
/// `&mut *tx`. A `?` inside leaves the function and rolls back. On SQLite, the transaction takes the write
/// lock at once, so it cannot fail halfway because another process wrote.
#[allow(unused_macros, reason = "used by the directory and the features")]
macro_rules! transaction {
    ($db:expr, $tx:ident => $body:expr) => {
        match $db {
            $crate::models::db::Db::Postgres(pool) => {
                let mut lease = pool.lease().await?;
                let work = Box::pin(async {
                    let mut $tx = sqlx::Connection::begin(lease.connection()?).await?;
                    let outcome = $body;
                    $tx.commit().await?;
                    Ok::<_, $crate::ImksError>(outcome)
                });
                let outcome = pool.transacted(work).await;
                lease.settle(outcome)?
            }
            $crate::models::db::Db::Sqlite(sqlite) => {
                let mut $tx = Box::pin(sqlite.writer.begin_with($crate::models::db::BEGIN_SQLITE)).await?;
                let outcome = $body;
                $tx.commit().await?;
                outcome
            }
        }
    };
}
#[allow(unused_imports, reason = "used by the directory and the features")]
pub(crate) use transaction;

impl Db {
    /// Opens the database that `config` names. Creates an SQLite file and its directory if missing, and waits a few
    /// seconds for a PostgreSQL server that is starting.
    ///
    /// # Errors
    /// [`ImksError::Config`] for a URL of an unknown database, [`ImksError::Io`] when the directory cannot be
    /// created, [`ImksError::Database`] when the database does not answer.
    pub async fn connect(config: &Config) -> ImksResult<Self> {
        Box::pin(Self::open(config, START_WAIT)).await
    }

    /// Opens the database that `config` names as [`Db::connect`] does, and waits for no server that does not answer now.
    ///
    /// # Errors
    /// Those of [`Db::connect`].
    pub async fn connect_at_once(config: &Config) -> ImksResult<Self> {
        Box::pin(Self::open(config, Duration::ZERO)).await
    }

    async fn open(config: &Config, patience: Duration) -> ImksResult<Self> {
        config.check_url()?;
        match config.url.as_ref().map(Secret::expose) {
            Some(url) if is_postgres(url) => {
                Box::pin(PostgresPool::connect(url, config, patience)).await.map(Self::Postgres)
            }
            Some(url) => {
                let options = SqliteConnectOptions::from_str(url).map_err(invalid_file)?;
                Box::pin(sqlite::connect(options, url.contains(":memory:"), config)).await.map(Self::Sqlite)
            }
            None => {
                let file = config.data_dir.join(SQLITE_FILE);
                let options = SqliteConnectOptions::new().filename(file);
                Box::pin(sqlite::connect(options, false, config)).await.map(Self::Sqlite)
            }
        }
    }

    /// Brings the schema up to date. Safe to run in several processes at once: PostgreSQL takes an advisory
    /// lock, SQLite runs everything in one write transaction.
    ///
    /// # Errors
    /// [`ImksError::Migration`] when a migration fails, or when one was modified after it was applied;
    /// [`ImksError::Config`] when a newer version has migrated the database.
    pub async fn migrate(&self) -> ImksResult<()> {
        self.refuse_newer(Box::pin(self.apply_migrations()).await)
    }

    async fn apply_migrations(&self) -> ImksResult<()> {
        match self {
            Self::Postgres(pool) => {
                let mut connection = Box::pin(pool.acquire()).await?;
                sqlx::query("SET statement_timeout = 0").execute(&mut *connection).await?;
                // A migration that reads all messages would go through an index instead.
                sqlx::query("SET enable_seqscan = on").execute(&mut *connection).await?;
                // At each start, PostgreSQL sends a notice that the table of migrations already exists.
                sqlx::query("SET client_min_messages = warning").execute(&mut *connection).await?;
                let outcome = Box::pin(POSTGRES_MIGRATIONS.run_direct(None, &mut *connection, false)).await;
                // The lock and the setting belong to the session, so closing it resets both.
                let _ = connection.close().await;
                Ok(outcome?)
            }
            Self::Sqlite(sqlite) => {
                let mut tx = Box::pin(sqlite.writer.begin_with(BEGIN_SQLITE)).await?;
                Box::pin(SQLITE_MIGRATIONS.run_direct(None, &mut *tx, false)).await?;
                Ok(tx.commit().await?)
            }
        }
    }

    /// Runs a trivial query and returns how long it took.
    ///
    /// # Errors
    /// [`ImksError::Database`] when it does not answer.
    pub async fn ping(&self) -> ImksResult<Duration> {
        let started = tokio::time::Instant::now();
        on!(read self, pool => { sqlx::query("SELECT 1").execute(pool).await?; });
        Ok(started.elapsed())
    }

    /// Closes all connections once they are idle. Later queries fail.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(sqlite) => {
                sqlite.reader.close().await;
                // Closed last, so that it can checkpoint the WAL.
                sqlite.writer.close().await;
            }
        }
    }

    /// Returns `postgres` or `sqlite`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
        }
    }

    /// Returns a description of the database for the log: kind and place, never user or password.
    pub fn describe(&self) -> String {
        match self {
            Self::Postgres(pool) => {
                let options = pool.connect_options();
                let database = options.get_database().unwrap_or("default");
                format!("PostgreSQL {database} at {}:{}", options.get_host(), options.get_port())
            }
            Self::Sqlite(sqlite) => {
                format!("SQLite {}", absolute(sqlite.writer.connect_options().get_filename()).display())
            }
        }
    }
}

/// Returns the path of a file from the root, so that people see which one it is whatever directory they are in.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

/// Returns ids as the JSON text for SQLite's `json_each`, where PostgreSQL takes an array: `IN (SELECT
/// unhex(value) FROM json_each($1))`.
pub(crate) fn json_ids(ids: &[Uuid]) -> String {
    let mut text = String::with_capacity(2 + ids.len() * 35);
    let mut digits = Uuid::encode_buffer();
    text.push('[');
    for (index, id) in ids.iter().enumerate() {
        text.push_str(if index == 0 { "\"" } else { ",\"" });
        text.push_str(id.simple().encode_lower(&mut digits));
        text.push('"');
    }
    text.push(']');
    text
}

/// Runs work in a task of its own, so that cancelling the caller does not stop it halfway.
///
/// # Errors
/// The errors of the work; [`ImksError::Task`] when it panics.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = ImksResult<T>> + Send + 'static,
) -> ImksResult<T> {
    TASKS.spawn(work).await.map_err(|error| ImksError::Task(Cause::new(error)))?
}

/// Tasks that run to completion even if their caller is cancelled. The pools wait for their connections.
static TASKS: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn is_sqlite(url: &str) -> bool {
    url.starts_with("sqlite:")
}

/// Hides the parser's own message, which may quote the URL and its parameters.
fn invalid_file(_: sqlx::Error) -> ImksError {
    ImksError::Config(
        "DATABASE_URL is malformed; write sqlite: and the path of a file, in which ? is written as %3F, # as %23 and % as %25, \
         and after a ? only parameters that SQLite has"
            .into(),
    )
}

/// Hides the parser's own message, which may quote the URL and its password.
fn invalid_url(_: sqlx::Error) -> ImksError {
    ImksError::Config(
        "DATABASE_URL is malformed; in user and password, % is written as %25, # as %23, / as %2F, ? as %3F, @ as %40".into(),
    )
}

/// How a writing transaction starts on SQLite: with the write lock, which a plain `BEGIN` takes only later.
pub(crate) const BEGIN_SQLITE: &str = "BEGIN IMMEDIATE";

/// Returns SQLite's plan of a statement on a new database: a line for each table that it reads.
#[cfg(test)]
pub(crate) async fn sqlite_plan(sql: &str) -> Vec<String> {
    let config = Config { url: Some(String::from("sqlite::memory:").into()), ..Config::default() };
    let db = Db::connect(&config).await.unwrap();
    db.migrate().await.unwrap();
    let Db::Sqlite(sqlite) = &db else { panic!("not SQLite") };
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let lines: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(explain).fetch_all(&sqlite.writer).await.unwrap();
    lines.into_iter().map(|(.., line)| line).collect()
}

/// How long a start waits for a PostgreSQL server that is itself starting.
const START_WAIT: Duration = Duration::from_secs(5);
const SQLITE_FILE: &str = "imks.db";
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("migrate/postgres");
static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("migrate/sqlite");

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &tempfile::TempDir) -> Config {
        Config { data_dir: directory.path().join("new"), ..Config::default() }
    }

    #[tokio::test]
    async fn a_first_start_creates_directory_file_and_schema_and_a_second_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::connect(&file(&directory)).await.unwrap();
        db.migrate().await.unwrap();
        db.migrate().await.unwrap();
        db.ping().await.unwrap();
        db.close().await;
        assert!(directory.path().join("new").join(SQLITE_FILE).exists());
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_told_at_once_with_its_place_and_the_cause() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        drop(listener);
        let url = format!("postgres://im:hunter2@{place}/x");
        let config = Config { url: Some(url.into()), ..Config::default() };
        let error = Db::connect_at_once(&config).await.unwrap_err();
        let ImksError::DatabaseOpen { place: told, source: sqlx::Error::Io(cause) } = error else {
            panic!("{error:?}")
        };
        assert_eq!((told, cause.kind()), (format!("server {place}"), std::io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn a_url_that_cannot_be_one_is_refused_before_anything_is_opened() {
        for url in ["postgres://h:99999/x", "mysql://h/x", "h"] {
            let config = Config { url: Some(url.to_owned().into()), ..Config::default() };
            assert!(matches!(config.check_url(), Err(ImksError::Config(_))), "{url}");
        }
        assert!(Config::default().check_url().is_ok());
    }

    #[tokio::test]
    async fn two_processes_that_start_at_once_both_get_the_schema() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) =
            (Db::connect(&file(&directory)).await.unwrap(), Db::connect(&file(&directory)).await.unwrap());
        let (first, second) = tokio::join!(one.migrate(), two.migrate());
        first.unwrap();
        second.unwrap();
    }

    #[tokio::test]
    async fn a_url_of_another_database_is_refused_without_repeating_it() {
        let config = Config { url: Some("mysql://root:secret@host/db".into()), ..Config::default() };
        let error = Db::connect(&config).await.unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
