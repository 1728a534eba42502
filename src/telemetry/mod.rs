//! OpenTelemetry and tracing start-up and flush; every instrument, once, in [`metrics`].

pub mod exposition;
pub mod histogram;
pub mod instruments;
pub mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Logs and metrics.
#[derive(Debug, Clone)]
pub struct Config {
    /// In the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// How a log line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For machines: one JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { filter: FILTER_DEFAULT.into(), format: LogFormat::Pretty }
    }
}

/// Whether `filter` can be used; the error says why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

/// Starts logging to standard error, once per process: a second call changes nothing.
///
/// Control characters in logged text are escaped by the formatter, so a peer cannot forge a line.
pub fn start_logging(config: &Config) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An embedding program may have a subscriber of its own; then ours is not needed.
    let _ = match config.format {
        LogFormat::Pretty => registry.with(lines.with_target(false)).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
}

const FILTER_DEFAULT: &str = "info,sqlx::query=error";
