//! Failures of a transaction, which was refused or may still have been committed.

use crate::ImksError;

/// The failure of a transaction that was refused, or whose outcome is unknown.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: ImksError,
    /// Whether the database, not the content of the batch, is the cause, so that a retry may succeed.
    pub transient: bool,
    /// Whether a unique index was violated: a nonce is already stored.
    pub repeated: bool,
}

impl Failure {
    pub(super) fn new(error: sqlx::Error) -> Self {
        let repeated = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        Self { transient: is_transient(&error), repeated, error: error.into() }
    }

    /// A failure before the database has seen anything of the batch, which is not the cause then.
    pub(super) fn before(error: sqlx::Error) -> Self {
        Self { transient: true, ..Self::new(error) }
    }

    pub(super) fn timeout() -> Self {
        Self { error: ImksError::Timeout("database"), transient: true, repeated: false }
    }
}

/// Whether the database, not the content of the batch, is the cause.
fn is_transient(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else {
        return !matches!(
            error,
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }
        );
    };
    let code = database.code().unwrap_or_default();
    match database.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        Some(_) => passes_on_sqlite(&code),
        None => passes_on_postgres(&code),
    }
}

/// Whether an SQLite error is transient. The low byte of an extended result code is the primary code.
fn passes_on_sqlite(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| SQLITE_TRANSIENT.contains(&(code & 0xff)))
}

fn passes_on_postgres(code: &str) -> bool {
    POSTGRES_TRANSIENT.iter().any(|class| code.starts_with(class))
}

/// Primary result codes: busy, locked, out of memory, read only, I/O error, full, a file that cannot be opened.
const SQLITE_TRANSIENT: [u32; 7] = [5, 6, 7, 8, 10, 13, 14];
/// SQLSTATE classes and codes: connection, insufficient resources, operator intervention, rolled back by the
/// server (deadlock, serialisation), lock not available, system error, read only (a standby before
/// promotion), a transaction that rested for too long.
const POSTGRES_TRANSIENT: [&str; 8] = ["08", "53", "57", "40", "55P03", "58", "25006", "25P03"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_busy_full_read_only_or_out_of_memory_is_tried_again() {
        for (code, reason) in [
            ("5", "busy"),
            ("261", "busy: recovery"),
            ("6", "locked"),
            ("7", "out of memory"),
            ("10", "I/O error"),
            ("3082", "I/O error: out of memory"),
            ("13", "full"),
            ("8", "read only"),
            ("14", "cannot open a file"),
        ] {
            assert!(passes_on_sqlite(code), "{reason}");
        }
        for (code, reason) in [
            ("08006", "connection failure"),
            ("53100", "disk full"),
            ("53200", "out of memory"),
            ("57P01", "admin shutdown"),
            ("40P01", "deadlock"),
            ("55P03", "lock not available"),
            ("25006", "read only"),
            ("25P03", "idle in transaction for too long"),
        ] {
            assert!(passes_on_postgres(code), "{reason}");
        }
    }

    #[test]
    fn what_fails_before_the_batch_was_seen_is_tried_again() {
        assert!(!Failure::new(sqlx::Error::Decode("x".into())).transient);
        assert!(Failure::before(sqlx::Error::Decode("x".into())).transient);
    }

    #[test]
    fn what_the_database_will_never_take_is_not_tried_again() {
        assert!(!["1", "11", "19", "2067", "", "x"].into_iter().any(passes_on_sqlite));
        assert!(!["23505", "22021", "42P01", ""].into_iter().any(passes_on_postgres));
    }
}
