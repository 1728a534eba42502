//! Local verification of tokens, without a call while their keys are known: tokens of the core (docs/rpc.md), or
//! of the operator's own application (docs/identity.md).

mod follow;
mod own;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claims::{Claims, Refusal, Refused, Unverified};
use super::keyring::{Issuer, Keyring};
use super::keys::Verifier;
use super::login_config::{HookConfig, LoginConfig};
use super::metrics;
use super::revocation::Revocations;
use super::token_config::Config;
use crate::clock::{Micros, micros, now_micros};
use crate::error::{ImksError, ImksResult};
use crate::pb::{CoreClient, Revocation, Verdict};
use crate::rate_limit::{LineLimit, Rate};
use own::OwnLogins;

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

/// A token as a client presented it.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    token: &'a str,
    peer: Option<SocketAddr>,
}

impl<'a> Presented<'a> {
    /// Combines a token with the address of the client, which the log shows when the token is refused.
    pub fn new(token: &'a str, peer: Option<SocketAddr>) -> Self {
        Self { token, peer }
    }
}

impl<'a, T: AsRef<str> + ?Sized> From<&'a T> for Presented<'a> {
    fn from(token: &'a T) -> Self {
        Self { token: token.as_ref(), peer: None }
    }
}

/// The verifier of tokens. Cheap to clone; stops following the core when the last clone is dropped.
#[derive(Clone)]
pub struct TokenVerifier(Arc<Inner>);

struct Inner {
    core: CoreClient,
    config: Config,
    way: Way,
    revocations: RwLock<Revocations>,
    refusals_log: LineLimit,
    /// Whether all past revocations have been received, or never will be.
    caught_up: watch::Sender<bool>,
    /// Whether the core reports revocations.
    is_followed: AtomicBool,
    revoked: broadcast::Sender<Revocation>,
    stop: CancellationToken,
}

/// What decides about tokens.
enum Way {
    /// The keys of the core.
    Core(Keyring),
    /// The logins of the operator's own application.
    Own(Box<OwnLogins>),
}

impl TokenVerifier {
    /// Starts to verify tokens of the core; see [`TokenVerifier::start_with`].
    ///
    /// # Errors
    /// The errors of [`TokenVerifier::start_with`].
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
        config.check()?;
        let way = match OwnLogins::start(&core, &config, logins, hook).await? {
            Some(own) => Way::Own(Box::new(own)),
            None => Way::Core(Keyring::start(Issuer::Core(core.clone()), config.clone()).await?),
        };
        let inner = Arc::new(Inner {
            core,
            config,
            way,
            revocations: RwLock::default(),
            refusals_log: LineLimit::new(REFUSALS_LOGGED),
            caught_up: watch::Sender::new(false),
            is_followed: AtomicBool::new(true),
            revoked: broadcast::Sender::new(REVOKED_QUEUE),
            stop: CancellationToken::new(),
        });
        let mut caught_up = inner.caught_up.subscribe();
        inner.spawn();
        let ready = async {
            if let Some(keyring) = inner.keyring() {
                keyring.tried().await;
            }
            // Cannot fail: `inner` holds the sender.
            caught_up.wait_for(|known| *known).await.map(drop).unwrap_or_default();
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
    /// leeway; `Unavailable` if the key is unknown and the core does not answer; `Overloaded` until the keys can be
    /// looked at again, if the key is unknown and they were looked at a moment ago.
    pub async fn verify<'a>(&self, token: impl Into<Presented<'a>>) -> ImksResult<Identity> {
        self.verify_at(token, now_micros()).await
    }

