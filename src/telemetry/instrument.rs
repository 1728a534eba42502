//! Declarations of metrics. Each metric is declared once, beside its owner, with its name, meaning and
//! source.

use super::source::Source;

/// A metric as operators see it.
#[derive(Debug)]
pub struct Instrument {
    /// The name on `/metrics` and in OTLP.
    pub name: &'static str,
    /// The meaning, as a sentence without a final dot.
    pub help: &'static str,
    /// The name of the label, if there is one.
    pub label: Option<&'static str>,
    /// The source of the numbers.
    pub source: &'static dyn Source,
}

/// The instruments of a program, by owner.
pub type Catalog = &'static [&'static [Instrument]];

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
/// The doc comment is the help. The brackets contain the label and the enum of its values
/// ([`super::label!`]). Without an enum, the values are those that the code passes to [`super::Open::child`].
macro_rules! instruments {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident $([$label:ident $(: $values:ty)?])? = $metric:literal;)+) => {
        $(
            $(#[doc = $help])+
            pub static $name: $crate::telemetry::instruments!(@type $kind $($label $($values)?)?) =
                $crate::telemetry::instruments!(@new $kind $($label $($values)?)?);
        )+

        /// The metrics of this module, for exporters and the documentation.
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

/// Returns the table of metrics for `docs/operations.md`.
pub fn markdown(catalog: &[&[Instrument]]) -> String {
    let mut text = String::from("| metric | label | meaning |\n| --- | --- | --- |\n");
    for instrument in catalog.iter().copied().flatten() {
        let label = instrument.label.map(|label| format!("`{label}`")).unwrap_or_default();
        text.push_str(&format!("| `{}` | {label} | {} |\n", instrument.name, instrument.help));
    }
    text
}
