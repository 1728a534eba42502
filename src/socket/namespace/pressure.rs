//! Pressure: queues of receivers fill faster than their connections run.
//!
//! A broadcast never waits for a receiver, but the connection that causes it can end its turn early, so that
//! receivers that are merely not scheduled yet are not mistaken for slow ones. Handlers run on the thread that
//! polls their connection, so the thread is where sender and connection meet.

use std::cell::Cell;

use crate::engine::Pressure;

thread_local! {
    static PRESSURE: Cell<bool> = const { Cell::new(false) };
}

/// Notes how full a queue is that this thread just wrote to.
pub(crate) fn note(pressure: Pressure) {
    if pressure.0 {
        PRESSURE.set(true);
    }
}

/// Whether pressure was noted on this thread since the last call.
pub(crate) fn take() -> bool {
    PRESSURE.replace(false)
}
