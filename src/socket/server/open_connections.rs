//! The open connections of a server, which it closes together.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use crate::engine::{Close, Outbox};

/// All open connections, whether they have joined a namespace or not.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    outboxes: DashMap<u64, Outbox>,
    next: AtomicU64,
    closing: CancellationToken,
}

impl OpenConnections {
    /// Adds a connection and returns its key for [`OpenConnections::remove`]. Closes it if the server is
    /// closed.
    pub(crate) fn insert(&self, outbox: Outbox) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.outboxes.insert(key, outbox.clone());
        // Checked after the insertion, so that a concurrent `close` finds the connection in the map.
        if self.closing.is_cancelled() {
            outbox.close(Close::Shutdown);
        }
        key
    }

    pub(crate) fn remove(&self, key: u64) {
        self.outboxes.remove(&key);
    }

    /// Closes all connections, and every one that is added later.
    pub(crate) fn close(&self) {
        self.closing.cancel();
        for outbox in &self.outboxes {
            outbox.close(Close::Shutdown);
            // One that is being closed already would not notice it.
            outbox.0.wake();
        }
    }

    /// Whether [`OpenConnections::close`] was called.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Waits for [`OpenConnections::close`].
    pub(crate) async fn closed(&self) {
        self.closing.cancelled().await;
    }
}
