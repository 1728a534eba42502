//! The dashboard and the alerts, with the metrics of a running server and with the tool of Prometheus.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::run::imks;
use super::server::{Kind, TestServer, first_channel};
use super::{done, file};

fn promtool() -> Command {
    Command::new(file("target/promtool/usr/bin/promtool"))
}

/// The queries of all panels.
fn queries() -> Vec<String> {
    let text = std::fs::read_to_string(file("deploy/grafana/imks.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let inner = panels.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    let targets =
        panels.iter().chain(inner).flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words.filter(|word| word.starts_with("imks_")).collect()
}

#[test]
fn prometheus_takes_the_alerts() {
    let checked = done(promtool().args(["check", "rules"]).arg(file("deploy/prometheus/imks.rules.yml")));
    assert!(checked.contains("rules found"), "{checked}");
}

#[test]
fn alerts_are_raised_when_something_fails_and_not_otherwise() {
    done(promtool().args(["test", "rules"]).arg(file("tests/deploy/alerts.yml")));
}

#[test]
fn prometheus_can_read_the_queries_of_every_panel() {
    let groups = queries().into_iter().enumerate().map(|(at, query)| {
        // What Grafana fills in.
        let query = query.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*");
        json!({ "record": format!("panel:{at}"), "expr": query })
    });
    let rules = json!({ "groups": [{ "name": "panels", "rules": groups.collect::<Vec<_>>() }] });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("panels.yml");
    std::fs::write(&path, rules.to_string()).unwrap();
    done(promtool().args(["check", "rules"]).arg(&path));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_exposes_every_metric_of_the_dashboard_and_of_the_alerts() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut client = server.client("ann").await;
    let channel = first_channel(&client);
    client.ok("message:send", json!({ "channel_id": channel, "body": "hello", "nonce": "1" })).await;
    // Calls of back ends have metrics when there has been one.
    let data = server.database().data_dir.to_str().unwrap().to_owned();
    let key = imks(&["key", "add", "watcher", "--scope", "read", "--data-dir", &data]).await.out;
    let missing = "/api/v1/admin/channels/00000000-0000-7000-8000-000000000000/messages";
    get(&server, missing, &format!("Authorization: Bearer {}\r\n", key.trim())).await;
    let page = get(&server, "/metrics", "").await;
    has_the_conventions_of_prometheus(page.split_once("\r\n\r\n").unwrap().1).await;
    let exposed = metrics(&page);
    let alerts = std::fs::read_to_string(file("deploy/prometheus/imks.rules.yml")).unwrap();
    let all = queries().join("\n") + &alerts;
    let hidden: Vec<_> = metrics(&all).into_iter().filter(|metric| !exposed.contains(metric)).collect();
    assert!(hidden.is_empty(), "{hidden:?} are not on /metrics");
    server.stop().await;
}

async fn has_the_conventions_of_prometheus(text: &str) {
    let mut check = tokio::process::Command::from(promtool());
    let mut check =
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let said = check.wait_with_output().await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

async fn get(server: &TestServer, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: imks\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
