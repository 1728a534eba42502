//! Rate limits with one bucket per user, or per user and channel, shared by all connections of the user.

use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::Config;
use crate::rate_limit::{Limiter, Rate};
use crate::{ImksError, ImksResult};

/// A rate limit with one bucket per key. Cheap to clone; clones share the buckets.
#[derive(Debug)]
pub struct RateLimit<K: Eq + Hash> {
    /// The name on the wire, in `details.bucket` of `rate_limited`.
    name: &'static str,
    limiter: Arc<Limiter<K>>,
}

impl<K: Eq + Hash> RateLimit<K> {
    fn new(name: &'static str, rate: Rate) -> Self {
        Self { name, limiter: Arc::new(Limiter::new(rate)) }
    }

    /// Takes a token from the bucket of `key`.
    ///
    /// # Errors
    /// [`ImksError::RateLimited`] when the bucket is empty.
    pub fn take(&self, key: K) -> ImksResult<()> {
        let refuse = |retry_after| ImksError::RateLimited { bucket: self.name, retry_after };
        self.limiter.take(key, Instant::now()).map_err(refuse)
    }
}

impl<K: Eq + Hash> Clone for RateLimit<K> {
    fn clone(&self) -> Self {
        Self { name: self.name, limiter: self.limiter.clone() }
    }
}

/// The rate limits of all users.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) connects: RateLimit<Uuid>,
    /// HTTP requests. Events have a bucket per connection, in [`Session`](super::session::Session).
    pub(super) requests: RateLimit<Uuid>,
    sends: RateLimit<Uuid>,
    sends_per_channel: RateLimit<(Uuid, Uuid)>,
    /// The limits that single features added.
    others: Mutex<Vec<RateLimit<Uuid>>>,
}

impl Rates {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            connects: RateLimit::new("connect:user", config.connects),
            requests: RateLimit::new("requests:user", config.events),
            sends: RateLimit::new("send:user", config.sends),
            sends_per_channel: RateLimit::new("send:user_channel", config.sends_per_channel),
            others: Mutex::default(),
        }
    }

    /// Adds a rate limit for one feature.
    pub(super) fn add(&self, name: &'static str, rate: Rate) -> RateLimit<Uuid> {
        let limit = RateLimit::new(name, rate);
        self.others.lock().push(limit.clone());
        limit
    }

    /// Takes a token for a send from the user's bucket and from their bucket for this channel.
    pub(super) fn count_send(&self, user: Uuid, channel: Uuid) -> ImksResult<()> {
        self.sends_per_channel.take((user, channel))?;
        self.sends.take(user)
    }

    /// Removes the buckets that are full. Called periodically.
    pub(super) fn sweep(&self, now: Instant) {
        for limit in [&self.connects, &self.requests, &self.sends].into_iter().chain(&*self.others.lock()) {
            limit.limiter.sweep(now);
        }
        self.sends_per_channel.limiter.sweep(now);
    }
}
