//! The ping and pong deadlines of one session, without a clock of its own. The server pings and the client
//! answers; the next ping is due one interval after the pong. In version 3 the client pings, and it has the
//! interval and the timeout together from one ping to the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::config::Timing;

/// The heartbeat of one session.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    timing: Arc<Timing>,
    state: State,
    suspended: bool,
    /// The time by which the peer has read what it was sent, if reading is known to take time.
    read_by: Instant,
    /// When the last ping was sent, until its pong has come.
    pinged_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// The next ping is due at this time.
    Idle(Instant),
    /// The client's next ping is due at this time (version 3).
    Waiting(Instant),
    /// A ping was sent, and the pong is due at this time. One other packet may extend the deadline once.
    Pinged { deadline: Instant, refreshed: bool },
}

/// The action that is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Send a ping.
    Ping,
    /// Close the session, because the peer did not answer.
    Timeout,
}

impl Heartbeat {
    pub(crate) fn new(timing: Arc<Timing>, now: Instant) -> Self {
        let state = State::Idle(now + timing.ping_interval);
        Self { timing, state, suspended: false, read_by: now, pinged_at: None }
    }

    /// Creates the heartbeat of a session whose client pings (version 3).
    pub(crate) fn passive(timing: Arc<Timing>, now: Instant) -> Self {
        let state = State::Waiting(now + timing.ping_interval + timing.ping_timeout);
        Self { state, ..Self::new(timing, now) }
    }

