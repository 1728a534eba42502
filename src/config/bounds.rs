//! The least and the most that numbers and durations may be. The table of fields says it, as `LEAST..MOST`; either may be
//! missing, and `0|` before them says that 0 is allowed too, because it has a meaning of its own.

use super::field::{Field, Visitor};
use super::setting::Setting;
use super::{Config, fields};

/// Returns the problems of values out of their bounds, each as a sentence that says what to change.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut outside = Outside(Vec::new());
    fields(&mut config.clone(), &mut outside);
    outside.0
}

/// Returns what a value may be, in words: `at least 1`.
pub(super) fn rule(bounds: &str) -> Option<String> {
    let (zero, least, most) = split(bounds)?;
    let rule = match (least, most) {
        ("", most) => format!("at most {most}"),
        (least, "") => format!("at least {least}"),
        (least, most) => format!("from {least} to {most}"),
    };
    Some(if zero { format!("0, or {rule}") } else { rule })
}

/// Collects the problems.
struct Outside(Vec<String>);

impl Visitor for Outside {
    fn field<T: Setting>(&mut self, field: Field, slot: &mut T) {
        let Some(amount) = slot.amount() else { return };
        let parsed = |text: &str| T::parse(text).ok().and_then(|bound| bound.amount());
        let (zero, least, most) = split(field.bounds).unwrap_or_default();
        let (least, most) = (parsed(least).unwrap_or_default(), parsed(most).unwrap_or(MOST));
        if (least..=most).contains(&amount) || zero && amount == 0 {
            return;
        }
        let shown = slot.show();
        let rule = rule(field.bounds).filter(|_| most < MOST || amount < least);
        self.0.push(match rule {
            Some(rule) => format!("{} is {shown}: it must be {rule}", field.env),
            None => format!("{} is {shown}, which is more than can ever be meant: write less", field.env),
        });
    }
}

/// Splits bounds into whether 0 is allowed too, the least and the most.
fn split(bounds: &str) -> Option<(bool, &str, &str)> {
    let rest = bounds.strip_prefix(ZERO);
    let (least, most) = rest.unwrap_or(bounds).split_once("..")?;
    Some((rest.is_some(), least, most))
}

const ZERO: &str = "0|";
/// The most that any value may be, in units or milliseconds: more would overflow a sum or a time somewhere.
const MOST: u64 = 1_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::load;

    fn told(variable: &str, value: &str) -> String {
        let read = |name: &str| (name == variable).then(|| value.to_owned());
        load(Config::default(), None, &read, &[]).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_value_with_which_nothing_works_is_told_by_its_name_with_what_it_may_be() {
        for (variable, value, rule) in [
            ("IMKS_HTTP_HEAD_BYTES", "100", "from 1024 to 1048576"),
            ("IMKS_HTTP_CONNECTIONS_MAX", "0", "at least 1"),
            ("IMKS_ENGINE_SESSIONS_MAX", "0", "at least 1"),
            ("IMKS_ENGINE_ACCEPT_QUEUE", "0", "from 1 to 1000000"),
            ("IMKS_ENGINE_UPGRADE_TIMEOUT", "0s", "from 100ms to 10m"),
            ("IMKS_OUTBOX_PACKETS", "0", "at least 1"),
            ("IMKS_EVENTS_IN_FLIGHT", "0", "from 1 to 1000000"),
            ("IMKS_EVENTS_WAITING_BYTES", "0", "at least 1024"),
            ("IMKS_EVENTS_WAITING_BYTES", "10", "at least 1024"),
            ("IMKS_LIMIT_ANSWERS_CONNECTION", "1", "at least 262144"),
            ("IMKS_LIMIT_ANSWERS_SERVER", "1000", "at least 2097152"),
            ("IMKS_NAMESPACES", "0", "at least 1"),
            ("IMKS_TOKEN_LIFETIME", "0s", "at least 1s"),
            ("IMKS_APPEND_LINGER", "1h", "at most 1s"),
            ("IMKS_APPEND_LANES", "0", "from 1 to 1000"),
            ("IMKS_APPEND_BATCH_TIMEOUT", "0s", "from 100ms to 10m"),
            ("IMKS_DRAIN_DELAY", "100h", "at most 1h"),
            ("IMKS_DIRECTORY_POLL", "0s", "from 100ms to 1h"),
            ("IMKS_DIRECTORY_KEY_AGE", "1s", "0, or at least 1h"),
            ("IMKS_CORE_CALLS", "0", "from 1 to 1000000"),
            ("IMKS_CORE_CALLS", "18446744073709551615", "from 1 to 1000000"),
            ("IMKS_CORE_DEADLINE", "0s", "from 1ms to 10m"),
            ("IMKS_CORE_ANSWER_BYTES", "10", "at least 65536"),
            ("IMKS_SQLITE_READERS", "0", "from 1 to 1000"),
            ("IMKS_RESUME_MISSED", "2001", "at most 2000"),
            ("IMKS_DATABASE_STATEMENT_TIMEOUT", "0s", "from 100ms to 24h"),
            ("IMKS_DATABASE_ACQUIRE_TIMEOUT", "0s", "from 1ms to 1h"),
        ] {
            assert_eq!(told(variable, value), format!("{variable} is {value}: it must be {rule}"));
        }
    }

    #[test]
    fn no_value_is_so_large_that_it_overflows_later() {
        struct Numbers(Vec<&'static str>);
        impl Visitor for Numbers {
            fn field<T: Setting>(&mut self, field: Field, slot: &mut T) {
                self.0.extend(slot.amount().map(|_| field.env));
            }
        }
        let mut numbers = Numbers(Vec::new());
        fields(&mut Config::default(), &mut numbers);
        assert!(numbers.0.len() > 100, "{}", numbers.0.len());
        for variable in numbers.0 {
            for value in ["18446744073709551615", "5124095576030h"] {
                let text = told(variable, value);
                assert!(text.contains(variable), "{variable} = {value}: {text}");
            }
        }
    }

    #[test]
    fn every_bound_can_be_read_and_the_defaults_are_within() {
        assert_eq!(problems(&Config::default()), [""; 0]);
        struct Readable;
        impl Visitor for Readable {
            fn field<T: Setting>(&mut self, field: Field, slot: &mut T) {
                let Some((_, least, most)) = split(field.bounds) else {
                    return assert_eq!(field.bounds, "", "{}", field.env);
                };
                assert!(slot.amount().is_some(), "{} is no number", field.env);
                for bound in [least, most].into_iter().filter(|bound| !bound.is_empty()) {
                    assert_eq!(T::parse(bound).unwrap().show(), bound, "{}", field.env);
                }
            }
        }
        fields(&mut Config::default(), &mut Readable);
    }

    #[test]
    fn what_means_no_limit_stays_allowed() {
        for (variable, value) in [
            ("IMKS_LIMIT_SESSIONS_PER_USER", "0"),
            ("IMKS_HTTP_CONNECTIONS_PER_ADDRESS", "0"),
            ("IMKS_DIRECTORY_KEY_AGE", "0s"),
            ("IMKS_RESUME_WINDOW", "0s"),
            ("IMKS_MESSAGE_RETENTION", "0s"),
            ("IMKS_TCP_KEEPALIVE", "0s"),
            ("IMKS_WORKER_THREADS", "0"),
            ("IMKS_APPEND_LINGER", "0s"),
            ("IMKS_PERMISSIONS_TTL", "0s"),
        ] {
            assert_eq!(told(variable, value), "", "{variable}={value}");
        }
    }
}
