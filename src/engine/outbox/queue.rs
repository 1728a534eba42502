//! The outgoing queue of one connection, in the only allocation that the connection shares with its senders.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::lanes::{Lane, Later};
use super::latest::{Latest, Slot, VOLATILE_WAITING_MAX};
use super::{Backlog, OutboxLimits, Pressure, Queued, SendError};
use crate::engine::deflate::Threshold;
use crate::engine::{Close, Frame, Protocol, Transport, metrics};

/// The queue of one connection, with the state of its wire that senders need.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// The size of waiting answers in bytes, as `state` counts them. It is read for each message, which must
    /// not take a lock.
    answer_bytes: AtomicUsize,
    /// Whether the connection has been woken or is running. It checks the queue before it sleeps, so no wake
    /// is needed.
    scheduled: AtomicBool,
    /// Whether the holder should send its disconnect packet and end the connection.
    disconnect: AtomicBool,
    transport: AtomicU8,
    /// The size from which the wire wants messages compressed.
    threshold: AtomicU32,
    /// The last time from a ping to its pong in microseconds; 0 while it is not known.
    rtt_micros: AtomicU32,
    /// The Engine.IO version of the client.
    pub(crate) protocol: Protocol,
    limits: Arc<OutboxLimits>,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    /// The packets of lanes that wait behind `frames`; `None` for clients that keep up.
    later: Option<Box<Later>>,
    /// The packets in `frames` and `later`.
    queued: Backlog,
    /// The packets in `frames` that can be replaced; `None` for clients that keep up.
    latest: Option<Box<Latest>>,
    /// The packets that the connection has taken, but a blocked wire holds back; `None` while nothing blocks.
    held: Option<Box<Backlog>>,
    /// The number of bytes that wait for the client, as counted in the metrics.
    waiting_bytes: u32,
    waker: Option<Waker>,
    closing: Option<Close>,
    slow: bool,
    /// Whether a polling request waits with nothing to carry.
    poll_waiting: bool,
    /// The tasks to wake when there is room again; usually none.
    #[allow(clippy::box_collection, reason = "one pointer in every connection, not three")]
    waiting_for_room: Option<Box<Vec<Waker>>>,
}

/// The amount that a connection can take from its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Nothing, because the wire is blocked or absent.
    Nothing,
    /// At most this many packets and bytes, but one packet whatever its size.
    UpTo {
        packets: usize,
        bytes: usize,
    },
    All,
}

/// The state that a connection gets when it drains its queue.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    pub(crate) frames: VecDeque<Frame>,
    pub(crate) closing: Option<Close>,
    pub(crate) slow: bool,
    /// Whether another task polls than last time.
    pub(crate) moved: bool,
}

impl State {
    fn push(&mut self, frame: Frame) {
        self.queued.add(&frame, frame.len());
        self.frames.push_back(frame);
    }

    fn take(&mut self, take: Take) -> VecDeque<Frame> {
        let Take::UpTo { packets, bytes } = take else {
            let everything = take == Take::All;
            return if everything { self.take_all() } else { VecDeque::new() };
        };
        let Queued { packets: waiting, bytes: size } = self.queued.total();
        if waiting <= packets && size <= bytes {
            return self.take_all();
        }
        let mut taken = VecDeque::new();
        let mut room = bytes;
        while let Some(frame) = self.front()
            && taken.len() < packets
            && (taken.is_empty() || frame.len() <= room)
        {
            room = room.saturating_sub(frame.len());
            taken.extend(self.frames.pop_front().inspect(|frame| self.queued.remove(frame)));
        }
        if let Some(latest) = &mut self.latest {
            latest.advance(taken.len());
        }
        taken
    }

    /// Returns the next frame. A packet of another lane becomes the next one as a whole: whatever of it stays behind
    /// must not be overtaken any more.
    fn front(&mut self) -> Option<&Frame> {
        if self.frames.is_empty() {
            self.frames.extend(self.later.as_mut().and_then(|later| later.pop())?);
        }
        self.frames.front()
    }

    fn take_all(&mut self) -> VecDeque<Frame> {
        self.queued = Backlog::default();
        self.latest = None;
        if let Some(mut later) = self.later.take() {
            while let Some(packet) = later.pop() {
                self.frames.extend(packet);
            }
        }
        std::mem::take(&mut self.frames)
    }

