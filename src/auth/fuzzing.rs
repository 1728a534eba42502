//! What the fuzz target of hostile answers reads keys, tokens and the answers of a login hook with.

use super::claims::{Claims, TOKEN_BYTES_MAX, Unverified};
use super::hook::parsed;
use super::keys::ListedKey;
use super::login::OwnClaims;
use super::own_keys::{pem_keys, set_keys};
use super::{Login, LoginConfig};
use crate::clock::Micros;
use crate::pb::SigningKey;

/// Returns how many keys a JWK set has.
///
/// # Panics
/// If one of them accepts a signature that nobody made.
pub fn read_key_set(text: &[u8]) -> usize {
    checked(set_keys(text))
}

/// Returns how many keys a PEM file has; see [`read_key_set`].
pub fn read_key_file(text: &[u8]) -> usize {
    checked(pem_keys(text).unwrap_or_default())
}

/// Returns how many of the core's keys can verify; see [`read_key_set`].
pub fn read_core_keys(keys: Vec<SigningKey>) -> usize {
    checked(keys.into_iter().map(Into::into).collect())
}

fn checked(keys: Vec<ListedKey>) -> usize {
    for key in &keys {
        for alg in ["EdDSA", "ES256", "RS256", "HS256", "none", ""] {
            assert!(!key.verifier.verify(alg, "e30.e30", ""), "no signature is a good one");
        }
    }
    keys.len()
}

/// Returns the login in the answer of a hook, and when its session ends.
pub fn read_hook_answer(body: &[u8], now: Micros) -> Option<(Login, Micros)> {
    parsed(body, now).ok().map(|answer| (answer.login, answer.times.expires_at))
}

/// Returns the login in a token of one's own application whose signature is good, and the token's times at `now`.
pub fn read_own_token(token: &str, now: Micros) -> Option<(Login, Micros)> {
    let claims = Unverified::<OwnClaims>::parse(token).ok()?.claims;
    let times = claims.validity().ok()?.check(now, LEEWAY, LIFETIME_MAX).ok()?;
    let _ = (claims.issuer(), claims.audience(), claims.session());
    let login = claims.login(&LoginConfig::default(), "").ok()?;
    Some((login, times.expires_at))
}

/// Returns when a token of the core ends, if its claims are good at `now`.
pub fn read_core_token(token: &str, now: Micros) -> Option<Micros> {
    let parsed = Unverified::<Claims>::parse(token).ok()?;
    assert!(token.len() <= TOKEN_BYTES_MAX, "a token that is too long was parsed");
    parsed.claims.validity().check(now, LEEWAY, LIFETIME_MAX).ok().map(|times| times.expires_at)
}

/// Five seconds, in microseconds.
const LEEWAY: Micros = 5_000_000;
/// A day, in microseconds.
const LIFETIME_MAX: Micros = 86_400_000_000;
