//! The keys of the operator's own application, which sign the tokens of its users: from a JWK set, a PEM file or
//! a shared secret.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::keys::{ListedKey, Verifier};
use super::login_config::LoginConfig;
use crate::error::{ImksError, ImksResult};
use crate::http_client::{HttpClient, Limits};
use crate::secret::Secret;

/// Where the keys are.
pub enum KeySource {
    /// A JWK set (RFC 7517) at an address.
    Url {
        /// Its address.
        url: Secret,
        /// The client that fetches it.
        client: Box<HttpClient>,
    },
    /// A file with public keys in PEM.
    File(PathBuf),
    /// The shared secret of HS256.
    Secret(Secret),
}

impl KeySource {
    /// Returns the source that the settings name, if they name one.
    ///
    /// # Errors
    /// `Config` if the system has no certificates to trust.
    pub fn of(config: &LoginConfig) -> ImksResult<Option<Self>> {
        Ok(match (&config.jwks_url, &config.public_key_file, &config.hmac_secret) {
            (Some(url), ..) => Some(Self::Url { url: url.clone(), client: Box::new(HttpClient::new()?) }),
            (_, Some(path), _) => Some(Self::File(path.clone())),
            (.., Some(secret)) => Some(Self::Secret(secret.clone())),
            (None, None, None) => None,
        })
    }

    /// Fetches the keys.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` if a JWK set cannot be fetched or has no usable key; `Config` if a file or a
    /// secret cannot be used.
    pub(super) async fn fetch(&self) -> ImksResult<Vec<ListedKey>> {
        match self {
            Self::Url { url, client } => fetch_set(url, client).await,
            Self::File(path) => {
                let text = tokio::fs::read(path).await;
                let text = text.map_err(|error| {
                    let path = path.display();
                    ImksError::Config(format!("IMKS_TOKEN_PUBLIC_KEY_FILE: cannot read {path}: {error}"))
                })?;
                let keys = pem_keys(&text);
                keys.map_err(|why| ImksError::Config(format!("IMKS_TOKEN_PUBLIC_KEY_FILE: {why}")))
            }
            Self::Secret(secret) => {
                let key = DecodingKey::from_secret(secret.expose().as_bytes());
                Ok(vec![own("secret", Algorithm::HS256, key)])
            }
        }
    }

    /// Whether tokens name their key by its id. Without ids, every key of the algorithm is tried.
    pub(super) fn has_key_ids(&self) -> bool {
        matches!(self, Self::Url { .. })
    }

    /// Whether the keys can change while the server runs, and may be unreachable when it starts.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Url { .. })
    }
}

/// Checks that the keys of tokens can be read from where they are configured, if they are.
///
/// # Errors
/// The errors of [`KeySource::of`]; `Config` if a file cannot be used; `Unavailable` or `Timeout` if a JWK set cannot
/// be fetched or has no usable key.
pub async fn check_keys(config: &LoginConfig) -> ImksResult<()> {
    match KeySource::of(config)? {
        Some(source) => source.fetch().await.map(drop),
        None => Ok(()),
    }
}

async fn fetch_set(url: &Secret, client: &HttpClient) -> ImksResult<Vec<ListedKey>> {
    let request =
        Request::get(url.expose()).header(header::ACCEPT, "application/json").body(Bytes::new().into());
    let request = request.map_err(|_| ImksError::Config("IMKS_TOKEN_JWKS_URL is not a URL".into()))?;
    let limits = Limits { deadline: SET_DEADLINE, answer_bytes_max: SET_BYTES_MAX };
    let answer = client.send(KEY_SET, request, limits).await?;
    if answer.status() != StatusCode::OK {
        tracing::warn!(status = answer.status().as_u16(), "the key set was not answered with 200");
        return Err(ImksError::Unavailable(KEY_SET));
    }
    let keys = set_keys(answer.body());
    if keys.is_empty() {
        tracing::warn!(
            "the key set has no key that can be used: Ed25519, P-256, or RSA of at least 2048 bits"
        );
        return Err(ImksError::Unavailable(KEY_SET));
    }
    Ok(keys)
}

/// Returns the usable keys of a JWK set, at most [`SET_KEYS_MAX`]. Leaves out every other key, because a set may
/// list keys for purposes that this server does not know. A secret (`oct`) is never used: whoever can read the
/// set could sign.
pub(super) fn set_keys(text: &[u8]) -> Vec<ListedKey> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set = serde_json::from_slice::<Set>(text).map(|set| set.keys).unwrap_or_default();
    let keys = set.into_iter().enumerate();
    let usable = keys.filter_map(|(number, key)| set_key(number, serde_json::from_value(key).ok()?));
    usable.take(SET_KEYS_MAX).collect()
}

