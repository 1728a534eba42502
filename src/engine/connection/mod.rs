//! A connection: drives one session when it is polled. Wire, queue and one timer; no task of its own.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Uri};
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

pub use self::memory::MemoryPeer;
use self::memory::{MemoryLink, Received};
use crate::engine::duplex::Duplex;
use crate::engine::metrics::{self, Direction, Upgrade};
use crate::engine::outbox::{Shared, Taken};
use crate::engine::polling::{Inputs, Polling, Post};
use crate::engine::registry::Registry;
use crate::engine::session::{Output, Session, Timing, Wire};
use crate::engine::websocket::Lost;
use crate::engine::{
    Close, CloseReason, Config, Handshake, Message, NodeId, Outbox, Packet, Protocol, Sid, Transport, frame,
};

mod memory;
#[cfg(test)]
mod tests;

/// One session, owned by one task. It does its I/O when it is polled.
pub struct Connection {
    session: Session,
    carrier: Carrier,
    candidate: Option<Box<Duplex>>,
    outbox: Outbox,
    handshake: Arc<Handshake>,
    registry: Option<Arc<Registry>>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires. Earlier than needed is fine: it is moved when it fires, not each time.
    armed: Instant,
    /// Time of this turn.
    now: Instant,
    phase: Phase,
    /// Close code for the peer, where the wire knows better than the reason.
    code: Option<u16>,
    in_turn: bool,
    /// The holder wants no farewell: one attempt to tell the peer, and the end.
    abrupt: bool,
    /// The wire took less than what was due.
    blocked: bool,
    /// Messages handed over in this turn, and their bytes.
    events: u16,
    received: usize,
    inbound_max: u32,
}

enum Carrier {
    Polling(Polling),
    Duplex(Duplex),
    Memory(Arc<MemoryLink>),
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

/// What a connection tells its holder.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message from the peer.
    Message(Message),
    /// The end; comes once and last.
    Closed(CloseReason),
}

/// What a new connection is made of.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handshake: Arc<Handshake>,
    pub(crate) registry: Arc<Registry>,
    /// The wire of a session that does not start on polling.
    pub(crate) wire: Option<Duplex>,
    /// When the handshake request came.
    pub(crate) now: Instant,
}

