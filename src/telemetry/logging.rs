//! Logging to standard error, in a format for people or for machines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::OnceLock;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::metrics::PANICS;

/// The settings of the log.
#[derive(Debug, Clone)]
pub struct Config {
    /// The filter of events, in the syntax of `tracing_subscriber::EnvFilter`; empty for the default. Whatever it says,
    /// nothing is logged that could show a secret of a dependency.
    pub filter: String,
    /// The format of a line.
    pub format: LogFormat,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Pretty,
    /// One JSON object per line, for machines.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { filter: FILTER_DEFAULT.into(), format: LogFormat::Pretty }
    }
}

/// Checks that `filter` can be used. The error is the reason why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    // A word that is no level is taken for the name of a module, and turns everything else off.
    let is_word = !filter.is_empty() && filter.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word && filter.parse::<LevelFilter>().is_err() && filter != env!("CARGO_PKG_NAME") {
        return Err(format!("{filter} is no level; write error, warn, info, debug, trace or off"));
    }
    parse(filter).map(drop)
}

/// Returns the filter that a text stands for. An empty one means that none is set: everything off is `off`.
fn parse(filter: &str) -> Result<EnvFilter, String> {
    let filter = if filter.trim().is_empty() { FILTER_DEFAULT } else { filter };
    EnvFilter::try_new(filter).map_err(|error| error.to_string())
}

/// Whether what a dependency logs at such a place can have no secret in it.
fn is_without_secrets(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of =
        |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    TALKATIVE.iter().all(|(name, most)| metadata.level() <= most || !is_of(name))
}

/// Replaces the filter of the log that [`start`] has begun.
///
/// # Errors
/// Why the filter cannot be used; the earlier one stays in use.
pub fn set_filter(filter: &str) -> Result<(), String> {
    check_filter(filter)?;
    // Without a handle another program's subscriber is in use, which has a filter of its own.
    let Some(handle) = FILTER.get() else { return Ok(()) };
    handle.reload(parse(filter)?).map_err(|error| error.to_string())
}

