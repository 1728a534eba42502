//! The connections of a server, so that it can end them all.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use crate::engine::{Close, Outbox};

/// Every connection from its first moment to its last, joined to a namespace or not.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    outboxes: DashMap<u64, Outbox>,
    next: AtomicU64,
    closing: CancellationToken,
}

impl OpenConnections {
    /// Notes a connection; the number is for [`OpenConnections::remove`]. Once closed, it is told to end.
    pub(crate) fn insert(&self, outbox: Outbox) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.outboxes.insert(key, outbox.clone());
        // Asked after it stands among the others: whoever closes meanwhile finds it there.
        if self.closing.is_cancelled() {
            outbox.close(Close::Shutdown);
        }
        key
    }

    pub(crate) fn remove(&self, key: u64) {
        self.outboxes.remove(&key);
    }

    /// Ends them all, and every one to come.
    pub(crate) fn close(&self) {
        self.closing.cancel();
        self.outboxes.iter().for_each(|outbox| outbox.close(Close::Shutdown));
    }

    /// Until [`OpenConnections::close`].
    pub(crate) async fn closed(&self) {
        self.closing.cancelled().await;
    }
}
