//! What tests see of a session store, and how they end one.

use super::SessionStore;
use super::sent::Position;
use super::shared::SharedLog;

impl SessionStore {
    /// Whether everything that this node has queued is in the log and has been delivered here.
    pub(crate) fn is_settled(&self) -> bool {
        let last = self.state.lock().outgoing.last();
        self.shared.as_ref().is_none_or(|shared| shared.released.get() >= last)
    }

    /// Whether the log is known, so that clients need not wait for it.
    pub(crate) fn is_ready(&self) -> bool {
        self.shared.as_ref().is_none_or(SharedLog::is_known)
    }

    /// Returns the epoch of the log, and the position of the newest delivered entry.
    pub(crate) fn head(&self) -> (u64, Position) {
        let state = self.state.lock();
        (state.epoch.0, state.log.last())
    }

    /// Returns the tables of the store: the name of each, its size and its bound.
    pub(crate) fn tables(&self) -> Vec<(&'static str, usize, usize)> {
        let state = self.state.lock();
        let mut tables = vec![
            ("sessions", state.by_pid.len(), usize::MAX),
            ("absent clients", state.away.len(), self.config.sessions_max),
            ("packets", state.log.len(), self.config.packets_max),
            ("bytes of packets", state.log.bytes(), self.config.bytes_max),
        ];
        tables.extend(state.outgoing.tables());
        drop(state);
        tables.extend(self.shared.iter().flat_map(|shared| shared.arrivals.lock().tables()));
        tables
    }

    /// Stops at once, as a process that is killed: what was not written is lost.
    pub(crate) fn abandon(&self) {
        if let Some(shared) = &self.shared {
            shared.stop.cancel();
        }
    }
}
