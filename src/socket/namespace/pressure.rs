//! Backpressure on connections that fill outboxes faster than the receivers run.
//!
//! A broadcast never waits for a receiver. Instead, the connection that causes it ends its turn early, so
//! that receivers that have not been scheduled yet are not mistaken for slow ones. Handlers run on the thread
//! that polls their connection, so a thread-local connects the broadcast with the connection.

use std::cell::Cell;

use crate::engine::Pressure;

thread_local! {
    static PRESSURE: Cell<bool> = const { Cell::new(false) };
}

/// Records the pressure of an outbox that this thread has just written to.
pub(crate) fn note(pressure: Pressure) {
    if pressure.0 {
        PRESSURE.set(true);
    }
}

/// Whether this thread recorded pressure since the last call.
pub(crate) fn take() -> bool {
    PRESSURE.replace(false)
}
