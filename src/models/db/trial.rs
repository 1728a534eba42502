//! What shows that a database can be used: its version, and rows that are written and taken back or removed.

use super::{BEGIN_SQLITE, Db, on};
use crate::ImksResult;

impl Db {
    /// Returns the name and version of the database program.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`] when it does not answer.
    pub async fn version(&self) -> ImksResult<String> {
        let sql = match self {
            Self::Postgres(_) => "SELECT 'PostgreSQL ' || current_setting('server_version')",
            Self::Sqlite(_) => "SELECT 'SQLite ' || sqlite_version()",
        };
        Ok(on!(read self, pool => sqlx::query_scalar(sql).fetch_one(pool).await?))
    }

    /// Writes a row in a transaction that is rolled back. The schema must be that of this version.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`] when that is not allowed, or not possible.
    pub async fn try_write(&self) -> ImksResult<()> {
        match self {
            Self::Postgres(pool) => {
                let mut tx = Box::pin(pool.begin()).await?;
                sqlx::query(ROW).execute(&mut *tx).await?;
                tx.rollback().await?;
            }
            Self::Sqlite(sqlite) => {
                let mut tx = Box::pin(sqlite.writer.begin_with(BEGIN_SQLITE)).await?;
                sqlx::query(ROW).execute(&mut *tx).await?;
                tx.rollback().await?;
            }
        }
        Ok(())
    }

    /// Writes a row of some pages, commits it, and removes it. The schema must be that of this version.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`] when that is not possible, for example because the disk is full.
    pub async fn write_and_remove(&self) -> ImksResult<()> {
        let name = "x".repeat(ROW_BYTES);
        on!(self, pool => {
            sqlx::query(LARGE_ROW).bind(&name).execute(pool).await?;
            sqlx::query("DELETE FROM cluster_node WHERE node = 'trial'").execute(pool).await?;
        });
        Ok(())
    }
}

/// Never counts as a node that is alive. Several nodes may try at once.
const LARGE_ROW: &str = "INSERT INTO cluster_node (node, name, adapter, seen_at) VALUES ('trial', $1, 'local', 0) \
    ON CONFLICT (node) DO UPDATE SET name = EXCLUDED.name";
/// The size of a row that needs several pages.
const ROW_BYTES: usize = 64 << 10;
const ROW: &str =
    "INSERT INTO cluster_node (node, name, adapter, seen_at) VALUES ('trial', 'trial', 'local', 0)";