fn set_key(number: usize, jwk: Jwk) -> Option<ListedKey> {
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::RSA(key) if key.n.len() >= MODULUS_CHARS_MIN => {
            (Algorithm::RS256, KeyAlgorithm::RS256)
        }
        _ => return None,
    };
    let named = common.key_algorithm.is_none_or(|named| named == name);
    let kid = common.key_id.clone().unwrap_or_else(|| format!("number {number}"));
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (signs && verifies && named).then(|| own(&kid, algorithm, key))
}

/// Returns the keys of a PEM file.
///
/// # Errors
/// The reason why the file cannot be used, for the operator.
pub(super) fn pem_keys(text: &[u8]) -> Result<Vec<ListedKey>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the file is not PEM".to_owned())?;
    if text.contains("PRIVATE KEY-----") {
        return Err("the file has a private key; write the public key there, and keep the private one".into());
    }
    let (mut keys, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("-----BEGIN ") {
        let block = &rest[start..];
        let end = block.find("-----END ").ok_or("the file ends within a key")?;
        let end = block[end..].find('\n').map_or(block.len(), |line| end + line);
        let (algorithm, key) = pem_key(&block.as_bytes()[..end])
            .ok_or("the file has a block that is not a public key of Ed25519, P-256, or RSA of 2048 bits")?;
        keys.push(own(&format!("number {}", keys.len()), algorithm, key));
        rest = &block[end..];
    }
    match keys.len() {
        0 => Err("the file has no public key in PEM".into()),
        FILE_KEYS_OVER.. => Err(format!("the file has more than {FILE_KEYS_MAX} keys")),
        _ => Ok(keys),
    }
}

fn pem_key(pem: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    // The library would also look for a key in a certificate.
    if !LABELS.iter().any(|label| pem.starts_with(label.as_bytes())) {
        return None;
    }
    let long_enough = |key: &DecodingKey, bytes: std::ops::RangeInclusive<usize>| {
        key.try_get_as_bytes().is_ok_and(|key| bytes.contains(&key.len()))
    };
    if let Some(key) = DecodingKey::from_ed_pem(pem).ok().filter(|key| long_enough(key, 32..=32)) {
        return Some((Algorithm::EdDSA, key));
    }
    if let Some(key) = DecodingKey::from_ec_pem(pem).ok().filter(|key| long_enough(key, 65..=65)) {
        return Some((Algorithm::ES256, key));
    }
    let rsa = DecodingKey::from_rsa_pem(pem).ok().filter(|key| long_enough(key, MODULUS_BYTES_MIN..=1_100));
    rsa.map(|key| (Algorithm::RS256, key))
}

/// Returns a key of the operator's own application, which is good for as long as it is listed.
fn own(kid: &str, algorithm: Algorithm, key: DecodingKey) -> ListedKey {
    ListedKey {
        issuer: String::new(),
        kid: kid.to_owned(),
        verifier: Verifier::new(algorithm, key),
        not_before: 0,
        not_after: None,
        revoked: false,
    }
}

