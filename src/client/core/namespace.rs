//! One namespace as a client sees it: joining and joining again, events, answers and what waits to be sent.

mod moving;
mod sending;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use self::moving::Moving;
pub(super) use self::moving::Rest;
use self::sending::report;
use super::action::{
    Action, Credentials, Emit, Greeting, Incoming, Path, Reply, Ticket, earlier, hello, later,
};
use super::answers::Answers;
use super::context::Context;
use super::early::Early;
use super::outbox::{Answered, Outbox, Waiting};
use crate::client::budget::Place;
use crate::client::error::{ClientError, DisconnectReason, Refusal};
use crate::client::event::ClientEvent;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::outgoing::{EncodedArgs, Outgoing};
use crate::socket::packet::{Args, Packet, PacketBody, Payload};

/// A namespace and everything that waits in it.
#[derive(Debug)]
pub(super) struct Namespace {
    path: Path,
    phase: Phase,
    /// Whether it is to be joined whenever there is a connection.
    wanted: bool,
    /// The callers that wait until it is joined.
    joining: Vec<Ticket>,
    /// The events that wait until it is joined, with the ack ids that they will have.
    buffer: VecDeque<(Option<u64>, Emit)>,
    answers: Answers,
    outbox: Outbox,
    next_ack: u64,
    /// How often it was joined, so that an answer goes to the session in which it is expected or nowhere.
    joins: u64,
    session: Option<Recoverable>,
    early: Early,
    /// When it may be joined again, if it was left on this connection.
    not_before: Option<Instant>,
    moving: Moving,
    /// The failed attempts to join in a row, and the last pause between them.
    failures: u32,
    pause: Duration,
    /// The number of the last request for credentials.
    credentials: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// There is no connection, or it is not wanted.
    Away,
    /// The credentials are being asked for.
    Authenticating,
    /// CONNECT was sent.
    Connecting {
        until: Instant,
    },
    Connected,
    /// It was left before the answer to CONNECT came. The next packet for it follows that answer: the reference ends
    /// a connection on which one comes earlier.
    Leaving {
        until: Instant,
    },
    /// A refusal that passes is waited for, or that the server has seen a DISCONNECT.
    Waiting {
        until: Instant,
    },
}

/// The private id of a session that the server may restore, and the offset of the last event from it.
#[derive(Debug)]
struct Recoverable {
    pid: String,
    offset: Option<String>,
}

/// What the answer to CONNECT contains.
#[derive(Deserialize)]
struct Welcome {
    sid: String,
    pid: Option<String>,
}

