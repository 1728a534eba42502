//! The metrics of the features.

use crate::telemetry::{instruments, label};

/// Which side caused an event to be answered with an error.
pub enum EventError {
    /// The caller, by an invalid or forbidden request.
    Refused,
    /// The caller, by too many requests.
    RateLimited,
    /// The server: unavailable, timeout, internal.
    Failed,
}

/// What became of an attempt to send a scheduled message.
pub enum Scheduled {
    /// It was sent.
    Sent,
    /// It will be tried again.
    Retried,
    /// It cannot be sent.
    Failed,
}

label!(Scheduled { Sent = "sent", Retried = "retried", Failed = "failed" });
label!(EventError { Refused = "refused", RateLimited = "rate_limited", Failed = "failed" });

/// What became of a message of another program.
pub enum Outbox {
    /// Appended.
    Sent,
    /// Failed for good.
    Failed,
}

/// What became of a notification for a user who is not connected.
pub enum Notified {
    /// The core has taken it over.
    Taken,
    /// The core did not take it in time, or too many waited.
    Dropped,
}

/// What became of a client that named an earlier session.
#[derive(Debug, Clone, Copy)]
pub enum Resumed {
    /// It continues that session.
    Continued,
    /// There is no such session (any more), or it is somebody else's.
    NoSession,
    /// It is not known what the client has.
    UnknownOffset,
    /// It has missed more than is sent, or may not read it.
    MissedTooMuch,
    /// Another connection continues the session.
    TakenByOther,
    /// Too many come back at once.
    TooMany,
}

label!(Resumed {
    Continued = "continued",
    NoSession = "no_session",
    UnknownOffset = "unknown_offset",
    MissedTooMuch = "missed_too_much",
    TakenByOther = "taken_by_other",
    TooMany = "too_many",
});
label!(Notified { Taken = "taken", Dropped = "dropped" });
label!(Outbox { Sent = "sent", Failed = "failed" });

instruments! {
    /// Time from the start of an event's handler to its answer
    EVENT_SECONDS: Latency[event] = "imks_event_duration_seconds";
    /// Events that were answered with an error, by kind
    EVENT_ERRORS: Counter[kind: EventError] = "imks_event_errors_total";
    /// Connects that wait because they cannot succeed at the moment
    CONNECTS_HELD: Gauge = "imks_connects_held";
    /// Connects that could not succeed and found no room to wait; their transport ended at once
    CONNECTS_NOT_HELD: Counter = "imks_connects_not_held_total";
    /// Attempts to send scheduled messages, by what became of them
    SCHEDULED: Counter[outcome: Scheduled] = "imks_scheduled_messages_total";
    /// Bytes reserved for large answers in flight
    ANSWER_BYTES: Gauge = "imks_answer_bytes";
    /// Time from the commit of a transaction until its events are in all local outboxes
    DISPATCH_SECONDS: Latency = "imks_dispatch_seconds";
    /// Time from the sending of an event by another node until it is in the outboxes of all receivers of this node, by the
    /// clocks of both
    DISPATCH_REMOTE_SECONDS: Latency = "imks_dispatch_remote_seconds";
    /// Holes in the events of a channel that were filled from the database
    HOLES_HEALED: Counter = "imks_dispatch_holes_healed_total";
    /// Time from the discovery of a hole in the events of a channel until it was filled from the database
    HOLE_SECONDS: Latency = "imks_dispatch_hole_seconds";
    /// Channels that were found to be behind by comparing their numbers
    HEADS_BEHIND: Counter = "imks_dispatch_heads_behind_total";
    /// Messages of other programs (`imks.publish`) that were appended, and that failed for good
    OUTBOX: Counter[kind: Outbox] = "imks_outbox_messages_total";
    /// Messages of other programs (`imks.publish`) that wait to be appended, counted up to 10,000
    OUTBOX_WAITING: Gauge = "imks_outbox_messages_waiting";
    /// Times that this node has read the presence of all users of another node: once when it meets the node, and each time
    /// that reports were lost
    PRESENCE_READ: Counter = "imks_presence_nodes_read_total";
    /// Notifications for users who are mentioned while they are not connected, by what became of them
    NOTIFICATIONS: Counter[outcome: Notified] = "imks_notifications_total";
    /// Clients that named an earlier session, by what became of them: all but `continued` got a new one
    RESUMES: Counter[outcome: Resumed] = "imks_resumes_total";
    /// Messages and changes that were sent to clients that continued their sessions
    RESUME_REPLAYED: Counter = "imks_resume_replayed_total";
    /// Parts of the journals of deliveries that were made short because they were old
    RESUME_FOLDED: Counter = "imks_resume_folded_total";
}
