//! The metrics of the telemetry itself.

use super::{instruments, label};

/// The only value of the label `version`.
#[allow(dead_code, reason = "only its name is used")]
pub enum Build {
    /// The running program.
    Current,
}

/// The outcome of a push of metrics.
pub enum Export {
    /// The collector accepted the metrics.
    Succeeded,
    /// The collector refused the metrics, or did not answer in time.
    Failed,
}

/// What became of a configuration that was read again.
pub enum Reload {
    /// The values that can change are in use.
    Taken,
    /// Something in it cannot be used.
    Refused,
}

label!(Reload { Taken = "taken", Refused = "refused" });

/// What follows when a background task panics.
pub enum AfterPanic {
    /// The task begins again.
    BegunAgain,
    /// The process ends, because nothing replaces the task.
    ProcessEnds,
}

label!(AfterPanic { BegunAgain = "begun_again", ProcessEnds = "process_ends" });

/// What became of a span.
pub enum SpanEnd {
    /// The collector has it.
    Exported,
    /// Too many waited for the exporter.
    Dropped,
    /// The collector did not take it.
    Lost,
}

label!(SpanEnd { Exported = "exported", Dropped = "dropped", Lost = "lost" });
label!(Build { Current = env!("CARGO_PKG_VERSION") });
label!(Export { Succeeded = "succeeded", Failed = "failed" });

instruments! {
    /// Always 1; the label is the running version
    BUILD_INFO: One[version: Build] = "imks_build_info";
    /// Reloads of the configuration by SIGHUP, by outcome
    RELOADS: Counter[outcome: Reload] = "imks_config_reloads_total";
    /// Panics in any thread or task of the process; each is a bug
    PANICS: Counter = "imks_panics_total";
    /// Background tasks that panicked, by what followed
    TASK_PANICS: Counter[then: AfterPanic] = "imks_task_panics_total";
    /// Exports of metrics to an OTLP collector, by outcome
    EXPORTS: Counter[outcome: Export] = "imks_otlp_exports_total";
    /// Spans of traces, by what became of them: `dropped` where too many waited, `lost` where the collector did not take them
    SPANS: Counter[outcome: SpanEnd] = "imks_otlp_spans_total";
}
