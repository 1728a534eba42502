//! What the Socket.IO server counts.

use crate::telemetry::{instruments, label};

/// How a CONNECT packet ended.
pub enum Connect {
    /// It made a socket.
    Accepted,
    /// It was answered with CONNECT_ERROR.
    Refused,
}

/// How the return of a client after a short absence ended.
pub enum Return {
    /// The client goes on with its session.
    Recovered,
    /// The client got a new session.
    NewSession,
}

label!(Connect { Accepted = "accepted", Refused = "refused" });
label!(Return { Recovered = "recovered", NewSession = "new_session" });

instruments! {
    /// Socket.IO CONNECT packets to the users' namespace, by outcome
    CONNECTS: Counter[outcome: Connect] = "imks_connects_total";
    /// Handlers that panicked; each cost one connection
    HANDLER_PANICS: Counter = "imks_handler_panics_total";
    /// Connections closed because of a malformed or misplaced Socket.IO packet
    PROTOCOL_ERRORS: Counter = "imks_protocol_errors_total";
    /// Clients that wanted to go on with their session after a short absence, and how that ended
    RECOVERIES: Counter[outcome: Return] = "imks_socket_recoveries_total";
    /// Sessions whose client is away and may come back
    RECOVERY_AWAY: Gauge = "imks_socket_away";
}
