//! The export of metrics and traces over OTLP (gRPC) to a collector, at intervals and at shutdown.

mod request;
mod traces;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_sdk::Resource;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use self::request::Source;
use super::Catalog;
use super::metrics::{self, Export};
use super::trace::{Sampling, Tracer};
use crate::node::NodeId;
use crate::secret::Secret;
use crate::{ImksError, ImksResult};

/// The settings of the export. The names are those of the OpenTelemetry specification.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether nothing is exported, whatever else is set.
    pub disabled: bool,
    /// How collectors are spoken to.
    pub protocol: Protocol,
    /// The collector of all signals. Without any collector, nothing is exported.
    pub endpoint: Option<Secret>,
    /// The collector of metrics, if it is a different one.
    pub metrics_endpoint: Option<Secret>,
    /// The collector of traces, if it is a different one.
    pub traces_endpoint: Option<Secret>,
    /// The headers of each call, as `name=value`.
    pub headers: Option<Secret>,
    /// The timeout of one call.
    pub timeout: Millis,
    /// The time between two calls.
    pub metrics_interval: Millis,
    /// The name of this service; `imks` if neither this nor `OTEL_RESOURCE_ATTRIBUTES` sets one.
    pub service_name: Option<String>,
    /// Whether traces are exported.
    pub traces: Traces,
    /// Which requests are traced.
    pub sampler: Sampler,
    /// The share of the requests that are traced, for the samplers that have one.
    pub sampler_ratio: Ratio,
    /// Whether clients are trusted to decide which of their requests are traced.
    pub trusts_clients: bool,
    /// How long an ended span waits for others to be exported with.
    pub traces_delay: Millis,
    /// The most ended spans that wait for the exporter.
    pub traces_queue: usize,
}

/// How collectors are spoken to. Collectors that listen for the other forms of OTLP listen for this one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
}

/// Whether traces are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traces {
    /// There are none.
    Off,
    /// They go to the collector.
    Otlp,
}

/// Which requests are traced, with the names of the OpenTelemetry specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share of them.
    Ratio,
    /// Those whose trusted parent is, and all without one.
    ParentOrAlwaysOn,
    /// Those whose trusted parent is, and none without one.
    ParentOrAlwaysOff,
    /// Those whose trusted parent is, and a share of those without one.
    ParentOrRatio,
}

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(pub f64);

impl Default for Config {
    fn default() -> Self {
        Self {
            disabled: false,
            protocol: Protocol::Grpc,
            endpoint: None,
            metrics_endpoint: None,
            traces_endpoint: None,
            headers: None,
            timeout: Millis(Duration::from_secs(10)),
            metrics_interval: Millis(Duration::from_secs(60)),
            service_name: None,
            traces: Traces::Off,
            sampler: Sampler::ParentOrAlwaysOn,
            sampler_ratio: Ratio(1.0),
            trusts_clients: false,
            traces_delay: Millis(Duration::from_secs(5)),
            traces_queue: 2_048,
        }
    }
}

/// A duration that the specification gives in milliseconds without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(pub Duration);

impl Config {
    /// Checks that the settings can work.
    ///
    /// # Errors
    /// [`ImksError::Config`] that names the variable, without any part of its value that may be a password.
    pub fn validate(&self) -> ImksResult<()> {
        for url in [&self.endpoint, &self.metrics_endpoint, &self.traces_endpoint].into_iter().flatten() {
            endpoint(url, self)?;
        }
        if self.traces == Traces::Otlp && !self.disabled && self.collector_of_traces().is_none() {
            return Err(ImksError::Config(TRACES_NOWHERE.into()));
        }
        if self.traces_queue == 0 || self.traces_queue > QUEUE_MAX {
            return Err(ImksError::Config(QUEUE_RULE.into()));
        }
        if self.metrics_interval.0.is_zero() || self.timeout.0.is_zero() {
            return Err(ImksError::Config(TIMES_POSITIVE.into()));
        }
        headers(self.headers.as_ref()).map(drop)
    }

