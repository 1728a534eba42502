//! The adapter of a single node: there is nobody to reach.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Adapter;

/// For one node alone.
#[derive(Debug, Default, Clone, Copy)]
pub struct LocalAdapter;

impl Adapter for LocalAdapter {
    fn name(&self) -> &'static str {
        "local"
    }

    fn reaches_others(&self) -> bool {
        false
    }

    fn publish(&self, _channel: &str, _message: Bytes) {}

    fn subscribe(&self, _channel: &str, _inbox: mpsc::Sender<Bytes>) {}

    fn unsubscribe(&self, _channel: &str) {}
}
