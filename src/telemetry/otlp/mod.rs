//! The export of metrics over OTLP (gRPC) to a collector, at intervals and at shutdown.

mod request;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_sdk::Resource;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use self::request::Source;
use super::Catalog;
use super::metrics::{self, Export};
use crate::node::NodeId;
use crate::secret::Secret;
use crate::{ImksError, ImksResult};

/// The settings of the export. The names are those of the OpenTelemetry specification.
#[derive(Debug, Clone)]
pub struct Config {
    /// The collector of all signals. Without any collector, nothing is exported.
    pub endpoint: Option<Secret>,
    /// The collector of metrics, if it is a different one.
    pub metrics_endpoint: Option<Secret>,
    /// The headers of each call, as `name=value`.
    pub headers: Option<Secret>,
    /// The timeout of one call.
    pub timeout: Millis,
    /// The time between two calls.
    pub metrics_interval: Millis,
    /// The name of this service; `imks` if neither this nor `OTEL_RESOURCE_ATTRIBUTES` sets one.
    pub service_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            metrics_endpoint: None,
            headers: None,
            timeout: Millis(Duration::from_secs(10)),
            metrics_interval: Millis(Duration::from_secs(60)),
            service_name: None,
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
        for url in [&self.endpoint, &self.metrics_endpoint].into_iter().flatten() {
            endpoint(url, self)?;
        }
        if self.metrics_interval.0.is_zero() || self.timeout.0.is_zero() {
            return Err(ImksError::Config(TIMES_POSITIVE.into()));
        }
        headers(self.headers.as_ref()).map(drop)
    }
}

/// A handle to the task that exports metrics.
#[derive(Debug)]
pub struct Exporter {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Exporter {
    /// Starts to export `catalog`, if the configuration names a collector. The collector need not be
    /// reachable yet.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the endpoint or the headers cannot be used.
    pub fn start(config: &Config, node: NodeId, catalog: Catalog) -> ImksResult<Option<Self>> {
        let Some(url) = config.metrics_endpoint.as_ref().or(config.endpoint.as_ref()) else {
            return Ok(None);
        };
        let push = Push {
            client: MetricsServiceClient::new(endpoint(url, config)?.connect_lazy()),
            headers: headers(config.headers.as_ref())?,
            source: Source::new(&resource(config, node), catalog),
            timeout: config.timeout.0,
            failing: false,
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(push.run(config.metrics_interval.0, stop.clone()));
        tasks.close();
        Ok(Some(Self { tasks, stop }))
    }

    /// Exports the last numbers and stops. Waits at most two seconds for the collector.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// The state of the export task.
struct Push {
    client: MetricsServiceClient<Channel>,
    headers: MetadataMap,
    source: Source,
    timeout: Duration,
    /// Whether the last call failed. Only the first of several failures is logged as a warning.
    failing: bool,
}

impl Push {
    async fn run(mut self, interval: Duration, stop: CancellationToken) {
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
        match &outcome {
            Ok(()) if self.failing => tracing::info!("metrics are exported again"),
            Ok(()) => {}
            Err(status) if self.failing => {
                tracing::debug!(code = ?status.code(), "metrics were not exported");
            }
            Err(status) => {
                tracing::warn!(code = ?status.code(), reason = status.message(), "metrics are not exported");
            }
        }
        self.failing = outcome.is_err();
    }

    async fn call(&mut self, limit: Duration) -> Result<(), Status> {
        let mut request = Request::new(self.source.request());
        *request.metadata_mut() = self.headers.clone();
        request.set_timeout(limit);
        let answer = self.client.export(request).await?.into_inner();
        match answer.partial_success {
            Some(partial) if partial.rejected_data_points > 0 => {
                Err(Status::data_loss(partial.error_message))
            }
            _ => Ok(()),
        }
    }
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
/// The longest time that the end of the process waits for the collector.
const FLUSH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_bytes([1, 2, 3, 4, 5]);

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
        assert!(Exporter::start(&config, NODE, &[]).is_err());
        let told = config.validate().unwrap_err().to_string();
        assert!(told.contains("OTLP endpoint") && !told.contains("hunter2"), "{told}");
        assert!(Exporter::start(&Config::default(), NODE, &[]).unwrap().is_none());
    }
}
