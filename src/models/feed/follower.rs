//! A follower of the feed: it reads at its own pace, holds one page, and waits where there is nothing new.

use tokio::sync::watch;

use super::head::Feed;
use super::page::{self, Event, Filter, Page};
use super::position::{Cursor, Position};
use super::sweep::swept;
use crate::models::db::Db;
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
    /// Events before this place are not kept any more.
    Gap(Position),
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
            if self.start.is_some() && self.begin(head).await? {
                return Ok(Step::Gap(self.position));
            }
            if self.position.batch > head {
                self.head.changed().await.map_err(|_| ImksError::Unavailable("feed"))?;
                continue;
            }
            let Page { events, next, is_joined } =
                page::read(&self.feed.db, self.position, head, &self.filter).await?;
            if !is_joined && self.skip_removed().await? {
                return Ok(Step::Gap(self.position));
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
        if self.start.is_some() {
            self.begin(head).await?;
        }
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

    /// Finds the first position. Returns whether the cursor is not of this feed, as after a restored backup.
    async fn begin(&mut self, head: i64) -> ImksResult<bool> {
        let Some(start) = self.start else { return Ok(false) };
        let (position, is_foreign) = match start {
            Cursor::Now => (Position::after(head), false),
            Cursor::Oldest => (Position::after(swept(&self.feed.db).await?), false),
            // Another node may know more than this one to be complete.
            Cursor::At(position)
                if position.batch > head + 1 && position.batch > self.given_out().await? + 1 =>
            {
                (Position::after(swept(&self.feed.db).await?), true)
            }
            Cursor::At(position) => (position, false),
        };
        (self.position, self.start) = (position, None);
        Ok(is_foreign)
    }

    /// Returns the last number that was given out.
    async fn given_out(&self) -> ImksResult<i64> {
        Ok(match &self.feed.db {
            Db::Postgres(pool) => sqlx::query_scalar(GIVEN_OUT).fetch_one(pool).await?,
            Db::Sqlite(_) => (*self.head.borrow()).unwrap_or_default(),
        })
    }

    /// Skips what was removed. Returns whether something was.
    async fn skip_removed(&mut self) -> ImksResult<bool> {
        let swept = swept(&self.feed.db).await?;
        let is_removed = self.position.batch <= swept;
        if is_removed {
            self.position = Position::after(swept);
        }
        Ok(is_removed)
    }
}

const GIVEN_OUT: &str = "SELECT last_value FROM feed_batch_id_seq";
