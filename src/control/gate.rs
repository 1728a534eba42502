//! The gate: which back ends may call, proved by API keys or certificates, and how often.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Config;
use super::api::{Head, Peer};
use super::caller::{Caller, Scope, Scopes};
use super::keys::Keys;
use crate::messaging::api::bearer;
use crate::models::Db;
use crate::rate_limit::Limiter;
use crate::{ImksError, ImksResult};

/// The gate that every call of a back end passes. Cheap to clone; clones share the keys and the rates.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    config: Config,
    keys: Keys,
    calls: Limiter<Uuid>,
}

impl Gate {
    /// Creates a gate for callers with keys of the database, or with certificates.
    pub fn new(config: &Config, db: &Db) -> Self {
        let (keys, calls) = (Keys::new(db.clone()), Limiter::new(config.calls));
        Self(Arc::new(Inner { config: config.clone(), keys, calls }))
    }

    /// Takes the limits of a configuration that was read again.
    pub fn reload(&self, config: &Config) {
        self.0.calls.set_rate(config.calls);
    }

    /// Returns the settings.
    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Returns the caller that the key in the header `Authorization` or the certificate of the connection
    /// identifies, and takes a token from the caller's bucket. `is_page` is whether a page in a browser has sent the
    /// request.
    ///
    /// # Errors
    /// [`ImksError::Auth`], [`ImksError::RateLimited`], [`ImksError::Database`].
    pub(super) async fn authenticate(
        &self,
        bearer: Option<&str>,
        peer: &Peer,
        is_page: bool,
    ) -> ImksResult<Caller> {
        let caller = self.identify(bearer, peer, is_page).await?;
        let refuse = |retry_after| ImksError::RateLimited { bucket: "calls:key", retry_after };
        self.0.calls.take(caller.id, Instant::now()).map_err(refuse)?;
        Ok(caller)
    }

    /// Returns the caller that the head of a request over HTTP identifies, if it has a scope.
    ///
    /// # Errors
    /// Those of [`Gate::authenticate`]; [`ImksError::Forbidden`].
    pub(super) async fn admit(&self, head: Head, scope: Scope) -> ImksResult<Caller> {
        let authorization = head.authorization?;
        let key = authorization.as_deref().and_then(bearer);
        let caller = self.authenticate(key, &head.peer, head.is_page).await?;
        caller.require(scope)?;
        Ok(caller)
    }

    async fn identify(&self, bearer: Option<&str>, peer: &Peer, is_page: bool) -> ImksResult<Caller> {
        if let Some(key) = bearer {
            return self.0.keys.caller(key).await;
        }
        let mut known = self.0.config.callers.iter();
        if let Some(name) = known.find(|known| peer.names.iter().any(|name| **name == ***known)) {
            return Ok(Caller::trusted(name));
        }
        if self.0.config.allow_anonymous && peer.is_internal {
            let caller = Caller::trusted("anonymous");
            // Any page that a developer looks at can reach the loopback address.
            return Ok(if is_page { Caller { scopes: Scopes::NONE, ..caller } } else { caller });
        }
        Err(ImksError::Auth("An API key is needed in the header Authorization: Bearer"))
    }

    /// Checks that a caller may still call, in a call that goes on for long.
    ///
    /// # Errors
    /// [`ImksError::Auth`] if the key of the caller was revoked or has expired; [`ImksError::Database`].
    pub(super) async fn still_allows(&self, caller: &Caller) -> ImksResult<()> {
        if caller.has_key { self.0.keys.check(caller.id).await } else { Ok(()) }
    }

    /// Forgets idle rate limits until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.0.calls.sweep(Instant::now());
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gate").field("config", &self.0.config).finish_non_exhaustive()
    }
}

const SWEEP: Duration = Duration::from_secs(30);
