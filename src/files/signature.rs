//! Signatures of the addresses that this server hands out for its own files, and checksums of what is uploaded.

use jsonwebtoken::crypto::{sign, verify};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Context;

use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// The secret that signs addresses.
#[derive(Clone)]
pub(super) struct Key(pub Vec<u8>);

impl Key {
    /// Returns the HMAC-SHA-256 of a text, as base64url.
    pub(super) fn sign(&self, text: &str) -> ImksResult<String> {
        let signed = sign(text.as_bytes(), &EncodingKey::from_secret(&self.0), Algorithm::HS256);
        signed.map_err(|error| ImksError::Signing(Cause::new(error)))
    }

    /// Whether a text has this signature. Takes equally long for all signatures.
    pub(super) fn verify(&self, text: &str, signature: &str) -> bool {
        let key = DecodingKey::from_secret(&self.0);
        verify(signature, text.as_bytes(), &key, Algorithm::HS256).unwrap_or(false)
    }
}

/// The SHA-256 of bytes that come one after the other, from the TLS library that is linked anyway.
pub struct Sha256(Box<dyn Context>);

impl Sha256 {
    /// Starts a checksum.
    ///
    /// # Errors
    /// [`ImksError::Internal`] if the TLS library has none.
    pub fn start() -> ImksResult<Self> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or(ImksError::Internal("no SHA-256"))?;
        Ok(Self(suite.common.hash_provider.start()))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the checksum in lower case hex digits.
    pub fn finish(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns the bytes that hex digits stand for; `None` for anything else.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_the_standard() {
        let mut checksum = Sha256::start().unwrap();
        checksum.update(b"a");
        checksum.update(b"bc");
        let text = checksum.finish();
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(from_hex(&text).unwrap()[..2], [0xba, 0x78]);
        assert_eq!((from_hex("0"), from_hex("0g")), (None, None));
    }

    #[test]
    fn a_signature_holds_for_one_text_and_one_key() {
        let (key, other) = (Key(vec![1; 32]), Key(vec![2; 32]));
        let signature = key.sign("text").unwrap();
        assert!(key.verify("text", &signature));
        assert!(
            !key.verify("texts", &signature) && !other.verify("text", &signature) && !key.verify("text", "")
        );
    }
}