impl Connection {
    /// Facts of the first request.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.handshake
    }

    /// The sending half.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Reads, writes, keeps the heartbeat; gives the next event. Call it until it is pending: what was queued
    /// meanwhile is written just before that, all at once. With `reading` false no message comes, everything
    /// else goes on, and a pong that cannot be read is not missed. After [`Event::Closed`], drop it.
    pub fn poll_event(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        self.begin(cx);
        while reading && self.events < EVENTS_PER_TURN && self.received < BYTES_PER_TURN {
            if let Some(message) = self.session.poll_message() {
                self.events += 1;
                self.received += message.len();
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
        if !std::mem::replace(&mut self.in_turn, true) {
            self.begin_turn(cx);
        }
    }

    /// A connection without a network, and its peer.
    pub fn in_memory(config: &Config) -> (Self, MemoryPeer) {
        let link = Arc::new(MemoryLink::default());
        let uri = Uri::from_static("/socket.io/?EIO=4&transport=websocket");
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        let sid = NodeId::random().and_then(Sid::random).unwrap_or_else(|_| Sid::fixed("in-memory"));
        let handshake = Handshake::new(sid, peer, Transport::WebSocket, false, &uri, &HeaderMap::new());
        let shared = Arc::new(Shared::new(Transport::WebSocket, Arc::new(config.outbox), None));
        let carrier = Carrier::Memory(link.clone());
        let connection = Self::build(carrier, shared, Arc::new(handshake), None, config, Instant::now());
        (connection, MemoryPeer::new(link))
    }

    pub(crate) fn new(parts: Parts, config: &Config) -> Self {
        let carrier = match parts.wire {
            Some(wire) => {
                parts.shared.compress_from(wire.threshold());
                Carrier::Duplex(wire)
            }
            None => Carrier::Polling(Polling::default()),
        };
        Self::build(carrier, parts.shared, parts.handshake, Some(parts.registry), config, parts.now)
    }

    fn build(
        carrier: Carrier,
        shared: Arc<Shared>,
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
            session: match shared.protocol {
                Protocol::V4 => Session::new(shared.transport(), timing, now),
                Protocol::V3 { .. } => Session::legacy(shared.transport(), timing, now),
            },
            carrier,
            candidate: None,
            outbox: Outbox(shared),
            handshake,
            registry,
            sleep: None,
            armed: now,
            now,
            phase: Phase::Live,
            code: None,
            in_turn: false,
            abrupt: false,
            blocked: false,
            events: 0,
            received: 0,
            inbound_max: u32::try_from(config.inbound_messages_max).unwrap_or(u32::MAX),
        }
    }

    fn begin_turn(&mut self, cx: &mut Context<'_>) {
        self.outbox.0.enter();
        self.now = Instant::now();
        if matches!(self.carrier, Carrier::Polling(_)) {
            self.take_requests(cx);
        }
    }

    /// Flush, timers, and the end if it has come: outside of the runtime's budget, which may be used up before our turn
    /// begins. What looks ready to wait must be ready to wake us, and a wire is not blocked because we are.
    fn end_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        pin!(unconstrained(poll_fn(|cx| self.finish_turn(cx, reading)))).poll(cx)
    }

    fn finish_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        self.session.handle_reading(reading && !self.is_withholding(), self.now);
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
        self.in_turn = false;
        let (events, received) = (std::mem::take(&mut self.events), std::mem::take(&mut self.received));
        if events > 0 {
            metrics::MESSAGES.of(Direction::In).add(u64::from(events));
            metrics::MESSAGE_BYTES.of(Direction::In).add(received as u64);
        }
        if events >= EVENTS_PER_TURN || received >= BYTES_PER_TURN {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads once from the wire that carries the session. False when there is nothing.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.session.is_closed() {
            return false;
        }
        if self.events > 0 {
            // The holder has worked in between.
            self.now = Instant::now();
        }
        let (session, now) = (&mut self.session, self.now);
        let read = match &mut self.carrier {
            Carrier::Polling(_) => return false,
            Carrier::Duplex(socket) => {
                socket.poll_read(cx, &mut |packet| session.handle_packet(Wire::Current, packet, now))
            }
            Carrier::Memory(link) => match link.receive(cx.waker()) {
                Some(Received::Message(message)) => {
                    session.handle_packet(Wire::Current, Packet::Message(message), now);
                    Poll::Ready(Ok(()))
                }
                Some(Received::Closed) => Poll::Ready(Err(Lost::Stream(CloseReason::TransportClose))),
                None => Poll::Pending,
            },
        };
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(lost)) => self.lose(&lost),
        }
        self.outputs(cx);
        true
    }

    /// Requests of a polling client. Packets first, so that a pong that came in time counts; then the
    /// deadlines, so that a request that came too late finds the session closed; then the rest.
    fn take_requests(&mut self, cx: &mut Context<'_>) {
        let inputs = Polling::inputs(&self.outbox.0);
        let Inputs { get, post, offer, fault } = inputs;
        if let Some(post) = post {
            self.take_post(post, cx);
        }
        self.session.handle_timeout(self.now);
        self.outputs(cx);
        if let Some(wire) = offer
            && self.session.handle_attach(wire.transport(), self.now)
        {
            self.candidate = Some(wire);
        }
        self.read_candidate(cx);
        let Carrier::Polling(polling) = &mut self.carrier else { return };
        if let Some(get) = get {
            match self.phase {
                Phase::Live => polling.get = Some(get),
                Phase::Ending { reason, .. } => {
                    polling.get = Some(get);
                    polling.answer_frame(&self.outbox.0, &frame::NOOP);
                    self.finish(reason);
                    return;
                }
                Phase::Ended(_) => drop(get),
            }
        }
        if fault {
            self.session.handle_lost(Wire::Current, CloseReason::TransportError);
            self.outputs(cx);
        }
    }

    fn take_post(&mut self, post: Post, cx: &mut Context<'_>) {
        for packet in post.packets {
            self.session.handle_packet(Wire::Current, packet, self.now);
        }
        if post.malformed {
            // The reply is dropped: the request is refused.
            self.session.handle_lost(Wire::Current, CloseReason::ParseError);
        } else if let Carrier::Polling(polling) = &mut self.carrier {
            polling.post = Some(post.reply);
        }
        self.outputs(cx);
    }

    fn read_candidate(&mut self, cx: &mut Context<'_>) {
        while let Some(candidate) = &mut self.candidate {
            let (session, now) = (&mut self.session, self.now);
            let read = candidate.poll_read(cx, &mut |packet| {
                // What follows the upgrade packet in the same read belongs to the session already.
                let wire = match session.transport() {
                    Transport::Polling => Wire::Candidate,
                    Transport::WebSocket | Transport::WebTransport => Wire::Current,
                };
                session.handle_packet(wire, packet, now);
            });
            match read {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) if self.session.transport() != Transport::Polling => {
                    self.lose(&lost);
                }
                Poll::Ready(Err(lost)) => self.session.handle_lost(Wire::Candidate, lost.reason()),
            }
            self.outputs(cx);
        }
    }

    /// Does what the session says.
    fn outputs(&mut self, cx: &mut Context<'_>) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Ping => self.send_ping(),
                Output::Pong => self.send_pong(),
                Output::PongProbe => {
                    if let Some(candidate) = &mut self.candidate {
                        candidate.push(frame::PONG_PROBE);
                    }
                }
                // The flush at the end of the turn looks at the session's state.
                Output::ReleasePoll => {}
                Output::Switch => self.switch(),
                Output::DropCandidate => self.drop_candidate(cx),
                Output::Closed(reason) => self.close(reason, cx),
            }
        }
    }

    fn send_ping(&mut self) {
        match &mut self.carrier {
            Carrier::Polling(polling) => polling.queue.push_back(frame::PING),
            Carrier::Duplex(socket) => socket.push(frame::PING),
            Carrier::Memory(_) => {
                self.session.handle_packet(Wire::Current, Packet::Pong("".into()), self.now);
            }
        }
    }

    /// The answer to a client of version 3.
    fn send_pong(&mut self) {
        match &mut self.carrier {
            Carrier::Polling(polling) => polling.queue.push_back(frame::PONG),
            Carrier::Duplex(wire) => wire.push(frame::PONG),
            Carrier::Memory(_) => {}
        }
    }

    /// The candidate carries the session from now on. What was queued and not polled leaves there.
    fn switch(&mut self) {
        let Some(mut socket) = self.candidate.take() else { return };
        let Carrier::Polling(polling) = &mut self.carrier else { return };
        polling.answer_frame(&self.outbox.0, &frame::NOOP);
        polling.answer_post(&self.outbox.0);
        socket.extend(std::mem::take(&mut polling.queue));
        let (transport, threshold) = (socket.transport(), socket.threshold());
        self.carrier = Carrier::Duplex(*socket);
        self.outbox.0.switch_to(transport);
        self.outbox.0.compress_from(threshold);
        metrics::UPGRADES.of(Upgrade::Succeeded).increment();
        if let Some(registry) = &self.registry {
            registry.switched(transport);
        }
    }

    fn drop_candidate(&mut self, cx: &mut Context<'_>) {
        let Some(mut candidate) = self.candidate.take() else { return };
        candidate.push_close(UPGRADE_REFUSED);
        // One attempt: the session does not depend on it.
        let _ = candidate.poll_flush(cx);
        Polling::free_candidate(&self.outbox.0);
        metrics::UPGRADES.of(Upgrade::Failed).increment();
    }

    fn lose(&mut self, lost: &Lost) {
        if matches!(lost, Lost::Violation(_) | Lost::Oversize(_)) {
            tracing::info!(sid = %self.handshake.sid, ?lost, limit = self.payload_max(), "bad frame");
        }
        self.code = lost.code();
        self.session.handle_lost(Wire::Current, lost.reason());
    }

    /// The session has closed: tells the peer, as far as it can be told.
    fn close(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        match &mut self.carrier {
            Carrier::Memory(_) => self.finish(reason),
            Carrier::Polling(polling) if reason == CloseReason::TransportClose && polling.get.is_none() => {
                // The client closes by POST and by GET at once; they may arrive in any order.
                polling.answer_post(&self.outbox.0);
                self.outbox.0.refuse_sends();
                self.phase = Phase::Ending { reason, deadline: self.now + LAST_GET };
            }
            Carrier::Polling(polling) => {
                let last = if reason == CloseReason::TransportClose { frame::NOOP } else { frame::CLOSE };
                polling.answer_frame(&self.outbox.0, &last);
                polling.answer_post(&self.outbox.0);
                self.finish(reason);
            }
            Carrier::Duplex(socket) => {
                socket.discard_queue();
                socket.push_close(self.code.unwrap_or(close_code(reason)));
                let flushed = socket.poll_flush(cx);
                let hopeless = matches!(reason, CloseReason::PingTimeout | CloseReason::Slow);
                if hopeless || self.abrupt || !socket.is_open() || matches!(flushed, Poll::Ready(Err(_))) {
                    return self.finish(reason);
                }
                self.outbox.0.refuse_sends();
                self.phase = Phase::Ending { reason, deadline: self.now + LINGER };
            }
        }
    }

    /// While ending: everything out, then the peer's end, then ours. Dropping a stream with unread bytes
    /// would reset it, and the peer could lose what was sent last.
    fn end(&mut self, cx: &mut Context<'_>) {
        let Phase::Ending { reason, deadline } = self.phase else { return };
        let done = match &mut self.carrier {
            Carrier::Duplex(socket) => match socket.poll_flush(cx) {
                Poll::Pending => false,
                Poll::Ready(Err(_)) => true,
                Poll::Ready(Ok(())) => {
                    socket.shutdown(cx);
                    socket.poll_discard(cx).is_ready()
                }
            },
            _ => false,
        };
        if done || self.now >= deadline {
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
        if let Carrier::Memory(link) = &self.carrier {
            link.close();
        }
        if let Some(registry) = self.registry.take() {
            registry.remove(&self.handshake.sid, self.outbox.transport(), reason);
            tracing::debug!(sid = %self.handshake.sid, reason = reason.name(), "session closed");
        }
    }

    /// The reason, once the holder has taken what came before the end.
    fn ended(&self, reading: bool) -> Option<CloseReason> {
        match self.phase {
            Phase::Ended(reason) if !reading || self.session.queued_messages() == 0 => Some(reason),
            _ => None,
        }
    }

    /// Writes what is due. Says whether another task polls than last time.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.phase, Phase::Ended(_)) {
            return false;
        }
        self.flush_candidate(cx);
        match &self.carrier {
            Carrier::Polling(_) => self.flush_polling(cx),
            Carrier::Duplex(_) => self.flush_duplex(cx),
            Carrier::Memory(_) => self.flush_memory(cx),
        }
    }

    fn flush_candidate(&mut self, cx: &mut Context<'_>) {
        let Some(candidate) = &mut self.candidate else { return };
        if let Poll::Ready(Err(lost)) = candidate.poll_flush(cx) {
            self.session.handle_lost(Wire::Candidate, lost.reason());
            self.outputs(cx);
        }
    }

    fn flush_duplex(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            let Carrier::Duplex(socket) = &mut self.carrier else { return moved };
            let take = !self.blocked && socket.is_open();
            let taken = self.outbox.0.take_and_arm(cx.waker(), take, false);
            moved |= taken.moved;
            let was_blocked = self.blocked;
            count_sent(&taken);
            self.obey(&taken, cx);
            let Carrier::Duplex(socket) = &mut self.carrier else { return moved };
            if self.session.is_closed() {
                return moved;
            }
            let waits = !socket.is_open();
            socket.extend(taken.frames);
            match socket.poll_flush(cx) {
                Poll::Pending => self.blocked = socket.is_open(),
                Poll::Ready(Err(lost)) => self.lose(&lost),
                Poll::Ready(Ok(())) => {
                    self.blocked = false;
                    if !waits && take {
                        self.session.handle_drained();
                    }
                }
            }
            self.report_blocked(was_blocked);
            self.outputs(cx);
            // What was queued while the wire was blocked, or not there yet, is due now.
            let again = !self.blocked && (was_blocked || waits) && !self.session.is_closed();
            if !again || !self.is_open() {
                return moved;
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(&self.carrier, Carrier::Duplex(socket) if socket.is_open())
    }

    fn report_blocked(&mut self, was_blocked: bool) {
        let Carrier::Duplex(socket) = &self.carrier else { return };
        if self.blocked {
            self.outbox.0.set_blocked(Some(socket.backlog()));
        } else if was_blocked {
            self.outbox.0.set_blocked(None);
        }
    }

    fn flush_polling(&mut self, cx: &mut Context<'_>) -> bool {
        let probed = self.session.is_probed();
        let Carrier::Polling(polling) = &mut self.carrier else { return false };
        if self.session.queued_messages() <= self.inbound_max as usize {
            polling.answer_post(&self.outbox.0);
        }
        let ready = polling.get.is_some();
        let idle = ready && !probed && polling.queue.is_empty();
        let mut taken = self.outbox.0.take_and_arm(cx.waker(), ready, idle);
        count_sent(&taken);
        if taken.requests {
            // They came while this turn was running and nobody was woken for them.
            cx.waker().wake_by_ref();
        }
        self.obey(&taken, cx);
        let Carrier::Polling(polling) = &mut self.carrier else { return taken.moved };
        if !ready || polling.get.is_none() {
            return taken.moved;
        }
        polling.queue.append(&mut taken.frames);
        let ends = self.session.is_closing() && !self.session.is_upgrading();
        if ends {
            polling.queue.push_back(frame::CLOSE);
        }
        let queue = std::mem::take(&mut polling.queue);
        if !queue.is_empty() {
            polling.answer_frames(&self.outbox.0, &queue);
        } else if probed {
            polling.answer_frame(&self.outbox.0, &frame::NOOP);
        }
        if ends {
            self.session.handle_drained();
            self.outputs(cx);
        }
        taken.moved
    }

    fn flush_memory(&mut self, cx: &mut Context<'_>) -> bool {
        let taken = self.outbox.0.take_and_arm(cx.waker(), true, false);
        self.obey(&taken, cx);
        if let Carrier::Memory(link) = &self.carrier {
            link.send(taken.frames);
        }
        self.session.handle_drained();
        self.outputs(cx);
        taken.moved
    }

    /// What the outbox was told: close, or too slow.
    fn obey(&mut self, taken: &Taken, cx: &mut Context<'_>) {
        if taken.slow {
            self.session.handle_lost(Wire::Current, CloseReason::Slow);
        } else if let Some(close) = taken.closing {
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

    /// Whether the `ok` of a POST waits for the holder.
    fn is_withholding(&self) -> bool {
        matches!(&self.carrier, Carrier::Polling(polling) if polling.post.is_some())
            && self.session.queued_messages() > self.inbound_max as usize
    }

    /// Sleeps until the next deadline. True if one has passed and the session was told.
    fn poll_timer(&mut self, cx: &mut Context<'_>, moved: bool) -> bool {
        let ending = match self.phase {
            Phase::Ending { deadline, .. } => Some(deadline),
            _ => None,
        };
        let Some(deadline) = [self.session.poll_timeout(), ending].into_iter().flatten().min() else {
            return false;
        };
        let fresh = self.sleep.is_none();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if fresh || deadline < self.armed {
            sleep.as_mut().reset(deadline);
            self.armed = deadline;
        } else if !moved && self.armed > self.now {
            return false;
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.now = Instant::now();
        self.session.handle_timeout(self.now);
        self.outputs(cx);
        self.sleep = None;
        true
    }

    fn payload_max(&self) -> usize {
        self.registry.as_ref().map_or(usize::MAX, |registry| registry.payload_max())
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

fn count_sent(taken: &Taken) {
    if !taken.frames.is_empty() {
        metrics::MESSAGES.of(Direction::Out).add(taken.frames.len() as u64);
        metrics::MESSAGE_BYTES
            .of(Direction::Out)
            .add(taken.frames.iter().map(|frame| frame.len() as u64).sum());
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
const EVENTS_PER_TURN: u16 = 64;
/// Their bytes: a few compressed ones can be much work.
const BYTES_PER_TURN: usize = 1 << 20;
/// How long the peer may take to end a WebSocket that was closed.
const LINGER: Duration = Duration::from_secs(2);
/// How long a GET may come after the POST that closed the session.
const LAST_GET: Duration = Duration::from_millis(100);
/// Close code of a WebSocket that could not take over.
const UPGRADE_REFUSED: u16 = 1008;
