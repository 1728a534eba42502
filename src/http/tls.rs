//! TLS for the public listeners: one certificate for TCP and QUIC, exchanged while connections go on.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::http::certificate::ServerCertificate;
use crate::http::metrics;
use crate::{ImksError, ImksResult, clock};

/// Settings of TLS.
#[derive(Clone, Debug)]
pub struct Config {
    /// PEM file with the certificate and what leads to its root, in this order.
    pub cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    pub key: Option<PathBuf>,
    /// Refuse to serve plain HTTP on an address that other machines can reach.
    pub require: bool,
    /// Oldest version that is spoken over TCP; QUIC always speaks 1.3.
    pub min_version: Version,
    /// How often the files are looked at.
    pub reload: Duration,
    /// From the first byte to the end of the handshake.
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

    /// What cannot work on an address that is `reachable` from other machines or not.
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

/// Version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
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

/// The certificate that is shown to clients. Clone it freely: all clones show the same one.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
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
    /// A development certificate that will be shown soon: its hash is told before it is needed.
    next: Option<ServerCertificate>,
    /// What the files looked like when they were last read, successfully or not.
    stamp: Stamp,
}

/// Time, size and inode of the files; a symbolic link is followed, however it was exchanged.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

impl Certificates {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`ImksError::Config`] naming the file and what is wrong with it.
    pub fn open(cert: PathBuf, key: PathBuf) -> ImksResult<Self> {
        let source = Source::Files { cert, key };
        let stamp = source.stamp();
        Self::new(source, stamp)
    }

    /// Makes a short-lived certificate for development, and a new one in time.
    ///
    /// # Errors
    /// [`ImksError::Config`] for names that cannot stand in a certificate.
    pub fn self_signed(names: Vec<String>) -> ImksResult<Self> {
        Self::new(Source::SelfSigned { names }, Stamp::default())
    }

    fn new(source: Source, stamp: Stamp) -> ImksResult<Self> {
        let certificate = source.read()?;
        metrics::TLS_NOT_AFTER.set(certificate.not_after);
        let current = RwLock::new(Current { certificate, next: None, stamp });
        Ok(Self(Arc::new(Inner { source, current })))
    }

    /// Whether it was made here, so that clients can only know it by its hash.
    pub fn is_self_signed(&self) -> bool {
        matches!(self.0.source, Source::SelfSigned { .. })
    }

    /// SHA-256 of the development certificates that are shown now and next; none for one from files, which
    /// clients check in the ordinary way.
    pub fn hashes(&self) -> Vec<[u8; 32]> {
        let current = self.0.current.read();
        let all = std::iter::once(&current.certificate).chain(&current.next);
        all.filter(|_| self.is_self_signed()).map(|certificate| certificate.sha256).collect()
    }

    /// Reads the files again and shows what is in them from now on; connections that are open go on. A
    /// development certificate is renewed if its time has come.
    ///
    /// # Errors
    /// [`ImksError::Config`] naming the file and what is wrong with it; the old certificate stays then.
    pub fn reload(&self) -> ImksResult<()> {
        if self.is_self_signed() {
            return self.renew();
        }
        let stamp = self.0.source.stamp();
        let read = self.0.source.read();
        let mut current = self.0.current.write();
        current.stamp = stamp;
        current.certificate = read?;
        metrics::TLS_NOT_AFTER.set(current.certificate.not_after);
        tracing::info!(not_after = %time(current.certificate.not_after), "a new certificate is in use");
        Ok(())
    }

    /// Looks at the files, or at the age of a development certificate, each `interval` until `stop`.
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

    /// Returns the acceptor of connections over TCP.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the library does not know the version.
    pub fn tls(&self, config: &Config) -> ImksResult<Tls> {
        let mut server = self.server_config(config.min_version)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Tls { acceptor, handshake_timeout: config.handshake_timeout })
    }

    /// Returns the configuration of QUIC: version 1.3, HTTP/3 only, no early data.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the library does not know the version.
    pub fn quic(&self) -> ImksResult<ServerConfig> {
        let mut server = self.server_config(Version::V1_3)?;
        server.alpn_protocols = vec![b"h3".to_vec()];
        // Early data could be replayed by whoever has seen it.
        server.max_early_data_size = 0;
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
            metrics::TLS_NOT_AFTER.set(next.not_after);
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

/// The server's side of a TLS handshake over TCP.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    handshake_timeout: Duration,
}

impl Tls {
    /// Does the handshake. `None` if it fails or takes too long: the stream is closed.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
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

fn time(seconds: i64) -> String {
    clock::rfc3339(seconds.saturating_mul(1_000_000))
}

static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];

/// A development certificate that has this long to live is announced together with the hash of the next one.
const ANNOUNCE_BEFORE: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// A development certificate that has this long to live is replaced: a day after the next one was announced.
const RENEW_BEFORE: Duration = Duration::from_secs(4 * 24 * 60 * 60);
