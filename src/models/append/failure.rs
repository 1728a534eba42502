//! Why a transaction did not happen, or may not have happened.

use crate::ImksError;

/// A transaction that was refused, or whose fate is unknown.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: ImksError,
    /// Whether the database, not the content of the batch, is the reason: trying again can help.
    pub transient: bool,
    /// Whether a unique index objects: a nonce is there already.
    pub repeated: bool,
}

impl Failure {
    pub(super) fn new(error: sqlx::Error) -> Self {
        let repeated = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        Self { transient: is_transient(&error), repeated, error: error.into() }
    }

    pub(super) fn timeout() -> Self {
        Self { error: ImksError::Timeout("database"), transient: true, repeated: false }
    }
}

/// Whether the database, not the content of the batch, is the reason.
fn is_transient(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else {
        return !matches!(
            error,
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }
        );
    };
    let code = database.code().unwrap_or_default();
    if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // The primary code is the low byte of the extended one.
        return code.parse::<u32>().is_ok_and(|code| SQLITE_TRANSIENT.contains(&(code & 0xff)));
    }
    POSTGRES_TRANSIENT.iter().any(|class| code.starts_with(class))
}

/// Primary result codes: busy, locked, out of memory, I/O error, full.
const SQLITE_TRANSIENT: [u32; 5] = [5, 6, 7, 10, 13];
/// SQLSTATE classes and codes: connection, insufficient resources, operator intervention, rolled back by the
/// server (deadlock, serialisation), lock not available, system error, read only (a standby before its promotion).
const POSTGRES_TRANSIENT: [&str; 7] = ["08", "53", "57", "40", "55P03", "58", "25006"];
