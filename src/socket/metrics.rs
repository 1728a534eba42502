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
