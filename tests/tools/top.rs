//! `imks top` in a terminal, on a pipe and for programs.

use std::process::Command;

use serde_json::Value;

use super::faults::Certificates;
use super::program::Program;
use super::run::{imks, imks_with};
use super::server::{Kind, TestServer};
use super::terminal::Terminal;

/// A server, its address and a key of a back end.
async fn server() -> (TestServer, String, String) {
    let server = TestServer::start(Kind::Sqlite).await;
    let url = format!("http://{}", server.addr());
    let directory = server.database().data_dir.to_str().unwrap().to_owned();
    let made = imks(&["key", "add", "top", "--scope", "read", "--data-dir", &directory]).await;
    let key = made.out.trim().to_owned();
    assert!(key.starts_with("imks_"), "{} {}", made.out, made.err);
    (server, url, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_are_shown_and_who_has_left_with_the_reason() {
    let (server, url, key) = server().await;
    let bob = server.client("bob").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(["top", &url, "--interval", "500ms"]).env_clear().env("IMKS_KEY", &key);
    let mut top = Terminal::start(command, 150, 20);
    let screen = top.sees("1 connection: 1 websocket");
    assert!(screen.contains("127.0.0.1:") && screen.contains("USER"), "{screen}");
    drop(bob);
    let screen = top.sees("nobody is connected");
    assert!(screen.contains("ago after"), "{screen}");
    top.sees("ended since the start: 1 transport_");
    assert!(screen.contains("s sorts: slowest"), "{screen}");
    top.press("s");
    top.sees("s sorts: trouble");
    top.press("q");
    assert!(top.ended().success());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_one_sample_is_printed() {
    let (server, url, key) = server().await;
    let _bob = server.client("bob").await;
    let ended = imks_with(&["top", &url], &[("IMKS_KEY", &key)], "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let lines: Vec<&str> = ended.out.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("bob ")), "people have names: {lines:?}");
    assert_eq!(lines[..2], [format!("imks top: {url}").as_str(), "1 connection: 1 websocket"]);
    let json = imks(&["top", &url, "--key", &key, "--json", "--count", "2", "--interval", "500ms"]).await;
    let samples: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(samples.len(), 2);
    let session = &samples[0]["sessions"][0];
    assert_eq!((session["transport"].as_str(), session["returns"].as_i64()), (Some("websocket"), Some(0)));
    assert_eq!(session["username"], "bob");
    assert_eq!(session["user_id"].as_str().unwrap().len(), 36, "{session}");
    assert_eq!(session["rtt_us"], 0, "there was no ping yet");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_a_wrong_address_are_told() {
    let (server, url, _) = server().await;
    let wrong = imks(&["top", &url, "--key", "imks_wrong"]).await;
    assert!(wrong.code != Some(0) && wrong.err.contains("imks key add"), "{:?} {}", wrong.code, wrong.err);
    server.stop().await;
    let hasty = imks(&["top", &url, "--key", "imks_wrong", "--interval", "499ms"]).await;
    assert!(hasty.code == Some(2) && hasty.err.contains("500ms"), "{:?} {}", hasty.code, hasty.err);
    let away = imks(&["top", &url, "--key", "imks_wrong"]).await;
    assert!(away.code == Some(1) && away.err.contains("imks doctor"), "{:?} {}", away.code, away.err);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_before_the_server_is_asked() {
    let url = "http://127.0.0.1:1";
    let never = imks(&["top", url, "--key", "imks_x", "--count", "0"]).await;
    assert_eq!(never.code, Some(2), "{}", never.err);
    let no_key = imks(&["top", url, "--key", "schlüssel"]).await;
    assert_eq!(no_key.code, Some(2), "{}", no_key.err);
    assert!(no_key.err.contains("imks key add") && !no_key.err.contains("schlüssel"), "{}", no_key.err);
    let user = imks(&["top", "http://u:hunter2@127.0.0.1:1", "--key", "imks_x"]).await;
    assert_eq!(user.code, Some(78), "{}", user.err);
    assert!(user.err.contains("no user") && !user.err.contains("hunter2"), "{}", user.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_reads_any_further_it_ends_and_says_nothing() {
    let (server, url, key) = server().await;
    for form in [&[][..], &["--json"]] {
        let options = ["top", &*url, "--key", &key, "--count", "1000000", "--interval", "500ms"];
        let top = Program::start(&[&options[..], form].concat()).read_no_further().await;
        assert_eq!((top.code, &*top.stderr), (Some(0), ""), "{form:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_is_told_and_trusted_with_its_authority() {
    let certificates = Certificates::new("localhost", 2120);
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        (config.tls.cert, config.tls.key) = (Some(certificates.file("crt")), Some(certificates.file("key")));
    })
    .await;
    let url = format!("https://localhost:{}", server.addr().port());
    let directory = server.database().data_dir.to_str().unwrap().to_owned();
    let key = imks(&["key", "add", "top", "--scope", "read", "--data-dir", &directory]).await.out;
    let wary = imks(&["top", &url, "--key", key.trim()]).await;
    assert!(wary.code == Some(1) && wary.err.contains("certificate"), "{:?} {}", wary.code, wary.err);
    let ca = certificates.file("ca");
    let trusting = imks(&["top", &url, "--key", key.trim(), "--ca", ca.to_str().unwrap()]).await;
    assert!(trusting.code == Some(0) && trusting.out.contains("nobody is connected"), "{}", trusting.err);
    server.stop().await;
}
