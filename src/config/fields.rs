//! The table of all configuration values, in the order of the documentation.
//!
//! A row is `key (field): "VARIABLE" = "What it does";`, where `(field)` is given if the field is not named
//! like the key.

use super::Config;
use super::field::{Field, Visitor};

macro_rules! settings {
    ($config:ident; $($prefix:literal in $owner:expr => {
        $($key:ident $(($field:ident))?: $env:literal = $help:literal;)+
    })+) => {
        /// Calls `visitor` with every value, in the order of the documentation.
        pub fn fields($config: &mut Config, visitor: &mut impl Visitor) {
            $($(visitor.field(
                Field { key: concat!($prefix, stringify!($key)), env: $env, help: $help },
                settings!(@slot $owner, $key $($field)?),
            );)+)+
        }
    };
    (@slot $owner:expr, $key:ident) => { &mut $owner.$key };
    (@slot $owner:expr, $key:ident $field:ident) => { &mut $owner.$field };
}

settings! {
    config;

    "" in config => {
        listen: "IMKS_LISTEN" = "Address and port of HTTP and WebSocket; port 0 takes a free one";
        internal_listen: "IMKS_INTERNAL_LISTEN" =
            "Address and port for operators: `/metrics` and `/health`; not set: `/metrics` is on the public port";
    }
    "" in config.database => {
        data_dir: "IMKS_DATA_DIR" = "Directory of the SQLite file";
    }
    "" in config => {
        core_url: "IMKS_CORE_URL" =
            "gRPC address of the core, for example `http://core:9000`; not set: the embedded directory";
    }

    "core." in config.core => {
        deadline: "IMKS_CORE_DEADLINE" = "How long a call to the core may take, its retries included";
        calls (calls_max): "IMKS_CORE_CALLS" = "Calls to the core at once; more wait within their deadline";
        retries (retries_max): "IMKS_CORE_RETRIES" = "Further attempts while the core cannot be reached";
        retry_pause: "IMKS_CORE_RETRY_PAUSE" = "Pause before the first further attempt; it doubles";
        answer_bytes (answer_bytes_max): "IMKS_CORE_ANSWER_BYTES" = "Largest answer of the core, in bytes";
    }
    "permissions." in config.permissions => {
        ttl: "IMKS_PERMISSIONS_TTL" = "How long an answer of the core about permissions is kept";
        ttl_denied: "IMKS_PERMISSIONS_TTL_DENIED" =
            "How long it is kept when somebody may not even see the channel: joining is expected to work soon";
        stale (stale_max): "IMKS_PERMISSIONS_STALE" =
            "How long an answer counts for reading and writing while the core is silent";
        outage_pause: "IMKS_PERMISSIONS_OUTAGE_PAUSE" = "Time between two questions while the core is silent";
        entries (entries_max): "IMKS_PERMISSIONS_ENTRIES" = "Answers kept at most";
    }
    "directory." in config.directory => {
        poll: "IMKS_DIRECTORY_POLL" = "How often the embedded directory looks for changes of other processes";
        change_horizon: "IMKS_DIRECTORY_CHANGE_HORIZON" =
            "How long it keeps changes for streams that were interrupted";
        key_overlap: "IMKS_DIRECTORY_KEY_OVERLAP" =
            "How long tokens of a key are good after the key was replaced";
    }

    "database." in config.database => {
        url: "DATABASE_URL" =
            "`postgres://…` or `sqlite:…`; not set: the file `imks.db` in the data directory";
        connections (max_connections): "IMKS_DATABASE_CONNECTIONS" =
            "Connections to PostgreSQL, those that write messages included";
        sqlite_readers: "IMKS_SQLITE_READERS" = "Connections to SQLite that read; exactly one writes";
        sqlite_synchronous: "IMKS_SQLITE_SYNCHRONOUS" =
            "`full`: an acknowledged message survives a power cut; `normal`: it survives the process only";
        sqlite_busy_timeout: "IMKS_SQLITE_BUSY_TIMEOUT" =
            "How long a write to SQLite waits for another process that is writing";
        statement_timeout: "IMKS_DATABASE_STATEMENT_TIMEOUT" = "How long PostgreSQL may work on one statement";
        acquire_timeout: "IMKS_DATABASE_ACQUIRE_TIMEOUT" =
            "How long a query waits for a free connection before the answer is `overloaded`";
    }
    "append." in config.append => {
        lanes: "IMKS_APPEND_LANES" =
            "PostgreSQL connections that write messages; a channel always uses the same one. SQLite has one writer";
        batch: "IMKS_APPEND_BATCH" = "Messages in one commit at most";
        queue: "IMKS_APPEND_QUEUE" = "Messages that may wait per lane; more are `overloaded`";
        linger: "IMKS_APPEND_LINGER" =
            "How long an idle lane waits for company before it writes; more than 0s helps only where commits are very slow";
        outage: "IMKS_APPEND_OUTAGE" =
            "How long a message waits for a database that is away before the answer is `unavailable`";
        batch_timeout: "IMKS_APPEND_BATCH_TIMEOUT" =
            "How long one commit may take before its connection is given up and it is tried again";
        commits (commits_queue): "IMKS_APPEND_COMMITS" =
            "Commits that may wait to be told to clients; then their lane waits";
    }

    "http." in config.http => {
        first_byte (first_byte_timeout): "IMKS_HTTP_FIRST_BYTE" =
            "How long a new TCP connection may be silent";
        head (head_timeout): "IMKS_HTTP_HEAD" =
            "How long a request head may take, which is also how long a kept-alive connection may be idle";
        write (write_timeout): "IMKS_HTTP_WRITE" =
            "How long a peer may take nothing of an answer before it is cut";
        head_bytes (head_bytes_max): "IMKS_HTTP_HEAD_BYTES" = "Largest request head, in bytes";
        request (request_timeout): "IMKS_HTTP_REQUEST" =
            "How long a request beside Socket.IO may take, its answer included";
        connections_max: "IMKS_HTTP_CONNECTIONS_MAX" =
            "TCP connections that are not WebSockets; more are answered with 503";
    }
    "tls." in config.tls => {
        cert: "IMKS_TLS_CERT" =
            "PEM file with the certificate and its chain: HTTPS and secure WebSockets instead of plain ones";
        key: "IMKS_TLS_KEY" = "PEM file with the private key of the certificate";
        min_version: "IMKS_TLS_MIN_VERSION" =
            "Oldest version of TLS over TCP, `1.2` or `1.3`; WebTransport always has 1.3";
        require: "IMKS_REQUIRE_TLS" =
            "Refuse to start without a certificate on an address that other machines can reach";
        reload: "IMKS_TLS_RELOAD" = "How often the two files are checked; SIGHUP does it at once";
        handshake (handshake_timeout): "IMKS_TLS_HANDSHAKE" = "How long a TLS handshake may take";
    }
    "webtransport." in config.webtransport => {
        mode: "IMKS_WEBTRANSPORT" =
            "`auto`: if a certificate is configured; `on`: without one too, with a development certificate; `off`";
        listen: "IMKS_WEBTRANSPORT_LISTEN" =
            "UDP address and port of WebTransport; not set: the same as `IMKS_LISTEN`, as clients expect";
        connections_max: "IMKS_WEBTRANSPORT_CONNECTIONS_MAX" = "QUIC connections at once; more are refused";
        connections_per_address (connections_per_address_max): "IMKS_WEBTRANSPORT_CONNECTIONS_PER_ADDRESS" =
            "QUIC connections at once from one IPv4 address or one IPv6 network of 64 bits";
        handshake (handshake_timeout): "IMKS_WEBTRANSPORT_HANDSHAKE" =
            "How long a QUIC connection may take to ask for a session";
    }

    "engine." in config.engine => {
        path: "IMKS_ENGINE_PATH" = "Path of Engine.IO, the client's option `path`";
        polling: "IMKS_ENGINE_POLLING" = "Whether clients may use HTTP long-polling";
        websocket: "IMKS_ENGINE_WEBSOCKET" = "Whether clients may use WebSocket";
        ping_interval: "IMKS_ENGINE_PING_INTERVAL" = "Time between two heartbeats";
        ping_timeout: "IMKS_ENGINE_PING_TIMEOUT" = "How long a client may take to answer a heartbeat";
        upgrade_timeout: "IMKS_ENGINE_UPGRADE_TIMEOUT" =
            "How long another transport may take to take over from polling";
        body_timeout: "IMKS_ENGINE_BODY_TIMEOUT" = "How long the body of a POST may take to arrive";
        close_timeout: "IMKS_ENGINE_CLOSE_TIMEOUT" =
            "How long a connection that is closed may take to fetch what waits for it";
        max_payload: "IMKS_ENGINE_MAX_PAYLOAD" = "Largest packet or request body, in bytes";
        sessions_max: "IMKS_ENGINE_SESSIONS_MAX" =
            "Connections of this node at once; more are answered with 503";
        accept_queue: "IMKS_ENGINE_ACCEPT_QUEUE" =
            "New connections that may wait to be served; more are answered with 503";
        inbound_messages (inbound_messages_max): "IMKS_ENGINE_INBOUND_MESSAGES" =
            "Messages of a polling client that may wait to be handled before the answer of its POST is held back";
        cors_origins (cors): "IMKS_CORS_ORIGINS" =
            "Origins of web pages that may connect, exactly as browsers send them, or `*`; not set: same origin only";
        http_compression: "IMKS_ENGINE_HTTP_COMPRESSION" =
            "Smallest answer to a polling client, in bytes, that is compressed; empty: none is";
        per_message_deflate: "IMKS_ENGINE_PER_MESSAGE_DEFLATE" =
            "Whether WebSocket messages are compressed for clients that offer it; costs CPU time, see below";
        per_message_deflate_threshold: "IMKS_ENGINE_PER_MESSAGE_DEFLATE_THRESHOLD" =
            "Smallest message, in bytes, that is compressed";
        allow_eio3: "IMKS_ENGINE_ALLOW_EIO3" =
            "Whether clients of Socket.IO v2 (Engine.IO 3) are served; their socket id is their session id, a secret otherwise";
        client_bundle_dir: "IMKS_CLIENT_BUNDLE_DIR" =
            "Directory `dist` of the npm package socket.io-client, served as `/socket.io/socket.io.js`";
    }
    "outbox." in config.engine.outbox => {
        packets (packets_max): "IMKS_OUTBOX_PACKETS" = "Packets that may wait for one client, always";
        bytes (bytes_max): "IMKS_OUTBOX_BYTES" =
            "Bytes that may wait for one client of WebSocket or WebTransport, always";
        blocked_packets (blocked_packets_max): "IMKS_OUTBOX_BLOCKED_PACKETS" =
            "Packets that may wait while its connection takes nothing more; then it is closed as a slow consumer";
        blocked_bytes (blocked_bytes_max): "IMKS_OUTBOX_BLOCKED_BYTES" =
            "Bytes that may wait while its connection takes nothing more; then it is closed as a slow consumer";
        polling_bytes (polling_bytes_max): "IMKS_OUTBOX_POLLING_BYTES" =
            "Bytes that may wait for one polling client";
        pressure_packets: "IMKS_OUTBOX_PRESSURE_PACKETS" =
            "Waiting packets from which on senders are told to slow down";
        pressure_bytes: "IMKS_OUTBOX_PRESSURE_BYTES" =
            "Waiting bytes from which on senders are told to slow down";
        answer_bytes (answer_bytes_high): "IMKS_OUTBOX_ANSWER_BYTES" =
            "Bytes of answers to a client's own requests that may wait for it; beyond that nothing more is read from it";
    }
    "socket." in config.socket => {
        connect_timeout: "IMKS_CONNECT_TIMEOUT" = "How long a new connection may take to sign in";
        events_in_flight (events_in_flight_max): "IMKS_EVENTS_IN_FLIGHT" =
            "Events of one connection that may wait for their answer; beyond that no further events are read";
        events_waiting_bytes (events_waiting_bytes_max): "IMKS_EVENTS_WAITING_BYTES" =
            "Bytes of events of one connection that may wait to be handled; then it is not read from";
        namespaces (namespaces_max): "IMKS_NAMESPACES" =
            "Namespaces that one connection may join; one more is refused";
        parser: "IMKS_PARSER" =
            "How packets are written: `json`, or `msgpack` for clients with npm socket.io-msgpack-parser, and only for them";
    }

    "token." in config.token => {
        issuers: "IMKS_TOKEN_ISSUERS" = "Accepted `iss` of tokens";
        audience: "IMKS_TOKEN_AUDIENCE" = "Required `aud` of tokens";
        leeway: "IMKS_TOKEN_LEEWAY" = "How much the core's clock may differ; at most 1m";
        lifetime (lifetime_max): "IMKS_TOKEN_LIFETIME" = "Longest life of a token";
        refresh: "IMKS_TOKEN_REFRESH" = "Time between two looks at the keys of the core";
        refresh_pause: "IMKS_TOKEN_REFRESH_PAUSE" = "Least time between two looks because of an unknown key";
        key_grace: "IMKS_TOKEN_KEY_GRACE" =
            "How long a key is good after the core stopped listing it, when it has no earlier end";
    }
    "" in config.messaging => {
        node: "IMKS_NODE" =
            "Name of this node, as clients see it in `session:ready`; not set: a new random one at each start";
    }
    "limits." in config.messaging => {
        events: "IMKS_LIMIT_EVENTS" = "Events of one connection: per second / at once; `off` is no limit";
        connects: "IMKS_LIMIT_CONNECTS" = "Connections that one user opens";
        sends: "IMKS_LIMIT_SENDS" = "Messages, edits and deletions of one user";
        sends_per_channel: "IMKS_LIMIT_SENDS_PER_CHANNEL" =
            "Messages, edits and deletions of one user in one channel";
        sessions_per_user: "IMKS_LIMIT_SESSIONS_PER_USER" =
            "Connections of one user at once; 0 is no limit";
    }
    "limits.answers_" in config.messaging.answers => {
        connection (connection_bytes): "IMKS_LIMIT_ANSWERS_CONNECTION" =
            "Bytes of large answers under way on one connection";
        user (user_bytes): "IMKS_LIMIT_ANSWERS_USER" = "Bytes of large answers under way for one user";
        server (server_bytes): "IMKS_LIMIT_ANSWERS_SERVER" =
            "Bytes of large answers under way on this server";
        wait: "IMKS_LIMIT_ANSWERS_WAIT" =
            "How long a request for a large answer waits for others before it is refused with `overloaded`";
    }
    "admin." in config.admin => {
        enabled: "IMKS_ADMIN" = "Whether the stock Socket.IO Admin UI may connect";
        auth: "IMKS_ADMIN_AUTH" = "`basic`: name and password; `none`: whoever reaches this server is let in";
        username: "IMKS_ADMIN_USERNAME" = "Name that the Admin UI signs in with";
        password_hash: "IMKS_ADMIN_PASSWORD_HASH" = "bcrypt hash of the password; `imks admin hash` makes one";
        mode: "IMKS_ADMIN_MODE" =
            "`production`: counters; `development`: every socket, room and event with its payload as well";
        read_only: "IMKS_ADMIN_READ_ONLY" = "Whether the Admin UI can only watch";
        namespace: "IMKS_ADMIN_NAMESPACE" = "Namespace that the Admin UI connects to";
        server_id: "IMKS_ADMIN_SERVER_ID" =
            "Name of this server in the Admin UI, different for each; not set: the machine's name and a random part";
        ui_dir: "IMKS_ADMIN_UI_DIR" =
            "Directory `ui/dist` of the npm package @socket.io/admin-ui, served as `/admin/`";
    }

    "log." in config.log => {
        filter: "RUST_LOG" = "What is logged, in the syntax of `tracing` filters";
        format: "IMKS_LOG_FORMAT" = "`pretty` for people, `json` for machines";
    }
    "otlp." in config.otlp => {
        endpoint: "OTEL_EXPORTER_OTLP_ENDPOINT" =
            "OTLP collector (gRPC) that metrics are pushed to, for example `http://collector:4317`; not set: none";
        metrics_endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" = "Another collector for metrics";
        headers: "OTEL_EXPORTER_OTLP_HEADERS" =
            "Headers for the collector, `name=value,name=value`, for example with credentials";
        timeout: "OTEL_EXPORTER_OTLP_TIMEOUT" = "How long the collector may take to answer";
        metrics_interval: "OTEL_METRIC_EXPORT_INTERVAL" = "Time between two pushes of metrics";
        service_name: "OTEL_SERVICE_NAME" =
            "Name of this service for the collector; not set: `imks`. `OTEL_RESOURCE_ATTRIBUTES` adds more attributes";
    }
    "drain." in config.drain => {
        delay: "IMKS_DRAIN_DELAY" =
            "After SIGTERM: how long readiness says no while new sessions are still accepted; 5s behind a load balancer";
        deadline: "IMKS_DRAIN_DEADLINE" = "After the delay: how long the drain may take at most";
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The file and name of each struct of values, its owner in the table, and its fields without a setting.
    /// `engine` and `socket` are also a library, so they have such fields, and some values are derived from
    /// others.
    const CONFIGS: &[(&str, &str, &str, &[&str])] = &[
        ("pb/client.rs", "Config", "config.core", &[]),
        ("auth/permissions.rs", "Config", "config.permissions", &[]),
        ("auth/token.rs", "Config", "config.token", &[]),
        // The issuer and the audience are settings of `token`.
        ("directory/mod.rs", "Config", "config.directory", &["issuer", "audience"]),
        ("models/db.rs", "Config", "config.database", &[]),
        ("models/append.rs", "Config", "config.append", &[]),
        // Derived from the settings of `tls`.
        ("http/config.rs", "Config", "config.http", &["tls"]),
        ("http/tls.rs", "Config", "config.tls", &[]),
        ("http/webtransport.rs", "Config", "config.webtransport", &[]),
        ("engine/config.rs", "Config", "config.engine", OF_THE_ENGINE_LIBRARY),
        ("engine/outbox/limits.rs", "OutboxLimits", "config.engine.outbox", &[]),
        ("socket/server/config.rs", "Config", "config.socket", OF_THE_SOCKET_LIBRARY),
        ("messaging/budget.rs", "AnswerLimits", "config.messaging.answers", &[]),
        // `max_payload` is a setting of `engine`, and `answers` is listed as a struct above.
        ("messaging/mod.rs", "Config", "config.messaging", &["max_payload", "answers"]),
        ("telemetry/logging.rs", "Config", "config.log", &[]),
        ("telemetry/otlp/mod.rs", "Config", "config.otlp", &[]),
    ];
    /// Fields that are derived from other settings (`webtransport`, `node`, `outbox`), break stock clients,
    /// or need code.
    const OF_THE_ENGINE_LIBRARY: &[&str] = &[
        "add_trailing_slash",
        "allow_upgrades",
        "cookie",
        "extra_headers",
        "hooks",
        "initial_packet",
        "node",
        "outbox",
        "webtransport",
    ];
    /// Fields that the product does not need: it has one namespace, its own history instead of recovery, and
    /// no attachments.
    const OF_THE_SOCKET_LIBRARY: &[&str] = &[
        "cleanup_empty_child_namespaces",
        "dynamic_namespaces_max",
        "limits",
        "recovery",
        "request_timeout",
    ];

    #[test]
    fn every_value_can_be_set_or_says_why_not() {
        for (file, name, owner, not_set) in CONFIGS {
            let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).join(file);
            let source = std::fs::read_to_string(source).unwrap();
            let body =
                source.split_once(&format!("pub struct {name} {{")).unwrap().1.split_once("\n}").unwrap().0;
            let fields = body.lines().filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "));
            for (field, _) in fields {
                assert_eq!(is_set(owner, field), !not_set.contains(&field), "{field} of {file}");
            }
        }
    }

    fn is_set(owner: &str, field: &str) -> bool {
        let head = format!(" in {owner} => {{");
        let groups = include_str!("fields.rs").split(&head).skip(1);
        let lines = groups.flat_map(|group| group.split("\n    }").next().unwrap_or_default().lines());
        let mut lines = lines.map(str::trim_start);
        lines.any(|line| line.starts_with(&format!("{field}: ")) || line.contains(&format!(" ({field}): ")))
    }
}
