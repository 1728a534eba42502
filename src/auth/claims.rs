//! A strict parser for the text of a token. Pure.
//!
//! Nothing in a token is trusted until its signature is verified; before that, it only names the key to
//! verify it with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::clock::Micros;
use crate::error::ImksError;

/// The reason why a token is refused. The text of `Invalid` goes to the log only; the peer does not see it.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This server does not accept the token.
    Invalid(&'static str),
    /// The token has expired.
    Expired,
    /// The token was revoked.
    Revoked,
    /// The token was issued, or its key becomes valid, in the future: the clock of this server or of the core
    /// is wrong.
    NotYetValid,
    /// The token cannot be checked at the moment.
    Unknown(ImksError),
}

/// A refusal, and the user of the token if its signature is good. A user in other tokens could be anybody.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) user: Option<Uuid>,
    /// The id of the user in the operator's own application, where no user of the directory stands for it yet.
    pub(super) subject: Option<String>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, user: None, subject: None }
    }
}

impl Refusal {
    /// Names the user of a token whose signature is good.
    pub(super) fn of(self, user: Uuid) -> Refused {
        Refused { refusal: self, user: Some(user), subject: None }
    }

    /// Names the user of a token of the operator's own application whose signature is good, as the token does.
    pub(super) fn of_subject(self, subject: Option<String>) -> Refused {
        Refused { refusal: self, user: None, subject }
    }

    /// Returns the reason as a text for the log.
    pub(super) fn why(&self) -> &'static str {
        match self {
            Self::Invalid(why) => why,
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::NotYetValid => "not valid yet",
            Self::Unknown(_) => "cannot be checked now",
        }
    }
}

impl From<Refusal> for ImksError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(_) => Self::Auth("The token is missing or not valid"),
            Refusal::Expired => Self::TokenExpired,
            Refusal::Revoked => Self::TokenRevoked,
            Refusal::NotYetValid => Self::TokenNotYetValid,
            Refusal::Unknown(error) => error,
        }
    }
}

impl From<ImksError> for Refusal {
    fn from(error: ImksError) -> Self {
        Self::Unknown(error)
    }
}

/// A well-formed token that is not verified yet, with claims of the shape `C`. Borrows from its text.
pub(super) struct Unverified<'a, C> {
    pub(super) header: Header,
    pub(super) claims: C,
    /// The signed part of the token: its header and claims.
    pub(super) message: &'a str,
    /// The signature in base64url, as in the token.
    pub(super) signature: &'a str,
}

/// The header parameters that matter; all others are ignored.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    /// The id of the key. The core's tokens must have one.
    #[serde(default, deserialize_with = "present")]
    pub(super) kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    // Each of the following names a key by other means, or changes what the signature covers.
    #[serde(default, deserialize_with = "present")]
    jku: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    jwk: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    x5u: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    x5c: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    b64: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    enc: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    zip: Option<IgnoredAny>,
}

/// The claims of the core's tokens. A claim of the wrong type makes the token invalid; it is never read as
/// absent.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    aud: Audience,
    #[serde(deserialize_with = "uuid")]
    pub(super) sub: Uuid,
    exp: u64,
    iat: u64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "optional_uuid")]
    pub(super) sid: Option<Uuid>,
    #[serde(default, deserialize_with = "present")]
    pub(super) username: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// Whether the token is meant for `audience`.
    pub(super) fn has(&self, audience: &str) -> bool {
        match self {
            Self::One(name) => name == audience,
            Self::Many(names) => names.iter().any(|name| name == audience),
        }
    }
}

/// The times in a token, in seconds since 1970.
pub(super) struct Validity {
    pub(super) exp: u64,
    pub(super) iat: Option<u64>,
    pub(super) nbf: Option<u64>,
}

/// The checked issue and expiry times of a token.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) issued_at: Micros,
    pub(super) expires_at: Micros,
}

impl<'a, C: DeserializeOwned> Unverified<'a, C> {
    /// Parses a token without verifying its signature.
    ///
    /// # Errors
    /// `Invalid` if the text is not exactly one signed token.
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Invalid("size"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Invalid("parts"))?;
        let (header, claims) = message.split_once('.').ok_or(Refusal::Invalid("parts"))?;
        if claims.contains('.') || signature.is_empty() {
            return Err(Refusal::Invalid("parts"));
        }
        let header: Header = decode(header)?;
        header.check()?;
        Ok(Self { header, claims: decode(claims)?, message, signature })
    }
}

