//! The connection of a client as a state machine, without I/O: attempts and pauses, heartbeat, namespaces.
//!
//! Time, packets and calls come in through methods that take `now`; [`Core::poll_action`] says what to do, and
//! [`Core::poll_timeout`] when to call [`Core::handle_timeout`]. After each call in, the caller takes all actions.

mod action;
mod answers;
mod context;
mod early;
mod namespace;
mod outbox;
mod switch;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::action::{
    Action, Credentials, Early, Emit, Greeting, Incoming, Opened, Path, PayloadMax, Reply, Sending, Settings,
    Ticket, hello,
};
use self::action::{earlier, later};
use self::context::Context;
use self::namespace::Namespace;
use self::outbox::Waiting;
use self::switch::Switch;
use super::budget::{Budget, Place};
use super::error::{ClientError, DisconnectReason};
use super::event::{ClientEvent, Status, TransportKind};
use super::store::Entry;
use crate::engine::Packet;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::outgoing::{EncodedArgs, Encoding, Outgoing};
use crate::socket::packet::Limits;
use crate::socket::parser::Decoder;

/// A client without its I/O.
#[derive(Debug)]
pub(crate) struct Core {
    settings: Settings,
    budget: Budget,
    random: fn() -> f64,
    phase: Phase,
    /// The change to another transport, if one is under way.
    switch: Option<Switch>,
    /// Whether the transport has not taken yet what was sent.
    is_congested: bool,
    /// Whether there was a connection since the client was idle.
    has_been_connected: bool,
    /// The failed attempts in a row, and the last pause between them.
    failures: u32,
    pause: Duration,
    decoder: Decoder,
    payload_max: PayloadMax,
    /// The room for answers to heartbeats that the transport has not taken yet.
    pongs: Budget,
    namespaces: BTreeMap<Path, Namespace>,
    /// The callers that wait until the connection is open.
    connecting: Vec<Ticket>,
    actions: VecDeque<Action>,
    rtt: Option<Duration>,
    /// The last time from a question to its answer on this connection.
    last_rtt: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle,
    /// A transport is being opened. `initial` if the caller of the first attempt gets its failure.
    Opening {
        initial: bool,
        until: Instant,
    },
    Open {
        silence_max: Duration,
        dead_at: Instant,
    },
    Waiting {
        until: Instant,
    },
}

impl Core {
    /// Creates a client that is not connected. `random` returns numbers from 0 to 1.
    pub(crate) fn new(settings: Settings, budget: Budget, random: fn() -> f64) -> Self {
        let decoder = decoder(&settings);
        Self {
            settings,
            budget,
            random,
            phase: Phase::Idle,
            switch: None,
            is_congested: false,
            has_been_connected: false,
            failures: 0,
            pause: Duration::ZERO,
            decoder,
            payload_max: PayloadMax { bytes: usize::MAX, is_base64: false },
            pongs: Budget::new(PONGS_MAX, 0),
            namespaces: BTreeMap::new(),
            connecting: Vec::new(),
            actions: VecDeque::new(),
            rtt: None,
            last_rtt: None,
        }
    }

    /// Returns the state of the client.
    pub(crate) fn status(&self) -> Status {
        match self.phase {
            Phase::Idle => Status::Idle,
            Phase::Open { .. } => Status::Connected,
            Phase::Opening { initial: true, .. } => Status::Connecting,
            Phase::Opening { .. } | Phase::Waiting { .. } if self.has_been_connected => Status::Reconnecting,
            Phase::Opening { .. } | Phase::Waiting { .. } => Status::Connecting,
        }
    }

    /// Connects, unless the client is connected or connecting. `ticket` gets the result of the attempt.
    pub(crate) fn connect(&mut self, now: Instant, ticket: Ticket) {
        match self.phase {
            Phase::Open { .. } => return self.answer(ticket, Ok(Reply::Done)),
            _ if self.connecting.len() >= CONNECTING_MAX => {
                return self.answer(ticket, Err(ClientError::Full));
            }
            _ => self.connecting.push(ticket),
        }
        self.start(now);
    }

    /// Joins a namespace, and connects first where necessary.
    pub(crate) fn join(&mut self, now: Instant, path: &Path, ticket: Ticket) {
        let is_open = matches!(self.phase, Phase::Open { .. });
        self.with(now, path, |namespace, cx| namespace.join(cx, ticket, is_open));
        self.start(now);
    }

    /// Waits until a namespace is joined, if somebody wants that. `ticket` gets the result.
    pub(crate) fn attend(&mut self, now: Instant, path: &Path, ticket: Ticket) {
        self.with(now, path, |namespace, cx| namespace.attend(cx, ticket));
    }