    /// Returns what [`TokenVerifier::verify`] would return at `now`.
    ///
    /// # Errors
    /// The errors of [`TokenVerifier::verify`].
    pub async fn verify_at<'a>(&self, token: impl Into<Presented<'a>>, now: Micros) -> ImksResult<Identity> {
        let presented = token.into();
        let verified = self.0.verify(presented.token, now, false).await;
        verified.map_err(|refused| self.0.refused(presented, refused))
    }

    /// Verifies the token of a client that connects. The core is also asked about one of its tokens that expires
    /// within a minute: it is as old as a token gets, so what it says may long be untrue.
    ///
    /// # Errors
    /// The errors of [`TokenVerifier::verify`], and for a token that expires soon those of
    /// [`TokenVerifier::verify_remote`].
    pub async fn verify_for_session<'a>(&self, token: impl Into<Presented<'a>>) -> ImksResult<Identity> {
        let presented = token.into();
        let identity = self.verify(presented).await?;
        let expires_soon = identity.expires_at - now_micros() <= micros(EXPIRES_SOON);
        match &self.0.way {
            Way::Core(_) if expires_soon => self.verify_remote(presented).await,
            _ => Ok(identity),
        }
    }

    /// Asks the core about a token, for callers that need its current verdict (`auth:refresh`, sensitive
    /// permissions). The token must also pass the local check. Of a token of one's own keys, the core is asked
    /// whether the account of its user is open.
    ///
    /// # Errors
    /// The errors of [`TokenVerifier::verify`], and `Unavailable` or `Timeout` if the core gives no verdict.
    pub async fn verify_remote<'a>(&self, token: impl Into<Presented<'a>>) -> ImksResult<Identity> {
        let presented = token.into();
        let verified = self.0.verify_remote(presented.token, now_micros()).await;
        verified.map_err(|refused| self.0.refused(presented, refused))
    }

    /// Whether the token of a verified identity has been revoked since. This is a map read.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        let revocations = self.0.revocations.read();
        revocations.contains(identity.user_id, identity.session_id, identity.issued_at)
    }

    /// Returns a receiver of new revocations, to close the connections that they concern. A receiver that
    /// lags must check all of its connections with [`TokenVerifier::is_revoked`].
    pub fn revoked(&self) -> broadcast::Receiver<Revocation> {
        self.0.revoked.subscribe()
    }

    /// Whether the core reports revocations. If it does not, its verdict on the token of every session has to be
    /// asked for from time to time.
    pub fn is_followed(&self) -> bool {
        self.0.is_followed.load(Ordering::Relaxed)
    }
}

/// What back ends tell.
impl TokenVerifier {
    /// Returns the longest lifetime of a token.
    pub fn lifetime_max(&self) -> Duration {
        self.0.config.lifetime_max
    }

    /// Fetches the keys now, because their issuer says that they changed.
    ///
    /// # Errors
    /// `FailedPrecondition` or `Unavailable` if they cannot be fetched; those that are known stay in use.
    pub async fn refresh_now(&self) -> ImksResult<()> {
        match self.0.keyring() {
            Some(keyring) => keyring.refresh_now().await,
            None => Ok(()),
        }
    }

    /// Withdraws tokens on this node, as if the core had reported it: their connections end, and they are refused
    /// from now on. The core has to remember it for other nodes and for a restart.
    pub fn revoke_locally(&self, revocation: Revocation) {
        self.0.revoke(revocation);
    }
}

impl Inner {
    fn keyring(&self) -> Option<&Keyring> {
        match &self.way {
            Way::Core(keyring) => Some(keyring),
            Way::Own(own) => own.keyring(),
        }
    }

    /// Verifies a token. `again` asks the directory about the user even if it has answered before.
    async fn verify(&self, token: &str, now: Micros, again: bool) -> Result<Identity, Refused> {
        match &self.way {
            Way::Own(own) => self.verify_own(own, token, now, again).await,
            Way::Core(keyring) => self.verify_of_core(keyring, token, now).await,
        }
    }

