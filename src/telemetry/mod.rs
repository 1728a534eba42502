//! OpenTelemetry and tracing start-up and flush; every instrument, once, in [`metrics`].

pub mod metrics;
