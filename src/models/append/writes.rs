//! Whether the database takes writes, as the lanes have seen it. One whose disk is full answers reads as ever.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::models::Db;
use crate::{ImksError, ImksResult};

/// When a transaction or a row has failed because of the database, unless one has succeeded since then.
#[derive(Debug, Default)]
pub struct Writes(Mutex<Option<Instant>>);

impl Writes {
    /// Notes that a transaction was committed.
    pub(super) fn succeeded(&self) {
        *self.0.lock() = None;
    }

    /// Notes that a transaction has failed because of the database.
    pub(super) fn failed(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Checks that the database takes writes. If a transaction has failed, a row is written after a pause, and again after
    /// each further pause, so that this is noticed without clients.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] in the pause after a failure; the error of the database if it still takes no row.
    pub async fn check(&self, db: &Db) -> ImksResult<()> {
        let Some(failed) = *self.0.lock() else { return Ok(()) };
        if failed.elapsed() < PAUSE {
            return Err(ImksError::Unavailable("writes"));
        }
        let outcome = db.write_and_remove().await;
        let mut last = self.0.lock();
        if *last == Some(failed) {
            *last = outcome.is_err().then(Instant::now);
        }
        outcome
    }
}

/// How long a failure counts before a row is tried. What the lanes write is larger than a row, and may not
/// fit where that does.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::Config;

    #[tokio::test]
    async fn after_a_failed_write_the_database_counts_as_good_when_it_takes_a_row_or_a_write() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { data_dir: directory.path().into(), ..Config::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let writes = Writes::default();
        writes.check(&db).await.unwrap();
        writes.failed();
        assert!(writes.check(&db).await.is_err());
        writes.succeeded();
        writes.check(&db).await.unwrap();
        writes.failed();
        *writes.0.lock() = Some(Instant::now() - PAUSE);
        writes.check(&db).await.unwrap();
        assert!(writes.0.lock().is_none());
        let late = Instant::now() - PAUSE;
        *writes.0.lock() = Some(late);
        db.close().await;
        assert!(writes.check(&db).await.is_err());
        assert!(writes.0.lock().is_some_and(|failed| failed > late), "the next row is tried after a pause");
    }
}
