//! The settings of webhooks, and their checks.

use std::collections::HashSet;
use std::time::Duration;

use super::signature::Keys;
use crate::models::feed::{self, Filter};
use crate::secret::Secret;

/// The settings of webhooks.
#[derive(Debug, Clone)]
pub struct Config {
    /// The addresses of the receivers.
    pub url: Vec<Secret>,
    /// The secrets that sign; more than one while receivers change.
    pub secret: Vec<Secret>,
    /// The names of the events that are sent; all if empty.
    pub events: Vec<String>,
    /// How long a receiver may take to answer.
    pub deadline: Duration,
    /// How long an event is retried.
    pub give_up: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: Vec::new(),
            secret: Vec::new(),
            events: Vec::new(),
            deadline: Duration::from_secs(15),
            give_up: Duration::from_hours(1),
        }
    }
}

impl Config {
    /// Returns the problems of the settings, each as a sentence that says what to change.
    pub fn problems(&self, feed: &feed::Config) -> Vec<String> {
        let mut problems = Vec::new();
        if self.url.is_empty() {
            return problems;
        }
        let is_http = |url: &Secret| url.expose().parse::<http::Uri>().is_ok_and(|uri| is_http(&uri));
        if !self.url.iter().all(is_http) {
            problems.push("IMKS_WEBHOOK_URL must be addresses that start with http:// or https://".into());
        }
        let has_user = |url: &Secret| {
            let uri = url.expose().parse::<http::Uri>();
            uri.is_ok_and(|uri| uri.authority().is_some_and(|authority| authority.as_str().contains('@')))
        };
        if self.url.iter().any(has_user) {
            problems.push(
                "IMKS_WEBHOOK_URL has a user or a password, which are not sent: check the signature".into(),
            );
        }
        if self.url.len() > ENDPOINTS_MAX {
            problems.push(format!("IMKS_WEBHOOK_URL has more than {ENDPOINTS_MAX} addresses"));
        }
        let distinct: HashSet<&str> = self.url.iter().map(Secret::expose).collect();
        if distinct.len() < self.url.len() {
            problems
                .push("IMKS_WEBHOOK_URL has an address twice: each receiver gets every event once".into());
        }
        if let Some(event) = self.events.iter().find(|event| !Filter::names().any(|name| name == **event)) {
            let known = Filter::names().collect::<Vec<_>>().join(", ");
            problems.push(format!("IMKS_WEBHOOK_EVENTS has the event {event:?}: there are {known}"));
        }
        problems.extend(Keys::parse(&self.secret, SECRET).err().map(|error| error.to_string()));
        if !feed.is_on() {
            problems.push("IMKS_WEBHOOK_URL needs the feed: IMKS_FEED_RETENTION must be more than 0s".into());
        }
        if self.deadline.is_zero() || self.give_up < self.deadline {
            let text = "IMKS_WEBHOOK_GIVE_UP must be at least IMKS_WEBHOOK_DEADLINE, and both more than 0s";
            problems.push(text.into());
        }
        problems
    }
}

fn is_http(uri: &http::Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
}

/// The variable with the secrets.
pub(super) const SECRET: &str = "IMKS_WEBHOOK_SECRET";
/// The most receivers of webhooks.
const ENDPOINTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Config {
        let secret = vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()];
        Config { url: vec![url.into()], secret, ..Config::default() }
    }

    #[test]
    fn what_cannot_work_is_told_before_anything_is_sent() {
        let (on, off) = (feed::Config::default(), feed::Config { retention: Duration::ZERO });
        assert_eq!(config("http://app:3000/hook").problems(&on), [""; 0]);
        assert_eq!(Config::default().problems(&off), [""; 0]);
        let twice = vec!["http://app/hook".into(), "http://app/hook".into()];
        let typo = vec!["message:new".into(), "message:edited".into()];
        for (config, feed, part) in [
            (Config { url: twice, ..config("") }, &on, "IMKS_WEBHOOK_URL has an address twice"),
            (
                Config { events: typo, ..config("http://app") },
                &on,
                "\"message:edited\": there are message:new,",
            ),
            (config("app/hook"), &on, "IMKS_WEBHOOK_URL must be"),
            (config("http://me:hunter2@app/hook"), &on, "IMKS_WEBHOOK_URL has a user"),
            (config("http://app"), &off, "IMKS_FEED_RETENTION"),
            (Config { secret: Vec::new(), ..config("http://app") }, &on, "IMKS_WEBHOOK_SECRET"),
            (Config { give_up: Duration::from_secs(1), ..config("http://app") }, &on, "IMKS_WEBHOOK_GIVE_UP"),
        ] {
            let problems = config.problems(feed);
            assert!(problems.len() == 1 && problems[0].contains(part), "{problems:?}");
            assert!(!problems[0].contains("hunter2"), "{problems:?}");
            assert!(problems[0].matches("message:updated").count() <= 1, "{problems:?}");
        }
    }
}
