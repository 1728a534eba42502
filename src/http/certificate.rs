//! A certificate chain with its private key: read from PEM files and checked, or generated for development.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct ServerCertificate {
    pub(super) certified: Arc<CertifiedKey>,
    /// The end of validity of the first certificate, in seconds since 1970.
    pub not_after: i64,
    /// The SHA-256 hash of the first certificate, as browsers expect it in `serverCertificateHashes`.
    pub sha256: [u8; 32],
}

impl ServerCertificate {
    /// Reads a chain (leaf first) and the key of its leaf, and checks that both can be used at `now`.
    ///
    /// # Errors
    /// [`ImksError::Config`] that names the file and its problem.
    pub fn read(cert: &Path, key: &Path, now: Micros) -> ImksResult<Self> {
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(cert, "certificate", &error.to_string()))?;
        if chain.is_empty() {
            return Err(unusable(cert, "certificate", "it contains no PEM block CERTIFICATE"));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| unusable(key, "private key", &error.to_string()))?;
        let certificate =
            Self::new(chain, private).map_err(|error| unusable(cert, "certificate", &error.to_string()))?;
        match certificate.certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => {
                let text = format!("the key in {} belongs to another certificate", key.display());
                return Err(unusable(cert, "certificate", &text));
            }
        }
        certificate.check_validity(cert, now)?;
        Ok(certificate)
    }

    /// Generates a self-signed certificate (ECDSA P-256) that is valid for less than 14 days, as browsers
    /// require for `serverCertificateHashes`.
    ///
    /// # Errors
    /// [`ImksError::Config`] for a name that is invalid in a certificate.
    pub fn self_signed(names: &[String], now: Micros) -> ImksResult<Self> {
        let failed = |error: rcgen::Error| ImksError::Config(format!("no development certificate: {error}"));
        let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "imks development");
        let now = std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(now).unwrap_or(0));
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + SELF_SIGNED_LIFE).into();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let cert = params.self_signed(&key).map_err(failed)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Self::new(vec![cert.der().clone()], private)
    }

    /// Returns the time from `now` to the end of validity, or zero if it has passed.
    pub fn remaining(&self, now: Micros) -> Duration {
        let seconds = self.not_after.saturating_sub(seconds(now));
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    fn new(chain: Vec<CertificateDer<'static>>, private: PrivateKeyDer<'static>) -> ImksResult<Self> {
        let wrong = |error: String| ImksError::Config(error);
        let first = chain.first().ok_or(ImksError::Internal("a chain without a certificate"))?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|error| wrong(error.to_string()))?;
        let not_after = parsed.validity().not_after.timestamp();
        let sha256 = wtransport::tls::Certificate::from_der(first.to_vec())
            .map_err(|error| wrong(error.to_string()))?
            .hash();
        let signing =
            aws_lc_rs::sign::any_supported_type(&private).map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(chain, signing)),
            not_after,
            sha256: *sha256.as_ref(),
        })
    }

    fn check_validity(&self, cert: &Path, now: Micros) -> ImksResult<()> {
        let leaf = self.certified.end_entity_cert().map_err(|_| ImksError::Internal("no certificate"))?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|error| unusable(cert, "certificate", &error.to_string()))?;
        let validity = parsed.validity();
        if seconds(now) > validity.not_after.timestamp() {
            return Err(unusable(cert, "certificate", &format!("it expired on {}", validity.not_after)));
        }
        if seconds(now) < validity.not_before.timestamp() {
            let text = format!("it is not valid before {}; is the clock right?", validity.not_before);
            return Err(unusable(cert, "certificate", &text));
        }
        Ok(())
    }
}

impl fmt::Debug for ServerCertificate {
    /// Omits the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerCertificate")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn unusable(path: &Path, what: &str, why: &str) -> ImksError {
    ImksError::Config(format!("The {what} {} cannot be used: {why}", path.display()))
}

fn seconds(now: Micros) -> i64 {
    now.div_euclid(1_000_000)
}

/// The validity of a self-signed certificate: with the skew, below the 14 days that browsers allow.
const SELF_SIGNED_LIFE: Duration = Duration::from_secs(13 * 24 * 60 * 60);
/// The time before `now` at which validity starts, because a browser's clock may be slow.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now_micros;

    #[test]
    fn a_development_certificate_lives_less_than_fourteen_days() {
        let certificate =
            ServerCertificate::self_signed(&["localhost".into(), "127.0.0.1".into()], now_micros()).unwrap();
        let leaf = certificate.certified.end_entity_cert().unwrap();
        let (_, parsed) = X509Certificate::from_der(leaf).unwrap();
        let validity = parsed.validity();
        let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
        assert!((13..14).contains(&days));
        assert!(certificate.certified.keys_match().is_ok());
        assert_eq!(certificate.remaining(i64::MAX), Duration::ZERO);
    }
}
