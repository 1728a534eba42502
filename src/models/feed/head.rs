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
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Config, Cursor, Filter, Follower, Position, sweep};
use crate::ImksResult;
use crate::clock::{self, Micros};
use crate::models::db::{Db, on};
use crate::models::feed_batch;

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
            // Before the first hole is settled, nothing is known to be complete.
            self.shared.head.send_if_modified(|known| {
                let is_known = is_complete || known.is_some();
                is_known && known.replace(head.last) != Some(head.last)
            });
            if !is_complete {
                sleep(HOLE_PAUSE).await;
                continue;
            }
            // So that many small commits cost few looks.
            sleep(LOOK_PAUSE).await;
            let polled = async {
                match self.shared.head.receiver_count() {
                    0 => std::future::pending().await,
                    _ => sleep(POLL).await,
                }
            };
            tokio::select! {
                () = self.shared.news.notified() => {}
                () = polled => {}
            }
        }
    }

    /// Moves the head forward. Returns whether there is no hole behind it.
    async fn look(&self, head: &mut Head) -> ImksResult<bool> {
        let rows: Vec<i64> = on!(read &self.db, pool => {
            sqlx::query_scalar(NEXT).bind(head.last).bind(ROWS_PER_LOOK).fetch_all(pool).await?
        });
        let Db::Postgres(pool) = &self.db else {
            // SQLite has one writer: what is there is complete.
            let last: i64 = on!(read &self.db, pool => sqlx::query_scalar(LAST).fetch_one(pool).await?);
            head.last = head.last.max(last);
            return Ok(true);
        };
        let before = head.last;
        head.pass(&rows);
        let Some(seen) = rows.last().filter(|seen| **seen > head.last) else { return Ok(true) };
        if head.last > before {
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

/// The last complete number, and the hole behind it. Pure.
#[derive(Debug, Default)]
struct Head {
    last: i64,
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
    /// Passes the numbers that follow without a hole.
    fn pass(&mut self, rows: &[i64]) {
        for id in rows {
            if *id != self.last + 1 {
                return;
            }
            self.last = *id;
        }
        self.hole = None;
    }

    /// Decides about the numbers up to `seen`, given the transactions that are writing now, which must have been
    /// read after `seen`.
    fn settle(&mut self, seen: i64, writers: HashSet<String>) {
        match &mut self.hole {
            Some(hole) if hole.seen > self.last => {
                hole.writers.retain(|writer| writers.contains(writer));
                if hole.writers.is_empty() {
                    self.last = hole.seen;
                    self.hole = None;
                }
            }
            _ => self.hole = Some(Hole { seen, writers }),
        }
    }
}

const NEXT: &str = "SELECT id FROM feed_batch WHERE id > $1 ORDER BY id LIMIT $2";
const LAST: &str = "SELECT COALESCE(MAX(id), 0) FROM feed_batch";
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
        let mut head = Head { last: 3, hole: None };
        head.settle(6, writers(&["a", "b"]));
        head.settle(8, writers(&["b", "c"]));
        assert_eq!(head.last, 3, "b may still commit 4 or 5");
        head.settle(9, writers(&["c", "d"]));
        assert_eq!((head.last, head.hole.is_some()), (6, false), "c came after 6 was seen");
    }

    #[test]
    fn a_hole_that_was_filled_makes_way_for_the_next() {
        let mut head = Head { last: 3, hole: None };
        head.settle(5, writers(&["a"]));
        head.pass(&[4, 5, 7]);
        assert_eq!(head.last, 5);
        head.settle(7, writers(&["a", "b"]));
        head.settle(7, writers(&["b"]));
        assert_eq!(head.last, 5, "b may still commit 6");
        head.settle(7, writers(&[]));
        assert_eq!(head.last, 7);
    }
}
