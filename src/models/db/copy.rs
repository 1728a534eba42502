//! Copies of an SQLite database that is in use.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::SqliteDb;
use crate::{ImksError, ImksResult};

impl SqliteDb {
    /// Writes the database as it is now into `file`, which is missing or empty. Other processes read and write
    /// meanwhile; what they commit after the start of the copy is not in it.
    ///
    /// # Errors
    /// [`ImksError::Database`] if the file has a content, or cannot be written.
    pub(crate) async fn copy_into(&self, file: &Path) -> ImksResult<()> {
        let file = file.to_str().ok_or_else(|| ImksError::invalid("FILE", "the name must be UTF-8"))?;
        // The connections that read refuse it, although it changes nothing here.
        sqlx::query("VACUUM INTO ?1").bind(file).execute(&self.writer).await?;
        Ok(())
    }

    /// Returns about how many bytes a copy has.
    ///
    /// # Errors
    /// [`ImksError::Database`].
    pub(crate) async fn bytes_of_copy(&self) -> ImksResult<u64> {
        let bytes: i64 = sqlx::query_scalar(BYTES).fetch_one(&self.reader).await?;
        Ok(u64::try_from(bytes).unwrap_or_default())
    }
}

/// Checks that a copy can be read from end to end, and returns how many messages are in it.
///
/// # Errors
/// [`ImksError::Database`] if it cannot be opened; [`ImksError::Unavailable`] if it is damaged.
pub(crate) async fn check(file: &Path) -> ImksResult<i64> {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut copy: SqliteConnection = Box::pin(options.connect()).await?;
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut copy).await?;
    if verdict != "ok" {
        tracing::error!(verdict, "what SQLite says about the copy");
        return Err(ImksError::Unavailable("the copy is damaged: is the database?"));
    }
    let messages = sqlx::query_scalar("SELECT COUNT(*) FROM message").fetch_one(&mut copy).await?;
    copy.close().await?;
    Ok(messages)
}

const BYTES: &str = "SELECT (pages.page_count - unused.freelist_count) * size.page_size \
    FROM pragma_page_count pages, pragma_freelist_count unused, pragma_page_size size";
