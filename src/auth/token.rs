//! Local verification of tokens, without a call while their keys are known: tokens of the core (docs/rpc.md), or
//! of the operator's own application (docs/identity.md).

mod follow;
mod own;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claims::{Claims, Refusal, Unverified};
use super::keys::{KeySet, Verifier};
use super::login_config::{HookConfig, LoginConfig};
use super::metrics;
use super::revocation::Revocations;
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult};
use crate::pb::{CoreClient, Revocation, Verdict};
use own::OwnLogins;

/// The rules for accepting tokens.
#[derive(Debug, Clone)]
pub struct Config {
    /// The accepted values of `iss`. A key of the core verifies tokens of its own issuer only. Empty: `imks` for
    /// tokens of the core, any for tokens of one's own keys.
    pub issuers: Vec<String>,
    /// The value that `aud` must contain; `imks` if it is not set. Tokens of one's own keys may have no `aud`
    /// while it is not set, except those of a key set, whose issuer signs for others as well.
    pub audience: Option<String>,
    /// The tolerance for clocks that differ; at most a minute.
    pub leeway: Duration,
    /// The longest time between a token's issue and its expiry.
    pub lifetime_max: Duration,
    /// The interval between two refreshes of the keys; jittered.
    pub refresh: Duration,
    /// The minimum time between two refreshes that unknown keys cause.
    pub refresh_pause: Duration,
    /// How long a key remains valid after the core stops listing it, unless it expires earlier.
    pub key_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            audience: None,
            leeway: Duration::from_secs(5),
            lifetime_max: Duration::from_secs(31 * 24 * 3600),
            refresh: Duration::from_secs(300),
            refresh_pause: Duration::from_secs(10),
            key_grace: Duration::from_secs(900),
        }
    }
}

impl Config {
    /// Returns the name of this server in `aud`.
    pub fn audience(&self) -> &str {
        self.audience.as_deref().unwrap_or(NAME)
    }

    /// Returns the issuer of tokens of the embedded directory: the first one that is accepted.
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or(NAME, String::as_str)
    }

    fn accepts_issuer(&self, issuer: &str) -> bool {
        if self.issuers.is_empty() { issuer == NAME } else { self.issuers.iter().any(|it| it == issuer) }
    }
}

/// The identity of a user, taken from a verified token only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id of the user.
    pub user_id: Uuid,
    /// The name shown to others.
    pub username: Arc<str>,
    /// The session that the token belongs to, if the core has sessions.
    pub session_id: Option<Uuid>,
    /// When the token was issued.
    pub issued_at: Micros,
    /// When the token expires and the connection loses its rights.
    pub expires_at: Micros,
}

/// The verifier of tokens. Cheap to clone; stops following the core when the last clone is dropped.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    core: CoreClient,
    config: Config,
    /// The logins of the operator's own application, if tokens are signed by it and not by the core.
    own: Option<OwnLogins>,
    keys: RwLock<Arc<KeySet>>,
    revocations: RwLock<Revocations>,
    refreshes: Mutex<Refreshes>,
    /// When a refusal was last logged for operators, by its reason.
    logged_at: Mutex<HashMap<&'static str, Instant>>,
    wanted: Arc<Notify>,
    /// The number of refreshes that ended, successfully or not.
    ended: watch::Sender<u64>,
    /// Whether all past revocations have been received.
    caught_up: watch::Sender<bool>,
    revoked: broadcast::Sender<Revocation>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Refreshes {
    running: bool,
    /// When an unknown key last caused a refresh. Periodic refreshes do not count, because a new key may
    /// appear right after one.
    caused_at: Option<Instant>,
    failed: bool,
    etag: String,
}

impl Authenticator {
    /// Starts to verify tokens of the core; see [`Authenticator::start_with`].
    ///
    /// # Errors
    /// The errors of [`Authenticator::start_with`].
    #[cfg(feature = "testing")]
    pub async fn start(core: CoreClient, config: Config) -> ImksResult<Self> {
        Self::start_with(core, config, LoginConfig::default(), HookConfig::default()).await
    }

