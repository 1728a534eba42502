//! Keys, and tokens made by hand, so that they can be wrong in every way.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use imks::testing::clock::now_micros;
use imks::testing::pb::v1;
use imks::testing::pb::v1::signing_key::{Algorithm as WireAlgorithm, Status};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use uuid::Uuid;

/// A key pair with a name.
#[derive(Clone)]
pub struct Key {
    pub issuer: String,
    pub kid: String,
    pub algorithm: Algorithm,
    private: EncodingKey,
    pub public: Vec<u8>,
}

impl Key {
    /// A fresh Ed25519 key.
    pub fn ed25519(kid: &str) -> Self {
        let mut pkcs8 = vec![
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
        ];
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        pkcs8.extend_from_slice(&seed);
        let private = EncodingKey::from_ed_der(&pkcs8);
        let AlgorithmParameters::OctetKeyPair(pair) =
            Jwk::from_encoding_key(&private, Algorithm::EdDSA).unwrap().algorithm
        else {
            panic!("not an Ed25519 key")
        };
        let public = URL_SAFE_NO_PAD.decode(pair.x).unwrap();
        Self { issuer: "imks".into(), kid: kid.into(), algorithm: Algorithm::EdDSA, private, public }
    }

    /// The P-256 key of the tests.
    pub fn es256(kid: &str) -> Self {
        let private = EncodingKey::from_ec_der(&STANDARD.decode(P256_PRIVATE).unwrap());
        let public = STANDARD.decode(P256_PUBLIC).unwrap();
        Self { issuer: "imks".into(), kid: kid.into(), algorithm: Algorithm::ES256, private, public }
    }

    pub fn of_issuer(self, issuer: &str) -> Self {
        Self { issuer: issuer.into(), ..self }
    }

    /// As the core lists it.
    pub fn listed(&self) -> v1::SigningKey {
        let algorithm = match self.algorithm {
            Algorithm::ES256 => WireAlgorithm::Es256,
            _ => WireAlgorithm::Eddsa,
        };
        v1::SigningKey {
            issuer: self.issuer.clone(),
            kid: self.kid.clone(),
            algorithm: algorithm.into(),
            public_key: self.public.clone(),
            not_before_us: 0,
            not_after_us: 0,
            status: Status::Active.into(),
        }
    }

    pub fn header(&self) -> Value {
        json!({"alg": if self.algorithm == Algorithm::ES256 { "ES256" } else { "EdDSA" }, "kid": self.kid, "typ": "JWT"})
    }

    /// Signs any header and claims.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Signs any two texts, JSON or not.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// A good token of `user`.
    pub fn token(&self, user: Uuid) -> String {
        self.sign(&self.header(), &claims(&self.issuer, user))
    }
}

/// Claims of a token that is good for an hour.
pub fn claims(issuer: &str, user: Uuid) -> Value {
    let now = now_micros() / 1_000_000;
    json!({"iss": issuer, "aud": "imks", "sub": user, "username": "alice", "iat": now, "exp": now + 3_600})
}

// Made for these tests and used nowhere else.
const P256_PRIVATE: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg35/CNv9jxyZMbliJmcFX+MbWsAjj0308HnlPNydKB3qhRANCAASqY6+WGlKgxvY2n28V6A1bUa6PX4VXY++ai4uPspRJrCorlhgHcdEqlwKwrZ5fNmuIzxq78IU7EcG8g6s8Iv8T";
const P256_PUBLIC: &str =
    "BKpjr5YaUqDG9jafbxXoDVtRro9fhVdj75qLi4+ylEmsKiuWGAdx0SqXArCtnl82a4jPGrvwhTsRwbyDqzwi/xM=";
