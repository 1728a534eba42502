//! The Prometheus text format, version 0.0.4, for `/metrics`.

use std::fmt::{self, Display, Write};

use super::instrument::Instrument;
use super::source::{Kind, Point, Snapshot, Value};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// Returns the page with the samples of all instruments.
pub fn text(catalog: &[&[Instrument]]) -> String {
    catalog.iter().copied().flatten().map(|instrument| Family(instrument).to_string()).collect()
}

/// One instrument with its header and samples. It displays nothing if there are no samples.
struct Family<'a>(&'a Instrument);

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
        writeln!(formatter, "# HELP {} {}", instrument.name, Escaped(instrument.help, &['\\', '\n']))?;
        writeln!(formatter, "# TYPE {} {kind}", instrument.name)?;
        points.iter().try_for_each(|point| samples(formatter, instrument, point))
    }
}

fn samples(formatter: &mut fmt::Formatter<'_>, instrument: &Instrument, point: &Point) -> fmt::Result {
    let name = instrument.name;
    let labels = Labels { own: instrument.label.zip(point.label), bound: None };
    match &point.value {
        Value::Counter(count) => writeln!(formatter, "{name}{labels} {count}"),
        Value::Gauge(value) => writeln!(formatter, "{name}{labels} {value}"),
        Value::Histogram(snapshot) => histogram(formatter, name, labels, snapshot),
    }
}

fn histogram(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    labels: Labels<'_>,
    snapshot: &Snapshot,
) -> fmt::Result {
    let bounds = snapshot.bounds.iter().copied().chain([f64::INFINITY]);
    let mut at_most = 0;
    for (bound, count) in bounds.zip(&snapshot.counts) {
        at_most += count;
        writeln!(formatter, "{name}_bucket{} {at_most}", Labels { bound: Some(bound), ..labels })?;
    }
    writeln!(formatter, "{name}_sum{labels} {}", snapshot.sum)?;
    writeln!(formatter, "{name}_count{labels} {at_most}")
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{instruments, label};

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
        let text = text(&[INSTRUMENTS]);
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
}