    /// Fetches the keys and the revocations, and follows both from then on. If the core or the key set does not
    /// answer, the start is delayed by a few seconds but succeeds; tokens are refused as `unavailable` until it
    /// answers.
    ///
    /// # Errors
    /// `Config` if the leeway is too long, or if one's own keys cannot be used.
    pub async fn start_with(
        core: CoreClient,
        config: Config,
        logins: LoginConfig,
        hook: HookConfig,
    ) -> ImksResult<Self> {
        if config.leeway > LEEWAY_MAX {
            return Err(ImksError::Config("tokens need a leeway of at most a minute".into()));
        }
        let own = OwnLogins::new(core.clone(), logins, hook)?;
        let keys = match own.as_ref().and_then(OwnLogins::keys).filter(|keys| !keys.is_remote()) {
            Some(keys) => KeySet::default().updated(keys.fetch().await?, now_micros(), 0),
            None => KeySet::default(),
        };
        let inner = Arc::new(Inner {
            core,
            config,
            own,
            keys: RwLock::new(Arc::new(keys)),
            revocations: RwLock::default(),
            refreshes: Mutex::default(),
            logged_at: Mutex::default(),
            wanted: Arc::default(),
            ended: watch::Sender::new(0),
            caught_up: watch::Sender::new(false),
            revoked: broadcast::Sender::new(REVOKED_QUEUE),
            stop: CancellationToken::new(),
        });
        let (mut ended, mut caught_up) = (inner.ended.subscribe(), inner.caught_up.subscribe());
        inner.spawn();
        let ready = async {
            let _ = ended.wait_for(|count| *count > 0).await;
            let _ = caught_up.wait_for(|known| *known).await;
        };
        if timeout(START_WAIT, ready).await.is_err() {
            tracing::warn!(
                "the keys of tokens cannot be fetched yet: signing in is not possible until they are"
            );
        }
        Ok(Self(inner))
    }

    /// Verifies a token and returns the identity in it. Calls the core only if the token's key is unknown, or
    /// if the token carries no username.
    ///
    /// # Errors
    /// `Auth`, `TokenExpired`, `TokenRevoked`; `TokenNotYetValid` if the clocks differ by more than the
    /// leeway; `Unavailable` if the key is unknown and the core does not answer.
    pub async fn verify(&self, token: &str) -> ImksResult<Identity> {
        self.verify_at(token, now_micros()).await
    }

    /// Returns what [`Authenticator::verify`] would return at `now`.
    ///
    /// # Errors
    /// The errors of [`Authenticator::verify`].
    pub async fn verify_at(&self, token: &str, now: Micros) -> ImksResult<Identity> {
        self.0.verify(token, now, false).await.map_err(|refusal| self.0.refused(refusal))
    }

    /// Asks the core about a token, for callers that need its current verdict (`auth:refresh`, sensitive
    /// permissions). The token must also pass the local check. Of a token of one's own keys, the core is asked
    /// whether the account of its user is open.
    ///
    /// # Errors
    /// The errors of [`Authenticator::verify`], and `Unavailable` or `Timeout` if the core gives no verdict.
    pub async fn verify_remote(&self, token: &str) -> ImksResult<Identity> {
        if self.0.own.is_some() {
            return self.0.verify(token, now_micros(), true).await.map_err(|refusal| self.0.refused(refusal));
        }
        let identity = self.verify(token).await?;
        match self.0.core.verify_token(token, self.0.config.audience()).await? {
            Verdict::Valid { user, .. } if user.id == identity.user_id => Ok(identity),
            Verdict::Valid { .. } => Err(self.0.refused(Refusal::Invalid("another user"))),
            Verdict::Invalid => Err(self.0.refused(Refusal::Invalid("core"))),
            Verdict::Expired => Err(self.0.refused(Refusal::Expired)),
            Verdict::Revoked => Err(self.0.refused(Refusal::Revoked)),
        }
    }

    /// Whether the token of a verified identity has been revoked since. This is a map read.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        let revocations = self.0.revocations.read();
        revocations.contains(identity.user_id, identity.session_id, identity.issued_at)
    }

    /// Returns a receiver of new revocations, to close the connections that they concern. A receiver that
    /// lags must check all of its connections with [`Authenticator::is_revoked`].
    pub fn revoked(&self) -> broadcast::Receiver<Revocation> {
        self.0.revoked.subscribe()
    }
}

impl Inner {
    /// Verifies a token. `again` asks the directory about the user even if it has answered before.
    async fn verify(&self, token: &str, now: Micros, again: bool) -> Result<Identity, Refusal> {
        match &self.own {
            Some(own) => self.verify_own(own, token, now, again).await,
            None => self.verify_of_core(token, now).await,
        }
    }

