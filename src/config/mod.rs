//! Configuration: each module's own `Config`, composed. Defaults < TOML file < environment < flags.
//!
//! [`fields`] is the one table of names; the documentation, the parser and `imks check-config` are
//! made from it.

pub mod field;
pub mod setting;
pub mod source;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::models::db;
use crate::telemetry;
use field::{Field, Visitor};
pub use field::{Listing, Row};
pub use setting::Setting;
pub use source::{Environment, load};

/// Everything that can be set. `Debug` shows it as `imks check-config` does, secrets redacted.
#[derive(Clone)]
pub struct Config {
    /// Address of HTTP and WebSocket. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// An external core; without it the embedded directory is the core.
    pub core_url: Option<String>,
    /// The database, and the data directory.
    pub database: db::Config,
    /// Logs and metrics.
    pub telemetry: telemetry::Config,
    /// How the server goes away.
    pub drain: Drain,
}

/// How the server goes away after SIGTERM.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Readiness already says no, but new sessions are still welcome: load balancers need a moment.
    pub delay: Duration,
    /// At most this long from the end of `delay` until everything is closed.
    pub deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT)),
            core_url: None,
            database: db::Config::default(),
            telemetry: telemetry::Config::default(),
            drain: Drain { delay: Duration::ZERO, deadline: DRAIN_DEADLINE },
        }
    }
}

/// Shows every value to `visitor`, in the order of the document.
pub fn fields(config: &mut Config, visitor: &mut impl Visitor) {
    server_fields(config, visitor);
    database_fields(&mut config.database, visitor);
    telemetry_fields(&mut config.telemetry, visitor);
    drain_fields(&mut config.drain, visitor);
}

fn server_fields(config: &mut Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new(
            "listen",
            "IMKS_LISTEN",
            "Address and port of HTTP and WebSocket; port 0 takes a free one",
        ),
        &mut config.listen,
    );
    visitor.field(
        Field::new("data_dir", "IMKS_DATA_DIR", "Directory of the SQLite file and of the standalone keys"),
        &mut config.database.data_dir,
    );
    visitor.field(
        Field::new(
            "core_url",
            "IMKS_CORE_URL",
            "gRPC address of the core, for example `http://core:9000`; not set: the embedded directory",
        ),
        &mut config.core_url,
    );
}

fn database_fields(config: &mut db::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::secret(
            "database.url",
            "DATABASE_URL",
            "`postgres://…` or `sqlite:…`; not set: the file `imks.db` in the data directory",
        ),
        &mut config.url,
    );
    visitor.field(
        Field::new(
            "database.connections",
            "IMKS_DATABASE_CONNECTIONS",
            "Connections to PostgreSQL, those that write messages included",
        ),
        &mut config.max_connections,
    );
    visitor.field(
        Field::new(
            "database.sqlite_synchronous",
            "IMKS_SQLITE_SYNCHRONOUS",
            "`full`: an acknowledged message survives a power cut; `normal`: it survives the process only",
        ),
        &mut config.sqlite_synchronous,
    );
    let statement = "How long PostgreSQL may work on one statement";
    millis(
        Field::new("database.statement_timeout", "IMKS_DATABASE_STATEMENT_TIMEOUT", statement),
        &mut config.statement_timeout_ms,
        visitor,
    );
    let acquire = "How long a query waits for a free connection before the answer is `overloaded`";
    millis(
        Field::new("database.acquire_timeout", "IMKS_DATABASE_ACQUIRE_TIMEOUT", acquire),
        &mut config.acquire_timeout_ms,
        visitor,
    );
}

/// A duration whose owner counts milliseconds.
fn millis(field: Field, slot: &mut u64, visitor: &mut impl Visitor) {
    let mut duration = Duration::from_millis(*slot);
    visitor.field(field, &mut duration);
    *slot = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
}

fn telemetry_fields(config: &mut telemetry::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new("log.filter", "RUST_LOG", "What is logged, in the syntax of `tracing` filters"),
        &mut config.filter,
    );
    visitor.field(
        Field::new("log.format", "IMKS_LOG_FORMAT", "`pretty` for people, `json` for machines"),
        &mut config.format,
    );
}

fn drain_fields(config: &mut Drain, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new(
            "drain.delay",
            "IMKS_DRAIN_DELAY",
            "After SIGTERM: how long readiness says no while new sessions are still accepted; 5s behind a load balancer",
        ),
        &mut config.delay,
    );
    visitor.field(
        Field::new(
            "drain.deadline",
            "IMKS_DRAIN_DEADLINE",
            "After the delay: how long the drain may take at most",
        ),
        &mut config.deadline,
    );
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = Listing::of(&mut self.clone()).rows;
        f.debug_map().entries(rows.iter().map(|row| (row.key, &row.value))).finish()
    }
}

