//! Rate limits with one bucket per user, or per user and channel, shared by all connections of the user.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
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
    /// What was taken since the other nodes were told, if there can be any: at most [`SPENT_MAX`] keys.
    spent: Option<Arc<Mutex<HashMap<K, u32>>>>,
}

impl<K: Eq + Hash + Copy> RateLimit<K> {
    fn new(name: &'static str, rate: Rate, reaches_others: bool) -> Self {
        Self { name, limiter: Arc::new(Limiter::new(rate)), spent: reaches_others.then(Arc::default) }
    }

    /// Takes a token from the bucket of `key`.
    ///
    /// # Errors
    /// [`ImksError::RateLimited`] when the bucket is empty.
    pub fn take(&self, key: K) -> ImksResult<()> {
        let refuse = |retry_after| ImksError::RateLimited { bucket: self.name, retry_after };
        self.limiter.take(key, Instant::now()).map_err(refuse)?;
        if let Some(spent) = self.spent.as_ref().filter(|_| !self.limiter.is_off()) {
            let mut spent = spent.lock();
            if spent.len() < SPENT_MAX || spent.contains_key(&key) {
                *spent.entry(key).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Returns what was taken since the last call.
    fn take_spent(&self) -> HashMap<K, u32> {
        self.spent.as_ref().map(|spent| std::mem::take(&mut *spent.lock())).unwrap_or_default()
    }
}

impl<K: Eq + Hash> Clone for RateLimit<K> {
    fn clone(&self) -> Self {
        Self { name: self.name, limiter: self.limiter.clone(), spent: self.spent.clone() }
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
    reaches_others: bool,
}

impl Rates {
    /// Creates the limits. `reaches_others` says whether other nodes count too.
    pub(super) fn new(config: &Config, reaches_others: bool) -> Self {
        let of_user = |name, rate| RateLimit::new(name, rate, reaches_others);
        let of_two = |name, rate| RateLimit::new(name, rate, reaches_others);
        Self {
            connects: of_user("connect:user", config.connects),
            requests: of_user("requests:user", config.events),
            events: CurrentRate::new(config.events),
            sessions_per_user: AtomicUsize::new(config.sessions_per_user),
            sends: of_user("send:user", config.sends),
            sends_per_channel: of_two("send:user_channel", config.sends_per_channel),
            pieces: of_two("stream:message", Rate::new(PIECES_PER_SECOND, PIECES_PER_SECOND)),
            pieces_of_user: of_user("stream:user", PIECES_OF_USER),
            others: Mutex::default(),
            reaches_others,
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
        let limit = RateLimit::new(name, rate, self.reaches_others);
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

    fn of_users(&self) -> [&RateLimit<Uuid>; 4] {
        [&self.connects, &self.requests, &self.sends, &self.pieces_of_user]
    }

    fn of_two(&self) -> [&RateLimit<(Uuid, Uuid)>; 2] {
        [&self.sends_per_channel, &self.pieces]
    }

    /// Returns what users who are connected to other nodes too have taken on this one since the last call.
    pub(super) fn spent(&self, is_elsewhere: impl Fn(Uuid) -> bool) -> Vec<Spent<'static>> {
        let mut all = Vec::new();
        for limit in self.of_users().into_iter().chain(&*self.others.lock()) {
            let spent = limit.take_spent().into_iter();
            all.extend(spent.map(|(user, count)| Spent::new(limit.name, user, None, count)));
        }
        for limit in self.of_two() {
            let spent = limit.take_spent().into_iter();
            all.extend(spent.map(|((user, of), count)| Spent::new(limit.name, user, Some(of), count)));
        }
        all.retain(|spent| is_elsewhere(spent.user));
        all
    }

    /// Removes the tokens that a user has taken on another node. What only a newer version limits is passed over.
    pub(super) fn spend(&self, spent: &Spent<'_>, now: Instant) {
        let Spent { limit: name, user, of, count } = spent;
        match of {
            None => {
                let others = self.others.lock();
                let mut limits = self.of_users().into_iter().chain(&*others);
                let limit = limits.find(|limit| limit.name == name);
                limit.inspect(|limit| limit.limiter.spend(*user, *count, now));
            }
            Some(of) => {
                let limit = self.of_two().into_iter().find(|limit| limit.name == name);
                limit.inspect(|limit| limit.limiter.spend((*user, *of), *count, now));
            }
        }
    }

    /// Removes the buckets that are full. Called periodically.
    pub(super) fn sweep(&self, now: Instant) {
        for limit in self.of_users().into_iter().chain(&*self.others.lock()) {
            limit.limiter.sweep(now);
        }
        for limit in self.of_two() {
            limit.limiter.sweep(now);
        }
    }
}

/// What a user has taken from one bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Spent<'a> {
    /// The name of the limit.
    #[serde(rename = "l", borrow)]
    pub(super) limit: Cow<'a, str>,
    #[serde(rename = "u")]
    pub(super) user: Uuid,
    /// The channel or message, where the limit is for one of them.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<Uuid>,
    #[serde(rename = "n")]
    pub(super) count: u32,
}

impl Spent<'static> {
    pub(super) fn new(limit: &'static str, user: Uuid, of: Option<Uuid>, count: u32) -> Self {
        Self { limit: limit.into(), user, of, count }
    }
}

/// The most users, or users and channels, of one limit whom other nodes are told about at once. What further ones take counts
/// on this node alone.
const SPENT_MAX: usize = 10_000;
/// The most pieces of one streamed message in a second.
pub(super) const PIECES_PER_SECOND: u32 = 20;
/// The pieces of all streamed messages of one user: each is a commit.
const PIECES_OF_USER: Rate = Rate::new(60, 120);
