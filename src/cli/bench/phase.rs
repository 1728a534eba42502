//! What a phase of a scenario from a file has given.

use serde::Serialize;

use super::histogram::Percentiles;

/// The findings of a phase.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli::bench) struct PhaseSummary {
    pub(in crate::cli::bench) name: String,
    /// How long it took, the wait for the last rounds included.
    pub(in crate::cli::bench) seconds: f64,
    /// Rounds that were begun, and those of them in which a step failed.
    pub(in crate::cli::bench) rounds: u64,
    pub(in crate::cli::bench) failed_rounds: u64,
    /// Acks and expected events that came.
    pub(in crate::cli::bench) completed: u64,
    pub(in crate::cli::bench) per_second: f64,
    pub(in crate::cli::bench) latency_ms: Option<Percentiles>,
}
