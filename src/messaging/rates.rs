//! Rate limits with one bucket per user, or per user and channel, shared by all connections of the user.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::Config;
use crate::rate_limit::{CurrentRate, Limiter, Rate};
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
    /// HTTP requests.
    pub(super) requests: RateLimit<Uuid>,
    /// Events, of which each connection has a bucket, in [`Session`](super::session::Session).
    events: CurrentRate,
    sessions_per_user: AtomicUsize,
    sends: RateLimit<Uuid>,
    sends_per_channel: RateLimit<(Uuid, Uuid)>,
    /// Pieces of streamed messages, by author and message: nobody else uses up the tokens of an author.
    pieces: RateLimit<(Uuid, Uuid)>,
    /// Pieces of all messages that a user streams.
    pieces_of_user: RateLimit<Uuid>,
    /// The limits that single features added.
    others: Mutex<Vec<RateLimit<Uuid>>>,
}

impl Rates {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            connects: RateLimit::new("connect:user", config.connects),
            requests: RateLimit::new("requests:user", config.events),
            events: CurrentRate::new(config.events),
            sessions_per_user: AtomicUsize::new(config.sessions_per_user),
            sends: RateLimit::new("send:user", config.sends),
            sends_per_channel: RateLimit::new("send:user_channel", config.sends_per_channel),
            pieces: RateLimit::new("stream:message", Rate::new(PIECES_PER_SECOND, PIECES_PER_SECOND)),
            pieces_of_user: RateLimit::new("stream:user", PIECES_OF_USER),
            others: Mutex::default(),
        }
    }

    /// Returns the rate of events of one connection.
    pub(super) fn events(&self) -> Rate {
        self.events.get()
    }

    /// Returns the maximum number of connections of one user; 0 is no limit.
    pub(super) fn sessions_per_user(&self) -> usize {
        self.sessions_per_user.load(Ordering::Relaxed)
    }

    /// Takes the limits of a configuration that was read again.
    pub(super) fn reload(&self, config: &Config) {
        self.connects.limiter.set_rate(config.connects);
        self.requests.limiter.set_rate(config.events);
        self.events.set(config.events);
        self.sessions_per_user.store(config.sessions_per_user, Ordering::Relaxed);
        self.sends.limiter.set_rate(config.sends);
        self.sends_per_channel.limiter.set_rate(config.sends_per_channel);
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

    /// Takes a token for a piece of text from the author's bucket for this message.
    pub(super) fn count_piece(&self, author: Uuid, message: Uuid) -> ImksResult<()> {
        self.pieces.take((author, message))
    }

    /// Takes a token for a piece of text from the user's bucket and from their bucket for this message.
    pub(super) fn count_piece_of_user(&self, user: Uuid, message: Uuid) -> ImksResult<()> {
        self.pieces_of_user.take(user)?;
        self.count_piece(user, message)
    }

    /// Removes the buckets that are full. Called periodically.
    pub(super) fn sweep(&self, now: Instant) {
        let own = [&self.connects, &self.requests, &self.sends, &self.pieces_of_user];
        for limit in own.into_iter().chain(&*self.others.lock()) {
            limit.limiter.sweep(now);
        }
        self.sends_per_channel.limiter.sweep(now);
        self.pieces.limiter.sweep(now);
    }
}

/// The most pieces of one streamed message in a second.
pub(super) const PIECES_PER_SECOND: u32 = 20;
/// The pieces of all streamed messages of one user: each is a commit.
const PIECES_OF_USER: Rate = Rate::new(60, 120);