impl Header {
    fn check(&self) -> Result<(), Refusal> {
        let foreign_key = [&self.jku, &self.jwk, &self.x5u, &self.x5c].into_iter().any(Option::is_some);
        let other_form = [&self.crit, &self.b64, &self.enc, &self.zip].into_iter().any(Option::is_some);
        if foreign_key || other_form {
            return Err(Refusal::Invalid("header"));
        }
        let is_token = |typ: &String| ["jwt", "at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known));
        if !self.typ.as_ref().is_none_or(is_token) {
            return Err(Refusal::Invalid("type"));
        }
        Ok(())
    }
}

impl Claims {
    /// Whether the token is meant for `audience`.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        self.aud.has(audience)
    }

    /// Returns the times in the token.
    pub(super) fn validity(&self) -> Validity {
        Validity { exp: self.exp, iat: Some(self.iat), nbf: self.nbf }
    }
}

impl Validity {
    /// Checks the times of the token at `now`, with `leeway` for clocks that differ. `lifetime_max` bounds
    /// the time between issue and expiry, so that a token that expires in a thousand years is refused. A token
    /// without a time of issue counts as issued as early as its expiry allows.
    ///
    /// # Errors
    /// `Expired`, `NotYetValid`, or `Invalid` for any other time that is not acceptable.
    pub(super) fn check(&self, now: Micros, leeway: Micros, lifetime_max: Micros) -> Result<Times, Refusal> {
        let expires_at = in_micros(self.exp)?;
        let earliest = expires_at.saturating_sub(lifetime_max).max(0);
        let issued_at = self.iat.map(in_micros).transpose()?.unwrap_or(earliest);
        let not_before = self.nbf.map(in_micros).transpose()?.unwrap_or(issued_at);
        if expires_at.saturating_add(leeway) <= now {
            return Err(Refusal::Expired);
        }
        if self.iat.is_none() && earliest > now.saturating_add(leeway) {
            return Err(Refusal::Invalid("times"));
        }
        if expires_at > issued_at.saturating_add(lifetime_max) || expires_at <= issued_at {
            return Err(Refusal::Invalid("times"));
        }
        let soonest = now.saturating_add(leeway);
        // No issuer dates a token in the future, so one of the two clocks is wrong.
        if issued_at > soonest {
            return Err(Refusal::NotYetValid);
        }
        if not_before > soonest {
            return Err(Refusal::Invalid("nbf"));
        }
        Ok(Times { issued_at, expires_at })
    }
}

fn in_micros(seconds: u64) -> Result<Micros, Refusal> {
    let micros = Micros::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000));
    micros.ok_or(Refusal::Invalid("times"))
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, Refusal> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Invalid("base64"))?;
    serde_json::from_slice(&json).map_err(|_| Refusal::Invalid("json"))
}

/// Deserializes an optional member. An absent member is `None`; null is an error, like any other wrong type.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn uuid<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
    let text = String::deserialize(from)?;
    let parsed = if text.len() == 36 { Uuid::parse_str(&text).ok() } else { None };
    parsed.ok_or_else(|| serde::de::Error::custom("not a UUID"))
}

fn optional_uuid<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Uuid>, D::Error> {
    uuid(from).map(Some)
}

/// The longest token that is parsed.
pub(super) const TOKEN_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text in ".{0,200}") {
            let _ = Unverified::<Claims>::parse(&text);
        }

        #[test]
        fn any_claims_are_read_or_refused(header in ".{0,80}", claims in ".{0,80}") {
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let _ = Unverified::<Claims>::parse(&format!("{}.{}.c2ln", part(&header), part(&claims)));
        }

        #[test]
        fn no_times_overflow(iat: Option<u64>, exp: u64, nbf: Option<u64>, now: i64) {
            let _ = Validity { exp, iat, nbf }.check(now, 5_000_000, 86_400_000_000);
        }
    }
}