    fn collector_of_metrics(&self) -> Option<&Secret> {
        self.metrics_endpoint.as_ref().or(self.endpoint.as_ref()).filter(|_| !self.disabled)
    }

    fn collector_of_traces(&self) -> Option<&Secret> {
        self.traces_endpoint.as_ref().or(self.endpoint.as_ref()).filter(|_| !self.disabled)
    }

    /// Returns which requests are traced.
    fn sampling(&self) -> Sampling {
        let (ratio, parent_based) = match self.sampler {
            Sampler::AlwaysOn => (1.0, false),
            Sampler::AlwaysOff => (0.0, false),
            Sampler::Ratio => (self.sampler_ratio.0, false),
            Sampler::ParentOrAlwaysOn => (1.0, true),
            Sampler::ParentOrAlwaysOff => (0.0, true),
            Sampler::ParentOrRatio => (self.sampler_ratio.0, true),
        };
        Sampling { ratio, parent_based, trusts_clients: self.trusts_clients }
    }
}

/// Work that can begin again after a panic. It ends by itself when it is told to stop.
pub type Work = Box<dyn Fn(CancellationToken) -> Running + Send + Sync>;

/// A task that runs.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How background tasks are kept running in this process: by their name, until they end.
pub type Keep = fn(&'static str, CancellationToken, Work) -> Running;

/// A handle to the tasks that export.
#[derive(Debug)]
pub struct Exporter {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Exporter {
    /// Starts to export `catalog`, and the traces for which there is a tracer, if the configuration names a collector.
    /// The collector need not be reachable yet. `keep` runs the tasks.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the endpoint or the headers cannot be used.
    pub fn start(
        config: &Config,
        node: NodeId,
        catalog: Catalog,
        keep: Keep,
    ) -> ImksResult<(Option<Self>, Option<Tracer>)> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        if let Some(url) = config.collector_of_metrics() {
            let push = Push {
                client: MetricsServiceClient::new(endpoint(url, config)?.connect_lazy()),
                headers: headers(config.headers.as_ref())?,
                source: Source::new(&resource(config, node), catalog),
                timeout: config.timeout.0,
                reported: Reported::new("metrics"),
            };
            let (push, interval) = (Arc::new(Mutex::new(push)), config.metrics_interval.0);
            let begin = move |stop| {
                let push = push.clone();
                Box::pin(async move { push.lock().await.run(interval, stop).await }) as Running
            };
            tasks.spawn(keep("metrics", stop.clone(), Box::new(begin)));
        }
        let sampling = config.sampling();
        let mut tracer = None;
        if let Some(url) = config.collector_of_traces()
            && config.traces == Traces::Otlp
            && sampling.is_on()
        {
            let (ended_in, ended) = mpsc::channel(config.traces_queue);
            let push = Arc::new(Mutex::new(traces::Push::new(config, url, node, ended)?));
            let begin = move |stop| {
                let push = push.clone();
                Box::pin(async move { push.lock().await.run(stop).await }) as Running
            };
            tasks.spawn(keep("traces", stop.clone(), Box::new(begin)));
            tracer = Some(Tracer::new(sampling, ended_in));
        }
        tasks.close();
        let exporter = (!tasks.is_empty()).then_some(Self { tasks, stop });
        Ok((exporter, tracer))
    }

    /// Exports the last numbers and spans, and stops. Waits at most two seconds for the collector.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        if timeout(FLUSH, self.tasks.wait()).await.is_err() {
            tracing::warn!("the collector did not take the last metrics or spans in time");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Whether a collector takes what it is sent. Only the first of several failures is logged as a warning.
struct Reported {
    what: &'static str,
    failing: bool,
}

impl Reported {
    fn new(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    fn note(&mut self, outcome: Result<(), &Status>) {
        let what = self.what;
        match &outcome {
            Ok(()) if self.failing => tracing::info!("{what} are exported again"),
            Ok(()) => {}
            Err(status) if self.failing => {
                tracing::debug!(code = ?status.code(), "{what} were not exported");
            }
            Err(status) => {
                tracing::warn!(code = ?status.code(), reason = status.message(), "{what} are not exported");
            }
        }
        self.failing = outcome.is_err();
    }
}

/// The state of the task that exports metrics.
struct Push {
    client: MetricsServiceClient<Channel>,
    headers: MetadataMap,
    source: Source,
    timeout: Duration,
    reported: Reported,
}

impl Push {
    async fn run(&mut self, interval: Duration, stop: CancellationToken) {
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let rounds = async {
            loop {
                ticks.tick().await;
                self.export(self.timeout).await;
            }
        };
        stop.run_until_cancelled(rounds).await;
        self.export(self.timeout.min(FLUSH)).await;
    }

    async fn export(&mut self, limit: Duration) {
        let outcome = timeout(limit, self.call(limit)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        metrics::EXPORTS.of(if outcome.is_ok() { Export::Succeeded } else { Export::Failed }).increment();
        self.reported.note(outcome.as_ref().copied());
    }

    async fn call(&mut self, limit: Duration) -> Result<(), Status> {
        let mut request = Request::new(self.source.request());
        *request.metadata_mut() = self.headers.clone();
        request.set_timeout(limit);
        let answer = self.client.export(request).await?.into_inner();
        match answer.partial_success {
            Some(partial) if partial.rejected_data_points > 0 => Err(rejected(&partial.error_message)),
            _ => Ok(()),
        }
    }
}

/// Returns what a collector says that rejects a part of what it was sent. Its words are cut: it may say anything.
fn rejected(why: &str) -> Status {
    let end = why.char_indices().nth(REASON_CHARS_MAX).map_or(why.len(), |(end, _)| end);
    Status::data_loss(format!("the collector rejected a part of them: {}", &why[..end]))
}

fn endpoint(url: &Secret, config: &Config) -> ImksResult<Endpoint> {
    let wrong = || ImksError::Config(format!("The OTLP endpoint {url} must look like http://collector:4317"));
    let text = url.expose();
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err(wrong());
    }
    let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|_| wrong())?;
    let endpoint = endpoint.connect_timeout(config.timeout.0);
    if text.starts_with("https://") {
        return endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots()).map_err(|_| wrong());
    }
    Ok(endpoint)
}

/// Parses `name=value,name=value`; values may be percent-encoded.
fn headers(text: Option<&Secret>) -> ImksResult<MetadataMap> {
    let mut headers = MetadataMap::new();
    let pairs =
        text.map(Secret::expose).unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty());
    for pair in pairs {
        let (name, value) = pair.split_once('=').ok_or_else(wrong_headers)?;
        let value =
            percent_encoding::percent_decode_str(value.trim()).decode_utf8().map_err(|_| wrong_headers())?;
        let name = name.trim().to_ascii_lowercase();
        let name = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| wrong_headers())?;
        headers.insert(name, MetadataValue::try_from(&*value).map_err(|_| wrong_headers())?);
    }
    Ok(headers)
}

