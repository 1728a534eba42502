//! The sources of configuration values: a TOML file, the environment, and flags. Later sources override
//! earlier ones. Each value records its origin, so that an error can say what to change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::field::{Field, Listing, Row, Visitor};
use super::setting::Setting;
use super::{Config, fields};
use crate::{ImksError, ImksResult};

/// A function that reads one variable. Tests pass a map instead of the process environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The name of the variable with the path of the configuration file.
pub const CONFIG_FILE: &str = "IMKS_CONFIG";

/// Overrides the values of `base` with those of the file, the environment and the flags. Reports all problems
/// at once.
///
/// `flags` are pairs of key (as in the file) and text.
pub fn load(
    base: Config,
    file: Option<PathBuf>,
    environment: Environment<'_>,
    flags: &[(&str, String)],
) -> ImksResult<Config> {
    let mut values = Values::read(file, environment, flags);
    let mut config = base;
    fields(&mut config, &mut values);
    let mut problems = values.problems;
    problems.extend(config.problems());
    if problems.is_empty() { Ok(config) } else { Err(ImksError::Config(problems.join("\n"))) }
}

/// Returns where each value comes from that is not a default: the name of its variable, its option, or its key in
/// the file, by the key of the value.
pub fn origins(
    file: Option<PathBuf>,
    environment: Environment<'_>,
    flags: &[(&str, String)],
) -> BTreeMap<String, String> {
    let values = Values::read(file, environment, flags);
    values.by_key.into_iter().map(|(key, (_, origin))| (key, origin)).collect()
}

/// Returns the [`origins`] of the values of this process.
pub fn process_origins(file: Option<PathBuf>, flags: &[(&str, String)]) -> BTreeMap<String, String> {
    origins(file, &variable, flags)
}

/// Returns a variable of this process. What is no UTF-8 is replaced by [`NO_TEXT`], so that it is refused.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|text| text.to_string_lossy().into_owned())
}

/// Returns the variables that start with `IMKS_` but are unknown, which most likely are misspelt. They are
/// reported and not refused, because Kubernetes sets such variables for a service named imks.
pub fn unknown_variables(variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let known = Listing::of(&mut Config::default());
    let is_known = |name: &str| {
        // Names of values may end like this themselves.
        let of_file = name.strip_suffix("_FILE");
        name == CONFIG_FILE
            || OF_TOOLS.contains(&name)
            || ALIASES.iter().any(|(alias, _)| *alias == name)
            || name == READ_TIMEOUT
            || known.rows.iter().any(|row| row.field.env == name || Some(row.field.env) == of_file)
    };
    // Kubernetes sets `IMKS_PORT=tcp://…`; a number was meant for the server.
    let is_meant = |name: &str, value: &str| name == MEANT && value.parse::<u16>().is_ok();
    let is_foreign = |name: &str| FOREIGN.iter().any(|prefix| name.starts_with(prefix));
    let is_unknown = |(name, value): &(String, String)| {
        name.starts_with(PREFIX) && !is_known(name) && (is_meant(name, value) || !is_foreign(name))
    };
    variables.filter(is_unknown).map(|(name, _)| name).collect()
}

/// Returns the table of names from elsewhere for `docs/operations.md`.
#[cfg(test)]
pub(crate) fn aliases_markdown() -> String {
    let known = Listing::of(&mut Config::default());
    let row = |(alias, key): (&str, &str)| Some(format!("| `{alias}` | `{}` |\n", known.row(key)?.field.env));
    let rows: String = ALIASES.into_iter().filter_map(row).collect();
    format!("| name elsewhere | setting |\n| --- | --- |\n{rows}")
}

/// The raw texts and their origins by key, before they are parsed.
struct Values {
    by_key: BTreeMap<String, (String, String)>,
    problems: Vec<String>,
}

