//! What waits in a queue, and what a connection takes of it.

use std::collections::VecDeque;
use std::task::Waker;

use smallvec::SmallVec;

use super::lanes::{Lane, Later};
use super::latest::{Latest, Slot};
use super::{Backlog, Queued, SendError};
use crate::engine::{Close, Frame, metrics};

/// The packets of a queue, and what their senders need to know.
#[derive(Default)]
pub(super) struct State {
    pub(super) frames: VecDeque<Frame>,
    /// The packets of lanes that wait behind `frames`; `None` for clients that keep up.
    pub(super) later: Option<Box<Later>>,
    /// The packets in `frames` and `later`.
    pub(super) queued: Backlog,
    /// The packets in `frames` that can be replaced; `None` for clients that keep up.
    pub(super) latest: Option<Box<Latest>>,
    /// The packets that the connection has taken, but a blocked wire holds back; `None` while nothing blocks.
    pub(super) held: Option<Box<Backlog>>,
    /// The number of bytes that wait for the client, as counted in the metrics.
    pub(super) waiting_bytes: u32,
    pub(super) waker: Option<Waker>,
    pub(super) closing: Option<Close>,
    pub(super) slow: bool,
    /// Whether a polling request waits with nothing to carry.
    pub(super) poll_waiting: bool,
    /// The tasks to wake when there is room again; usually none.
    #[allow(clippy::box_collection, reason = "one pointer in every connection, not three")]
    pub(super) waiting_for_room: Option<Box<Vec<Waker>>>,
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

impl State {
    pub(super) fn push(&mut self, frame: Frame) {
        self.queued.add(&frame, frame.len());
        self.frames.push_back(frame);
    }

    pub(super) fn take(&mut self, take: Take) -> VecDeque<Frame> {
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
        while taken.len() < packets
            && let Some(frame) = self.front()
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
    pub(super) fn front(&mut self) -> Option<&Frame> {
        if self.frames.is_empty() {
            self.frames.extend(self.later.as_mut().and_then(|later| later.pop())?);
        }
        self.frames.front()
    }

    pub(super) fn take_all(&mut self) -> VecDeque<Frame> {
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
    pub(super) fn push_in(
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

    /// Queues a packet that can be dropped, behind all that cannot, if `waits` or an earlier one does.
    pub(super) fn push_droppable(&mut self, waits: bool, frames: impl IntoIterator<Item = Frame>) {
        let joins = self.later.as_ref().is_some_and(|later| later.has_droppable());
        if !(waits || joins) {
            return frames.into_iter().for_each(|frame| self.push(frame));
        }
        let frames: SmallVec<[Frame; 1]> = frames.into_iter().collect();
        frames.iter().for_each(|frame| self.queued.add(frame, frame.len()));
        self.later.get_or_insert_default().push_droppable(frames);
    }

    /// Drops the packet that has waited the longest among those that can be dropped. Returns whether there was one.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let Some(packet) = self.later.as_mut().and_then(|later| later.pop_droppable()) else { return false };
        packet.iter().for_each(|frame| self.queued.remove(frame));
        true
    }

    /// Queues a packet that can be replaced.
    pub(super) fn push_latest(&mut self, frames: &[Frame], slot: Slot) {
        self.latest.get_or_insert_default().add(slot, self.frames.len(), frames.len());
        frames.iter().for_each(|frame| self.push(frame.clone()));
    }

    /// Removes the packet of a slot, if there is one.
    pub(super) fn make_way(&mut self, slot: Slot) {
        let Some(place) = self.latest.as_mut().and_then(|latest| latest.remove(slot)) else { return };
        for frame in self.frames.drain(place) {
            self.queued.remove(&frame);
        }
        metrics::OUTBOX_REPLACED.increment();
    }

    /// Removes the packet of a slot from those that are of no use later, if there is one.
    pub(super) fn make_way_later(&mut self, slot: Slot) {
        let Some(packet) = self.later.as_mut().and_then(|later| later.remove(slot)) else { return };
        packet.iter().for_each(|frame| self.queued.remove(frame));
        metrics::OUTBOX_REPLACED.increment();
    }

    pub(super) fn pushes(&self) -> Queued {
        self.queued.pushes + self.held().pushes
    }

    pub(super) fn total(&self) -> Queued {
        self.queued.total() + self.held().total()
    }

    pub(super) fn held(&self) -> Backlog {
        self.held.as_deref().copied().unwrap_or_default()
    }

    pub(super) fn refusal(&self) -> Option<SendError> {
        self.closing.map(|_| if self.slow { SendError::Slow } else { SendError::Closed })
    }

    /// Updates the metrics. If `waits`, everything queued waits for the client, because its wire is blocked
    /// or it does not poll; otherwise nothing waits. Never called on the path of a client that keeps up.
    pub(super) fn count_waiting(&mut self, waits: bool) {
        let bytes = if waits { self.total().bytes } else { 0 };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.waiting_bytes, bytes);
        if before != bytes {
            metrics::OUTBOX_WAITING_BYTES.add(i64::from(bytes) - i64::from(before));
            metrics::OUTBOX_WAITING_SESSIONS.add(i64::from(bytes > 0) - i64::from(before > 0));
        }
    }
}
