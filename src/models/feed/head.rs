//! How far the feed is complete.
//!
//! A number of the feed is given out before its transaction commits, so a row may appear after one with a greater
//! number. Followers must not pass a number that can still appear. Rows without a hole between them are complete. A
//! hole is either a transaction that is still open, which fills it in a moment, or one that was rolled back. To tell
//! them apart on PostgreSQL, the transactions that hold a lock on the table are noted once the hole was seen: its
//! writer, if it is still open, is one of them, because it took the lock before it got the number. When all of them
//! have ended, what is missing never comes. Transactions that do not write to the feed are not waited for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Config, Cursor, Filter, Follower, Position, sweep};
use crate::ImksResult;
use crate::clock::{self, Micros};
use crate::models::db::Db;
use crate::models::{feed_batch, metrics};

/// The feed of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    pub(super) db: Db,
    config: Config,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The last complete number; `None` until it is known.
    head: watch::Sender<Option<i64>>,
    /// Notified by commits of this node, and by the first follower.
    news: Notify,
}

impl Feed {
    /// Creates the feed of a database.
    pub fn new(db: Db, config: Config) -> Self {
        let shared = Shared { head: watch::Sender::new(None), news: Notify::new() };
        Self { db, config, shared: Arc::new(shared) }
    }

    /// Returns the database.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Whether transactions are recorded, so that there is something to follow.
    pub fn is_on(&self) -> bool {
        self.config.is_on()
    }

    /// Returns the age of the oldest event from a place on; zero if there is none.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn lag(&self, from: Option<Position>) -> ImksResult<Micros> {
        let first = feed_batch::first_at(&self.db, from.map_or(0, |from| from.batch)).await?;
        Ok(first.map_or(0, |at| clock::now_micros().saturating_sub(at).max(0)))
    }

    /// Returns the age of the oldest event that nobody can follow yet, because a transaction before it is still open;
    /// zero if there is none, or while nobody follows.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn held_back(&self) -> ImksResult<Micros> {
        let head = *self.shared.head.borrow();
        let lag = match head.filter(|_| self.shared.head.receiver_count() > 0) {
            Some(head) => self.lag(Some(Position::after(head))).await?,
            None => 0,
        };
        metrics::FEED_HELD_BACK.set(lag / 1_000_000);
        Ok(lag)
    }

    /// Tells followers that this node has committed something.
    pub fn committed(&self) {
        self.shared.news.notify_one();
    }

    /// Follows the feed. What the `filter` leaves out is passed over.
    pub fn follow(&self, cursor: Cursor, filter: Filter) -> Follower {
        let head = self.shared.head.subscribe();
        self.shared.news.notify_one();
        Follower::new(self.clone(), head, cursor, filter)
    }

    /// Looks for new rows while somebody follows, and removes old ones, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        if self.is_on() {
            stop.run_until_cancelled(async { tokio::join!(self.look_out(), self.forget()) }).await;
        }
    }

    async fn look_out(&self) {
        let mut head = Head::default();
        loop {
            let is_complete = match self.look(&mut head).await {
                Ok(is_complete) => is_complete,
                Err(error) => {
                    tracing::warn!(%error, "the feed was not read");
                    sleep(RETRY).await;
                    continue;
                }
            };
            self.shared.head.send_if_modified(|known| {
                let news = head.is_near.then_some(head.last);
                std::mem::replace(known, news) != news
            });
            if !is_complete {
                sleep(HOLE_PAUSE).await;
                continue;
            }
            // So that many small commits cost few looks.
            sleep(LOOK_PAUSE).await;
            if self.shared.head.receiver_count() > 0 {
                let _ = timeout(POLL, self.shared.news.notified()).await;
                continue;
            }
            // Other nodes go on meanwhile, so what is known grows old: whoever comes next waits for a look.
            head.is_near = false;
            self.shared.head.send_replace(None);
            self.shared.news.notified().await;
        }
    }

    /// Moves the head forward. Returns whether there is no hole behind it.
    async fn look(&self, head: &mut Head) -> ImksResult<bool> {
        let Db::Postgres(pool) = &self.db else {
            // SQLite has one writer: what is there is complete.
            (head.last, head.is_near) = (given_out(&self.db).await?, true);
            return Ok(true);
        };
        let mut rows: Vec<i64> =
            sqlx::query_scalar(NEXT).bind(head.last).bind(ROWS_PER_LOOK).fetch_all(pool).await?;
        if rows.first() != Some(&(head.last + 1)) {
            let (swept, given_out) = (sweep::swept(&self.db).await?, given_out(&self.db).await?);
            head.fit(swept, given_out);
            rows.retain(|id| *id > head.last);
        }
        head.pass(&rows);
        let Some(seen) = rows.last().filter(|seen| **seen > head.last) else {
            head.is_near = true;
            return Ok(true);
        };
        if head.has_advanced {
            // Most holes are filled by the next look.
            return Ok(false);
        }
        // Far behind, as at the start: all that is there is checked at once instead of row by row.
        let seen = match rows.len() < usize::try_from(ROWS_PER_LOOK).unwrap_or(usize::MAX) {
            true => *seen,
            false => sqlx::query_scalar(LAST).fetch_one(pool).await?,
        };
        let writers = sqlx::query_scalar(WRITERS).fetch_all(pool).await?;
        head.settle(seen, writers.into_iter().collect());
        Ok(head.hole.is_none())
    }

    async fn forget(&self) {
        let retention = i64::try_from(self.config.retention.as_micros()).unwrap_or(i64::MAX);
        loop {
            let more = sweep::sweep(&self.db, clock::now_micros().saturating_sub(retention)).await;
            let pause = match more {
                Ok(true) => continue,
                Ok(false) => SWEEP_PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "old events of the feed were not removed");
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }
}

