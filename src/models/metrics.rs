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

label!(AppendProblem { Refused = "refused", Retried = "retried", Failed = "failed" });

instruments! {
    /// Messages committed to the store
    MESSAGES_STORED: Counter = "imks_messages_stored_total";
    /// Time of one query by its name, waiting for a connection included
    DATABASE_SECONDS: Latency[query] = "imks_database_query_seconds";
    /// Writes in one transaction of the append path
    APPEND_BATCH_SIZE: Size = "imks_append_batch_size";
    /// Time of one transaction of the append path, begin to commit
    APPEND_COMMIT_SECONDS: Latency = "imks_append_commit_seconds";
    /// Writes refused because their lane was full, transactions tried again, writes that failed
    APPEND_PROBLEMS: Counter[kind: AppendProblem] = "imks_append_problems_total";
}
