//! The task of a connection, which reads packets and runs handlers.

mod joining;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, Sleep};

use super::backlog::{self, Backlog};
use super::client::{Client, Joined, Output};
use super::server::Inner;
use crate::bus::BoxFuture;
use crate::engine::{Close, CloseReason, Connection, Event as EngineEvent, Lane, Protocol, Transport};
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::dialect::Dialect;
use crate::socket::metrics;
use crate::socket::namespace::cause;
use crate::socket::namespace::connect::{Accept, ConnectPayload};
use crate::socket::namespace::handlers::{Ack, Event, Handler};
use crate::socket::namespace::lifecycle::JoiningSocket;
use crate::socket::namespace::namespace::Namespace;
use crate::socket::namespace::observers;
use crate::socket::namespace::pressure;
use crate::socket::namespace::refusal::{ConnectError, EventError};
use crate::socket::namespace::socket::Socket;
use crate::socket::reason::DisconnectReason;

/// One connection in one task: its session, namespaces and running handlers.
pub(super) struct ConnectionTask {
    server: Arc<Inner>,
    connection: Connection,
    dialect: Dialect,
    client: Client<Socket>,
    backlog: Backlog<Socket>,
    /// The pending handlers. Allocated when the first handler has to wait.
    running: Running,
    /// When the connection must have joined a namespace; `None` once it has, or that was noticed.
    join_timer: Option<Pin<Box<Sleep>>>,
    /// Whether the client still has to join the main namespace without CONNECT, as Socket.IO v2 does.
    joins_unasked: bool,
    /// Whether this side is closing the connection. Further packets of the client are then ignored.
    ending: bool,
    /// The key of this connection in the open connections.
    key: u64,
}

/// The outcome of a future of this connection.
enum Done {
    Handled,
    Verdict {
        candidate: JoiningSocket,
        payload: ConnectPayload,
        verdict: Result<Accept, ConnectError>,
    },
    /// The namespace knows the session that the client claims, or cannot know it.
    Prepared {
        namespace: Namespace,
        payload: ConnectPayload,
        ready: bool,
    },
    /// This node owns the session that the client returns to, or another one does.
    Taken {
        candidate: JoiningSocket,
        payload: ConnectPayload,
        accept: Accept,
        taken: bool,
    },
    /// The search for a dynamic namespace is complete.
    Found {
        path: Arc<str>,
        payload: ConnectPayload,
        namespace: ImksResult<Option<Namespace>>,
    },
}

/// Whether a turn may continue.
enum Turn {
    GoOn,
    /// Other tasks should run first.
    Yield,
    /// The connection has ended.
    Over,
}

impl Future for ConnectionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = &mut *self;
        // A panic in a handler ends only its own connection.
        match catch_unwind(AssertUnwindSafe(|| task.turn(cx))) {
            Ok(poll) => poll,
            Err(_) => {
                metrics::HANDLER_PANICS.increment();
                tracing::error!(peer = %task.connection.handshake().peer, "handler panicked, connection closed");
                task.connection.outbox().close(Close::Now);
                task.end(DisconnectReason::Engine(CloseReason::ForcedClose));
                Poll::Ready(())
            }
        }
    }
}

