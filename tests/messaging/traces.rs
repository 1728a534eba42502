//! Traces leave by OTLP: from what a client says, through the server and its core, and back in the answer.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use imks::ImksResult;
use imks::extension::{Answer, AppEvent, EventHandler};
use imks::testing::application::Handler;
use imks::testing::config::Config;
use imks::testing::telemetry::metrics::{SPANS, SpanEnd};
use imks::testing::telemetry::otlp::{Millis, Ratio, Sampler, Traces};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::client::TestClient;
use crate::collector::{Collector, attribute, hex};
use crate::command_line::{imks, text};
use crate::core::{FakeCore, Mode};
use crate::core_outage::World;
use crate::http_request::send;
use crate::server::{Kind, TestServer, first_channel};

pub const TRACE: [u8; 16] = [0x4b; 16];
const SPAN: [u8; 8] = [0xb7; 8];

/// What a client sends whose trace is recorded, or not.
pub fn traceparent(trace: [u8; 16], is_sampled: bool) -> String {
    format!("00-{}-{}-0{}", hex(&trace), hex(&SPAN), u8::from(is_sampled))
}

fn message(channel: &str, traceparent: &str) -> Value {
    json!({ "channel_id": channel, "body": "hi", "meta": { "traceparent": traceparent } })
}

