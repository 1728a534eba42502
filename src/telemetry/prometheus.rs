//! The text formats of `/metrics`: that of Prometheus, version 0.0.4, and OpenMetrics 1.0, which has exemplars.

use std::fmt::{self, Display, Write};

use super::instrument::Instrument;
use super::source::{Exemplar, Kind, Point, Snapshot, Value};
use crate::clock::Micros;

/// A format of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// That of Prometheus.
    Prometheus,
    /// OpenMetrics: the same numbers, and for buckets the trace of an observation.
    OpenMetrics,
}

impl Format {
    /// Returns the format that a reader likes best, by its header `Accept`. OpenMetrics only for one that names it: everybody
    /// else reads the older one.
    pub fn accepted(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default();
        let open = quality(accept, &["application/openmetrics-text"]);
        let plain = quality(accept, &["text/plain", "text/*", "*/*"]);
        match open > 0 && open >= plain {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Returns the content type of the page.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Returns how much a reader likes a content type, in thousandths (RFC 9110 section 12.5.1). `names` are the type and the
/// ranges that it is in, the most specific one first, which counts.
fn quality(accept: &str, names: &[&str]) -> u32 {
    let of_name = |name: &&str| {
        let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
        let liked = ranges.filter_map(|mut parts| {
            let is_named = parts.next().is_some_and(|range| range.eq_ignore_ascii_case(name));
            is_named.then(|| parts.find_map(weight).unwrap_or(1_000))
        });
        liked.max()
    };
    names.iter().find_map(of_name).unwrap_or(0)
}

/// Returns the weight in a parameter `q=0.5`, in thousandths. One that cannot be read counts as none at all.
fn weight(parameter: &str) -> Option<u32> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim_end().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim_start().parse().unwrap_or(0.0);
    // Between these bounds, no digit is lost.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and 1,000")]
    Some((value.clamp(0.0, 1.0) * 1_000.0).round() as u32)
}

/// Returns the page with the samples of all instruments.
pub fn text(catalog: &[&[Instrument]], format: Format) -> String {
    let families = catalog.iter().copied().flatten();
    let mut page: String = families.map(|instrument| Family(instrument, format).to_string()).collect();
    if format == Format::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

/// One instrument with its header and samples. It displays nothing if there are no samples.
struct Family<'a>(&'a Instrument, Format);

impl Display for Family<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (instrument, points) = (self.0, self.0.source.points());
        if points.is_empty() {
            return Ok(());
        }
        let kind = match instrument.source.kind() {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Latency | Kind::Size => "histogram",
        };
        // OpenMetrics names a counter without the ending of its samples.
        let name = match self.1 {
            Format::OpenMetrics => instrument.name.trim_end_matches("_total"),
            Format::Prometheus => instrument.name,
        };
        writeln!(formatter, "# HELP {name} {}", Escaped(instrument.help, &['\\', '\n']))?;
        writeln!(formatter, "# TYPE {name} {kind}")?;
        points.iter().try_for_each(|point| samples(formatter, instrument, point, self.1))
    }
}

fn samples(
    formatter: &mut fmt::Formatter<'_>,
    instrument: &Instrument,
    point: &Point,
    format: Format,
) -> fmt::Result {
    let name = instrument.name;
    let labels = Labels { own: instrument.label.zip(point.label), bound: None };
    match &point.value {
        Value::Counter(count) => writeln!(formatter, "{name}{labels} {count}"),
        Value::Gauge(value) => writeln!(formatter, "{name}{labels} {value}"),
        Value::Histogram(snapshot) => histogram(formatter, name, labels, snapshot, format),
    }
}

fn histogram(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    labels: Labels<'_>,
    snapshot: &Snapshot,
    format: Format,
) -> fmt::Result {
    let bounds = snapshot.bounds.iter().copied().chain([f64::INFINITY]);
    let mut at_most = 0;
    for ((bound, count), exemplar) in bounds.zip(&snapshot.counts).zip(snapshot.exemplars) {
        at_most += count;
        let shown = Shown(exemplar.filter(|_| format == Format::OpenMetrics));
        writeln!(formatter, "{name}_bucket{} {at_most}{shown}", Labels { bound: Some(bound), ..labels })?;
    }
    writeln!(formatter, "{name}_sum{labels} {}", snapshot.sum)?;
    writeln!(formatter, "{name}_count{labels} {at_most}")
}

/// The exemplar of a bucket, displayed behind its number.
struct Shown(Option<Exemplar>);

impl Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Exemplar { trace_id, value, at }) = self.0 else { return Ok(()) };
        let (seconds, micros) = (at.div_euclid(MICROS_PER_SECOND), at.rem_euclid(MICROS_PER_SECOND));
        write!(formatter, " # {{trace_id=\"{trace_id}\"}} {value} {seconds}.{micros:06}")
    }
}

/// The labels of one sample, displayed in braces.
#[derive(Clone, Copy)]
struct Labels<'a> {
    own: Option<(&'a str, &'a str)>,
    bound: Option<f64>,
}