impl Values {
    fn read(file: Option<PathBuf>, environment: Environment<'_>, flags: &[(&str, String)]) -> Self {
        let mut values = Self { by_key: BTreeMap::new(), problems: Vec::new() };
        let known = Listing::of(&mut Config::default());
        let named = || environment(CONFIG_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = file.or_else(named) {
            values.read_file(&path, &known);
        }
        values.read_aliases(environment, &known);
        values.read_environment(environment, &known);
        for (key, text) in flags {
            values.put(key, text.clone(), format!("--{}", key.replace('_', "-")));
        }
        values
    }

    fn put(&mut self, key: &str, text: String, origin: String) {
        // An empty filter would turn everything off, and whoever means that writes `off`.
        if key == LOG_FILTER && text.trim().is_empty() {
            return;
        }
        self.by_key.insert(key.to_owned(), (text, origin));
    }

    fn read_file(&mut self, path: &Path, known: &Listing) {
        let name = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.problems.push(format!("The configuration file {name} cannot be read: {error}"));
            }
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                // Only the reason is reported, because the line that the error shows may contain a password.
                let reason = error.message();
                let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
                return self.problems.push(format!("{name} is not TOML, see line {line}: {reason}"));
            }
        };
        self.read_table("", &table, &name, known);
    }

    fn read_table(&mut self, prefix: &str, table: &toml::Table, name: &str, known: &Listing) {
        for (key, value) in table {
            let key = format!("{prefix}{key}");
            match (value, scalar(value)) {
                (toml::Value::Table(inner), _) => self.read_table(&format!("{key}."), inner, name, known),
                (_, Some(text)) if known.row(&key).is_some() => {
                    self.put(&key, text, format!("{key} in {name}"))
                }
                (_, Some(_)) => self.problems.push(unknown_key(&key, name, known)),
                (_, None) => self
                    .problems
                    .push(format!("{key} in {name} must be text, a number, true/false or a list of these")),
            }
        }
    }

    fn read_aliases(&mut self, environment: Environment<'_>, known: &Listing) {
        for (alias, key) in ALIASES {
            let Some(text) = environment(alias) else { continue };
            let name = known.row(key).map_or(key, |row| row.field.env);
            if environment(name).is_some() {
                let text = format!("{alias} and {name} are two names of one setting, set one of them");
                self.problems.push(text);
            }
            self.put(key, text, alias.to_owned());
        }
        if environment(READ_TIMEOUT).is_some() {
            self.problems.push(READ_TIMEOUT_RULE.to_owned());
        }
    }

    fn read_environment(&mut self, environment: Environment<'_>, known: &Listing) {
        let set = |name: &str| environment(name).filter(|text| !text.is_empty());
        // Platforms that run a container tell it so where to listen; they reach it from outside.
        match set(PORT).map(|port| (port.parse::<u16>().is_ok(), port)) {
            Some((true, port)) => self.put(LISTEN, format!(":{port}"), PORT.to_owned()),
            Some((false, port)) => self.problems.push(format!("{PORT} is {port:?}, which is no port")),
            None => {}
        }
        for Row { field, secret, .. } in &known.rows {
            let (name, variable) = (field.env, format!("{}_FILE", field.env));
            match environment(name) {
                Some(text) if text.contains(NO_TEXT) => self.problems.push(format!("{name} is no UTF-8")),
                Some(text) => self.put(field.key, text, name.to_owned()),
                None => {}
            }
            match set(&variable) {
                Some(_) if !secret => self
                    .problems
                    .push(format!("{variable} is not known: only secrets may come from a file, set {name}")),
                Some(_) if set(name).is_some() => {
                    self.problems.push(format!("{name} and {variable} are both set: choose one"));
                }
                Some(path) => self.read_secret(field.key, variable, &path),
                None => {}
            }
        }
    }

    /// Reads the file of a secret. An empty one is a mistake: without a secret, the variable would not be set.
    fn read_secret(&mut self, key: &str, variable: String, path: &str) {
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => {
                self.problems.push(format!("{variable} points to {path}, which is empty"));
            }
            Ok(text) => self.put(key, text.trim_end().to_owned(), variable),
            Err(error) => {
                self.problems.push(format!("{variable} points to {path}, which cannot be read: {error}"));
            }
        }
    }
}