    /// Queues a packet of a lane that waits behind the others, if `waits` or an earlier one of its lane does.
    fn push_in(
        &mut self,
        lane: Lane,
        waits: bool,
        frames: impl IntoIterator<Item = Frame>,
        slot: Option<Slot>,
    ) {
        let joins = self.later.as_ref().is_some_and(|later| !later.is_empty(lane));
        if lane == Lane::Chat || !(waits || joins) {
            return frames.into_iter().for_each(|frame| self.push(frame));
        }
        let frames: SmallVec<[Frame; 1]> = frames.into_iter().collect();
        frames.iter().for_each(|frame| self.queued.add(frame, frame.len()));
        self.later.get_or_insert_default().push(lane, frames, slot);
    }

    /// Queues a packet that can be replaced.
    fn push_latest(&mut self, frames: &[Frame], slot: Slot) {
        self.latest.get_or_insert_default().add(slot, self.frames.len(), frames.len());
        frames.iter().for_each(|frame| self.push(frame.clone()));
    }

    /// Removes the packet of a slot, if there is one.
    fn make_way(&mut self, slot: Slot) {
        let Some(place) = self.latest.as_mut().and_then(|latest| latest.remove(slot)) else { return };
        for frame in self.frames.drain(place) {
            self.queued.remove(&frame);
        }
        metrics::OUTBOX_REPLACED.increment();
    }

    /// Removes the packet of a slot from those that are of no use later, if there is one.
    fn make_way_later(&mut self, slot: Slot) {
        let Some(packet) = self.later.as_mut().and_then(|later| later.remove(slot)) else { return };
        packet.iter().for_each(|frame| self.queued.remove(frame));
        metrics::OUTBOX_REPLACED.increment();
    }

    fn pushes(&self) -> Queued {
        self.queued.pushes + self.held().pushes
    }

    fn total(&self) -> Queued {
        self.queued.total() + self.held().total()
    }

    fn held(&self) -> Backlog {
        self.held.as_deref().copied().unwrap_or_default()
    }

    fn refusal(&self) -> Option<SendError> {
        self.closing.map(|_| if self.slow { SendError::Slow } else { SendError::Closed })
    }

    /// Updates the metrics. If `waits`, everything queued waits for the client, because its wire is blocked
    /// or it does not poll; otherwise nothing waits. Never called on the path of a client that keeps up.
    fn count_waiting(&mut self, waits: bool) {
        let bytes = if waits { self.total().bytes } else { 0 };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.waiting_bytes, bytes);
        if before != bytes {
            metrics::OUTBOX_WAITING_BYTES.add(i64::from(bytes) - i64::from(before));
            metrics::OUTBOX_WAITING_SESSIONS.add(i64::from(bytes > 0) - i64::from(before > 0));
        }
    }
}

/// The side of the senders.
impl Queue {
    /// Creates the empty queue of a connection that starts on `transport`.
    pub(crate) fn new(transport: Transport, protocol: Protocol, limits: Arc<OutboxLimits>) -> Self {
        Self {
            state: Mutex::default(),
            answer_bytes: AtomicUsize::new(0),
            scheduled: AtomicBool::new(true),
            disconnect: AtomicBool::new(false),
            transport: AtomicU8::new(transport as u8),
            threshold: AtomicU32::new(Threshold::NEVER.get()),
            rtt_micros: AtomicU32::new(0),
            protocol,
            limits,
        }
    }

    pub(super) fn push(&self, frames: impl IntoIterator<Item = Frame>) -> Result<Pressure, SendError> {
        let mut state = self.state.lock();
        self.admit(&mut state)?;
        frames.into_iter().for_each(|frame| state.push(frame));
        let pressure = Pressure(self.is_pressed(&state));
        self.wake_locked(state);
        Ok(pressure)
    }

    /// Queues a packet of a lane, like [`Queue::push`].
    pub(super) fn push_in(&self, frames: &[Frame], lane: Lane) -> Result<Pressure, SendError> {
        let mut state = self.state.lock();
        self.admit(&mut state)?;
        let waits = self.waits_for_client(&state);
        state.push_in(lane, waits, frames.iter().cloned(), None);
        let pressure = Pressure(self.is_pressed(&state));
        self.wake_locked(state);
        Ok(pressure)
    }

    pub(super) fn push_answer(
        &self,
        frames: impl IntoIterator<Item = Frame>,
        lane: Lane,
    ) -> Result<(), SendError> {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal() {
            return Err(refusal);
        }
        let waits = lane == Lane::Bulk && self.waits_for_client(&state);
        state.push_in(lane, waits, frames, None);
        self.publish_answers(&state);
        self.wake_locked(state);
        Ok(())
    }

