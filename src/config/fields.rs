//! The table of all configuration values, in the order of the documentation.
//!
//! A row is `key (field): "VARIABLE" in "LEAST..MOST" = "What it does";`, where `(field)` is given if the field is not named
//! like the key, and the bounds as `bounds.rs` reads them.

use super::Config;
use super::field::{Field, Visitor};

macro_rules! settings {
    ($config:ident; $($prefix:literal in $owner:expr => {
        $($key:ident $(($field:ident))?: $env:literal $(in $bounds:literal)? = $help:literal;)+
    })+) => {
        /// Calls `visitor` with every value, in the order of the documentation.
        pub fn fields($config: &mut Config, visitor: &mut impl Visitor) {
            $($(visitor.field(
                Field { key: concat!($prefix, stringify!($key)), env: $env, help: $help, bounds: concat!($($bounds)?) },
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
        listen: "IMKS_LISTEN" = "Address and port for HTTP and WebSocket; port 0 picks a free port";
        internal_listen: "IMKS_INTERNAL_LISTEN" =
            "Address and port of the internal listener, for operators and back ends: `/metrics`, `/health`, \
             gRPC, and the HTTP API for back ends; if not set, `/metrics` and that API are on the public port. \
             `imks core` has it on `127.0.0.1:9001`";
        first_page: "IMKS_FIRST_PAGE" =
            "The chat page for development at `/`, which makes its own tokens, of its playground only: `auto`: on a \
             loopback address, with the SQLite file of the data directory, without a certificate, a core, your own \
             logins, `IMKS_EVENTS_URL` or `IMKS_TRUSTED_PROXIES`; `on`: also with PostgreSQL and a certificate; `off`";
        worker_threads: "IMKS_WORKER_THREADS" = "Threads that handle connections; 0 for one of each core";
    }
    "internal." in config.internal => {
        tls_cert (cert): "IMKS_INTERNAL_TLS_CERT" =
            "PEM file with the certificate of the internal listener and its chain; not set: plain text";
        tls_key (key): "IMKS_INTERNAL_TLS_KEY" = "PEM file with the private key of that certificate";
        client_ca: "IMKS_INTERNAL_CLIENT_CA" =
            "PEM file with the certificates that may vouch for callers of the internal listener (mTLS)";
    }
    "control." in config.control => {
        listeners: "IMKS_CONTROL" =
            "Where back ends reach the HTTP API: `internal`: on the internal listener; `public`: on both; \
             `auto`: on the internal listener, or on the public one if there is no other; `off`";
        callers: "IMKS_CONTROL_CALLERS" =
            "Names in the certificates of callers that need no API key and may do everything";
        allow_anonymous: "IMKS_CONTROL_ALLOW_ANONYMOUS" =
            "Whether callers on the internal listener need no API key; for development, on a loopback \
             address only";
    }
    "" in config.database => {
        data_dir: "IMKS_DATA_DIR" = "Directory of the SQLite file";
    }
    "" in config => {
        core_url: "IMKS_CORE_URL" =
            "gRPC addresses of the core, for example `http://core:9000` or \
             `https://core-1:9000,core-2:9000`; if not set, the embedded directory is used";
    }

    "core." in config.core => {
        deadline: "IMKS_CORE_DEADLINE" in "1ms..10m" = "Deadline of a call to the core, including its retries";
        calls (calls_max): "IMKS_CORE_CALLS" in "1..1000000" =
            "The most concurrent calls to the core; further calls wait within their deadline";
        retries (retries_max): "IMKS_CORE_RETRIES" in "..100" =
            "The most retries of a call while the core cannot be reached";
        retry_pause: "IMKS_CORE_RETRY_PAUSE" in "..1m" = "Pause before the first retry; it doubles with each retry";
        answer_bytes (answer_bytes_max): "IMKS_CORE_ANSWER_BYTES" in "65536.." = "Largest response of the core, in bytes";
        ca: "IMKS_CORE_CA" =
            "PEM file with the certificates that may vouch for the core; if not set, those that the system \
             trusts";
        cert: "IMKS_CORE_CERT" = "PEM file with the certificate that this server shows to the core (mTLS)";
        key: "IMKS_CORE_KEY" = "PEM file with the private key of that certificate";
        server_name: "IMKS_CORE_SERVER_NAME" =
            "Name in the certificate of the core, if it is not that in the address";
    }
    "permissions." in config.permissions => {
        ttl: "IMKS_PERMISSIONS_TTL" = "How long permissions from the core are cached";
        ttl_denied: "IMKS_PERMISSIONS_TTL_DENIED" =
            "How long the permissions of a user who cannot see the channel are cached; short, so that \
             joining works soon";
        stale (stale_max): "IMKS_PERMISSIONS_STALE" =
            "How long cached permissions are still used for reading and writing while the core does not \
             answer";
        outage_pause: "IMKS_PERMISSIONS_OUTAGE_PAUSE" =
            "Time between two calls while the core does not answer";
        entries (entries_max): "IMKS_PERMISSIONS_ENTRIES" in "1.." = "The most cached permissions";
    }
    "directory." in config.directory => {
        poll: "IMKS_DIRECTORY_POLL" in "100ms..1h" = "How often the embedded directory reads the changes of other processes";
        change_horizon: "IMKS_DIRECTORY_CHANGE_HORIZON" in "1m.." =
            "How long the embedded directory keeps changes for interrupted streams";
        key_overlap: "IMKS_DIRECTORY_KEY_OVERLAP" =
            "How long the tokens of a signing key stay valid after the key was replaced";
        key_age: "IMKS_DIRECTORY_KEY_AGE" in "0|1h.." = "Age at which the signing key is replaced; `0s` for never";
        access_ttl: "IMKS_DIRECTORY_ACCESS_TTL" in "1s..744h" = "How long an access token of a session is valid";
        refresh_ttl: "IMKS_DIRECTORY_REFRESH_TTL" in "1s.." =
            "How long a session lasts, in which refresh tokens bring new access tokens";
        client_ca: "IMKS_DIRECTORY_CLIENT_CA" =
            "For `imks core` with `IMKS_TLS_CERT`: PEM file with the certificates that may vouch for its \
             callers (mTLS)";
    }

    "database." in config.database => {
        url: "DATABASE_URL" =
            "`postgres://…` or `sqlite:…`; if not set, the file `imks.db` in the data directory";
        connections (max_connections): "IMKS_DATABASE_CONNECTIONS" in "..10000" =
            "The most connections to PostgreSQL, including those that write messages";
        sqlite_readers: "IMKS_SQLITE_READERS" in "1..1000" =
            "Connections to SQLite for reading; there is always one for writing";
        sqlite_synchronous: "IMKS_SQLITE_SYNCHRONOUS" =
            "`full`: an acknowledged message survives a power failure; `normal`: it survives a crash of the \
             process only";
        sqlite_busy_timeout: "IMKS_SQLITE_BUSY_TIMEOUT" in "..24h" =
            "How long a write to SQLite waits while another process writes";
        statement_timeout: "IMKS_DATABASE_STATEMENT_TIMEOUT" in "100ms..24h" =
            "How long one PostgreSQL statement may run, and a transaction may rest between two of them";
        acquire_timeout: "IMKS_DATABASE_ACQUIRE_TIMEOUT" in "1ms..1h" =
            "How long a query waits for a free connection before it fails with `overloaded`";
    }
    "append." in config.append => {
        lanes: "IMKS_APPEND_LANES" in "1..1000" =
            "PostgreSQL connections for writing messages; all writes of a channel use the same one. SQLite \
             has one writer";
        batch: "IMKS_APPEND_BATCH" in "1..100000" =
            "The most messages in one transaction; more than 256 only while a writer falls behind";
        queue: "IMKS_APPEND_QUEUE" in "1..10000000" =
            "The most messages that may wait per lane; further ones fail with `overloaded`";
        linger: "IMKS_APPEND_LINGER" in "..1s" =
            "How long an idle lane waits for more messages before it writes; more than 0s helps only if \
             commits are very slow";
        outage: "IMKS_APPEND_OUTAGE" in "..1h" =
            "How long a message waits for an unreachable database before it fails with `unavailable`";
        batch_timeout: "IMKS_APPEND_BATCH_TIMEOUT" in "100ms..10m" =
            "How long one transaction may take before its connection is abandoned and the transaction is \
             retried";
        commits (commits_queue): "IMKS_APPEND_COMMITS" in "1..100000" =
            "The most transactions per lane that may wait to be broadcast; beyond that the lane waits";
    }

    "feed." in config.feed => {
        retention: "IMKS_FEED_RETENTION" =
            "How long events are kept for back ends that follow them; 0s: none are recorded, at most 14d";
    }
    "webhook." in config.webhook => {
        url: "IMKS_WEBHOOK_URL" = "Addresses that get every event by POST, separated by commas";
        secret: "IMKS_WEBHOOK_SECRET" =
            "Secret that signs them: `whsec_` and 24 to 64 bytes in base64; a second one after a comma also signs, while \
             receivers change from one to the other";
        events: "IMKS_WEBHOOK_EVENTS" = "Names of the events that are sent, such as `message:new`; if not set, all";
        deadline: "IMKS_WEBHOOK_DEADLINE" in "..10m" = "How long a receiver may take to answer";
        give_up: "IMKS_WEBHOOK_GIVE_UP" =
            "How long an event is retried before it becomes a dead letter and later events go on";
    }

    "events." in config.application => {
        url: "IMKS_EVENTS_URL" =
            "Address that answers the events of clients that imks does not know, by POST; if not set, they are \
             unknown";
        secret: "IMKS_EVENTS_SECRET" = "Secret that signs them, as `IMKS_WEBHOOK_SECRET`";
        prefix: "IMKS_EVENTS_PREFIX" = "What the names of these events start with";
        deadline: "IMKS_EVENTS_DEADLINE" in "..10m" = "How long an event may take to be answered";
        calls (calls_max): "IMKS_EVENTS_CALLS" in "..1000000" =
            "The most events in progress; further ones wait within their deadline";
        echo: "IMKS_EVENTS_ECHO" =
            "Whether these events are answered with their own payload, for development without an address";
    }

    "http." in config.http => {
        first_byte (first_byte_timeout): "IMKS_HTTP_FIRST_BYTE" =
            "How long a new TCP connection may stay silent";
        head (head_timeout): "IMKS_HTTP_HEAD" =
            "How long a request head may take to arrive, and how long a keep-alive connection may be idle";
        write (write_timeout): "IMKS_HTTP_WRITE" =
            "How long a peer may read nothing of a response before its connection is closed";
        tcp_keepalive: "IMKS_TCP_KEEPALIVE" =
            "After how long the system asks a silent TCP connection whether it is still there; 0s for never";
        tcp_nodelay: "IMKS_TCP_NODELAY" =
            "Whether packets leave at once (TCP_NODELAY), and do not wait until the one before is acknowledged";
        head_bytes (head_bytes_max): "IMKS_HTTP_HEAD_BYTES" in "1024..1048576" = "Largest request head, in bytes";
        request (request_timeout): "IMKS_HTTP_REQUEST" =
            "How long a request outside Socket.IO may take, including its response";
        connections_max: "IMKS_HTTP_CONNECTIONS_MAX" in "1.." =
            "The most TCP connections that are not WebSockets; further ones are answered with 503. The last quarter is for \
             clients that come back, and trusted proxies";
        trusted_proxies: "IMKS_TRUSTED_PROXIES" =
            "Addresses or networks of the proxies in front, for example `10.0.0.7,::1`: the address of a client is \
             then the one that they tell in `X-Forwarded-For` or the PROXY protocol";
        proxy_protocol: "IMKS_PROXY_PROTOCOL" =
            "Whether connections of the trusted proxies begin with a header of the PROXY protocol, version 1 or 2";
        connections_per_address (connections_per_address_max): "IMKS_HTTP_CONNECTIONS_PER_ADDRESS" =
            "The most TCP connections, WebSockets included, of one IPv4 address or one IPv6 /64 network; further ones \
             are answered with 429; 0 for no limit";
        sessions_per_address: "IMKS_LIMIT_SESSIONS_PER_ADDRESS" =
            "Rate of new sessions by polling or WebSocket of one IPv4 address or one IPv6 /64 network; further ones are \
             answered with 429, and the client comes back";
    }
    "tls." in config.tls => {
        cert: "IMKS_TLS_CERT" =
            "PEM file with the certificate and its chain; enables HTTPS and secure WebSockets";
        key: "IMKS_TLS_KEY" = "PEM file with the private key of the certificate";
        min_version: "IMKS_TLS_MIN_VERSION" =
            "Oldest accepted TLS version over TCP, `1.2` or `1.3`; WebTransport always uses 1.3";
        require: "IMKS_REQUIRE_TLS" =
            "Whether the server refuses to start without a certificate on an address that other machines \
             can reach";
        reload: "IMKS_TLS_RELOAD" = "How often the two files are checked for changes; SIGHUP checks at once";
        handshake (handshake_timeout): "IMKS_TLS_HANDSHAKE" = "How long a TLS handshake may take";
    }
    "webtransport." in config.webtransport => {
        mode: "IMKS_WEBTRANSPORT" =
            "`auto`: on if a certificate is configured; `on`: also without one, with a development \
             certificate; `off`";
        listen: "IMKS_WEBTRANSPORT_LISTEN" =
            "UDP address and port for WebTransport; if not set, those of `IMKS_LISTEN`, as clients expect";
        connections_max: "IMKS_WEBTRANSPORT_CONNECTIONS_MAX" in "1.." =
            "The most QUIC connections; further ones are refused. The last quarter is for clients that come back";
        connections_per_address (connections_per_address_max): "IMKS_WEBTRANSPORT_CONNECTIONS_PER_ADDRESS" in "1.." =
            "The most QUIC connections from one IPv4 address or one IPv6 /64 network";
        handshake (handshake_timeout): "IMKS_WEBTRANSPORT_HANDSHAKE" =
            "How long a QUIC connection may take to request a session";
    }
    "quic." in config.quic => {
        listen: "IMKS_QUIC_LISTEN" =
            "UDP address and port for QUIC without HTTP/3, which clients in Rust speak, with the limits of \
             WebTransport; if not set, there is none";
        alpn: "IMKS_QUIC_ALPN" = "Names of its protocol for ALPN, separated by commas";
        zero_rtt: "IMKS_QUIC_0RTT" =
            "Whether clients that come back may begin their session together with the handshake (0-RTT)";
    }

    "engine." in config.engine => {
        path: "IMKS_ENGINE_PATH" = "Path of Engine.IO: the option `path` of clients";
        polling: "IMKS_ENGINE_POLLING" = "Whether clients may use HTTP long-polling";
        websocket: "IMKS_ENGINE_WEBSOCKET" = "Whether clients may use WebSocket";
        ping_interval: "IMKS_ENGINE_PING_INTERVAL" = "Time between two heartbeats, from 5s to 2m";
        ping_timeout: "IMKS_ENGINE_PING_TIMEOUT" = "How long a client may take to answer a ping, from 1s to 2m";
        upgrade_timeout: "IMKS_ENGINE_UPGRADE_TIMEOUT" in "100ms..10m" =
            "How long an upgrade from polling to another transport may take";
        body_timeout: "IMKS_ENGINE_BODY_TIMEOUT" = "How long the body of a POST may take to arrive";
        close_timeout: "IMKS_ENGINE_CLOSE_TIMEOUT" =
            "How long the client of a closing connection may take to read the packets that wait for it";
        max_payload: "IMKS_ENGINE_MAX_PAYLOAD" in "..1073741824" = "Largest packet or request body, in bytes";
        sessions_max: "IMKS_ENGINE_SESSIONS_MAX" in "1.." =
            "The most Engine.IO sessions on this node; further ones are answered with 503";
        accept_queue: "IMKS_ENGINE_ACCEPT_QUEUE" in "1..1000000" =
            "The most new sessions that may wait to be accepted; further ones are answered with 503";
        inbound_messages (inbound_messages_max): "IMKS_ENGINE_INBOUND_MESSAGES" in "1..1000000" =
            "The most unhandled messages of a polling client before the response to its POST is delayed";
        cors_origins (cors): "IMKS_CORS_ORIGINS" =
            "Origins of web pages that may connect and use the HTTP API, exactly as browsers send them, or `*`; pages of \
             others are refused on every transport. If not set, only pages of the same origin can connect by polling";
        http_compression: "IMKS_ENGINE_HTTP_COMPRESSION" =
            "Smallest response to a polling client that is compressed, in bytes; empty: no response is \
             compressed";
        per_message_deflate: "IMKS_ENGINE_PER_MESSAGE_DEFLATE" =
            "Whether WebSocket messages are compressed for clients that offer it; this costs CPU time, see \
             below";
        per_message_deflate_threshold: "IMKS_ENGINE_PER_MESSAGE_DEFLATE_THRESHOLD" =
            "Smallest message that is compressed, in bytes";
        allow_eio3: "IMKS_ENGINE_ALLOW_EIO3" =
            "Whether clients of Socket.IO v2 (Engine.IO 3) are served; this exposes their session id, which \
             is their socket id";
        client_bundle_dir: "IMKS_CLIENT_BUNDLE_DIR" =
            "The directory `dist` of the npm package socket.io-client, served as `/socket.io/socket.io.js`";
    }
    "outbox." in config.engine.outbox => {
        packets (packets_max): "IMKS_OUTBOX_PACKETS" in "1.." = "The most packets that may ever wait for one client";
        bytes (bytes_max): "IMKS_OUTBOX_BYTES" in "1024.." =
            "The most bytes that may ever wait for one WebSocket or WebTransport client";
        blocked_packets (blocked_packets_max): "IMKS_OUTBOX_BLOCKED_PACKETS" in "1.." =
            "The most packets that may wait while the connection is blocked; beyond that it is closed as a \
             slow consumer";
        blocked_bytes (blocked_bytes_max): "IMKS_OUTBOX_BLOCKED_BYTES" in "1024.." =
            "The most bytes that may wait while the connection is blocked; beyond that it is closed as a \
             slow consumer";
        polling_bytes (polling_bytes_max): "IMKS_OUTBOX_POLLING_BYTES" in "1024.." =
            "The most bytes that may wait for one polling client";
        pressure_packets: "IMKS_OUTBOX_PRESSURE_PACKETS" in "1.." =
            "Number of waiting packets at which senders slow down";
        pressure_bytes: "IMKS_OUTBOX_PRESSURE_BYTES" in "1.." =
            "Number of waiting bytes at which senders slow down";
        answer_bytes (answer_bytes_high): "IMKS_OUTBOX_ANSWER_BYTES" in "1.." =
            "The most bytes of answers to the client's own requests that may wait; beyond that the \
             connection is not read";
    }
    "socket." in config.socket => {
        connect_timeout: "IMKS_CONNECT_TIMEOUT" = "How long a new connection may take to sign in";
        unjoined_max: "IMKS_UNJOINED_MAX" =
            "The most connections that have not signed in yet; further ones are answered with 503. The last quarter is for \
             clients that come back";
        events_in_flight (events_in_flight_max): "IMKS_EVENTS_IN_FLIGHT" in "1..1000000" =
            "The most events of one connection whose handlers may run at once; beyond that further events \
             wait";
        events_waiting_bytes (events_waiting_bytes_max): "IMKS_EVENTS_WAITING_BYTES" in "1024.." =
            "The most bytes of events of one connection that may wait to be handled; beyond that the \
             connection is not read";
        namespaces (namespaces_max): "IMKS_NAMESPACES" in "1.." =
            "The most namespaces that one connection may join; further ones are refused";
        parser: "IMKS_PARSER" =
            "Encoding of packets: `json`, or `msgpack`, which only clients with npm \
             socket.io-msgpack-parser understand";
    }

    "token." in config.token => {
        issuers: "IMKS_TOKEN_ISSUERS" =
            "Accepted `iss` of tokens; not set: `imks` for tokens of the directory or a core, any for your own keys";
        audience: "IMKS_TOKEN_AUDIENCE" =
            "Required `aud` of tokens; not set: `imks`, which tokens of your own public key or secret may omit";
        leeway: "IMKS_TOKEN_LEEWAY" =
            "How far the clocks of this server and of the issuer may differ; at most 1m";
        lifetime (lifetime_max): "IMKS_TOKEN_LIFETIME" in "1s.." = "Longest accepted lifetime of a token";
        refresh: "IMKS_TOKEN_REFRESH" = "How often the keys are read from the core, the key set or the file; at least `1s`";
        refresh_pause: "IMKS_TOKEN_REFRESH_PAUSE" =
            "Least time between two reads that were caused by an unknown key";
        key_grace: "IMKS_TOKEN_KEY_GRACE" =
            "How long a key without an earlier end stays valid after the core or the key set stopped listing it";
    }
    "token." in config.login => {
        jwks_url: "IMKS_TOKEN_JWKS_URL" =
            "Your own logins: address of the JSON Web Key Set whose keys sign tokens";
        public_key_file: "IMKS_TOKEN_PUBLIC_KEY_FILE" =
            "Your own logins: PEM file with the public keys (Ed25519, P-256, RSA) that sign tokens";
        hmac_secret: "IMKS_TOKEN_HMAC_SECRET" =
            "Your own logins: shared secret (HS256) of at least 32 bytes";
        allow_hmac: "IMKS_TOKEN_ALLOW_HMAC" =
            "Whether a shared secret may sign tokens; anyone who can read it can sign in as anybody";
        claim_user (user_claim): "IMKS_TOKEN_CLAIM_USER" =
            "Claim with the id of the user, any text; `/a/b` is a JSON pointer";
        claim_name (name_claims): "IMKS_TOKEN_CLAIM_NAME" =
            "Claims with the name of the user; the first one that exists is used";
        claim_roles (roles_claim): "IMKS_TOKEN_CLAIM_ROLES" =
            "Claim with roles; only `guest`, `member`, `moderator` and `owner` are used";
        claim_channels (channels_claim): "IMKS_TOKEN_CLAIM_CHANNELS" =
            "Claim with channels: a list of names, or an object of names and roles";
    }
    "login." in config.login => {
        create_users: "IMKS_LOGIN_CREATE_USERS" = "Whether users are created when they sign in for the first time";
        create_channels: "IMKS_LOGIN_CREATE_CHANNELS" =
            "Whether a channel is created when a login names it for the first time";
        channels (first_channels): "IMKS_LOGIN_CHANNELS" = "Channels that a new user joins";
    }
    "auth." in config.hook => {
        url: "IMKS_AUTH_URL" =
            "One's own logins: HTTP hook that is asked with the token of a client and answers who it is";
        secret: "IMKS_AUTH_SECRET" = "Bearer token that this server shows to the hook";
        deadline: "IMKS_AUTH_DEADLINE" in "1ms..10m" = "How long the hook may take to answer";
        ttl: "IMKS_AUTH_TTL" = "How long an answer of the hook counts for further connects with the same token";
        calls (calls_max): "IMKS_AUTH_CALLS" in "..1000000" = "Calls of the hook at once; more wait within their deadline";
    }
    "" in config.messaging => {
        node: "IMKS_NODE" =
            "Name of this node in `session:ready` and for people; if not set, its id, which changes with each start, and for people the name of its host";
        core_recheck (recheck): "IMKS_CORE_RECHECK" in "100ms..24h" =
            "How often a core without streams is asked about each session: its token, its rooms";
        edit_window: "IMKS_EDIT_WINDOW" =
            "How long after its sending a message can be edited; if not set, for ever";
    }
    "limits." in config.messaging => {
        events: "IMKS_LIMIT_EVENTS" =
            "Rate of events of one connection: per second / burst; `off` for no limit";
        connects: "IMKS_LIMIT_CONNECTS" = "Rate of connects of one user";
        sends: "IMKS_LIMIT_SENDS" = "Rate of messages, edits and deletions of one user";
        sends_per_channel: "IMKS_LIMIT_SENDS_PER_CHANNEL" =
            "Rate of messages, edits and deletions of one user in one channel";
        sessions_per_user: "IMKS_LIMIT_SESSIONS_PER_USER" =
            "The most connections of one user, on all nodes together; 0 for no limit";
    }
    "limits." in config.control => {
        control_calls (calls): "IMKS_LIMIT_CONTROL_CALLS" = "Rate of calls of one API key";
    }
    "limits.answers_" in config.messaging.answers => {
        connection (connection_bytes): "IMKS_LIMIT_ANSWERS_CONNECTION" in "262144.." =
            "The most bytes of large answers in flight on one connection";
        user (user_bytes): "IMKS_LIMIT_ANSWERS_USER" in "262144.." =
            "The most bytes of large answers in flight for one user, who also gets at most an eighth of what is free";
        server (server_bytes): "IMKS_LIMIT_ANSWERS_SERVER" in "2097152.." =
            "The most bytes of large answers in flight on this server";
        wait: "IMKS_LIMIT_ANSWERS_WAIT" =
            "How long a request with a large answer waits for memory before it fails with `overloaded`";
    }
    "" in config.messaging => {
        link_previews: "IMKS_LINK_PREVIEWS" =
            "Whether this server fetches the public pages that messages link to and shows what they say about themselves";
    }
    "resume." in config.messaging.resume => {
        window: "IMKS_RESUME_WINDOW" =
            "How long a client may be away and still continue its session on any node (`recovered`); `0s`: nobody does";
        sessions: "IMKS_RESUME_SESSIONS" =
            "The most sessions of clients that are away, of all nodes together; those that left first are forgotten first";
        missed: "IMKS_RESUME_MISSED" in "..2000" =
            "The most messages and changes that such a client may have missed; with more it gets a new session";
        journal_bytes: "IMKS_RESUME_JOURNAL_BYTES" =
            "The most bytes in the database that say which events this node has delivered of late, and in which order";
    }
    "retention." in config.messaging.retention => {
        messages: "IMKS_MESSAGE_RETENTION" =
            "How long messages are kept in channels without a rule of their own; 0s: for ever, otherwise at least 24h";
        deleted: "IMKS_DELETED_RETENTION" =
            "How long the text of deleted messages and of earlier versions of them is kept for those who may ask for it; 0s: for ever";
    }
    "attachments." in config.attachments => {
        place: "IMKS_ATTACHMENTS" =
            "Where attached files are: `local`, a directory of this server; `s3`, an object store; `off`";
        dir: "IMKS_ATTACHMENTS_DIR" =
            "Directory for `local`, shared by the nodes of a cluster; if not set, `attachments` in the data directory";
        size (size_max): "IMKS_ATTACHMENTS_SIZE" = "Largest attached file, in bytes";
        user_bytes (user_bytes_max): "IMKS_ATTACHMENTS_USER_BYTES" in "1.." = "The most bytes of all files of one user";
        address_lifetime: "IMKS_ATTACHMENTS_ADDRESS_LIFETIME" =
            "How long a signed address for an upload or a download is valid";
        transfer (transfer_timeout): "IMKS_ATTACHMENTS_TRANSFER" in "1s..24h" =
            "How long an upload to this server may take, for `local`";
    }
    "s3." in config.attachments => {
        endpoint (s3_endpoint): "IMKS_S3_ENDPOINT" =
            "Address of the object store as clients reach it, for example `https://s3.eu-central-1.amazonaws.com`";
        internal_endpoint (s3_internal_endpoint): "IMKS_S3_INTERNAL_ENDPOINT" =
            "Address of the object store as this server reaches it, if it is another one";
        bucket (s3_bucket): "IMKS_S3_BUCKET" = "Bucket of the files";
        region (s3_region): "IMKS_S3_REGION" = "Region of the bucket";
        path_style (s3_path_style): "IMKS_S3_PATH_STYLE" =
            "Whether the bucket is in the path of addresses (MinIO and most others) rather than in the host name";
        key_id (s3_key_id): "IMKS_S3_KEY_ID" = "Id of the access key";
        secret (s3_secret): "IMKS_S3_SECRET" = "Secret of the access key";
    }
    "admin." in config.admin => {
        enabled: "IMKS_ADMIN" = "Whether the stock Socket.IO Admin UI may connect";
        auth: "IMKS_ADMIN_AUTH" =
            "`basic`: name and password; `none`: everybody who can reach this server is admitted";
        username: "IMKS_ADMIN_USERNAME" = "User name for the Admin UI";
        password_hash: "IMKS_ADMIN_PASSWORD_HASH" =
            "bcrypt hash of the password, as printed by `imks admin hash`";
        mode: "IMKS_ADMIN_MODE" =
            "`production`: counters only; `development`: also every socket, room and event with its payload";
        read_only: "IMKS_ADMIN_READ_ONLY" = "Whether the Admin UI can only read";
        namespace: "IMKS_ADMIN_NAMESPACE" = "Namespace that the Admin UI connects to";
        server_id: "IMKS_ADMIN_SERVER_ID" =
            "Unique name of this server in the Admin UI; if not set, the host name with a random suffix";
        ui_dir: "IMKS_ADMIN_UI_DIR" =
            "The directory `ui/dist` of the npm package @socket.io/admin-ui, served as `/admin/`";
    }

    "cluster." in config.cluster => {
        adapter: "IMKS_ADAPTER" =
            "How the nodes of a cluster reach each other: `redis`, `nats`, `postgres` (the database), or `local` (one node); not set: `redis` or `nats` if its URL is set, else `local`";
        redis_url: "REDIS_URL" =
            "`redis://user:password@host:port`, `rediss://` with TLS, `redis-cluster://` or `redis-sentinel://`";
        nats_url: "NATS_URL" = "`nats://user:password@host:port` or `tls://`, several separated by commas";
        nats_credentials: "NATS_CREDENTIALS" = "File with the JWT and the seed of a NATS user";
        prefix: "IMKS_CLUSTER_PREFIX" =
            "Name of the cluster in the broker: all nodes of a cluster have the same, different clusters have different ones";
        address: "IMKS_CLUSTER_ADDRESS" =
            "Host and port where the other nodes reach the public listener of this one; if not set, the address that it listens on, with the address of this machine in its network for `0.0.0.0`";
    }
    "log." in config.log => {
        filter: "RUST_LOG" = "Which messages are logged, as a `tracing` filter";
        format: "IMKS_LOG_FORMAT" = "`pretty` for people, `json` for machines";
    }
    "otlp." in config.otlp => {
        disabled: "OTEL_SDK_DISABLED" = "Whether nothing is exported, whatever else is set";
        protocol: "OTEL_EXPORTER_OTLP_PROTOCOL" = "How collectors are spoken to: `grpc`; the other protocols of OTLP are not there";
        endpoint: "OTEL_EXPORTER_OTLP_ENDPOINT" =
            "OTLP collector (gRPC) that gets metrics, and traces with `OTEL_TRACES_EXPORTER=otlp`, for example \
             `http://collector:4317`; if not set, none";
        metrics_endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" =
            "Collector for metrics, if it is a different one";
        traces_endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" = "Collector for traces, if it is a different one";
        headers: "OTEL_EXPORTER_OTLP_HEADERS" =
            "Headers for the collector, `name=value,name=value`, for example credentials";
        timeout: "OTEL_EXPORTER_OTLP_TIMEOUT" = "How long the collector may take to answer";
        metrics_interval: "OTEL_METRIC_EXPORT_INTERVAL" = "Time between two exports of metrics";
        service_name: "OTEL_SERVICE_NAME" =
            "Name of this service for the collector; if not set, `imks`. `OTEL_RESOURCE_ATTRIBUTES` adds \
             attributes";
        traces: "OTEL_TRACES_EXPORTER" = "`otlp`: traces go to the collector; `none`";
        sampler: "OTEL_TRACES_SAMPLER" =
            "Which requests are traced: `always_on`, `always_off`, `traceidratio` (a share of them), or the same with \
             `parentbased_` before it: a client with a trace decides itself, if clients are trusted";
        sampler_arg (sampler_ratio): "OTEL_TRACES_SAMPLER_ARG" =
            "The share of the requests that `traceidratio` traces, from 0 to 1";
        trust_clients (trusts_clients): "IMKS_TRACES_TRUST_CLIENTS" =
            "Whether what clients say about sampling is believed; otherwise only the ids of their traces are taken";
        traces_delay: "OTEL_BSP_SCHEDULE_DELAY" = "Time between two exports of traces";
        traces_queue: "OTEL_BSP_MAX_QUEUE_SIZE" = "Most spans that wait to be exported; more are dropped";
    }
    "drain." in config.drain => {
        delay: "IMKS_DRAIN_DELAY" in "..1h" =
            "How long after SIGTERM new sessions are still accepted although readiness already fails; 5s \
             behind a load balancer";
        deadline: "IMKS_DRAIN_DEADLINE" in "..24h" = "The longest time that the drain may take after the delay";
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The file and name of each struct of values, its owner in the table, and its fields without a setting.
    /// `engine` and `socket` are also a library, so they have such fields, and some values are derived from
    /// others.
    const CONFIGS: &[(&str, &str, &str, &[&str])] = &[
        // `keep_alive`, `waiting_max` of the hook and `connection_age` of the directory differ in tests only.
        ("pb/client.rs", "Config", "config.core", &["keep_alive"]),
        ("auth/permissions.rs", "Config", "config.permissions", &[]),
        ("auth/token_config.rs", "Config", "config.token", &[]),
        ("auth/login_config.rs", "LoginConfig", "config.login", &[]),
        ("auth/login_config.rs", "HookConfig", "config.hook", &["waiting_max"]),
        // The issuer and the audience are settings of `token`, `issues_tokens` follows from those of `login`, and the tracer
        // from those of `otlp`.
        (
            "directory/mod.rs",
            "Config",
            "config.directory",
            &["issuer", "audience", "issues_tokens", "connection_age", "tracer"],
        ),
        ("models/db.rs", "Config", "config.database", &[]),
        // `feed` follows from the retention of the feed.
        ("models/append.rs", "Config", "config.append", &["feed"]),
        // `tls` and `slow_paths` are derived from other settings; `connections` is state.
        ("http/config.rs", "Config", "config.http", &["tls", "slow_paths", "connections"]),
        ("http/tls.rs", "Config", "config.tls", &[]),
        ("http/webtransport.rs", "Config", "config.webtransport", &[]),
        ("http/quic.rs", "Config", "config.quic", &[]),
        ("engine/config.rs", "Config", "config.engine", OF_THE_ENGINE_LIBRARY),
        ("engine/outbox/limits.rs", "OutboxLimits", "config.engine.outbox", &[]),
        ("socket/server/config.rs", "Config", "config.socket", OF_THE_SOCKET_LIBRARY),
        ("messaging/budget.rs", "AnswerLimits", "config.messaging.answers", &[]),
        // `max_payload` is a setting of `engine`, `connect_hold` follows from one of `socket`, `answers`, `resume`
        // and `retention` are listed as structs, and `preview_policy` is for tests.
        (
            "messaging/mod.rs",
            "Config",
            "config.messaging",
            &["max_payload", "connect_hold", "answers", "preview_policy", "resume", "retention"],
        ),
        ("messaging/resume/mod.rs", "ResumeConfig", "config.messaging.resume", &[]),
        // `every` differs in tests only.
        ("messaging/retention.rs", "Retention", "config.messaging.retention", &["every"]),
        ("files/mod.rs", "Config", "config.attachments", &[]),
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
