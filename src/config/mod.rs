//! The configuration of the server, composed of the `Config` of each module. Values come from defaults, a
//! TOML file, the environment and flags, each overriding the ones before.
//!
//! [`fields()`] is the only table of names. The documentation, the parser and `imks check-config` are derived
//! from it.

mod admin;
mod bounds;
mod cluster;
mod deadlines;
pub mod field;
mod fields;
mod first_page;
mod flags;
pub mod setting;
pub mod source;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::http::{internal, listener, quic, tls, webtransport};
use crate::models::{append, db, feed};
use crate::secret::Secret;
use crate::telemetry::{logging, otlp};
use crate::{application, auth, control, directory, engine, files, messaging, pb, socket, webhook};
pub use admin::Admin;
pub use cluster::{Cluster, ClusterAdapter};
pub use field::Listing;
pub use fields::fields;
pub use first_page::FirstPage;
pub use flags::{Flags, HEADING};
pub use setting::Setting;
pub use source::{load, process_origins, unknown_variables};

/// The configuration of the server. `Debug` shows it like `imks check-config`, without secrets.
#[derive(Clone)]
pub struct Config {
    /// The address of HTTP and WebSocket. Port 0 selects a free port.
    pub listen: SocketAddr,
    /// The address of `/metrics` for operators; without it, `/metrics` is on [`Self::listen`].
    pub internal_listen: Option<SocketAddr>,
    /// Whether the first page is served.
    pub first_page: FirstPage,
    /// TLS on [`Self::internal_listen`].
    pub internal: internal::Config,
    /// The calls of back ends.
    pub control: control::Config,
    /// The address of an external core; without it, the embedded directory is the core.
    pub core_url: Option<Secret>,
    /// The limits of calls to the core.
    pub core: pb::Config,
    /// The cache of the core's answers about permissions.
    pub permissions: auth::PermissionConfig,
    /// The embedded directory. The issuer and audience of its tokens are in [`Self::token`].
    pub directory: directory::Config,
    /// The database and the data directory.
    pub database: db::Config,
    /// The append path.
    pub append: append::Config,
    /// The number of threads that handle connections; 0 for one of each core.
    pub worker_threads: usize,
    /// The feed.
    pub feed: feed::Config,
    /// The messages to the operator's back ends.
    pub webhook: webhook::Config,
    /// The events that the operator's application answers.
    pub application: application::Config,
    /// The HTTP listener.
    pub http: listener::Config,
    /// The certificate of both listeners.
    pub tls: tls::Config,
    /// The WebTransport listener.
    pub webtransport: webtransport::Config,
    /// The listener for QUIC without HTTP/3.
    pub quic: quic::Config,
    /// Engine.IO connections.
    pub engine: engine::Config,
    /// Namespaces and events.
    pub socket: socket::Config,
    /// The rules for accepting tokens.
    pub token: auth::TokenConfig,
    /// The logins of one's own application.
    pub login: auth::LoginConfig,
    /// The HTTP hook that decides about logins.
    pub hook: auth::HookConfig,
    /// The limits of the messaging features.
    pub messaging: messaging::Config,
    /// The files that are attached to messages.
    pub attachments: files::Config,
    /// The Admin UI.
    pub admin: Admin,
    /// The other nodes.
    pub cluster: Cluster,
    /// The log.
    pub log: logging::Config,
    /// The OTLP export of metrics.
    pub otlp: otlp::Config,
    /// The drain of the server.
    pub drain: Drain,
}

