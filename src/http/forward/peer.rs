//! Another node: how it is reached, its idle connections, and the bound of what is under way to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::head::{self, SECRET_BYTES};
use super::line::{Failed, Line, Opened};
use super::pinned;
use crate::engine::{ForwardedReply, NotForwarded};
use crate::node::NodeId;

/// How a node is reached by the others.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// The host and port of its public listener.
    pub address: String,
    /// The secret with which others sign what they pass on to it.
    pub secret: [u8; SECRET_BYTES],
    /// The SHA-256 hash of its certificate, if its listener speaks TLS.
    pub certificate: Option<[u8; 32]>,
}

impl fmt::Debug for Contact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Contact").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A place among what is under way to a node.
pub(super) struct Slot {
    _request: OwnedSemaphorePermit,
    _stream: Option<OwnedSemaphorePermit>,
}

/// A node that requests are passed on to.
pub(super) struct Peer {
    node: NodeId,
    pub(super) contact: Contact,
    tls: Option<Arc<ClientConfig>>,
    /// The permits for requests and open streams.
    slots: Arc<Semaphore>,
    /// The permits for streams, which stay for hours: fewer, so that requests always find a slot.
    streams: Arc<Semaphore>,
    idle: Mutex<Vec<Line>>,
    warned: Mutex<Option<Instant>>,
}

impl Peer {
    pub(super) fn new(node: NodeId, contact: Contact) -> Self {
        let tls = contact.certificate.and_then(pinned::trusting);
        let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { node, contact, tls, slots, streams, idle: Mutex::default(), warned: Mutex::default() }
    }

    /// Takes a place for a request, and for the stream that it asks for.
    ///
    /// # Errors
    /// [`NotForwarded::Overloaded`].
    pub(super) fn admit(&self, asks_for_stream: bool) -> Result<Slot, NotForwarded> {
        let take = |permits: &Arc<Semaphore>| {
            permits.clone().try_acquire_owned().map_err(|_| NotForwarded::Overloaded)
        };
        let stream = asks_for_stream.then(|| take(&self.streams)).transpose()?;
        Ok(Slot { _request: take(&self.slots)?, _stream: stream })
    }

    /// Sends a request to the node and returns its answer, and the stream of a WebSocket if it opens one.
    pub(super) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(ForwardedReply, Option<Opened>), NotForwarded> {
        let (mut answer, line) = self.send(request, tasks, stop).await?;
        let status = answer.status();
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        let Some(headers) = head::reply(self.node, std::mem::take(answer.headers_mut()), switches) else {
            self.warn(&format!("something else answers there ({status}): it must lead to this one node"));
            return Err(NotForwarded::Unreachable);
        };
        if switches {
            return Ok((ForwardedReply { status, headers, body: Bytes::new() }, line.opened(&mut answer)));
        }
        let (body, line) = line.read(answer.into_body()).await.ok_or(NotForwarded::Unreachable)?;
        if let Some(line) = line {
            self.keep(line);
        }
        Ok((ForwardedReply { status, headers, body }, None))
    }

    /// Sends a request on an idle connection, or on a new one.
    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(Response<Incoming>, Line), NotForwarded> {
        while let Some(mut line) = self.take() {
            match line.send(request).await {
                Ok(answer) => return Ok((answer, line)),
                Err(Failed::Unsent(unsent)) => request = *unsent,
                Err(Failed::Lost) => return Err(NotForwarded::Unreachable),
            }
        }
        if self.contact.certificate.is_some() && self.tls.is_none() {
            return Err(NotForwarded::Unreachable);
        }
        let opening = Box::pin(Line::open(&self.contact.address, self.tls.as_ref(), tasks, stop));
        let mut line = opening.await.map_err(|error| {
            self.warn(&error.to_string());
            NotForwarded::Unreachable
        })?;
        let answer = line.send(request).await.map_err(|_| NotForwarded::Unreachable)?;
        Ok((answer, line))
    }

    fn take(&self) -> Option<Line> {
        let mut idle = self.idle.lock();
        idle.retain(Line::is_usable);
        idle.pop()
    }

    fn keep(&self, line: Line) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(line);
        }
    }

    /// Logs at a limited rate why the node was not reached.
    fn warn(&self, why: &str) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
            *warned = Some(Instant::now());
            let address = &self.contact.address;
            tracing::warn!(node = %self.node, %address, why, "{NOT_REACHED}");
        }
    }
}

const NOT_REACHED: &str = "requests for sessions of another node do not reach it, unless it has just ended. Its \
    IMKS_CLUSTER_ADDRESS must be where the other nodes reach its listener";
/// The maximum number of requests and open WebSockets that are under way to one node. Further requests are answered
/// with 503.
const UNDER_WAY_MAX: usize = 16_384;
/// The maximum number of WebSockets that go through this node to one other: fewer than what may be under way in all.
/// A client whose WebSocket is refused goes on polling.
const STREAMS_MAX: usize = 12_288;
/// The maximum number of idle connections to one node.
const IDLE_MAX: usize = 64;
/// The minimum time between two warnings about one node.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_streams_are_open_there_is_room_for_requests() {
        let contact = Contact { address: "a:1".into(), secret: [1; SECRET_BYTES], certificate: None };
        let peer = Peer::new(NodeId::random().unwrap(), contact);
        let all = |streams: bool| std::iter::from_fn(|| peer.admit(streams).ok()).collect::<Vec<Slot>>();
        let streams = all(true);
        assert_eq!(streams.len(), STREAMS_MAX);
        assert_eq!(all(false).len(), UNDER_WAY_MAX - STREAMS_MAX);
        drop(streams);
        assert_eq!(all(false).len(), UNDER_WAY_MAX);
        assert!(peer.admit(true).is_ok(), "what has ended leaves its place");
    }
}
