//! The set of accepted signing keys, each with the signatures that were found good. The core's answers and the time are
//! arguments.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::recent::{Bounds, Recent};
use crate::clock::Micros;
use crate::pb::{SigningAlgorithm, SigningKey};
use crate::secret::sha256;

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
///
/// One id may stand for several keys: RFC 7517 allows it for keys of different algorithms.
#[derive(Default, Clone)]
pub(super) struct KeySet {
    keys: HashMap<(String, String), Vec<Key>>,
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
    /// The SHA-256 hashes of signed texts with their signatures that were found good. Clones share them.
    good: Arc<Mutex<Recent<[u8; 32], ()>>>,
}

impl KeySet {
    /// Returns the set after an answer that arrived at `now`. A key that the answer no longer lists stays
    /// until it expires, but at most for `grace`. A revoked key is removed at once.
    pub(super) fn updated(&self, answer: Vec<ListedKey>, now: Micros, grace: Micros) -> Self {
        let is_kept = |key: &Key| key.not_after.min(key.listed_at.saturating_add(grace)) > now;
        let mut keys = self.keys.clone();
        keys.retain(|_, keys| {
            keys.retain(is_kept);
            !keys.is_empty()
        });
        let mut listed: HashMap<(String, String), Vec<Key>> = HashMap::new();
        for key in answer {
            let name = (key.issuer.clone(), key.kid.clone());
            let of_name = listed.entry(name).or_default();
            if !key.revoked {
                of_name.push(Key::new(key, now));
            }
        }
        for (name, of_name) in listed {
            match of_name.is_empty() {
                true => drop(keys.remove(&name)),
                false => drop(keys.insert(name, of_name)),
            }
        }
        Self { keys }
    }

    /// Returns this set with all keys marked as listed by the core at `now`.
    pub(super) fn confirmed(mut self, now: Micros) -> Self {
        for key in self.keys.values_mut().flatten() {
            key.listed_at = now;
        }
        self
    }

    /// Returns the keys of this issuer and id that are valid at `now`.
    pub(super) fn get(&self, issuer: &str, kid: &str, now: Micros) -> Vec<Verifier> {
        let keys = self.named(issuer, kid).iter().filter(|key| key.is_good(now));
        keys.map(|key| key.verifier.clone()).collect()
    }

    /// Whether a key of this issuer and id exists but is not valid yet at `now`.
    pub(super) fn is_early(&self, issuer: &str, kid: &str, now: Micros) -> bool {
        self.named(issuer, kid).iter().any(|key| now < key.not_before)
    }

    /// Returns the keys of all issuers that verify signatures of `alg` at `now`.
    pub(super) fn with_algorithm(&self, alg: &str, now: Micros) -> Vec<Verifier> {
        let keys = self.keys.values().flatten().filter(|key| key.is_good(now)).map(|key| &key.verifier);
        keys.filter(|verifier| verifier.name() == Some(alg)).cloned().collect()
    }

    fn named(&self, issuer: &str, kid: &str) -> &[Key] {
        self.keys.get(&(issuer.to_owned(), kid.to_owned())).map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Key {
    fn is_good(&self, now: Micros) -> bool {
        self.not_before <= now && now < self.not_after
    }

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
        Self { algorithm, key, good: Arc::new(Mutex::new(Recent::new(GOOD))) }
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
    /// match the key's algorithm; it never selects one. A signature that was good is remembered, because clients come
    /// back with the same token, and a hash costs a twentieth of it.
    pub(super) fn verify(&self, alg: &str, message: &str, signature: &str) -> bool {
        if self.name() != Some(alg) {
            return false;
        }
        let verified =
            || jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm);
        // The length says where the text ends.
        let Ok(hash) = sha256(format!("{}:{message}{signature}", message.len()).as_bytes()) else {
            return verified().unwrap_or(false);
        };
        let now = Instant::now();
        if self.good.lock().get(&hash, now).is_some() {
            return true;
        }
        let is_good = verified().unwrap_or(false);
        if is_good {
            self.good.lock().insert(hash, (), 0, None, now);
        }
        is_good
    }
}

/// The bounds of the good signatures of one key that are remembered.
const GOOD: Bounds = Bounds { entries: 1 << 15, bytes: 8 << 20 };

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
        assert!(set.get("imks", "a", 49).len() == 1);
        assert!(set.get("imks", "a", 50).is_empty(), "its own end");
        assert!(set.get("imks", "b", 49).len() == 1);
        assert!(set.updated(vec![], 100, 100).get("imks", "b", 100).is_empty(), "the grace is over");
    }

    #[test]
    fn a_revoked_key_goes_at_once() {
        let set = KeySet::default().updated(vec![key("a", None, false)], 0, 100);
        assert!(set.updated(vec![key("a", None, true)], 1, 100).get("imks", "a", 1).is_empty());
    }

    #[test]
    fn one_issuers_key_does_not_answer_to_another_issuer() {
        let set = KeySet::default().updated(vec![key("a", None, false)], 0, 100);
        assert!(set.get("other", "a", 1).is_empty());
    }

    #[test]
    fn keys_that_share_an_id_are_all_good_and_are_replaced_together() {
        let twice = vec![key("a", None, false), key("a", None, false)];
        let set = KeySet::default().updated(twice, 0, 100);
        assert_eq!(set.get("imks", "a", 1).len(), 2);
        assert_eq!(set.updated(vec![key("a", None, false)], 1, 100).get("imks", "a", 1).len(), 1);
    }

    #[test]
    fn a_signature_that_was_good_says_nothing_about_another_text_signature_or_key() {
        let secret = |text: &[u8]| Verifier::new(Algorithm::HS256, DecodingKey::from_secret(text));
        let sign = |message: &[u8]| {
            let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
            jsonwebtoken::crypto::sign(message, &key, Algorithm::HS256).unwrap()
        };
        let (key, signature) = (secret(b"secret"), sign(b"a.b"));
        for _ in 0..2 {
            assert!(key.verify("HS256", "a.b", &signature));
            assert!(key.clone().verify("HS256", "a.b", &signature));
            assert!(!key.verify("EdDSA", "a.b", &signature), "another algorithm");
            assert!(!key.verify("HS256", "a.c", &signature), "another text");
            assert!(!key.verify("HS256", "a.b", &sign(b"a.c")), "another signature");
            assert!(!secret(b"other").verify("HS256", "a.b", &signature), "another key");
            assert!(!key.verify("HS256", "a", &format!("b.{signature}")), "the same bytes, split elsewhere");
        }
    }
}
