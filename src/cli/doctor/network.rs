//! The checks of `imks doctor` below HTTP: the name, each address, and TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::report::{Fault, Outcome};
use super::{ANSWER_MAX, advice};
use crate::cli::terminal::text::counted;
use crate::client::{Address, Tls};

/// Looks up the name of a server.
pub(super) async fn resolve(address: &Address) -> (Option<Vec<SocketAddr>>, Outcome) {
    let found = timeout(ANSWER_MAX, lookup_host((&*address.host, address.port))).await;
    match found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(found) => {
            let mut addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
            addresses.dedup();
            let listed: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            (Some(addresses), Outcome::Good(listed.join(", ")))
        }
        Err(error) => (None, Outcome::Failed(advice::dns(&address.host, &error))),
    }
}

/// Connects to each address, and returns the first that answers.
pub(super) async fn reach(addresses: Vec<SocketAddr>) -> (Option<SocketAddr>, Outcome) {
    let (mut good, mut failures) = (Vec::new(), Vec::new());
    for address in addresses {
        match timeout(ANSWER_MAX, TcpStream::connect(address)).await {
            Ok(Ok(_)) => good.push(address),
            Ok(Err(error)) => failures.push((address.to_string(), error)),
            Err(_) => failures.push((address.to_string(), io::ErrorKind::TimedOut.into())),
        }
    }
    let listed: Vec<String> = good.iter().map(ToString::to_string).collect();
    let outcome = match (good.is_empty(), failures.is_empty()) {
        (true, _) => Outcome::Failed(advice::tcp(&failures)),
        (false, true) => Outcome::Good(format!("{} open", listed.join(", "))),
        (false, false) => {
            let fault = advice::tcp(&failures);
            Outcome::Warned(Fault::new(
                format!("{} open, but {}", listed.join(", "), fault.found),
                "clients that try the dead address first lose time, or do not connect at all",
                format!("take it out of the DNS, or repair it: {}", fault.todo),
            ))
        }
    };
    (good.first().copied(), outcome)
}

/// A stream to a server, with or without TLS.
pub(super) type Io = Box<dyn Stream>;

/// A byte stream that can be sent to another task.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How a server is reached: its name, one address that answers, and what of TLS is trusted.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) address: Address,
    pub(super) socket: SocketAddr,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Route {
    /// Opens a connection.
    pub(super) async fn open(&self) -> io::Result<Io> {
        let opening = async {
            let stream = TcpStream::connect(self.socket).await?;
            stream.set_nodelay(true)?;
            match &self.tls {
                None => Ok(Box::new(stream) as Io),
                Some(tls) => Ok(Box::new(shake_hands(&self.address, stream, tls.clone()).await?) as Io),
            }
        };
        timeout(ANSWER_MAX, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn shake_hands(
    address: &Address,
    stream: TcpStream,
    tls: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
    TlsConnector::from(tls).connect(name, stream).await
}

/// Makes a TLS handshake and looks at the certificates, at the time `now` in seconds since 1970.
pub(super) async fn secure(
    address: &Address,
    socket: SocketAddr,
    tls: Arc<ClientConfig>,
    now: i64,
) -> (Option<()>, Outcome) {
    let stream = match timeout(ANSWER_MAX, connect(address, socket, tls)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let shown = timeout(ANSWER_MAX, untrusted(address, socket)).await.ok().flatten();
            return (None, Outcome::Failed(advice::tls(&address.host, &error, shown.as_deref())));
        }
        Err(_) => {
            return (
                None,
                Outcome::Failed(advice::held_back("the answer to the TLS handshake", ANSWER_MAX.as_secs())),
            );
        }
    };
    let session = stream.get_ref().1;
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let chain = session.peer_certificates().unwrap_or_default();
    let Some((text, days)) = chain.first().and_then(|first| describe(first, now)) else {
        return (Some(()), Outcome::Good(version.to_owned()));
    };
    let found = format!("{version}, {}, {text}", counted(chain.len() as u64, "certificate", "certificates"));
    match days < EXPIRY_DAYS_MIN {
        false => (Some(()), Outcome::Good(found)),
        true => {
            let means = format!(
                "the certificate expires in {}",
                counted(u64::try_from(days).unwrap_or_default(), "day", "days")
            );
            (
                Some(()),
                Outcome::Warned(Fault::new(
                    found,
                    means,
                    "renew it, and look why that did not happen by itself",
                )),
            )
        }
    }
}

async fn connect(
    address: &Address,
    socket: SocketAddr,
    tls: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    shake_hands(address, TcpStream::connect(socket).await?, tls).await
}

/// Describes the certificate of a server that is not trusted. Nothing is sent to it.
async fn untrusted(address: &Address, socket: SocketAddr) -> Option<String> {
    let tls = Tls::new().danger_accept_invalid_certs();
    let config = tls.tcp(tls.verifier().ok()?).ok()?;
    let stream = connect(address, socket, config).await.ok()?;
    let chain = stream.get_ref().1.peer_certificates()?;
    describe(chain.first()?, 0).map(|(text, _)| text)
}

/// Returns names, issuer and dates of a certificate, and for how many days it is still valid.
fn describe(certificate: &CertificateDer<'_>, now: i64) -> Option<(String, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names: Vec<String> = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| names.value.general_names.iter().filter_map(name).take(NAMES_SHOWN).collect())
        .unwrap_or_default();
    let validity = parsed.validity();
    let text = format!(
        "for {}, signed by {}, from {} to {}",
        names.join(", "),
        advice::excerpt(&parsed.issuer().to_string()),
        validity.not_before,
        validity.not_after
    );
    Some((text, (validity.not_after.timestamp() - now) / 86_400))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(advice::excerpt(name)),
        GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
        _ => None,
    }
}

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// The most names of a certificate that are shown.
const NAMES_SHOWN: usize = 8;
/// A certificate with fewer days is worth a warning: what renews itself does so earlier.
const EXPIRY_DAYS_MIN: i64 = 14;
