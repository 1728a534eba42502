//! One Engine.IO session: open, heartbeat, upgrade, close. Decides everything and does nothing: packets and
//! time come in through `handle_*`, what should happen comes out of [`Session::poll_output`]. No I/O, no
//! clock. Rule for callers: after any `handle_*`, drain `poll_output` until it is empty. Messages are apart,
//! in `poll_message`: they may wait while the layer above is busy, everything else may not.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    Close, CloseReason, Message, Packet, Transport,
    heartbeat::{Beat, Heartbeat},
    packet::PROBE,
};

/// Deadlines of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) ping_interval: Duration,
    pub(super) ping_timeout: Duration,
    pub(super) upgrade_timeout: Duration,
    /// How long a graceful close may take to hand over what is queued.
    pub(super) close_timeout: Duration,
}

/// The transport something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// The one that carries the session.
    Current,
    /// A WebSocket that wants to take over from polling.
    Candidate,
}

/// What the caller has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Send a ping on the current wire.
    Ping,
    /// Answer the probe on the candidate.
    PongProbe,
    /// From now on a polling request is answered at once, with a noop if nothing is queued.
    ReleasePoll,
    /// The candidate is the current wire from now on.
    Switch,
    /// The candidate is refused; the session goes on where it is.
    DropCandidate,
    /// The end. Comes once and last.
    Closed(CloseReason),
}

/// State of one session.
#[derive(Debug)]
pub(super) struct Session {
    state: State,
    transport: Transport,
    upgrade: Option<Upgrade>,
    heartbeat: Heartbeat,
    upgrade_timeout: Duration,
    close_timeout: Duration,
    outputs: VecDeque<Output>,
    messages: VecDeque<Message>,
}

#[derive(Debug)]
enum State {
    Open,
    /// Closes once everything queued has left, or at the deadline.
    Closing {
        reason: CloseReason,
        deadline: Instant,
    },
    Closed,
}

#[derive(Debug)]
struct Upgrade {
    probed: bool,
    deadline: Instant,
}

impl Session {
    pub(super) fn new(transport: Transport, timing: Timing, now: Instant) -> Self {
        Self {
            state: State::Open,
            transport,
            upgrade: None,
            heartbeat: Heartbeat::new(timing.ping_interval, timing.ping_timeout, now),
            upgrade_timeout: timing.upgrade_timeout,
            close_timeout: timing.close_timeout,
            outputs: VecDeque::new(),
            messages: VecDeque::new(),
        }
    }

    /// A packet has arrived.
    pub(super) fn handle_packet(&mut self, wire: Wire, packet: Packet, now: Instant) {
        match (&self.state, wire) {
            (State::Closed, _) => {}
            (_, Wire::Current) => self.handle_current(packet, now),
            (_, Wire::Candidate) => self.handle_candidate(packet, now),
        }
    }

    /// A WebSocket wants to take over. Says whether it may try.
    pub(super) fn handle_attach(&mut self, now: Instant) -> bool {
        let allowed = !self.is_closed() && self.transport == Transport::Polling && self.upgrade.is_none();
        if allowed {
            self.upgrade = Some(Upgrade { probed: false, deadline: now + self.upgrade_timeout });
        }
        allowed
    }

    /// A wire has ended by itself, or its peer has broken the rules.
    pub(super) fn handle_lost(&mut self, wire: Wire, reason: CloseReason) {
        match wire {
            Wire::Current => self.close(reason),
            Wire::Candidate if self.upgrade.take().is_some() => self.output(Output::DropCandidate),
            Wire::Candidate => {}
        }
    }

    /// The holder wants to close.
    pub(super) fn handle_close(&mut self, close: Close, now: Instant) {
        let reason = match close {
            Close::Now => return self.close(CloseReason::ForcedClose),
            Close::Graceful => CloseReason::ForcedClose,
            Close::Shutdown => CloseReason::ServerShutdown,
        };
        if matches!(self.state, State::Open) {
            self.state = State::Closing { reason, deadline: now + self.close_timeout };
        }
    }

    /// Everything that was queued has left on the current wire.
    pub(super) fn handle_drained(&mut self) {
        if let State::Closing { reason, .. } = self.state
            && self.upgrade.is_none()
        {
            self.close(reason);
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Closed => return,
            State::Closing { reason, deadline } if now >= deadline => return self.close(reason),
            _ => {}
        }
        if self.upgrade.as_ref().is_some_and(|upgrade| now >= upgrade.deadline) {
            self.upgrade = None;
            self.output(Output::DropCandidate);
        }
        match self.heartbeat.handle_timeout(now) {
            Some(Beat::Ping) => self.output(Output::Ping),
            Some(Beat::Timeout) => self.close(CloseReason::PingTimeout),
            None => {}
        }
    }

    /// The holder reads, or does not: what it does not read is not held against the peer.
    pub(super) fn handle_reading(&mut self, reading: bool, now: Instant) {
        if reading {
            self.heartbeat.resume(now);
        } else {
            self.heartbeat.suspend();
        }
    }

    /// The next thing to do.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && self.outputs.capacity() > 0 {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// The next message for the layer above. Messages wait here until it takes them; what arrived before the
    /// end is still given after it.
    pub(super) fn poll_message(&mut self) -> Option<Message> {
        let message = self.messages.pop_front();
        if self.messages.is_empty() && self.messages.capacity() > 0 {
            self.messages = VecDeque::new();
        }
        message
    }

    /// Messages that wait.
    pub(super) fn queued_messages(&self) -> usize {
        self.messages.len()
    }

    /// When [`Session::handle_timeout`] is due at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let closing = match self.state {
            State::Open => None,
            State::Closing { deadline, .. } => Some(deadline),
            State::Closed => return None,
        };
        let upgrade = self.upgrade.as_ref().map(|upgrade| upgrade.deadline);
        [self.heartbeat.poll_timeout(), upgrade, closing].into_iter().flatten().min()
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Whether a probe was answered and the poll must not be held.
    pub(super) fn is_probed(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.probed)
    }

    fn handle_current(&mut self, packet: Packet, now: Instant) {
        match packet {
            Packet::Message(message) => {
                self.heartbeat.handle_other(now);
                if matches!(self.state, State::Open) {
                    self.messages.push_back(message);
                }
            }
            Packet::Pong(_) => self.heartbeat.handle_pong(now),
            Packet::Close => self.close(CloseReason::TransportClose),
            // In version 4 only the server pings.
            Packet::Ping(_) => self.close(CloseReason::TransportError),
            Packet::Open(_) | Packet::Upgrade | Packet::Noop => self.heartbeat.handle_other(now),
        }
    }

    fn handle_candidate(&mut self, packet: Packet, now: Instant) {
        let Some(upgrade) = &mut self.upgrade else { return };
        match packet {
            Packet::Ping(content) if content.as_str() == PROBE => {
                upgrade.probed = true;
                self.output(Output::PongProbe);
                self.output(Output::ReleasePoll);
            }
            Packet::Upgrade => {
                self.upgrade = None;
                self.transport = Transport::WebSocket;
                self.heartbeat.handle_switch(now);
                self.output(Output::Switch);
            }
            _ => {
                self.upgrade = None;
                self.output(Output::DropCandidate);
            }
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        self.state = State::Closed;
        if self.upgrade.take().is_some() {
            self.output(Output::DropCandidate);
        }
        self.output(Output::Closed(reason));
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }
}
