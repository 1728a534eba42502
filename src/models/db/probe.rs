//! What shows that a database takes writes: a row of some pages that is committed, and removed.

use super::{Db, on};
use crate::ImksResult;

impl Db {
    /// Writes a row of some pages, commits it, and removes it. The schema must be that of this version.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`] when that is not possible, for example because the disk is full.
    pub async fn write_and_remove(&self) -> ImksResult<()> {
        let name = "x".repeat(ROW_BYTES);
        on!(self, pool => {
            sqlx::query(LARGE_ROW).bind(&name).execute(pool).await?;
            sqlx::query("DELETE FROM cluster_node WHERE node = 'probe'").execute(pool).await?;
        });
        Ok(())
    }
}

/// Never counts as a node that is alive. Several nodes may try at once. Not the name of the row of `imks doctor`, which
/// would find its own taken where this one could not be removed.
const LARGE_ROW: &str = "INSERT INTO cluster_node (node, name, adapter, seen_at) VALUES ('probe', $1, 'local', 0) \
    ON CONFLICT (node) DO UPDATE SET name = EXCLUDED.name";
/// The size of a row that needs several pages.
const ROW_BYTES: usize = 64 << 10;
