//! A follower of the feed: it reads at its own pace, holds one page, and waits where there is nothing new.

use tokio::sync::watch;

use super::head::{Feed, given_out};
use super::page::{self, Event, Filter, Page};
use super::position::{Cursor, Position};
use super::sweep::swept;
use crate::{ImksError, ImksResult};

/// A follower of the feed.
#[derive(Debug)]
pub struct Follower {
    feed: Feed,
    head: watch::Receiver<Option<i64>>,
    start: Option<Cursor>,
    position: Position,
    filter: Filter,
}

/// What a follower finds next.
#[derive(Debug)]
pub enum Step {
    /// Events, in the order of each channel; none if the filter left all of them out. Then where the next ones are.
    Events(Vec<Event>, Position),
    /// Events before this place cannot be told.
    Gap(Position, Reason),
}

/// Why events cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// They are not kept any more.
    Removed,
    /// The cursor is of a later time than the database, as after a backup was restored.
    UnknownCursor,
}

impl Follower {
    pub(super) fn new(
        feed: Feed,
        head: watch::Receiver<Option<i64>>,
        cursor: Cursor,
        filter: Filter,
    ) -> Self {
        Self { feed, head, start: Some(cursor), position: Position { batch: 0, index: 0 }, filter }
    }

    /// Waits for the next events. Cancelling loses nothing, but what was read is read again.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] when the feed is off or ends, [`ImksError::Database`]. A later call tries again.
    pub async fn next(&mut self) -> ImksResult<Step> {
        loop {
            let head = self.complete().await?;
            self.begin(head).await?;
            if self.position.batch > head {
                if self.is_unknown(head).await? {
                    return self.gap(Reason::UnknownCursor).await;
                }
                self.head.changed().await.map_err(|_| ImksError::Unavailable("feed"))?;
                continue;
            }
            let Page { events, next, is_joined } =
                page::read(&self.feed.db, self.position, head, &self.filter).await?;
            if !is_joined && self.position.batch <= swept(&self.feed.db).await? {
                return self.gap(Reason::Removed).await;
            }
            self.position = next;
            return Ok(Step::Events(events, next));
        }
    }

    /// Waits until the first position is known, and returns it.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] when the feed ends, [`ImksError::Database`].
    pub async fn begun(&mut self) -> ImksResult<Position> {
        let head = self.complete().await?;
        self.begin(head).await?;
        Ok(self.position)
    }

    /// Waits until it is known how far the feed is complete.
    async fn complete(&mut self) -> ImksResult<i64> {
        if !self.feed.is_on() {
            return Err(ImksError::Unavailable("feed (IMKS_FEED_RETENTION is 0s)"));
        }
        let head = self.head.wait_for(Option::is_some).await.map_err(|_| ImksError::Unavailable("feed"))?;
        Ok(head.unwrap_or_default())
    }

    /// Finds the first position, once.
    async fn begin(&mut self, head: i64) -> ImksResult<()> {
        self.position = match self.start {
            None => return Ok(()),
            Some(Cursor::Now) => Position::after(head),
            Some(Cursor::Oldest) => Position::after(swept(&self.feed.db).await?),
            Some(Cursor::At(position)) => position,
        };
        self.start = None;
        Ok(())
    }

    /// Whether the position is one that this database has not come to.
    async fn is_unknown(&self, head: i64) -> ImksResult<bool> {
        let last = self.position.batch.saturating_sub(1);
        // Another node may know more than this one to be complete.
        Ok(last > head && last > given_out(&self.feed.db).await?)
    }

    /// Goes on with the oldest event that is kept.
    async fn gap(&mut self, reason: Reason) -> ImksResult<Step> {
        self.position = Position::after(swept(&self.feed.db).await?);
        Ok(Step::Gap(self.position, reason))
    }
}
