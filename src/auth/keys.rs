//! The set of accepted signing keys. Pure: the core's answers and the time are arguments.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, DecodingKey};

use crate::clock::Micros;
use crate::pb::{SigningAlgorithm, SigningKey};

/// A key as its source lists it, with the only algorithm that it is used with.
pub(super) struct ListedKey {
    /// The issuer that signs with the key; empty for keys of the operator's own application.
    pub(super) issuer: String,
    /// The id of the key in the header of a token, or a name of this server's own where tokens name none.
    pub(super) kid: String,
    pub(super) verifier: Verifier,
    pub(super) not_before: Micros,
    pub(super) not_after: Option<Micros>,
    /// Whether the key must be removed at once.
    pub(super) revoked: bool,
}

impl From<SigningKey> for ListedKey {
    fn from(key: SigningKey) -> Self {
        let verifier = match key.algorithm {
            SigningAlgorithm::EdDsa => {
                Verifier::new(Algorithm::EdDSA, DecodingKey::from_ed_der(&key.public_key))
            }
            SigningAlgorithm::Es256 => {
                Verifier::new(Algorithm::ES256, DecodingKey::from_ec_der(&key.public_key))
            }
        };
        let SigningKey { issuer, kid, not_before, not_after, revoked, .. } = key;
        Self { issuer, kid, verifier, not_before, not_after, revoked }
    }
}

/// Keys by issuer and key id. The issuer is part of the map key, so that one issuer's key never verifies
/// another issuer's token, even if both use the same key id (CVE-2026-49998).
#[derive(Default, Clone)]
pub(super) struct KeySet {
    keys: HashMap<(String, String), Key>,
}

#[derive(Clone)]
struct Key {
    verifier: Verifier,
    not_before: Micros,
    not_after: Micros,
    listed_at: Micros,
}

/// A public key together with the only algorithm it is used with.
#[derive(Clone)]
pub(super) struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl KeySet {
    /// Returns the set after an answer that arrived at `now`. A key that the answer no longer lists stays
    /// until it expires, but at most for `grace`. A revoked key is removed at once.
    pub(super) fn updated(&self, answer: Vec<ListedKey>, now: Micros, grace: Micros) -> Self {
        let mut keys = self.keys.clone();
        keys.retain(|_, key| key.not_after.min(key.listed_at.saturating_add(grace)) > now);
        for key in answer {
            let name = (key.issuer.clone(), key.kid.clone());
            if key.revoked {
                keys.remove(&name);
            } else {
                keys.insert(name, Key::new(key, now));
            }
        }
        Self { keys }
    }

    /// Returns this set with all keys marked as listed by the core at `now`.
    pub(super) fn confirmed(mut self, now: Micros) -> Self {
        for key in self.keys.values_mut() {
            key.listed_at = now;
        }
        self
    }

    /// Returns the key of this issuer and id if it is valid at `now`.
    pub(super) fn get(&self, issuer: &str, kid: &str, now: Micros) -> Option<Verifier> {
        let key = self.key(issuer, kid)?;
        (key.not_before <= now && now < key.not_after).then(|| key.verifier.clone())
    }

    /// Whether the key of this issuer and id exists but is not valid yet at `now`.
    pub(super) fn is_early(&self, issuer: &str, kid: &str, now: Micros) -> bool {
        self.key(issuer, kid).is_some_and(|key| now < key.not_before)
    }

    /// Returns the keys of all issuers that verify signatures of `alg` at `now`.
    pub(super) fn with_algorithm(&self, alg: &str, now: Micros) -> Vec<Verifier> {
        let good = |key: &&Key| key.not_before <= now && now < key.not_after;
        let keys = self.keys.values().filter(good).map(|key| &key.verifier);
        keys.filter(|verifier| verifier.name() == Some(alg)).cloned().collect()
    }

    fn key(&self, issuer: &str, kid: &str) -> Option<&Key> {
        self.keys.get(&(issuer.to_owned(), kid.to_owned()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Key {
    fn new(key: ListedKey, now: Micros) -> Self {
        Self {
            verifier: key.verifier,
            not_before: key.not_before,
            not_after: key.not_after.unwrap_or(Micros::MAX),
            listed_at: now,
        }
    }
}

impl Verifier {
    /// Combines a key with the only algorithm that it is used with.
    pub(super) fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        Self { algorithm, key }
    }

    /// Returns the name of the algorithm in the header of a token (RFC 7518, RFC 8037).
    fn name(&self) -> Option<&'static str> {
        match self.algorithm {
            Algorithm::EdDSA => Some("EdDSA"),
            Algorithm::ES256 => Some("ES256"),
            Algorithm::RS256 => Some("RS256"),
            Algorithm::HS256 => Some("HS256"),
            _ => None,
        }
    }

    /// Whether `signature` (base64url) is a signature of this key over `message`. The header's `alg` must
    /// match the key's algorithm; it never selects one.
    pub(super) fn verify(&self, alg: &str, message: &str, signature: &str) -> bool {
        let verified =
            || jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm);
        self.name() == Some(alg) && verified().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: &str, not_after: Option<Micros>, revoked: bool) -> ListedKey {
        let (issuer, kid) = ("imks".to_owned(), kid.to_owned());
        let public_key = vec![7; 32];
        SigningKey {
            issuer,
            kid,
            algorithm: SigningAlgorithm::EdDsa,
            public_key,
            not_before: 0,
            not_after,
            revoked,
        }
        .into()
    }

    #[test]
    fn a_key_that_left_the_list_is_good_until_its_end_or_the_grace() {
        let set = KeySet::default().updated(vec![key("a", Some(50), false), key("b", None, false)], 0, 100);
        let set = set.updated(vec![key("c", None, false)], 10, 100);
        assert!(set.get("imks", "a", 49).is_some());
        assert!(set.get("imks", "a", 50).is_none(), "its own end");
        assert!(set.get("imks", "b", 49).is_some());
        assert!(set.updated(vec![], 100, 100).get("imks", "b", 100).is_none(), "the grace is over");
    }

    #[test]
    fn a_revoked_key_goes_at_once() {
        let set = KeySet::default().updated(vec![key("a", None, false)], 0, 100);
        assert!(set.updated(vec![key("a", None, true)], 1, 100).get("imks", "a", 1).is_none());
    }

    #[test]
    fn one_issuers_key_does_not_answer_to_another_issuer() {
        let set = KeySet::default().updated(vec![key("a", None, false)], 0, 100);
        assert!(set.get("other", "a", 1).is_none());
    }
}
