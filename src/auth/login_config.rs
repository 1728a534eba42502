//! The settings of logins of the operator's own application (docs/identity.md), and their checks.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// The settings of one's own logins.
#[derive(Debug, Clone)]
pub struct LoginConfig {
    /// The address of a JWK set.
    pub jwks_url: Option<Secret>,
    /// A PEM file with public keys.
    pub public_key_file: Option<PathBuf>,
    /// The secret of HS256, at least 32 bytes.
    pub hmac_secret: Option<Secret>,
    /// Whether a shared secret may be used at all.
    pub allow_hmac: bool,
    /// The claim with the id of the user.
    pub user_claim: String,
    /// The claims with the name of the user; the first one that a token has counts.
    pub name_claims: Vec<String>,
    /// The claim with the roles of the user.
    pub roles_claim: String,
    /// The claim with the channels of the user.
    pub channels_claim: String,
    /// Whether a user is made when they sign in for the first time.
    pub create_users: bool,
    /// Whether a channel is made when a login names it for the first time.
    pub create_channels: bool,
    /// The channels that a user joins when they are made.
    pub first_channels: Vec<String>,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self {
            jwks_url: None,
            public_key_file: None,
            hmac_secret: None,
            allow_hmac: false,
            user_claim: SUBJECT.into(),
            name_claims: vec!["username".into(), "preferred_username".into(), "name".into()],
            roles_claim: "roles".into(),
            channels_claim: "channels".into(),
            create_users: true,
            create_channels: false,
            first_channels: Vec::new(),
        }
    }
}

impl LoginConfig {
    /// Whether the operator's own application decides about tokens, by keys or by `hook`.
    pub fn is_in_use(&self, hook: &HookConfig) -> bool {
        let has_keys =
            self.jwks_url.is_some() || self.public_key_file.is_some() || self.hmac_secret.is_some();
        has_keys || hook.url.is_some()
    }

    /// Whether the settings of claims and of what is made on first sight are those of a server without logins.
    fn has_default_claims(&self) -> bool {
        let default = Self::default();
        let claims = |it: &Self| {
            let one = [&it.user_claim, &it.roles_claim, &it.channels_claim].map(String::clone);
            (one, it.name_claims.clone(), it.first_channels.clone(), it.create_users, it.create_channels)
        };
        claims(self) == claims(&default)
    }

    /// Returns the problems of the settings, each as a sentence that says what to change.
    pub fn problems(&self, hook: &HookConfig, has_core: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, sentence: &str| {
            if !ok {
                problems.push(sentence.to_owned());
            }
        };
        let sources = [
            self.jwks_url.is_some(),
            self.public_key_file.is_some(),
            self.hmac_secret.is_some(),
            hook.url.is_some(),
        ];
        let count = sources.into_iter().filter(|is_set| *is_set).count();
        check(count <= 1, ONE_SOURCE);
        check(count == 0 || !has_core, NOT_WITH_A_CORE);
        let is_http = |url: &Secret| ["http://", "https://"].iter().any(|it| url.expose().starts_with(it));
        check(
            self.jwks_url.as_ref().is_none_or(is_http),
            "IMKS_TOKEN_JWKS_URL must start with http:// or https://",
        );
        check(hook.url.as_ref().is_none_or(is_http), "IMKS_AUTH_URL must start with http:// or https://");
        check(hook.calls_max > 0, "IMKS_AUTH_CALLS must be at least 1");
        if let Some(secret) = &self.hmac_secret {
            check(self.allow_hmac, HMAC_NOT_ALLOWED);
            check(
                secret.expose().len() >= HMAC_BYTES_MIN,
                "IMKS_TOKEN_HMAC_SECRET must have at least 32 bytes (RFC 7518 section 3.2)",
            );
        }
        check(
            !self.user_claim.is_empty(),
            "IMKS_TOKEN_CLAIM_USER must name the claim with the id of the user",
        );
        check(
            count > 0 || self.has_default_claims(),
            "IMKS_TOKEN_CLAIM_USER, IMKS_TOKEN_CLAIM_NAME, IMKS_TOKEN_CLAIM_ROLES, IMKS_TOKEN_CLAIM_CHANNELS and \
             IMKS_LOGIN_… have no effect without one of IMKS_TOKEN_JWKS_URL, IMKS_TOKEN_PUBLIC_KEY_FILE, \
             IMKS_TOKEN_HMAC_SECRET and IMKS_AUTH_URL",
        );
        check(
            hook.url.is_some() || hook.secret.is_none(),
            "IMKS_AUTH_SECRET has no effect without IMKS_AUTH_URL",
        );
        let bad = self.first_channels.iter().find(|name| !is_channel_name(name));
        problems.extend(bad.map(|name| format!("IMKS_LOGIN_CHANNELS: {name:?} {CHANNEL_NAME_RULE}")));
        problems
    }
}

