//! The shutdown of the server. Accepted writes are stored, acknowledged and broadcast before sessions are
//! closed.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::App;
use crate::clock::random_up_to;
use crate::config::Drain;
use crate::messaging::{SHUTDOWN, Shutdown};
use crate::{ImksError, ImksResult};

impl App {
    /// Shuts the server down gracefully: reports that it is not ready, refuses new sessions, stores all
    /// accepted writes, and closes sessions without a Socket.IO DISCONNECT, so that clients reconnect by
    /// themselves.
    ///
    /// # Errors
    /// [`ImksError::Timeout`] if the deadline passes before everything is closed. Acknowledged writes are
    /// stored even then.
    pub async fn drain(self, drain: Drain) -> ImksResult<()> {
        self.health.start_draining();
        tokio::time::sleep(drain.delay).await;
        let deadline = Instant::now() + drain.deadline;
        let closed = timeout_at(deadline, Box::pin(self.close_sessions(deadline))).await;
        self.stop.cancel();
        self.tasks.close();
        let ended = timeout_at(deadline.max(Instant::now() + LAST_GRACE), self.tasks.wait()).await;
        if let Some(directory) = &self.directory {
            directory.close().await;
        }
        self.db.close().await;
        if let Some(exporter) = &self.exporter {
            exporter.shutdown().await;
        }
        closed
            .and(ended)
            .map_err(|_| ImksError::Timeout("the drain deadline passed before everything was closed"))
    }

    async fn close_sessions(&self, deadline: Instant) {
        self.engine.close();
        self.appender.drain().await;
        self.dispatchers.wait().await;
        // Handlers that are still running acknowledge the stored writes. The wait is limited, so that clients
        // that keep sending requests do not delay the shutdown.
        if timeout(HANDLERS_GRACE, self.server.idle()).await.is_err() {
            tracing::info!("clients keep sending requests while sessions are closed");
        }
        let sockets = self.namespace.sockets();
        let pause = pause_between(sockets.len(), deadline.saturating_duration_since(Instant::now()));
        let spread = reconnect_spread(self.namespace.cluster().others().len());
        tracing::info!(sessions = sockets.len(), "messages are flushed, closing sessions");
        for (index, socket) in sockets.iter().enumerate() {
            let notice = Shutdown { reason: "restart", reconnect_after_ms: reconnect_after_ms(spread) };
            if socket.emit(SHUTDOWN.name(), &notice).is_ok() {
                socket.close_connection();
            }
            if index % SLICE == SLICE - 1 {
                tokio::time::sleep(pause).await;
            }
        }
        // This also closes connections that joined no namespace. The wait is limited, because a client may
        // never poll again.
        if timeout(LAST_POLL, self.server.close()).await.is_err() {
            tracing::info!(
                sessions = self.engine.sessions(),
                "some clients did not poll, they are closed unasked"
            );
        }
    }
}

/// Returns a random delay for one client, so that clients do not all reconnect at once.
fn reconnect_after_ms(spread: Duration) -> u64 {
    u64::try_from(random_up_to(spread).as_millis()).unwrap_or(u64::MAX)
}

/// Returns the longest delay: short where other nodes take the clients, who are closed slowly enough for that.
fn reconnect_spread(other_nodes: usize) -> Duration {
    if other_nodes == 0 { RECONNECT_SPREAD } else { MOVE_SPREAD }
}

/// Returns the pause between two slices. A few sessions are closed at once; many are spread over up to half
/// of `time`.
fn pause_between(sessions: usize, time: Duration) -> Duration {
    let slices = u32::try_from(sessions / SLICE).unwrap_or(u32::MAX);
    if slices == 0 { Duration::ZERO } else { (time / 2 / slices).min(PAUSE_MAX) }
}

/// The number of sessions that are closed without a pause between them.
const SLICE: usize = 200;
/// The longest pause between two slices.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The longest delay of clients whose only node restarts.
const RECONNECT_SPREAD: Duration = Duration::from_secs(30);
/// The longest delay of clients who find another node.
const MOVE_SPREAD: Duration = Duration::from_secs(1);
/// How long a polling client may take to fetch the end of its session: longer than the gap between two polls.
const LAST_POLL: Duration = Duration::from_secs(5);
/// How long handlers may take to answer after the last write is stored.
const HANDLERS_GRACE: Duration = Duration::from_secs(1);
/// How long the remaining tasks may take after the sessions are closed.
const LAST_GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_sessions_go_at_once_and_many_within_half_of_the_time() {
        let time = Duration::from_secs(30);
        assert_eq!(pause_between(SLICE - 1, time), Duration::ZERO);
        let many = 100_000;
        let total = pause_between(many, time) * u32::try_from(many / SLICE).unwrap();
        assert!(total <= time / 2 && total > time / 4, "{total:?}");
    }

    #[test]
    fn clients_are_asked_to_come_back_at_different_times() {
        let times = |nodes| -> std::collections::HashSet<u64> {
            (0..100).map(|_| reconnect_after_ms(reconnect_spread(nodes))).collect()
        };
        let (alone, moved) = (times(0), times(2));
        assert!(alone.len() > 50 && alone.iter().all(|time| *time <= 30_000));
        assert!(moved.len() > 50 && moved.iter().all(|time| *time <= 1_000));
    }
}
