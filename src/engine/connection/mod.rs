//! A connection: drives one session when it is polled. Carrier, queue and one timer; no task of its own.

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

use tokio::task::unconstrained;
use tokio::time::Instant;

use self::carrier::Carrier;
use self::duplex::DuplexCarrier;
use self::flushed::Flushed;
#[cfg(test)]
pub use self::memory::MemoryPeer;
use self::polling::PollingCarrier;
use self::timer::Timer;
use crate::engine::close::WireEnd;
use crate::engine::duplex::Duplex;
use crate::engine::metrics::{self, Direction};
use crate::engine::outbox::{Drained, Queue};
use crate::engine::polling::Inbox;
use crate::engine::registry::Registry;
use crate::engine::session::{Output, Session, Timing, Wire};
use crate::engine::{Close, CloseReason, Config, Frame, Handshake, Message, Outbox, Packet, Protocol};

/// One session, owned by one task. It does its I/O when it is polled.
pub struct Connection {
    session: Session,
    carrier: Carrier,
    outbox: Outbox,
    handshake: Arc<Handshake>,
    registry: Option<Arc<Registry>>,
    timer: Timer,
    /// Time of this turn.
    now: Instant,
    phase: Phase,
    turn: Turn,
    /// Content of the close frame for the peer, where the wire knows better than the reason.
    close_content: Option<Box<[u8]>>,
    /// The holder wants no farewell: one attempt to tell the peer, and the end.
    abrupt: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    Live,
    /// The session is closed, the peer is being told.
    Ending {
        reason: CloseReason,
        deadline: Instant,
    },
    Ended(CloseReason),
}

/// From one sleep of the holder's task to the next.
#[derive(Default)]
struct Turn {
    begun: bool,
    /// Messages handed over, and their bytes.
    messages: u16,
    bytes: usize,
    /// No more was handed over because answers wait.
    congested: bool,
}

/// What a connection tells its holder.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message from the peer.
    Message(Message),
    /// The end; comes once and last.
    Closed(CloseReason),
}

/// What carries a new session.
pub(crate) enum Start {
    Polling(Arc<Inbox>),
    Wire(Duplex),
}

/// What a new connection is made of.
pub(crate) struct Parts {
    pub(crate) queue: Arc<Queue>,
    pub(crate) start: Start,
    pub(crate) handshake: Arc<Handshake>,
    pub(crate) registry: Arc<Registry>,
    /// When the handshake request came.
    pub(crate) now: Instant,
}

