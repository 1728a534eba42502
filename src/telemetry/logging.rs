//! Logs: lines on standard error, for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which lines, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// How a line looks.
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

/// Says whether `filter` can be used; the error says why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

/// Starts logging to standard error, once per process: a second call changes nothing.
///
/// Control characters in logged text are escaped by the formatter, so a peer cannot forge a line.
pub fn start_logging(config: &Config) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let lines = lines(config.format, std::io::stderr().is_terminal(), std::io::stderr);
    // An embedding program may have a subscriber of its own; then ours is not needed.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

/// The layer that writes lines.
fn lines<S, W>(format: LogFormat, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    match format {
        LogFormat::Pretty => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    }
}

const FILTER_DEFAULT: &str = "info,sqlx::query=error";
