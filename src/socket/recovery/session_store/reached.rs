//! How far something has come, and those who wait for that. They go on in the order in which they began to wait, so that a
//! simulation can be repeated; those of a `watch` go on in any order.

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(super) struct Reached<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy + PartialEq> Reached<T> {
    pub(super) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(super) fn get(&self) -> T {
        *self.value.lock()
    }

    pub(super) fn set(&self, value: T) {
        if std::mem::replace(&mut *self.value.lock(), value) != value {
            self.changed.notify_waiters();
        }
    }

    /// Waits until it is so.
    pub(super) async fn wait_for(&self, is_so: impl Fn(T) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(self.get()) {
                return;
            }
            changed.await;
        }
    }
}
