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

label!(Build { Current = env!("CARGO_PKG_VERSION") });
label!(Export { Succeeded = "succeeded", Failed = "failed" });

instruments! {
    /// Always 1; the label is the running version
    BUILD_INFO: One[version: Build] = "imks_build_info";
    /// Exports of metrics to an OTLP collector, by outcome
    EXPORTS: Counter[outcome: Export] = "imks_otlp_exports_total";
}
