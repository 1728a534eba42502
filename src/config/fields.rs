//! The one table of names: every value of the configuration, in the order of the document.

use std::time::Duration;

use super::field::{Field, Visitor};
use super::setting::Setting;
use super::{Config, Drain, admin};
use crate::engine::config::Origins;
use crate::http::{listener, tls, webtransport};
use crate::models::{append, db};
use crate::{engine, messaging, telemetry};

/// Shows every value to `visitor`, in the order of the document.
pub fn fields(config: &mut Config, visitor: &mut impl Visitor) {
    server_fields(config, visitor);
    database_fields(&mut config.database, visitor);
    append_fields(&mut config.append, visitor);
    http_fields(&mut config.http, visitor);
    tls_fields(&mut config.tls, visitor);
    webtransport_fields(&mut config.webtransport, visitor);
    engine_fields(&mut config.engine, visitor);
    deflate_fields(&mut config.engine, visitor);
    client_fields(&mut config.engine, visitor);
    connect_fields(config, visitor);
    limit_fields(&mut config.messaging, visitor);
    admin::fields(&mut config.admin, visitor);
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
        Field::new(
            "internal_listen",
            "IMKS_INTERNAL_LISTEN",
            "Address and port for operators: `/metrics` and `/health`; not set: `/metrics` is on the public port",
        ),
        &mut config.internal_listen,
    );
    visitor.field(
        Field::new("data_dir", "IMKS_DATA_DIR", "Directory of the SQLite file"),
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

fn append_fields(config: &mut append::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new(
            "append.lanes",
            "IMKS_APPEND_LANES",
            "PostgreSQL connections that write messages; a channel always uses the same one. SQLite has one writer",
        ),
        &mut config.lanes,
    );
    visitor.field(
        Field::new("append.batch", "IMKS_APPEND_BATCH", "Messages in one commit at most"),
        &mut config.batch,
    );
    visitor.field(
        Field::new(
            "append.queue",
            "IMKS_APPEND_QUEUE",
            "Messages that may wait per lane; more are `overloaded`",
        ),
        &mut config.queue,
    );
    millis(
        Field::new(
            "append.outage",
            "IMKS_APPEND_OUTAGE",
            "How long a message waits for a database that is away before the answer is `unavailable`",
        ),
        &mut config.outage_ms,
        visitor,
    );
}

fn http_fields(config: &mut listener::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new("http.first_byte", "IMKS_HTTP_FIRST_BYTE", "How long a new TCP connection may be silent"),
        &mut config.first_byte_timeout,
    );
    visitor.field(
        Field::new(
            "http.head",
            "IMKS_HTTP_HEAD",
            "How long a request head may take, which is also how long a kept-alive connection may be idle",
        ),
        &mut config.head_timeout,
    );
    visitor.field(
        Field::new(
            "http.connections_max",
            "IMKS_HTTP_CONNECTIONS_MAX",
            "TCP connections that are no WebSocket; more are answered with 503",
        ),
        &mut config.connections_max,
    );
}

fn tls_fields(config: &mut tls::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new(
            "tls.cert",
            "IMKS_TLS_CERT",
            "PEM file with the certificate and its chain: HTTPS and secure WebSockets instead of plain ones",
        ),
        &mut config.cert,
    );
    visitor.field(
        Field::new("tls.key", "IMKS_TLS_KEY", "PEM file with the private key of the certificate"),
        &mut config.key,
    );
    visitor.field(
        Field::new(
            "tls.min_version",
            "IMKS_TLS_MIN_VERSION",
            "Oldest version of TLS over TCP, `1.2` or `1.3`; WebTransport always has 1.3",
        ),
        &mut config.min_version,
    );
    visitor.field(
        Field::new(
            "tls.require",
            "IMKS_REQUIRE_TLS",
            "Refuse to start without a certificate on an address that other machines can reach",
        ),
        &mut config.require,
    );
    visitor.field(
        Field::new(
            "tls.reload",
            "IMKS_TLS_RELOAD",
            "How often the two files are looked at; SIGHUP does it at once",
        ),
        &mut config.reload,
    );
    visitor.field(
        Field::new("tls.handshake", "IMKS_TLS_HANDSHAKE", "How long a TLS handshake may take"),
        &mut config.handshake_timeout,
    );
}

