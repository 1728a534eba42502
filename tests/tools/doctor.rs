//! `imks doctor` against servers that are well, and against every fault that it knows.

use std::time::Duration;

use imks::engine::config::{Cors, Origins};
use imks::http::webtransport;
use serde_json::Value;
use tokio::net::TcpListener;

use super::faults::{Certificates, Fault, proxy, tls};
use super::run::{Ended, imks, imks_with};
use super::server::{Kind, TestServer};

/// The check with this name.
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["status"].as_str().unwrap()
}

/// Asserts that a check has failed, and that what it means has this in it.
fn assert_fault(ended: &Ended, name: &str, means: &str) {
    let report = ended.json();
    assert_eq!((ended.code, report["ok"].as_bool()), (Some(1), Some(false)), "{report}");
    assert_eq!(status(&report, name), "failed", "{report}");
    let told = check(&report, name);
    assert!(told["means"].as_str().unwrap().contains(means), "{told}");
    assert!(!told["do"].as_str().unwrap().is_empty(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_well_passes_every_check_and_the_exit_code_is_0() {
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        let origins = Origins::List(vec!["https://page.example".into()]);
        config.engine.cors = Some(Cors { origins, ..Cors::default() });
    })
    .await;
    let (url, token) = (format!("http://{}", server.addr()), server.token("ann").await);
    let arguments =
        ["doctor", &url, "--channel", "general", "--origin", "https://page.example", "--watch", "1s"];
    let ended = imks_with(&arguments, &[("IMKS_TOKEN", &token)], "").await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.out, ended.err);
    assert!(
        ended.out.starts_with(&format!("imks doctor: {url}\n")) && !ended.out.contains(&token),
        "{}",
        ended.out
    );
    for name in [
        "tcp",
        "http",
        "polling",
        "websocket",
        "upgrade",
        "cors",
        "token",
        "sign-in",
        "broadcast",
        "members",
        "close",
    ] {
        let is_well = |line: &str| line.starts_with("ok ") && line.contains(&format!(" {name} "));
        assert!(ended.out.lines().any(is_well), "{name} is not well: {}", ended.out);
    }
    assert!(ended.out.trim_end().lines().last().unwrap().starts_with("All is well"), "{}", ended.out);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_the_doctor_are_seen_twice_and_deleted_at_once() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (format!("http://{}", server.addr()), server.token("ann").await);
    let ended = imks(&["doctor", &url, "--token", &token, "--channel", "general", "--json"]).await;
    let report = ended.json();
    assert_eq!(ended.code, Some(0), "{report}");
    for (name, found) in [
        ("send", "3 messages are stored"),
        ("receive", "all came as events, in their order"),
        ("broadcast", "a second connection got them too"),
        ("members", "1 online, this user among them"),
    ] {
        assert_eq!(check(&report, name)["found"], found, "{report}");
    }
    let mut client = server.client("bob").await;
    let channel = super::server::first_channel(&client);
    let history = client.ok("history", serde_json::json!({ "channel_id": channel })).await;
    let messages = history["messages"].as_array().unwrap();
    assert!(messages.len() == 3 && messages.iter().all(|it| !it["deleted_at"].is_null()), "{history}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tls_and_webtransport_passes_over_tcp_and_udp() {
    let certificates = Certificates::new("localhost", 2120);
    let server = with_tls(&certificates).await;
    let (url, ca) = (format!("https://localhost:{}", server.addr().port()), certificates.file("ca"));
    let ended = imks(&["doctor", &url, "--ca", ca.to_str().unwrap(), "--json"]).await;
    let report = ended.json();
    for name in ["tls", "http", "polling", "websocket", "upgrade", "webtransport"] {
        assert_eq!(status(&report, name), "ok", "{report}");
    }
    assert!(check(&report, "tls")["found"].as_str().unwrap().contains("localhost"), "{report}");
    server.stop().await;
}

async fn with_tls(certificates: &Certificates) -> TestServer {
    let (cert, key) = (certificates.file("crt"), certificates.file("key"));
    TestServer::start_with(Kind::Sqlite, |config| {
        (config.tls.cert, config.tls.key) = (Some(cert), Some(key));
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_certificate_is_examined_over_udp_too_and_its_port_for_quic() {
    // Nobody else takes a port of UDP meanwhile.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = socket.local_addr().unwrap();
    drop(socket);
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        config.webtransport.mode = webtransport::Mode::On;
        config.quic.listen = Some(listen);
    })
    .await;
    let (url, port) = (format!("http://{}", server.addr()), listen.port().to_string());
    let ended = imks(&["doctor", &url, "--quic", &port, "--json"]).await;
    let report = ended.json();
    assert_eq!(ended.code, Some(0), "{report}");
    for name in ["webtransport", "quic"] {
        assert_eq!(status(&report, name), "ok", "{report}");
    }
    let http3 = imks(&["doctor", &url, "--quic", &server.addr().port().to_string(), "--json"]).await;
    assert_fault(&http3, "quic", "none of the protocols");
    let silent = imks(&["doctor", &url, "--quic", "1", "--json"]).await;
    assert_fault(&silent, "quic", "nothing answers there");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_where_there_is_tls_and_a_wrong_path_are_told_once_with_the_right_address() {
    let certificates = Certificates::new("localhost", 2120);
    let server = with_tls(&certificates).await;
    let plain = imks(&["doctor", &format!("http://{}", server.addr()), "--json"]).await;
    assert_fault(&plain, "http", "speaks TLS");
    assert!(check(&plain.json(), "http")["do"].as_str().unwrap().contains("use https://"));
    assert_eq!(status(&plain.json(), "websocket"), "skipped");
    server.stop().await;
    let server = TestServer::start(Kind::Sqlite).await;
    let wrong = imks(&["doctor", &format!("http://{}/wrong", server.addr()), "--json"]).await;
    assert_fault(&wrong, "http", "path");
    assert_eq!(status(&wrong.json(), "websocket"), "skipped");
    assert_eq!(check(&wrong.json(), "websocket")["found"], "nothing of Socket.IO is at this path");
    server.stop().await;
}

#[tokio::test]
async fn a_closed_port_is_told_and_what_depends_on_it_is_skipped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ended = imks(&["doctor", &url, "--json"]).await;
    assert_fault(&ended, "tcp", "nothing listens");
    for later in ["http", "websocket", "sign-in", "close"] {
        assert_eq!(status(&ended.json(), later), "skipped");
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told() {
    let ended = imks(&["doctor", "https://nobody.invalid", "--json"]).await;
    assert_fault(&ended, "dns", "no address is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_told() {
    let certificates = Certificates::new("chat.example", 2120);
    let server = with_tls(&certificates).await;
    let url = format!("https://localhost:{}", server.addr().port());
    let ended = imks(&["doctor", &url, "--ca", certificates.file("ca").to_str().unwrap(), "--json"]).await;
    assert_fault(&ended, "tls", "other names than localhost");
    assert!(check(&ended.json(), "tls")["found"].as_str().unwrap().contains("for chat.example"));
    let untrusted =
        imks(&["doctor", &url, "--json", "--ca", Certificates::new("x", 2120).file("ca").to_str().unwrap()])
            .await;
    assert_eq!(untrusted.code, Some(1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_told() {
    let certificates = Certificates::new("localhost", 2021);
    let url = format!("https://localhost:{}", tls(&certificates).await.port());
    let ended = imks(&["doctor", &url, "--ca", certificates.file("ca").to_str().unwrap(), "--json"]).await;
    assert_fault(&ended, "tls", "has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_drops_the_upgrade_headers_is_told_with_its_setting() {
    let server = TestServer::start(Kind::Sqlite).await;
    let url = format!("http://{}", proxy(server.addr(), Fault::DropsUpgrade).await);
    let ended = imks(&["doctor", &url, "--json"]).await;
    assert_fault(&ended, "websocket", "without its headers Upgrade and Connection");
    let report = ended.json();
    assert!(check(&report, "websocket")["do"].as_str().unwrap().contains("proxy_set_header Upgrade"));
    assert_eq!((status(&report, "polling"), status(&report, "upgrade")), ("ok", "skipped"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_buffers_is_told() {
    let server = TestServer::start(Kind::Sqlite).await;
    let url = format!("http://{}", proxy(server.addr(), Fault::Buffers).await);
    let ended = imks(&["doctor", &url, "--json"]).await;
    assert_fault(&ended, "polling", "buffers");
    assert_fault(&ended, "websocket", "buffers");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cuts_quiet_connections_is_told_to_who_watches() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) =
        (format!("http://{}", proxy(server.addr(), Fault::CutsQuiet).await), server.token("ann").await);
    let ended = imks(&["doctor", &url, "--token", &token, "--watch", "30s", "--json"]).await;
    assert_fault(&ended, "watch", "cuts connections on which nothing happens");
    let report = ended.json();
    assert!(check(&report, "watch")["do"].as_str().unwrap().contains("idle time of the proxy"), "{report}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_told_before_and_by_the_server() {
    let server = TestServer::start_with(Kind::Sqlite, |config| config.token.leeway = Duration::ZERO).await;
    let user = server.directory().ensure_development("ann").await.unwrap();
    let token = server.directory().issue_token(&user, Duration::from_secs(1)).await.unwrap();
    let mut client = super::client::TestClient::connect(server.addr(), &token).await;
    // The server ends the session by itself; only then is the token certainly over.
    client.expect("auth:expired").await;
    let url = format!("http://{}", server.addr());
    let ended = imks(&["doctor", &url, "--token", &token, "--json"]).await;
    assert_fault(&ended, "token", "refuses it");
    assert_fault(&ended, "sign-in", "expired");
    let forged = imks(&["doctor", &url, "--token", "secret", "--json"]).await;
    assert_fault(&forged, "sign-in", "key is not known");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_may_not_connect_is_told() {
    let server = TestServer::start(Kind::Sqlite).await;
    let url = format!("http://{}", server.addr());
    let ended = imks(&["doctor", &url, "--origin", "https://page.example", "--json"]).await;
    assert_fault(&ended, "cors", "pages of https://page.example");
    assert!(check(&ended.json(), "cors")["do"].as_str().unwrap().contains("IMKS_CORS_ORIGINS"));
    server.stop().await;
}

#[tokio::test]
async fn another_program_on_the_port_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = tokio_util::task::TaskTracker::new();
    answering.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"SSH-2.0-OpenSSH_9.6\r\n";
            // Whoever connects may be gone already.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
        }
    });
    let ended = imks(&["doctor", &url, "--json"]).await;
    assert_fault(&ended, "http", "does not speak HTTP");
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_examined_and_nothing_is_left_in_them() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let server = TestServer::start(kind).await;
        let url = match &server.database().url {
            Some(url) => url.expose().to_owned(),
            None => format!("sqlite:{}", server.database().data_dir.join("imks.db").display()),
        };
        let ended = imks(&["doctor", "--database", &url, "--json"]).await;
        let report = ended.json();
        assert_eq!(ended.code, Some(0), "{report}");
        for name in ["reachable", "version", "migrations", "write"] {
            assert_eq!(status(&report, name), "ok", "{report}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_database_without_tables_or_without_a_server_is_told() {
    let empty = super::postgres::create().await;
    let ended = imks(&["doctor", "--database", &empty, "--json"]).await;
    assert_fault(&ended, "migrations", "none yet");
    assert_eq!(status(&ended.json(), "write"), "skipped");
    let away = imks(&["doctor", "--database", "postgres://im:hunter2@127.0.0.1:1/imks", "--json"]).await;
    assert_fault(&away, "reachable", "does not start");
    let told = away.json();
    let (found, took) =
        (check(&told, "reachable")["found"].as_str().unwrap(), &check(&told, "reachable")["took_ms"]);
    assert!(found.contains("127.0.0.1:1") && found.contains("Connection refused"), "{found}");
    assert!(
        took.as_f64().unwrap() < 5_000.0,
        "a start of the server waits so long, and this does not: {told}"
    );
    assert!(!away.out.contains("hunter2"), "{}", away.out);
    let missing = imks(&["doctor", "--database", "sqlite:/nowhere/imks.db", "--json"]).await;
    assert_fault(&missing, "reachable", "no server has run");
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("imks.db");
    std::fs::write(&text, "nothing of SQLite ".repeat(1_000)).unwrap();
    let text = imks(&["doctor", "--database", &format!("sqlite:{}", text.display()), "--json"]).await;
    assert_fault(&text, "reachable", "does not start");
    let advice = check(&text.json(), "reachable")["do"].to_string();
    assert!(advice.contains("the file of a server") && !advice.contains("pg_hba"), "{advice}");
}

#[tokio::test]
async fn brokers_are_examined() {
    let of = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let redis = of("IMKS_TEST_REDIS_URL", "redis://127.0.0.1:6379");
    let ended = imks(&["doctor", "--redis", &redis, "--prefix", "nobody", "--json"]).await;
    let report = ended.json();
    for name in ["reachable", "probe", "version", "members"] {
        assert_eq!(status(&report, name), "ok", "{report}");
    }
    let nats = of("IMKS_TEST_NATS_URL", "nats://127.0.0.1:4222");
    let ended = imks(&["doctor", "--nats", &nats, "--json"]).await;
    let report = ended.json();
    assert_eq!(ended.code, Some(0), "{report}");
    assert!(check(&report, "version")["found"].as_str().unwrap().starts_with("NATS "), "{report}");
    let away = imks(&["doctor", "--redis", "redis://:hunter2@127.0.0.1:1", "--json"]).await;
    assert_fault(&away, "reachable", "works alone");
    assert!(!away.out.contains("hunter2"));
    let report = away.json();
    let told = check(&report, "reachable");
    let found = told["found"].as_str().unwrap();
    assert!(found.contains("refused") && !found.contains("Os {"), "{found}");
    assert!(told["took_ms"].as_f64().unwrap() < 4_000.0, "nothing is waited for: {told}");
}

#[tokio::test]
async fn a_command_line_without_a_server_is_refused_with_2() {
    assert_eq!(imks(&["doctor"]).await.code, Some(2));
    assert_eq!(imks(&["doctor", "http://a", "--redis", "redis://a"]).await.code, Some(2));
    assert_eq!(imks(&["doctor", "http://a", "--origin", "not an origin"]).await.code, Some(2));
    assert_eq!(imks(&["doctor", "http://a", "--quic", "0"]).await.code, Some(2));
    for option in [["--watch", "3s"], ["--channel", "general"]] {
        let refused = imks(&[&["doctor", "http://a"][..], &option].concat()).await;
        assert!(refused.code == Some(2) && refused.err.contains("--token"), "{option:?}: {}", refused.err);
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_78_and_its_password_is_not_shown() {
    for arguments in [
        &["doctor", "chat.example"][..],
        &["doctor", "http://u:hunter2@127.0.0.1:1"],
        &["doctor", "--redis", "http://u:hunter2@cache:6379"],
        &["doctor", "--nats", "http://u:hunter2@broker:4222"],
        &["doctor", "--nats", "foo"],
        &["doctor", "--nats", ""],
        &["doctor", "--database", "mysql://u:hunter2@db/imks"],
        &["doctor", "--database", "postgres://u:hunter2@db:99999/imks"],
    ] {
        let ended = imks(arguments).await;
        assert_eq!(ended.code, Some(78), "{arguments:?}: {}", ended.err);
        assert!(!format!("{}{}", ended.out, ended.err).contains("hunter2"), "{arguments:?}: {}", ended.err);
    }
}