impl Display for Labels<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.own.map(|(name, value)| format!("{name}=\"{}\"", Escaped(value, &['\\', '\n', '"'])));
        let bound = self.bound.map(|bound| match bound {
            f64::INFINITY => "le=\"+Inf\"".to_owned(),
            bound => format!("le=\"{bound}\""),
        });
        let labels: Vec<String> = own.into_iter().chain(bound).collect();
        if labels.is_empty() { Ok(()) } else { write!(formatter, "{{{}}}", labels.join(",")) }
    }
}

/// A text in which the given characters are escaped with a backslash.
struct Escaped<'a>(&'a str, &'static [char]);

impl Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\n' => formatter.write_str("\\n")?,
                _ if self.1.contains(&character) => write!(formatter, "\\{character}")?,
                _ => formatter.write_char(character)?,
            }
        }
        Ok(())
    }
}

const MICROS_PER_SECOND: Micros = 1_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use self::traced::{FOUND, TRACED_SECONDS};
    use super::*;
    use crate::telemetry::traceparent::TraceId;
    use crate::telemetry::{instruments, label};

    /// What Prometheus accepts.
    const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                              text/plain;version=0.0.4;q=0.3,*/*;q=0.1";

    mod traced {
        use super::instruments;

        instruments! {
            /// How long something with a trace took
            TRACED_SECONDS: Latency = "test_traced_seconds";
            /// What was found
            FOUND: Counter = "test_found_total";
        }
    }

    pub enum Outcome {
        Good,
        Odd,
    }
    label!(Outcome { Good = "good", Odd = "odd \"\\\n" });

    instruments! {
        /// What happened, by
        /// outcome: a \ stays readable
        OUTCOMES: Counter[outcome: Outcome] = "test_outcomes_total";
        /// How many there are
        PRESENT: Gauge = "test_present";
        /// How long a step took
        STEP_SECONDS: Latency[step] = "test_step_seconds";
        /// How many at once
        BATCH: Size = "test_batch";
        /// Nothing yet
        SILENT: Counter[name] = "test_silent_total";
    }

    #[test]
    fn the_page_is_as_prometheus_reads_it() {
        OUTCOMES.of(Outcome::Odd).add(2);
        OUTCOMES.of(Outcome::Good).add(0);
        PRESENT.add(-3);
        STEP_SECONDS.child("write").record(Duration::from_millis(3));
        BATCH.observe(1000);
        let text = text(&[INSTRUMENTS], Format::Prometheus);
        let expected = "# HELP test_outcomes_total What happened, by outcome: a \\\\ stays readable\n\
                        # TYPE test_outcomes_total counter\n\
                        test_outcomes_total{outcome=\"good\"} 0\n\
                        test_outcomes_total{outcome=\"odd \\\"\\\\\\n\"} 2\n\
                        # HELP test_present How many there are\n\
                        # TYPE test_present gauge\n\
                        test_present -3\n\
                        # HELP test_step_seconds How long a step took\n";
        assert!(text.starts_with(expected), "{text}");
        for line in [
            "test_step_seconds_bucket{step=\"write\",le=\"0.00005\"} 0",
            "test_step_seconds_bucket{step=\"write\",le=\"0.0025\"} 0",
            "test_step_seconds_bucket{step=\"write\",le=\"0.005\"} 1",
            "test_step_seconds_bucket{step=\"write\",le=\"+Inf\"} 1",
            "test_step_seconds_sum{step=\"write\"} 0.003",
            "test_batch_bucket{le=\"512\"} 0",
            "test_batch_bucket{le=\"+Inf\"} 1",
            "test_batch_count 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains("test_silent"), "an instrument without samples is not shown");
    }

    #[test]
    fn a_reader_gets_the_format_that_it_likes_best() {
        for accept in [
            PROMETHEUS,
            "application/openmetrics-text",
            "text/plain;q=0.5, application/openmetrics-text;version=1.0.0",
            "APPLICATION/OpenMetrics-Text;Q=0.1,*/*;q=0.1",
        ] {
            assert_eq!(Format::accepted(Some(accept)), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.2,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text;q=0.2,*/*;q=0.3",
            "application/openmetrics-text;q=nonsense,text/plain;q=0.1",
            "application/openmetrics-text-2",
        ] {
            assert_eq!(Format::accepted(Some(accept)), Format::Prometheus, "{accept}");
        }
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }

    #[test]
    fn a_reader_of_open_metrics_gets_the_trace_of_an_observation() {
        let trace = TraceId::new([0xab; 16]);
        TRACED_SECONDS.record_traced(Duration::from_millis(3), trace);
        FOUND.increment();
        let page = text(&[traced::INSTRUMENTS], Format::accepted(Some(PROMETHEUS)));
        let bucket = page.lines().find(|line| line.contains("le=\"0.005\"")).unwrap();
        let shown = format!(
            "test_traced_seconds_bucket{{le=\"0.005\"}} 1 # {{trace_id=\"{}\"}} 0.003 ",
            "ab".repeat(16)
        );
        assert!(bucket.starts_with(&shown), "{bucket}");
        assert_eq!(page.matches("trace_id").count(), 1, "{page}");
        assert!(
            page.contains("# TYPE test_found counter\ntest_found_total 1\n") && page.ends_with("\n# EOF\n")
        );
        let page = text(&[traced::INSTRUMENTS], Format::accepted(Some("text/plain")));
        assert!(!page.contains("trace_id") && !page.contains("# EOF"), "{page}");
    }
}
