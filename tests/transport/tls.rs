//! HTTPS and secure WebSockets.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use imks::{
    engine::Config,
    http::{
        listener,
        tls::{self, Certificates, Version},
    },
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::CertificateDer,
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::certificate::{DAY, Files, Made, exchange};
use crate::support::{Server, within};

async fn server(certificates: &Certificates, config: tls::Config) -> Server {
    let tls = Some(certificates.tls(&config).unwrap());
    Server::with_listener(Config::default(), listener::Config { tls, ..listener::Config::default() }).await
}

fn client(trusted: &Made, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(trusted.der.clone())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn connect(
    server: &Server,
    trusted: &Made,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(server, client(trusted, versions)).await
}

async fn connect_as(server: &Server, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.addr).await?;
    within(TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream)).await
}

async fn trusts(server: &Server, trusted: &Made) -> bool {
    connect(server, trusted, rustls::ALL_VERSIONS).await.is_ok()
}

async fn websocket(server: &Server, trusted: &Made) -> WebSocketStream<TlsStream<TcpStream>> {
    let stream = connect(server, trusted, rustls::ALL_VERSIONS).await.unwrap();
    let url = "wss://localhost/socket.io/?EIO=4&transport=websocket";
    let (mut socket, _) = within(tokio_tungstenite::client_async(url, stream)).await.unwrap();
    assert!(text(&mut socket).await.starts_with("0{"));
    socket
}