impl ConnectionTask {
    pub(super) fn new(server: Arc<Inner>, connection: Connection) -> Self {
        let deadline = Instant::now() + server.config.connect_timeout;
        let dialect = Dialect::new(server.config.parser, connection.handshake());
        let client =
            Client::new(dialect.decoder(server.config.limits), deadline, server.config.namespaces_max);
        let join_timer = client.poll_timeout().map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let key = server.open.insert(connection.outbox().clone());
        let joins_unasked = connection.handshake().protocol != Protocol::V4;
        Self {
            server,
            connection,
            dialect,
            client,
            backlog: Backlog::default(),
            running: None,
            join_timer,
            joins_unasked,
            ending: false,
            key,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.begin(cx);
        self.end_unjoined();
        if std::mem::take(&mut self.joins_unasked)
            && let Ok(Some(output)) = self.client.handle_open()
        {
            self.handle_output(output, None, cx);
        }
        loop {
            self.poll_running(cx);
            if let Turn::Yield = self.handle_waiting(cx) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.poll_connect_timer(cx);
            if self.connection.outbox().disconnect_requested() {
                self.send_disconnects();
            }
            let waiting = self.backlog.bytes() + self.client.waiting_bytes();
            let reading = waiting < self.server.config.events_waiting_bytes_max;
            let Poll::Ready(event) = self.connection.poll_event(cx, reading) else {
                // A disconnect that was requested during this turn does not wake the task.
                if self.connection.outbox().disconnect_requested() && !self.ending {
                    continue;
                }
                return Poll::Pending;
            };
            match self.handle_event(event, cx) {
                Turn::GoOn => {}
                Turn::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Turn::Over => return Poll::Ready(()),
            }
        }
    }

    /// Ends a polling connection at once when the server closes and the client has joined no namespace. It has
    /// nothing to fetch, and may never poll.
    fn end_unjoined(&self) {
        let outbox = self.connection.outbox();
        if outbox.transport() == Transport::Polling
            && self.client.joined().next().is_none()
            && self.running.as_ref().is_none_or(|running| running.is_empty())
            && self.server.open.is_closing()
        {
            outbox.close(Close::Now);
        }
    }

    fn handle_event(&mut self, event: EngineEvent, cx: &mut Context<'_>) -> Turn {
        let message = match event {
            EngineEvent::Message(message) => message,
            EngineEvent::Closed(reason) => {
                // A client that violates the protocol cannot recover its session.
                let reason = if self.ending { CloseReason::ParseError } else { reason };
                self.end(DisconnectReason::Engine(reason));
                return Turn::Over;
            }
        };
        if self.ending {
            return Turn::GoOn;
        }
        match self.client.handle_message(message) {
            Ok(Some(output)) => self.admit(output, cx),
            Ok(None) => {}
            Err(error) => self.refuse_connection(&error),
        }
        if pressure::take() { Turn::Yield } else { Turn::GoOn }
    }

    /// Handles an output of the client, or queues it.
    fn admit(&mut self, output: Output<Socket>, cx: &mut Context<'_>) {
        let (running, client, config) = (&self.running, &self.client, &self.server.config);
        let may_start = || may_start(running, client, config.events_in_flight_max);
        let admitted = self.backlog.admit(output, may_start, Instant::now);
        if let Some(output) = admitted {
            self.handle_output(output, None, cx);
        }
    }

    /// Handles queued outputs for as long as handlers may start.
    fn handle_waiting(&mut self, cx: &mut Context<'_>) -> Turn {
        while !self.ending
            && !self.backlog.is_empty()
            && may_start(&self.running, &self.client, self.server.config.events_in_flight_max)
        {
            if let Some((output, since)) = self.backlog.next() {
                self.handle_output(output, Some(since), cx);
            }
            if pressure::take() {
                return Turn::Yield;
            }
        }
        Turn::GoOn
    }

    /// Handles an output, which has waited since then, if it had to.
    fn handle_output(&mut self, output: Output<Socket>, waits_since: Option<Instant>, cx: &mut Context<'_>) {
        match output {
            Output::Connect { namespace, auth } => self.connect(&namespace, ConnectPayload::new(auth), cx),
            Output::Connected(socket) => {
                // If this fails, the server has removed the socket in the meantime, and the client has been
                // notified.
                if socket.answer(socket.connect_reply(), |_| None, Lane::Chat).is_err() {
                    tracing::debug!("client left before it was answered");
                }
            }
            Output::Refuse { namespace, reason } => self.refuse(&namespace, &ConnectError::new(reason)),
            Output::Event { socket, id, args } => {
                // The socket may have left while the event was queued.
                if socket.is_connected() {
                    self.dispatch(Event::new(socket, id, args, waits_since), cx);
                }
            }
            Output::Refused { socket, id, reason } => refuse_event(&socket, id, reason),
            Output::Ack { socket, id, args } => socket.pending_acks().resolve(id, args),
            Output::Leave(socket) => {
                socket.namespace().clone().remove(&socket, DisconnectReason::ClientNamespace);
            }
        }
    }

    fn dispatch(&mut self, event: Event, cx: &mut Context<'_>) {
        // This clones the reference count of the connection. That of the namespace is shared, so cloning it
        // would contend.
        let socket = event.socket().clone();
        let namespace = socket.namespace();
        if namespace.watches_incoming() {
            let handling = Box::pin(observers::handle_observed(namespace.clone(), event));
            return self.start_handler(cause::caused(socket, handling), cx);
        }
        let is_logged = namespace.delivery().shared().is_some();
        match namespace.events().get(event.name()) {
            Some(Handler::Sync(handler)) if is_logged => cause::by(&socket, || handler(event)),
            Some(Handler::Sync(handler)) => handler(event),
            Some(Handler::Async(handler)) if is_logged => {
                let handling = cause::by(&socket, || handler(event));
                self.start_handler(cause::caused(socket, handling), cx);
            }
            Some(Handler::Async(handler)) => self.start_handler(handler(event), cx),
            None => {
                tracing::debug!(socket_sid = event.socket().id(), event = &*event.logged_name(), "no handler")
            }
        }
    }

    /// Polls a handler once, so that handlers start in the order of their events. Stores it if it is pending.
    fn start_handler(&mut self, mut handling: BoxFuture<'static, ()>, cx: &mut Context<'_>) {
        // The handler gets a waker of its own only if it has to wait.
        if handling.as_mut().poll(cx).is_pending() {
            let token = self.server.handlers.token();
            self.set_aside(Box::pin(async move {
                handling.await;
                drop(token);
                Done::Handled
            }));
        }
    }

    fn start(&mut self, mut future: BoxFuture<'static, Done>, cx: &mut Context<'_>) {
        match future.as_mut().poll(cx) {
            Poll::Ready(done) => self.finish(done, cx),
            Poll::Pending => self.set_aside(future),
        }
    }

    fn set_aside(&mut self, future: BoxFuture<'static, Done>) {
        self.running.get_or_insert_default().push(future);
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(running) = self.running.as_mut().filter(|running| !running.is_empty()) else { return };
            let Poll::Ready(Some(done)) = running.poll_next_unpin(cx) else { return };
            self.finish(done, cx);
        }
    }