/// The timing of the drain after SIGTERM.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// How long the server reports that it is not ready while it still accepts sessions, so that load
    /// balancers notice.
    pub delay: Duration,
    /// The longest time from the end of `delay` until everything is closed.
    pub deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT)),
            internal_listen: None,
            first_page: FirstPage::Auto,
            internal: internal::Config::default(),
            control: control::Config::default(),
            core_url: None,
            core: pb::Config::default(),
            permissions: auth::PermissionConfig::default(),
            directory: directory::Config::default(),
            database: db::Config::default(),
            append: append::Config::default(),
            worker_threads: 0,
            feed: feed::Config::default(),
            webhook: webhook::Config::default(),
            application: application::Config::default(),
            http: listener::Config::default(),
            tls: tls::Config::default(),
            webtransport: webtransport::Config::default(),
            quic: quic::Config::default(),
            engine: engine::Config::default(),
            // Shorter than the reference's timeout, because clients of this server already have a token.
            socket: socket::Config { connect_timeout: CONNECT_TIMEOUT, ..socket::Config::default() },
            token: auth::TokenConfig::default(),
            login: auth::LoginConfig::default(),
            hook: auth::HookConfig::default(),
            messaging: messaging::Config::default(),
            attachments: files::Config::default(),
            admin: Admin::default(),
            cluster: Cluster::default(),
            log: logging::Config::default(),
            otlp: otlp::Config::default(),
            drain: Drain { delay: Duration::ZERO, deadline: DRAIN_DEADLINE },
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = Listing::of(&mut self.clone()).rows;
        formatter.debug_map().entries(rows.iter().map(|row| (row.field.key, &row.value))).finish()
    }
}

impl Config {
    /// Overrides the values of `base` with those of the file, the process environment and the flags; see
    /// [`load`].
    pub fn from_process(
        base: Self,
        file: Option<PathBuf>,
        flags: &[(&str, String)],
    ) -> crate::ImksResult<Self> {
        load(base, file, &source::variable, flags)
    }

    /// Returns the settings of the embedded directory, with the issuer and audience that this server accepts, if it
    /// accepts tokens of the directory at all.
    pub fn directory(&self) -> directory::Config {
        let (issuer, audience) = (self.token.issuer().to_owned(), self.token.audience().to_owned());
        let issues_tokens = !self.login.is_in_use(&self.hook);
        directory::Config { issuer, audience, issues_tokens, ..self.directory.clone() }
    }

    /// Whether another machine may be able to connect.
    pub fn is_reachable_from_outside(&self) -> bool {
        !self.listen.ip().is_loopback()
    }

    /// Whether WebTransport is served.
    pub fn serves_webtransport(&self) -> bool {
        self.webtransport.is_on(&self.tls)
    }

