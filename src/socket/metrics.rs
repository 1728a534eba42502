//! Metrics of the Socket.IO server.

use crate::telemetry::{instruments, label};

/// The outcome of a CONNECT packet.
pub enum Connect {
    /// The client joined, as a new socket.
    Accepted,
    /// The client was refused with CONNECT_ERROR.
    Refused,
}

/// The outcome of a client's attempt to recover its session.
pub enum Return {
    /// The client continues its session.
    Recovered,
    /// The client got a new session.
    NewSession,
}

/// The namespaces that metrics tell apart. Others are counted together: their names may be those of clients.
pub enum Path {
    /// The main namespace.
    Main,
    /// That of the Admin UI.
    Admin,
    /// All others.
    Other,
}

impl Path {
    /// Returns the value for the path of a namespace.
    pub fn of(path: &str) -> Self {
        match path {
            "/" => Self::Main,
            "/admin" => Self::Admin,
            _ => Self::Other,
        }
    }
}

label!(Path { Main = "/", Admin = "/admin", Other = "other" });
label!(Connect { Accepted = "accepted", Refused = "refused" });
label!(Return { Recovered = "recovered", NewSession = "new_session" });

instruments! {
    /// Clients that have joined a namespace
    SOCKETS: Gauge[namespace: Path] = "imks_sockets";
    /// CONNECT packets to the main namespace, by outcome
    CONNECTS: Counter[outcome: Connect] = "imks_connects_total";
    /// Handlers that panicked; each closed one connection
    HANDLER_PANICS: Counter = "imks_handler_panics_total";
    /// Connections closed because of a malformed or misplaced Socket.IO packet
    PROTOCOL_ERRORS: Counter = "imks_protocol_errors_total";
    /// Attempts of clients to recover their session after a short absence, by outcome
    RECOVERIES: Counter[outcome: Return] = "imks_socket_recoveries_total";
    /// Sessions whose client is absent and may still recover them
    RECOVERY_AWAY: Gauge = "imks_socket_away";
    /// Failed attempts to write to the recovery log that nodes share
    RECOVERY_WRITES_FAILED: Counter = "imks_recovery_writes_failed_total";
    /// Holes among the events of the recovery log that nodes share; what was missing was read from the log
    RECOVERY_HOLES: Counter = "imks_recovery_holes_total";
}
