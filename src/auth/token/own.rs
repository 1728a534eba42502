//! Verification of tokens that the operator's own application signs, or decides about by its hook.

use super::{Identity, Inner};
use crate::auth::claims::{Refusal, Refused};
use crate::auth::hook::{Answer, Hook};
use crate::auth::keyring::Keyring;
use crate::auth::login::Users;
use crate::auth::login_config::{HookConfig, LoginConfig};
use crate::auth::own_keys::KeySource;
use crate::auth::signed::{SignedLogin, SignedTokens};
use crate::auth::token_config::Config;
use crate::clock::Micros;
use crate::error::ImksResult;
use crate::pb::CoreClient;

/// The logins of the operator's own application: its keys, and the users that stand for its logins.
pub(super) struct OwnLogins {
    config: LoginConfig,
    source: Source,
    users: Users,
}

/// What decides about a token.
enum Source {
    /// Its signature.
    Keys(Box<SignedTokens>),
    /// The operator's HTTP hook.
    Hook(Box<Hook>),
}

impl OwnLogins {
    /// Starts the logins that `logins` and `hook` describe. Returns `None` if they name neither keys nor a hook.
    ///
    /// # Errors
    /// `Config` if the keys cannot be used, or if the system has no certificates to trust.
    pub(super) async fn start(
        core: &CoreClient,
        config: &Config,
        logins: LoginConfig,
        hook: HookConfig,
    ) -> ImksResult<Option<Self>> {
        let source = match (KeySource::of(&logins)?, hook.url.clone()) {
            (Some(keys), _) => {
                let tokens = Box::pin(SignedTokens::start(keys, config.clone(), logins.clone())).await?;
                Source::Keys(Box::new(tokens))
            }
            (None, Some(url)) => Source::Hook(Box::new(Hook::new(url, hook)?)),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { config: logins, source, users: Users::new(core.clone()) }))
    }

    /// Returns the keys, unless a hook decides.
    pub(super) fn keyring(&self) -> Option<&Keyring> {
        match &self.source {
            Source::Keys(tokens) => Some(tokens.keyring()),
            Source::Hook(_) => None,
        }
    }

    pub(super) fn users(&self) -> &Users {
        &self.users
    }
}

impl Inner {
    pub(super) async fn verify_own(
        &self,
        own: &OwnLogins,
        token: &str,
        now: Micros,
        again: bool,
    ) -> Result<Identity, Refused> {
        let SignedLogin { login, session_id, times } = match &own.source {
            Source::Keys(tokens) => tokens.verify(token, now).await?,
            Source::Hook(hook) => self.ask(hook, token, now, again).await?,
        };
        let user_id = login.user_id;
        if self.revocations.read().contains(user_id, session_id, times.issued_at) {
            return Err(Refusal::Revoked.of(user_id));
        }
        let username = own.users.sign_in(&own.config, &login, again).await;
        let username = username.map_err(|refusal| refusal.of(user_id))?;
        let (issued_at, expires_at) = (times.issued_at, times.expires_at);
        Ok(Identity { user_id, username, session_id, issued_at, expires_at })
    }

    /// Asks the hook. What it said before a revocation does not count after it.
    async fn ask(&self, hook: &Hook, token: &str, now: Micros, again: bool) -> Result<SignedLogin, Refusal> {
        let mut answer = hook.ask(token, now, again).await?;
        if self.revocations.read().contains(answer.login.user_id, None, answer.times.issued_at) {
            answer = hook.ask(token, now, true).await?;
        }
        let Answer { login, times } = answer;
        Ok(SignedLogin { login, session_id: None, times })
    }
}
