//! A collector of traces, which takes what is exported and lets a test wait for spans.

use std::net::SocketAddr;
use std::time::Duration;

use imks::testing::config::Config;
use imks::testing::telemetry::otlp::{Millis, Traces};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

pub struct Collector {
    pub addr: SocketAddr,
    exported: mpsc::Receiver<ExportTraceServiceRequest>,
    /// All spans so far.
    pub spans: Vec<Span>,
}

struct Service {
    exported: mpsc::Sender<ExportTraceServiceRequest>,
    /// How many spans of each batch it says that it does not take.
    rejects: i64,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let taken = self.exported.send(request.into_inner()).await;
        taken.map_err(|_| Status::unavailable("the test is over"))?;
        let partial =
            ExportTracePartialSuccess { rejected_spans: self.rejects, error_message: "too old".into() };
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success: (self.rejects > 0).then_some(partial),
        }))
    }
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_rejecting(0).await
    }

    /// Starts one that says of each batch that it does not take so many spans.
    pub async fn start_rejecting(rejects: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, exported) = mpsc::channel(1_024);
        let service = TraceServiceServer::new(Service { exported: sender, rejects });
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));
        Self { addr, exported, spans: Vec::new() }
    }

    /// Makes a server export its traces here.
    pub fn configure(&self, config: &mut Config) {
        config.otlp.traces_endpoint = Some(format!("http://{}", self.addr).into());
        config.otlp.traces = Traces::Otlp;
        config.otlp.traces_delay = Millis(Duration::from_millis(10));
    }

    /// Waits until `found` returns something of the spans so far.
    pub async fn wait_for<T>(&mut self, found: impl Fn(&[Span]) -> Option<T>) -> T {
        loop {
            if let Some(found) = found(&self.spans) {
                return found;
            }
            let more = timeout(Duration::from_secs(20), self.exported.recv()).await;
            let names: Vec<_> = self.spans.iter().map(|span| &*span.name).collect();
            let request = more.unwrap_or_else(|_| panic!("only {names:?}")).unwrap();
            self.take(request);
        }
    }

    /// Waits for `count` spans of this name in a trace.
    pub async fn named(&mut self, trace: &[u8], name: &str, count: usize) -> Vec<Span> {
        let of_trace = |spans: &[Span]| {
            let fits = |span: &&Span| span.trace_id == trace && span.name == name;
            let spans: Vec<Span> = spans.iter().filter(fits).cloned().collect();
            (spans.len() == count).then_some(spans)
        };
        self.wait_for(of_trace).await
    }

    /// Takes what has arrived. Nothing more comes from a server that has stopped.
    pub fn take_all(&mut self) -> &[Span] {
        while let Ok(request) = self.exported.try_recv() {
            self.take(request);
        }
        &self.spans
    }

    fn take(&mut self, request: ExportTraceServiceRequest) {
        let scopes = request.resource_spans.into_iter().flat_map(|it| it.scope_spans);
        self.spans.extend(scopes.flat_map(|it| it.spans));
    }
}

/// The text of an attribute.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let attribute = span.attributes.iter().find(|it| it.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

/// The id of a span as `traceparent` has it.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
