//! What this node does when another one asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::message_bus::Target;
use super::node::Cluster;
use super::requests::Asked;
use super::wire::{Call, Reply, WirePacket};
use crate::error::ImksResult;
use crate::socket::codec::packet::Args;
use crate::socket::codec::parser::Arguments;
use crate::socket::namespace::ack_collector::{Questioner, Tickets};
use crate::socket::namespace::namespace::Namespace;
use crate::socket::namespace::remote_socket::RemoteSocket;
use crate::socket::namespace::server_events::ServerEvent;
use crate::socket::socket_id::{NodeId, SocketId};

/// One call of another node, and the way back to it.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) node: NodeId,
    pub(crate) request: u64,
}

impl Caller {
    /// Does it. A namespace that this node does not have has no sockets and no handlers.
    pub(crate) fn perform(self, namespace: Option<Namespace>, call: &Call<'_>) -> ImksResult<()> {
        match call {
            Call::Fetch { rooms, except } => self.fetch(namespace.as_ref(), &Target { rooms, except }),
            Call::ServerEvent { packet, answer } => self.server_event(namespace, packet.args()?, *answer),
            Call::Ask { rooms, except, packet, compress, timeout_millis } => {
                let timeout = Duration::from_millis(*timeout_millis).min(ASK_TIMEOUT_MAX);
                let args = &packet.args()?;
                let asked = Asked { event: args.name(), args, compress: *compress };
                self.ask(namespace.as_ref(), &Target { rooms, except }, asked, timeout)
            }
        }
    }

    pub(crate) fn reply(&self, reply: Reply<'_>) {
        if let Err(error) = self.cluster.reply(self.node, self.request, reply) {
            tracing::warn!(%error, "another node was not answered");
        }
    }

    /// Answers with these arguments, or says that there is no answer.
    pub(crate) fn answer(&self, args: Option<&impl Arguments>) -> ImksResult<()> {
        match args.map(WirePacket::ack).transpose()? {
            Some(frames) => self.reply(Reply::Answer { packet: Some(WirePacket::of(&frames)?) }),
            None => self.reply(Reply::Answer { packet: None }),
        }
        Ok(())
    }

    fn fetch(&self, namespace: Option<&Namespace>, target: &Target<'_>) -> ImksResult<()> {
        let mut sockets = Vec::new();
        if let Some(namespace) = namespace {
            namespace.for_each_target(target, None, |socket| sockets.push(socket.clone()));
        }
        let sockets: Vec<_> =
            sockets.iter().map(|socket| RemoteSocket::of(socket, self.cluster.node)).collect();
        let parts = sockets.len().div_ceil(SOCKETS_PER_PART).max(1) as u32;
        for part in 0..parts {
            let some = sockets.iter().skip(part as usize * SOCKETS_PER_PART).take(SOCKETS_PER_PART);
            let sockets = some.map(RemoteSocket::to_wire).collect();
            self.cluster.reply(self.node, self.request, Reply::Sockets { part, parts, sockets })?;
        }
        Ok(())
    }

    fn server_event(self, namespace: Option<Namespace>, args: Args, answer: bool) -> ImksResult<()> {
        let handler = namespace.and_then(|namespace| {
            let handler = namespace.server_handler(args.name())?;
            Some((namespace, handler))
        });
        let Some((namespace, handler)) = handler else {
            return if answer { self.answer(None::<&()>) } else { Ok(()) };
        };
        let cluster = self.cluster.clone();
        let event = ServerEvent::new(namespace, args, self, answer);
        cluster.spawn(async move { handler(event).await })
    }

    fn ask(
        self,
        namespace: Option<&Namespace>,
        target: &Target<'_>,
        Asked { event, args, compress }: Asked<'_, Args>,
        timeout: Duration,
    ) -> ImksResult<()> {
        let Some(namespace) = namespace else {
            self.reply(Reply::Asked { sockets: Vec::new() });
            return Ok(());
        };
        let cluster = self.cluster.clone();
        let relay = Arc::new(Relay::new(self));
        let asking = namespace.question(target, None, event, args, relay.clone())?;
        let asking = asking.with_compression(compress);
        let asked: Vec<SocketId> = asking.asked();
        relay.left.store(asked.len(), Ordering::Release);
        relay.caller.reply(Reply::Asked { sockets: asked.iter().map(SocketId::as_str).collect() });
        let tickets = asking.deliver();
        cluster.spawn(wait_for_answers(relay, tickets, timeout))
    }
}

/// Holds the tickets until all are answered or the time is over.
async fn wait_for_answers(relay: Arc<Relay>, tickets: Tickets, timeout: Duration) {
    // Whoever asked has the same deadline, and knows itself who is missing.
    let _ = tokio::time::timeout(timeout, relay.wait()).await;
    relay.over.store(true, Ordering::Release);
    drop(tickets);
}

/// Sends the answers of this node's sockets to the node that asked.
struct Relay {
    caller: Caller,
    left: AtomicUsize,
    done: Notify,
    over: AtomicBool,
}

impl Relay {
    fn new(caller: Caller) -> Self {
        Self { caller, left: AtomicUsize::new(0), done: Notify::new(), over: AtomicBool::new(false) }
    }

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

impl Questioner for Relay {
    fn answered(&self, socket: SocketId, args: Args) {
        let sent = WirePacket::ack(&args).and_then(|frames| {
            let packet = WirePacket::of(&frames)?;
            self.caller.reply(Reply::ClientAnswer { socket: socket.as_str(), packet });
            Ok(())
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "answer not passed on");
        }
        self.one_less();
    }

    fn gone(&self, socket: SocketId) {
        if !self.over.load(Ordering::Acquire) {
            self.caller.reply(Reply::ClientGone { socket: socket.as_str() });
            self.one_less();
        }
    }
}

/// Sockets in one message: some hundred bytes each.
const SOCKETS_PER_PART: usize = 1_000;

/// Longest time for which answers are awaited on behalf of another node.
const ASK_TIMEOUT_MAX: Duration = Duration::from_secs(600);