/// Returns the error for invalid headers. It contains no part of them, because one is most likely a password.
fn wrong_headers() -> ImksError {
    ImksError::Config("OTEL_EXPORTER_OTLP_HEADERS must look like name=value,name=value".into())
}

/// Returns the resource that the numbers belong to. Each process is a separate instance, because its counters
/// start at zero.
fn resource(config: &Config, node: NodeId) -> Resource {
    let detected = Resource::builder().build();
    let named = |name: &opentelemetry::Value| !name.as_str().starts_with("unknown_service");
    let is_named = detected.get(&"service.name".into()).is_some_and(|name| named(&name));
    let default = (!is_named).then(|| "imks".to_owned());
    let mut builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.to_string()),
    ]);
    if let Some(name) = config.service_name.clone().or(default) {
        builder = builder.with_service_name(name);
    }
    builder.build()
}

const TIMES_POSITIVE: &str =
    "OTEL_METRIC_EXPORT_INTERVAL and OTEL_EXPORTER_OTLP_TIMEOUT must be longer than 0";
const TRACES_NOWHERE: &str =
    "OTEL_TRACES_EXPORTER=otlp needs OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const QUEUE_RULE: &str = "OTEL_BSP_MAX_QUEUE_SIZE must be from 1 to 1000000";
