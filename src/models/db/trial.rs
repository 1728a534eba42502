//! What shows that a database can be used: its version, and a row that is written and taken back.

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
}

const ROW: &str =
    "INSERT INTO cluster_node (node, name, adapter, seen_at) VALUES ('trial', 'trial', 'local', 0)";
