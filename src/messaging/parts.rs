//! The parts that messaging is made of, and what all its requests share.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::Config;
use super::budget::AnswerBudget;
use crate::auth::{Authenticator, CoreClient, Permissions};
use crate::models::Db;
use crate::models::append::Appender;
use crate::models::metrics;
use crate::rate_limit::Limiter;
use crate::{ImksError, ImksResult};

/// The parts that messaging is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where messages are read.
    pub db: Db,
    /// Where messages are written.
    pub appender: Appender,
    /// Who somebody is.
    pub authenticator: Authenticator,
    /// What somebody may do.
    pub permissions: Permissions,
    /// Which channels somebody is in.
    pub core: CoreClient,
}

/// The features' shared state. Cheap to clone.
#[derive(Clone)]
pub struct Messaging(Arc<Inner>);

struct Inner {
    config: Config,
    parts: Parts,
    connects: Limiter<Uuid>,
    requests: Limiter<Uuid>,
    sends: Limiter<Uuid>,
    sends_per_channel: Limiter<(Uuid, Uuid)>,
    answers: AnswerBudget,
}

impl Messaging {
    /// Puts the parts together.
    pub fn new(config: Config, parts: Parts) -> Self {
        Self(Arc::new(Inner {
            connects: Limiter::new(config.connects),
            requests: Limiter::new(config.events),
            sends: Limiter::new(config.sends),
            sends_per_channel: Limiter::new(config.sends_per_channel),
            answers: AnswerBudget::new(config.answers.clone()),
            config,
            parts,
        }))
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(super) fn authenticator(&self) -> &Authenticator {
        &self.0.parts.authenticator
    }

    /// Permissions as such, for decisions about rooms. Reading and writing go through [`Ctx`](super::Ctx).
    pub(super) fn permissions(&self) -> &Permissions {
        &self.0.parts.permissions
    }

    pub(super) fn core(&self) -> &CoreClient {
        &self.0.parts.core
    }

    /// The database, for the jobs beside the connections and for the proofs of permission. Handlers cannot reach it.
    pub(super) fn db(&self) -> &Db {
        &self.0.parts.db
    }

    pub(super) fn appender(&self) -> &Appender {
        &self.0.parts.appender
    }

    pub(super) fn answers(&self) -> &AnswerBudget {
        &self.0.answers
    }

    /// Takes one connect from the bucket of the user.
    pub(super) fn count_connect(&self, user: Uuid) -> ImksResult<()> {
        take(&self.0.connects, user, "connect:user")
    }

    /// Takes one HTTP request from the bucket of the user.
    pub(super) fn count_request(&self, user: Uuid) -> ImksResult<()> {
        take(&self.0.requests, user, "requests:user")
    }

    /// Takes one send from the buckets of the user and of the user in this channel.
    pub(super) fn count_send(&self, user: Uuid, channel: Uuid) -> ImksResult<()> {
        take(&self.0.sends_per_channel, (user, channel), "send:user_channel")?;
        take(&self.0.sends, user, "send:user")
    }

    /// Forgets rate limits and budgets that nobody is near; called once in a while.
    pub fn sweep(&self, now: Instant) {
        self.0.connects.sweep(now);
        self.0.requests.sweep(now);
        self.0.sends.sweep(now);
        self.0.sends_per_channel.sweep(now);
        self.0.answers.sweep();
    }
}

fn take<K: Eq + std::hash::Hash>(limiter: &Limiter<K>, key: K, bucket: &'static str) -> ImksResult<()> {
    let refuse = |retry_after| ImksError::RateLimited { bucket, retry_after };
    limiter.take(key, Instant::now()).map_err(refuse)
}

impl fmt::Debug for Messaging {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Messaging").field("config", &self.0.config).finish_non_exhaustive()
    }
}

/// Measures a query of the database under a name of ours.
pub(super) async fn timed<T>(query: &'static str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let outcome = work.await;
    metrics::DATABASE_SECONDS.child(query).record(started.elapsed());
    outcome
}
