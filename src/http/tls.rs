//! TLS for the public listeners: one certificate for TCP and QUIC, replaceable without closing connections.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientCertVerifierBuilder, ClientHello, ResolvesServerCert, ServerSessionMemoryCache,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::http::certificate::ServerCertificate;
use crate::http::metrics;
use crate::telemetry::Gauge;
use crate::{ImksError, ImksResult, clock};

/// The settings of TLS.
#[derive(Clone, Debug)]
pub struct Config {
    /// The PEM file with the certificate followed by its intermediate certificates.
    pub cert: Option<PathBuf>,
    /// The PEM file with the private key of the certificate.
    pub key: Option<PathBuf>,
    /// Whether to refuse to serve plain HTTP on an address that other machines can reach.
    pub require: bool,
    /// The oldest version that is accepted over TCP. QUIC always uses 1.3.
    pub min_version: Version,
    /// The interval at which the files are checked for changes.
    pub reload: Duration,
    /// The time from the first byte to the end of the handshake.
    pub handshake_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cert: None,
            key: None,
            require: false,
            min_version: Version::V1_2,
            reload: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Whether a certificate is configured.
    pub fn is_on(&self) -> bool {
        self.cert.is_some() && self.key.is_some()
    }

    /// Returns the problems of the settings on an address that is `reachable` from other machines or not.
    pub fn problems(&self, reachable: bool) -> impl Iterator<Item = &'static str> + use<> {
        let checks = [
            (
                self.cert.is_some() == self.key.is_some(),
                "IMKS_TLS_CERT and IMKS_TLS_KEY belong together: set both, or none",
            ),
            (
                !self.require || self.is_on() || !reachable,
                "IMKS_REQUIRE_TLS is on and IMKS_LISTEN can be reached from other machines: set IMKS_TLS_CERT and IMKS_TLS_KEY",
            ),
            (
                !self.reload.is_zero() && !self.handshake_timeout.is_zero(),
                "IMKS_TLS_RELOAD and IMKS_TLS_HANDSHAKE must be longer than 0s",
            ),
        ];
        checks.into_iter().filter(|(fine, _)| !fine).map(|(_, sentence)| sentence)
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl Version {
    fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::V1_2 => rustls::ALL_VERSIONS,
            Self::V1_3 => &NEWEST,
        }
    }
}

/// The certificate that clients are shown. Cloning it is cheap, and all clones share the certificate.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    /// Shows when the certificate expires.
    not_after: &'static Gauge,
    current: RwLock<Current>,
}

#[derive(Debug)]
enum Source {
    Files { cert: PathBuf, key: PathBuf },
    SelfSigned { names: Vec<String> },
}

#[derive(Debug)]
struct Current {
    certificate: ServerCertificate,
    /// The next development certificate. Its hash is announced before the certificate is used.
    next: Option<ServerCertificate>,
    /// The state of the files when they were last read, successfully or not.
    stamp: Stamp,
}

/// The modification time, size and inode of each file. Symbolic links are followed, so replacing one is
/// detected.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

