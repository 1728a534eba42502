//! The parts that messaging is made of, and what all its requests share.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::Config;
use super::budget::AnswerBudget;
use super::rates::Rates;
use crate::auth::{Authenticator, CoreClient, Permissions};
use crate::models::Db;
use crate::models::append::Appender;
use crate::models::metrics;

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
    rates: Rates,
    answers: AnswerBudget,
}

impl Messaging {
    /// Puts the parts together.
    pub fn new(config: Config, parts: Parts) -> Self {
        Self(Arc::new(Inner {
            rates: Rates::new(&config),
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

    /// Permissions as such, for decisions about rooms. Reading and writing go through [`Ctx`](super::ctx::Ctx).
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

    pub(super) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    /// Forgets rates and budgets that nobody is near; called once in a while.
    pub fn sweep(&self, now: Instant) {
        self.0.rates.sweep(now);
        self.0.answers.sweep();
    }
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
