//! Which servers a client trusts, and how it proves itself: TLS by rustls, with the provider aws-lc-rs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "client-quic")]
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::error::{ClientError, ClientResult};
use crate::error::Cause;

/// The settings of TLS. The default trusts what the system trusts.
#[derive(Default)]
pub struct Tls {
    roots: Vec<CertificateDer<'static>>,
    only_own_roots: bool,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    pins: Vec<[u8; 32]>,
    accepts_invalid: bool,
    only_13: bool,
    /// Whether it was said that invalid certificates are accepted. Clones share it.
    has_warned: Arc<AtomicBool>,
}

impl Clone for Tls {
    fn clone(&self) -> Self {
        let identity = self.identity.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        let (roots, pins) = (self.roots.clone(), self.pins.clone());
        Self { roots, identity, pins, has_warned: self.has_warned.clone(), ..*self }
    }
}

impl Tls {
    /// Creates the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates in a PEM text too.
    ///
    /// # Errors
    /// [`ClientError::Tls`] if there is none in it.
    pub fn root_pem(mut self, pem: impl AsRef<[u8]>) -> ClientResult<Self> {
        self.roots.extend(certificates(pem.as_ref())?);
        Ok(self)
    }

    /// Trusts no certificates of the system. Without roots of its own, or pins, the client is not built then.
    #[must_use]
    pub fn only_own_roots(mut self) -> Self {
        self.only_own_roots = true;
        self
    }

    /// Proves itself to the server with a certificate, its intermediate certificates and its private key, each in
    /// a PEM text.
    ///
    /// # Errors
    /// [`ClientError::Tls`] if one of them is missing. That the key is not that of the certificate shows when the
    /// client is built.
    pub fn identity_pem(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> ClientResult<Self> {
        let key = PrivateKeyDer::from_pem_slice(key.as_ref()).map_err(failed)?;
        self.identity = Some((certificates(chain.as_ref())?, key));
        Ok(self)
    }

    /// Trusts only servers whose certificate, in DER, has this SHA-256 hash, or one of several. Names, dates and
    /// roots do not matter then, so this is also the way to trust a self-signed certificate.
    #[must_use]
    pub fn pin_sha256(mut self, hash: [u8; 32]) -> Self {
        self.pins.push(hash);
        self
    }

    /// Refuses versions of TLS before 1.3.
    #[must_use]
    pub fn only_tls13(mut self) -> Self {
        self.only_13 = true;
        self
    }

    /// Trusts every server, so that anybody on the way can read and change everything. For tests; the first
    /// client that is built with these settings, or a clone of them, leaves a warning in the log. Where there are pins,
    /// they still decide.
    #[must_use]
    pub fn danger_accept_invalid_certs(mut self) -> Self {
        self.accepts_invalid = true;
        self
    }

    /// Returns the settings for rustls over TCP.
    pub(crate) fn tcp(&self, verifier: Arc<dyn ServerCertVerifier>) -> ClientResult<Arc<ClientConfig>> {
        let versions = if self.only_13 { TLS13 } else { rustls::ALL_VERSIONS };
        self.config(verifier, versions, b"http/1.1").map(Arc::new)
    }

    /// Returns the settings for rustls over QUIC, which has no versions of TLS before 1.3. `protocols` are the names
    /// for ALPN.
    #[cfg(feature = "client-quic")]
    pub(crate) fn quic(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        protocols: &[String],
    ) -> ClientResult<ClientConfig> {
        let mut config = self.config(verifier, TLS13, b"")?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SERVERS_MAX);
        Ok(config)
    }

    fn config(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        versions: &[&'static SupportedProtocolVersion],
        protocol: &[u8],
    ) -> ClientResult<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(failed)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }

    /// Returns what decides which servers are trusted.
    pub(crate) fn verifier(&self) -> ClientResult<Arc<dyn ServerCertVerifier>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        if !self.pins.is_empty() {
            return Ok(Arc::new(Unchecked { provider, trust: Trust::Pinned(self.pins.clone()) }));
        }
        if self.accepts_invalid {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                tracing::warn!("certificates of servers are not checked: anybody can pose as the server");
            }
            return Ok(Arc::new(Unchecked { provider, trust: Trust::Everybody }));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(self.root_store()?), provider);
        Ok(verifier.build().map_err(failed)?)
    }

    fn root_store(&self) -> ClientResult<RootCertStore> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone()).map_err(failed)?;
        }
        if !self.only_own_roots {
            let system = rustls_native_certs::load_native_certs();
            for error in &system.errors {
                tracing::warn!(%error, "certificates of the system cannot be read");
            }
            // Some systems have certificates that no longer parse. The others are what is trusted.
            store.add_parsable_certificates(system.certs);
        }
        match store.is_empty() {
            true => {
                Err(failed("the system has no certificates to trust (SSL_CERT_FILE), and none were given"))
            }
            false => Ok(store),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (roots, pins, identity) = (self.roots.len(), self.pins.len(), self.identity.is_some());
        write!(formatter, "Tls({roots} own roots, {pins} pins, identity: {identity})")
    }
}

fn certificates(pem: &[u8]) -> ClientResult<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found.map_err(failed)? {
        none if none.is_empty() => Err(failed("no certificate in the PEM text")),
        found => Ok(found),
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Tls(Arc::new(Cause::new(error)))
}

/// A verifier that does not look at names, dates and issuers. That the server has the key of its certificate, it
/// checks as any other.
#[derive(Debug)]
struct Unchecked {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

#[derive(Debug)]
enum Trust {
    Everybody,
    /// Certificates with one of these SHA-256 hashes.
    Pinned(Vec<[u8; 32]>),
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_trusted = match &self.trust {
            Trust::Everybody => true,
            Trust::Pinned(pins) => pins.iter().any(|pin| sha256(certificate).as_ref() == Some(pin)),
        };
        match is_trusted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the SHA-256 of some bytes, by the provider's own hash.
fn sha256(bytes: &[u8]) -> Option<[u8; 32]> {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
    suite.common.hash_provider.hash(bytes).as_ref().try_into().ok()
}

/// The maximum number of names of servers whose tickets are kept. A client has one.
#[cfg(feature = "client-quic")]
const SERVERS_MAX: usize = 8;

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_the_standard() {
        let hash = sha256(b"abc").unwrap();
        assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn a_pem_text_without_a_certificate_is_told() {
        for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(Tls::new().root_pem(pem), Err(ClientError::Tls(_))), "{pem}");
        }
        assert!(matches!(Tls::new().only_own_roots().verifier(), Err(ClientError::Tls(_))));
    }
}
