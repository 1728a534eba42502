//! The feed: what channels were told, in one order that outlives the process, for back ends that follow it.
//!
//! Each transaction of the append path writes one row that names what it added to its channels, so that the feed
//! can neither miss a commit nor tell what was rolled back. The events are read from the messages and the change
//! log when somebody follows ([`page`]). [`head`] finds out how far the rows are complete.

mod follower;
mod head;
mod page;
mod position;
mod sweep;

pub use follower::{Follower, Reason, Step};
pub use head::Feed;
pub use page::{Event, Filter};
pub use position::{Cursor, Position};

use std::time::Duration;

/// The settings of the feed.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long events are kept; zero turns the feed off.
    pub retention: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { retention: Duration::from_hours(72) }
    }
}

/// The longest retention: the change log, from which events are read, is kept no longer.
pub const RETENTION_MAX: Duration = Duration::from_hours(14 * 24);

impl Config {
    /// Whether transactions are recorded.
    pub fn is_on(&self) -> bool {
        !self.retention.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sweep::CHANGES_LIFETIME;
    use super::*;

    #[test]
    fn events_are_kept_no_longer_than_the_changes_that_they_are_read_from() {
        assert_eq!(RETENTION_MAX.as_micros(), u128::from(CHANGES_LIFETIME.unsigned_abs()));
        assert!(Config::default().retention <= RETENTION_MAX);
    }
}