    /// Returns the problems of the configuration, each as a sentence that says what to change.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, sentence: &str| {
            if !ok {
                problems.push(sentence.to_owned());
            }
        };
        check(
            !self.drain.deadline.is_zero(),
            "IMKS_DRAIN_DEADLINE must be longer than 0s, or nothing that was acknowledged could be flushed",
        );
        check(
            self.token.leeway <= Duration::from_secs(60),
            "IMKS_TOKEN_LEEWAY must be at most 1m, or expired tokens would be accepted for too long",
        );
        check(
            self.database.max_connections as usize > self.append.lanes,
            "IMKS_DATABASE_CONNECTIONS must be more than IMKS_APPEND_LANES: reading needs connections too",
        );
        problems.extend(bounds::problems(self));
        problems.extend(self.wrong_schemes().map(str::to_owned));
        problems.extend(self.tls.problems(self.is_reachable_from_outside()).map(str::to_owned));
        problems.extend(self.core.problems(self.core_url.as_ref().map(Secret::expose)).map(str::to_owned));
        check_client_ca(self, &mut problems);
        problems.extend(self.impossible().map(str::to_owned).chain(deadlines::problems(self)));
        problems.extend(self.first_page_problem().map(str::to_owned));
        problems.extend(self.internal.problems().map(str::to_owned));
        problems.extend(self.control.problems(self.internal_listen).map(str::to_owned));
        problems.extend(self.token.problems().map(str::to_owned));
        problems.extend(self.login.problems(&self.hook, self.core_url.is_some()));
        problems.extend(self.webhook.problems(&self.feed));
        problems.extend(self.application.problems());
        problems.extend(self.admin.problems());
        problems.extend(self.attachments.problems().map(str::to_owned));
        problems.extend(self.cluster.problems(self.database.url.as_ref()));
        // What is told already is not told again in the words of the library.
        let is_told = problems.iter().any(|problem| problem.starts_with("IMKS_ENGINE_"));
        let engine = self.engine.validate().err().filter(|_| !is_told);
        problems.extend(engine.map(|error| error.to_string()));
        problems.extend(self.otlp.validate().err().map(|error| error.to_string()));
        if let Err(why) = logging::check_filter(&self.log.filter) {
            problems.push(format!("RUST_LOG (log.filter in a file) is not a log filter: {why}"));
        }
        problems
    }

    /// Returns the problems of URLs that are of another kind.
    fn wrong_schemes(&self) -> impl Iterator<Item = &'static str> {
        let is_of = |url: &Option<Secret>, schemes: &[&str]| {
            url.as_ref().is_none_or(|url| schemes.iter().any(|scheme| url.expose().starts_with(scheme)))
        };
        let database = is_of(&self.database.url, &["postgres://", "postgresql://", "sqlite:"]);
        let checks = [
            (database, "DATABASE_URL must start with postgres:// or sqlite:"),
            (
                is_of(&self.core_url, &["http://", "https://"]),
                "IMKS_CORE_URL must start with http:// or https://",
            ),
            (
                is_of(&self.cluster.redis_url, &REDIS_SCHEMES),
                "REDIS_URL must start with redis:// or rediss://, redis-cluster:// or rediss-cluster://, redis-sentinel:// or \
                 rediss-sentinel://",
            ),
        ];
        checks.into_iter().filter(|(is_right, _)| !is_right).map(|(_, sentence)| sentence)
    }

    /// Returns the problems of values that have the right form, but with which nothing could work.
    fn impossible(&self) -> impl Iterator<Item = &'static str> {
        let has_host = |url: &Option<Secret>| {
            let rest = url.as_ref().and_then(|url| url.expose().split_once("://"));
            rest.is_none_or(|(_, rest)| !rest.is_empty())
        };
        let addresses_differ = self.internal_listen.is_none_or(|address| !collide(address, self.listen));
        let checks = [
            (has_host(&self.database.url), "DATABASE_URL has no host"),
            (has_host(&self.core_url), "IMKS_CORE_URL has no host"),
            (addresses_differ, "IMKS_INTERNAL_LISTEN and IMKS_LISTEN must be two addresses"),
            (self.messaging.node.as_deref().is_none_or(is_name), NODE_RULE),
            (self.engine.max_payload >= PAYLOAD_MIN, PAYLOAD_RULE),
            (!is_taken(&self.engine.path), PATH_RULE),
            (self.feed.retention <= feed::RETENTION_MAX, FEED_RETENTION),
            (self.messaging.retention.is_possible(), MESSAGE_RETENTION),
            (!self.http.proxy_protocol || !self.http.trusted_proxies.is_empty(), PROXY_PROTOCOL),
            (!self.quic.zero_rtt || self.quic.listen.is_some(), QUIC_EARLY),
            (self.socket.unjoined_max > 0, UNJOINED_RULE),
            (self.worker_threads <= WORKERS_MAX, WORKERS_RULE),
            (
                self.http.tcp_keepalive.is_zero() || KEEPALIVE.contains(&self.http.tcp_keepalive.as_secs()),
                KEEPALIVE_RULE,
            ),
        ];
        let wrong = checks.into_iter().filter(|(fine, _)| !fine).map(|(_, sentence)| sentence);
        wrong.chain(self.quic.problem())
    }

    /// Checks that the configuration can work.
    ///
    /// # Errors
    /// [`ImksError::Config`](crate::ImksError::Config) with all [`Config::problems`].
    pub fn validate(&self) -> crate::ImksResult<()> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(crate::ImksError::Config(problems.join("\n"))) }
    }
}