/// The settings of the hook.
#[derive(Debug, Clone)]
pub struct HookConfig {
    /// The address of the hook; without it there is none.
    pub url: Option<Secret>,
    /// The secret that this server shows to the hook, as a bearer token.
    pub secret: Option<Secret>,
    /// How long the hook may take to answer.
    pub deadline: Duration,
    /// How long an answer is used for further connects with the same token.
    pub ttl: Duration,
    /// The number of concurrent calls. Further calls wait for a slot within their deadline.
    pub calls_max: usize,
    /// The number of tokens that wait for a call. Any further one is refused as `overloaded` at once.
    pub waiting_max: usize,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            deadline: Duration::from_secs(2),
            ttl: Duration::from_secs(60),
            calls_max: 64,
            waiting_max: 8_192,
        }
    }
}

/// Whether the directory allows a channel of this name, which may be one of another workspace (`acme/team`).
pub(super) fn is_channel_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let is_name =
        |name: &str| (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && name.chars().all(allowed);
    name.split_once('/').map_or_else(|| is_name(name), |(workspace, own)| is_name(workspace) && is_name(own))
}

/// The claim with the id of the user (RFC 7519).
pub(super) const SUBJECT: &str = "sub";
/// The longest name of a user or channel, in characters.
pub(super) const NAME_CHARS_MAX: usize = 64;
/// The shortest secret of HS256, in bytes.
const HMAC_BYTES_MIN: usize = 32;
const ONE_SOURCE: &str = "set only one of IMKS_TOKEN_JWKS_URL, IMKS_TOKEN_PUBLIC_KEY_FILE, \
     IMKS_TOKEN_HMAC_SECRET and IMKS_AUTH_URL";
const NOT_WITH_A_CORE: &str = "the core at IMKS_CORE_URL names the keys of tokens: unset IMKS_TOKEN_JWKS_URL, \
     IMKS_TOKEN_PUBLIC_KEY_FILE, IMKS_TOKEN_HMAC_SECRET and IMKS_AUTH_URL";
const HMAC_NOT_ALLOWED: &str = "IMKS_TOKEN_HMAC_SECRET needs IMKS_TOKEN_ALLOW_HMAC=true: whoever can read a \
     shared secret can sign in as anybody, so prefer a public key";
const CHANNEL_NAME_RULE: &str =
    "is not 1 to 64 letters, digits, hyphens, underscores or dots, after WORKSPACE/ if need be";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_effect_are_told() {
        let claims = LoginConfig { roles_claim: "/realm_access/roles".into(), ..LoginConfig::default() };
        let secret = HookConfig { secret: Some("s".into()), ..HookConfig::default() };
        assert_eq!(claims.problems(&HookConfig::default(), false).len(), 1);
        assert_eq!(LoginConfig::default().problems(&secret, true).len(), 1);
        let keys = LoginConfig { jwks_url: Some("https://id/jwks".into()), ..claims };
        assert!(keys.problems(&HookConfig::default(), false).is_empty());
    }

    #[test]
    fn a_shared_secret_must_be_allowed_and_long() {
        let secret = |text: &str, allow_hmac| LoginConfig {
            hmac_secret: Some(text.into()),
            allow_hmac,
            ..LoginConfig::default()
        };
        let long = "0123456789abcdef0123456789abcdef";
        assert!(secret(long, true).problems(&HookConfig::default(), false).is_empty());
        assert_eq!(secret(long, false).problems(&HookConfig::default(), false).len(), 1);
        assert_eq!(secret("short", true).problems(&HookConfig::default(), false).len(), 1);
        assert_eq!(
            secret(long, true).problems(&HookConfig::default(), true).len(),
            1,
            "the core has keys of its own"
        );
    }
}
