//! Metrics of the bus between nodes.

use crate::telemetry::instruments;

instruments! {
    /// Messages of other nodes that were dropped, because they were malformed or a queue was full
    MESSAGES_DROPPED: Counter = "imks_bus_messages_dropped_total";
}