/// Whether only one of two addresses can be listened on. Every address includes each single one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = one.ip() == other.ip()
        || one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified());
    overlap && one.port() == other.port() && one.port() != 0
}

/// Whether one of the other routes is below a path of the engine, or the path is below such a route.
fn is_taken(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let is_below =
        |low: &str, high: &str| low.strip_prefix(high).is_some_and(|it| it.is_empty() || it.starts_with('/'));
    ROUTES.iter().any(|route| is_below(route, path) || is_below(path, route))
}

/// Whether a text can be shown as a name, in one line.
fn is_name(text: &str) -> bool {
    text.chars().count() <= NODE_CHARS_MAX && !text.chars().any(char::is_control)
}

fn check_client_ca(config: &Config, problems: &mut Vec<String>) {
    if config.directory.client_ca.is_some() && !config.tls.is_on() {
        let text = "IMKS_DIRECTORY_CLIENT_CA needs IMKS_TLS_CERT and IMKS_TLS_KEY";
        problems.push(text.to_owned());
    }
}

const PORT_DEFAULT: u16 = 3000;
/// The smallest limit of packets that is of use.
const PAYLOAD_MIN: usize = 10_000;
const PAYLOAD_RULE: &str =
    "IMKS_ENGINE_MAX_PAYLOAD must be at least 10000, or ordinary messages would not fit";
/// The routes of the public listener beside those of the engine.
const ROUTES: [&str; 7] = ["/health", "/metrics", "/api/v1", "/admin", "/first", "/cluster", "/webtransport"];
const PATH_RULE: &str = "IMKS_ENGINE_PATH must be a path of its own, for example /socket.io: others are at / and below /health, \
                         /metrics, /api/v1, /admin, /first, /cluster and /webtransport";
/// How addresses of Redis begin.
const REDIS_SCHEMES: [&str; 2] = ["redis", "valkey"];
/// The most characters in the name of a node.
const NODE_CHARS_MAX: usize = 100;
const NODE_RULE: &str = "IMKS_NODE must be at most 100 characters, none of them a control character";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most threads that may be asked for; each has a stack of its own.
const WORKERS_MAX: usize = 1_024;
const WORKERS_RULE: &str = "IMKS_WORKER_THREADS must be at most 1024, or 0 for one of each core";
const UNJOINED_RULE: &str = "IMKS_UNJOINED_MAX must be at least 1, or nobody can sign in";
/// The seconds that Linux takes.
const KEEPALIVE: std::ops::RangeInclusive<u64> = 1..=32_767;
const KEEPALIVE_RULE: &str = "IMKS_TCP_KEEPALIVE must be from 1s to 32767s, or 0s for never";
const FEED_RETENTION: &str =
    "IMKS_FEED_RETENTION must be at most 14d, as long as changes of messages are kept";
const MESSAGE_RETENTION: &str =
    "IMKS_MESSAGE_RETENTION must be 0s (for ever) or at least 24h, as long as repeated sends are recognised";
const PROXY_PROTOCOL: &str =
    "IMKS_PROXY_PROTOCOL needs IMKS_TRUSTED_PROXIES: the addresses that may speak it";