impl Namespace {
    /// Creates a namespace that is not joined. If `is_held`, that waits for the end of a change of transport.
    pub(super) fn new(path: Path, is_held: bool) -> Self {
        Self {
            path,
            phase: Phase::Away,
            wanted: false,
            joining: Vec::new(),
            buffer: VecDeque::new(),
            answers: Answers::default(),
            outbox: Outbox::default(),
            next_ack: 0,
            joins: 0,
            session: None,
            early: Early::default(),
            not_before: None,
            moving: Moving::new(is_held),
            failures: 0,
            pause: Duration::ZERO,
            credentials: 0,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Joins the namespace, now if `is_open` or when there is a connection.
    pub(super) fn join(&mut self, cx: &mut Context<'_>, ticket: Ticket, is_open: bool) {
        self.wanted = true;
        self.attend(cx, ticket);
        if is_open && self.phase == Phase::Away && !self.moving.is_held {
            self.authenticate(cx);
        }
    }

    /// Lets a caller wait until the namespace is joined, if somebody wants that.
    pub(super) fn attend(&mut self, cx: &mut Context<'_>, ticket: Ticket) {
        match self.phase {
            Phase::Connected => cx.answer(ticket, Ok(Reply::Done)),
            _ if !self.wanted => cx.answer(ticket, Err(ClientError::Closed)),
            _ if self.joining.len() >= JOINING_MAX => cx.answer(ticket, Err(ClientError::Full)),
            _ => self.joining.push(ticket),
        }
    }

    /// Leaves the namespace for good. Whoever waits gets `error`; what is in the outbox stays there.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>, reason: DisconnectReason, error: &ClientError) {
        let (mut phase, mut not_before) = (Phase::Away, self.not_before);
        if matches!(reason, DisconnectReason::ByClient) {
            match self.phase {
                Phase::Connected => {
                    cx.send(Outgoing::disconnect(cx.settings.encoding, &self.path));
                    not_before = Some(cx.now + REJOIN_AFTER);
                }
                Phase::Connecting { until } | Phase::Leaving { until } => phase = Phase::Leaving { until },
                _ => {}
            }
        }
        self.wanted = false;
        self.session = None;
        (self.failures, self.pause) = (0, Duration::ZERO);
        self.lose(cx, reason);
        (self.phase, self.not_before) = (phase, not_before);
        let waiting = self.joining.drain(..).chain(self.outbox.take_tickets());
        let unsent = self.buffer.drain(..).filter_map(|(_, emit)| emit.answer.map(|(ticket, _)| ticket));
        let tickets: Vec<Ticket> = waiting.chain(unsent).collect();
        tickets.into_iter().for_each(|ticket| cx.answer(ticket, Err(error.clone())));
        self.answers = Answers::default();
    }

    /// Handles the loss of the connection: nobody will answer what was sent.
    pub(super) fn lose(&mut self, cx: &mut Context<'_>, reason: DisconnectReason) {
        let was = std::mem::replace(&mut self.phase, Phase::Away);
        self.outbox.handle_lost();
        self.early = Early::default();
        self.not_before = None;
        self.moving.lose();
        let was_between = std::mem::take(&mut self.moving.is_between);
        for ticket in self.answers.take_sent() {
            cx.answer(ticket, Err(ClientError::ConnectionClosed(reason.clone())));
        }
        if was == Phase::Connected || was_between {
            cx.notify(ClientEvent::Left { namespace: self.path.to_string(), reason });
        }
    }

    /// Asks for credentials, which the CONNECT follows, when it is time.
    pub(super) fn authenticate(&mut self, cx: &mut Context<'_>) {
        if let Some(until) = self.not_before.filter(|until| *until > cx.now) {
            self.phase = Phase::Waiting { until };
            return;
        }
        self.phase = Phase::Authenticating;
        self.credentials += 1;
        let (namespace, number) = (self.path.clone(), self.credentials);
        let until = later(cx.now, cx.settings.join_timeout);
        cx.actions.push_back(Action::Authenticate { namespace, number, until });
    }

    /// Handles a CONNECT that was sent before the connection was open. Meanwhile somebody may have taken it back.
    pub(super) fn handle_early(&mut self, cx: &mut Context<'_>) {
        let until = later(cx.now, cx.settings.join_timeout);
        self.phase = if self.wanted { Phase::Connecting { until } } else { Phase::Leaving { until } };
    }

    pub(super) fn handle_credentials(&mut self, cx: &mut Context<'_>, number: u64, credentials: Credentials) {
        if self.phase != Phase::Authenticating || number != self.credentials {
            return;
        }
        match credentials {
            Ok(auth) => self.connect(cx, auth),
            Err(error) => self.join_later(cx, Duration::ZERO, error),
        }
    }

    /// Sends the CONNECT. The server would end every connection on which one comes that it does not take.
    fn connect(&mut self, cx: &mut Context<'_>, auth: Option<Map<String, Value>>) {
        match cx.fitting(Outgoing::connect(cx.settings.encoding, &self.path, &hello(auth, self.greeting()))) {
            Ok(packet) => {
                self.phase = Phase::Connecting { until: later(cx.now, cx.settings.join_timeout) };
                cx.push(packet, None);
            }
            Err(error) => {
                cx.notify(ClientEvent::Error(error.clone()));
                self.leave(cx, DisconnectReason::ByClient, &error);
            }
        }
    }

    /// Handles a packet from the server.
    ///
    /// # Errors
    /// A violation of the protocol, after which the connection is of no use.
    pub(super) fn handle_packet(&mut self, cx: &mut Context<'_>, packet: Packet) -> ImksResult<()> {
        match (packet.body, self.phase) {
            // A second answer is that to a CONNECT after one that was taken back.
            (PacketBody::Connect(payload), Phase::Connecting { .. } | Phase::Connected) => {
                self.joined(cx, payload)
            }
            (PacketBody::ConnectError(json), Phase::Connecting { .. }) => {
                self.refused(cx, Refusal::read(&json));
                Ok(())
            }
            (body @ (PacketBody::Connect(_) | PacketBody::ConnectError(_)), Phase::Leaving { .. }) => {
                self.left(cx, matches!(body, PacketBody::Connect(_)));
                Ok(())
            }
            (PacketBody::Disconnect, Phase::Connected) => {
                let reason = DisconnectReason::ByServer;
                self.leave(cx, reason.clone(), &ClientError::ConnectionClosed(reason));
                Ok(())
            }
            (PacketBody::Event(id, args), Phase::Connected) => {
                self.handle_event(cx, id, args);
                Ok(())
            }
            (PacketBody::Event(id, args), Phase::Connecting { .. }) => {
                // Otherwise the server would send as much again to every connection that asks for this session.
                self.early.push(id, args).inspect_err(|_| self.session = None)
            }
            (PacketBody::Ack(Some(id), args), Phase::Connected) => {
                self.handle_ack(cx, id, args);
                Ok(())
            }
            (PacketBody::Refused { reason, .. } | PacketBody::ConnectRefused(reason), _) => {
                let error = ImksError::InvalidSocketPacketFormat(reason);
                cx.notify(ClientEvent::Error(ClientError::invalid(error)));
                Ok(())
            }
            // What was on its way when the namespace was left, and answers that nobody waits for.
            _ => Ok(()),
        }
    }

    /// Sends an event at most once: now, or when the namespace is joined.
    pub(super) fn emit(&mut self, cx: &mut Context<'_>, emit: Emit) {
        let refusal = match self.phase {
            Phase::Connected if emit.is_volatile && self.moving.is_held => Some(ClientError::Dropped),
            Phase::Connected => None,
            _ if emit.is_volatile => Some(ClientError::Dropped),
            _ if !self.wanted => Some(ClientError::Closed),
            _ => None,
        };
        let is_full = emit.answer.is_some() && self.answers.is_full();
        if let Some(error) = refusal.or(is_full.then_some(ClientError::Full)) {
            return self.unsent(cx, emit, error);
        }
        let id = emit.answer.map(|(ticket, timeout)| self.expect(ticket, later(cx.now, timeout)));
        self.buffer.push_back((id, emit));
        self.make_room(cx);
        if self.phase == Phase::Connected {
            self.flush(cx);
        }
    }

    /// Puts an event into the outbox.
    pub(super) fn queue(&mut self, cx: &mut Context<'_>, waiting: Waiting) {
        self.outbox.push(waiting);
        self.drain(cx);
    }

    /// Answers an event of the server that came as `(id, session)`.
    pub(super) fn answer(&mut self, cx: &mut Context<'_>, to: (u64, u64), args: &EncodedArgs, place: Place) {
        let (id, session) = to;
        if self.phase == Phase::Connected && session == self.joins {
            self.moving.answered(cx.now, id);
            cx.send_with(Outgoing::ack(cx.settings.encoding, &self.path, id, args), Some(place));
        }
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Option<DisconnectReason> {
        while let Some((id, pending)) = self.answers.take_late(cx.now) {
            self.buffer.retain(|(waiting, _)| *waiting != Some(id));
            cx.answer(pending.ticket, Err(ClientError::Timeout("an answer")));
        }
        if let Some(outcome) = self.outbox.handle_timeout(cx.now, &cx.settings.retry) {
            report(cx, outcome);
        }
        self.drain(cx);
        match self.phase {
            Phase::Waiting { until } if until <= cx.now => self.authenticate(cx),
            Phase::Connecting { until } | Phase::Leaving { until } if self.wanted && until <= cx.now => {
                return Some(DisconnectReason::JoinTimeout);
            }
            _ => {}
        }
        None
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        // Without a connection the outbox waits for nothing but that, and what is held back has no time of its own.
        let is_at_work = !self.moving.is_held || self.outbox.is_under_way();
        let outbox =
            (self.phase == Phase::Connected && is_at_work).then(|| self.outbox.poll_timeout()).flatten();
        let phase = match self.phase {
            Phase::Waiting { until } | Phase::Connecting { until } => Some(until),
            // Until somebody wants to join again, nothing is missed.
            Phase::Leaving { until } if self.wanted => Some(until),
            _ => None,
        };
        earlier(earlier(self.answers.poll_timeout(), outbox), phase)
    }

    /// Returns what the CONNECT says about the session to restore.
    pub(super) fn greeting(&self) -> Greeting {
        let mut greeting = Greeting::new();
        if let Some(session) = &self.session {
            greeting.insert("pid".into(), session.pid.clone().into());
            if let Some(offset) = &session.offset {
                greeting.insert("offset".into(), offset.clone().into());
            }
        }
        greeting
    }

    fn joined(&mut self, cx: &mut Context<'_>, payload: Option<Payload>) -> ImksResult<()> {
        let json = payload.map(|payload| payload.json).unwrap_or_default();
        let welcome: Welcome = serde_json::from_str(&json)
            .map_err(|_| ImksError::InvalidSocketPacketFormat("answer to CONNECT without sid"))?;
        let old = self.session.take();
        let recovered = old.as_ref().is_some_and(|old| Some(&old.pid) == welcome.pid.as_ref());
        self.session = match (welcome.pid, old) {
            (Some(_), Some(old)) if recovered => Some(old),
            (Some(pid), _) => Some(Recoverable { pid, offset: None }),
            (None, _) => None,
        };
        self.phase = Phase::Connected;
        self.moving.is_between = false;
        self.joins += 1;
        (self.failures, self.pause) = (0, Duration::ZERO);
        cx.notify(ClientEvent::Joined { namespace: self.path.to_string(), sid: welcome.sid, recovered });
        for ticket in std::mem::take(&mut self.joining) {
            cx.answer(ticket, Ok(Reply::Done));
        }
        for (id, args) in self.early.take() {
            self.handle_event(cx, id, args);
        }
        self.flush(cx);
        self.drain(cx);
        Ok(())
    }

    /// Handles the answer to a CONNECT that was taken back: leaves again where it let the client in, and joins anew
    /// where somebody has wanted that since, with the credentials of now.
    fn left(&mut self, cx: &mut Context<'_>, is_in: bool) {
        self.phase = Phase::Away;
        if is_in {
            cx.send(Outgoing::disconnect(cx.settings.encoding, &self.path));
            self.not_before = Some(cx.now + REJOIN_AFTER);
        }
        if self.wanted {
            self.authenticate(cx);
        }
    }

    fn refused(&mut self, cx: &mut Context<'_>, refusal: Refusal) {
        self.phase = Phase::Away;
        let refusal = Arc::new(refusal);
        let error = ClientError::Refused(refusal.clone());
        let may_be_renewed = refusal.code() == Some(TOKEN_EXPIRED)
            && cx.settings.has_fresh_credentials
            && self.failures < RENEWALS_MAX;
        match refusal.is_retryable() || may_be_renewed {
            true => self.join_later(cx, refusal.retry_after().unwrap_or_default(), error),
            false => {
                cx.notify(ClientEvent::Error(error.clone()));
                self.leave(cx, DisconnectReason::Refused(refusal), &error);
            }
        }
    }

    /// Tries again to join after a pause, unless there were too many attempts.
    fn join_later(&mut self, cx: &mut Context<'_>, after: Duration, error: ClientError) {
        self.failures += 1;
        cx.notify(ClientEvent::Error(error.clone()));
        match cx.settings.reconnect.pause(self.failures, self.pause, (cx.random)()) {
            Some(pause) => {
                self.pause = pause;
                self.phase = Phase::Waiting { until: later(cx.now, pause.max(after)) };
            }
            None => self.leave(cx, DisconnectReason::ByClient, &error),
        }
    }

    fn handle_event(&mut self, cx: &mut Context<'_>, id: Option<u64>, args: Args) {
        let mut may_have_offset = false;
        if let (Some(session), None) = (&mut self.session, id) {
            // The stock client takes any text for an offset too. The server knows its own.
            let last = args.last_json().ok().flatten().and_then(|last| serde_json::from_str(last).ok());
            may_have_offset = last.is_some();
            session.offset = last.or(session.offset.take());
        }
        let answer_to = id.map(|id| (id, self.joins));
        id.into_iter().for_each(|id| self.moving.asked(cx.now, id));
        let incoming = Incoming { namespace: self.path.clone(), args, answer_to, may_have_offset };
        cx.actions.push_back(Action::Deliver(incoming));
    }

    fn handle_ack(&mut self, cx: &mut Context<'_>, id: u64, args: Args) {
        match self.outbox.handle_ack(cx.now, id, &args, &cx.settings.retry) {
            Answered::Ours(outcome) => {
                outcome.into_iter().for_each(|outcome| report(cx, outcome));
                self.drain(cx);
            }
            Answered::NotOurs => {
                let Some(pending) = self.answers.take(id) else { return };
                cx.rtt = pending.sent.map(|sent| cx.now - sent);
                cx.rtt.into_iter().for_each(|rtt| self.moving.measured(rtt));
                cx.answer(pending.ticket, Ok(Reply::Answer(args)));
            }
        }
    }
}

/// How long after a DISCONNECT the next CONNECT follows. The reference puts a DISCONNECT off and a CONNECT not: where
/// it reads both at once, it ends the connection of all namespaces.
const REJOIN_AFTER: Duration = Duration::from_millis(100);

/// The code of the refusal of a token that was good once.
const TOKEN_EXPIRED: &str = "token_expired";

/// How often in a row fresh credentials are tried after `token_expired`.
const RENEWALS_MAX: u32 = 3;

/// The maximum number of callers that wait until one namespace is joined. A further one fails with
/// `ClientError::Full`.
const JOINING_MAX: usize = 1_024;
