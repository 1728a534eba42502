//! Connections that end because a back end says so: the event `session:ended`, and the task that closes many
//! connections slowly enough for their clients to come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::push::Push;
use crate::socket::Namespace;

/// Sent to every client before a server that stops closes its connection.
pub const SHUTDOWN: Push<Shutdown> = Push::new("server:shutdown");
/// Sent to a connection before a back end ends it.
pub(super) const ENDED: Push<Farewell<'_>> = Push::new("session:ended");

/// The payload of `session:ended`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Farewell<'a> {
    pub(super) reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'a str>,
    /// Whether the client may come back, as a stock client does by itself.
    pub(super) reconnect: bool,
}

/// The payload of `server:shutdown`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shutdown {
    /// Why the server stops.
    pub reason: &'static str,
    /// The delay before reconnecting; it differs between clients, so that they do not all reconnect at once.
    pub reconnect_after_ms: u64,
}

/// The connections to close. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Farewells(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The ids of sockets, with the reason that their users are told. Bounded, because each was a socket of this node.
    /// Ids are random, so the order is that of a lottery.
    waiting: Mutex<BTreeMap<Box<str>, Option<Arc<str>>>>,
    added: Notify,
}

impl Farewells {
    /// Adds sockets to those that are closed soon.
    pub(super) fn add<'a>(&self, sockets: impl Iterator<Item = (&'a str, Option<Arc<str>>)>) {
        self.0.waiting.lock().extend(sockets.map(|(id, message)| (id.into(), message)));
        self.0.added.notify_one();
    }

    /// Closes connections until `stop`, [`SLICE`] at once.
    pub(super) async fn run(self, namespace: Namespace, stop: CancellationToken) {
        while stop.run_until_cancelled(self.0.added.notified()).await.is_some() {
            while self.slice(&namespace) {
                if stop.run_until_cancelled(sleep(PAUSE)).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Closes some connections. Returns whether there were any.
    fn slice(&self, namespace: &Namespace) -> bool {
        let some: Vec<_> = {
            let mut waiting = self.0.waiting.lock();
            std::iter::from_fn(|| waiting.pop_first()).take(SLICE).collect()
        };
        for (id, message) in &some {
            // Sockets that disconnected meanwhile are not found.
            let Some(socket) = namespace.socket(id) else { continue };
            let message = message.as_deref();
            ENDED.to_socket(&socket, &Farewell { reason: "disconnected", message, reconnect: true });
            socket.close_connection();
        }
        !some.is_empty()
    }
}

/// The number of connections that are closed at once.
const SLICE: usize = 200;
/// The pause after a slice, so that clients come back as slowly: at most 1,000 in a second to one node's peers.
const PAUSE: Duration = Duration::from_millis(200);