impl Certificates {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`ImksError::Config`] that names the file and its problem.
    pub fn open(cert: PathBuf, key: PathBuf) -> ImksResult<Self> {
        let source = Source::Files { cert, key };
        let stamp = source.stamp();
        Self::new(source, stamp, &metrics::TLS_NOT_AFTER)
    }

    /// Reads and checks the files of the internal listener.
    ///
    /// # Errors
    /// [`ImksError::Config`] that names the file and its problem.
    pub fn open_internal(cert: PathBuf, key: PathBuf) -> ImksResult<Self> {
        let source = Source::Files { cert, key };
        let stamp = source.stamp();
        Self::new(source, stamp, &metrics::INTERNAL_TLS_NOT_AFTER)
    }

    /// Generates a short-lived certificate for development, which is renewed before it expires.
    ///
    /// # Errors
    /// [`ImksError::Config`] for names that are invalid in a certificate.
    pub fn self_signed(names: Vec<String>) -> ImksResult<Self> {
        Self::new(Source::SelfSigned { names }, Stamp::default(), &metrics::TLS_NOT_AFTER)
    }

    fn new(source: Source, stamp: Stamp, not_after: &'static Gauge) -> ImksResult<Self> {
        let certificate = source.read()?;
        not_after.set(certificate.not_after);
        let current = RwLock::new(Current { certificate, next: None, stamp });
        Ok(Self(Arc::new(Inner { source, not_after, current })))
    }

    /// Whether the certificate was generated here, so that clients can verify it only by its hash.
    pub fn is_self_signed(&self) -> bool {
        matches!(self.0.source, Source::SelfSigned { .. })
    }

    /// Returns the SHA-256 hashes of the current and next development certificates. Empty for a certificate
    /// from files, which clients verify as usual.
    pub fn hashes(&self) -> Vec<[u8; 32]> {
        let current = self.0.current.read();
        let all = std::iter::once(&current.certificate).chain(&current.next);
        all.filter(|_| self.is_self_signed()).map(|certificate| certificate.sha256).collect()
    }

    /// Returns the SHA-256 hash of the certificate in use.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.current.read().certificate.sha256
    }

    /// Reads the files again and uses the new certificate from now on. Open connections continue. A
    /// development certificate is renewed if it is due.
    ///
    /// # Errors
    /// [`ImksError::Config`] that names the file and its problem. The old certificate then stays in use.
    pub fn reload(&self) -> ImksResult<()> {
        if self.is_self_signed() {
            return self.renew();
        }
        let stamp = self.0.source.stamp();
        let read = self.0.source.read();
        let mut current = self.0.current.write();
        current.stamp = stamp;
        current.certificate = read?;
        self.0.not_after.set(current.certificate.not_after);
        tracing::info!(not_after = %time(current.certificate.not_after), "a new certificate is in use");
        Ok(())
    }

    /// Checks the files, or the age of a development certificate, at each `interval` until `stop`.
    pub async fn watch(self, interval: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let changed = self.is_self_signed() || self.0.source.stamp() != self.0.current.read().stamp;
            if changed && let Err(error) = self.reload() {
                tracing::error!(%error, "the certificate was not exchanged, the old one stays in use");
            }
            let remaining = self.0.current.read().certificate.remaining(clock::now_micros());
            if remaining.is_zero() {
                tracing::error!("the certificate has expired: clients refuse it");
            }
        }
    }

    /// Returns the acceptor for connections over TCP.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the library does not support the version.
    pub fn tls(&self, config: &Config) -> ImksResult<Tls> {
        let mut server = self.server_config(config.min_version)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Tls { acceptor, handshake_timeout: config.handshake_timeout })
    }

    /// Returns the acceptor for programs that show a certificate or not. `protocols` are the names for ALPN.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the file with the certificates that vouch for callers cannot be used.
    pub fn programs(&self, config: &Config, callers: &Callers, protocols: &[&str]) -> ImksResult<Tls> {
        let mut server = match callers.verifier()? {
            None => self.server_config(config.min_version)?,
            Some(verifier) => {
                let provider = Arc::new(aws_lc_rs::default_provider());
                let builder = ServerConfig::builder_with_provider(provider)
                    .with_protocol_versions(config.min_version.and_newer())
                    .map_err(|error| ImksError::Config(error.to_string()))?;
                builder.with_client_cert_verifier(verifier).with_cert_resolver(self.0.clone())
            }
        };
        server.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Tls { acceptor, handshake_timeout: config.handshake_timeout })
    }

    /// Returns the configuration for QUIC: TLS 1.3, one of these protocols by their names for ALPN, no early data.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the library does not support the version.
    pub fn quic(&self, protocols: &[&str]) -> ImksResult<ServerConfig> {
        let mut server = self.server_config(Version::V1_3)?;
        server.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Anyone who has seen early data could replay it.
        server.max_early_data_size = 0;
        Ok(server)
    }

    /// Returns the configuration of [`Certificates::quic`], with early data from clients that were here before.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the library does not support the version.
    pub fn quic_early(&self, protocols: &[&str]) -> ImksResult<ServerConfig> {
        let mut server = self.quic(protocols)?;
        // QUIC knows no other limit (RFC 9001 section 4.6.1). Its windows are the limit.
        server.max_early_data_size = u32::MAX;
        // Each ticket is known here only, and good for one use: what has been seen once is not early data again.
        server.session_storage = ServerSessionMemoryCache::new(TICKETS_MAX);
        Ok(server)
    }

    fn server_config(&self, min_version: Version) -> ImksResult<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(min_version.and_newer())
            .map_err(|error| ImksError::Config(error.to_string()))?;
        Ok(builder.with_no_client_auth().with_cert_resolver(self.0.clone()))
    }

    fn renew(&self) -> ImksResult<()> {
        let now = clock::now_micros();
        let mut current = self.0.current.write();
        let remaining = current.certificate.remaining(now);
        if remaining < ANNOUNCE_BEFORE && current.next.is_none() {
            current.next = Some(self.0.source.read()?);
        }
        if remaining < RENEW_BEFORE
            && let Some(next) = current.next.take()
        {
            self.0.not_after.set(next.not_after);
            current.certificate = next;
        }
        Ok(())
    }
}

