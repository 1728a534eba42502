//! The outgoing queue of one connection, in the only allocation that the connection shares with its senders.

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::lanes::Lane;
use super::latest::{Slot, VOLATILE_WAITING_MAX};
use super::state::{State, Take};
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
    /// Whether an answer to a poll may have any number of packets.
    long_payloads: AtomicBool,
    transport: AtomicU8,
    /// The size from which the wire wants messages compressed.
    threshold: AtomicU32,
    /// The last time from a ping to its pong in microseconds; 0 while it is not known.
    rtt_micros: AtomicU32,
    /// The code with which the peer or this side has closed the wire; 0 while it is open, and where there was none.
    close_code: AtomicU16,
    /// The Engine.IO version of the client.
    pub(crate) protocol: Protocol,
    limits: Arc<OutboxLimits>,
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

/// The side of the senders.
impl Queue {
    /// Creates the empty queue of a connection that starts on `transport`.
    pub(crate) fn new(transport: Transport, protocol: Protocol, limits: Arc<OutboxLimits>) -> Self {
        Self {
            state: Mutex::default(),
            answer_bytes: AtomicUsize::new(0),
            scheduled: AtomicBool::new(true),
            disconnect: AtomicBool::new(false),
            long_payloads: AtomicBool::new(false),
            transport: AtomicU8::new(transport as u8),
            threshold: AtomicU32::new(Threshold::NEVER.get()),
            rtt_micros: AtomicU32::new(0),
            close_code: AtomicU16::new(0),
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

    /// Queues a packet, and drops packets while the queue is full: those that wait the longest if `oldest`, or else this
    /// one.
    pub(super) fn push_or_drop(&self, frames: &[Frame], oldest: bool) -> Result<Pressure, SendError> {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal() {
            return Err(refusal);
        }
        if !(oldest && self.make_room(&mut state)) && self.is_full(&state) {
            metrics::OUTBOX_DROPPED.increment();
            return Ok(Pressure(true));
        }
        let waits = self.waits_for_client(&state);
        match oldest {
            true => state.push_droppable(waits, frames.iter().cloned()),
            false => frames.iter().for_each(|frame| state.push(frame.clone())),
        }
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

    /// Returns why nothing is queued any more, if that is so.
    pub(super) fn refusal(&self) -> Option<SendError> {
        self.state.lock().refusal()
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

    pub(super) fn allow_long_payloads(&self) {
        self.long_payloads.store(true, Ordering::Relaxed);
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

    /// Returns the code with which the wire was closed, if there was one.
    pub(super) fn close_code(&self) -> Option<NonZeroU16> {
        NonZeroU16::new(self.close_code.load(Ordering::Relaxed))
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
        // A packet that must not be lost is worth more than those that may be.
        if self.make_room(state) {
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

    /// Drops packets that can be dropped, the oldest first, while the queue is full. Returns whether it has room.
    fn make_room(&self, state: &mut State) -> bool {
        while self.is_full(state) {
            if !state.drop_oldest() {
                return false;
            }
            metrics::OUTBOX_DROPPED.increment();
        }
        true
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
        let take = match take {
            Take::UpTo { bytes, .. } if self.long_payloads.load(Ordering::Relaxed) => {
                Take::UpTo { packets: usize::MAX, bytes }
            }
            take => take,
        };
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

    /// Records the code with which the wire was closed.
    pub(crate) fn set_close_code(&self, code: u16) {
        self.close_code.store(code, Ordering::Relaxed);
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
