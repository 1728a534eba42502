//! The metrics of the store.

use crate::telemetry::{instruments, label};

/// A problem with a write.
pub enum AppendProblem {
    /// Refused, because its lane was full.
    Refused,
    /// Retried, because the database failed.
    Retried,
    /// Failed, because of the database.
    Failed,
}

/// A stage of a change of a channel, such as a message.
pub enum Stage {
    /// From the packet that asks for it until it waits to be written.
    Receive,
    /// Until it is stored.
    Commit,
    /// Until its event is in the outboxes of all receivers of this node.
    Deliver,
}

label!(Stage { Receive = "receive", Commit = "commit", Deliver = "deliver" });
label!(AppendProblem { Refused = "refused", Retried = "retried", Failed = "failed" });

instruments! {
    /// Messages committed to the store
    MESSAGES_STORED: Counter = "imks_messages_stored_total";
    /// Time that messages and other changes of channels spend in each stage: `receive` from the packet until the write
    /// is checked and queued, `commit` until it is stored, `deliver` until its event is in the outboxes of all receivers
    /// of this node
    STAGE_SECONDS: Latency[stage: Stage] = "imks_message_stage_seconds";
    /// Duration of a query, including the wait for a connection, by the name of the query
    DATABASE_SECONDS: Latency[query] = "imks_database_query_seconds";
    /// Number of writes in one transaction of the append path
    APPEND_BATCH_SIZE: Size = "imks_append_batch_size";
    /// Duration of one transaction of the append path, from BEGIN to COMMIT
    APPEND_COMMIT_SECONDS: Latency = "imks_append_commit_seconds";
    /// Writes refused because their lane was full, transactions retried, and writes that failed, by kind
    APPEND_PROBLEMS: Counter[kind: AppendProblem] = "imks_append_problems_total";
    /// Age of the oldest event of the feed that nobody can follow yet, because a transaction before it is open, in whole seconds
    FEED_HELD_BACK: Gauge = "imks_feed_held_back_seconds";
}
