//! Metrics of the bus between nodes.

use crate::telemetry::instruments;

instruments! {
    /// Messages of other nodes that could not be read or served
    MESSAGES_DROPPED: Counter = "imks_bus_messages_dropped_total";
}
