//! Metrics of the listeners.

use crate::telemetry::instruments;

instruments! {
    /// Open connections of the listener that have not become WebSockets
    CONNECTIONS: Gauge = "imks_http_connections";
    /// Connections refused because too many are open
    CONNECTIONS_REFUSED: Counter = "imks_http_connections_refused_total";
    /// Failed accepts, for example because file descriptors ran out
    ACCEPT_FAILURES: Counter = "imks_http_accept_failures_total";
    /// Open QUIC connections, with a session or on the way to one
    QUIC_CONNECTIONS: Gauge = "imks_webtransport_connections";
    /// End of validity of the certificate in use, in seconds since 1970; 0 without TLS
    TLS_NOT_AFTER: Gauge = "imks_tls_not_after_timestamp";
    /// TLS handshakes over TCP that failed or took too long
    TLS_HANDSHAKE_FAILURES: Counter = "imks_tls_handshake_failures_total";
}