fn webtransport_fields(config: &mut webtransport::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new(
            "webtransport.mode",
            "IMKS_WEBTRANSPORT",
            "`auto`: if a certificate is configured; `on`: without one too, with a development certificate; `off`",
        ),
        &mut config.mode,
    );
    visitor.field(
        Field::new(
            "webtransport.listen",
            "IMKS_WEBTRANSPORT_LISTEN",
            "UDP address and port of WebTransport; not set: the same as `IMKS_LISTEN`, as clients expect",
        ),
        &mut config.listen,
    );
    visitor.field(
        Field::new(
            "webtransport.connections_max",
            "IMKS_WEBTRANSPORT_CONNECTIONS_MAX",
            "QUIC connections at once; more are refused",
        ),
        &mut config.connections_max,
    );
    visitor.field(
        Field::new(
            "webtransport.connections_per_address",
            "IMKS_WEBTRANSPORT_CONNECTIONS_PER_ADDRESS",
            "The same from one IPv4 address or one IPv6 network of 64 bits",
        ),
        &mut config.connections_per_address_max,
    );
}

fn engine_fields(config: &mut engine::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new("engine.path", "IMKS_ENGINE_PATH", "Path of Engine.IO, the client's option `path`"),
        &mut config.path,
    );
    visitor.field(
        Field::new("engine.polling", "IMKS_ENGINE_POLLING", "Whether clients may use HTTP long-polling"),
        &mut config.polling,
    );
    visitor.field(
        Field::new("engine.websocket", "IMKS_ENGINE_WEBSOCKET", "Whether clients may use WebSocket"),
        &mut config.websocket,
    );
    visitor.field(
        Field::new("engine.ping_interval", "IMKS_ENGINE_PING_INTERVAL", "Time between two heartbeats"),
        &mut config.ping_interval,
    );
    visitor.field(
        Field::new(
            "engine.ping_timeout",
            "IMKS_ENGINE_PING_TIMEOUT",
            "How long a client may take to answer a heartbeat",
        ),
        &mut config.ping_timeout,
    );
    visitor.field(
        Field::new(
            "engine.max_payload",
            "IMKS_ENGINE_MAX_PAYLOAD",
            "Largest packet or request body, in bytes",
        ),
        &mut config.max_payload,
    );
    visitor.field(
        Field::new(
            "engine.sessions_max",
            "IMKS_ENGINE_SESSIONS_MAX",
            "Connections of this node at once; more are answered with 503",
        ),
        &mut config.sessions_max,
    );
    let mut origins = Cors::of(config);
    visitor.field(
        Field::new(
            "engine.cors_origins",
            "IMKS_CORS_ORIGINS",
            "Origins of web pages that may connect, exactly as browsers send them, or `*`; not set: same origin only",
        ),
        &mut origins,
    );
    origins.apply(config);
}

fn deflate_fields(config: &mut engine::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new(
            "engine.per_message_deflate",
            "IMKS_ENGINE_PER_MESSAGE_DEFLATE",
            "Whether WebSocket messages are compressed for clients that offer it; costs CPU time, see below",
        ),
        &mut config.per_message_deflate,
    );
    visitor.field(
        Field::new(
            "engine.per_message_deflate_threshold",
            "IMKS_ENGINE_PER_MESSAGE_DEFLATE_THRESHOLD",
            "Bytes of a message, from which on it is compressed",
        ),
        &mut config.per_message_deflate_threshold,
    );
}

