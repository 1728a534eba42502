//! The settings of events for the operator's application, and their checks.

use std::time::Duration;

use super::Handler;
use crate::secret::Secret;
use crate::webhook::signature::Keys;

/// The settings of events for the operator's application.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address of the application; without it, the events are unknown.
    pub url: Option<Secret>,
    /// The secrets that sign; more than one while the application changes.
    pub secret: Vec<Secret>,
    /// What the names of its events start with.
    pub prefix: String,
    /// How long it may take to answer.
    pub deadline: Duration,
    /// The number of events in progress. Further ones wait for a place within their deadline.
    pub calls_max: usize,
    /// Whether events are answered with their own payload, where there is no address.
    pub echo: bool,
    /// The application in this process, which takes the place of the address.
    pub handler: Option<Handler>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            secret: Vec::new(),
            prefix: "app:".into(),
            deadline: Duration::from_secs(5),
            calls_max: 64,
            echo: false,
            handler: None,
        }
    }
}

impl Config {
    /// Returns the problems of the settings, each as a sentence that says what to change.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.prefix.is_empty() || self.deadline.is_zero() || self.calls_max == 0 {
            let text =
                "IMKS_EVENTS_PREFIX, IMKS_EVENTS_DEADLINE and IMKS_EVENTS_CALLS must not be empty or 0";
            problems.push(text.into());
        }
        let Some(url) = &self.url else { return problems };
        if !["http://", "https://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
            problems.push("IMKS_EVENTS_URL must start with http:// or https://".into());
        }
        if self.echo {
            problems
                .push("IMKS_EVENTS_ECHO and IMKS_EVENTS_URL answer the same events: set one of them".into());
        }
        problems.extend(Keys::parse(&self.secret, SECRET).err().map(|error| error.to_string()));
        problems
    }
}

/// The variable with the secrets.
pub(super) const SECRET: &str = "IMKS_EVENTS_SECRET";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_told_before_anybody_connects() {
        let secret = || vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()];
        let good = || Config { url: Some("http://app/events".into()), secret: secret(), ..Config::default() };
        assert_eq!(Config::default().problems(), [""; 0]);
        assert_eq!(good().problems(), [""; 0]);
        for (config, part) in [
            (Config { url: Some("app/events".into()), ..good() }, "IMKS_EVENTS_URL must"),
            (Config { secret: Vec::new(), ..good() }, SECRET),
            (Config { echo: true, ..good() }, "IMKS_EVENTS_ECHO"),
            (Config { prefix: String::new(), ..Config::default() }, "IMKS_EVENTS_PREFIX"),
        ] {
            let problems = config.problems();
            assert!(problems.len() == 1 && problems[0].contains(part), "{problems:?}");
        }
    }
}