    async fn verify_of_core(&self, token: &str, now: Micros) -> Result<Identity, Refusal> {
        let parsed = Unverified::<Claims>::parse(token)?;
        if !self.config.accepts_issuer(&parsed.claims.iss) {
            return Err(Refusal::Invalid("issuer"));
        }
        let kid = parsed.header.kid.as_deref().ok_or(Refusal::Invalid("kid"))?;
        let key = self.key(&parsed.claims.iss, kid, now).await?;
        if !key.verify(&parsed.header.alg, parsed.message, parsed.signature) {
            return Err(Refusal::Invalid("signature"));
        }
        let (leeway, lifetime) = (micros(self.config.leeway), micros(self.config.lifetime_max));
        let times = parsed.claims.validity().check(now, leeway, lifetime)?;
        if !parsed.claims.is_for(self.config.audience()) {
            return Err(Refusal::Invalid("audience"));
        }
        let (user_id, session_id) = (parsed.claims.sub, parsed.claims.sid);
        if self.revocations.read().contains(user_id, session_id, times.issued_at) {
            return Err(Refusal::Revoked);
        }
        let username = match parsed.claims.username {
            Some(name) if !name.is_empty() && name.len() <= USERNAME_BYTES_MAX => name.into(),
            Some(_) => return Err(Refusal::Invalid("username")),
            None => self.username(user_id).await?,
        };
        let (issued_at, expires_at) = (times.issued_at, times.expires_at);
        Ok(Identity { user_id, username, session_id, issued_at, expires_at })
    }

    /// Counts and logs a refusal. Every refusal passes through here.
    fn refused(&self, refusal: Refusal) -> ImksError {
        metrics::TOKENS_REFUSED.increment();
        let why = refusal.why();
        match refusal {
            Refusal::NotYetValid if self.may_log(why) => {
                tracing::warn!(
                    "token refused: a good one is not valid yet, so a clock is wrong, here or at its issuer"
                );
            }
            // An operator who sets logins up needs the reason, and nobody needs it once per client.
            Refusal::Invalid(_) if self.may_log(why) => tracing::info!(why, "token refused"),
            _ => tracing::debug!(why, "token refused"),
        }
        refusal.into()
    }

    /// Whether a refusal for this reason was not logged for operators within a minute.
    fn may_log(&self, why: &'static str) -> bool {
        let now = Instant::now();
        let mut logged_at = self.logged_at.lock();
        if logged_at.get(why).is_some_and(|at| now < *at + LOG_PAUSE) {
            return false;
        }
        logged_at.insert(why, now);
        true
    }

    async fn key(&self, issuer: &str, kid: &str, now: Micros) -> Result<Verifier, Refusal> {
        if let Some(key) = self.known_key(issuer, kid, now) {
            return Ok(key);
        }
        if self.keys.read().is_early(issuer, kid, now) {
            return Err(Refusal::NotYetValid);
        }
        self.refreshed().await;
        if let Some(key) = self.known_key(issuer, kid, now) {
            return Ok(key);
        }
        // Without an answer from the core, a new key cannot be told from one that does not exist.
        let unknown = self.refreshes.lock().failed || self.keys.read().is_empty();
        Err(if unknown { Refusal::Unknown(ImksError::Unavailable("core")) } else { Refusal::Invalid("kid") })
    }

    fn known_key(&self, issuer: &str, kid: &str, now: Micros) -> Option<Verifier> {
        self.keys.read().get(issuer, kid, now)
    }

    async fn username(&self, user: Uuid) -> Result<Arc<str>, Refusal> {
        let user = self.core.users(&[user]).await?.pop().filter(|found| found.id == user && !found.deleted);
        user.map(|user| user.username).ok_or(Refusal::Invalid("user"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

/// The longest leeway for clocks that differ.
const LEEWAY_MAX: Duration = Duration::from_secs(60);
/// How long the start, and a token with an unknown key, wait for the core.
const START_WAIT: Duration = Duration::from_secs(3);
/// The minimum time between two log entries of one reason. Without it, every connect of a client would log one.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// The issuer and the audience of tokens where the configuration names none.
const NAME: &str = "imks";
/// The longest username that a token may carry.
const USERNAME_BYTES_MAX: usize = 256;
/// The number of revocations that a receiver may lag behind before it must check all of its connections.
const REVOKED_QUEUE: usize = 1_024;