/// The first lines of public keys in PEM: SubjectPublicKeyInfo (RFC 7468) and PKCS #1.
const LABELS: [&str; 2] = ["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"];
/// The name of a key set in errors and in the log.
const KEY_SET: &str = "key set";
/// How long fetching a key set may take.
const SET_DEADLINE: Duration = Duration::from_secs(5);
/// The size of the largest key set, in bytes.
const SET_BYTES_MAX: usize = 256 << 10;
/// The number of keys of a set that are used; further ones are left out.
const SET_KEYS_MAX: usize = 64;
/// The number of keys in a file.
const FILE_KEYS_MAX: usize = 8;
const FILE_KEYS_OVER: usize = FILE_KEYS_MAX + 1;
/// The bytes of a modulus of 2048 bits.
const MODULUS_BYTES_MIN: usize = 256;
/// The base64 of a modulus of 2048 bits.
const MODULUS_CHARS_MIN: usize = 342;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_file_may_have_several_public_keys_and_nothing_else() {
        assert_eq!(pem_keys(format!("{ED25519}{ED25519}").as_bytes()).map(|keys| keys.len()), Ok(2));
        let bad = ["", "key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", &ED25519[..60]];
        for text in bad.map(str::to_owned).into_iter().chain([
            ED25519.replace("PUBLIC", "PRIVATE"),
            ED25519.replace("PUBLIC KEY", "CERTIFICATE"),
            ED25519.repeat(9),
        ]) {
            assert!(pem_keys(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_set_gives_its_signing_keys_and_never_a_secret() {
        let ed = r#""kty":"OKP","crv":"Ed25519","x":"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE""#;
        let set = format!(
            r#"{{"keys":[{{{ed},"kid":"a"}},{{{ed},"use":"enc"}},{{{ed},"key_ops":["sign"]}},{{{ed},"alg":"RS256"}},
            {{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}},{{"kty":"RSA","n":"AQAB","e":"AQAB"}},{{"kty":"new"}},7]}}"#
        );
        let kids: Vec<String> = set_keys(set.as_bytes()).into_iter().map(|key| key.kid).collect();
        assert_eq!(kids, ["a"]);
    }

    #[test]
    fn a_short_rsa_key_signs_nothing_even_if_zeros_make_it_look_long() {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let modulus = URL_SAFE_NO_PAD.decode(MODULUS_1024).unwrap();
        let padded = URL_SAFE_NO_PAD.encode([&[0; 128][..], &modulus].concat());
        let set = |n: &str| format!(r#"{{"keys":[{{"kty":"RSA","n":"{n}","e":"AQAB"}}]}}"#);
        assert!(set_keys(set(MODULUS_1024).as_bytes()).is_empty());
        for key in set_keys(set(&padded).as_bytes()) {
            assert!(!key.verifier.verify("RS256", "e30.e30", SIGNATURE_1024));
        }
    }

    #[test]
    fn keys_of_other_curves_or_points_off_the_curve_sign_nothing() {
        let (x, y) =
            ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let set = |crv: &str, x: &str, y: &str| {
            format!(r#"{{"keys":[{{"kty":"EC","crv":"{crv}","x":"{x}","y":"{y}"}}]}}"#)
        };
        assert_eq!(set_keys(set("P-256", x, y).as_bytes()).len(), 1);
        for crv in ["P-384", "P-521", "secp256k1", "Ed25519", "p-256", ""] {
            assert!(set_keys(set(crv, x, y).as_bytes()).is_empty(), "{crv}");
        }
        for (x, y) in [(x, x), (x, ""), ("", ""), ("AA", "AA"), (y, x)] {
            for key in set_keys(set("P-256", x, y).as_bytes()) {
                assert!(!key.verifier.verify("ES256", "e30.e30", &"A".repeat(86)));
            }
        }
    }

    #[test]
    fn a_set_of_ten_thousand_keys_gives_the_first_usable_ones_however_many_stand_before_them() {
        let useless = r#"{"kty":"oct","k":"c2VjcmV0"},"#.repeat(10_000);
        let ed = r#"{"kty":"OKP","crv":"Ed25519","x":"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}"#;
        let good = vec![ed; 100].join(",");
        let keys = set_keys(format!(r#"{{"keys":[{useless}{good}]}}"#).as_bytes());
        assert_eq!(keys.len(), SET_KEYS_MAX);
        assert_eq!(keys[0].kid, "number 10000");
    }

    /// The modulus of a key of 1024 bits that was thrown away, and its signature over `e30.e30`.
    const MODULUS_1024: &str = "0GDwtKgvrMlagYRIvZU6RU-2OaE-xuCaD2sAM1_HQnNbTcQgd7wrfGEN7sRSFa7kn8LdQut1T1hR87o2pm42_wCuOT\
        c6F4ae9kGNs8c416EocTDGh0v4ZwGYTDKoUFZZ6tREthG1A1x43uXdBzN1pmkYPzukggaMDUU433KXRXk";
    const SIGNATURE_1024: &str = "rUT8WH19p8-f-lb1U1eHbhs-dYawYEMjEF-nDqfgQKPGSzgGdhvN5thSa6j5Jv1wJhlhmqIyTCVJTJBD_b-p-7E9Fc\
        usG1flT5R4vt3v9Rv0z8ReuHa9hwuzYl1Sak977p5SR8vhKlCoree3-6tzqeD39w4L1GZIeozsfg4VcrQ";

    proptest! {
        #[test]
        fn any_set_and_any_file_is_read_or_refused(text in ".{0,300}") {
            let _ = (set_keys(text.as_bytes()), pem_keys(text.as_bytes()));
        }
    }
}