    async fn verify_remote(&self, token: &str, now: Micros) -> Result<Identity, Refused> {
        if let Way::Own(_) = &self.way {
            return self.verify(token, now, true).await;
        }
        let identity = self.verify(token, now, false).await?;
        let refused = |refusal: Refusal| refusal.of(identity.user_id);
        let verdict = self.core.verify_token(token, self.config.audience()).await;
        match verdict.map_err(|error| refused(error.into()))? {
            Verdict::Valid { user, .. } if user.id == identity.user_id => Ok(identity),
            Verdict::Valid { .. } => Err(refused(Refusal::Invalid("another user"))),
            Verdict::Invalid => Err(refused(Refusal::Invalid("core"))),
            Verdict::Expired => Err(refused(Refusal::Expired)),
            Verdict::Revoked => Err(refused(Refusal::Revoked)),
        }
    }

    async fn verify_of_core(&self, keyring: &Keyring, token: &str, now: Micros) -> Result<Identity, Refused> {
        let parsed = Unverified::<Claims>::parse(token)?;
        if !self.config.accepts_issuer(&parsed.claims.iss) {
            return Err(Refusal::Invalid("issuer").into());
        }
        let kid = parsed.header.kid.as_deref().ok_or(Refusal::Invalid("kid"))?;
        let keys = keyring.named(&parsed.claims.iss, kid, token, now).await?;
        let is_good = |key: &Verifier| key.verify(&parsed.header.alg, parsed.message, parsed.signature);
        if !keys.iter().any(is_good) {
            return Err(Refusal::Invalid("signature").into());
        }
        let user = parsed.claims.sub;
        self.identity(parsed.claims, now).await.map_err(|refusal| refusal.of(user))
    }

    /// Returns the identity in claims whose signature is good.
    async fn identity(&self, claims: Claims, now: Micros) -> Result<Identity, Refusal> {
        let (leeway, lifetime) = (micros(self.config.leeway), micros(self.config.lifetime_max));
        let times = claims.validity().check(now, leeway, lifetime)?;
        if !claims.is_for(self.config.audience()) {
            return Err(Refusal::Invalid("audience"));
        }
        let (user_id, session_id) = (claims.sub, claims.sid);
        if self.revocations.read().contains(user_id, session_id, times.issued_at) {
            return Err(Refusal::Revoked);
        }
        let username = match claims.username {
            Some(name) if !name.is_empty() && name.len() <= USERNAME_BYTES_MAX => name.into(),
            Some(_) => return Err(Refusal::Invalid("username")),
            None => self.username(user_id).await?,
        };
        let (issued_at, expires_at) = (times.issued_at, times.expires_at);
        Ok(Identity { user_id, username, session_id, issued_at, expires_at })
    }

    /// Counts and logs a refusal, once. Every refusal passes through here.
    fn refused(
        &self,
        Presented { peer, .. }: Presented<'_>,
        Refused { refusal, user, subject }: Refused,
    ) -> ImksError {
        metrics::TOKENS_REFUSED.increment();
        let why = refusal.why();
        let (peer, user) = (peer.map(tracing::field::display), user.map(tracing::field::display));
        let subject = subject.as_deref();
        // An operator who sets logins up needs every reason, and a flood of wrong tokens may not fill the disk.
        let Some(unlogged) = self.refusals_log.next(Instant::now()) else {
            tracing::debug!(why, user, subject, peer, "token refused");
            return refusal.into();
        };
        match refusal {
            Refusal::NotYetValid => tracing::warn!(
                why,
                user,
                subject,
                peer,
                unlogged,
                "token refused: a clock is wrong, here or at the issuer of tokens"
            ),
            _ => tracing::info!(why, user, subject, peer, unlogged, "token refused"),
        }
        refusal.into()
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

/// The core is asked about a token that expires within this time before it starts a session.
const EXPIRES_SOON: Duration = Duration::from_secs(60);
/// How long the start waits for the core.
const START_WAIT: Duration = Duration::from_secs(3);
/// The most lines about refusals that are logged for operators.
const REFUSALS_LOGGED: Rate = Rate::new(10, 100);
/// The longest username that a token may carry.
const USERNAME_BYTES_MAX: usize = 256;
/// The number of revocations that a receiver may lag behind before it must check all of its connections.
const REVOKED_QUEUE: usize = 1_024;
