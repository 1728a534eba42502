//! Metrics of the listeners.

use crate::telemetry::instruments;

instruments! {
    /// Open TCP connections that are not WebSockets
    CONNECTIONS: Gauge = "imks_http_connections";
    /// Connections refused because too many are open
    CONNECTIONS_REFUSED: Counter = "imks_http_connections_refused_total";
    /// Connections and new sessions refused because their address has too many
    CROWDED: Counter = "imks_http_crowded_total";
    /// Connections of trusted proxies that began without a header of the PROXY protocol
    PROXY_HEADERS_MISSING: Counter = "imks_http_proxy_headers_missing_total";
    /// Failed accepts, for example because file descriptors ran out
    ACCEPT_FAILURES: Counter = "imks_http_accept_failures_total";
    /// Open WebSockets of sessions on other nodes, whose bytes this node passes on
    FORWARDED_STREAMS: Gauge = "imks_forwarded_streams";
    /// Requests that claimed to come from another node and were not signed by one
    FORWARDED_UNSIGNED: Counter = "imks_forwarded_unsigned_total";
    /// Open QUIC connections, with or without a session
    QUIC_CONNECTIONS: Gauge = "imks_webtransport_connections";
    /// Expiry of the certificate in use, as a Unix time in seconds; 0 without TLS
    TLS_NOT_AFTER: Gauge = "imks_tls_not_after_timestamp_seconds";
    /// Expiry of the certificate of the internal listener, as a Unix time in seconds; 0 without TLS
    INTERNAL_TLS_NOT_AFTER: Gauge = "imks_internal_tls_not_after_timestamp_seconds";
    /// TLS handshakes over TCP that failed or timed out
    TLS_HANDSHAKE_FAILURES: Counter = "imks_tls_handshake_failures_total";
}