    pub(super) fn push_latest(&self, frames: &[Frame], slot: Slot) -> Result<Pressure, SendError> {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal() {
            return Err(refusal);
        }
        let (waits, before) = (self.waits_for_client(&state), state.pushes());
        if waits {
            state.make_way(slot);
        }
        let after = state.pushes() + Queued::of(frames);
        // What takes no more room than the packet that it replaces is never too much.
        if after.packets > before.packets || after.bytes > before.bytes {
            self.admit(&mut state)?;
        }
        match waits {
            true => state.push_latest(frames, slot),
            false => frames.iter().for_each(|frame| state.push(frame.clone())),
        }
        let pressure = Pressure(self.is_pressed(&state));
        self.wake_locked(state);
        Ok(pressure)
    }

    /// Queues a packet that is of no use later. It replaces the one of its slot that waits.
    pub(super) fn push_ephemeral(&self, frames: &[Frame], slot: Option<Slot>) -> bool {
        let mut state = self.state.lock();
        let later = state.later.as_ref();
        let is_first = later.is_none_or(|later| later.is_empty(Lane::Ephemeral));
        if is_first && !self.waits_for_client(&state) {
            drop(state);
            return self.push_volatile(frames.iter().cloned());
        }
        let refused = state.refusal().is_some();
        let has_room =
            later.is_none_or(|later| later.ephemeral() < VOLATILE_WAITING_MAX) && !self.is_full(&state);
        let replaces = slot.is_some_and(|slot| later.is_some_and(|later| later.holds(slot)));
        if refused || !(has_room || replaces) {
            metrics::VOLATILE_DROPPED.increment();
            return false;
        }
        slot.into_iter().for_each(|slot| state.make_way_later(slot));
        state.push_in(Lane::Ephemeral, true, frames.iter().cloned(), slot);
        self.wake_locked(state);
        true
    }

    pub(super) fn push_volatile(&self, frames: impl IntoIterator<Item = Frame>) -> bool {
        let mut state = self.state.lock();
        let ready = match self.transport() {
            Transport::WebSocket | Transport::WebTransport | Transport::Quic => state.held.is_none(),
            Transport::Polling => state.poll_waiting && state.frames.is_empty(),
        };
        if !ready || state.refusal().is_some() || self.is_full(&state) {
            metrics::VOLATILE_DROPPED.increment();
            return false;
        }
        frames.into_iter().for_each(|frame| state.push(frame));
        self.wake_locked(state);
        true
    }

    pub(super) fn close(&self, close: Close) {
        let mut state = self.state.lock();
        match state.closing {
            None => state.closing = Some(close),
            Some(_) if close == Close::Now => state.closing = Some(close),
            Some(_) => return,
        }
        self.wake_locked(state);
    }

