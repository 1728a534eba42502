//! Whether the first page is served: a chat at `/`, for development, with tokens that it makes by itself.

use super::Config;
use super::setting::words;
use crate::socket::Parser;

/// Whether the first page is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPage {
    /// Served while nothing is configured that only a server for other people needs.
    Auto,
    /// Served on a loopback address, also with PostgreSQL or a certificate.
    On,
    /// Never served.
    Off,
}

words!(FirstPage { "auto" => Auto, "on" => On, "off" => Off });

impl Config {
    /// Whether the first page is served, and tokens for whoever opens it.
    pub fn serves_first_page(&self) -> bool {
        match self.first_page {
            FirstPage::Auto => {
                self.first_page_obstacle().is_none() && self.database.url.is_none() && !self.tls.is_on()
            }
            FirstPage::On => self.first_page_obstacle().is_none(),
            FirstPage::Off => false,
        }
    }

    /// Returns why the first page cannot be served although it is asked for.
    pub(super) fn first_page_problem(&self) -> Option<&'static str> {
        self.first_page_obstacle().filter(|_| self.first_page == FirstPage::On)
    }

    fn first_page_obstacle(&self) -> Option<&'static str> {
        let checks = [
            (!self.is_reachable_from_outside(), NOT_LOOPBACK),
            (self.core_url.is_none() && !self.login.is_in_use(&self.hook), NO_TOKENS),
            (self.application.url.is_none() && self.application.handler.is_none(), APPLICATION),
            (self.http.trusted_proxies.is_empty(), PROXIES),
            (self.engine.websocket && self.socket.parser == Parser::Default, NO_WEBSOCKET),
        ];
        checks.into_iter().find(|(fine, _)| !fine).map(|(_, sentence)| sentence)
    }
}

const NOT_LOOPBACK: &str = "IMKS_FIRST_PAGE is on: whoever reaches the page can be anybody, so IMKS_LISTEN must be a \
     loopback address";
const NO_TOKENS: &str = "IMKS_FIRST_PAGE is on: the page makes tokens of the embedded directory, which this server does \
     not accept while IMKS_CORE_URL or your own logins are configured";
const APPLICATION: &str = "IMKS_FIRST_PAGE is on: events of its visitors, who can be anybody, would reach your application \
     (IMKS_EVENTS_URL)";
const PROXIES: &str = "IMKS_FIRST_PAGE is on: behind the proxies of IMKS_TRUSTED_PROXIES, whoever reaches the page can be on \
     another machine";
const NO_WEBSOCKET: &str =
    "IMKS_FIRST_PAGE is on: the page needs IMKS_ENGINE_WEBSOCKET=true and IMKS_PARSER=json";

#[cfg(test)]
mod tests {
    use super::*;

    fn with(edit: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        edit(&mut config);
        config
    }

    #[test]
    fn the_page_is_there_until_something_says_that_other_people_use_the_server() {
        assert!(Config::default().serves_first_page());
        for config in [
            with(|it| it.listen = "0.0.0.0:3000".parse().unwrap()),
            with(|it| it.database.url = Some("postgres://db/imks".into())),
            with(|it| it.core_url = Some("http://core:9000".into())),
            with(|it| it.login.jwks_url = Some("https://id.example/keys".into())),
            with(|it| (it.tls.cert, it.tls.key) = (Some("a.crt".into()), Some("a.key".into()))),
            with(|it| it.application.url = Some("http://app:8080".into())),
            with(|it| it.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]),
            with(|it| it.engine.websocket = false),
            with(|it| it.socket.parser = Parser::MsgPack),
            with(|it| it.first_page = FirstPage::Off),
        ] {
            assert!(!config.serves_first_page(), "{config:?}");
        }
    }

    #[test]
    fn asked_for_it_comes_with_postgresql_too_but_never_to_other_machines_or_with_tokens_of_others() {
        let on = |edit: fn(&mut Config)| {
            with(|it| {
                it.first_page = FirstPage::On;
                edit(it);
            })
        };
        assert!(on(|it| it.database.url = Some("postgres://db/imks".into())).serves_first_page());
        for (config, word) in [
            (on(|it| it.listen = "0.0.0.0:3000".parse().unwrap()), "IMKS_LISTEN"),
            (on(|it| it.core_url = Some("http://core:9000".into())), "IMKS_CORE_URL"),
            (on(|it| it.application.url = Some("http://app:8080".into())), "IMKS_EVENTS_URL"),
            (on(|it| it.http.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()]), "IMKS_TRUSTED_PROXIES"),
            (on(|it| it.engine.websocket = false), "IMKS_ENGINE_WEBSOCKET"),
        ] {
            assert!(!config.serves_first_page());
            assert!(
                config.problems().iter().any(|problem| problem.contains(word)),
                "{:?}",
                config.problems()
            );
        }
    }
}
