//! What this node asks all others: sockets, answers of clients, answers of servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::message_bus::{MessageBus, Target};
use super::node::{Collected, Question};
use super::wire::{Call, WirePacket};
use crate::error::ImksResult;
use crate::socket::codec::parser::Arguments;
use crate::socket::namespace::ack_collector::{Answers, Gathering, Tickets};
use crate::socket::namespace::namespace::Namespace;
use crate::socket::namespace::remote_socket::{FetchedSockets, RemoteSocket};
use crate::socket::namespace::server_events::ServerAnswers;
use crate::socket::namespace::socket::Socket;

/// What clients are asked.
pub(crate) struct Asked<'a, A> {
    pub(crate) event: &'a str,
    pub(crate) args: &'a A,
    pub(crate) compress: bool,
}

impl MessageBus {
    /// Asks clients here, and on all other nodes if they are given a time.
    pub(crate) fn ask(
        &self,
        namespace: &Namespace,
        target: &Target<'_>,
        skip: Option<&Socket>,
        Asked { event, args, compress }: Asked<'_, impl Arguments>,
        others: Option<Duration>,
    ) -> ImksResult<AskedClients> {
        let nodes = if others.is_some() { self.cluster().others() } else { Vec::new() };
        let remote = !nodes.is_empty();
        let gathering = Arc::new(Gathering::new(self.cluster().node, nodes));
        let asking = namespace.question(target, skip, event, args, gathering.clone())?;
        let asking = asking.with_compression(compress);
        let question = match others.filter(|_| remote) {
            None => None,
            Some(timeout) => {
                let frames = WirePacket::event(event, args)?;
                let call = Call::Ask {
                    rooms: target.rooms.to_vec(),
                    except: target.except.iter().copied().chain(skip.map(Socket::id)).collect(),
                    packet: WirePacket::of(&frames)?,
                    compress,
                    timeout_millis: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                };
                let collected = Collected::Clients(gathering.clone());
                Some(self.cluster().ask(namespace.path(), call, collected)?)
            }
        };
        gathering.asked(self.cluster().node, &asking.asked());
        Ok(AskedClients { gathering, _tickets: asking.deliver(), _question: question })
    }

    /// Asks all nodes for their sockets.
    pub(crate) fn fetch(
        &self,
        namespace: &Namespace,
        target: &Target<'_>,
        skip: Option<&Socket>,
        local: bool,
    ) -> ImksResult<AskedNodes> {
        let node = self.cluster().node;
        let mut sockets = Vec::new();
        namespace.for_each_target(target, skip, |socket| sockets.push(socket.clone()));
        let sockets: Vec<_> = sockets.iter().map(|socket| RemoteSocket::of(socket, node)).collect();
        if local {
            return Ok(AskedNodes::Local(sockets));
        }
        let call = Call::Fetch {
            rooms: target.rooms.to_vec(),
            except: target.except.iter().copied().chain(skip.map(Socket::id)).collect(),
        };
        let collected = Collected::Sockets { namespace: namespace.clone(), parts: HashMap::new(), sockets };
        let question = self.cluster().ask(namespace.path(), call, collected)?;
        Ok(AskedNodes::All(question, self.request_timeout()))
    }

    /// Tells all other nodes, and wants to hear nothing.
    pub(crate) fn server_event(
        &self,
        namespace: &Namespace,
        event: &str,
        args: &impl Arguments,
    ) -> ImksResult<()> {
        let frames = WirePacket::event(event, args)?;
        let call = Call::ServerEvent { packet: WirePacket::of(&frames)?, answer: false };
        self.cluster().ask(namespace.path(), call, Collected::Answers(Vec::new())).map(drop)
    }

    /// Tells all other nodes, and wants an answer of each.
    pub(crate) fn server_question(
        &self,
        namespace: &Namespace,
        event: &str,
        args: &impl Arguments,
    ) -> ImksResult<AskedServers> {
        let frames = WirePacket::event(event, args)?;
        let call = Call::ServerEvent { packet: WirePacket::of(&frames)?, answer: true };
        self.cluster().ask(namespace.path(), call, Collected::Answers(Vec::new())).map(AskedServers)
    }
}

/// Clients were asked. Dropping it takes the question back.
pub(crate) struct AskedClients {
    gathering: Arc<Gathering>,
    _tickets: Tickets,
    _question: Option<Question>,
}

impl AskedClients {
    pub(crate) async fn answers(self, timeout: Duration) -> Answers {
        // Running out of time is no error: the result names who is missing.
        let _ = tokio::time::timeout(timeout, self.gathering.wait()).await;
        self.gathering.take()
    }
}

/// Nodes were asked for their sockets.
pub(crate) enum AskedNodes {
    Local(Vec<RemoteSocket>),
    All(Question, Duration),
}

impl AskedNodes {
    pub(crate) async fn sockets(self) -> FetchedSockets {
        let (question, timeout) = match self {
            Self::Local(sockets) => return FetchedSockets { sockets, silent: Vec::new() },
            Self::All(question, timeout) => (question, timeout),
        };
        match question.wait(timeout).await {
            (Some(Collected::Sockets { sockets, .. }), silent) => FetchedSockets { sockets, silent },
            (_, silent) => FetchedSockets { sockets: Vec::new(), silent },
        }
    }
}

/// Nodes were asked something of the application.
pub(crate) struct AskedServers(Question);

impl AskedServers {
    pub(crate) async fn answers(self, timeout: Duration) -> ImksResult<ServerAnswers> {
        match self.0.wait(timeout).await {
            (Some(Collected::Answers(answers)), silent) => Ok(ServerAnswers { answers, silent }),
            (_, silent) => Ok(ServerAnswers { answers: Vec::new(), silent }),
        }
    }
}
