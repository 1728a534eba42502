//! The rules for accepting tokens.

use std::time::Duration;

use crate::error::{ImksError, ImksResult};

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

    /// Returns the problems of the settings, each as a sentence that says what to change.
    pub fn problems(&self) -> impl Iterator<Item = &'static str> {
        (self.refresh < REFRESH_MIN).then_some(REFRESH_RULE).into_iter()
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// `Config` if the leeway is too long, or the keys would be read all the time.
    pub(super) fn check(&self) -> ImksResult<()> {
        if self.leeway > LEEWAY_MAX {
            return Err(ImksError::Config("tokens need a leeway of at most a minute".into()));
        }
        self.problems().next().map_or(Ok(()), |problem| Err(ImksError::Config(problem.into())))
    }

    pub(super) fn accepts_issuer(&self, issuer: &str) -> bool {
        if self.issuers.is_empty() { issuer == NAME } else { self.issuers.iter().any(|it| it == issuer) }
    }
}

/// The shortest interval between two refreshes of the keys.
const REFRESH_MIN: Duration = Duration::from_secs(1);
const REFRESH_RULE: &str =
    "IMKS_TOKEN_REFRESH must be at least 1s, or the source of the keys would be asked all the time";
/// The longest leeway for clocks that differ.
const LEEWAY_MAX: Duration = Duration::from_secs(60);
/// The issuer and the audience of tokens where the configuration names none.
const NAME: &str = "imks";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_once_a_second_at_most() {
        let with = |refresh| Config { refresh, ..Config::default() };
        assert!(with(Duration::from_secs(1)).check().is_ok());
        for refresh in [Duration::ZERO, Duration::from_millis(999)] {
            assert!(matches!(with(refresh).check(), Err(ImksError::Config(_))), "{refresh:?}");
        }
    }
}