const QUIC_EARLY: &str = "IMKS_QUIC_0RTT needs IMKS_QUIC_LISTEN: WebTransport has no 0-RTT";
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn load_from(env: &[(&str, &str)], flags: &[(&str, String)]) -> crate::ImksResult<Config> {
        let map: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        load(Config::default(), None, &|name| map.get(name).cloned(), flags)
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
        for part in [
            "lissten",
            "did you mean core.deadline or webhook.deadline or events.deadline or auth.deadline or drain.deadline?",
            "IMKS_LISTEN is \"3000\"",
            "DATABASE_URL must start",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn what_can_never_work_is_refused() {
        for (variable, value) in [
            ("IMKS_CORE_URL", "http://"),
            ("DATABASE_URL", "postgres://"),
            ("IMKS_LISTEN", "127.0.0.1:99999"),
            ("IMKS_INTERNAL_LISTEN", "127.0.0.1:3000"),
            ("IMKS_INTERNAL_LISTEN", ":3000"),
            ("IMKS_NODE", "a\nb"),
            ("IMKS_DATA_DIR", "a\u{fffd}"),
            ("IMKS_CORS_ORIGINS", "example.com"),
            ("IMKS_CORS_ORIGINS", "https://example.com/"),
            ("IMKS_CORS_ORIGINS", "https://a.example,*"),
            ("IMKS_CORS_ORIGINS", "https://*.example"),
            ("IMKS_CORS_ORIGINS", "https://A.example"),
            ("IMKS_CORS_ORIGINS", "https://a.example:443"),
            ("IMKS_CORS_ORIGINS", "https://a.example:99999"),
            ("IMKS_S3_ENDPOINT", "https://im:hunter2@s3.example"),
            ("IMKS_S3_INTERNAL_ENDPOINT", "http://s3?token=hunter2"),
            ("REDIS_URL", "http://redis:6379"),
            ("IMKS_ENGINE_MAX_PAYLOAD", "1"),
            ("IMKS_ENGINE_PING_INTERVAL", "4s"),
            ("IMKS_ENGINE_PING_INTERVAL", "9h"),
            ("IMKS_ENGINE_PING_TIMEOUT", "10ms"),
            ("IMKS_HTTP_HEAD", "20s"),
            ("IMKS_CONNECT_TIMEOUT", "0s"),
            ("IMKS_WS_HEARTBEAT_INTERVAL", "30"),
            ("IMKS_WS_READ_TIMEOUT", "60s"),
            ("IMKS_LISTEN_FILE", "/run/listen"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("RUST_LOG", "verbose"),
            ("IMKS_ATTACHMENTS_ADDRESS_LIFETIME", "30h"),
            ("IMKS_ATTACHMENTS_SIZE", "0"),
            ("IMKS_QUIC_0RTT", "true"),
            ("IMKS_UNJOINED_MAX", "0"),
            ("IMKS_WORKER_THREADS", "1025"),
            ("IMKS_WORKER_THREADS", "many"),
            ("IMKS_TCP_KEEPALIVE", "500ms"),
            ("IMKS_TCP_KEEPALIVE", "10h"),
            ("PORT", "http"),
            ("PORT", "127.0.0.1:80"),
        ] {
            let text = load_from(&[(variable, value)], &[]).unwrap_err().to_string();
            assert!(text.contains(variable), "{variable}={value}: {text}");
        }
    }

    #[test]
    fn an_engine_path_that_no_client_asks_for_or_that_another_route_has_is_refused() {
        for path in [
            "socket.io",
            "/a b",
            "/a?b",
            "/a/../b",
            "/",
            "/api",
            "/api/v1/",
            "/api/v1/files",
            "/health",
            "/metrics/",
            "/admin/x",
        ] {
            let text = load_from(&[("IMKS_ENGINE_PATH", path)], &[]).unwrap_err().to_string();
            assert!(text.contains("IMKS_ENGINE_PATH"), "{path}: {text}");
        }
    }

    #[test]
    fn an_engine_path_beside_the_other_routes_is_fine() {
        for path in ["/socket.io", "/api/socket.io", "/healthy", "/chat/"] {
            load_from(&[("IMKS_ENGINE_PATH", path)], &[]).unwrap();
        }
    }

    #[test]
    fn secrets_that_sign_may_come_from_a_file() {
        let file = file("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n");
        let path = file.path().to_str().unwrap();
        let env = [("IMKS_WEBHOOK_SECRET_FILE", path), ("IMKS_EVENTS_SECRET_FILE", path)];
        let mut config = load_from(&env, &[]).unwrap();
        assert_eq!((config.webhook.secret.len(), config.application.secret.len()), (2, 2));
        let shown = format!("{:?}", Listing::of(&mut config));
        assert!(!shown.contains("MfKQ9r") && !shown.contains("C2FVsB"));
    }

    #[test]
    fn an_empty_filter_of_the_log_is_one_that_is_not_set() {
        let filter = |env: &[(&str, &str)]| load_from(env, &[]).unwrap().log.filter;
        assert_eq!(filter(&[("RUST_LOG", "")]), filter(&[]));
        assert_eq!(filter(&[("RUST_LOG", "off")]), "off");
    }

    #[test]
    fn a_number_of_the_file_that_must_be_whole_says_so() {
        let file = file("[limits]\nsessions_per_user = 1.5\n[otlp]\nsampler_arg = 0.25\n");
        let path = file.path().to_str().unwrap();
        let text = load_from(&[(source::CONFIG_FILE, path)], &[]).unwrap_err().to_string();
        assert!(text.contains("limits.sessions_per_user") && text.contains("a whole number"), "{text}");
        assert!(!text.contains("sampler_arg"), "{text}");
    }

    #[test]
    fn a_wrong_filter_of_the_log_is_told_by_the_name_that_the_file_has_too() {
        let file = file("[log]\nfilter = \"verbose\"\n");
        let path = file.path().to_str().unwrap();
        let text = load_from(&[(source::CONFIG_FILE, path)], &[]).unwrap_err().to_string();
        assert!(text.contains("log.filter") && text.contains("RUST_LOG"), "{text}");
    }

    #[test]
    fn a_platform_may_say_the_port_and_everything_of_ours_beats_it() {
        let listen = |env: &[(&str, &str)]| load_from(env, &[]).unwrap().listen.to_string();
        assert_eq!(listen(&[("PORT", "8080")]), "0.0.0.0:8080");
        assert_eq!(listen(&[("PORT", "8080"), ("IMKS_LISTEN", "127.0.0.1:1")]), "127.0.0.1:1");
        let env = |name: &str| (name == "PORT").then(|| "8080".to_owned());
        let origins = source::origins(None, &env, &[("data_dir", "/x".into())]);
        assert_eq!((&*origins["listen"], &*origins["data_dir"]), ("PORT", "--data-dir"));
    }

    #[test]
    fn a_misspelt_variable_is_noticed() {
        let names =
            ["IMKS_LISTN", "IMKS_LISTEN", "DATABASE_URL_FILE", "IMKS_SERVICE_HOST", "IMKS_CONFIG", "HOME"];
        let variables = names.iter().map(|name| ((*name).to_owned(), String::new()));
        assert_eq!(unknown_variables(variables), ["IMKS_LISTN"]);
        let port = |value: &str| unknown_variables(std::iter::once(("IMKS_PORT".into(), value.into())));
        assert_eq!(port("4000"), ["IMKS_PORT"]);
        assert!(port("tcp://10.0.0.1:3000").is_empty(), "Kubernetes sets it for a service named imks");
    }

    #[test]
    fn the_names_that_websocket_servers_have_elsewhere_are_names_of_the_same_settings() {
        let mut known = Config::default();
        let known = Listing::of(&mut known);
        for (alias, key) in source::ALIASES {
            let row = known.row(key).unwrap_or_else(|| panic!("{key} of {alias} is no setting"));
            let mut by_alias = load_from(&[(alias, &row.value)], &[]).unwrap();
            assert_eq!(Listing::of(&mut by_alias).row(key).unwrap().value, row.value, "{alias}");
            let both =
                load_from(&[(alias, &row.value), (row.field.env, &row.value)], &[]).unwrap_err().to_string();
            assert!(both.contains(alias) && both.contains(row.field.env), "{both}");
            assert!(
                unknown_variables(std::iter::once((alias.to_owned(), String::new()))).is_empty(),
                "{alias}"
            );
        }
        let config =
            load_from(&[("IMKS_WS_HEARTBEAT_INTERVAL", "20s"), ("IMKS_WS_TCP_NODELAY", "false")], &[])
                .unwrap();
        assert_eq!((config.engine.ping_interval, config.http.tcp_nodelay), (Duration::from_secs(20), false));
    }

    #[test]
    fn no_variable_of_the_table_is_unknown() {
        for field::Row { field, secret, .. } in Listing::of(&mut Config::default()).rows {
            let file = secret.then(|| format!("{}_FILE", field.env));
            let names = [Some(field.env.to_owned()), file].into_iter().flatten();
            let unknown = unknown_variables(names.map(|name| (name, "4000".to_owned())));
            assert!(unknown.is_empty(), "{unknown:?}");
        }
    }

    #[test]
    fn a_secret_may_come_from_a_file_and_is_never_shown() {
        let file = file("postgres://im:hunter2@db/imks\n");
        let path = file.path().to_str().unwrap();
        let mut config = load_from(&[("DATABASE_URL_FILE", path)], &[]).unwrap();
        assert_eq!(config.database.url, Some("postgres://im:hunter2@db/imks".into()));
        for shown in [format!("{config:?}"), format!("{:?}", Listing::of(&mut config))] {
            assert!(shown.contains("***@db") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_secret_that_is_given_twice_or_in_an_empty_file_is_no_secret_that_is_not_set() {
        let (url, empty) = (file("postgres://im@db/imks"), file("\n"));
        let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
        let twice = [("DATABASE_URL_FILE", &*path(&url)), ("DATABASE_URL", "sqlite:a.db")];
        let text = load_from(&twice, &[]).unwrap_err().to_string();
        assert_eq!(text, "DATABASE_URL and DATABASE_URL_FILE are both set: choose one");
        let text = load_from(&[("DATABASE_URL_FILE", &path(&empty))], &[]).unwrap_err().to_string();
        assert!(text.contains("DATABASE_URL_FILE points to") && text.ends_with("which is empty"), "{text}");
        let not_set = [("DATABASE_URL_FILE", ""), ("DATABASE_URL", "")];
        assert_eq!(load_from(&not_set, &[]).unwrap().database.url, None);
    }

    #[test]
    fn no_secret_is_told_by_a_problem() {
        let broken = file("[database]\nurl = \"postgres://im:hunter2@db\n");
        let env = [
            (source::CONFIG_FILE, broken.path().to_str().unwrap()),
            ("DATABASE_URL", "hunter2://im:hunter2@db"),
            ("IMKS_CORE_URL", "user:hunter2@core"),
            ("IMKS_ADMIN", "true"),
            ("IMKS_ADMIN_USERNAME", "operator"),
            ("IMKS_ADMIN_PASSWORD_HASH", "hunter2"),
        ];
        let env = env.into_iter().chain([
            ("IMKS_S3_ENDPOINT", "https://im:hunter2@s3.example"),
            ("IMKS_CORS_ORIGINS", "https://im:hunter2@app.example"),
            ("IMKS_LISTEN", "https://im:hunter2@here"),
        ]);
        let text = load_from(&env.collect::<Vec<_>>(), &[]).unwrap_err().to_string();
        for part in [
            "is not TOML, see line 2",
            "IMKS_S3_ENDPOINT",
            "IMKS_CORS_ORIGINS",
            "IMKS_LISTEN",
            "DATABASE_URL",
            "IMKS_CORE_URL",
            "IMKS_ADMIN_PASSWORD_HASH",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let rows = Listing::of(&mut Config::default()).rows;
        let flags: Vec<(&str, String)> =
            rows.iter().filter(|row| !row.secret).map(|row| (row.field.key, row.value.clone())).collect();
        let mut again = load_from(&[], &flags).unwrap();
        let values = |rows: &[field::Row]| rows.iter().map(|row| row.value.clone()).collect::<Vec<_>>();
        assert_eq!(values(&rows), values(&Listing::of(&mut again).rows));
    }
}
