//! Which servers a client trusts, and how it proves itself.

use std::path::PathBuf;
use std::sync::Arc;

use imks::client::{Client, ClientError, Tls};
use imks::{engine, http::tls};
use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::application::Application;
use crate::{Via, builder, within};

fn certificate(name: &str) -> CertifiedKey<KeyPair> {
    let params = CertificateParams::new(vec![name.into()]).unwrap();
    let signing_key = KeyPair::generate().unwrap();
    CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key }
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn key_pem(made: &CertifiedKey<KeyPair>) -> String {
    pem("PRIVATE KEY", &made.signing_key.serialize_der())
}

/// imks over TLS, and its certificate.
pub(crate) async fn with_tls(engine: engine::Config) -> (Application, CertifiedKey<KeyPair>) {
    let (tls, made, _folder) = settings();
    (Application::imks_with(engine, Some(tls)).await, made)
}

/// The settings of TLS with a certificate in a folder, which a server reads when it starts.
pub(crate) fn settings() -> (tls::Config, CertifiedKey<KeyPair>, tempfile::TempDir) {
    let made = certificate("localhost");
    let folder = tempfile::tempdir().unwrap();
    let (cert, key): (PathBuf, PathBuf) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(&key, key_pem(&made)).unwrap();
    let tls = tls::Config { cert: Some(cert), key: Some(key), ..tls::Config::default() };
    (tls, made, folder)
}

#[tokio::test]
async fn a_server_is_trusted_by_its_root_or_its_hash_and_by_nothing_else() {
    let (server, made) = with_tls(engine::Config::default()).await;
    let chain = pem("CERTIFICATE", made.cert.der());
    let hash = *wtransport::tls::Certificate::from_der(made.cert.der().to_vec()).unwrap().hash().as_ref();
    let port = server.address.port();
    let own = || Tls::new().only_own_roots().root_pem(&chain).unwrap();
    let other = pem("CERTIFICATE", certificate("localhost").cert.der());

    for via in [Via::WebSocket, Via::Polling, Via::WebTransport] {
        for (host, tls, is_trusted) in [
            ("localhost", own(), true),
            ("localhost", own().only_tls13(), true),
            ("127.0.0.1", own(), false),
            ("127.0.0.1", Tls::new().pin_sha256([0; 32]).pin_sha256(hash), true),
            ("127.0.0.1", Tls::new().pin_sha256([0; 32]), false),
            ("localhost", Tls::new().only_own_roots().root_pem(&other).unwrap(), false),
            ("127.0.0.1", Tls::new().danger_accept_invalid_certs(), true),
            ("127.0.0.1", Tls::new().danger_accept_invalid_certs().pin_sha256([0; 32]), false),
        ] {
            let described = format!("{host} {tls:?}");
            let url = format!("https://{host}:{port}");
            match within(builder(&url, via).tls(tls).connect()).await {
                Ok(client) => {
                    assert!(is_trusted, "{described}");
                    within(client.namespace("/")).await.unwrap();
                }
                Err(error) => {
                    assert!(!is_trusted && matches!(error, ClientError::Tls(_)), "{described}: {error:?}");
                    assert!(!error.is_retryable());
                }
            }
        }
    }
}

/// The settings of a server that wants to see a certificate of its clients.
fn asking(server: &CertifiedKey<KeyPair>, client: &CertifiedKey<KeyPair>) -> rustls::ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(client.cert.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from(server.cert.der().to_vec())],
            PrivateKeyDer::try_from(server.signing_key.serialize_der()).unwrap(),
        )
        .unwrap()
}

/// The settings of a client that has one.
fn proving(server: &CertifiedKey<KeyPair>, client: &CertifiedKey<KeyPair>) -> Tls {
    let tls = Tls::new().only_own_roots().root_pem(pem("CERTIFICATE", server.cert.der())).unwrap();
    tls.identity_pem(pem("CERTIFICATE", client.cert.der()), key_pem(client)).unwrap()
}

#[tokio::test]
async fn a_client_proves_itself_with_its_certificate() {
    let (server, client) = (certificate("localhost"), certificate("client"));
    let config = asking(&server, &client);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}", listener.local_addr().unwrap().port());
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let dial = Client::builder(&url)
        .tls(proving(&server, &client))
        .transports(Via::WebSocket.transports())
        .connect();
    // The server hangs up when it has seen who comes.
    let (shown, refused) = within(async { tokio::join!(accept, dial) }).await;
    assert_eq!(shown, client.cert.der().to_vec());
    assert!(matches!(refused, Err(ClientError::ConnectionFailed { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_client_proves_itself_over_quic_too_and_is_refused_without() {
    let (server, client) = (certificate("localhost"), certificate("client"));
    let mut config = asking(&server, &client);
    config.alpn_protocols = vec![b"h3".to_vec()];
    let config = wtransport::ServerConfig::builder()
        .with_bind_address(([127, 0, 0, 1], 0).into())
        .with_custom_tls(config)
        .build();
    let endpoint = wtransport::Endpoint::server(config).unwrap();
    let url = format!("https://localhost:{}", endpoint.local_addr().unwrap().port());
    let accept = async {
        let connection = endpoint.accept().await.await.unwrap().accept().await.unwrap();
        let shown = connection.peer_identity().unwrap().as_slice()[0].der().to_vec();
        connection.close(0u32.into(), b"");
        shown
    };
    let dial = |tls| Client::builder(&url).tls(tls).transports(Via::WebTransport.transports()).connect();
    let (shown, ended) = within(async { tokio::join!(accept, dial(proving(&server, &client))) }).await;
    assert_eq!(shown, client.cert.der().to_vec());
    assert!(matches!(ended, Err(ClientError::ConnectionFailed { .. })), "{ended:?}");

    let nameless = Tls::new().only_own_roots().root_pem(pem("CERTIFICATE", server.cert.der())).unwrap();
    let accept = async { endpoint.accept().await.await.err().unwrap() };
    let (_, refused) = within(async { tokio::join!(accept, dial(nameless)) }).await;
    assert!(matches!(refused, Err(ClientError::Tls(_))), "{refused:?}");
}
