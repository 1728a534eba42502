//! The dashboard and the alerts, with the metrics of a running server and with the tool of Prometheus.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::timeout;

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

/// A Prometheus that scrapes one server each second; ended when dropped.
struct Prometheus {
    addr: SocketAddr,
    _process: Child,
    directory: TempDir,
}

impl Prometheus {
    async fn start(server: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scraped = json!({ "job_name": "imks", "static_configs": [{ "targets": [server.to_string()] }] });
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
            "scrape_configs": [scraped],
        });
        let path = directory.path().join("prometheus.yml");
        std::fs::write(&path, config.to_string()).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        // Free a moment ago. If somebody else has it now, the process ends, and the test says why.
        let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let process = tokio::process::Command::new(file("target/promtool/usr/bin/prometheus"))
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus runs: `make test` gets it");
        Self { addr, _process: process, directory }
    }

    /// What it answers to a query, or why there is no answer.
    async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let body = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let kind = "Content-Type: application/x-www-form-urlencoded";
        let head = format!("POST /api/v1/query HTTP/1.0\r\nHost: prometheus\r\n{kind}\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let answer = exchange(self.addr, &request).await.map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let answer: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Err(answer.to_string()),
        }
    }

    /// Waits until it has scraped the server so often.
    async fn scrapes(&self, count: u32) {
        let enough = format!("count_over_time(up{{job=\"imks\"}}[1h]) >= {count} and up == 1");
        let scraped = async {
            while !self.query(&enough).await.is_ok_and(|found| !found.is_empty()) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let in_time = timeout(Duration::from_secs(60), scraped).await;
        let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        assert!(in_time.is_ok(), "the server was not scraped {count} times; the log:\n{}", log());
    }
}

/// The greatest of the numbers that a query has given.
fn greatest(found: &[Value]) -> f64 {
    let numbers = found.iter().map(|series| series["value"][1].as_str().unwrap().parse::<f64>().unwrap());
    numbers.fold(f64::NAN, f64::max)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_has_an_answer_of_a_prometheus_that_scrapes_a_running_server() {
    let server = TestServer::start(Kind::Sqlite).await;
    let prometheus = Prometheus::start(server.addr()).await;
    let mut ann = server.client("ann").await;
    let channel = first_channel(&ann);
    for scrapes in 1..=4 {
        let message = json!({ "channel_id": channel, "body": "hello", "nonce": scrapes.to_string() });
        ann.ok("message:send", message).await;
        ann.refused("message:send", json!({ "channel_id": channel, "body": "" })).await;
        ann.ok("history", json!({ "channel_id": channel })).await;
        call_of_a_back_end(&server, scrapes).await;
        prometheus.scrapes(scrapes).await;
    }
    let mut problems = Vec::new();
    for query in queries() {
        let filled =
            query.replace("$__rate_interval", "1m").replace("$job", "imks").replace("$instance", ".+");
        match prometheus.query(&filled).await {
            // Without a certificate it is about none.
            Ok(found) if found.is_empty() != query.contains("not_after") => {
                problems.push(format!("{query}: {found:?}"))
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("{query}: {error}")),
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    for (query, least) in [
        ("sum by (transport) (imks_sessions)", 1.0),
        ("sum(rate(imks_messages_stored_total[1m]))", f64::MIN_POSITIVE),
        ("sum by (kind) (rate(imks_event_errors_total[1m]))", f64::MIN_POSITIVE),
        (
            "histogram_quantile(0.99, sum by (le) (rate(imks_event_duration_seconds_bucket[1m])))",
            f64::MIN_POSITIVE,
        ),
        (
            "histogram_quantile(0.99, sum by (le, stage) (rate(imks_message_stage_seconds_bucket[1m])))",
            f64::MIN_POSITIVE,
        ),
        (
            "histogram_quantile(0.99, sum by (le) (rate(imks_append_commit_seconds_bucket[1m])))",
            f64::MIN_POSITIVE,
        ),
    ] {
        let found = prometheus.query(query).await.unwrap();
        assert!(greatest(&found) >= least, "{query}: {found:?}");
    }
    server.stop().await;
}

/// Calls of back ends have metrics when there has been one.
async fn call_of_a_back_end(server: &TestServer, number: u32) {
    let data = server.database().data_dir.to_str().unwrap().to_owned();
    let name = format!("watcher-{number}");
    let key = imks(&["key", "add", &name, "--scope", "read", "--data-dir", &data]).await.out;
    let missing = "/api/v1/admin/channels/00000000-0000-7000-8000-000000000000/messages";
    get(server, missing, &format!("Authorization: Bearer {}\r\n", key.trim())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_exposes_every_metric_of_the_dashboard_and_of_the_alerts() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut client = server.client("ann").await;
    let channel = first_channel(&client);
    client.ok("message:send", json!({ "channel_id": channel, "body": "hello", "nonce": "1" })).await;
    call_of_a_back_end(&server, 1).await;
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
    let request = format!("GET {path} HTTP/1.1\r\nHost: imks\r\nConnection: close\r\n{headers}\r\n");
    exchange(server.addr(), &request).await.unwrap()
}

async fn exchange(addr: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