/// The way to the filter in use.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging to standard error. Only the first call in a process has an effect.
///
/// The formatter escapes control characters in logged text, so that a peer cannot forge a line.
pub fn start(config: &Config) {
    let filter = parse(&config.filter).unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let lines = lines(config.format, std::io::stderr().is_terminal(), std::io::stderr);
    let (filter, handle) = reload::Layer::new(filter);
    // This fails if an embedding program has installed its own subscriber, which then stays in use.
    let log = tracing_subscriber::registry().with(filter).with(filter_fn(is_without_secrets)).with(lines);
    if log.try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Counts panics, and writes them to the log: the text that Rust would write is no line of the log, and no JSON.
pub fn catch_panics() {
    let earlier = take_hook();
    set_hook(Box::new(move |panic| {
        PANICS.increment();
        if tracing::enabled!(tracing::Level::ERROR) {
            log_panic(panic);
        } else {
            earlier(panic);
        }
    }));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(tracing::field::display);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = std::thread::current();
    tracing::error!(
        why = panic.payload_as_str().unwrap_or("no text"),
        place,
        thread = thread.name(),
        backtrace,
        "panic: this is a bug"
    );
}

/// Returns the layer that writes lines.
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

/// The client of NATS logs every attempt to connect; an outage is told once, by the bus.
const FILTER_DEFAULT: &str = "info,sqlx::query=error,async_nats=off";
/// Dependencies that log passwords and tokens in more detail than this, whatever the filter says: addresses of NATS with
/// their user and password, packets of WebSocket, commands of Redis.
const TALKATIVE: [(&str, Level); 3] =
    [("async_nats", Level::INFO), ("tungstenite", Level::DEBUG), ("fred", Level::DEBUG)];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt;
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

    use super::*;

    /// JSON in which no object has two members with the same name.
    struct Strict;

    impl<'de> serde::Deserialize<'de> for Strict {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(StrictVisitor)
        }
    }

    struct StrictVisitor;

    impl<'de> Visitor<'de> for StrictVisitor {
        type Value = Strict;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("JSON")
        }

        fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
            Ok(Strict)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
            Ok(Strict)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
            Ok(Strict)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
            Ok(Strict)
        }

        fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
            Ok(Strict)
        }

        fn visit_unit<E>(self) -> Result<Strict, E> {
            Ok(Strict)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
            while items.next_element::<Strict>()?.is_some() {}
            Ok(Strict)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Strict, A::Error> {
            let mut names = HashSet::new();
            while let Some((name, _)) = members.next_entry::<String, Strict>()? {
                if let Some(twice) = names.replace(name) {
                    return Err(A::Error::custom(format!("two members {twice:?}")));
                }
            }
            Ok(Strict)
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(log: impl FnOnce()) -> String {
        written_with("trace", log)
    }

    fn written_with(filter: &str, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = lines(LogFormat::Json, false, move || writer.clone());
        let filters = tracing_subscriber::registry().with(parse(filter).unwrap());
        tracing::subscriber::with_default(filters.with(filter_fn(is_without_secrets)).with(lines), log);
        let bytes = written.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_filter_makes_a_dependency_tell_the_password_of_a_broker() {
        for filter in
            ["trace", "debug", "async_nats=debug", "async_nats::connector=trace", "off,[{server}]=trace"]
        {
            let text = written_with(filter, || {
                let server = "nats://im:hunter2@broker";
                tracing::debug!(target: "async_nats::connector", server, "attempting connection");
                tracing::trace!(target: "async_nats", server, "connecting");
                tracing::trace!(target: "tungstenite::protocol", server, "received frame");
                tracing::trace!(target: "fred::protocol::debug", server, "Encoded");
                let _span = tracing::debug_span!(target: "async_nats", "connect", server).entered();
                tracing::error!("inside");
            });
            assert!(!text.contains("hunter2"), "{filter}: {text}");
        }
        let text = written_with("trace", || {
            tracing::info!(target: "async_nats::connector", "connected");
            tracing::trace!(target: "async_natsy", "of another");
        });
        assert!(text.contains("connected") && text.contains("of another"), "{text}");
    }

    #[test]
    fn an_empty_filter_is_no_filter_and_the_log_is_not_off() {
        for empty in ["", " "] {
            assert_eq!(check_filter(empty), Ok(()));
            let text = written_with(empty, || {
                tracing::info!("told");
                tracing::debug!("not told");
            });
            assert!(text.contains("told") && !text.contains("not told"), "{text}");
        }
    }

    #[test]
    fn a_line_of_json_is_strict_whatever_a_peer_sends() {
        let text = written(|| {
            let name = "message:send\n\"\u{7f}\u{1b}[31m";
            let _outer = tracing::info_span!("connection", socket_sid = name).entered();
            let _inner = tracing::info_span!("event", event = name, namespace = "/").entered();
            tracing::warn!(event = name, error = %name, "event failed");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str::<Strict>(&text).map(drop).unwrap();
    }

    #[test]
    fn two_members_of_one_name_are_noticed() {
        let text = written(|| {
            let _span = tracing::info_span!("event", name = "message:send").entered();
            tracing::info!("handled");
        });
        let error = serde_json::from_str::<Strict>(&text).map(drop).unwrap_err();
        assert!(error.to_string().contains("two members \"name\""), "{error}");
    }

    /// The JSON of a span already has a member `name`.
    #[test]
    fn no_span_of_the_product_has_a_field_name() {
        let sources = files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
        for path in sources.into_iter().filter(|path| !path.ends_with("logging.rs")) {
            let text = std::fs::read_to_string(&path).unwrap();
            for span in text.split("span!(").skip(1) {
                let arguments = span.split(';').next().unwrap();
                let fields = arguments.split(',').map(|it| it.split(['=', ')']).next().unwrap().trim());
                let fields: Vec<_> = fields.map(|it| it.trim_start_matches(['%', '?'])).collect();
                assert!(!fields.contains(&"name"), "{}: {arguments}", path.display());
            }
        }
    }

    fn files(directory: &Path) -> Vec<std::path::PathBuf> {
        let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let paths = paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
        paths.filter(|path| path.extension().is_some_and(|it| it == "rs")).collect()
    }
}