async fn text(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> String {
    match within(socket.next()).await.unwrap().unwrap() {
        Message::Text(text) => text.to_string(),
        other => panic!("not a text: {other:?}"),
    }
}

async fn says(socket: &mut WebSocketStream<TlsStream<TcpStream>>, message: &str) -> String {
    socket.send(Message::text(message)).await.unwrap();
    text(socket).await
}

#[tokio::test]
async fn a_websocket_over_tls_is_secure_and_carries_long_messages() {
    let made = Made::good();
    let server = server(&Files::new(&made).open(), tls::Config::default()).await;
    let mut socket = websocket(&server, &made).await;
    assert!(says(&mut socket, "4facts").await.contains(r#""secure":true"#));
    assert_eq!(says(&mut socket, "4long:900000").await.len(), 900_001);
    let message = format!("4{}", "ä".repeat(400_000));
    assert_eq!(says(&mut socket, &message).await, message);
    assert_eq!(says(&mut socket, "4close:").await, "4last");
    assert!(matches!(within(socket.next()).await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn polling_works_over_tls() {
    let made = Made::good();
    let server = server(&Files::new(&made).open(), tls::Config::default()).await;
    let mut stream = connect(&server, &made, rustls::ALL_VERSIONS).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    let request = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#"0{"sid":"#), "{answer}");
}

#[tokio::test]
async fn version_1_2_is_spoken_unless_1_3_is_demanded() {
    let made = Made::good();
    let certificates = Files::new(&made).open();
    let lenient = server(&certificates, tls::Config::default()).await;
    let strict = tls::Config { min_version: Version::V1_3, ..tls::Config::default() };
    let strict = server(&certificates, strict).await;
    assert!(connect(&lenient, &made, &[&TLS12]).await.is_ok());
    assert!(connect(&lenient, &made, &[&TLS13]).await.is_ok());
    assert!(connect(&strict, &made, &[&TLS12]).await.is_err());
    assert!(connect(&strict, &made, &[&TLS13]).await.is_ok());
}

/// The first message of a client that knows nothing newer than this version, in one record.
fn old_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    // No session, the usual cipher of its time, no compression, no extensions.
    hello.extend([0, 0, 2, 0xC0, 0x09, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    [&[22, 3, minor.min(1), 0, length + 4, 1, 0, 0, length][..], &hello].concat()
}

#[tokio::test]
async fn a_client_that_knows_only_old_versions_is_refused_and_others_are_served() {
    let made = Made::good();
    let server = server(&Files::new(&made).open(), tls::Config::default()).await;
    for minor in [0, 1, 2] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(&old_hello(minor)).await.unwrap();
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
        let [21, .., 2, why] = answer[..] else { panic!("3.{minor}: no fatal alert: {answer:?}") };
        assert!([40, 70].contains(&why), "3.{minor}: nothing in common: {why}");
    }
    assert!(trusts(&server, &made).await);
}

#[tokio::test]
async fn a_handshake_in_small_pieces_is_one_and_one_that_closes_early_harms_nobody() {
    let made = Made::good();
    let server = server(&Files::new(&made).open(), tls::Config::default()).await;
    // A close, an empty record, a record of more than there may be, and half of a first message.
    let early: [&[u8]; 4] =
        [&[21, 3, 3, 0, 2, 1, 0], &[22, 3, 1, 0, 0], &[22, 3, 1, 0xFF, 0xFF], &old_hello(3)[..20]];
    for bytes in early {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = within(stream.read_to_end(&mut Vec::new())).await;
    }
    let mut config = client(&made, rustls::ALL_VERSIONS);
    config.max_fragment_size = Some(32);
    assert!(connect_as(&server, config).await.is_ok());
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_is_cut() {
    let config = tls::Config { handshake_timeout: Duration::from_millis(50), ..tls::Config::default() };
    let server = server(&Files::new(&Made::good()).open(), config).await;
    let mut stream = server.raw("\x16\x03\x01").await;
    assert_eq!(within(stream.read(&mut [0; 8])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_while_old_ones_go_on() {
    let directory = TempDir::new().unwrap();
    let (old, new) = (Made::good(), Made::good());
    exchange(directory.path(), "first", &old);
    let certificates =
        Certificates::open(directory.path().join("cert.pem"), directory.path().join("key.pem")).unwrap();
    let server = server(&certificates, tls::Config::default()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(certificates.clone().watch(Duration::from_millis(10), stop.clone()));
    let mut socket = websocket(&server, &old).await;
    exchange(directory.path(), "second", &new);
    within(async {
        while !trusts(&server, &new).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!trusts(&server, &old).await);
    assert_eq!(says(&mut socket, "4still here").await, "4still here");
    stop.cancel();
}

#[tokio::test]
async fn a_new_certificate_that_is_no_good_is_not_taken() {
    let (old, other) = (Made::good(), Made::good());
    let files = Files::new(&old);
    let certificates = files.open();
    let server = server(&certificates, tls::Config::default()).await;
    for cert in ["not a certificate".to_owned(), other.key.clone()] {
        std::fs::write(files.cert(), cert).unwrap();
        assert!(certificates.reload().is_err());
        assert!(trusts(&server, &old).await);
    }
    files.write(&other);
    std::fs::write(files.key(), &old.key).unwrap();
    assert!(certificates.reload().unwrap_err().to_string().contains("belongs to another certificate"));
    assert!(trusts(&server, &old).await);
    files.write(&other);
    certificates.reload().unwrap();
    assert!(trusts(&server, &other).await);
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_with_its_file_and_its_fault() {
    let good = Made::good();
    let files = Files::new(&good);
    let says = |text: String, part: &str, file: &str| {
        assert!(text.contains(part) && text.contains(file), "{text}");
    };
    std::fs::write(files.cert(), "nothing").unwrap();
    says(files.error(), "no PEM block", "cert.pem");
    files.write(&good);
    std::fs::write(files.key(), "nothing").unwrap();
    says(files.error(), "private key", "key.pem");
    std::fs::write(files.key(), Made::good().key).unwrap();
    says(files.error(), "belongs to another certificate", "cert.pem");
    files.write(&Made::new(|now| now - 2 * DAY, |now| now - DAY));
    says(files.error(), "it expired on", "cert.pem");
    files.write(&Made::new(|now| now + DAY, |now| now + 2 * DAY));
    says(files.error(), "not valid before", "cert.pem");
    std::fs::remove_file(files.cert()).unwrap();
    says(files.error(), "cannot be used", "cert.pem");
}

#[tokio::test]
async fn a_connection_that_never_starts_its_handshake_is_cut() {
    let files = Files::new(&Made::good());
    let certificates = files.open();
    let tls = Some(certificates.tls(&tls::Config::default()).unwrap());
    let first_byte_timeout = Duration::from_millis(50);
    let limits = listener::Config { tls, first_byte_timeout, ..listener::Config::default() };
    let server = Server::with_listener(Config::default(), limits).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(within(silent.read(&mut [0])).await.unwrap(), 0);
}