impl Source {
    fn read(&self) -> ImksResult<ServerCertificate> {
        match self {
            Self::Files { cert, key } => ServerCertificate::read(cert, key, clock::now_micros()),
            Self::SelfSigned { names } => ServerCertificate::self_signed(names, clock::now_micros()),
        }
    }

    fn stamp(&self) -> Stamp {
        let Self::Files { cert, key } = self else { return Stamp::default() };
        [cert, key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        })
    }
}

impl ResolvesServerCert for Inner {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().certificate.certified.clone())
    }
}

/// The server side of TLS handshakes over TCP.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    handshake_timeout: Duration,
}

impl Tls {
    /// Performs the handshake. Returns `None` and closes the stream if it fails or takes too long.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let accepted =
            tokio::time::timeout(self.handshake_timeout, Box::pin(self.acceptor.accept(stream))).await;
        match accepted {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
        metrics::TLS_HANDSHAKE_FAILURES.increment();
        None
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

/// The certificates that callers show.
#[derive(Debug, Clone)]
pub enum Callers {
    /// None.
    Anonymous,
    /// One that a certificate in this PEM file vouches for, or none.
    Known(PathBuf),
    /// One that a certificate in this PEM file vouches for.
    Required(PathBuf),
}

impl Callers {
    /// Returns the file with the certificates that may vouch for callers.
    pub(super) fn ca(&self) -> Option<&Path> {
        match self {
            Self::Anonymous => None,
            Self::Known(path) | Self::Required(path) => Some(path),
        }
    }

    fn verifier(&self) -> ImksResult<Option<Arc<dyn ClientCertVerifier>>> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Known(path) => verifier(path, ClientCertVerifierBuilder::allow_unauthenticated).map(Some),
            Self::Required(path) => verifier(path, |builder| builder).map(Some),
        }
    }
}

/// Returns the check of client certificates by those in a PEM file.
fn verifier(
    path: &Path,
    form: fn(ClientCertVerifierBuilder) -> ClientCertVerifierBuilder,
) -> ImksResult<Arc<dyn ClientCertVerifier>> {
    let unusable = |why: &dyn fmt::Display| ImksError::Config(format!("{}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    form(builder).build().map_err(|error| unusable(&error))
}

fn time(seconds: i64) -> String {
    clock::rfc3339(seconds.saturating_mul(1_000_000))
}

static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];

/// The maximum number of tickets for early data that are remembered. Whoever has an older one needs a round trip more.
const TICKETS_MAX: usize = 16_384;
/// The remaining validity at which the hash of the next development certificate is announced.
const ANNOUNCE_BEFORE: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// The remaining validity at which a development certificate is replaced: a day after the next one is
/// announced.
const RENEW_BEFORE: Duration = Duration::from_secs(4 * 24 * 60 * 60);
