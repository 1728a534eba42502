//! The SQLite file: opened with settings that keep acknowledged messages, and readable only by its owner.

use std::io::ErrorKind;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{Config, SqliteDb, Synchronous};
use crate::{ImksError, ImksResult};

/// Opens the file that `options` name. Creates it if missing.
pub(super) async fn connect(
    options: SqliteConnectOptions,
    memory: bool,
    config: &Config,
) -> ImksResult<SqliteDb> {
    if !memory {
        create_private(options.get_filename()).await?;
    }
    let synchronous = match config.sqlite_synchronous {
        Synchronous::Full => SqliteSynchronous::Full,
        Synchronous::Normal => SqliteSynchronous::Normal,
    };
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(config.sqlite_busy_timeout)
        .foreign_keys(false)
        .statement_cache_capacity(SQLITE_STATEMENTS)
        .pragma("cache_size", SQLITE_CACHE)
        .pragma("wal_autocheckpoint", SQLITE_CHECKPOINT_PAGES);
    let pool = |connections: u32| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .acquire_timeout(config.acquire_timeout)
            .test_before_acquire(false)
            // An in-memory database exists only as long as its connection.
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let place = format!("file {}", options.get_filename().display());
    let opened = async {
        let writer = options.clone().pragma("cache_size", SQLITE_WRITER_CACHE);
        let writer = pool(1).connect_with(writer).await?;
        let reader = match memory {
            true => writer.clone(),
            false => {
                pool(config.sqlite_readers.max(1)).connect_with(options.pragma("query_only", "ON")).await?
            }
        };
        Ok(SqliteDb { writer, reader })
    };
    opened.await.map_err(|source| ImksError::DatabaseOpen { place, source })
}

/// Creates the file, and its directory if missing, readable only by the owner: it holds the messages, and the
/// keys of a standalone server. SQLite gives its other files the same mode.
async fn create_private(file: &Path) -> ImksResult<()> {
    if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let created = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).await;
        created
            .map_err(ImksError::io(format!("cannot create the data directory {}", directory.display())))?;
    }
    let failed = ImksError::io(format!("cannot open the database file {}", file.display()));
    let created = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).await;
    match created {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        created => return created.map(drop).map_err(failed),
    }
    // Opened for writing, so that the error for a read-only file names the file.
    let existing = tokio::fs::OpenOptions::new().write(true).open(file).await;
    let length = async { existing?.metadata().await }.await.map_err(failed)?.len();
    if length == 0 {
        tracing::warn!(
            file = %file.display(),
            "the database file is empty: there are no messages and no users in it, and all tokens issued before are void"
        );
    }
    Ok(())
}

/// The size of the statement cache: the append path prepares statements for batches of 1, 2, 4, … rows.
const SQLITE_STATEMENTS: usize = 256;
/// The page cache of a reading connection; a negative value is in KiB.
const SQLITE_CACHE: &str = "-16384";
/// The page cache of the writing connection. Larger, because each message writes a random page of each index.
const SQLITE_WRITER_CACHE: &str = "-65536";
/// The pages between checkpoints (64 MiB of WAL), so that a page that is written repeatedly is copied back
/// once.
const SQLITE_CHECKPOINT_PAGES: &str = "16384";
