//! The values in a scenario file, each with its bounds: a value that exists is valid.

use std::time::Duration;

use serde::Deserialize;

use super::REST_MAX;
use crate::config::Setting;

/// A whole number from 1 to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Count<const MAX: u64>(pub(super) u64);

/// A name, or an event: some text, not too long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(in crate::cli::bench) struct Name(pub(in crate::cli::bench) String);

/// A number of things per second.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct PerSecond(pub(super) f64);

/// A time with its unit, above zero.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Time(pub(super) Duration);

/// A pause: as long as it says, or something between two times, by chance.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(in crate::cli::bench) struct Pause {
    pub(in crate::cli::bench) from: Duration,
    pub(in crate::cli::bench) to: Duration,
}

impl<const MAX: u64> TryFrom<i64> for Count<MAX> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let number = u64::try_from(number).ok().filter(|number| (1..=MAX).contains(number));
        number.map(Self).ok_or_else(|| format!("write a whole number from 1 to {MAX}"))
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.len() {
            1..=NAME_BYTES_MAX => Ok(Self(text)),
            _ => Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes")),
        }
    }
}

impl TryFrom<f64> for PerSecond {
    type Error = String;

    fn try_from(rate: f64) -> Result<Self, String> {
        let is_valid = rate > 0.0 && rate <= RATE_MAX;
        if is_valid { Ok(Self(rate)) } else { Err(format!("write a number above 0, up to {RATE_MAX}")) }
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time = Duration::parse(&text)?;
        match time.is_zero() || time > REST_MAX {
            true => Err(format!("a time is above 0 and at most {}", REST_MAX.show())),
            false => Ok(Self(time)),
        }
    }
}

impl TryFrom<toml::Value> for Pause {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let hint = "write a time such as \"100ms\", or two, between which one is chosen: [\"100ms\", \"1s\"]";
        let time = |value: &toml::Value| match value.as_str() {
            Some(text) => Time::try_from(text.to_owned()).map(|time| time.0),
            None => Err(hint.to_owned()),
        };
        let (from, to) = match value.as_array().map(Vec::as_slice) {
            Some([from, to]) => (time(from)?, time(to)?),
            Some(_) => return Err(hint.to_owned()),
            None => (time(&value)?, time(&value)?),
        };
        if from > to { Err("the first time is the shorter one".to_owned()) } else { Ok(Self { from, to }) }
    }
}

impl Pause {
    /// Returns the time for a number by chance from 0 to 1.
    pub(in crate::cli::bench) fn at(self, chance: f64) -> Duration {
        self.from + (self.to - self.from).mul_f64(chance)
    }
}

/// The longest name in a scenario file, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The highest rate in a scenario file, per second.
const RATE_MAX: f64 = 1_000_000.0;
