//! What the telemetry counts of itself.

use super::{instruments, label};

/// The one value of the label `version`.
pub enum Build {
    /// This program.
    Current,
}
label!(Build { Current = env!("CARGO_PKG_VERSION") });

instruments! {
    /// Always 1; its label says which version runs
    BUILD_INFO: One[version: Build] = "imks_build_info";
}
