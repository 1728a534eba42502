//! The export of spans over OTLP (gRPC): in batches, from a bounded queue, and never waited for by a request.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Config, FLUSH, Reported, endpoint, headers, rejected, resource};
use crate::ImksResult;
use crate::node::NodeId;
use crate::secret::Secret;
use crate::telemetry::metrics::{self, SpanEnd};
use crate::telemetry::trace::SpanData;

/// The task that exports spans.
pub(super) struct Push {
    client: TraceServiceClient<Channel>,
    headers: MetadataMap,
    resource: Resource,
    ended: mpsc::Receiver<SpanData>,
    /// What is exported next.
    batch: Vec<SpanData>,
    timeout: Duration,
    delay: Duration,
    reported: Reported,
}

impl Push {
    /// Creates the task for the spans of a queue.
    pub(super) fn new(
        config: &Config,
        url: &Secret,
        node: NodeId,
        ended: mpsc::Receiver<SpanData>,
    ) -> ImksResult<Self> {
        Ok(Self {
            client: TraceServiceClient::new(endpoint(url, config)?.connect_lazy()),
            headers: headers(config.headers.as_ref())?,
            resource: (&resource(config, node)).into(),
            ended,
            batch: Vec::new(),
            timeout: config.timeout.0,
            delay: config.traces_delay.0,
            reported: Reported::new("traces"),
        })
    }

    /// Exports until `stop`, and then what has ended by then.
    pub(super) async fn run(&mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.gather()).await == Some(true) {
            self.export(self.timeout).await;
        }
        loop {
            let room = BATCH_MAX.saturating_sub(self.batch.len());
            self.batch.extend(std::iter::from_fn(|| self.ended.try_recv().ok()).take(room));
            if self.batch.is_empty() || !self.export(self.timeout.min(FLUSH)).await {
                break;
            }
        }
        metrics::SPANS.of(SpanEnd::Lost).add(self.ended.len() as u64);
    }

    /// Waits for a span, and then for more: until the batch is full, or the delay is over. Returns whether there can be
    /// more after it. Cancel safe.
    async fn gather(&mut self) -> bool {
        let Self { ended, batch, delay, .. } = self;
        if batch.is_empty() && ended.recv_many(batch, BATCH_MAX).await == 0 {
            return false;
        }
        let more = async {
            while batch.len() < BATCH_MAX && ended.recv_many(batch, BATCH_MAX - batch.len()).await > 0 {}
        };
        // It is over when either ends.
        let _ = timeout(*delay, more).await;
        true
    }

    /// Exports the batch, once. Returns whether the collector took it.
    async fn export(&mut self, limit: Duration) -> bool {
        let spans = std::mem::take(&mut self.batch);
        let count = spans.len() as u64;
        let outcome = timeout(limit, self.call(spans, limit)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let refusal = match &outcome {
            Err(status) => Err(status),
            Ok(Some(rejected)) => Err(&rejected.why),
            Ok(None) => Ok(()),
        };
        self.reported.note(refusal);
        let lost = match &outcome {
            Err(_) => count,
            Ok(rejected) => rejected.as_ref().map_or(0, |rejected| count.min(rejected.spans)),
        };
        metrics::SPANS.of(SpanEnd::Lost).add(lost);
        metrics::SPANS.of(SpanEnd::Exported).add(count - lost);
        outcome.is_ok()
    }

    /// Returns which of the spans the collector has rejected, if any.
    async fn call(&mut self, spans: Vec<SpanData>, limit: Duration) -> Result<Option<Rejected>, Status> {
        let of_scope = ScopeSpans {
            scope: Some(InstrumentationScope { name: "imks".into(), ..Default::default() }),
            spans,
            ..Default::default()
        };
        let of_resource = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![of_scope],
            ..Default::default()
        };
        let mut request = Request::new(ExportTraceServiceRequest { resource_spans: vec![of_resource] });
        *request.metadata_mut() = self.headers.clone();
        request.set_timeout(limit);
        let answer = self.client.export(request).await?.into_inner();
        Ok(answer.partial_success.and_then(|partial| {
            let spans = u64::try_from(partial.rejected_spans).ok().filter(|spans| *spans > 0)?;
            Some(Rejected { spans, why: rejected(&partial.error_message) })
        }))
    }
}

/// What a collector has not taken of a batch.
struct Rejected {
    spans: u64,
    why: Status,
}

/// The most spans in one export.
const BATCH_MAX: usize = 512;
