//! The conversion of configuration values from and to text.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use crate::control::Listeners;
use crate::engine::config::{Cors, Origins};
use crate::files::Place;
use crate::http::Network;
use crate::http::tls::Version;
use crate::http::webtransport::Mode;
use crate::models::db::Synchronous;
use crate::secret::Secret;
use crate::socket::Parser;
use crate::socket::rate_limit::Rate;
use crate::telemetry::logging::LogFormat;
use crate::telemetry::otlp::{Millis, Protocol, Ratio, Sampler, Traces};

/// A type of configuration values. `parse` reads what `show` returns, except for secrets, which `show`
/// redacts.
pub trait Setting: Sized {
    /// Whether the value is a secret, which is never shown and may be read from a separate file.
    const SECRET: bool = false;

    /// Parses the value. The error completes the sentence "… is not valid: ".
    fn parse(text: &str) -> Result<Self, String>;
    /// Returns the value as a person would write it.
    fn show(&self) -> String;
    /// Returns the value as a number that others of its type are compared with: a count, or milliseconds. `None` if it is
    /// neither, or not set.
    fn amount(&self) -> Option<u64> {
        None
    }
}

impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path is needed".into()) } else { Ok(text.into()) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// An address with a port. Its name may be one that the system resolves; `:3000` is every IPv4 address of this machine.
impl Setting for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        let hint =
            || "write an address and a port, for example 127.0.0.1:3000, localhost:3000 or :3000".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(hint)?;
        let port: u16 = port.parse().map_err(|_| hint())?;
        match host {
            "" => Ok(Self::from(([0, 0, 0, 0], port))),
            _ => text.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(hint),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err("write true or false".into()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for Secret {
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// An optional value; an empty text means that it is not set.
impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }

    fn amount(&self) -> Option<u64> {
        self.as_ref().and_then(T::amount)
    }
}

impl Setting for Network {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A list of values, separated by commas; a list of secrets is a secret.
impl<T: Setting> Setting for Vec<T> {
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::parse).collect()
    }

    fn show(&self) -> String {
        self.iter().map(T::show).collect::<Vec<_>>().join(",")
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.replace('_', "").parse().map_err(|_| format!("write a whole number up to {}", <$type>::MAX))
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn amount(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )*};
}
whole_number!(u16, u32, u64, usize);

/// A duration with its unit: `250ms`, `25s`, `5m`, `1h`. A number without a unit is refused as ambiguous.
impl Setting for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let hint = || "write a duration with its unit, for example 250ms, 25s, 5m or 1h".to_owned();
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(hint)?;
        let (number, unit) = text.split_at(split);
        let number: u64 = number.parse().map_err(|_| hint())?;
        let millis_per_unit = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(hint()),
        };
        number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or_else(hint)
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        for (unit, millis_per_unit) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if millis >= millis_per_unit && millis.is_multiple_of(millis_per_unit) {
                return format!("{}{unit}", millis / millis_per_unit);
            }
        }
        if millis == 0 { "0s".into() } else { format!("{millis}ms") }
    }

    fn amount(&self) -> Option<u64> {
        // What is longer than zero is no zero.
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        Some(millis.max(u64::from(!self.is_zero())))
    }
}

/// A duration whose unit may be omitted. A bare number is in milliseconds, as the OpenTelemetry specification
/// requires.
impl Setting for Millis {
    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.bytes().all(|byte| byte.is_ascii_digit());
        Duration::parse(&if bare { format!("{text}ms") } else { text.to_owned() }).map(Self)
    }

    fn show(&self) -> String {
        self.0.show()
    }

    fn amount(&self) -> Option<u64> {
        self.0.amount()
    }
}

/// A share, from 0 to 1.
impl Setting for Ratio {
    fn parse(text: &str) -> Result<Self, String> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or_else(|| "write a share from 0 to 1, for example 0.01".to_owned())
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// `*`, or origins separated by commas; pages of others are then refused on every transport. Credentials are not allowed, because the identity comes from the
/// token and never from a cookie.
impl Setting for Cors {
    fn parse(text: &str) -> Result<Self, String> {
        let list = Vec::<String>::parse(text)?;
        let origins = match list.iter().find(|origin| !is_origin(origin)) {
            _ if list == [ANY_ORIGIN] => Origins::Any,
            None => Origins::List(list),
            // What it has may be a password.
            Some(wrong) if wrong.contains('@') => {
                return Err("an origin has no user and no password; write it as browsers do, for example https://example.com".into());
            }
            Some(wrong) => {
                return Err(format!(
                    "{wrong:?} is no origin; write each one as browsers do, for example https://example.com, or *"
                ));
            }
        };
        let enforce = matches!(&origins, Origins::List(list) if !list.is_empty());
        Ok(Self { origins, enforce, ..Self::default() })
    }

    fn show(&self) -> String {
        match &self.origins {
            Origins::Any => ANY_ORIGIN.into(),
            Origins::List(list) => list.show(),
        }
    }
}

/// Whether a text is an origin as browsers send it (RFC 6454 section 6.2): a scheme, a host and perhaps a port that is not
/// the usual one, in small letters. They are compared as a whole, so another form would never match.
pub(crate) fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return false };
    let port = uri.port_u16();
    let is_usual = matches!((scheme, port), ("http", Some(80)) | ("https", Some(443)));
    let written =
        port.map_or_else(|| format!("{scheme}://{host}"), |port| format!("{scheme}://{host}:{port}"));
    !host.is_empty()
        && !is_usual
        && written == text
        && !text.contains('*')
        && text == text.to_ascii_lowercase()
}

