//! The carrier of a session on HTTP long-polling.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::flushed::Flushed;
use crate::engine::duplex::Duplex;
use crate::engine::outbox::{Drained, Take};
use crate::engine::polling::{GetReply, Inbox, Payload, PostReply};
use crate::engine::session::{Session, Wire};
use crate::engine::{CloseReason, Config, Frame, frame};

/// The carrier of a session whose packets travel in HTTP requests.
pub(super) struct PollingCarrier {
    pub(super) inbox: Arc<Inbox>,
    /// The pings and pongs that the session itself sends.
    pub(super) own: VecDeque<Frame>,
    pub(super) get: Option<GetReply>,
    pub(super) post: Option<PostReply>,
    /// The wire that wants to take over.
    pub(super) candidate: Option<Box<Duplex>>,
    /// A refused candidate that is still being closed. There is at most one; the next one replaces it.
    leaving: Option<Box<Duplex>>,
    /// The size of the last response in bytes, until the next GET arrives.
    unread: usize,
    inbound_max: u32,
    payload_max: usize,
}

impl PollingCarrier {
    pub(super) fn new(inbox: Arc<Inbox>, config: &Config) -> Self {
        Self {
            inbox,
            own: VecDeque::new(),
            get: None,
            post: None,
            candidate: None,
            leaving: None,
            unread: 0,
            inbound_max: u32::try_from(config.inbound_messages_max).unwrap_or(u32::MAX),
            payload_max: config.max_payload,
        }
    }

    pub(super) fn ping(&mut self) {
        self.own.push_back(frame::PING);
    }

    pub(super) fn pong(&mut self) {
        self.own.push_back(frame::PONG);
    }

    pub(super) fn capacity(&self, session: &Session) -> (Take, bool) {
        if self.get.is_none() {
            return (Take::Nothing, false);
        }
        let packets = PAYLOAD_PACKETS_MAX.saturating_sub(self.own.len());
        let idle = self.own.is_empty() && !session.is_poll_released();
        (Take::UpTo { packets, bytes: self.payload_max }, idle)
    }

    pub(super) fn flush(
        &mut self,
        drained: Drained,
        session: &mut Session,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Flushed {
        if self.inbox.has_news() {
            // It arrived during this turn, so nothing else wakes the task.
            cx.waker().wake_by_ref();
        }
        if !self.is_over_bound(session) {
            self.answer_post();
        }
        self.own.extend(drained.frames);
        if self.get.is_some() && !self.own.is_empty() && session.handle_payload(now) {
            self.push_candidate(frame::PONG_PROBE);
        }
        self.flush_wires(session, cx);
        if self.get.is_none() {
            return Flushed::Partly;
        }
        let ends = session.is_closing() && !session.is_upgrading();
        if !self.own.is_empty() {
            let frames = std::mem::take(&mut self.own);
            self.answer_get(&frames, session, now);
        } else if ends {
            // Sent in a response of its own, because a client handles a close before the other packets.
            self.answer_get([&frame::CLOSE], session, now);
            return Flushed::All;
        } else if session.is_poll_released() && !self.inbox.is_posting() {
            self.answer_get([&frame::NOOP], session, now);
        }
        Flushed::Partly
    }

    /// Whether a POST waits for its `ok`, because too many earlier messages have not been taken yet.
    pub(super) fn is_withholding(&self, session: &Session) -> bool {
        self.post.is_some() && self.is_over_bound(session)
    }

    fn is_over_bound(&self, session: &Session) -> bool {
        session.queued_messages() > self.inbound_max as usize
            || session.queued_message_bytes() > self.payload_max.saturating_mul(INBOUND_PAYLOADS_MAX)
    }

    pub(super) fn close(&mut self, reason: CloseReason) -> Option<Duration> {
        let by_client = reason == CloseReason::TransportClose;
        if by_client && self.get.is_none() {
            // The client closes by POST and by GET at once, and they may arrive in any order.
            self.answer_post();
            return Some(LAST_GET);
        }
        self.answer_last(if by_client { frame::NOOP } else { frame::CLOSE });
        self.answer_post();
        None
    }

    pub(super) fn finish(&mut self) {
        self.inbox.close();
    }

    /// Queues a frame for the candidate, if there is one.
    pub(super) fn push_candidate(&mut self, frame: Frame) {
        if let Some(candidate) = &mut self.candidate {
            candidate.push(frame);
        }
    }

    fn flush_wires(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        if self.leaving.as_mut().is_some_and(|wire| wire.poll_end(cx).is_ready()) {
            self.leaving = None;
        }
        let Some(candidate) = &mut self.candidate else { return };
        if let Poll::Ready(Err(end)) = candidate.poll_flush(cx) {
            session.handle_lost(Wire::Candidate, end.reason());
        }
    }

    /// Records that the client polls again, so it has read what it was sent.
    pub(super) fn handle_get(&mut self, session: &mut Session, now: Instant) {
        if std::mem::take(&mut self.unread) >= LARGE_PAYLOAD {
            session.handle_progress(now);
        }
    }

    /// Answers the waiting GET, if there is one.
    fn answer_get<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a Frame, IntoIter: Clone>,
        session: &mut Session,
        now: Instant,
    ) {
        let Some(get) = self.get.take() else { return };
        let payload = Payload::new(self.inbox.protocol(), frames);
        self.unread = payload.body.len();
        if self.unread >= LARGE_PAYLOAD {
            session.handle_progress(now + reading_time(self.unread));
        }
        self.inbox.free_get();
        // The guard of a request detects a client that disconnected.
        let _ = get.send(payload);
    }

    /// Answers the waiting GET, if there is one, for the last time.
    pub(super) fn answer_last(&mut self, frame: Frame) {
        let Some(get) = self.get.take() else { return };
        self.inbox.free_get();
        // A client that disconnected needs no response.
        let _ = get.send(Payload::new(self.inbox.protocol(), [&frame]));
    }

    /// Answers the waiting POST, if there is one.
    pub(super) fn answer_post(&mut self) {
        let Some(post) = self.post.take() else { return };
        self.inbox.free_post();
        // The guard of a request detects a client that disconnected.
        let _ = post.send(());
    }

    /// Refuses the candidate, if there still is one, and closes it with `content`.
    pub(super) fn refuse_candidate(&mut self, content: &[u8], cx: &mut Context<'_>) {
        let Some(mut wire) = self.candidate.take() else { return };
        wire.push_close(content);
        self.leaving = wire.poll_end(cx).is_pending().then_some(wire);
    }
}

/// Returns the time that a client on the slowest supported line takes to read `bytes` bytes.
fn reading_time(bytes: usize) -> Duration {
    Duration::from_secs(bytes as u64 / LINE_BYTES_PER_SECOND_MIN)
}

/// The maximum number of packets in one response. The stock Python client fails on more.
const PAYLOAD_PACKETS_MAX: usize = 16;
/// The number of payloads of `max_payload` bytes whose messages may wait for the holder before the `ok` of a
/// POST is withheld. It is two for clients that send twice before they poll.
const INBOUND_PAYLOADS_MAX: usize = 2;
/// The size from which reading a response is assumed to take time.
const LARGE_PAYLOAD: usize = 64 << 10;
/// The slowest line on which the heartbeat gives a client time to read a large response.
const LINE_BYTES_PER_SECOND_MIN: u64 = 32 << 10;
/// The time within which a GET may follow the POST that closed the session.
const LAST_GET: Duration = Duration::from_millis(100);
