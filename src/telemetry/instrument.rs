//! What is measured: name, meaning and numbers of every metric, declared once, beside its owner.

use std::fmt;

use super::histogram::Snapshot;

/// One metric, as operators see it.
#[derive(Debug)]
pub struct Instrument {
    /// Name on `/metrics` and in OTLP.
    pub name: &'static str,
    /// What it tells, in a sentence without a final dot.
    pub help: &'static str,
    /// Name of its label, if there is one.
    pub label: Option<&'static str>,
    /// Where its numbers are.
    pub source: &'static dyn Source,
}

/// The instruments of a program, by owner.
pub type Catalog = &'static [&'static [Instrument]];

/// What an instrument measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A histogram of durations in seconds.
    Latency,
    /// A histogram of sizes.
    Size,
}

/// The numbers of an instrument.
pub trait Source: fmt::Debug + Sync {
    /// Returns what is measured.
    fn kind(&self) -> Kind;

    /// Reads the numbers: one, or one for each value of the label.
    fn points(&self) -> Vec<Point>;
}

/// One number of an instrument at one moment.
#[derive(Debug)]
pub struct Point {
    /// Value of the label.
    pub label: Option<&'static str>,
    /// The number.
    pub value: Value,
}

/// A number at one moment.
#[derive(Debug)]
pub enum Value {
    /// Count since the start of the process.
    Counter(u64),
    /// Value now.
    Gauge(i64),
    /// Distribution since the start of the process.
    Histogram(Snapshot),
}

/// A single number, without a label.
pub trait Metric: fmt::Debug + Send + Sync {
    /// What is measured.
    const KIND: Kind;

    /// Reads the number.
    fn value(&self) -> Value;
}

impl<M: Metric> Source for M {
    fn kind(&self) -> Kind {
        M::KIND
    }

    fn points(&self) -> Vec<Point> {
        vec![Point { label: None, value: self.value() }]
    }
}

/// A gauge that is always 1, for a label that says something about the process.
#[derive(Debug, Default)]
pub struct One(());

impl One {
    /// Creates the gauge.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Metric for One {
    const KIND: Kind = Kind::Gauge;

    fn value(&self) -> Value {
        Value::Gauge(1)
    }
}

/// Declares metrics, and lists them in a static `INSTRUMENTS`:
///
/// ```text
/// instruments! {
///     /// Engine.IO sessions ended, by reason
///     SESSIONS_CLOSED: Counter[reason: CloseReason] = "imks_sessions_closed_total";
///     /// Time from the start of an event's handler to its answer
///     EVENT_SECONDS: Latency[event] = "imks_event_duration_seconds";
/// }
/// ```
///
/// The doc comment is the help. In brackets stands the label, with the enum of its values ([`super::label!`]);
/// without an enum its values are what the code passes to [`super::Open::child`].
macro_rules! instruments {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident $([$label:ident $(: $values:ty)?])? = $metric:literal;)+) => {
        $(
            $(#[doc = $help])+
            pub static $name: $crate::telemetry::instruments!(@type $kind $($label $($values)?)?) =
                $crate::telemetry::instruments!(@new $kind $($label $($values)?)?);
        )+

        /// The metrics of this module, for exporters and documents.
        pub static INSTRUMENTS: &[$crate::telemetry::Instrument] = &[$($crate::telemetry::Instrument {
            name: $metric,
            help: concat!($($help),+).trim_ascii(),
            label: $crate::telemetry::instruments!(@label $($label)?),
            source: &$name,
        }),+];
    };
    (@type $kind:ident) => { $crate::telemetry::$kind };
    (@type $kind:ident $label:ident) => { $crate::telemetry::Open<$crate::telemetry::$kind> };
    (@type $kind:ident $label:ident $values:ty) => {
        $crate::telemetry::By<
            $values,
            $crate::telemetry::$kind,
            { <$values as $crate::telemetry::Label>::NAMES.len() },
        >
    };
    (@new $kind:ident) => { $crate::telemetry::$kind::new() };
    (@new $kind:ident $label:ident) => { $crate::telemetry::Open::new() };
    (@new $kind:ident $label:ident $values:ty) => {
        $crate::telemetry::By::new([const { $crate::telemetry::$kind::new() }; _])
    };
    (@label) => { None };
    (@label $label:ident) => { Some(stringify!($label)) };
}
pub(crate) use instruments;

/// The table of metrics in `docs/operations.md`.
pub fn markdown(catalog: &[&[Instrument]]) -> String {
    let mut text = String::from("| metric | label | meaning |\n| --- | --- | --- |\n");
    for instrument in catalog.iter().copied().flatten() {
        let label = instrument.label.map(|label| format!("`{label}`")).unwrap_or_default();
        text.push_str(&format!("| `{}` | {label} | {} |\n", instrument.name, instrument.help));
    }
    text
}
