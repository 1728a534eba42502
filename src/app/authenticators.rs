//! Authenticators for applications on the Socket.IO library: keys that sign JSON Web Tokens, and an HTTP hook. They are
//! the ones that the server uses for logins of the operator's own application (docs/identity.md).

use std::fmt;
use std::path::PathBuf;

use crate::auth::{Hook, HookConfig, KeySource, Login, LoginConfig, SignedTokens as Tokens, TokenConfig};
use crate::clock::now_micros;
use crate::error::{ImksError, ImksResult};
use crate::socket::{Authenticator, ConnectError, Credentials};

/// A user whom [`SignedTokens`] or an [`HttpHook`] named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The id of the user in the application: the claim `sub`, or `user.id` in the answer of the hook.
    pub id: String,
    /// The name of the user; the id if the application gave none.
    pub name: String,
}

/// An authenticator that accepts JSON Web Tokens of the application's own keys.
pub struct SignedTokens(Tokens);

/// An authenticator that asks an HTTP hook of the application about each token, with a deadline of two seconds, 64
/// calls at once and a circuit breaker. It asks once per token and minute.
pub struct HttpHook(Hook);

impl SignedTokens {
    /// Accepts tokens that are signed with the private key of one of the public keys in a PEM file: RSA of at least
    /// 2048 bits, P-256, or Ed25519. The file is read again every five minutes.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the file cannot be used.
    pub async fn from_public_keys(file: impl Into<PathBuf>) -> ImksResult<Self> {
        let logins = LoginConfig { public_key_file: Some(file.into()), ..LoginConfig::default() };
        Self::start(logins, TokenConfig::default()).await
    }

    /// Accepts tokens for `audience` that a key of the JWK set at `url` signs. While the set cannot be fetched, known
    /// keys go on, and clients with tokens of unknown keys come back later.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the system has no certificates to trust.
    pub async fn from_key_set(url: &str, audience: &str) -> ImksResult<Self> {
        let logins = LoginConfig { jwks_url: Some(url.into()), ..LoginConfig::default() };
        let config = TokenConfig { audience: Some(audience.into()), ..TokenConfig::default() };
        Self::start(logins, config).await
    }

    /// Accepts tokens that are signed with a shared secret (HS256) of at least 32 bytes. Whoever can read the secret
    /// can sign in as anybody, so prefer a public key.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the secret is too short.
    pub async fn from_shared_secret(secret: &str) -> ImksResult<Self> {
        let hmac_secret = Some(secret.into());
        let logins = LoginConfig { hmac_secret, allow_hmac: true, ..LoginConfig::default() };
        Self::start(logins, TokenConfig::default()).await
    }

    async fn start(logins: LoginConfig, config: TokenConfig) -> ImksResult<Self> {
        if let Some(problem) = logins.problems(&HookConfig::default(), false).into_iter().next() {
            return Err(ImksError::Config(problem));
        }
        let keys = KeySource::of(&logins)?.ok_or(ImksError::Internal("no keys"))?;
        Ok(Self(Box::pin(Tokens::start(keys, config, logins)).await?))
    }
}

impl HttpHook {
    /// Asks the hook at `url` with `{"token": …}`, and shows it `secret` as a bearer token. It answers as described in
    /// docs/identity.md: 200 with `{"user": {"id", "name"?}}`, or 401.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the system has no certificates to trust.
    pub fn new(url: &str, secret: Option<&str>) -> ImksResult<Self> {
        let config = HookConfig { secret: secret.map(Into::into), ..HookConfig::default() };
        Ok(Self(Hook::new(url.into(), config)?))
    }
}

impl Authenticator for SignedTokens {
    type Identity = User;

    async fn authenticate(&self, credentials: Credentials) -> Result<User, ConnectError> {
        let token = credentials.token().ok_or_else(ConnectError::unauthenticated)?;
        self.0.login(&token, now_micros()).await.map(User::from).map_err(refusal)
    }

    fn owner(&self, user: &User) -> Option<String> {
        Some(user.id.clone())
    }
}

impl Authenticator for HttpHook {
    type Identity = User;

    async fn authenticate(&self, credentials: Credentials) -> Result<User, ConnectError> {
        let token = credentials.token().ok_or_else(ConnectError::unauthenticated)?;
        self.0.login(&token, now_micros()).await.map(User::from).map_err(refusal)
    }

    fn owner(&self, user: &User) -> Option<String> {
        Some(user.id.clone())
    }
}

impl From<Login> for User {
    fn from(login: Login) -> Self {
        Self { id: login.subject().to_owned(), name: login.name().to_owned() }
    }
}

/// Returns the refusal that a client gets: final, or one after which a stock client comes back by itself.
fn refusal(error: ImksError) -> ConnectError {
    if error.is_retryable() { ConnectError::reconnect(error.to_string()) } else { ConnectError::from(&error) }
}

impl fmt::Debug for SignedTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignedTokens").finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpHook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpHook").finish_non_exhaustive()
    }
}
