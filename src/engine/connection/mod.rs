//! A connection: one session with its carrier, queue and timer. It has no task and runs when it is polled.

mod carrier;
mod duplex;
mod flushed;
#[cfg(test)]
mod memory;
mod polling;
mod requests;
#[cfg(test)]
mod tests;
mod timer;

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::Instant;

use self::carrier::Carrier;
use self::duplex::DuplexCarrier;
use self::flushed::Flushed;
#[cfg(test)]
pub use self::memory::MemoryPeer;
use self::polling::PollingCarrier;
use self::timer::Timer;
use crate::engine::close::{WireEnd, close_content};
use crate::engine::config::Timing;
use crate::engine::duplex::Duplex;
use crate::engine::metrics::{self, Direction};
use crate::engine::newcomers::Place;
use crate::engine::outbox::{Drained, Queue};
use crate::engine::polling::Inbox;
use crate::engine::registry::Registry;
use crate::engine::session::{Output, Session, Wire};
use crate::engine::{
    Close, CloseReason, Config, Frame, Handshake, Message, Outbox, Packet, Protocol, Transport,
};

/// A session that is owned by one task. It does its I/O when it is polled.
pub struct Connection {
    session: Session,
    carrier: Carrier,
    outbox: Outbox,
    handshake: Arc<Handshake>,
    registry: Option<Arc<Registry>>,
    /// Its place among the sessions of its engine.
    place: Option<Place>,
    timer: Timer,
    /// The time of the current turn.
    now: Instant,
    phase: Phase,
    turn: Turn,
    /// The content of the close frame for the peer, if the wire has a more specific one than the reason.
    close_content: Option<Box<[u8]>>,
    /// Whether the wire ended without a close frame, and can carry none.
    broke_off: bool,
    /// Whether the holder closes at once: after one attempt to notify the peer, the connection ends.
    abrupt: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    Live,
    /// The session is closed and the peer is being notified.
    Ending {
        reason: CloseReason,
        deadline: Instant,
    },
    Ended(CloseReason),
}

/// The state of a turn, which lasts from one sleep of the holder's task to the next.
#[derive(Default)]
struct Turn {
    begun: bool,
    /// The number of messages handed over.
    messages: u16,
    bytes: usize,
    /// Whether handing over stopped because answers wait.
    congested: bool,
}

/// An event for the holder of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message from the peer.
    Message(Message),
    /// The end of the connection. It is the last event, and is returned once.
    Closed(CloseReason),
}

/// The first carrier of a new session.
pub(crate) enum Start {
    Polling(Arc<Inbox>),
    Wire(Duplex),
}

/// The parts of a new connection.
pub(crate) struct Parts {
    pub(crate) queue: Arc<Queue>,
    pub(crate) start: Start,
    pub(crate) handshake: Arc<Handshake>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) place: Place,
    pub(crate) timing: Arc<Timing>,
    /// The time of the handshake request.
    pub(crate) now: Instant,
}