/// For clients that are old, or that come from here.
fn client_fields(config: &mut engine::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new(
            "engine.allow_eio3",
            "IMKS_ENGINE_ALLOW_EIO3",
            "Whether clients of Socket.IO v2 (Engine.IO 3) are served; their socket id is their session id, a secret otherwise",
        ),
        &mut config.allow_eio3,
    );
    visitor.field(
        Field::new(
            "engine.client_bundle_dir",
            "IMKS_CLIENT_BUNDLE_DIR",
            "Directory `dist` of the npm package socket.io-client, served as `/socket.io/socket.io.js`",
        ),
        &mut config.client_bundle_dir,
    );
}

/// The part of the engine's cross-origin settings that can be configured.
struct Cors(Vec<String>);

impl Cors {
    fn of(config: &engine::Config) -> Self {
        Self(match config.cors.as_ref().map(|cors| &cors.origins) {
            None => Vec::new(),
            Some(Origins::Any) => vec![ANY_ORIGIN.into()],
            Some(Origins::List(list)) => list.clone(),
        })
    }

    /// Credentials stay off: identity comes from the token, never from a cookie.
    fn apply(self, config: &mut engine::Config) {
        let origins = match self.0.as_slice() {
            [] => return config.cors = None,
            [one] if one == ANY_ORIGIN => Origins::Any,
            _ => Origins::List(self.0),
        };
        config.cors = Some(engine::config::Cors { origins, ..config.cors.take().unwrap_or_default() });
    }
}

impl Setting for Cors {
    fn parse(text: &str) -> Result<Self, String> {
        Vec::parse(text).map(Self)
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

fn connect_fields(config: &mut Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new(
            "socket.connect_timeout",
            "IMKS_CONNECT_TIMEOUT",
            "How long a new connection may take to sign in",
        ),
        &mut config.socket.connect_timeout,
    );
    visitor.field(
        Field::new(
            "socket.events_in_flight",
            "IMKS_EVENTS_IN_FLIGHT",
            "Events of one connection that may be waiting for their answer; then it is not read from",
        ),
        &mut config.socket.events_in_flight_max,
    );
    visitor.field(
        Field::new(
            "socket.parser",
            "IMKS_PARSER",
            "How packets are written: `json`, or `msgpack` for clients with npm socket.io-msgpack-parser, and only for them",
        ),
        &mut config.socket.parser,
    );
    visitor.field(
        Field::new("token.issuers", "IMKS_TOKEN_ISSUERS", "Accepted `iss` of tokens"),
        &mut config.token.issuers,
    );
    visitor.field(
        Field::new("token.audience", "IMKS_TOKEN_AUDIENCE", "Required `aud` of tokens"),
        &mut config.token.audience,
    );
    visitor.field(
        Field::new("token.leeway", "IMKS_TOKEN_LEEWAY", "How much the core's clock may differ; at most 1m"),
        &mut config.token.leeway,
    );
}

fn limit_fields(config: &mut messaging::Config, visitor: &mut impl Visitor) {
    visitor.field(
        Field::new("node", "IMKS_NODE", "Name of this node, as clients see it in `session:ready`"),
        &mut config.node,
    );
    visitor.field(
        Field::new(
            "limits.events",
            "IMKS_LIMIT_EVENTS",
            "Events of one connection: per second / at once; `off` is no limit",
        ),
        &mut config.events,
    );
    visitor.field(
        Field::new("limits.connects", "IMKS_LIMIT_CONNECTS", "Connections that one user opens"),
        &mut config.connects,
    );
    visitor.field(
        Field::new("limits.sends", "IMKS_LIMIT_SENDS", "Messages, edits and deletions of one user"),
        &mut config.sends,
    );
    visitor.field(
        Field::new(
            "limits.sends_per_channel",
            "IMKS_LIMIT_SENDS_PER_CHANNEL",
            "The same of one user in one channel",
        ),
        &mut config.sends_per_channel,
    );
    visitor.field(
        Field::new(
            "limits.sessions_per_user",
            "IMKS_LIMIT_SESSIONS_PER_USER",
            "Connections of one user at once; 0 is no limit",
        ),
        &mut config.sessions_per_user,
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

const ANY_ORIGIN: &str = "*";
