//! Leases: who does what only one node may do. A holder renews its lease; when it has not done so for
//! [`LEASE_MICROS`], another node takes it.

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::{self, Micros};

/// A lease, and the node that wants it.
#[derive(Debug, Clone)]
pub struct Lease {
    name: String,
    holder: String,
}

impl Lease {
    /// Names a lease and its holder. Takes nothing yet.
    pub fn new(name: impl Into<String>, holder: impl Into<String>) -> Self {
        Self { name: name.into(), holder: holder.into() }
    }

    /// Takes or renews the lease. Returns whether the node holds it.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn take(&self, db: &Db) -> ImksResult<bool> {
        let taken = match db {
            // The clock is the database's, because the times of all nodes are compared.
            Db::Postgres(pool) => {
                let take = sqlx::query(TAKE_POSTGRES).bind(&self.name).bind(&self.holder);
                take.bind(LEASE_MICROS).execute(pool).await?.rows_affected()
            }
            Db::Sqlite(sqlite) => {
                let take = sqlx::query(TAKE_SQLITE).bind(&self.name).bind(&self.holder);
                take.bind(LEASE_MICROS)
                    .bind(clock::now_micros())
                    .execute(&sqlite.writer)
                    .await?
                    .rows_affected()
            }
        };
        Ok(taken == 1)
    }

    /// Gives the lease back.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn give_back(&self, db: &Db) -> ImksResult<()> {
        on!(db, pool => {
            sqlx::query(GIVE_BACK).bind(&self.name).bind(&self.holder).execute(pool).await?;
        });
        Ok(())
    }

    /// Returns the name and the holder, for statements that only the holder may run.
    pub(super) fn key(&self) -> (&str, &str) {
        (&self.name, &self.holder)
    }
}

/// How long a lease lasts that is not renewed.
pub const LEASE_MICROS: Micros = 6_000_000;
const TAKE_POSTGRES: &str = "INSERT INTO lease (name, holder, expires_at) \
    VALUES ($1, $2, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT + $3) \
    ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, expires_at = EXCLUDED.expires_at \
    WHERE lease.holder = EXCLUDED.holder \
    OR lease.expires_at < (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT";
const TAKE_SQLITE: &str = "INSERT INTO lease (name, holder, expires_at) VALUES ($1, $2, $4 + $3) \
    ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, expires_at = EXCLUDED.expires_at \
    WHERE lease.holder = EXCLUDED.holder OR lease.expires_at < $4";
const GIVE_BACK: &str = "DELETE FROM lease WHERE name = $1 AND holder = $2";
