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

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn key_pem(made: &CertifiedKey<KeyPair>) -> String {
    pem("PRIVATE KEY", &made.signing_key.serialize_der())
}

#[tokio::test]
async fn a_server_is_trusted_by_its_root_or_its_hash_and_by_nothing_else() {
    let made = certificate("localhost");
    let folder = tempfile::tempdir().unwrap();
    let (cert, key): (PathBuf, PathBuf) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let chain = pem("CERTIFICATE", made.cert.der());
    std::fs::write(&cert, &chain).unwrap();
    std::fs::write(&key, key_pem(&made)).unwrap();
    let tls = tls::Config { cert: Some(cert), key: Some(key), ..tls::Config::default() };
    let server = Application::imks_with(engine::Config::default(), Some(tls)).await;
    let hash = *wtransport::tls::Certificate::from_der(made.cert.der().to_vec()).unwrap().hash().as_ref();
    let port = server.address.port();
    let own = || Tls::new().only_own_roots().root_pem(&chain).unwrap();
    let other = pem("CERTIFICATE", certificate("localhost").cert.der());

    for via in [Via::WebSocket, Via::Polling] {
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

#[tokio::test]
async fn a_client_proves_itself_with_its_certificate() {
    let (server, client) = (certificate("localhost"), certificate("client"));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(client.cert.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from(server.cert.der().to_vec())],
            PrivateKeyDer::try_from(server.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}", listener.local_addr().unwrap().port());
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let tls = Tls::new().only_own_roots().root_pem(pem("CERTIFICATE", server.cert.der())).unwrap();
    let tls = tls.identity_pem(pem("CERTIFICATE", client.cert.der()), key_pem(&client)).unwrap();
    let dial = Client::builder(&url).tls(tls).transports(Via::WebSocket.transports()).connect();
    // The server hangs up when it has seen who comes.
    let (shown, refused) = within(async { tokio::join!(accept, dial) }).await;
    assert_eq!(shown, client.cert.der().to_vec());
    assert!(matches!(refused, Err(ClientError::ConnectionFailed { .. })), "{refused:?}");
}
