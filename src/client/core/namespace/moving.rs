//! How a namespace moves to another transport: it holds back what is new, waits for what is under way, and joins again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Context, Early, Namespace, Phase, Recoverable};

/// What a namespace remembers for a move.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// Whether nothing new is sent, because the connection is about to move or is moving.
    pub(super) is_held: bool,
    /// Whether the namespace has left one transport and has not been joined on the other.
    pub(super) is_between: bool,
    /// The time until which the server may be busy with what was sent last and has no answer.
    settles_at: Option<Instant>,
    /// The events of the server that the application may still answer, and how long that is waited for.
    owed: VecDeque<(u64, Instant)>,
    /// The last time from an event to its answer.
    rtt: Duration,
}

/// What is under way in a namespace, from nothing on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::client::core) enum Rest {
    /// Nothing.
    Still,
    /// An event of the outbox, which is sent again where necessary.
    Outbox,
    /// Something that a move would lose.
    Busy,
}

impl Moving {
    pub(super) fn new(is_held: bool) -> Self {
        Self { is_held, ..Self::default() }
    }

    /// Notes that something was sent for which no answer comes.
    pub(super) fn sent(&mut self, now: Instant) {
        self.settles_at = Some(now + SETTLE + self.rtt);
    }

    /// Notes an event of the server that the application may answer.
    pub(super) fn asked(&mut self, now: Instant, id: u64) {
        if self.owed.len() == OWED_MAX {
            self.owed.pop_front();
        }
        self.owed.push_back((id, now + OWED_PATIENCE));
    }

    /// Notes that the application has answered.
    pub(super) fn answered(&mut self, now: Instant, id: u64) {
        self.owed.retain(|(owed, _)| *owed != id);
        self.sent(now);
    }

    pub(super) fn measured(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// Forgets what was under way on a transport that is gone.
    pub(super) fn lose(&mut self) {
        (self.settles_at, self.rtt) = (None, Duration::ZERO);
        self.owed = VecDeque::new();
    }

    fn is_still(&mut self, now: Instant) -> bool {
        self.owed.retain(|(_, until)| *until > now);
        self.settles_at = self.settles_at.filter(|time| *time > now);
        self.owed.is_empty() && self.settles_at.is_none()
    }
}

impl Namespace {
    /// Whether the namespace could go on elsewhere: the server has shown that it restores sessions, or a new one
    /// will do (`without_recovery`).
    pub(in crate::client::core) fn may_move(&self, without_recovery: bool) -> bool {
        let has_offset = || matches!(&self.session, Some(Recoverable { offset, .. }) if offset.is_some());
        match self.phase {
            Phase::Connected => without_recovery || has_offset(),
            Phase::Away => !self.wanted,
            _ => false,
        }
    }

    /// Returns what is under way at the time `now`.
    pub(in crate::client::core) fn rest(&mut self, now: Instant, without_recovery: bool) -> Rest {
        let is_still = self.moving.is_still(now);
        // Whoever wants to join since is served after the move.
        let may_move = self.may_move(without_recovery) || self.phase == Phase::Away;
        match is_still && may_move && !self.answers.is_any_sent() {
            true if self.outbox.is_under_way() => Rest::Outbox,
            true => Rest::Still,
            false => Rest::Busy,
        }
    }

    /// Returns the time at which what was sent last has settled.
    pub(in crate::client::core) fn settles_at(&self) -> Option<Instant> {
        self.moving.settles_at
    }

    /// Sends nothing new from now on.
    pub(in crate::client::core) fn hold(&mut self) {
        self.moving.is_held = true;
    }

    /// Sends again what waits: the connection stays where it is.
    pub(in crate::client::core) fn release(&mut self, cx: &mut Context<'_>) {
        self.moving.is_held = false;
        match self.phase {
            Phase::Connected => {
                self.flush(cx);
                self.drain(cx);
            }
            Phase::Away if self.wanted => self.authenticate(cx),
            _ => {}
        }
    }

    /// Leaves the old transport. The server keeps the session for whoever comes back for it.
    pub(in crate::client::core) fn depart(&mut self) {
        self.moving.is_between = self.phase == Phase::Connected;
        self.phase = Phase::Away;
        self.outbox.handle_lost();
        self.early = Early::default();
        self.not_before = None;
        self.moving.lose();
    }

    /// Forgets a move that a loss of the connection has ended.
    pub(in crate::client::core) fn forget_move(&mut self) {
        self.moving.is_held = false;
    }
}

/// How long a server has for an event without answer before its connection is closed, beside the time that the last
/// answer took. A handler that works longer may be cut off, as by any other close.
const SETTLE: Duration = Duration::from_millis(500);

/// How long an event of the server is taken for one that the application will answer.
const OWED_PATIENCE: Duration = Duration::from_secs(10);

/// The maximum number of events of the server whose answers a move waits for: the last ones.
const OWED_MAX: usize = 64;
