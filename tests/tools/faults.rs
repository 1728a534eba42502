//! What goes wrong between a client and a server: proxies with faults, and certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// What a proxy does wrong.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Its requests have no `Upgrade` and `Connection`.
    DropsUpgrade,
    /// It holds back what it has until there is more: answers to waiting requests, and WebSocket frames.
    Buffers,
    /// It cuts a WebSocket on which nothing happens for a while.
    CutsQuiet,
}

/// How long nothing may happen: longer than a busy machine needs between a sign-in and what follows it.
const QUIET: Duration = Duration::from_secs(3);

/// Starts a proxy with a fault in front of a server.
pub async fn proxy(target: SocketAddr, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepting, passing) = (TaskTracker::new(), TaskTracker::new());
    accepting.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            passing.spawn(pass(client, target, fault));
        }
    });
    address
}

async fn pass(mut client: TcpStream, target: SocketAddr, fault: Fault) {
    let mut server = TcpStream::connect(target).await.unwrap();
    let Some(request) = head(&mut client).await else { return };
    let is_upgrade = request.to_lowercase().contains("\r\nupgrade:");
    let is_waiting = request.starts_with("GET") && request.contains("sid=");
    let request = match fault {
        Fault::DropsUpgrade => without_upgrade(&request),
        Fault::Buffers | Fault::CutsQuiet => request,
    };
    server.write_all(request.as_bytes()).await.unwrap();
    match fault {
        Fault::Buffers if is_waiting => std::future::pending().await,
        Fault::Buffers if is_upgrade => {
            let Some(answer) = head(&mut server).await else { return };
            client.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending().await
        }
        Fault::CutsQuiet if is_upgrade => until_quiet(client, server).await,
        Fault::Buffers | Fault::DropsUpgrade | Fault::CutsQuiet => {
            // Either side may end it.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    }
}

/// Passes bytes on until nothing happens for a while, or a side ends.
async fn until_quiet(client: TcpStream, server: TcpStream) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (mut question, mut answer) = ([0; 4096], [0; 4096]);
    loop {
        let passed = tokio::select! {
            Ok(count @ 1..) = from_client.read(&mut question) => to_server.write_all(&question[..count]).await,
            Ok(count @ 1..) = from_server.read(&mut answer) => to_client.write_all(&answer[..count]).await,
            () = tokio::time::sleep(QUIET) => return,
            else => return,
        };
        if passed.is_err() {
            return;
        }
    }
}

/// Reads up to the empty line.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn without_upgrade(request: &str) -> String {
    let is_kept = |line: &&str| {
        let line = line.to_lowercase();
        !line.starts_with("upgrade:") && !line.starts_with("connection:")
    };
    request.split_inclusive("\r\n").filter(is_kept).collect()
}

/// Starts a program that shows a certificate, whatever is wrong with it. imks itself does not start with an expired one.
pub async fn tls(certificates: &Certificates) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(certificates.file("crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.file("key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepting, answering) = (TaskTracker::new(), TaskTracker::new());
    accepting.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust it goes away.
            answering.spawn(acceptor.accept(stream));
        }
    });
    address
}

/// A certificate authority, and a certificate of it.
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// For this name, until the end of this year.
    pub fn new(name: &str, until: i32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = authority.self_signed(&key).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let server_key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&server_key, &Issuer::new(authority, key)).unwrap();
        for (file, label, der) in [
            ("ca", "CERTIFICATE", own.der().to_vec()),
            ("crt", "CERTIFICATE", signed.der().to_vec()),
            ("key", "PRIVATE KEY", server_key.serialize_der()),
        ] {
            std::fs::write(directory.path().join(file), pem(label, &der)).unwrap();
        }
        Self { directory }
    }

    /// The file `ca`, `crt` or `key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
