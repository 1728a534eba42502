//! The text of a token, taken apart strictly. Nothing here is believed before its signature is checked; it
//! decides only which key to check with. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::clock::Micros;
use crate::error::{ImksError, ImksResult};

/// A token of the right shape. Borrowed from its text; not verified.
pub(super) struct Unverified<'a> {
    pub(super) header: Header,
    pub(super) claims: Claims,
    /// What was signed.
    pub(super) message: &'a str,
    /// Base64url, as in the token.
    pub(super) signature: &'a str,
}

/// The header members that are known; others have no effect.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: String,
    #[serde(default)]
    typ: Option<String>,
    // Each of these names a key by other means, or changes what the signature covers.
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

/// The claims that count. A claim of the wrong type makes the token invalid; it is never read as absent.
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
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// When a token was issued and when it ends, after both were found acceptable.
pub(super) struct Times {
    pub(super) issued_at: Micros,
    pub(super) expires_at: Micros,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// `Auth` for everything that is not exactly a signed token; the answer never says why.
    pub(super) fn parse(token: &'a str) -> ImksResult<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid("size"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(invalid("parts"))?;
        let (header, claims) = message.split_once('.').ok_or(invalid("parts"))?;
        if claims.contains('.') || signature.is_empty() {
            return Err(invalid("parts"));
        }
        let header: Header = decode(header)?;
        header.check()?;
        Ok(Self { header, claims: decode(claims)?, message, signature })
    }
}

impl Header {
    fn check(&self) -> ImksResult<()> {
        let foreign_key = [&self.jku, &self.jwk, &self.x5u, &self.x5c].into_iter().any(Option::is_some);
        let other_form = [&self.crit, &self.b64, &self.enc, &self.zip].into_iter().any(Option::is_some);
        if foreign_key || other_form {
            return Err(invalid("header"));
        }
        let is_token = |typ: &String| ["jwt", "at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known));
        if !self.typ.as_ref().is_none_or(is_token) {
            return Err(invalid("type"));
        }
        Ok(())
    }
}

impl Claims {
    /// Whether the token is meant for `audience`.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audience::One(name) => name == audience,
            Audience::Many(names) => names.iter().any(|name| name == audience),
        }
    }

    /// Checks the times at `now`, with `leeway` for clocks that differ. `lifetime_max` bounds a token's life,
    /// from now and from its issue, so that one with an end in a thousand years is worth nothing.
    ///
    /// # Errors
    /// `TokenExpired`; `Auth` for every other time that cannot be.
    pub(super) fn times(&self, now: Micros, leeway: Micros, lifetime_max: Micros) -> ImksResult<Times> {
        let issued_at = micros(self.iat)?;
        let expires_at = micros(self.exp)?;
        let not_before = self.nbf.map(micros).transpose()?.unwrap_or(issued_at);
        if expires_at.saturating_add(leeway) <= now {
            return Err(ImksError::TokenExpired);
        }
        let soonest = now.saturating_add(leeway);
        let latest = soonest.min(issued_at).saturating_add(lifetime_max);
        if issued_at > soonest || not_before > soonest || expires_at > latest || expires_at <= issued_at {
            return Err(invalid("times"));
        }
        Ok(Times { issued_at, expires_at })
    }
}

/// The one answer to every token that is no token. Why is for the log, at a level that is off by default.
pub(super) fn invalid(why: &'static str) -> ImksError {
    tracing::debug!(why, "token refused");
    ImksError::Auth("The token is missing or not valid")
}

fn micros(seconds: u64) -> ImksResult<Micros> {
    let seconds = Micros::try_from(seconds).map_err(|_| invalid("times"))?;
    seconds.checked_mul(1_000_000).ok_or_else(|| invalid("times"))
}

fn decode<T: DeserializeOwned>(part: &str) -> ImksResult<T> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| invalid("base64"))?;
    serde_json::from_slice(&json).map_err(|_| invalid("json"))
}

/// For an optional member: absent is `None`, null is an error like every other wrong type.
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

/// Longest token that is looked at.
pub(super) const TOKEN_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text in ".{0,200}") {
            let _ = Unverified::parse(&text);
        }

        #[test]
        fn any_claims_are_read_or_refused(header in ".{0,80}", claims in ".{0,80}") {
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let _ = Unverified::parse(&format!("{}.{}.c2ln", part(&header), part(&claims)));
        }

        #[test]
        fn no_times_overflow(iat: u64, exp: u64, nbf: Option<u64>, now: i64) {
            let aud = Audience::One(String::new());
            let claims =
                Claims { iss: String::new(), aud, sub: Uuid::nil(), exp, iat, nbf, sid: None, username: None };
            let _ = claims.times(now, 5_000_000, 86_400_000_000);
        }
    }
}