impl Connection {
    /// Returns the facts of the first request.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.handshake
    }

    /// Returns the sending half of the connection.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Tells the engine that the session is good, for example because its client has signed in: it leaves the places for
    /// new sessions, and when its client comes back, that is not kept out by newcomers.
    pub fn settle(&mut self) {
        if let Some(place) = &mut self.place {
            place.settle(&self.handshake);
        }
    }

    /// Tells the engine that the session has had the time of a new one, and ends: another may have its place, even if its
    /// peer fetches the end much later or never.
    pub fn abandon(&mut self) {
        self.place.take_if(|place| !place.is_settled());
    }

    /// Drives the connection and returns the next event. Must be called until it is pending: everything that
    /// was queued in the meantime is written just before that, at once. While `reading` is false, or too many
    /// answers wait ([`Outbox::answer`]), no message is returned. Everything else continues, and a pong that
    /// cannot be read is not counted as missing. Drop the connection after [`Event::Closed`].
    pub fn poll_event(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        self.begin(cx);
        while reading && self.turn.messages < MESSAGES_PER_TURN && self.turn.bytes < BYTES_PER_TURN {
            if self.is_congested() {
                self.turn.congested = true;
                break;
            }
            if let Some(message) = self.session.poll_message() {
                self.turn.messages += 1;
                self.turn.bytes += message.len();
                return Poll::Ready(Event::Message(message));
            }
            if !self.read(cx) {
                break;
            }
        }
        self.end_turn(cx, reading)
    }

    /// Starts a turn, unless one has begun. Packets that the holder sends on this connection before
    /// [`Connection::poll_event`] are written in the same turn and do not wake the holder again.
    pub fn begin(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.turn.begun, true) {
            self.outbox.0.enter();
            self.now = Instant::now();
            self.take_requests(cx);
        }
    }

    pub(crate) fn new(parts: Parts, config: &Config) -> Self {
        let Parts { queue, start, handshake, registry, place, timing, now } = parts;
        let carrier = match start {
            Start::Polling(inbox) => Carrier::Polling(PollingCarrier::new(inbox, config)),
            Start::Wire(wire) => {
                queue.compress_from(wire.threshold());
                Carrier::Duplex(DuplexCarrier::new(wire))
            }
        };
        let mut connection = Self::build(carrier, Outbox(queue), handshake, timing, now);
        (connection.registry, connection.place) = (Some(registry), Some(place));
        connection
    }

    fn build(
        carrier: Carrier,
        outbox: Outbox,
        handshake: Arc<Handshake>,
        timing: Arc<Timing>,
        now: Instant,
    ) -> Self {
        Self {
            session: match outbox.0.protocol {
                Protocol::V4 => Session::new(outbox.transport(), timing, now),
                Protocol::V3 { .. } => Session::legacy(outbox.transport(), timing, now),
            },
            carrier,
            outbox,
            handshake,
            registry: None,
            place: None,
            timer: Timer::new(now),
            now,
            phase: Phase::Live,
            turn: Turn::default(),
            close_content: None,
            broke_off: false,
            abrupt: false,
        }
    }

    /// Flushes, handles timers, and returns the end if it has come. Runs outside the runtime's budget, which
    /// may be used up before the turn begins. Without budget, I/O and timers would be pending whatever their
    /// state: their wakers would not be registered, and the wire would appear blocked.
    fn end_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        pin!(unconstrained(poll_fn(|cx| self.finish_turn(cx, reading)))).poll(cx)
    }

    fn finish_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        // The peer is not blamed for a holder that does not read, but a peer that reads none of its answers
        // is detected.
        let by_holder = !reading || (self.carrier.is_withholding(&self.session) && !self.is_congested());
        self.session.handle_reading(!by_holder, self.now);
        loop {
            let moved = self.flush(cx);
            self.end(cx);
            if let Some(reason) = self.ended(reading) {
                return Poll::Ready(Event::Closed(reason));
            }
            if !self.poll_timer(cx, moved) {
                break;
            }
        }
        let turn = std::mem::take(&mut self.turn);
        if turn.messages > 0 {
            metrics::MESSAGES.of(Direction::In).add(u64::from(turn.messages));
            metrics::MESSAGE_BYTES.of(Direction::In).add(turn.bytes as u64);
        }
        let cut = turn.messages >= MESSAGES_PER_TURN || turn.bytes >= BYTES_PER_TURN;
        if cut || (turn.congested && !self.is_congested()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether the peer has to read answers before its next request is handed over.
    fn is_congested(&self) -> bool {
        self.outbox.0.is_congested() && !self.session.is_closed()
    }

    /// Reads once from the wire that carries the session. Returns false if there is nothing to read.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.session.is_closed() {
            return false;
        }
        if self.turn.messages > 0 {
            // The holder has run in the meantime.
            self.now = Instant::now();
        }
        let (session, now) = (&mut self.session, self.now);
        let read = self.carrier.read(cx, &mut |packet| session.handle_packet(Wire::Current, packet, now));
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(end)) => self.lose(&end),
        }
        self.outputs(cx);
        true
    }

    /// Performs the actions of the session.
    fn outputs(&mut self, cx: &mut Context<'_>) {
        if let Some(micros) = self.session.poll_rtt() {
            self.outbox.0.set_rtt(micros);
            metrics::RTT_SECONDS.record(Duration::from_micros(micros.get().into()));
        }
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Ping => {
                    if self.carrier.ping() {
                        self.session.handle_packet(Wire::Current, Packet::Pong("".into()), self.now);
                    }
                }
                Output::Pong => self.carrier.pong(),
                Output::PongProbe => self.answer_probe(),
                Output::Switch => self.switch(),
                Output::DropCandidate => self.drop_candidate(cx),
                Output::Closed(reason) => self.close(reason, cx),
            }
        }
    }

    fn lose(&mut self, end: &WireEnd) {
        if let WireEnd::Violation { rule, .. } = end {
            tracing::info!(engine_sid = %self.handshake.sid, rule, "the peer broke the rules of its transport");
        }
        self.broke_off = matches!(end, WireEnd::Stream(_));
        self.close_content = end.reply();
        self.session.handle_lost(Wire::Current, end.reason());
    }

    /// Notifies the peer that the session has closed, if possible.
    fn close(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        let content = self.close_content.take().unwrap_or_else(|| told(reason));
        let has_code = !self.broke_off && self.outbox.transport() != Transport::Polling;
        if let Some(code) = content.first_chunk().filter(|_| has_code) {
            self.outbox.0.set_close_code(u16::from_be_bytes(*code));
        }
        let grace = self.carrier.close(reason, &content, cx);
        match grace.filter(|_| !self.abrupt) {
            Some(grace) => {
                self.outbox.0.refuse_sends();
                self.phase = Phase::Ending { reason, deadline: self.now + grace };
            }
            None => self.finish(reason),
        }
    }

    /// Waits for the peer's end until a deadline.
    fn end(&mut self, cx: &mut Context<'_>) {
        let Phase::Ending { reason, deadline } = self.phase else { return };
        if self.carrier.end(cx).is_ready() || self.now >= deadline {
            self.finish(reason);
        }
    }

    /// Frees everything. The holder is notified next.
    fn finish(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        self.phase = Phase::Ended(reason);
        self.outbox.0.finish();
        self.carrier.finish();
        if let Some(registry) = self.registry.take() {
            registry.remove(&self.handshake.sid, self.outbox.transport(), reason);
            tracing::debug!(engine_sid = %self.handshake.sid, reason = reason.name(), "session closed");
        }
        if let Some(place) = self.place.take() {
            place.end(&self.handshake);
        }
    }

    /// Returns the close reason, once the holder has taken everything that arrived before the end.
    fn ended(&self, reading: bool) -> Option<CloseReason> {
        match self.phase {
            Phase::Ended(reason) if !reading || self.session.queued_messages() == 0 => Some(reason),
            _ => None,
        }
    }

    /// Writes the packets that are due. Returns whether another task polls than last time.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !matches!(self.phase, Phase::Ended(_)) {
            let (take, poll_waiting) = self.carrier.capacity(&self.session);
            let drained = self.outbox.0.take_and_arm(cx.waker(), take, poll_waiting);
            moved |= drained.moved;
            self.obey(&drained, cx);
            if self.session.is_closed() {
                break;
            }
            count_sent(drained.frames.iter());
            let flushed = self.carrier.flush(drained, &self.outbox.0, &mut self.session, self.now, cx);
            match &flushed {
                Flushed::All => self.session.handle_drained(),
                Flushed::Ended(end) => self.lose(end),
                Flushed::Partly | Flushed::Again => {}
            }
            self.outputs(cx);
            if flushed != Flushed::Again {
                break;
            }
        }
        moved
    }

    /// Performs a requested close of the outbox. A client that is too slow is closed at once.
    fn obey(&mut self, drained: &Drained, cx: &mut Context<'_>) {
        if drained.slow {
            self.session.handle_lost(Wire::Current, CloseReason::Slow);
        } else if let Some(close) = drained.closing {
            self.abrupt = close == Close::Now;
            self.session.handle_close(close, self.now);
            if self.abrupt
                && let Phase::Ending { reason, .. } = self.phase
            {
                self.finish(reason);
            }
        } else {
            return;
        }
        self.outputs(cx);
    }

    /// Sleeps until the next deadline. Returns true if one has passed and the session has handled it.
    fn poll_timer(&mut self, cx: &mut Context<'_>, moved: bool) -> bool {
        let ending = match self.phase {
            Phase::Ending { deadline, .. } => Some(deadline),
            _ => None,
        };
        let deadline = [self.session.poll_timeout(), ending].into_iter().flatten().min();
        if self.timer.poll(cx, deadline, self.now, moved).is_pending() {
            return false;
        }
        self.now = Instant::now();
        self.session.handle_timeout(self.now);
        self.outputs(cx);
        true
    }
}

