//! The end of the node that received a request: it finds the owner of the session and passes the request on.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::head::{self, SECRET_BYTES};
use super::line::Opened;
use super::peer::{Contact, Peer, Slot};
use crate::ImksResult;
use crate::engine::config::Forward;
use crate::engine::{ClientStream, ForwardedReply, ForwardedRequest, NotForwarded};
use crate::http::metrics;
use crate::node::NodeId;

/// The way to the other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Forwarder(Arc<Inner>);

struct Inner {
    secret: [u8; SECRET_BYTES],
    peers: RwLock<HashMap<NodeId, Known>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A node, and when it was last known to be alive.
struct Known {
    peer: Arc<Peer>,
    seen: Instant,
}

impl Forwarder {
    /// Creates a forwarder that knows no other nodes yet. Its tasks run on `tasks` and end with `stop`.
    ///
    /// # Errors
    /// [`Randomness`](crate::ImksError::Randomness) if the operating system has no random numbers.
    pub fn new(tasks: &TaskTracker, stop: &CancellationToken) -> ImksResult<Self> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        let (tasks, stop) = (tasks.clone(), stop.clone());
        Ok(Self(Arc::new(Inner { secret, peers: RwLock::default(), tasks, stop })))
    }

    /// Returns the secret of this node, with which other nodes sign what they pass on to it.
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.0.secret
    }

    /// Takes in which other nodes are alive, and how each is reached. A node that is not named any more is still tried
    /// for a while: a database that pauses makes all nodes look dead.
    pub fn update(&self, alive: impl IntoIterator<Item = (NodeId, Contact)>, now: Instant) {
        let mut peers = self.0.peers.write();
        for (node, contact) in alive.into_iter().take(PEERS_MAX) {
            match peers.get_mut(&node).filter(|known| known.peer.contact == contact) {
                Some(known) => known.seen = now,
                None => {
                    let peer = Arc::new(Peer::new(node, contact));
                    peers.insert(node, Known { peer, seen: now });
                }
            }
        }
        peers.retain(|_, known| now.duration_since(known.seen) < FORGOTTEN_AFTER);
    }

    /// Returns the hook of the engine.
    pub fn hook(&self) -> Forward {
        let this = self.clone();
        Arc::new(move |owner, request| {
            let this = this.clone();
            Box::pin(async move {
                let passed_on = this.0.stop.run_until_cancelled(this.pass_on(owner, request)).await;
                passed_on.unwrap_or(Err(NotForwarded::Unreachable))
            })
        })
    }

    async fn pass_on(
        &self,
        owner: NodeId,
        request: ForwardedRequest,
    ) -> Result<ForwardedReply, NotForwarded> {
        let peer = self.0.peers.read().get(&owner).map(|known| known.peer.clone());
        let peer = peer.ok_or(NotForwarded::UnknownNode)?;
        let slot = peer.admit(request.client.is_some())?;
        let (request, client) =
            head::request(&peer.contact.secret, request).ok_or(NotForwarded::Unreachable)?;
        let (reply, opened) = Box::pin(peer.exchange(request, &self.0.tasks, &self.0.stop)).await?;
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client), Some(opened)) = (reply.status, client, opened)
        {
            self.carry(client, opened, slot);
        }
        Ok(reply)
    }

    /// Carries an open WebSocket in a task, until it ends or this node stops.
    fn carry(&self, client: ClientStream, opened: Opened, slot: Slot) {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            metrics::FORWARDED_STREAMS.add(1);
            let carried = async {
                let owner = opened.stream().await?;
                client.join(TokioIo::new(owner)).await
            };
            if let Some(Err(error)) = stop.run_until_cancelled(carried).await {
                tracing::debug!(%error, "the stream of a WebSocket on another node ended");
            }
            metrics::FORWARDED_STREAMS.add(-1);
            drop(slot);
        });
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Forwarder").field("peers", &self.0.peers.read().len()).finish_non_exhaustive()
    }
}

/// The maximum number of other nodes that requests are passed on to.
const PEERS_MAX: usize = 1_024;
/// How long a node that does not say any more that it is alive is still tried.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(address: &str) -> Contact {
        Contact { address: address.into(), secret: [1; SECRET_BYTES], certificate: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_tried_for_a_while_after_its_last_sign_and_known_anew_when_its_address_changes() {
        let forwarder = Forwarder::new(&TaskTracker::new(), &CancellationToken::new()).unwrap();
        let (one, two, now) = (NodeId::random().unwrap(), NodeId::random().unwrap(), Instant::now());
        forwarder.update([(one, contact("a:1")), (two, contact("b:1"))], now);
        forwarder.update([(two, contact("b:2"))], now + FORGOTTEN_AFTER - Duration::from_millis(1));
        let addresses = || {
            let peers = forwarder.0.peers.read();
            let mut all: Vec<_> = peers.values().map(|known| known.peer.contact.address.clone()).collect();
            all.sort();
            all
        };
        assert_eq!(addresses(), ["a:1", "b:2"]);
        forwarder.update([(two, contact("b:2"))], now + FORGOTTEN_AFTER);
        assert_eq!(addresses(), ["b:2"]);
    }
}
