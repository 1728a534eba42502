//! `imks certificate`: a server with what it makes, and clients that trust it.

use std::os::unix::fs::PermissionsExt;

use super::run::imks;
use super::server::{Kind, TestServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_development_is_trusted_by_who_trusts_its_authority_and_by_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("certs");
    let (path, file) = (certs.to_str().unwrap().to_owned(), |name: &str| certs.join(name));
    let made = imks(&["certificate", "--dir", &path]).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert!(made.out.contains("localhost, 127.0.0.1, ::1"), "{}", made.out);
    let rights = std::fs::metadata(file("key.pem")).unwrap().permissions().mode();
    assert_eq!(rights & 0o777, 0o600, "the key is for its owner");
    let again = imks(&["certificate", "--dir", &path]).await;
    assert_eq!(again.code, Some(78), "nothing is overwritten: {}", again.out);

    let server = TestServer::start_with(Kind::Sqlite, |config| {
        (config.tls.cert, config.tls.key) = (Some(file("cert.pem")), Some(file("key.pem")));
    })
    .await;
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}", server.addr().port());
        let trusting = imks(&["doctor", &url, "--ca", file("ca.pem").to_str().unwrap()]).await;
        assert_eq!(trusting.code, Some(0), "{}", trusting.out);
        for name in ["tls", "websocket", "webtransport"] {
            let is_well = |line: &str| line.starts_with("ok ") && line.contains(&format!(" {name} "));
            assert!(trusting.out.lines().any(is_well), "{name}: {}", trusting.out);
        }
        let wary = imks(&["doctor", &url]).await;
        assert!(wary.code == Some(1) && wary.out.contains("self-signed"), "{}", wary.out);
    }
    let older = directory.path().join("older");
    assert_eq!(imks(&["certificate", "--dir", older.to_str().unwrap()]).await.code, Some(0));
    let url = format!("https://localhost:{}", server.addr().port());
    let other = imks(&["doctor", &url, "--ca", older.join("ca.pem").to_str().unwrap()]).await;
    assert!(other.code == Some(1) && other.out.contains("belongs to this certificate"), "{}", other.out);
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_no_server_can_have_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    for name in ["münchen.example", "a b", "", "https://a.example", "a.example:443", "*."] {
        let refused = imks(&["certificate", "--dir", path.to_str().unwrap(), "--name", name]).await;
        assert_eq!(refused.code, Some(78), "{name:?} {}", refused.out);
        assert!(refused.err.contains("name"), "{name:?} {}", refused.err);
    }
    assert!(!path.exists());
    let names = ["--name", "*.chat.example", "--name", "2001:db8::1", "--name", "chat_1"];
    let made = imks(&[&["certificate", "--dir", path.to_str().unwrap()][..], &names].concat()).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
}