/// The most spans that may be allowed to wait for the exporter.
const QUEUE_MAX: usize = 1_000_000;
/// The longest reason of a collector that is logged, in characters.
const REASON_CHARS_MAX: usize = 256;
/// The longest time that the end of the process waits for the collector.
const FLUSH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_bytes([1, 2, 3, 4, 5]);

    /// Runs work without looking after it.
    fn once(_: &'static str, stop: CancellationToken, work: Work) -> Running {
        work(stop)
    }

    #[test]
    fn what_a_collector_says_is_cut_between_characters() {
        assert_eq!(rejected("no room").message(), "the collector rejected a part of them: no room");
        let long = rejected(&"é".repeat(10_000));
        assert!(long.message().ends_with("é") && long.message().chars().count() < 2 * REASON_CHARS_MAX);
    }

    #[test]
    fn headers_are_read_and_wrong_ones_are_not_told() {
        let read = headers(Some(&"Authorization=Basic%20aGk6eW91, x-tenant = a ".into())).unwrap();
        assert_eq!(read.get("authorization").unwrap(), "Basic aGk6eW91");
        assert_eq!(read.get("x-tenant").unwrap(), "a");
        assert!(headers(None).unwrap().is_empty());
        for wrong in ["hunter2", "na me=hunter2", "name=hunter2%00", "name=%ffhunter2"] {
            let told = headers(Some(&wrong.into())).unwrap_err().to_string();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_cannot_be_used_is_refused_without_its_password() {
        let config = Config { endpoint: Some("http://user:hunter2@a b".into()), ..Config::default() };
        assert!(Exporter::start(&config, NODE, &[], once).is_err());
        let traces = Config { traces_endpoint: config.endpoint.clone(), ..Config::default() };
        assert!(traces.validate().is_err());
        let told = config.validate().unwrap_err().to_string();
        assert!(told.contains("OTLP endpoint") && !told.contains("hunter2"), "{told}");
        let (exporter, tracer) = Exporter::start(&Config::default(), NODE, &[], once).unwrap();
        assert!(exporter.is_none() && tracer.is_none());
    }

    #[tokio::test]
    async fn traces_are_off_unless_they_are_asked_for_and_something_is_sampled() {
        let quiet = Config { endpoint: Some("http://127.0.0.1:1".into()), ..Config::default() };
        let traced = Config { traces: Traces::Otlp, ..quiet.clone() };
        let none = Config { sampler: Sampler::ParentOrRatio, sampler_ratio: Ratio(0.0), ..traced.clone() };
        for (config, is_on) in [(quiet, false), (traced.clone(), true), (none, false)] {
            assert_eq!(Exporter::start(&config, NODE, &[], once).unwrap().1.is_some(), is_on, "{config:?}");
        }
        assert!(Config { endpoint: None, ..traced.clone() }.validate().is_err());
        let disabled = Config { disabled: true, ..traced.clone() };
        let (exporter, tracer) = Exporter::start(&disabled, NODE, &[], once).unwrap();
        assert!(exporter.is_none() && tracer.is_none() && disabled.validate().is_ok());
        assert!(Config { traces_queue: 0, ..traced.clone() }.validate().is_err());
        assert!(traced.validate().is_ok());
    }
}
