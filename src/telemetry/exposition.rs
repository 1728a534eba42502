//! From the atomics to `/metrics`: OpenTelemetry observable instruments over a Prometheus registry,
//! and the histograms beside them in the same registry.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, Registry, TextEncoder, proto};

use super::histogram::Snapshot;
use super::instruments::{INSTRUMENTS, Instrument, Source};
use crate::{ImksError, ImksResult};

/// The numbers of this process, ready to be scraped.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
    /// Owns the instruments: without it their callbacks are never asked.
    provider: SdkMeterProvider,
}

impl Exposition {
    /// Registers every instrument.
    pub fn new() -> ImksResult<Self> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|_| ImksError::Internal("metrics exporter"))?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("imks");
        for instrument in INSTRUMENTS {
            observe(&meter, instrument);
        }
        build_info(&meter);
        let histograms = Histograms::new()?;
        registry.register(Box::new(histograms)).map_err(|_| ImksError::Internal("histogram registration"))?;
        Ok(Self { registry, provider })
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn text(&self) -> ImksResult<String> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(|_| ImksError::Internal("metrics encoding"))?;
        String::from_utf8(text).map_err(|_| ImksError::Internal("metrics encoding"))
    }

    /// Pushes what is pending and stops; for the end of the process.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "metrics were shut down before");
        }
    }
}

/// Content type of [`Exposition::text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

fn observe(meter: &Meter, instrument: &'static Instrument) {
    match instrument.source {
        Source::Counters(label, rows) => {
            let labelled: Vec<_> = rows.iter().map(|(value, row)| (attributes(label, value), *row)).collect();
            meter
                .u64_observable_counter(instrument.name)
                .with_description(instrument.help)
                .with_callback(move |observer| {
                    labelled.iter().for_each(|(at, row)| observer.observe(row.get(), at))
                })
                .build();
        }
        Source::Gauges(label, rows) => {
            let labelled: Vec<_> = rows.iter().map(|(value, row)| (attributes(label, value), *row)).collect();
            meter
                .i64_observable_gauge(instrument.name)
                .with_description(instrument.help)
                .with_callback(move |observer| {
                    labelled.iter().for_each(|(at, row)| observer.observe(row.get(), at))
                })
                .build();
        }
        Source::Latency(_) | Source::Latencies(..) | Source::Sizes(_) => {}
    }
}

fn attributes(label: Option<&'static str>, value: &'static str) -> Vec<KeyValue> {
    label.map(|label| KeyValue::new(label, value)).into_iter().collect()
}

fn build_info(meter: &Meter) {
    let version = [KeyValue::new("version", env!("CARGO_PKG_VERSION"))];
    meter
        .u64_observable_gauge("imks.build_info")
        .with_description("Always 1; the label says which version runs")
        .with_callback(move |observer| observer.observe(1, &version))
        .build();
}

/// Shows the histograms of [`INSTRUMENTS`] to the registry.
struct Histograms {
    descriptions: Vec<Desc>,
}

impl Histograms {
    fn new() -> ImksResult<Self> {
        let describe = |instrument: &Instrument| {
            let labels = instrument.label().map(str::to_owned).into_iter().collect();
            Desc::new(instrument.exposed_name(), instrument.help.to_owned(), labels, Default::default())
        };
        let descriptions = INSTRUMENTS.iter().filter(|instrument| is_histogram(instrument)).map(describe);
        let descriptions = descriptions.collect::<Result<_, _>>();
        Ok(Self { descriptions: descriptions.map_err(|_| ImksError::Internal("histogram description"))? })
    }
}

impl Collector for Histograms {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        INSTRUMENTS.iter().filter_map(family).collect()
    }
}

fn is_histogram(instrument: &Instrument) -> bool {
    matches!(instrument.source, Source::Latency(_) | Source::Latencies(..) | Source::Sizes(_))
}

fn family(instrument: &'static Instrument) -> Option<MetricFamily> {
    let metrics = match instrument.source {
        Source::Latency(histogram) => vec![metric(None, &histogram.snapshot(), MICROS_PER_SECOND)],
        Source::Sizes(histogram) => vec![metric(None, &histogram.snapshot(), 1.0)],
        Source::Latencies(label, family) => {
            let child =
                |(value, snapshot): (_, Snapshot)| metric(Some((label, value)), &snapshot, MICROS_PER_SECOND);
            family.snapshots().into_iter().map(child).collect()
        }
        Source::Counters(..) | Source::Gauges(..) => return None,
    };
    if metrics.is_empty() {
        return None;
    }
    let mut family = MetricFamily::default();
    family.set_name(instrument.exposed_name());
    family.set_help(instrument.help.to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics);
    Some(family)
}

#[allow(clippy::cast_precision_loss, reason = "the format has only floating point numbers")]
fn metric(label: Option<(&str, &str)>, snapshot: &Snapshot, unit: f64) -> Metric {
    let bucket = |(bound, count): &(u64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / unit);
        bucket.set_cumulative_count(*count);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(snapshot.buckets.iter().map(bucket).collect());
    histogram.set_sample_count(snapshot.count);
    histogram.set_sample_sum(snapshot.sum as f64 / unit);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    if let Some((name, value)) = label {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        metric.set_label(vec![pair]);
    }
    metric
}

const MICROS_PER_SECOND: f64 = 1_000_000.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::metrics;
    use super::*;

    #[test]
    fn what_was_counted_stands_on_the_page() {
        metrics::CONNECTS_ACCEPTED.increment();
        metrics::EVENT_SECONDS.child("test:exposition").record(Duration::from_millis(3));
        let text = Exposition::new().unwrap().text().unwrap();
        for line in [
            "imks_connects_total{outcome=\"accepted\"}",
            "imks_build_info{version=\"",
            "imks_event_duration_seconds_bucket{event=\"test:exposition\",le=\"0.0025\"} 0",
            "imks_event_duration_seconds_bucket{event=\"test:exposition\",le=\"0.005\"} 1",
            "imks_event_duration_seconds_count{event=\"test:exposition\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