    pub(super) fn request_disconnect(&self) {
        self.disconnect.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn disconnect_requested(&self) -> bool {
        self.disconnect.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closing.is_some()
    }

    pub(super) fn waiting(&self) -> Queued {
        self.state.lock().total()
    }

    pub(super) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal() {
            return Poll::Ready(Err(refusal));
        }
        if !self.is_pressed(&state) {
            return Poll::Ready(Ok(()));
        }
        let waiting = state.waiting_for_room.get_or_insert_default();
        if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn compresses(&self, frame: &Frame) -> bool {
        let threshold = self.threshold.load(Ordering::Relaxed);
        threshold != Threshold::NEVER.get()
            && frame.is_compressible()
            && frame.payload().len() >= threshold as usize
    }

    /// Returns the transport that carries the connection now.
    pub(crate) fn transport(&self) -> Transport {
        Transport::from_repr(self.transport.load(Ordering::Relaxed))
    }

    /// Returns the last time from a ping to its pong, if there is one.
    pub(super) fn rtt(&self) -> Option<Duration> {
        let micros = self.rtt_micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }

    /// Wakes the connection unless it is awake already.
    pub(crate) fn wake(&self) {
        self.wake_locked(self.state.lock());
    }

    fn wake_locked(&self, state: MutexGuard<'_, State>) {
        if self.scheduled.swap(true, Ordering::Relaxed) {
            return;
        }
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether packets wait for the client, and not only for the connection's turn.
    fn waits_for_client(&self, state: &State) -> bool {
        match self.transport() {
            Transport::WebSocket | Transport::WebTransport | Transport::Quic => state.held.is_some(),
            Transport::Polling => !state.poll_waiting,
        }
    }

    fn admit(&self, state: &mut State) -> Result<(), SendError> {
        if let Some(refusal) = state.refusal() {
            return Err(refusal);
        }
        if !self.is_full(state) {
            return Ok(());
        }
        state.slow = true;
        state.closing = Some(Close::Now);
        drop(state.take_all());
        self.publish_answers(state);
        if !self.scheduled.swap(true, Ordering::Relaxed)
            && let Some(waker) = &state.waker
        {
            waker.wake_by_ref();
        }
        Err(SendError::Slow)
    }

    fn is_full(&self, state: &State) -> bool {
        let limits = &*self.limits;
        let (packets_max, bytes_max) = match (self.transport(), state.held.is_some()) {
            (Transport::Polling, _) => (limits.packets_max, limits.polling_bytes_max),
            (_, true) => (limits.blocked_packets_max, limits.blocked_bytes_max),
            (_, false) => (limits.packets_max, limits.bytes_max),
        };
        let Queued { packets, bytes } = state.pushes();
        packets >= packets_max || bytes >= bytes_max
    }

    fn is_pressed(&self, state: &State) -> bool {
        let Queued { packets, bytes } = state.total();
        packets > self.limits.pressure_packets || bytes > self.limits.pressure_bytes
    }

    fn publish_answers(&self, state: &State) {
        let bytes = state.queued.answers.bytes + state.held().answers.bytes;
        self.answer_bytes.store(bytes, Ordering::Relaxed);
    }
}

/// The side of the connection.
impl Queue {
    /// Marks the connection as running.
    pub(crate) fn enter(&self) {
        self.scheduled.store(true, Ordering::Relaxed);
    }

    /// Takes queued packets before the connection sleeps. From now on a push wakes it again.
    pub(crate) fn take_and_arm(&self, waker: &Waker, take: Take, poll_waiting: bool) -> Drained {
        let mut state = self.state.lock();
        self.scheduled.store(false, Ordering::Relaxed);
        let moved = !state.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        if moved {
            state.waker = Some(waker.clone());
        }
        let answers_before = state.queued.answers.bytes;
        let frames = state.take(take);
        if state.queued.answers.bytes != answers_before {
            self.publish_answers(&state);
        }
        state.poll_waiting = poll_waiting && frames.is_empty();
        if self.transport() == Transport::Polling {
            let waits = state.queued.total().packets > 0;
            state.count_waiting(waits);
        }
        self.wake_waiting(&mut state);
        Drained { frames, closing: state.closing, slow: state.slow, moved }
    }

    /// Whether so many answers wait that the client's next request has to wait too.
    pub(crate) fn is_congested(&self) -> bool {
        self.answer_bytes.load(Ordering::Relaxed) > self.limits.answer_bytes_high
    }

    /// Compresses messages of this size or more from now on. The session will not change its wire again, so a
    /// compressed message cannot end up on a wire that did not negotiate it.
    pub(crate) fn compress_from(&self, threshold: Threshold) {
        self.threshold.store(threshold.get(), Ordering::Relaxed);
    }

    /// Records the time from a ping to its pong in microseconds.
    pub(crate) fn set_rtt(&self, micros: NonZeroU32) {
        self.rtt_micros.store(micros.get(), Ordering::Relaxed);
    }

    /// Refuses sends from now on. Queued packets stay.
    pub(crate) fn refuse_sends(&self) {
        self.state.lock().closing.get_or_insert(Close::Graceful);
    }

    /// Moves the session from polling to `transport`.
    pub(crate) fn switch_to(&self, transport: Transport) {
        let mut state = self.state.lock();
        self.transport.store(transport as u8, Ordering::Relaxed);
        state.poll_waiting = false;
        state.count_waiting(false);
    }

    /// Records that the wire is blocked and holds back `held`, or (`None`) that everything is written again.
    pub(crate) fn set_blocked(&self, held: Option<Backlog>) {
        let mut state = self.state.lock();
        state.held = held.map(Box::new);
        state.count_waiting(held.is_some());
        self.publish_answers(&state);
        self.wake_waiting(&mut state);
    }

    /// Ends the queue: refuses sends and drops everything that waits.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        state.closing.get_or_insert(Close::Now);
        let dropped = (state.waker.take(), state.take_all());
        state.held = None;
        state.count_waiting(false);
        self.publish_answers(&state);
        let waiting = state.waiting_for_room.take();
        drop(state);
        drop(dropped);
        waiting.into_iter().flat_map(|waiting| *waiting).for_each(Waker::wake);
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> u32 {
        self.state.lock().waiting_bytes
    }

    /// Wakes the tasks that wait for room, if there is some.
    fn wake_waiting(&self, state: &mut State) {
        if state.waiting_for_room.is_some() && !self.is_pressed(state) {
            let waiting = state.waiting_for_room.take();
            waiting.into_iter().flat_map(|waiting| *waiting).for_each(Waker::wake);
        }
    }
}
