//! The numbered probes that a node sends to itself.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::node::NodeId;

/// The probes that have not come back yet.
pub(super) struct Probes {
    channel: Arc<str>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    probes: HashMap<u64, oneshot::Sender<()>>,
}

impl Probes {
    pub(super) fn new(node: NodeId) -> Self {
        Self { channel: format!("{PROBE}{node}").into(), waiting: Mutex::default() }
    }

    /// Returns the channel on which this node sends probes to itself.
    pub(super) fn channel(&self) -> Arc<str> {
        self.channel.clone()
    }

    /// Returns the number of a new probe, and the receiver that is told when it comes back.
    pub(super) fn next(&self) -> (u64, oneshot::Receiver<()>) {
        let (back, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.probes.insert(number, back);
        (number, receiver)
    }

    /// Records that a probe has come back. Ignores unknown ones: they may come late.
    pub(super) fn came_back(&self, message: &[u8]) {
        let number = std::str::from_utf8(message).ok().and_then(|text| text.parse().ok());
        let probe = number.and_then(|number: u64| self.waiting.lock().probes.remove(&number));
        if let Some(probe) = probe {
            // Whoever sent it may have given up meanwhile.
            let _ = probe.send(());
        }
    }

    /// Stops waiting for a probe.
    pub(super) fn forget(&self, number: u64) {
        self.waiting.lock().probes.remove(&number);
    }
}

/// The start of the channels of probes.
pub(crate) const PROBE: &str = "probe:";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_probe_comes_back_once_and_others_are_ignored() {
        let probes = Probes::new(NodeId::from_bytes([1; 5]));
        let ((first, back), (second, never)) = (probes.next(), probes.next());
        for message in ["", "x", "99", "18446744073709551616"] {
            probes.came_back(message.as_bytes());
        }
        probes.came_back(first.to_string().as_bytes());
        assert_eq!(back.await, Ok(()));
        probes.forget(second);
        assert!(never.await.is_err());
        assert!(probes.waiting.lock().probes.is_empty());
    }
}