/// A rate limit: `50/100` is fifty per second and a hundred at once; `off` is no limit.
impl Setting for Rate {
    fn parse(text: &str) -> Result<Self, String> {
        let hint = || "write per second / at once, for example 50/100, or off".to_owned();
        if text == "off" {
            return Ok(Self::OFF);
        }
        let (per_second, burst) = text.split_once('/').ok_or_else(hint)?;
        let number = |text: &str| text.trim().parse().ok().filter(|number| *number > 0).ok_or_else(hint);
        Ok(Self::new(number(per_second)?, number(burst)?))
    }

    fn show(&self) -> String {
        if self.is_off() { "off".into() } else { format!("{}/{}", self.per_second, self.burst) }
    }
}

/// Implements [`Setting`] for an enum whose variants are written as words.
macro_rules! words {
    ($type:ty { $($word:literal => $value:ident),+ $(,)? }) => {
        impl $crate::config::setting::Setting for $type {
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$value),)+
                    _ => Err($crate::config::setting::one_of(&[$($word),+])),
                }
            }

            fn show(&self) -> String {
                match self {
                    $(Self::$value => $word.into(),)+
                }
            }
        }
    };
}
pub(super) use words;

const ANY_ORIGIN: &str = "*";

words!(LogFormat { "pretty" => Pretty, "json" => Json });
words!(Protocol { "grpc" => Grpc });
words!(Traces { "none" => Off, "otlp" => Otlp });
words!(Sampler {
    "always_on" => AlwaysOn,
    "always_off" => AlwaysOff,
    "traceidratio" => Ratio,
    "parentbased_always_on" => ParentOrAlwaysOn,
    "parentbased_always_off" => ParentOrAlwaysOff,
    "parentbased_traceidratio" => ParentOrRatio,
});
words!(Listeners { "auto" => Auto, "public" => Public, "internal" => Internal, "off" => Off });
words!(Place { "off" => Off, "local" => Local, "s3" => S3 });
words!(Parser { "json" => Default, "msgpack" => MsgPack });
words!(Synchronous { "full" => Full, "normal" => Normal });
words!(Version { "1.2" => V1_2, "1.3" => V1_3 });
words!(Mode { "auto" => Auto, "on" => On, "off" => Off });

/// Returns the hint that lists the allowed words: `write auto, on or off`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("write {} or {last}", first.join(", ")),
        _ => format!("write {}", words.concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_their_unit_and_read_back() {
        for text in ["250ms", "25s", "5m", "1h", "0s", "90s"] {
            assert_eq!(Duration::parse(text).unwrap().show(), text);
        }
        for text in ["", "25", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(Duration::parse(text).is_err(), "{text:?} should be refused");
        }
        assert_eq!(Millis::parse("60000").unwrap().show(), "1m");
        assert!(Millis::parse("").is_err());
    }

    #[test]
    fn a_share_is_from_none_to_all() {
        for text in ["0", "0.01", "1"] {
            assert_eq!(Ratio::parse(text).unwrap().show(), text);
        }
        assert!(["", "2", "-0.1", "NaN", "inf", "1%"].iter().all(|text| Ratio::parse(text).is_err()));
    }

    #[test]
    fn a_rate_is_per_second_and_at_once() {
        assert_eq!(Rate::parse("50/100").unwrap(), Rate::new(50, 100));
        assert_eq!(Rate::parse("off").unwrap().show(), "off");
        assert!(["", "50", "0/1", "1/0", "-1/1", "a/b"].iter().all(|text| Rate::parse(text).is_err()));
    }

    #[test]
    fn an_address_may_have_a_name_or_none() {
        let listen = |text| SocketAddr::parse(text).map(|address| address.to_string());
        assert_eq!(listen("[::1]:3000").unwrap(), "[::1]:3000");
        assert_eq!(listen(":3000").unwrap(), "0.0.0.0:3000");
        assert!(SocketAddr::parse("localhost:3000").unwrap().ip().is_loopback());
        for text in ["", "3000", "127.0.0.1", "127.0.0.1:99999", "::1:x", ":", "no such host:1"] {
            assert!(listen(text).unwrap_err().contains(":3000"), "{text:?}");
        }
    }

    #[test]
    fn lists_and_empty_values_read_back_as_written() {
        assert_eq!(Vec::<String>::parse("a, b,").unwrap(), ["a", "b"]);
        assert_eq!(Option::<SocketAddr>::parse("").unwrap(), None);
        assert_eq!(u32::parse("1_000_000").unwrap(), 1_000_000);
        assert!(u16::parse("70000").unwrap_err().contains("65535"));
    }

    #[test]
    fn words_are_read_back_and_others_are_told_the_choice() {
        for text in ["auto", "on", "off"] {
            assert_eq!(Mode::parse(text).unwrap().show(), text);
        }
        assert_eq!(Mode::parse("yes").unwrap_err(), "write auto, on or off");
        assert_eq!(LogFormat::parse("xml").unwrap_err(), "write pretty or json");
    }
}