    /// Whether the client sends the pings.
    pub(crate) fn is_passive(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// Handles a pong, solicited or not: the next ping is due one interval from now. Returns the time since the ping, if
    /// it answers one.
    pub(crate) fn handle_pong(&mut self, now: Instant) -> Option<Duration> {
        self.state = State::Idle(now + self.timing.ping_interval);
        self.pinged_at.take().map(|pinged_at| now - pinged_at)
    }

    /// Handles any other packet. The first one after a ping restarts the wait for the pong, once, so that a
    /// peer that sends packets but never answers is still detected.
    pub(crate) fn handle_other(&mut self, now: Instant) {
        if let State::Waiting(deadline) = &mut self.state {
            *deadline = now + self.timing.ping_interval + self.timing.ping_timeout;
        }
        if let State::Pinged { deadline, refreshed: refreshed @ false } = &mut self.state {
            *deadline = (*deadline).max(now + self.timing.ping_timeout);
            *refreshed = true;
        }
    }

    /// Restarts the wait for a pong, because the ping may have been sent on a transport that was replaced.
    pub(crate) fn handle_switch(&mut self, now: Instant) {
        if let State::Pinged { deadline, .. } = &mut self.state {
            *deadline = now + self.timing.ping_timeout;
        }
        if self.is_passive() {
            self.handle_other(now);
        }
    }

    /// Handles a slow peer that accepts data again. It is alive, but cannot answer a ping before it has read,
    /// by `read_by`, what was sent earlier.
    pub(crate) fn handle_progress(&mut self, read_by: Instant) {
        self.read_by = read_by;
        match &mut self.state {
            State::Idle(_) => {}
            State::Waiting(deadline) => {
                *deadline = read_by + self.timing.ping_interval + self.timing.ping_timeout
            }
            State::Pinged { deadline, .. } => *deadline = read_by + self.timing.ping_timeout,
        }
    }

    /// Returns the time by which the peer has read what it was sent, which may have passed.
    pub(crate) fn read_by(&self) -> Instant {
        self.read_by
    }

    /// Suspends the deadlines while the holder does not read: a missing pong proves nothing. Pings continue.
    pub(crate) fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Resumes the deadlines when reading resumes: the peer has the whole timeout again for its pong.
    pub(crate) fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.suspended) {
            self.handle_switch(now);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Beat> {
        match self.state {
            State::Idle(due) if now >= due => {
                // Counted from the due time, so that timer slack does not accumulate. If the server was far
                // too busy to ping in time, its client does not lose that time.
                let sent = if now - due <= self.timing.ping_timeout / 2 { due } else { now };
                let deadline = sent.max(self.read_by) + self.timing.ping_timeout;
                self.state = State::Pinged { deadline, refreshed: false };
                self.pinged_at = Some(now);
                Some(Beat::Ping)
            }
            State::Waiting(deadline) | State::Pinged { deadline, .. }
                if now >= deadline && !self.suspended =>
            {
                Some(Beat::Timeout)
            }
            _ => None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle(due) => Some(due),
            State::Waiting(_) | State::Pinged { .. } if self.suspended => None,
            State::Waiting(deadline) | State::Pinged { deadline, .. } => Some(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Arc<Timing> {
        Arc::new(Timing {
            ping_interval: ms(300),
            ping_timeout: ms(200),
            upgrade_timeout: ms(100),
            close_timeout: ms(400),
        })
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn start() -> (Heartbeat, Instant) {
        let now = Instant::now();
        (Heartbeat::new(timing(), now), now)
    }

    #[test]
    fn the_first_ping_comes_after_the_interval_and_the_timeout_after_both() {
        let (mut heartbeat, start) = start();
        assert_eq!(heartbeat.handle_timeout(start + ms(299)), None);
        assert_eq!(heartbeat.handle_timeout(start + ms(301)), Some(Beat::Ping));
        assert_eq!(heartbeat.poll_timeout(), Some(start + ms(500)));
        assert_eq!(heartbeat.handle_timeout(start + ms(499)), None);
        assert_eq!(heartbeat.handle_timeout(start + ms(500)), Some(Beat::Timeout));
    }

    #[test]
    fn the_next_ping_comes_one_interval_after_the_pong() {
        let (mut heartbeat, start) = start();
        heartbeat.handle_timeout(start + ms(300));
        assert_eq!(heartbeat.handle_pong(start + ms(450)), Some(ms(150)));
        assert_eq!(heartbeat.poll_timeout(), Some(start + ms(750)));
        assert_eq!(heartbeat.handle_pong(start + ms(460)), None, "nobody has asked for this one");
    }

    #[test]
    fn a_peer_that_talks_but_never_answers_gains_one_timeout() {
        let (mut heartbeat, start) = start();
        heartbeat.handle_timeout(start + ms(300));
        heartbeat.handle_other(start + ms(400));
        heartbeat.handle_other(start + ms(590));
        assert_eq!(heartbeat.handle_timeout(start + ms(600)), Some(Beat::Timeout));
    }

    #[test]
    fn a_pong_that_nobody_reads_is_not_missed() {
        let (mut heartbeat, start) = start();
        heartbeat.suspend();
        assert_eq!(heartbeat.handle_timeout(start + ms(300)), Some(Beat::Ping));
        assert_eq!((heartbeat.handle_timeout(start + ms(900)), heartbeat.poll_timeout()), (None, None));
        heartbeat.resume(start + ms(1_000));
        assert_eq!(heartbeat.poll_timeout(), Some(start + ms(1_200)));
    }

    #[test]
    fn a_peer_that_takes_what_it_is_sent_is_not_dead_and_one_that_takes_nothing_more_is() {
        let (mut heartbeat, start) = start();
        heartbeat.handle_timeout(start + ms(300));
        for progress in [450, 600, 750] {
            heartbeat.handle_progress(start + ms(progress));
            assert_eq!(heartbeat.handle_timeout(start + ms(progress + 199)), None);
        }
        assert_eq!(heartbeat.handle_timeout(start + ms(950)), Some(Beat::Timeout));
    }

    #[test]
    fn a_ping_is_answered_after_what_was_sent_before_it() {
        let (mut heartbeat, start) = start();
        heartbeat.handle_progress(start + ms(1_000));
        assert_eq!(heartbeat.handle_timeout(start + ms(300)), Some(Beat::Ping));
        heartbeat.handle_other(start + ms(310));
        assert_eq!(heartbeat.poll_timeout(), Some(start + ms(1_200)));
        heartbeat.handle_progress(start + ms(700));
        assert_eq!(heartbeat.poll_timeout(), Some(start + ms(900)), "it has read faster");
        let mut passive = Heartbeat::passive(timing(), start);
        passive.handle_progress(start + ms(1_000));
        assert_eq!(passive.poll_timeout(), Some(start + ms(1_500)));
    }

    #[test]
    fn a_client_that_pings_itself_has_both_times_from_one_sign_of_life_to_the_next() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::passive(timing(), start);
        assert_eq!(heartbeat.handle_timeout(start + ms(499)), None);
        heartbeat.handle_other(start + ms(400));
        assert_eq!(
            (heartbeat.poll_timeout(), heartbeat.handle_timeout(start + ms(899))),
            (Some(start + ms(900)), None)
        );
        heartbeat.suspend();
        assert_eq!((heartbeat.handle_timeout(start + ms(900)), heartbeat.poll_timeout()), (None, None));
        heartbeat.resume(start + ms(1_000));
        assert_eq!(heartbeat.handle_timeout(start + ms(1_500)), Some(Beat::Timeout));
    }

    #[test]
    fn a_server_that_pings_late_waits_as_long_as_ever() {
        let (mut heartbeat, start) = start();
        heartbeat.handle_timeout(start + ms(450));
        assert_eq!(heartbeat.poll_timeout(), Some(start + ms(650)));
    }
}
