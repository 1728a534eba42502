//! What waits for the receivers of webhooks, as operators see it.

use super::sender::id_of;
use super::{Config, metrics};
use crate::ImksResult;
use crate::clock::Micros;
use crate::models::feed::Feed;
use crate::models::webhook::{DeadLetter, Endpoint};

/// What waits for the configured receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The number of dead letters that wait for an operator.
    pub dead_letters: i64,
    /// The number of receivers that are disabled.
    pub disabled: i64,
    /// The age of the oldest event that a receiver has not taken yet; zero if there is none.
    pub lag: Micros,
}

impl Backlog {
    /// Reads what waits for the receivers of the configuration, whichever node sends to them.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn read(config: &Config, feed: &Feed) -> ImksResult<Self> {
        let ids: Vec<String> = config.url.iter().map(id_of).collect();
        let (mut disabled, mut lag) = (0, 0);
        for receiver in Endpoint::all(feed.db()).await?.iter().filter(|receiver| ids.contains(&receiver.id)) {
            match receiver.disabled_at {
                Some(_) => disabled += 1,
                None => lag = lag.max(feed.lag(Some(receiver.next())).await?),
            }
        }
        metrics::LAG.set(lag / 1_000_000);
        Ok(Self { dead_letters: DeadLetter::count_all(feed.db()).await?, disabled, lag })
    }
}
