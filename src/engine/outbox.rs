//! What a connection still has to send: filled by anybody, drained by the connection.
//!
//! A push is one short lock and at most one wake. The connection takes everything that is due with one
//! lock per turn and writes it in one go; a sender never touches the wire. At rest the queue owns no memory.
//!
//! Bounds and policy: see [`OutboxLimits`]. Whoever reads too slowly is closed with `CloseReason::Slow`;
//! nobody ever waits.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use crate::engine::deflate::Threshold;
use crate::engine::metrics;
use crate::engine::polling::Inbox;
use crate::engine::{Close, Frame, Protocol, Transport};

/// Bounds of an outgoing queue. A message is accepted when the queue was below the bound before it, so one
/// message may be larger than what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Packets queued at most, always.
    pub packets_max: usize,
    /// Bytes queued at most, always, on a WebSocket or WebTransport stream.
    pub bytes_max: usize,
    /// Packets queued at most while the WebSocket or stream takes nothing more.
    pub blocked_packets_max: usize,
    /// Bytes queued at most while the WebSocket or stream takes nothing more.
    pub blocked_bytes_max: usize,
    /// Bytes queued at most for a polling client.
    pub polling_bytes_max: usize,
    /// Above this many packets a sender is told about the pressure.
    pub pressure_packets: usize,
    /// Above this many bytes too.
    pub pressure_bytes: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            packets_max: 4096,
            bytes_max: 16 << 20,
            blocked_packets_max: 256,
            blocked_bytes_max: 1 << 20,
            polling_bytes_max: 1 << 20,
            pressure_packets: 128,
            pressure_bytes: 256 << 10,
        }
    }
}

/// Sending half of a connection: clone it freely, push from anywhere.
#[derive(Clone)]
pub struct Outbox(pub(crate) Arc<Shared>);

/// True: this receiver's queue is past its soft mark, and the sending task should end its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure(pub bool);

/// What waits in an outgoing queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Engine.IO packets; an attachment counts as one.
    pub packets: usize,
    /// Their bytes, WebSocket headers included.
    pub bytes: usize,
}

/// Why nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is closed, or closing.
    #[error("connection closed")]
    Closed,
    /// The queue was full; the connection is being closed as a slow consumer.
    #[error("slow consumer")]
    Slow,
}

impl Outbox {
    /// Queues one message.
    ///
    /// # Errors
    /// [`SendError::Closed`] after a close, [`SendError::Slow`] when the queue is full, which closes it.
    pub fn send(&self, frame: Frame) -> Result<Pressure, SendError> {
        let frame = if self.0.compresses(&frame) { frame.deflated() } else { frame };
        let mut queue = self.0.queue.lock();
        self.0.admit(&mut queue)?;
        queue.push(frame);
        Ok(self.0.pushed(queue))
    }