impl Connection {
    /// Returns the facts of the first request.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.handshake
    }

    /// Returns the sending half.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Reads, writes, keeps the heartbeat; gives the next event. Call it until it is pending: what was queued
    /// meanwhile is written just before that, all at once. With `reading` false, or while too many answers wait
    /// ([`Outbox::answer`]), no message comes; everything else goes on, and a pong that cannot be read is not missed.
    /// After [`Event::Closed`], drop it.
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

    /// Starts a turn, unless one is under way: what the holder sends on this connection before
    /// [`Connection::poll_event`] leaves in the same turn, and does not wake the holder once more.
    pub fn begin(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.turn.begun, true) {
            self.outbox.0.enter();
            self.now = Instant::now();
            self.take_requests(cx);
        }
    }

    pub(crate) fn new(parts: Parts, config: &Config) -> Self {
        let Parts { queue, start, handshake, registry, now } = parts;
        let carrier = match start {
            Start::Polling(inbox) => Carrier::Polling(PollingCarrier::new(inbox, config)),
            Start::Wire(wire) => {
                queue.compress_from(wire.threshold());
                Carrier::Duplex(DuplexCarrier::new(wire))
            }
        };
        Self::build(carrier, Outbox(queue), handshake, Some(registry), config, now)
    }

    fn build(
        carrier: Carrier,
        outbox: Outbox,
        handshake: Arc<Handshake>,
        registry: Option<Arc<Registry>>,
        config: &Config,
        now: Instant,
    ) -> Self {
        let timing = Timing {
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            upgrade_timeout: config.upgrade_timeout,
            close_timeout: config.close_timeout,
        };
        Self {
            session: match outbox.0.protocol {
                Protocol::V4 => Session::new(outbox.transport(), timing, now),
                Protocol::V3 { .. } => Session::legacy(outbox.transport(), timing, now),
            },
            carrier,
            outbox,
            handshake,
            registry,
            timer: Timer::new(now),
            now,
            phase: Phase::Live,
            turn: Turn::default(),
            close_content: None,
            abrupt: false,
        }
    }

    /// Flush, timers, and the end if it has come: outside of the runtime's budget, which may be used up before our turn
    /// begins. What looks ready to wait must be ready to wake us, and a wire is not blocked because we are.
    fn end_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        pin!(unconstrained(poll_fn(|cx| self.finish_turn(cx, reading)))).poll(cx)
    }

    fn finish_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        // A holder that does not read is no fault of the peer. One that reads none of its answers is found.
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

    /// Reads once from the wire that carries the session. False when there is nothing.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.session.is_closed() {
            return false;
        }
        if self.turn.messages > 0 {
            // The holder has worked in between.
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

    /// Does what the session says.
    fn outputs(&mut self, cx: &mut Context<'_>) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Ping => {
                    if self.carrier.ping() {
                        self.session.handle_packet(Wire::Current, Packet::Pong("".into()), self.now);
                    }
                }
                Output::Pong => self.carrier.pong(),
                Output::PongProbe => self.answer_probe(),
                // The flush at the end of the turn looks at the session's state.
                Output::ReleasePoll => {}
                Output::Switch => self.switch(),
                Output::DropCandidate => self.drop_candidate(cx),
                Output::Closed(reason) => self.close(reason, cx),
            }
        }
    }

    fn lose(&mut self, end: &WireEnd) {
        if let WireEnd::Violation { rule, .. } = end {
            tracing::info!(sid = %self.handshake.sid, rule, "the peer broke the rules of its transport");
        }
        self.close_content = end.reply();
        self.session.handle_lost(Wire::Current, end.reason());
    }

    /// The session has closed: tells the peer, as far as it can be told.
    fn close(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        let code = close_code(reason).to_be_bytes();
        let content = self.close_content.take();
        let grace = self.carrier.close(reason, content.as_deref().unwrap_or(&code), cx);
        match grace.filter(|_| !self.abrupt) {
            Some(grace) => {
                self.outbox.0.refuse_sends();
                self.phase = Phase::Ending { reason, deadline: self.now + grace };
            }
            None => self.finish(reason),
        }
    }

    /// Waits for the peer's end, and not too long.
    fn end(&mut self, cx: &mut Context<'_>) {
        let Phase::Ending { reason, deadline } = self.phase else { return };
        if self.carrier.end(cx).is_ready() || self.now >= deadline {
            self.finish(reason);
        }
    }

    /// Frees everything; the holder is told next.
    fn finish(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        self.phase = Phase::Ended(reason);
        self.outbox.0.finish();
        self.carrier.finish();
        if let Some(registry) = self.registry.take() {
            registry.remove(&self.handshake.sid, self.outbox.transport(), reason);
            tracing::debug!(sid = %self.handshake.sid, reason = reason.name(), "session closed");
        }
    }

    /// Returns the reason, once the holder has taken what came before the end.
    fn ended(&self, reading: bool) -> Option<CloseReason> {
        match self.phase {
            Phase::Ended(reason) if !reading || self.session.queued_messages() == 0 => Some(reason),
            _ => None,
        }
    }

    /// Writes what is due. Says whether another task polls than last time.
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

    /// Does what the outbox was told: close, at once if the client is too slow.
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

    /// Sleeps until the next deadline. True if one has passed and the session was told.
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
    /// A holder that drops a live connection closes it at once; requests that wait are refused.
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

/// Close code for a reason (RFC 6455 section 7.4; 4000 and above are ours, see docs/protocol.md).
fn close_code(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::ForcedClose | CloseReason::TransportClose => 1000,
        CloseReason::ServerShutdown => 1001,
        CloseReason::TransportError | CloseReason::ParseError => 1002,
        CloseReason::TooLarge => 1009,
        CloseReason::Slow => 1008,
        CloseReason::PingTimeout => 4000,
    }
}

/// Messages handed over before others get their turn.
const MESSAGES_PER_TURN: u16 = 64;
/// Bytes of messages handed over before others get their turn: a few compressed ones can be much work.
const BYTES_PER_TURN: usize = 1 << 20;