    /// Closes the connection because of invalid input from the peer.
    fn refuse_connection(&mut self, error: &ImksError) {
        tracing::debug!(%error, peer = %self.connection.handshake().peer, "connection closed");
        metrics::PROTOCOL_ERRORS.increment();
        self.ending = true;
        self.connection.outbox().close(Close::Graceful);
    }

    /// Disconnects the client from every namespace. It would reconnect to any namespace left out.
    fn send_disconnects(&mut self) {
        if std::mem::replace(&mut self.ending, true) {
            return;
        }
        let sockets: Vec<Socket> = self.client.drain().collect();
        sockets.iter().for_each(|socket| socket.disconnect(false));
        self.connection.outbox().close(Close::Graceful);
    }

    fn poll_connect_timer(&mut self, cx: &mut Context<'_>) {
        let Some(timer) = self.join_timer.as_mut() else { return };
        if timer.as_mut().poll(cx).is_ready() {
            self.join_timer = None;
            if let Err(error) = self.client.handle_timeout(Instant::now()) {
                self.refuse_connection(&error);
                self.connection.abandon();
            }
        }
    }

    /// Removes all sockets of the connection and drops its pending handlers. Database work that these started
    /// continues in tasks of its own.
    fn end(&mut self, reason: DisconnectReason) {
        let sockets: Vec<Socket> = self.client.drain().collect();
        for socket in sockets {
            socket.namespace().remove(&socket, reason);
        }
        self.running = None;
        self.backlog.clear();
    }
}

type Running = Option<Box<FuturesUnordered<BoxFuture<'static, Done>>>>;

/// Whether one more event may be handled.
fn may_start(running: &Running, client: &Client<Socket>, max: usize) -> bool {
    let in_flight = running.as_ref().map_or(0, |running| running.len());
    backlog::may_start(in_flight, max, || client.joined().map(|socket| socket.pending_acks().len()).sum())
}

/// Reports to the client and the application that an event exceeds a limit.
fn refuse_event(socket: &Socket, id: Option<u64>, reason: &'static str) {
    let error = EventError::new(reason);
    let namespace = socket.namespace();
    observers::refuse(namespace, socket, &error);
    let ack = id.map(|id| Ack::new(socket.clone(), id));
    match (&namespace.hooks().refused_answer, ack) {
        (Some(answer), ack) => answer(socket, &error, ack),
        (None, Some(ack)) => {
            if let Err(error) = ack.refuse(&error) {
                tracing::debug!(%error, "refusal not sent");
            }
        }
        (None, None) => {}
    }
}

impl Joined for Socket {
    fn is_connected(&self) -> bool {
        Socket::is_connected(self)
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        // There are sockets left here only if the runtime is shutting down.
        self.end(DisconnectReason::Engine(CloseReason::ForcedClose));
        self.server.open.remove(self.key);
    }
}