    /// Leaves a namespace.
    pub(crate) fn leave(&mut self, now: Instant, path: &Path) {
        self.with(now, path, |it, cx| it.leave(cx, DisconnectReason::ByClient, &ClientError::Closed));
        self.advance_switch(now);
    }

    /// Leaves all namespaces and closes the connection.
    pub(crate) fn close(&mut self, now: Instant) {
        self.leave_all(now, &DisconnectReason::ByClient, &ClientError::Closed);
        // Nobody will answer a CONNECT that was taken back.
        self.with_all(now, |namespace, cx| namespace.lose(cx, DisconnectReason::ByClient));
        let is_leaving = self.forget_switch();
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Open { .. } => {
                if !is_leaving {
                    self.send(Outgoing { text: "1".into(), attachments: Vec::new() });
                }
                self.actions.push_back(Action::Close);
                self.notify(ClientEvent::Disconnected { reason: DisconnectReason::ByClient });
            }
            Phase::Opening { .. } => self.actions.push_back(Action::Drop),
            Phase::Idle | Phase::Waiting { .. } => {}
        }
        self.fail_connecting(&ClientError::Closed);
    }

    /// Sends an event at most once. A volatile one is dropped if the transport `is_congested`.
    pub(crate) fn emit(&mut self, now: Instant, path: &Path, emit: Emit, is_congested: bool) {
        if emit.is_volatile && is_congested {
            return;
        }
        self.with(now, path, |namespace, cx| namespace.emit(cx, emit));
    }

    /// Sends an event until it is acknowledged.
    pub(crate) fn queue(&mut self, now: Instant, entry: Entry, ticket: Option<Ticket>, place: Option<Place>) {
        let path = entry.namespace.clone();
        self.with(now, &path, |namespace, cx| namespace.queue(cx, Waiting { entry, ticket, place }));
    }

    /// Answers an event that came as `(id, session)`.
    pub(crate) fn reply(
        &mut self,
        now: Instant,
        path: &Path,
        to: (u64, u64),
        args: &EncodedArgs,
        place: Place,
    ) {
        self.with(now, path, |namespace, cx| namespace.answer(cx, to, args, place));
        self.advance_switch(now);
    }

    /// Returns how packets are written.
    pub(crate) fn encoding(&self) -> Encoding {
        self.settings.encoding
    }

    /// Returns the namespaces that will be joined as soon as there is a transport, and what is said there.
    pub(crate) fn greetings(&self) -> Vec<(Path, Greeting)> {
        let wanted = self.namespaces.iter().filter(|(_, namespace)| namespace.is_wanted());
        wanted.map(|(path, namespace)| (path.clone(), namespace.greeting())).collect()
    }

    /// Handles the opening of a transport.
    pub(crate) fn handle_opened(&mut self, now: Instant, opened: Opened) {
        let Opened { transport, silence_max, payload_max, early } = opened;
        let early = early.unwrap_or_default();
        self.payload_max = payload_max;
        self.phase = Phase::Open { silence_max, dead_at: now + silence_max };
        self.decoder = decoder(&self.settings);
        self.last_rtt = None;
        let is_first = !std::mem::replace(&mut self.has_been_connected, true);
        self.notify(match is_first {
            true => ClientEvent::Connected { transport },
            false => ClientEvent::Reconnected { transport },
        });
        for ticket in std::mem::take(&mut self.connecting) {
            self.answer(ticket, Ok(Reply::Done));
        }
        for path in self.namespaces.keys().cloned().collect::<Vec<_>>() {
            let is_early = early.contains(&path);
            self.with(now, &path, |namespace, cx| match is_early {
                true => namespace.handle_early(cx),
                false if namespace.is_wanted() => namespace.authenticate(cx),
                false => {}
            });
        }
    }

    /// Handles a transport that could not be opened.
    pub(crate) fn handle_failed(&mut self, now: Instant, error: ClientError) {
        let Phase::Opening { initial, .. } = self.phase else { return };
        if initial && !self.settings.retry_initial {
            return self.give_up(now, error);
        }
        self.notify(ClientEvent::Error(error.clone()));
        self.try_later(now, error);
    }

    /// Handles a packet from the server.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: Packet) {
        let Phase::Open { silence_max, dead_at } = &mut self.phase else { return };
        *dead_at = now + *silence_max;
        let handled = match packet {
            Packet::Ping(_) => {
                self.answer_heartbeat();
                Ok(())
            }
            Packet::Message(message) => match self.decoder.add(message) {
                Ok(Some(packet)) => self.handle_socket_packet(now, packet),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
            Packet::Close => return self.lose(now, DisconnectReason::TransportClosed),
            Packet::Noop | Packet::Pong(_) => Ok(()),
            Packet::Open(_) | Packet::Upgrade => Err(ImksError::UnexpectedEnginePacket("from a server")),
        };
        match handled {
            Ok(()) => self.advance_switch(now),
            Err(error) => self.lose(now, DisconnectReason::Protocol(error.into())),
        }
    }

    /// Handles a packet that came beside the others: a message in one piece, which the attachments of another may be
    /// waited for beside.
    pub(crate) fn handle_bulk(&mut self, now: Instant, packet: Packet) {
        let between = std::mem::replace(&mut self.decoder, decoder(&self.settings));
        self.handle_packet(now, packet);
        self.decoder = between;
    }

    /// Handles a transport that another one has replaced.
    pub(crate) fn handle_switched(&mut self, transport: TransportKind) {
        self.payload_max.is_base64 = transport == TransportKind::Polling;
        self.notify(ClientEvent::TransportSwitched { transport });
    }

    /// Handles a transport that has ended.
    pub(crate) fn handle_closed(&mut self, now: Instant, reason: DisconnectReason) {
        if matches!(self.phase, Phase::Open { .. }) {
            self.lose(now, reason);
        }
    }

    /// Handles that the server was alive at `time`, or that nobody knows, because packets are not read at the moment.
    /// A packet that is still on its way is a sign of life too.
    pub(crate) fn handle_alive(&mut self, time: Instant) {
        if let Phase::Open { silence_max, dead_at } = &mut self.phase {
            *dead_at = (*dead_at).max(time + *silence_max);
        }
    }

    /// Handles credentials, or why there are none.
    pub(crate) fn handle_credentials(&mut self, now: Instant, path: &Path, number: u64, auth: Credentials) {
        self.with(now, path, |namespace, cx| namespace.handle_credentials(cx, number, auth));
    }

    /// Handles the passing of time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Opening { until, .. } if until <= now => {
                self.actions.push_back(Action::Drop);
                self.handle_failed(now, ClientError::Timeout("a connection"));
            }
            Phase::Waiting { until } if until <= now => self.open(now, false),
            Phase::Open { dead_at, .. } if dead_at <= now => {
                self.lose(now, DisconnectReason::HeartbeatTimeout);
            }
            _ => {}
        }
        let mut reason = None;
        self.with_all(now, |namespace, cx| {
            let found = namespace.handle_timeout(cx);
            reason = reason.take().or(found);
        });
        match reason {
            Some(reason) => self.lose(now, reason),
            None => self.advance_switch(now),
        }
    }

    /// Returns when [`Core::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Idle => None,
            Phase::Opening { until, .. } | Phase::Waiting { until } => Some(until),
            Phase::Open { dead_at, .. } => Some(dead_at),
        };
        let phase = earlier(phase, self.poll_switch());
        self.namespaces.values().map(Namespace::poll_timeout).fold(phase, earlier)
    }

    /// Returns what to do next.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the time from an event to its answer, once for each that was measured since the last call.
    pub(crate) fn poll_rtt(&mut self) -> Option<Duration> {
        self.rtt.take()
    }

    fn handle_socket_packet(
        &mut self,
        now: Instant,
        packet: crate::socket::packet::Packet,
    ) -> ImksResult<()> {
        // The server cannot make the client remember namespaces that it never named.
        let Some((path, _)) = self.namespaces.get_key_value(&*packet.namespace) else { return Ok(()) };
        let path = path.clone();
        let mut handled = Ok(());
        let mut is_joined = false;
        self.with(now, &path, |namespace, cx| {
            is_joined = matches!(packet.body, crate::socket::packet::PacketBody::Connect(_));
            handled = namespace.handle_packet(cx, packet);
        });
        if is_joined {
            (self.failures, self.pause) = (0, Duration::ZERO);
        }
        handled
    }

    /// Answers a heartbeat, unless the answers to many others still wait for the network.
    fn answer_heartbeat(&mut self) {
        let Some(place) = self.pongs.take(0) else { return };
        self.actions.push_back(Action::Send(Sending { place: Some(place), ..Sending::pong() }));
        self.notify(ClientEvent::Heartbeat { rtt: self.last_rtt });
    }

    fn start(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Idle) {
            self.has_been_connected = false;
            (self.failures, self.pause) = (0, Duration::ZERO);
            self.open(now, true);
        }
    }

    fn open(&mut self, now: Instant, initial: bool) {
        self.phase = Phase::Opening { initial, until: later(now, self.settings.connect_timeout) };
        self.actions.push_back(Action::Open);
    }

    /// Ends the connection, and comes back after a pause if somebody wants it.
    fn lose(&mut self, now: Instant, reason: DisconnectReason) {
        self.actions.push_back(Action::Drop);
        self.notify(ClientEvent::Disconnected { reason: reason.clone() });
        self.with_all(now, |namespace, cx| namespace.lose(cx, reason.clone()));
        self.forget_switch();
        match self.namespaces.values().any(Namespace::is_wanted) {
            true => self.try_later(now, ClientError::ConnectionClosed(reason)),
            false => self.phase = Phase::Idle,
        }
    }

    fn try_later(&mut self, now: Instant, error: ClientError) {
        let attempt = self.failures + 1;
        let Some(delay) = self.settings.reconnect.pause(attempt, self.pause, (self.random)()) else {
            let error = match self.failures {
                0 => error,
                attempts => ClientError::ReconnectFailed { attempts, source: Box::new(error) },
            };
            return self.give_up(now, error);
        };
        (self.failures, self.pause) = (attempt, delay);
        self.phase = Phase::Waiting { until: later(now, delay) };
        self.notify(ClientEvent::Reconnecting { attempt, delay });
    }

    fn give_up(&mut self, now: Instant, error: ClientError) {
        self.phase = Phase::Idle;
        self.fail_connecting(&error);
        let reason = DisconnectReason::TransportClosed;
        self.leave_all(now, &reason, &error);
        self.notify(ClientEvent::ReconnectFailed { error });
    }

    fn leave_all(&mut self, now: Instant, reason: &DisconnectReason, error: &ClientError) {
        self.with_all(now, |namespace, cx| namespace.leave(cx, reason.clone(), error));
    }

    fn fail_connecting(&mut self, error: &ClientError) {
        for ticket in std::mem::take(&mut self.connecting) {
            self.answer(ticket, Err(error.clone()));
        }
    }

    /// Runs `act` on a namespace, which is created where necessary.
    fn with(&mut self, now: Instant, path: &Path, act: impl FnOnce(&mut Namespace, &mut Context<'_>)) {
        let is_held = self.switch.is_some();
        let namespace =
            self.namespaces.entry(path.clone()).or_insert_with(|| Namespace::new(path.clone(), is_held));
        let mut cx = Context {
            now,
            settings: &self.settings,
            budget: &self.budget,
            payload_max: self.payload_max,
            random: self.random,
            actions: &mut self.actions,
            rtt: None,
        };
        act(namespace, &mut cx);
        self.rtt = cx.rtt.or(self.rtt);
        self.last_rtt = self.rtt.or(self.last_rtt);
    }

    fn with_all(&mut self, now: Instant, mut act: impl FnMut(&mut Namespace, &mut Context<'_>)) {
        let paths: Vec<Path> = self.namespaces.keys().cloned().collect();
        paths.iter().for_each(|path| self.with(now, path, &mut act));
    }

    fn send(&mut self, packet: Outgoing) {
        self.actions.push_back(Action::Send(Sending { packet, place: None }));
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Reply, ClientError>) {
        self.actions.push_back(Action::Answer(ticket, result));
    }

    fn notify(&mut self, event: ClientEvent) {
        self.actions.push_back(Action::Notify(event));
    }
}

/// Creates the decoder of a connection. A server announces how many attachments follow, and the decoder makes room
/// for as many: whatever the settings allow, it is not taken at its word.
fn decoder(settings: &Settings) -> Decoder {
    let attachments_max = settings.limits.attachments_max.min(ATTACHMENTS_RECEIVED_MAX);
    let limits = Limits { attachments_max, ..settings.limits };
    match settings.encoding {
        Encoding::Json => Decoder::new(limits),
        Encoding::MsgPack => Decoder::msgpack(limits),
    }
}

/// The maximum number of callers that wait until the client is connected. A further one fails with
/// `ClientError::Full`.
const CONNECTING_MAX: usize = 1_024;

/// The maximum number of attachments of an event or answer from the server. An event with more is told as
/// `ClientEvent::Error`, and an answer with more is none.
const ATTACHMENTS_RECEIVED_MAX: usize = 16_384;

/// The maximum number of answers to heartbeats that wait for the network. Further heartbeats are not answered.
const PONGS_MAX: usize = 64;
