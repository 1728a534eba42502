//! Metrics, logs and traces. Each metric is declared once, beside its owner, with [`instruments!`]. `/metrics` and
//! OTLP export the same list.

pub mod counter;
pub mod histogram;
pub mod instrument;
pub mod labels;
pub mod metrics;
pub mod source;
pub mod traceparent;

pub use counter::{Counter, Gauge, One};
pub use histogram::{Latency, Size};
pub(crate) use instrument::instruments;
pub use instrument::{Catalog, Instrument};
pub(crate) use labels::label;
pub use labels::{By, Label, Open};

cfg_if::cfg_if! {
    if #[cfg(feature = "server")] {
        pub mod logging;
        pub mod otlp;
        pub mod prometheus;
        pub mod trace;
    }
}