impl Config {
    /// Reads file, process environment and flags; see [`load`].
    pub fn from_process(file: Option<PathBuf>, flags: &[(&str, String)]) -> crate::ImksResult<Self> {
        load(file, &|name| std::env::var(name).ok(), flags)
    }

    /// Whether somebody on another machine could connect.
    pub fn is_reachable_from_outside(&self) -> bool {
        !self.listen.ip().is_loopback()
    }

    /// Everything that cannot work, each in a sentence that says what to change.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, sentence: &str| {
            if !ok {
                problems.push(sentence.to_owned());
            }
        };
        let scheme = |url: &str, allowed: &[&str]| allowed.iter().any(|scheme| url.starts_with(scheme));
        check(
            self.database
                .url
                .as_deref()
                .is_none_or(|url| scheme(url, &["postgres://", "postgresql://", "sqlite:"])),
            "DATABASE_URL must start with postgres:// or sqlite:",
        );
        check(
            self.core_url.as_deref().is_none_or(|url| scheme(url, &["http://", "https://"])),
            "IMKS_CORE_URL must start with http:// or https://",
        );
        check(
            !self.drain.deadline.is_zero(),
            "IMKS_DRAIN_DEADLINE must be longer than 0s, or nothing that was acknowledged could be flushed",
        );
        if let Err(why) = telemetry::check_filter(&self.telemetry.filter) {
            problems.push(format!("RUST_LOG is not a log filter: {why}"));
        }
        problems
    }

    /// [`Config::problems`] as a result.
    pub fn validate(&self) -> crate::ImksResult<()> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(crate::ImksError::Config(problems.join("\n"))) }
    }
}

const PORT_DEFAULT: u16 = 3000;
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn load_from(env: &[(&str, &str)], flags: &[(&str, String)]) -> crate::ImksResult<Config> {
        let map: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        load(None, &|name| map.get(name).cloned(), flags)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn with_nothing_set_the_server_listens_on_this_machine_only() {
        let config = load_from(&[], &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
        assert!(!config.is_reachable_from_outside());
        assert_eq!(config.database.url, None);
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file() {
        let file = file("listen = \"127.0.0.1:1\"\ndata_dir = \"/a\"\n[drain]\ndeadline = \"1s\"\n");
        let path = file.path().to_str().unwrap();
        let env = [(source::CONFIG_FILE, path), ("IMKS_LISTEN", "127.0.0.1:2"), ("IMKS_DATA_DIR", "/b")];
        let config = load_from(&env, &[("listen", "127.0.0.1:3".into())]).unwrap();
        assert_eq!((config.listen.port(), config.database.data_dir.to_str()), (3, Some("/b")));
        assert_eq!(config.drain.deadline, Duration::from_secs(1));
    }

    #[test]
    fn all_problems_are_told_at_once_and_say_what_to_change() {
        let file = file("lissten = \"x\"\n[wrong]\ndeadline = 1\n");
        let path = file.path().to_str().unwrap();
        let env = [(source::CONFIG_FILE, path), ("IMKS_LISTEN", "3000"), ("DATABASE_URL", "mysql://x")];
        let text = load_from(&env, &[]).unwrap_err().to_string();
        for part in
            ["lissten", "did you mean drain.deadline?", "IMKS_LISTEN is \"3000\"", "DATABASE_URL must start"]
        {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_secret_may_come_from_a_file_and_is_never_shown() {
        let file = file("postgres://im:hunter2@db/imks\n");
        let path = file.path().to_str().unwrap();
        let mut config = load_from(&[("DATABASE_URL_FILE", path)], &[]).unwrap();
        assert_eq!(config.database.url.as_deref(), Some("postgres://im:hunter2@db/imks"));
        for shown in [format!("{config:?}"), format!("{:?}", Listing::of(&mut config))] {
            assert!(shown.contains("im:***@db") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let rows = Listing::of(&mut Config::default()).rows;
        let flags: Vec<(&str, String)> =
            rows.iter().filter(|row| !row.secret).map(|row| (row.key, row.value.clone())).collect();
        let mut again = load_from(&[], &flags).unwrap();
        let values = |rows: &[Row]| rows.iter().map(|row| row.value.clone()).collect::<Vec<_>>();
        assert_eq!(values(&rows), values(&Listing::of(&mut again).rows));
    }

    #[test]
    fn the_operations_document_lists_every_variable_with_its_default() {
        let document = include_str!("../../docs/operations.md");
        let table = Listing::of(&mut Config::default()).markdown();
        assert!(
            document.contains(&table),
            "docs/operations.md is stale: replace its table with the output of `imks check-config --table`:\n{table}"
        );
    }
}
