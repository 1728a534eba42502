//! The deadlines of a connection that can never work, alone or together.

use std::time::Duration;

use super::Config;

/// Returns the problems, each as a sentence that says what to change.
pub(super) fn problems(config: &Config) -> impl Iterator<Item = String> {
    let (engine, http) = (&config.engine, &config.http);
    let rules = [
        ((PING_INTERVAL_MIN..=PING_MAX).contains(&engine.ping_interval), PING_INTERVAL_RULE),
        ((PING_TIMEOUT_MIN..=PING_MAX).contains(&engine.ping_timeout), PING_TIMEOUT_RULE),
        (!engine.polling || http.head_timeout > engine.ping_interval, HEAD_RULE),
    ];
    let needed = [
        ("IMKS_HTTP_FIRST_BYTE", http.first_byte_timeout),
        ("IMKS_HTTP_HEAD", http.head_timeout),
        ("IMKS_HTTP_WRITE", http.write_timeout),
        ("IMKS_HTTP_REQUEST", http.request_timeout),
        ("IMKS_TLS_HANDSHAKE", config.tls.handshake_timeout),
        ("IMKS_WEBTRANSPORT_HANDSHAKE", config.webtransport.handshake_timeout),
        ("IMKS_ENGINE_BODY_TIMEOUT", engine.body_timeout),
        ("IMKS_CONNECT_TIMEOUT", config.socket.connect_timeout),
    ];
    let broken = rules.into_iter().filter(|(holds, _)| !holds).map(|(_, rule)| rule.to_owned());
    let none = needed.into_iter().filter(|(_, time)| time.is_zero());
    broken.chain(
        none.map(|(name, _)| format!("{name} must be longer than 0s, or it would end everything at once")),
    )
}

/// The shortest time between two pings: each costs every client a packet, and wakes the radio of a phone.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The longest time between two pings, or from a ping to its pong: proxies end what is silent for longer, and nobody would
/// notice who is gone.
const PING_MAX: Duration = Duration::from_secs(120);
const PING_INTERVAL_RULE: &str =
    "IMKS_ENGINE_PING_INTERVAL must be from 5s to 2m: shorter only costs, longer finds nobody gone";
/// The shortest time from a ping to its pong that an ordinary network keeps.
const PING_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const PING_TIMEOUT_RULE: &str =
    "IMKS_ENGINE_PING_TIMEOUT must be from 1s to 2m: a slow network takes a second";
const HEAD_RULE: &str = "IMKS_HTTP_HEAD must be longer than IMKS_ENGINE_PING_INTERVAL, or connections of clients that use polling end \
                         between two requests";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.problems().join("\n")
    }

    #[test]
    fn a_heartbeat_is_neither_a_flood_nor_so_rare_that_nobody_is_missed() {
        let interval = |seconds| told(|config| config.engine.ping_interval = Duration::from_secs(seconds));
        let rule = "IMKS_ENGINE_PING_INTERVAL must be from 5s to 2m";
        assert!(interval(4).contains(rule) && interval(121).contains(rule));
        assert_eq!((interval(5), interval(29)), (String::new(), String::new()));
        let timeout = |millis| told(|config| config.engine.ping_timeout = Duration::from_millis(millis));
        let rule = "IMKS_ENGINE_PING_TIMEOUT must be from 1s to 2m";
        assert!(timeout(999).contains(rule) && timeout(120_001).contains(rule));
        assert_eq!((timeout(1_000), timeout(120_000)), (String::new(), String::new()));
    }

    #[test]
    fn a_connection_of_a_polling_client_lives_from_one_heartbeat_to_the_next() {
        let slower = |config: &mut Config| config.engine.ping_interval = Duration::from_secs(60);
        assert_eq!(told(slower), HEAD_RULE);
        let longer = |config: &mut Config| config.http.head_timeout = Duration::from_secs(61);
        assert_eq!(told(|config| [slower as fn(&mut Config), longer].iter().for_each(|it| it(config))), "");
        let without = |config: &mut Config| config.engine.polling = false;
        assert_eq!(told(|config| [slower as fn(&mut Config), without].iter().for_each(|it| it(config))), "");
    }

    #[test]
    fn a_deadline_that_ends_everything_at_once_is_told_by_its_name() {
        assert!(
            told(|config| config.http.write_timeout = Duration::ZERO)
                .contains("IMKS_HTTP_WRITE must be longer")
        );
        assert!(
            told(|config| config.engine.body_timeout = Duration::ZERO).contains("IMKS_ENGINE_BODY_TIMEOUT")
        );
    }
}