/// Returns the last number that was given out.
pub(super) async fn given_out(db: &Db) -> ImksResult<i64> {
    Ok(match db {
        Db::Postgres(pool) => sqlx::query_scalar(GIVEN_OUT_POSTGRES).fetch_one(pool).await?,
        Db::Sqlite(sqlite) => sqlx::query_scalar(GIVEN_OUT_SQLITE).fetch_one(&sqlite.reader).await?,
    })
}

/// The last complete number, and the hole behind it. Pure.
#[derive(Debug, Default)]
struct Head {
    last: i64,
    /// Whether `last` is near the end of what is there, so that followers may begin with it.
    is_near: bool,
    /// Whether the last look moved the head up to a hole.
    has_advanced: bool,
    hole: Option<Hole>,
}

/// Missing numbers that may still appear.
#[derive(Debug)]
struct Hole {
    /// A number that was seen behind the hole.
    seen: i64,
    /// The transactions that may fill it.
    writers: HashSet<String>,
}

impl Head {
    /// Passes what was removed. Begins anew in a database that has given out fewer numbers: an older state of it,
    /// restored from a backup.
    fn fit(&mut self, swept: i64, given_out: i64) {
        if given_out < self.last {
            *self = Self::default();
        }
        if swept > self.last {
            (self.last, self.hole) = (swept, None);
        }
    }

    /// Passes the numbers that follow without a hole.
    fn pass(&mut self, rows: &[i64]) {
        let joined = rows.iter().zip(self.last + 1..).take_while(|(id, next)| *id == next).count();
        self.last += i64::try_from(joined).unwrap_or_default();
        if joined == rows.len() {
            self.hole = None;
        }
        let advanced = joined > 0 && joined < rows.len();
        // A hole that was filled between two looks was young, and what comes after it is younger.
        self.is_near |= self.has_advanced && advanced;
        self.has_advanced = advanced;
    }

    /// Decides about the numbers up to `seen`, given the transactions that are writing now, which must have been
    /// read after `seen`.
    fn settle(&mut self, seen: i64, writers: HashSet<String>) {
        match &mut self.hole {
            Some(hole) if hole.seen > self.last => {
                hole.writers.retain(|writer| writers.contains(writer));
                if hole.writers.is_empty() {
                    (self.last, self.is_near) = (hole.seen, true);
                    self.hole = None;
                }
            }
            _ => self.hole = Some(Hole { seen, writers }),
        }
    }
}

const NEXT: &str = "SELECT id FROM feed_batch WHERE id > $1 ORDER BY id LIMIT $2";
const LAST: &str = "SELECT COALESCE(MAX(id), 0) FROM feed_batch";
const GIVEN_OUT_POSTGRES: &str = "SELECT last_value FROM feed_batch_id_seq";
/// The table of SQLite itself has no row before the first number.
const GIVEN_OUT_SQLITE: &str =
    "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'feed_batch'), 0)";
const WRITERS: &str = "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation' \
    AND relation = 'feed_batch'::regclass AND mode = 'RowExclusiveLock' AND granted \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
const ROWS_PER_LOOK: i64 = 1_000;
/// How long a look at least waits for the next.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// The pause while a hole may still be filled.
const HOLE_PAUSE: Duration = Duration::from_millis(10);
/// How often the rows of other nodes are looked for.
const POLL: Duration = Duration::from_millis(250);
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How often old rows are removed.
const SWEEP_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn writers(names: &[&str]) -> HashSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn numbers_without_a_hole_are_passed_at_once() {
        let mut head = Head::default();
        head.pass(&[1, 2, 3, 5, 6]);
        assert_eq!(head.last, 3);
        head.pass(&[4, 5, 6]);
        assert_eq!(head.last, 6);
    }

    #[test]
    fn a_hole_is_passed_when_every_transaction_that_could_fill_it_has_ended() {
        let mut head = Head { last: 3, ..Head::default() };
        head.settle(6, writers(&["a", "b"]));
        head.settle(8, writers(&["b", "c"]));
        assert_eq!(head.last, 3, "b may still commit 4 or 5");
        head.settle(9, writers(&["c", "d"]));
        assert_eq!((head.last, head.hole.is_some()), (6, false), "c came after 6 was seen");
    }

    #[test]
    fn a_hole_that_was_filled_makes_way_for_the_next() {
        let mut head = Head { last: 3, ..Head::default() };
        head.settle(5, writers(&["a"]));
        head.pass(&[4, 5, 7]);
        assert_eq!(head.last, 5);
        head.settle(7, writers(&["a", "b"]));
        head.settle(7, writers(&["b"]));
        assert_eq!(head.last, 5, "b may still commit 6");
        head.settle(7, writers(&[]));
        assert_eq!(head.last, 7);
    }
    #[test]
    fn what_was_removed_is_passed_and_an_older_database_is_read_from_its_beginning() {
        let mut head = Head::default();
        head.fit(7, 9);
        head.pass(&[8, 9]);
        assert_eq!(head.last, 9);
        head.fit(12, 12);
        assert_eq!(head.last, 12, "what other nodes wrote and removed while nobody looked");
        head.is_near = true;
        head.fit(3, 11);
        assert_eq!((head.last, head.is_near), (3, false));
    }

    #[test]
    fn a_follower_need_not_wait_for_a_moment_in_which_nobody_writes() {
        let mut head = Head { last: 3, ..Head::default() };
        head.pass(&[4, 6]);
        assert!(!head.is_near, "5 may have been rolled back long ago");
        head.pass(&[5, 6, 8]);
        assert!(head.is_near, "5 was young, and so is 7");
    }
}
