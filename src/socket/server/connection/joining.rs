//! The steps of joining a namespace: find it, run its connect hook, open the socket.

use std::sync::Arc;
use std::task::Context;

use super::{ConnectionTask, Done};
use crate::engine::Close;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::dialect::Renderings;
use crate::socket::codec::encoder::{EncodedPacket, encode_connect_error};
use crate::socket::metrics::{self, Connect};
use crate::socket::namespace::connect::{Accept, ConnectPayload};
use crate::socket::namespace::lifecycle::{JoiningSocket, NotOpened};
use crate::socket::namespace::namespace::Namespace;
use crate::socket::namespace::refusal::ConnectError;
use crate::socket::namespace::socket::Socket;
use crate::socket::server::client::TOO_MANY_NAMESPACES;

impl ConnectionTask {
    pub(super) fn connect(&mut self, path: &str, payload: ConnectPayload, cx: &mut Context<'_>) {
        if let Some(namespace) = self.server.namespaces.get(path).cloned() {
            return self.ask_to_join(namespace, payload, cx);
        }
        if !self.server.dynamic.is_used() {
            return self.refuse(path, &ConnectError::new("Invalid namespace"));
        }
        let (dynamic, path) = (self.server.dynamic.clone(), Arc::<str>::from(path));
        let looking = async move {
            let namespace = dynamic.find(path.clone(), payload.clone()).await;
            Done::Found { path, payload, namespace }
        };
        self.start(Box::pin(looking), cx);
    }

    fn found(
        &mut self,
        path: &str,
        payload: ConnectPayload,
        namespace: ImksResult<Option<Namespace>>,
        cx: &mut Context<'_>,
    ) {
        match namespace {
            Ok(Some(namespace)) => self.ask_to_join(namespace, payload, cx),
            Ok(None) => self.refuse(path, &ConnectError::new("Invalid namespace")),
            Err(error) => {
                tracing::debug!(%error, "namespace not created");
                self.refuse(path, &ConnectError::new(TOO_MANY_NAMESPACES));
            }
        }
    }

    fn ask_to_join(&mut self, namespace: Namespace, payload: ConnectPayload, cx: &mut Context<'_>) {
        if namespace.delivery().shared().is_none() {
            return self.begin_to_join(namespace, payload, cx);
        }
        let preparing = async move {
            let ready = namespace.prepare(&payload).await;
            Done::Prepared { namespace, payload, ready }
        };
        self.start(Box::pin(preparing), cx);
    }

    fn begin_to_join(&mut self, namespace: Namespace, payload: ConnectPayload, cx: &mut Context<'_>) {
        let (outbox, handshake) = (self.connection.outbox().clone(), self.connection.handshake().clone());
        let socket = match Socket::new(namespace.clone(), outbox, handshake, self.dialect, &payload) {
            Ok(socket) => socket,
            Err(error) => {
                namespace.client_gone();
                return self.refuse(namespace.path(), &ConnectError::from(&error));
            }
        };
        let candidate = JoiningSocket(socket.clone());
        match namespace.admit(socket, payload.clone()) {
            None => self.finish(Done::Verdict { candidate, payload, verdict: Ok(Accept::default()) }, cx),
            Some(hook) => {
                let asked = async move {
                    let verdict = hook.await;
                    Done::Verdict { candidate, payload, verdict }
                };
                self.start(Box::pin(asked), cx);
            }
        }
    }

    pub(super) fn finish(&mut self, done: Done, cx: &mut Context<'_>) {
        let (candidate, payload, verdict) = match done {
            Done::Handled => return,
            Done::Found { path, payload, namespace } => return self.found(&path, payload, namespace, cx),
            Done::Prepared { namespace, payload, ready: true } => {
                return self.begin_to_join(namespace, payload, cx);
            }
            Done::Prepared { namespace, ready: false, .. } => {
                let refusal =
                    ConnectError::from(&ImksError::Timeout("the recovery log did not answer in time"));
                return self.refuse(namespace.path(), &refusal);
            }
            Done::Taken { candidate, payload, accept, taken: true } => {
                return self.open(candidate, payload, &accept, cx);
            }
            Done::Taken { candidate, payload, .. } => return self.join_anew(candidate, payload, cx),
            Done::Verdict { candidate, payload, verdict } => (candidate, payload, verdict),
        };
        let namespace = candidate.0.namespace().clone();
        let accept = match verdict {
            Ok(accept) => accept,
            Err(refusal) => {
                drop(candidate);
                return self.refuse(namespace.path(), &refusal);
            }
        };
        if !namespace.has_to_take(&candidate.0, &accept) {
            return self.open(candidate, payload, &accept, cx);
        }
        let taking = async move {
            let taken = namespace.take_session(&candidate.0).await;
            Done::Taken { candidate, payload, accept, taken }
        };
        self.start(Box::pin(taking), cx);
    }

    /// Lets a client join that cannot continue its session.
    fn join_anew(&mut self, candidate: JoiningSocket, payload: ConnectPayload, cx: &mut Context<'_>) {
        let namespace = candidate.0.namespace().clone();
        drop(candidate);
        self.connect(namespace.path(), payload.without_recovery(), cx);
    }

    fn open(
        &mut self,
        candidate: JoiningSocket,
        payload: ConnectPayload,
        accept: &Accept,
        cx: &mut Context<'_>,
    ) {
        let namespace = candidate.0.namespace().clone();
        match namespace.open(&candidate.0, accept) {
            Ok(()) => self.welcome(&namespace, &candidate.0, cx),
            Err(NotOpened::WithoutRecovery) => self.join_anew(candidate, payload, cx),
            Err(NotOpened::Failed(error)) => {
                tracing::debug!(%error, namespace = namespace.path(), "socket not opened");
                drop(candidate);
                self.refuse(namespace.path(), &ConnectError::from(&error));
            }
        }
    }

    fn welcome(&mut self, namespace: &Namespace, socket: &Socket, cx: &mut Context<'_>) {
        self.client.accepted(namespace.path(), socket.clone());
        self.join_timer = None;
        self.connection.settle();
        if let Some(greeting) = namespace.connected(socket.clone()) {
            self.start_handler(greeting, cx);
        }
        while let Some(output) = self.client.poll_output() {
            match output {
                Ok(output) => self.admit(output, cx),
                Err(error) => return self.refuse_connection(&error),
            }
        }
    }

    /// Sends CONNECT_ERROR, after which the connection stays open, or ends the transport if the refusal says so.
    pub(super) fn refuse(&mut self, path: &str, refusal: &ConnectError) {
        self.client.refused(path);
        metrics::CONNECTS.of(Connect::Refused).increment();
        if refusal.ends_transport() {
            tracing::debug!(why = refusal.message, "client refused for now, its transport ends");
            return self.connection.outbox().close(Close::Graceful);
        }
        match encode_connect_error(path, refusal) {
            Ok(packet) => self.answer(&packet),
            Err(error) => self.refuse_connection(&error),
        }
    }

    /// Sends a packet to a client that has no socket.
    fn answer(&self, packet: &EncodedPacket) {
        let outbox = self.connection.outbox();
        if outbox.answer(Renderings::new(packet).frames_for(self.dialect, outbox), None).is_err() {
            tracing::debug!("client left before it was refused");
        }
    }
}
