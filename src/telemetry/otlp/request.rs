//! The conversion of the list of instruments into an OTLP request.

use opentelemetry_proto::tonic::Attributes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as Observed;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::clock::now_micros;
use crate::telemetry::source::{self, Kind, Point, Value};
use crate::telemetry::{Catalog, Instrument};

/// The exported instruments, their resource, and the time since which they count.
pub(super) struct Source {
    resource: Resource,
    catalog: Catalog,
    started: u64,
}

impl Source {
    /// Creates the source of `catalog` for `resource`. Its counters start now.
    pub(super) fn new(resource: &opentelemetry_sdk::Resource, catalog: Catalog) -> Self {
        Self { resource: resource.into(), catalog, started: nanos() }
    }

    /// Returns a request with the current numbers of all instruments.
    pub(super) fn request(&self) -> ExportMetricsServiceRequest {
        // A clock that was set back must not end the counting before it began.
        let now = nanos().max(self.started);
        let metrics = self.catalog.iter().copied().flatten().map(|instrument| self.metric(instrument, now));
        let scope = ScopeMetrics {
            scope: Some(InstrumentationScope { name: "imks".into(), ..Default::default() }),
            metrics: metrics.collect(),
            ..Default::default()
        };
        let of_resource = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope],
            ..Default::default()
        };
        ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }
    }

    fn metric(&self, instrument: &Instrument, now: u64) -> Metric {
        let kind = instrument.source.kind();
        let points = instrument.source.points();
        let numbers = || points.iter().filter_map(|point| self.number(instrument, point, now)).collect();
        let data = match kind {
            Kind::Counter => Data::Sum(Sum {
                data_points: numbers(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            }),
            Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
            Kind::Latency | Kind::Size => Data::Histogram(Histogram {
                data_points: points
                    .iter()
                    .filter_map(|point| self.distribution(instrument, point, now))
                    .collect(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
            }),
        };
        Metric {
            name: instrument.name.into(),
            description: instrument.help.into(),
            unit: if kind == Kind::Latency { "s".into() } else { String::new() },
            data: Some(data),
            ..Default::default()
        }
    }

    fn number(&self, instrument: &Instrument, point: &Point, now: u64) -> Option<NumberDataPoint> {
        let number = match point.value {
            Value::Counter(count) => i64::try_from(count).unwrap_or(i64::MAX),
            Value::Gauge(value) => value,
            Value::Histogram(_) => return None,
        };
        Some(NumberDataPoint {
            attributes: attributes(instrument, point),
            start_time_unix_nano: self.started,
            time_unix_nano: now,
            value: Some(Number::AsInt(number)),
            ..Default::default()
        })
    }

    fn distribution(&self, instrument: &Instrument, point: &Point, now: u64) -> Option<HistogramDataPoint> {
        let Value::Histogram(snapshot) = &point.value else { return None };
        Some(HistogramDataPoint {
            attributes: attributes(instrument, point),
            start_time_unix_nano: self.started,
            time_unix_nano: now,
            count: snapshot.count(),
            sum: Some(snapshot.sum),
            bucket_counts: snapshot.counts.clone(),
            explicit_bounds: snapshot.bounds.clone(),
            exemplars: snapshot.exemplars.iter().flatten().map(exemplar).collect(),
            ..Default::default()
        })
    }
}

fn exemplar(exemplar: &source::Exemplar) -> Exemplar {
    Exemplar {
        time_unix_nano: u64::try_from(exemplar.at).unwrap_or(0).saturating_mul(1_000),
        trace_id: exemplar.trace_id.bytes().to_vec(),
        value: Some(Observed::AsDouble(exemplar.value)),
        ..Default::default()
    }
}

fn attributes(instrument: &Instrument, point: &Point) -> Vec<KeyValue> {
    let label = instrument.label.zip(point.label);
    Attributes::from(label.map(|(name, value)| opentelemetry::KeyValue::new(name, value))).0
}

fn nanos() -> u64 {
    u64::try_from(now_micros()).unwrap_or(0).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::instruments;
    use crate::telemetry::traceparent::TraceId;

    instruments! {
        /// What happened
        HAPPENED: Counter[kind] = "test_happened_total";
        /// How many there are
        PRESENT: Gauge = "test_present";
        /// How long it took
        TOOK_SECONDS: Latency = "test_took_seconds";
    }
    static CATALOG: Catalog = &[INSTRUMENTS];

    #[test]
    fn counters_gauges_and_histograms_are_told_with_their_labels() {
        HAPPENED.child("good").add(2);
        PRESENT.set(-3);
        TOOK_SECONDS.record_traced(Duration::from_millis(3), TraceId::new([7; 16]));
        let source = Source::new(&opentelemetry_sdk::Resource::builder_empty().build(), CATALOG);
        let request = source.request();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<_> = metrics.iter().map(|it| (&*it.name, &*it.description, &*it.unit)).collect();
        let expected = [
            ("test_happened_total", "What happened", ""),
            ("test_present", "How many there are", ""),
            ("test_took_seconds", "How long it took", "s"),
        ];
        assert_eq!(names, expected);
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert!(sum.is_monotonic && sum.aggregation_temporality() == AggregationTemporality::Cumulative);
        let point = &sum.data_points[0];
        assert_eq!((point.value, &*point.attributes[0].key), (Some(Number::AsInt(2)), "kind"));
        assert!(point.start_time_unix_nano > 0 && point.time_unix_nano >= point.start_time_unix_nano);
        let Some(Data::Gauge(gauge)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
        assert_eq!(gauge.data_points[0].value, Some(Number::AsInt(-3)));
        let Some(Data::Histogram(histogram)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (1, Some(0.003)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), 1);
        let exemplar = &point.exemplars[0];
        assert_eq!((&*exemplar.trace_id, exemplar.value), (&[7; 16][..], Some(Observed::AsDouble(0.003))));
    }
}