    /// Queues messages that stay adjacent on the wire (a binary event and its attachments): all or none.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn send_all(&self, frames: &[Frame]) -> Result<Pressure, SendError> {
        let frames = &*self.for_wire(frames);
        let mut queue = self.0.queue.lock();
        self.0.admit(&mut queue)?;
        queue.frames.reserve(frames.len());
        frames.iter().for_each(|frame| queue.push(frame.clone()));
        Ok(self.0.pushed(queue))
    }

    /// Queues the messages only if the wire can take them now: a WebSocket that is not blocked, or a polling
    /// request that waits with nothing to carry. Says whether they were queued.
    pub fn send_volatile(&self, frames: &[Frame]) -> bool {
        let frames = &*self.for_wire(frames);
        let mut queue = self.0.queue.lock();
        let ready = match self.0.transport() {
            Transport::WebSocket | Transport::WebTransport => !queue.blocked,
            Transport::Polling => queue.poll_waiting && queue.frames.is_empty(),
        };
        if !ready || self.0.admit(&mut queue).is_err() {
            metrics::VOLATILE_DROPPED.increment();
            return false;
        }
        frames.iter().for_each(|frame| queue.push(frame.clone()));
        self.0.pushed(queue);
        true
    }

    /// Whether the wire wants one of these messages compressed: permessage-deflate was negotiated, and it is large.
    pub(crate) fn compresses(&self, frames: &[Frame]) -> bool {
        frames.iter().any(|frame| self.0.compresses(frame))
    }

    /// The messages as that wire carries them, which is how sending makes them by itself: to do it once for many.
    pub(crate) fn compressed<'a>(&self, frames: &'a [Frame]) -> impl Iterator<Item = Frame> + use<'a, '_> {
        frames.iter().map(|frame| if self.0.compresses(frame) { frame.deflated() } else { frame.clone() })
    }

    fn for_wire<'a>(&self, frames: &'a [Frame]) -> Cow<'a, [Frame]> {
        match self.compresses(frames) {
            true => Cow::Owned(self.compressed(frames).collect()),
            false => Cow::Borrowed(frames),
        }
    }

    /// As if permessage-deflate had been negotiated.
    #[cfg(test)]
    pub(crate) fn compressing(self, threshold: usize) -> Self {
        self.0.compress_from(Threshold::bytes(threshold));
        self
    }

    /// Closes the connection; nothing can be queued any more. Repeating it changes nothing, except that
    /// [`Close::Now`] cuts a graceful close short.
    pub fn close(&self, close: Close) {
        let mut queue = self.0.queue.lock();
        match queue.closing {
            None => queue.closing = Some(close),
            Some(_) if close == Close::Now => queue.closing = Some(close),
            Some(_) => return,
        }
        self.0.wake(queue);
    }

    /// Asks whoever holds the connection to take leave of the client in its own words, and then to close.
    pub(crate) fn ask_farewell(&self) {
        self.0.farewell.store(true, Ordering::Release);
        self.0.wake(self.0.queue.lock());
    }

    /// Whether [`Outbox::ask_farewell`] was called.
    pub(crate) fn farewell_asked(&self) -> bool {
        self.0.farewell.load(Ordering::Acquire)
    }

    /// Whether a close was asked for or has happened.
    pub fn is_closed(&self) -> bool {
        self.0.queue.lock().closing.is_some()
    }

    /// What waits to be written, the part included that a blocked wire holds back.
    pub fn queued(&self) -> Queued {
        let queue = self.0.queue.lock();
        Queued {
            packets: queue.frames.len() + queue.backlog.packets,
            bytes: queue.bytes + queue.backlog.bytes,
        }
    }

    /// Waits until the queue is no longer past its soft mark ([`OutboxLimits::pressure_packets`] and
    /// [`OutboxLimits::pressure_bytes`]).
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Slow`] once nothing can be queued any more.
    pub async fn drained(&self) -> Result<(), SendError> {
        std::future::poll_fn(|cx| self.poll_drained(cx)).await
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut queue = self.0.queue.lock();
        if queue.closing.is_some() {
            return Poll::Ready(Err(if queue.slow { SendError::Slow } else { SendError::Closed }));
        }
        if !self.0.is_pressed(&queue) {
            return Poll::Ready(Ok(()));
        }
        let waiting = queue.waiting_for_room.get_or_insert_default();
        if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The transport that carries the connection now.
    pub fn transport(&self) -> Transport {
        self.0.transport()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.0.queue.lock();
        formatter
            .debug_struct("Outbox")
            .field("packets", &queue.frames.len())
            .field("bytes", &queue.bytes)
            .finish()
    }
}

/// The one allocation that a connection shares with its senders and, on polling, with the HTTP handlers.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    /// The connection has been woken, or runs: it will look at the queue before it sleeps, no wake needed.
    scheduled: AtomicBool,
    /// The holder should end the connection, in its own words.
    farewell: AtomicBool,
    transport: AtomicU8,
    /// From how many bytes on the wire wants messages compressed.
    threshold: AtomicU32,
    pub(crate) protocol: Protocol,
    limits: Arc<OutboxLimits>,
}

/// Guarded state of a connection that others touch.
#[derive(Default)]
pub(crate) struct Queue {
    frames: VecDeque<Frame>,
    /// Bytes in `frames`.
    bytes: usize,
    /// Taken by the connection but not yet on the wire; counted while the wire is blocked.
    backlog: Backlog,
    /// Bytes that wait for the client, as the metrics have them.
    waiting_bytes: u32,
    waker: Option<Waker>,
    closing: Option<Close>,
    slow: bool,
    blocked: bool,
    poll_waiting: bool,
    /// Who asked to be woken when there is room again. Nobody, as a rule.
    #[allow(clippy::box_collection, reason = "one pointer in every connection, not three")]
    waiting_for_room: Option<Box<Vec<Waker>>>,
    /// Where HTTP requests of a polling session arrive.
    pub(crate) inbox: Option<Box<Inbox>>,
}

/// Size of what a connection holds back because its wire is blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) packets: usize,
    pub(crate) bytes: usize,
}

/// What a connection learns when it looks at its queue.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) frames: VecDeque<Frame>,
    pub(crate) closing: Option<Close>,
    pub(crate) slow: bool,
    /// The task that polls is another one than last time.
    pub(crate) moved: bool,
    /// HTTP requests have arrived since the connection last looked.
    pub(crate) requests: bool,
}

impl Queue {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Keeps the metrics true: what is queued waits for the client (its wire takes nothing, or it does not poll), or
    /// nothing does. Never on the way of a client that keeps up.
    fn count_waiting(&mut self, waits: bool) {
        let bytes = if waits { self.bytes + self.backlog.bytes } else { 0 };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.waiting_bytes, bytes);
        if before != bytes {
            metrics::OUTBOX_WAITING_BYTES.add(i64::from(bytes) - i64::from(before));
            metrics::OUTBOX_WAITING_SESSIONS.add(i64::from(bytes > 0) - i64::from(before > 0));
        }
    }
}

impl Shared {
    pub(crate) fn new(transport: Transport, limits: Arc<OutboxLimits>, inbox: Option<Box<Inbox>>) -> Self {
        Self {
            queue: Mutex::new(Queue { inbox, ..Queue::default() }),
            scheduled: AtomicBool::new(true),
            farewell: AtomicBool::new(false),
            transport: AtomicU8::new(transport as u8),
            threshold: AtomicU32::new(Threshold::NEVER.get()),
            protocol: Protocol::V4,
            limits,
        }
    }

    /// For a client of this version.
    pub(crate) fn speaking(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    pub(crate) fn transport(&self) -> Transport {
        Transport::from_repr(self.transport.load(Ordering::Relaxed))
    }

    /// The wire takes compressed messages. It is the last one that the session has, so none can go astray.
    pub(crate) fn compress_from(&self, threshold: Threshold) {
        self.threshold.store(threshold.get(), Ordering::Relaxed);
    }

    fn compresses(&self, frame: &Frame) -> bool {
        let threshold = self.threshold.load(Ordering::Relaxed);
        threshold != Threshold::NEVER.get()
            && frame.is_compressible()
            && frame.payload().len() >= threshold as usize
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Called by the connection when it starts to run.
    pub(crate) fn enter(&self) {
        self.scheduled.store(true, Ordering::Relaxed);
    }

    /// Called by the connection before it sleeps: what is queued (if it can `take` it), and from now on a
    /// push wakes it again.
    pub(crate) fn take_and_arm(&self, waker: &Waker, take: bool, poll_waiting: bool) -> Taken {
        let mut queue = self.queue.lock();
        self.scheduled.store(false, Ordering::Relaxed);
        let moved = !queue.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        if moved {
            queue.waker = Some(waker.clone());
        }
        let frames = if take { std::mem::take(&mut queue.frames) } else { VecDeque::new() };
        if take {
            queue.bytes = 0;
        }
        queue.poll_waiting = poll_waiting && frames.is_empty();
        let requests = queue.inbox.as_ref().is_some_and(|inbox| inbox.has_news());
        if queue.inbox.is_some() {
            queue.count_waiting(!take);
        }
        self.tell_room(&mut queue);
        Taken { frames, closing: queue.closing, slow: queue.slow, moved, requests }
    }

    /// Nothing is accepted any more, but HTTP requests still arrive.
    pub(crate) fn refuse_sends(&self) {
        self.queue.lock().closing.get_or_insert(Close::Graceful);
    }

    /// The session leaves polling: requests that arrive from now on are refused.
    pub(crate) fn switch_to(&self, transport: Transport) {
        let mut queue = self.queue.lock();
        self.transport.store(transport as u8, Ordering::Relaxed);
        queue.poll_waiting = false;
        queue.count_waiting(false);
        let inbox = queue.inbox.take();
        drop(queue);
        drop(inbox);
    }

    /// The wire takes nothing more and `backlog` is held back, or (`None`) everything is out again.
    pub(crate) fn set_blocked(&self, backlog: Option<Backlog>) {
        let mut queue = self.queue.lock();
        queue.blocked = backlog.is_some();
        queue.backlog = backlog.unwrap_or_default();
        queue.count_waiting(backlog.is_some());
        self.tell_room(&mut queue);
    }

    /// The connection is gone: nothing is accepted any more and everything that waits is dropped.
    pub(crate) fn finish(&self) {
        let mut queue = self.queue.lock();
        queue.closing.get_or_insert(Close::Now);
        queue.bytes = 0;
        queue.count_waiting(false);
        let dropped = (queue.waker.take(), std::mem::take(&mut queue.frames), queue.inbox.take());
        let waiting = queue.waiting_for_room.take();
        drop(queue);
        drop(dropped);
        waiting.into_iter().flat_map(|waiting| *waiting).for_each(Waker::wake);
    }

    /// Releases the lock, then wakes the connection unless it is awake.
    pub(crate) fn wake(&self, queue: MutexGuard<'_, Queue>) {
        if self.scheduled.swap(true, Ordering::Relaxed) {
            return;
        }
        let waker = queue.waker.clone();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn admit(&self, queue: &mut Queue) -> Result<(), SendError> {
        if queue.closing.is_some() {
            return Err(if queue.slow { SendError::Slow } else { SendError::Closed });
        }
        if !self.is_full(queue) {
            return Ok(());
        }
        queue.slow = true;
        queue.closing = Some(Close::Now);
        queue.frames = VecDeque::new();
        queue.bytes = 0;
        if !self.scheduled.swap(true, Ordering::Relaxed)
            && let Some(waker) = &queue.waker
        {
            waker.wake_by_ref();
        }
        Err(SendError::Slow)
    }

    fn is_full(&self, queue: &Queue) -> bool {
        let limits = &*self.limits;
        let packets = queue.frames.len() + queue.backlog.packets;
        let bytes = queue.bytes + queue.backlog.bytes;
        let (packets_max, bytes_max) = match (self.transport(), queue.blocked) {
            (Transport::Polling, _) => (limits.packets_max, limits.polling_bytes_max),
            (_, true) => (limits.blocked_packets_max, limits.blocked_bytes_max),
            (_, false) => (limits.packets_max, limits.bytes_max),
        };
        packets >= packets_max || bytes >= bytes_max
    }

    fn is_pressed(&self, queue: &Queue) -> bool {
        queue.frames.len() + queue.backlog.packets > self.limits.pressure_packets
            || queue.bytes + queue.backlog.bytes > self.limits.pressure_bytes
    }

    /// Wakes those who wait for room, if there is some.
    fn tell_room(&self, queue: &mut Queue) {
        if queue.waiting_for_room.is_some() && !self.is_pressed(queue) {
            let waiting = queue.waiting_for_room.take();
            waiting.into_iter().flat_map(|waiting| *waiting).for_each(Waker::wake);
        }
    }

    fn pushed(&self, queue: MutexGuard<'_, Queue>) -> Pressure {
        let pressure = Pressure(self.is_pressed(&queue));
        self.wake(queue);
        pressure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(transport: Transport) -> Outbox {
        Outbox(Arc::new(Shared::new(transport, Arc::new(OutboxLimits::default()), None)))
    }

    fn take(outbox: &Outbox) -> Taken {
        outbox.0.take_and_arm(Waker::noop(), true, false)
    }

    #[test]
    fn messages_leave_in_the_order_they_were_sent() {
        let outbox = outbox(Transport::WebSocket);
        outbox.send(Frame::text("a")).unwrap();
        outbox.send_all(&[Frame::text("b"), Frame::binary(b"c")]).unwrap();
        let payloads: Vec<_> = take(&outbox).frames.iter().map(|frame| frame.payload().to_vec()).collect();
        assert_eq!(payloads, [b"4a".to_vec(), b"4b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn a_reader_that_stops_reading_is_closed_after_256_packets() {
        let outbox = outbox(Transport::WebSocket);
        outbox.0.set_blocked(Some(Backlog { packets: 1, bytes: 10 }));
        for _ in 0..255 {
            outbox.send(Frame::text("a")).unwrap();
        }
        assert_eq!(outbox.send(Frame::text("a")), Err(SendError::Slow));
        assert!(outbox.is_closed() && take(&outbox).slow);
    }

    #[test]
    fn a_reader_that_stops_reading_is_closed_after_a_mebibyte() {
        let outbox = outbox(Transport::WebSocket);
        outbox.0.set_blocked(Some(Backlog::default()));
        outbox.send(Frame::binary(&vec![0; 2 << 20])).unwrap();
        assert_eq!(outbox.send(Frame::text("a")), Err(SendError::Slow));
    }

    #[test]
    fn a_burst_to_a_reader_that_keeps_up_is_accepted_with_pressure() {
        let outbox = outbox(Transport::WebSocket);
        for sent in 1..=4096 {
            assert_eq!(outbox.send(Frame::text("a")), Ok(Pressure(sent > 128)));
        }
        assert_eq!(outbox.send(Frame::text("a")), Err(SendError::Slow));
    }

    #[test]
    fn a_client_that_does_not_poll_is_closed_after_a_mebibyte() {
        let outbox = outbox(Transport::Polling);
        outbox.send(Frame::binary(&vec![0; 1 << 20])).unwrap();
        assert_eq!(outbox.send(Frame::text("a")), Err(SendError::Slow));
    }

    #[test]
    fn volatile_messages_need_a_wire_that_can_take_them_now() {
        let outbox = outbox(Transport::Polling);
        assert!(!outbox.send_volatile(&[Frame::text("a")]));
        outbox.0.take_and_arm(Waker::noop(), true, true);
        assert!(outbox.send_volatile(&[Frame::text("a")]));
        assert!(!outbox.send_volatile(&[Frame::text("b")]));
    }

    #[test]
    fn whoever_waits_for_room_is_told_when_there_is_some_or_none_will_be() {
        let outbox = outbox(Transport::WebSocket);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_drained(&mut cx), Poll::Ready(Ok(())));
        (0..129).for_each(|_| assert!(outbox.send(Frame::text("a")).is_ok()));
        assert_eq!((outbox.queued().packets, outbox.poll_drained(&mut cx)), (129, Poll::Pending));
        outbox.0.set_blocked(Some(Backlog { packets: take(&outbox).frames.len(), bytes: 0 }));
        assert_eq!(outbox.poll_drained(&mut cx), Poll::Pending);
        outbox.0.set_blocked(Some(Backlog { packets: 128, bytes: 0 }));
        assert_eq!(outbox.poll_drained(&mut cx), Poll::Ready(Ok(())));
        assert!(outbox.0.lock().waiting_for_room.is_none());
        outbox.close(Close::Now);
        assert_eq!(outbox.poll_drained(&mut cx), Poll::Ready(Err(SendError::Closed)));
    }

    #[test]
    fn a_few_large_messages_are_pressure_too() {
        let outbox = outbox(Transport::WebSocket);
        let large = Frame::binary(&vec![0; 100 << 10]);
        let pressure = [(); 3].map(|()| outbox.send(large.clone()).unwrap().0);
        assert_eq!(pressure, [false, false, true]);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_drained(&mut cx), Poll::Pending);
        outbox.0.set_blocked(Some(Backlog { packets: 3, bytes: 3 * large.len() }));
        take(&outbox);
        assert_eq!(outbox.poll_drained(&mut cx), Poll::Pending, "the wire holds them back");
        outbox.0.set_blocked(None);
        assert_eq!(outbox.poll_drained(&mut cx), Poll::Ready(Ok(())));
    }

    #[test]
    fn what_waits_for_slow_clients_is_counted_until_it_is_out_or_they_are_gone() {
        let (websocket, polling) = (outbox(Transport::WebSocket), outbox(Transport::Polling));
        let waiting = || [&websocket, &polling].map(|outbox| outbox.0.lock().waiting_bytes);
        polling.0.lock().inbox = Some(Box::default());
        websocket.send(Frame::text("123")).unwrap();
        assert_eq!(waiting(), [0, 0], "it is about to be written");
        websocket.0.set_blocked(Some(Backlog { packets: 1, bytes: 100 }));
        polling.send(Frame::text("1234")).unwrap();
        polling.0.take_and_arm(Waker::noop(), false, false);
        assert_eq!(waiting(), [106, 7]);
        assert!(metrics::OUTBOX_WAITING_SESSIONS.get() >= 2 && metrics::OUTBOX_WAITING_BYTES.get() >= 113);
        let dropped = metrics::VOLATILE_DROPPED.get();
        assert!(!websocket.send_volatile(&[Frame::text("a")]) && !polling.send_volatile(&[Frame::text("a")]));
        assert!(metrics::VOLATILE_DROPPED.get() >= dropped + 2);
        polling.0.take_and_arm(Waker::noop(), true, false);
        assert_eq!(waiting(), [106, 0]);
        websocket.0.finish();
        assert_eq!(waiting(), [0, 0]);
    }

    #[test]
    fn large_messages_leave_compressed_where_that_was_negotiated() {
        let large = || Frame::text(&"x".repeat(1_023));
        let rows = [
            (large(), true),
            (Frame::text(&"x".repeat(1_022)), false),
            (large().uncompressed(), false),
            (Frame::binary(&[7; 1_024]), true),
        ];
        let outbox = outbox(Transport::WebSocket).compressing(1_024);
        let compressed = |frames: VecDeque<Frame>| frames.iter().all(|frame| frame.wire()[0] & 0x40 != 0);
        for (frame, expected) in rows {
            outbox.send(frame.clone()).unwrap();
            assert_eq!(compressed(take(&outbox).frames), expected);
            outbox.send_all(std::slice::from_ref(&frame)).unwrap();
            assert_eq!(compressed(take(&outbox).frames), expected);
            assert!(outbox.send_volatile(&[frame]));
            assert!(outbox.queued().bytes < 1_040 && compressed(take(&outbox).frames) == expected);
        }
        let plain = super::tests::outbox(Transport::WebSocket);
        plain.send(large()).unwrap();
        assert!(!compressed(take(&plain).frames));
    }

    #[test]
    fn nothing_is_accepted_after_a_close() {
        let outbox = outbox(Transport::WebSocket);
        outbox.send(Frame::text("a")).unwrap();
        outbox.close(Close::Graceful);
        outbox.close(Close::Shutdown);
        assert_eq!(outbox.send(Frame::text("b")), Err(SendError::Closed));
        let taken = take(&outbox);
        assert_eq!((taken.frames.len(), taken.closing), (1, Some(Close::Graceful)));
        outbox.close(Close::Now);
        assert_eq!(take(&outbox).closing, Some(Close::Now));
    }
}