impl Visitor for Values {
    fn field<T: Setting>(&mut self, field: Field, slot: &mut T) {
        let Some((text, origin)) = self.by_key.get(field.key) else { return };
        match T::parse(text) {
            Ok(value) => *slot = value,
            // Where an address is taken for something else, its password must not be told either.
            Err(why) if T::SECRET || text.contains('@') => {
                self.problems.push(format!("{origin} is not valid: {why}"))
            }
            Err(why) => self.problems.push(format!("{origin} is {text:?}, which is not valid: {why}")),
        }
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        // A share is one; whatever must be a whole number says so itself.
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(items) => {
            items.iter().map(scalar).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        _ => None,
    }
}

fn unknown_key(key: &str, name: &str, known: &Listing) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let alike = known.rows.iter().map(|row| row.field.key).filter(|key| key.rsplit('.').next() == Some(last));
    match alike.collect::<Vec<_>>().join(" or ").as_str() {
        "" => format!("{key} in {name} is not known; `imks check-config --table` lists all keys"),
        alike => format!("{key} in {name} is not known; did you mean {alike}?"),
    }
}

/// What stands for bytes that are no UTF-8.
const NO_TEXT: char = char::REPLACEMENT_CHARACTER;
const PREFIX: &str = "IMKS_";
/// The variable with the port in which platforms such as Heroku and Cloud Run expect a server.
const PORT: &str = "PORT";
const LISTEN: &str = "listen";
const LOG_FILTER: &str = "log.filter";
/// The variable that people set who mean [`PORT`] or `IMKS_LISTEN`.
const MEANT: &str = "IMKS_PORT";
/// Names under which people know settings from WebSocket servers elsewhere, and the keys of these settings.
pub(crate) const ALIASES: [(&str, &str); 9] = [
    ("IMKS_WS_MAX_CONNECTIONS", "engine.sessions_max"),
    ("IMKS_WS_MAX_MESSAGE_SIZE", "engine.max_payload"),
    ("IMKS_WS_HEARTBEAT_INTERVAL", "engine.ping_interval"),
    ("IMKS_WS_HEARTBEAT_TIMEOUT", "engine.ping_timeout"),
    ("IMKS_WS_CONNECTION_TIMEOUT", "socket.connect_timeout"),
    ("IMKS_WS_WRITE_TIMEOUT", "http.write"),
    ("IMKS_WS_KEEP_ALIVE", "http.tcp_keepalive"),
    ("IMKS_WS_TCP_NODELAY", "http.tcp_nodelay"),
    ("IMKS_WS_COMPRESSION_ENABLED", "engine.per_message_deflate"),
];
/// The one of these names that is no setting here: how long a client may be silent is said by its heartbeat.
const READ_TIMEOUT: &str = "IMKS_WS_READ_TIMEOUT";
const READ_TIMEOUT_RULE: &str = "IMKS_WS_READ_TIMEOUT is not known: a client is gone when it is silent for IMKS_ENGINE_PING_INTERVAL \
                                 and IMKS_ENGINE_PING_TIMEOUT together, set these";
/// What the tools read beside their options: the token of `imks chat` and `imks doctor`, the key of `imks top`.
const OF_TOOLS: [&str; 2] = ["IMKS_TOKEN", "IMKS_KEY"];
/// The prefixes of variables that Kubernetes sets, or that the tests and benches read.
const FOREIGN: [&str; 5] = ["IMKS_SERVICE_", "IMKS_PORT", "IMKS_TEST_", "IMKS_BENCH_", "IMKS_UPDATE_"];