impl Drop for Connection {
    /// Closes a live connection at once. Waiting requests are refused.
    fn drop(&mut self) {
        self.finish(CloseReason::ForcedClose);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("handshake", &self.handshake).finish_non_exhaustive()
    }
}

fn count_sent<'a>(frames: impl ExactSizeIterator<Item = &'a Frame>) {
    if frames.len() > 0 {
        metrics::MESSAGES.of(Direction::Out).add(frames.len() as u64);
        metrics::MESSAGE_BYTES.of(Direction::Out).add(frames.map(|frame| frame.len() as u64).sum());
    }
}

/// Returns the content of the close frame for a reason (RFC 6455 section 7.4; see docs/protocol.md for 4000 and above).
fn told(reason: CloseReason) -> Box<[u8]> {
    let (code, text) = match reason {
        CloseReason::ForcedClose | CloseReason::TransportClose => (1000, "closed by the server"),
        CloseReason::ServerShutdown => (1001, "the server stops"),
        CloseReason::TransportError => (1002, "the transport was not used by its rules"),
        CloseReason::ParseError => (1002, "this is no Engine.IO packet"),
        CloseReason::TooLarge => (1009, "a message is larger than maxPayload"),
        CloseReason::Slow => (1008, "too slow to read what was sent"),
        CloseReason::PingTimeout => (4000, "no pong in time"),
    };
    close_content(code, text)
}

/// The number of messages handed over before other tasks get their turn.
const MESSAGES_PER_TURN: u16 = 64;
/// The number of message bytes handed over before other tasks get their turn. A few compressed messages can
/// be much work.
const BYTES_PER_TURN: usize = 1 << 20;
