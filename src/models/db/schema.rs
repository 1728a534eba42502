//! The check that the schema of a database is that of this version, for programs that must not change it.

use sqlx::migrate::{MigrateError, Migrator};

use super::{Db, POSTGRES_MIGRATIONS, SQLITE_MIGRATIONS, on};
use crate::{ImksError, ImksResult};

impl Db {
    /// Checks that the schema is the one that this version has. Changes nothing.
    ///
    /// # Errors
    /// [`ImksError::Config`] that says what to do about another one; [`ImksError::Database`].
    pub async fn check_schema(&self) -> ImksResult<()> {
        let (has, known) = (self.newest_applied().await?, self.newest_known());
        let place = self.describe();
        if has < known {
            let text = format!(
                "the database {place} has no schema of this version ({has}, not {known}): start the server, or run \
                 imks migrate"
            );
            return Err(ImksError::Config(text));
        }
        if has > known {
            let text = format!(
                "the database {place} has the schema of a newer version ({has}, not {known}): use the program of its \
                 server"
            );
            return Err(ImksError::Config(text));
        }
        Ok(())
    }

    /// Checks that no newer version has migrated the database. Changes nothing, and needs no schema.
    ///
    /// # Errors
    /// [`ImksError::Config`] that says what to do; [`ImksError::Database`].
    pub(crate) async fn refuse_newer_schema(&self) -> ImksResult<()> {
        let has = self.newest_applied().await?;
        match has > self.newest_known() {
            true => Err(self.is_newer(has)),
            false => Ok(()),
        }
    }

    /// Says what to do if migrations failed because a newer version has run its own before: there are none down.
    pub(super) fn refuse_newer(&self, outcome: ImksResult<()>) -> ImksResult<()> {
        let known = self.newest_known();
        match outcome {
            Err(ImksError::Migration(MigrateError::VersionMissing(has))) if has > known => {
                Err(self.is_newer(has))
            }
            outcome => outcome,
        }
    }

    fn is_newer(&self, has: i64) -> ImksError {
        ImksError::Config(format!(
            "a newer version of imks has migrated the database {} ({has}, this version knows {}), and there is no way \
             back: run the newer version, or restore the backup from before the upgrade (docs/upgrade.md)",
            self.describe(),
            self.newest_known()
        ))
    }

    /// Returns the number of the newest migration that the database has; 0 if it has none.
    async fn newest_applied(&self) -> ImksResult<i64> {
        let there = match self {
            Self::Postgres(_) => "SELECT to_regclass('_sqlx_migrations') IS NOT NULL",
            Self::Sqlite(_) => "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations')",
        };
        let is_there: bool = on!(read self, pool => sqlx::query_scalar(there).fetch_one(pool).await?);
        Ok(match is_there {
            true => on!(read self, pool => sqlx::query_scalar(NEWEST).fetch_one(pool).await?),
            false => 0,
        })
    }

    /// Returns the number of the newest migration of this version.
    fn newest_known(&self) -> i64 {
        let migrations: &Migrator = match self {
            Self::Postgres(_) => &POSTGRES_MIGRATIONS,
            Self::Sqlite(_) => &SQLITE_MIGRATIONS,
        };
        migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
    }
}

const NEWEST: &str = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success";
