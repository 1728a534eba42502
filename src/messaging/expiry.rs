//! The expiry of tokens while their connections are open: a warning, a final event, then a disconnect.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::push::Push;
use super::session::Session;
use crate::clock::{self, Micros};
use crate::socket::{Namespace, Socket};

/// Sent one minute before the token expires.
pub(super) const EXPIRING: Push<Expiring> = Push::new("auth:expiring");
/// Sent when the token has expired; the connection is closed a few seconds later.
pub(super) const EXPIRED: Push<Expired> = Push::new("auth:expired");

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Expiring {
    expires_in_ms: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Expired {}

/// The sockets to check, by the time of the next check. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Expiry(Arc<Mutex<Waiting>>);

/// The time of the next check, and the id of the socket.
type Waiting = BTreeSet<(Micros, Box<str>)>;

impl Expiry {
    /// Watches a socket until [`Expiry::forget`].
    pub(super) fn follow(&self, socket: &Socket, session: &Session) {
        look_again(&mut self.0.lock(), session, socket.id().into(), session.expires_at() - WARNING);
    }

    /// Watches a socket by its new token, which may end earlier than the one before.
    pub(super) fn renewed(&self, socket: &Socket, session: &Session) {
        let mut waiting = self.0.lock();
        // A socket that does not wait is looked at right now, by its new token, or has disconnected.
        if let Some((_, id)) = waiting.take(&(session.look_at(), socket.id().into())) {
            look_again(&mut waiting, session, id, warned_at(session.expires_at(), clock::now_micros()));
        }
    }

    /// Stops watching a socket that has disconnected.
    pub(super) fn forget(&self, socket: &Socket) {
        if let Some(session) = socket.data::<Session>() {
            self.0.lock().remove(&(session.look_at(), socket.id().into()));
        }
    }

    /// Warns about and closes expired sessions until `stop`.
    pub async fn run(self, namespace: Namespace, stop: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.look(&namespace, clock::now_micros()),
            }
        }
    }

    fn look(&self, namespace: &Namespace, now: Micros) {
        for id in self.due(now) {
            // Sockets that disconnected meanwhile are not found.
            let Some(socket) = namespace.socket(&id) else { continue };
            let Some(session) = socket.data::<Session>() else { continue };
            match self.decide(id, &session, now) {
                Step::Later(_) => {}
                Step::Warn(expires_in_ms, _) => EXPIRING.to_socket(&socket, &Expiring { expires_in_ms }),
                Step::Expired(_) => EXPIRED.to_socket(&socket, &Expired {}),
                Step::End => socket.disconnect(true),
            }
        }
    }

    /// Returns the next step for a session, and records when to check it again. Both under one lock, so that a new
    /// token decides the step, or finds the socket waiting.
    fn decide(&self, id: Box<str>, session: &Session, now: Micros) -> Step {
        let mut waiting = self.0.lock();
        let step = step(session.expires_at(), session.look_at(), now);
        if let Step::Later(at) | Step::Warn(_, at) | Step::Expired(at) = step {
            look_again(&mut waiting, session, id, at);
        }
        step
    }

    fn due(&self, now: Micros) -> Vec<Box<str>> {
        let mut waiting = self.0.lock();
        let later = waiting.split_off(&(now + 1, "".into()));
        std::mem::replace(&mut *waiting, later).into_iter().map(|(_, id)| id).collect()
    }
}

fn look_again(waiting: &mut Waiting, session: &Session, id: Box<str>, at: Micros) {
    session.set_look_at(at);
    waiting.insert((at, id));
}

/// The next step for a session whose token expires at a given time.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Check again at this time.
    Later(Micros),
    /// Send how many milliseconds are left, and check again at this time.
    Warn(i64, Micros),
    /// Send that the token has expired, and check again at this time.
    Expired(Micros),
    /// Close the connection.
    End,
}

/// `due` is the time for which this check was planned, by which is known whether the client was told that its token has
/// expired: a clock that jumps, or a machine that slept, may pass the end of a token by hours.
fn step(expires_at: Micros, due: Micros, now: Micros) -> Step {
    match expires_at - now {
        left if left > WARNING => Step::Later(expires_at - WARNING),
        left if left > 0 => Step::Warn(left / 1_000, expires_at),
        _ if due < expires_at + GRACE => Step::Expired(now + GRACE),
        _ => Step::End,
    }
}

/// When to warn of the end of a new token: one that ends within a minute, after half of its time. A client that answers each
/// warning with such a token would otherwise be warned at once, again and again.
fn warned_at(expires_at: Micros, now: Micros) -> Micros {
    (expires_at - WARNING).max(now + (expires_at - now) / 2)
}

const WARNING: Micros = 60_000_000;
const GRACE: Micros = 5_000_000;
const TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn a_token_is_announced_a_minute_before_its_end_and_the_session_ends_five_seconds_after() {
        let end = 1_000 * SECOND;
        let step = |now: Micros| step(end, now, now);
        assert_eq!(step(end - 61 * SECOND), Step::Later(end - 60 * SECOND));
        assert_eq!(step(end - 60 * SECOND), Step::Warn(60_000, end));
        assert_eq!(step(end), Step::Expired(end + 5 * SECOND));
        assert_eq!(step(end + 5 * SECOND), Step::End);
    }

    #[test]
    fn who_was_not_warned_because_the_clock_jumped_has_five_seconds_for_a_new_token_too() {
        let (end, hour) = (1_000 * SECOND, 3_600 * SECOND);
        let told = Step::Expired(end + hour + 5 * SECOND);
        assert_eq!(step(end, end - 60 * SECOND, end + hour), told);
        assert_eq!(step(end, end + hour + 5 * SECOND, end + hour + 5 * SECOND), Step::End);
    }

    #[test]
    fn a_refreshed_token_is_looked_at_later() {
        let refreshed = 5_000 * SECOND;
        let (due, now) = (940 * SECOND, 1_000 * SECOND);
        assert_eq!(step(refreshed, due, now), Step::Later(refreshed - 60 * SECOND));
    }

    #[test]
    fn who_answers_a_warning_with_a_short_token_is_warned_after_half_of_its_time() {
        let now = 1_000 * SECOND;
        assert_eq!(warned_at(now + 300 * SECOND, now), now + 240 * SECOND);
        assert_eq!(warned_at(now + 60 * SECOND, now), now + 30 * SECOND);
        let half = now + 30 * SECOND;
        assert_eq!(step(now + 60 * SECOND, half, half), Step::Warn(30_000, now + 60 * SECOND));
        assert!(warned_at(now - SECOND, now) <= now, "one that is over is looked at now");
    }

    #[test]
    fn only_what_is_due_is_taken() {
        let expiry = Expiry::default();
        for (at, id) in [(5, "a"), (6, "b"), (7, "c")] {
            expiry.0.lock().insert((at, id.into()));
        }
        let due: Vec<String> = expiry.due(6).into_iter().map(Into::into).collect();
        assert_eq!(due, ["a", "b"]);
        assert_eq!(expiry.0.lock().len(), 1);
    }
}
