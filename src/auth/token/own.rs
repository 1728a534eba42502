//! Verification of tokens that the operator's own application signs, or decides about by its hook.

use super::{Config, Identity, Inner, micros};
use crate::auth::claims::{Refusal, Unverified};
use crate::auth::hook::{Answer, Hook};
use crate::auth::keys::Verifier;
use crate::auth::login::{OwnClaims, Users};
use crate::auth::login_config::{HookConfig, LoginConfig};
use crate::auth::own_keys::KeySource;
use crate::clock::Micros;
use crate::error::{ImksError, ImksResult};
use crate::http_client::HttpClient;
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
    Keys(KeySource),
    /// The operator's HTTP hook.
    Hook(Box<Hook>),
}

impl OwnLogins {
    /// Returns the logins that `config` and `hook` describe, or `None` if they name neither keys nor a hook.
    ///
    /// # Errors
    /// `Config` if the system has no certificates to trust.
    pub(super) fn new(core: CoreClient, config: LoginConfig, hook: HookConfig) -> ImksResult<Option<Self>> {
        let source = match (&config.jwks_url, &config.public_key_file, &config.hmac_secret, &hook.url) {
            (Some(url), ..) => {
                Source::Keys(KeySource::Url { url: url.clone(), client: Box::new(HttpClient::new()?) })
            }
            (_, Some(path), ..) => Source::Keys(KeySource::File(path.clone())),
            (_, _, Some(secret), _) => Source::Keys(KeySource::Secret(secret.clone())),
            (.., Some(url)) => Source::Hook(Box::new(Hook::new(url.clone(), hook)?)),
            (None, None, None, None) => return Ok(None),
        };
        Ok(Some(Self { config, source, users: Users::new(core) }))
    }

    /// Returns the keys, unless a hook decides.
    pub(super) fn keys(&self) -> Option<&KeySource> {
        match &self.source {
            Source::Keys(keys) => Some(keys),
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
    ) -> Result<Identity, Refusal> {
        match &own.source {
            Source::Keys(keys) => self.verify_signed(own, keys, token, now, again).await,
            Source::Hook(hook) => self.verify_by_hook(own, hook, token, now, again).await,
        }
    }

    async fn verify_by_hook(
        &self,
        own: &OwnLogins,
        hook: &Hook,
        token: &str,
        now: Micros,
        again: bool,
    ) -> Result<Identity, Refusal> {
        let revoked =
            |answer: &Answer| self.revocations.read().contains(answer.login.user_id, None, answer.asked_at);
        let mut answer = hook.ask(token, now, again).await?;
        if revoked(&answer) {
            answer = hook.ask(token, now, true).await?;
        }
        if revoked(&answer) {
            return Err(Refusal::Revoked);
        }
        let Answer { login, asked_at, expires_at } = answer;
        let username = own.users.sign_in(&own.config, &login, again).await?;
        Ok(Identity { user_id: login.user_id, username, session_id: None, issued_at: asked_at, expires_at })
    }

    async fn verify_signed(
        &self,
        own: &OwnLogins,
        source: &KeySource,
        token: &str,
        now: Micros,
        again: bool,
    ) -> Result<Identity, Refusal> {
        let Unverified { header, claims, message, signature } = Unverified::<OwnClaims>::parse(token)?;
        let keys = self.own_keys(source, header.kid.as_deref(), &header.alg, now).await?;
        if !keys.iter().any(|key| key.verify(&header.alg, message, signature)) {
            return Err(Refusal::Invalid("signature"));
        }
        let (leeway, lifetime) = (micros(self.config.leeway), micros(self.config.lifetime_max));
        let times = claims.validity()?.check(now, leeway, lifetime)?;
        let realm = realm(&self.config, source, claims.issuer()?)?;
        check_audience(&self.config, source, &claims)?;
        let login = claims.login(&own.config, realm)?;
        let (user_id, session_id) = (login.user_id, claims.session());
        if self.revocations.read().contains(user_id, session_id, times.issued_at) {
            return Err(Refusal::Revoked);
        }
        let username = own.users.sign_in(&own.config, &login, again).await?;
        Ok(Identity {
            user_id,
            username,
            session_id,
            issued_at: times.issued_at,
            expires_at: times.expires_at,
        })
    }

    /// Returns the keys that may have signed a token: the one that it names, or those of its algorithm.
    async fn own_keys(
        &self,
        source: &KeySource,
        kid: Option<&str>,
        alg: &str,
        now: Micros,
    ) -> Result<Vec<Verifier>, Refusal> {
        if !source.has_key_ids() {
            return match self.keys.read().with_algorithm(alg, now) {
                keys if keys.is_empty() => Err(Refusal::Invalid("no key of this algorithm")),
                keys => Ok(keys),
            };
        }
        if let Some(kid) = kid {
            return self.key("", kid, now).await.map(|key| vec![key]);
        }
        let keys = self.keys.read().clone();
        match keys.with_algorithm(alg, now) {
            _ if keys.is_empty() => Err(Refusal::Unknown(ImksError::Unavailable("key set"))),
            keys if keys.len() == 1 => Ok(keys),
            _ => Err(Refusal::Invalid("the token names no key, and the key set has not exactly one")),
        }
    }
}

/// Returns the name that separates the subjects of one issuer from those of others. The subjects of the only
/// issuer, or of the first one, stand for themselves, so that a second issuer can be added later.
///
/// # Errors
/// `Invalid` if the issuer is not accepted.
fn realm<'a>(config: &Config, source: &KeySource, issuer: Option<&'a str>) -> Result<&'a str, Refusal> {
    let listed = |issuer: &str| config.issuers.iter().any(|it| it == issuer);
    match issuer {
        _ if !config.issuers.is_empty() && !issuer.is_some_and(listed) => Err(Refusal::Invalid("issuer")),
        // The address of a key set says nothing about who uses it: several issuers may share one.
        Some(issuer) if source.is_remote() => Ok(issuer),
        None if source.is_remote() => Err(Refusal::Invalid("issuer")),
        Some(issuer) if config.issuers.iter().skip(1).any(|it| it == issuer) => Ok(issuer),
        _ => Ok(""),
    }
}

fn check_audience(config: &Config, source: &KeySource, claims: &OwnClaims) -> Result<(), Refusal> {
    // A key set belongs to an identity provider, which signs tokens for other services with the same keys.
    let is_required = config.audience.is_some() || source.is_remote();
    match claims.audience()? {
        Some(audience) if audience.has(config.audience()) => Ok(()),
        None if !is_required => Ok(()),
        _ => Err(Refusal::Invalid("audience")),
    }
}
