//! `imks healthcheck`: asks a running server or core for its health, for containers without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Config;
use crate::{ImksError, ImksResult};

/// Options of `imks healthcheck`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also fail while the server is draining or one of its dependencies is down
    #[arg(long)]
    ready: bool,
    /// Ask `imks core`, on its internal listener, instead of the server
    #[arg(long)]
    pub(super) core: bool,
}

/// Returns success if what listens on the configured port is healthy.
pub(super) async fn run(args: Args, config: &Config) -> ImksResult<ExitCode> {
    let path = if args.ready { "/health/ready" } else { "/health/live" };
    let (address, tls) = match (args.core, config.internal_listen) {
        (false, _) => (config.listen, config.tls.is_on()),
        (true, Some(address)) => (address, config.internal.cert.is_some()),
        (true, None) => return Err(ImksError::Config("IMKS_INTERNAL_LISTEN is empty".into())),
    };
    let status = match tokio::time::timeout(DEADLINE, status(reachable(address), tls, path)).await {
        Ok(status) => status?,
        Err(_) => return Err(ImksError::Timeout("no answer from the server")),
    };
    super::say(&format!("{path} answers {status}"))?;
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the address at which this machine reaches the listener. The unspecified address becomes loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether imks answers at an address, with or without TLS, whatever its health is.
pub(super) async fn is_imks(listen: SocketAddr, tls: bool) -> bool {
    for tls in [tls, !tls] {
        let report = async {
            let mut stream = ask(reachable(listen), tls, "/health").await?;
            let mut answer = Vec::new();
            // An end without a farewell is one too.
            let _ = (&mut stream).take(REPORT_BYTES_MAX).read_to_end(&mut answer).await;
            Ok::<_, ImksError>(answer)
        };
        if let Ok(Ok(answer)) = tokio::time::timeout(DEADLINE, report).await
            && is_report(&String::from_utf8_lossy(&answer))
        {
            return true;
        }
    }
    false
}

/// Whether an answer has the report of imks about its health, as `/health` gives it.
fn is_report(answer: &str) -> bool {
    let members = ["\"status\"", "\"version\"", "\"uptime\"", "\"checks\"", "\"connections\""];
    answer.starts_with("HTTP/1.1 ") && members.iter().all(|member| answer.contains(member))
}

/// A connection with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(address: SocketAddr, tls: bool) -> ImksResult<Box<dyn Stream>> {
    let stream =
        TcpStream::connect(address).await.map_err(ImksError::io(format!("connecting to {address}")))?;
    if !tls {
        return Ok(Box::new(stream));
    }
    let stream = TlsConnector::from(Arc::new(trusting()?)).connect(address.ip().into(), stream).await;
    Ok(Box::new(stream.map_err(ImksError::io("TLS with the server"))?))
}

/// Connects and asks for a page. The answer is what the connection gives then.
async fn ask(address: SocketAddr, tls: bool, path: &str) -> ImksResult<Box<dyn Stream>> {
    let mut stream = connect(address, tls).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(ImksError::io("asking for the health"))?;
    stream.flush().await.map_err(ImksError::io("asking for the health"))?;
    Ok(stream)
}

async fn status(address: SocketAddr, tls: bool, path: &str) -> ImksResult<u16> {
    let mut stream = ask(address, tls, path).await?;
    let mut head = [0; STATUS_LINE];
    stream.read_exact(&mut head).await.map_err(ImksError::io("reading the health"))?;
    let status = head.get(STATUS_DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
    status.and_then(|digits| digits.parse().ok()).ok_or(ImksError::Unavailable("the answer is not HTTP"))
}

/// Returns a TLS configuration that accepts any certificate. The check sends nothing secret, and the
/// certificate is seldom issued for the address that the check connects to.
fn trusting() -> ImksResult<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ImksError::Config(error.to_string()))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer)).with_no_client_auth())
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The length of `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;
const STATUS_DIGITS: std::ops::Range<usize> = 9..12;
/// The most bytes of a report that are read.
const REPORT_BYTES_MAX: u64 = 64 << 10;
const DEADLINE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every request alike.
    async fn serve(listener: &tokio::net::TcpListener, answer: &str) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1_024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_imks_is_told_apart_by_its_health() {
        let report = "HTTP/1.1 503 x\r\n\r\n{\"status\":\"unhealthy\",\"version\":\"1\",\"uptime\":1,\"checks\":{},\"connections\":{}}";
        for (answer, expected) in
            [(report, true), ("HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\"}", false), ("", false)]
        {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let is = tokio::select! {
                is = is_imks(address, false) => is,
                () = serve(&listener, answer) => false,
            };
            assert_eq!(is, expected, "{answer}");
        }
    }

    #[test]
    fn a_server_on_any_address_is_asked_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:3000".parse().unwrap()).to_string(), "127.0.0.1:3000");
        assert_eq!(reachable("[::]:3000".parse().unwrap()).to_string(), "[::1]:3000");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
