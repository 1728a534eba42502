//! The acks that clients of this node owe to a request of another node, and their way to that node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::ImksResult;
use crate::socket::codec::packet::Args;
use crate::socket::namespace::ack_collector::AckSink;
use crate::socket::namespace::ack_request::{AckRequest, ExpectedAcks};
use crate::socket::namespace::cluster_link::Target;
use crate::socket::namespace::namespace::Namespace;
use crate::socket::socket_id::SocketId;

/// The node that has asked for acks.
pub(super) trait AckRequester: Send + Sync + 'static {
    /// Tells which sockets got the event.
    fn asked(&self, sockets: Vec<SocketId>);

    /// Passes on what a client answered.
    fn acked(&self, socket: SocketId, args: &Args);

    /// Tells that a client left or cannot be asked.
    fn gone(&self, socket: SocketId);
}

/// Sends an event with ack to sockets of this node. The returned future passes their acks on, until all have arrived or
/// `timeout` has passed.
pub(super) fn relay_acks<R: AckRequester>(
    requester: R,
    namespace: &Namespace,
    target: &Target<'_>,
    args: &Args,
    compress: bool,
    timeout: Duration,
) -> ImksResult<impl Future<Output = ()> + Send + use<R>> {
    let relay = Arc::new(AckRelay {
        requester,
        left: AtomicUsize::new(0),
        done: Notify::new(),
        over: AtomicBool::new(false),
    });
    let request = AckRequest::new(namespace, target, None, (args.name(), args), compress, relay.clone())?;
    let sockets = request.socket_ids();
    relay.left.store(sockets.len(), Ordering::Release);
    relay.requester.asked(sockets);
    let pending = request.send();
    Ok(wait_for_acks(relay, pending, timeout.min(ACK_TIMEOUT_MAX)))
}

/// Keeps the acks pending until all have arrived or `timeout` has passed.
async fn wait_for_acks<R: AckRequester>(relay: Arc<AckRelay<R>>, pending: ExpectedAcks, timeout: Duration) {
    // The requester has the same deadline, and knows itself which acks are missing.
    let _ = tokio::time::timeout(timeout, relay.wait()).await;
    relay.over.store(true, Ordering::Release);
    drop(pending);
}

/// Sends the acks of this node's sockets to the requester.
struct AckRelay<R> {
    requester: R,
    left: AtomicUsize,
    done: Notify,
    over: AtomicBool,
}

impl<R> AckRelay<R> {
    async fn wait(&self) {
        while self.left.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
    }

    fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

impl<R: AckRequester> AckSink for AckRelay<R> {
    fn acked(&self, socket: SocketId, args: Args) {
        self.requester.acked(socket, &args);
        self.one_less();
    }

    fn gone(&self, socket: SocketId) {
        if !self.over.load(Ordering::Acquire) {
            self.requester.gone(socket);
            self.one_less();
        }
    }
}

/// The maximum time for which acks are awaited on behalf of another node.
const ACK_TIMEOUT_MAX: Duration = Duration::from_secs(600);
