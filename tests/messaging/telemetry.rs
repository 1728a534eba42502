//! Metrics leave by OTLP, and a collector is never waited for.

use std::net::SocketAddr;
use std::time::Duration;

use imks::testing::telemetry::otlp::Millis;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};

use crate::server::{Kind, TestServer, first_channel};

/// Takes everything that is pushed.
struct Collector {
    addr: SocketAddr,
    pushed: mpsc::Receiver<Request<ExportMetricsServiceRequest>>,
}

struct Service(mpsc::Sender<Request<ExportMetricsServiceRequest>>);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.send(request).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, pushed) = mpsc::channel(16);
        let server =
            tonic::transport::Server::builder().add_service(MetricsServiceServer::new(Service(sender)));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(server.serve_with_incoming(incoming));
        Self { addr, pushed }
    }

    async fn next(&mut self) -> Request<ExportMetricsServiceRequest> {
        timeout(Duration::from_secs(10), self.pushed.recv()).await.expect("a push in time").unwrap()
    }
}

/// The sum of a counter over all values of its label, or the observations of a histogram.
fn count(request: &ExportMetricsServiceRequest, name: &str) -> u64 {
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let metric = metrics.iter().find(|metric| metric.name == name).expect(name);
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum.data_points.iter().map(|point| number(point.value)).sum(),
        Data::Histogram(histogram) => histogram.data_points.iter().map(|point| point.count).sum(),
        other => panic!("{other:?}"),
    }
}

fn number(value: Option<Number>) -> u64 {
    match value {
        Some(Number::AsInt(number)) => u64::try_from(number).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn server(collector: SocketAddr, interval: Duration) -> TestServer {
    TestServer::start_with(Kind::Sqlite, |config| {
        config.otlp.endpoint = Some(format!("http://{collector}").into());
        config.otlp.headers = Some("x-tenant=imks".into());
        config.otlp.metrics_interval = Millis(interval);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_pushed_at_intervals_with_histograms() {
    let mut collector = Collector::start().await;
    let server = server(collector.addr, Duration::from_millis(50)).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
    let request = loop {
        let request = collector.next().await;
        if count(request.get_ref(), "imks_messages_stored_total") > 0 {
            break request;
        }
    };
    assert_eq!(request.metadata().get("x-tenant").unwrap(), "imks");
    let request = request.into_inner();
    assert!(count(&request, "imks_event_duration_seconds") > 0);
    assert!(count(&request, "imks_append_batch_size") > 0);
    let attributes = &request.resource_metrics[0].resource.as_ref().unwrap().attributes;
    assert!(attributes.iter().any(|it| it.key == "service.name" && format!("{it:?}").contains("\"imks\"")));
    drop(collector);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_numbers_are_pushed_when_the_server_goes() {
    let mut collector = Collector::start().await;
    let server = server(collector.addr, Duration::from_secs(3600)).await;
    let alice = server.client("alice").await;
    server.stop().await;
    let request = collector.next().await.into_inner();
    assert!(count(&request, "imks_sessions_closed_total") > 0, "the session of the drain is counted");
    drop(alice);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_collector_does_not_hold_up_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = server(silent.local_addr().unwrap(), Duration::from_millis(50)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