async fn server(collector: &Collector, edit: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(Kind::Sqlite, |config| {
        collector.configure(config);
        edit(config);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_one_trace_from_its_client_to_its_receivers() {
    let mut collector = Collector::start().await;
    let server = server(&collector, |_| {}).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    let answer = alice.call("message:send", message(&channel, &traceparent(TRACE, true))).await;
    assert_eq!(answer["ok"], true, "{answer}");

    let event = collector.named(&TRACE, "message:send", 1).await.remove(0);
    let permission = collector.named(&TRACE, "permission", 1).await.remove(0);
    let append = collector.named(&TRACE, "append", 1).await.remove(0);
    let deliver = collector.named(&TRACE, "deliver", 1).await.remove(0);
    assert_eq!(event.parent_span_id, SPAN, "a part of what the client does");
    assert_eq!((&permission.parent_span_id, &append.parent_span_id), (&event.span_id, &event.span_id));
    assert_eq!(deliver.parent_span_id, append.span_id);
    assert_eq!((event.kind(), deliver.kind()), (SpanKind::Server, SpanKind::Producer));
    for span in [&event, &permission, &append, &deliver] {
        assert_eq!(attribute(span, "imks.outcome").as_deref(), Some("ok"), "{span:?}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
    }
    assert_eq!(attribute(&deliver, "messaging.destination.name"), Some(channel));
    let meta = &answer["meta"];
    assert_eq!(attribute(&event, "imks.request_id").as_deref(), meta["request_id"].as_str());
    let ours = format!("00-{}-{}-01", hex(&TRACE), hex(&event.span_id));
    assert_eq!(meta["traceparent"], json!(ours), "the client learns the span of the server");
    server.stop().await;
}

/// The page that a reader of OpenMetrics gets.
async fn scrape(addr: SocketAddr) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.3";
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: imks\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stage_of_a_message_has_its_trace_as_an_example() {
    let mut collector = Collector::start().await;
    let server = server(&collector, |_| {}).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    alice.ok("message:send", message(&channel, &traceparent(TRACE, true))).await;
    collector.named(&TRACE, "deliver", 1).await;
    let page = scrape(server.addr()).await;
    assert!(page.contains("application/openmetrics-text; version=1.0.0"), "{page}");
    let example = format!(" # {{trace_id=\"{}\"}} ", hex(&TRACE));
    for stage in ["receive", "commit", "deliver"] {
        let of_stage = format!("imks_message_stage_seconds_bucket{{stage=\"{stage}\",");
        let is_shown = |line: &str| line.starts_with(&of_stage) && line.contains(&example);
        assert!(page.lines().any(is_shown), "{stage} has no example in:\n{page}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_the_outcome_of_its_span() {
    let mut collector = Collector::start().await;
    let server = server(&collector, |_| {}).await;
    let mut alice = server.client("alice").await;
    let mut wrong = message(&first_channel(&alice), &traceparent(TRACE, true));
    wrong["body"] = json!("");
    let refusal = alice.refused("message:send", wrong).await;
    let event = collector.named(&TRACE, "message:send", 1).await.remove(0);
    assert_eq!(attribute(&event, "imks.outcome").as_deref(), refusal["code"].as_str());
    assert_eq!(attribute(&event, "imks.request_id").as_deref(), refusal["request_id"].as_str());
    assert_eq!(event.status, None, "the mistake is the client's");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_and_a_request_over_http_are_in_the_trace_of_their_client() {
    let mut collector = Collector::start().await;
    let server = server(&collector, |_| {}).await;
    let token = server.token("alice").await;
    let mut alice = TestClient::open(server.addr()).await;
    alice.join(json!({ "token": &token, "traceparent": traceparent(TRACE, true) })).await.unwrap();
    let connect = collector.named(&TRACE, "socket.connect", 1).await.remove(0);
    assert_eq!(connect.parent_span_id, SPAN);
    let core = collector.wait_for(|spans| {
        spans.iter().find(|span| span.name == "core" && span.parent_span_id == connect.span_id).cloned()
    });
    assert_eq!(core.await.kind(), SpanKind::Client, "the directory is asked for the channels");

    let other = [0x5c; 16];
    let (bearer, parent) = (format!("Bearer {token}"), traceparent(other, true));
    let headers = [("authorization", &*bearer), ("traceparent", &*parent)];
    let answer = send(server.addr(), "GET /api/v1/bookmarks", &headers, "").await;
    let event = collector.named(&other, "bookmark:list", 1).await.remove(0);
    let ours = format!("00-{}-{}-01", hex(&other), hex(&event.span_id));
    assert_eq!(answer.body["meta"]["traceparent"], json!(ours));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_core_is_told_which_span_a_call_is_from() {
    let mut collector = Collector::start().await;
    let world = World::start(FakeCore::start().await, |config| collector.configure(config)).await;
    let user = world.user();
    let _alice = world.client(user).await;
    let method = "batch_get_effective";
    let is_call = |span: &&Span| attribute(span, "rpc.method").as_deref() == Some(method);
    let call = collector.wait_for(|spans| spans.iter().find(is_call).cloned()).await;
    let told = format!("00-{}-{}-01", hex(&call.trace_id), hex(&call.span_id));
    assert_eq!(world.core.traceparents(), [told]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sampling_nothing_is_exported_whatever_clients_ask_for() {
    let mut collector = Collector::start().await;
    let server = server(&collector, |config| {
        (config.otlp.sampler, config.otlp.sampler_ratio) = (Sampler::ParentOrRatio, Ratio(0.0));
    })
    .await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    for parent in [&*traceparent(TRACE, true), "nonsense", ""] {
        let answer = alice.call("message:send", message(&channel, parent)).await;
        assert_eq!((&answer["ok"], &answer["meta"]["traceparent"]), (&json!(true), &Value::Null));
    }
    server.stop().await;
    assert!(collector.take_all().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_trusted_decide_themselves_what_is_traced() {
    let mut collector = Collector::start().await;
    let server = server(&collector, |config| {
        config.otlp.sampler = Sampler::ParentOrAlwaysOff;
        config.otlp.trusts_clients = true;
    })
    .await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    for parent in [traceparent([1; 16], false), traceparent(TRACE, true), "nonsense".into()] {
        alice.ok("message:send", message(&channel, &parent)).await;
    }
    server.stop().await;
    assert!(collector.take_all().iter().all(|span| span.trace_id == TRACE));
    collector.named(&TRACE, "message:send", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_trusted_client_does_not_record_leaves_no_span_of_a_server_that_traces() {
    let mut collector = Collector::start().await;
    let server = server(&collector, |config| config.otlp.trusts_clients = true).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    let answer = alice.call("message:send", message(&channel, &traceparent(TRACE, false))).await;
    assert_eq!((&answer["ok"], &answer["meta"]["traceparent"]), (&json!(true), &Value::Null));
    let other = [0x5c; 16];
    alice.ok("message:send", message(&channel, &traceparent(other, true))).await;
    collector.named(&other, "deliver", 1).await;
    server.stop().await;
    let spans = collector.take_all();
    assert!(spans.iter().any(|span| span.name == "socket.connect"), "without a parent the server decides");
    assert!(spans.iter().all(|span| span.trace_id != TRACE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_that_is_held_up_is_one_span_with_what_it_waited_for() {
    let mut collector = Collector::start().await;
    let world = World::start(FakeCore::start().await, |config| collector.configure(config)).await;
    let user = world.user();
    world.core.mode(Mode::Unavailable);
    let mut late = TestClient::open(world.server.addr()).await;
    let auth = json!({ "token": world.token(user), "traceparent": traceparent(TRACE, true) });
    late.raw(&format!("40{auth}")).await;
    let failed = |spans: &[Span]| {
        let is_failed = |span: &&Span| outcome(span) == Some("unavailable".into()) && span.name == "core";
        spans.iter().find(is_failed).cloned()
    };
    let failed = collector.wait_for(failed).await;
    assert!(failed.status.is_some(), "the core is at fault: {failed:?}");
    world.core.mode(Mode::Normal);
    assert_eq!(late.event().await.0, "session:ready");
    let connect = collector.named(&TRACE, "socket.connect", 1).await.remove(0);
    assert_eq!((outcome(&connect), &connect.status), (Some("ok".into()), &None), "it was let in after all");
    assert_eq!(failed.parent_span_id, connect.span_id);
    assert!(connect.start_time_unix_nano <= failed.start_time_unix_nano);
    assert!(connect.end_time_unix_nano >= failed.end_time_unix_nano);
    world.server.stop().await;
}

/// An application that has a fault.
struct Panicking;

impl EventHandler for Panicking {
    async fn handle(&self, event: AppEvent) -> ImksResult<Answer> {
        if event.name == "app:later" {
            tokio::task::yield_now().await;
        }
        panic!("a fault of {}", event.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_has_a_span_that_says_so() {
    let mut collector = Collector::start().await;
    let handled = |config: &mut Config| config.application.handler = Some(Handler::new(Panicking));
    let server = server(&collector, handled).await;
    for (number, event) in [(1, "app:now"), (2, "app:later")] {
        let mut alice = server.client("alice").await;
        let trace = [number; 16];
        alice.emit(event, json!({ "meta": { "traceparent": traceparent(trace, true) } })).await;
        alice.ended().await;
        for name in ["app", "application"] {
            let span = collector.named(&trace, name, 1).await.remove(0);
            assert_eq!(outcome(&span).as_deref(), Some("internal"), "{span:?}");
            assert!(span.status.is_some(), "a panic is a fault of the server: {span:?}");
        }
    }
    server.stop().await;
}

/// `imks core` as a process of its own; killed when dropped.
struct CoreProcess {
    url: String,
    _child: Child,
    /// Open, so that it may say more.
    _said: Lines<BufReader<ChildStdout>>,
}

impl CoreProcess {
    async fn start(data: &str, collector: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
        command.args(["core", "--listen", "127.0.0.1:0", "--data-dir", data]).env_clear();
        command.env("IMKS_INTERNAL_LISTEN", "127.0.0.1:0").env("OTEL_SERVICE_NAME", "our-core");
        command.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("http://{collector}"));
        command.env("OTEL_TRACES_EXPORTER", "otlp").env("OTEL_BSP_SCHEDULE_DELAY", "10");
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = loop {
            let line = lines.next_line().await.unwrap().expect("the core says where it is");
            if let Some((_, url)) = line.split_once("IMKS_CORE_URL=") {
                break url.to_owned();
            }
        };
        Self { url, _child: child, _said: lines }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_of_its_own_joins_the_trace_of_the_server_that_asks_it() {
    let mut collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let token = imks(&["token", "alice", "--data-dir", data], &[]);
    let token = text(&token.stdout).trim().to_owned();
    let core = CoreProcess::start(data, collector.addr).await;
    let server = server(&collector, |config| config.core_url = Some(core.url.clone().into())).await;
    let mut alice = TestClient::open(server.addr()).await;
    alice.join(json!({ "token": &token, "traceparent": traceparent(TRACE, true) })).await.unwrap();
    let connect = collector.named(&TRACE, "socket.connect", 1).await.remove(0);
    // Each part of the core's is a part of one call of the server's.
    let pairs = |spans: &[Span]| {
        let named = |name| spans.iter().filter(move |span| span.name == name && span.trace_id == TRACE);
        let pairs: Vec<(Span, Span)> = named("directory")
            .filter_map(|part| {
                let call = named("core").find(|call| call.span_id == part.parent_span_id)?;
                Some((call.clone(), part.clone()))
            })
            .collect();
        (!pairs.is_empty()).then_some(pairs)
    };
    for (call, part) in collector.wait_for(pairs).await {
        assert_eq!(call.parent_span_id, connect.span_id, "{call:?}");
        assert_eq!((part.kind(), outcome(&part).as_deref()), (SpanKind::Server, Some("ok")), "{part:?}");
        let service = attribute(&part, "rpc.service").unwrap();
        assert!(service.starts_with("core.v1.") && attribute(&part, "rpc.method").is_some(), "{part:?}");
    }
    server.stop().await;
}

fn outcome(span: &Span) -> Option<String> {
    attribute(span, "imks.outcome")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_rejects_is_counted_as_lost_and_the_rest_as_exported() {
    let mut collector = Collector::start_rejecting(1).await;
    let (lost, exported) = (SPANS.of(SpanEnd::Lost).get(), SPANS.of(SpanEnd::Exported).get());
    let server = server(&collector, |config| {
        config.otlp.traces_delay = Millis(Duration::from_secs(3_600));
    })
    .await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    alice.ok("message:send", message(&channel, &traceparent(TRACE, true))).await;
    server.stop().await;
    let sent = u64::try_from(collector.take_all().len()).unwrap();
    assert_eq!(SPANS.of(SpanEnd::Lost).get() - lost, 1, "of one batch");
    assert_eq!(SPANS.of(SpanEnd::Exported).get() - exported, sent - 1);
}

async fn address_of_nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let away = address_of_nobody().await;
    let (lost, all) = (SPANS.of(SpanEnd::Lost).get(), SPANS.total());
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        config.otlp.traces_endpoint = Some(format!("http://{away}").into());
        config.otlp.traces = Traces::Otlp;
        config.otlp.traces_delay = Millis(Duration::from_secs(3_600));
        config.otlp.traces_queue = 4;
    })
    .await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    for _ in 0..50 {
        alice.ok("message:send", message(&channel, &traceparent(TRACE, true))).await;
    }
    server.stop().await;
    assert!(SPANS.of(SpanEnd::Lost).get() > lost, "what waited was tried once");
    // How many find room is up to the exporter, which takes up to a batch at once.
    let counted = SPANS.total() - all;
    assert!(counted >= 50 * 4, "each span is counted once: {counted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        config.otlp.traces_endpoint = Some(format!("http://{addr}").into());
        config.otlp.traces = Traces::Otlp;
        config.otlp.timeout = Millis(Duration::from_secs(3_600));
    })
    .await;
    let alice = server.client("alice").await;
    timeout(Duration::from_secs(20), server.stop()).await.expect("the end does not wait for the collector");
    drop(alice);
}
