//! Verification of tokens that the operator's own application signs: signature, times, issuer, audience, and the login
//! that the claims describe.

use uuid::Uuid;

use super::claims::{Refusal, Refused, Times, Unverified};
use super::keyring::{Issuer, Keyring};
use super::login::{Login, OwnClaims};
use super::login_config::LoginConfig;
use super::own_keys::KeySource;
use super::token_config::Config;
use crate::clock::{Micros, micros};
use crate::error::ImksResult;

/// The keys of one's own application, and the rules for tokens that they sign.
pub struct SignedTokens {
    keyring: Keyring,
    has_key_ids: bool,
    is_remote: bool,
    config: Config,
    logins: LoginConfig,
}

/// A token whose signature and claims are good.
pub(super) struct SignedLogin {
    pub(super) login: Login,
    pub(super) session_id: Option<Uuid>,
    pub(super) times: Times,
}

impl SignedTokens {
    /// Starts to follow the keys at `source`.
    ///
    /// # Errors
    /// `Config` if a file or a secret cannot be used.
    pub async fn start(source: KeySource, config: Config, logins: LoginConfig) -> ImksResult<Self> {
        let (has_key_ids, is_remote) = (source.has_key_ids(), source.is_remote());
        let keyring = Keyring::start(Issuer::Own(source), config.clone()).await?;
        Ok(Self { keyring, has_key_ids, is_remote, config, logins })
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Returns the login that a token stands for at `now`.
    ///
    /// # Errors
    /// `Auth` or `TokenExpired`; `Unavailable` if the key is unknown and the key set does not answer; `Overloaded`
    /// if it may be a new key, and the key set was asked a moment ago; `TokenNotYetValid` if the clocks differ.
    pub async fn login(&self, token: &str, now: Micros) -> ImksResult<Login> {
        self.verify(token, now).await.map(|signed| signed.login).map_err(|refused| refused.refusal.into())
    }

    /// Verifies a token at `now`. Only a key set is asked, and only for a key that is not known.
    pub(super) async fn verify(&self, token: &str, now: Micros) -> Result<SignedLogin, Refused> {
        let Unverified { header, claims, message, signature } = Unverified::<OwnClaims>::parse(token)?;
        let (kid, alg) = (header.kid.as_deref(), header.alg.as_str());
        let keys = self.keyring.candidates(self.has_key_ids, kid, alg, token, now).await?;
        if !keys.iter().any(|key| key.verify(alg, message, signature)) {
            return Err(Refusal::Invalid("signature").into());
        }
        self.signed(&claims, now).map_err(|refusal| refusal.of_subject(claims.subject(&self.logins)))
    }

    /// Returns the login that claims with a good signature stand for at `now`.
    fn signed(&self, claims: &OwnClaims, now: Micros) -> Result<SignedLogin, Refusal> {
        let (leeway, lifetime) = (micros(self.config.leeway), micros(self.config.lifetime_max));
        let times = claims.validity()?.check(now, leeway, lifetime)?;
        let realm = self.realm(claims.issuer()?)?;
        self.check_audience(claims)?;
        let login = claims.login(&self.logins, realm)?;
        Ok(SignedLogin { login, session_id: claims.session(), times })
    }

    /// Returns the name that separates the subjects of one issuer from those of others. The subjects of the only
    /// issuer, or of the first one, stand for themselves, so that a second issuer can be added later.
    fn realm<'a>(&self, issuer: Option<&'a str>) -> Result<&'a str, Refusal> {
        let issuers = &self.config.issuers;
        let listed = |issuer: &str| issuers.iter().any(|it| it == issuer);
        match issuer {
            _ if !issuers.is_empty() && !issuer.is_some_and(listed) => Err(Refusal::Invalid("issuer")),
            // The address of a key set says nothing about who uses it: several issuers may share one.
            Some(issuer) if self.is_remote => Ok(issuer),
            None if self.is_remote => Err(Refusal::Invalid("issuer")),
            Some(issuer) if issuers.iter().skip(1).any(|it| it == issuer) => Ok(issuer),
            _ => Ok(""),
        }
    }

    fn check_audience(&self, claims: &OwnClaims) -> Result<(), Refusal> {
        // A key set belongs to an identity provider, which signs tokens for other services with the same keys.
        let is_required = self.config.audience.is_some() || self.is_remote;
        match claims.audience()? {
            Some(audience) if audience.has(self.config.audience()) => Ok(()),
            None if !is_required => Ok(()),
            _ => Err(Refusal::Invalid("audience")),
        }
    }
}
