//! Tokens end while their connections live: a warning before, a word at the end, then the connection goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::push::Push;
use super::session::Session;
use crate::clock::{self, Micros};
use crate::socket::{Namespace, Socket};

/// A minute to go.
const EXPIRING: Push<Expiring> = Push::new("auth:expiring");
/// Too late; the connection ends in a few seconds.
const EXPIRED: Push<Expired> = Push::new("auth:expired");

#[derive(Debug, Serialize)]
struct Expiring {
    expires_in_ms: i64,
}

#[derive(Debug, Serialize)]
struct Expired {}

/// Which socket is to be looked at when. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Expiry(Arc<Mutex<Waiting>>);

/// When to look, and the id of the socket to look at.
type Waiting = BTreeSet<(Micros, Box<str>)>;

impl Expiry {
    /// Follows a socket until it is gone.
    pub(super) fn follow(&self, socket: &Socket, session: &Session) {
        self.look_again(socket.id().into(), session, session.expires_at() - WARNING);
    }

    /// The socket is gone.
    pub(super) fn forget(&self, socket: &Socket) {
        if let Some(session) = socket.data::<Session>() {
            self.0.lock().remove(&(session.look_at(), socket.id().into()));
        }
    }

    /// Warns and ends sessions until `stop`.
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
            // Sockets that left meanwhile are simply not found.
            let Some(socket) = namespace.socket(&id) else { continue };
            let Some(session) = socket.data::<Session>() else { continue };
            let next = match step(session.expires_at(), now) {
                Step::Later(at) => at,
                Step::Warn(expires_in_ms, at) => {
                    EXPIRING.to_socket(&socket, &Expiring { expires_in_ms });
                    at
                }
                Step::Expired(at) => {
                    EXPIRED.to_socket(&socket, &Expired {});
                    at
                }
                Step::End => {
                    socket.disconnect(true);
                    continue;
                }
            };
            self.look_again(id, &session, next);
        }
    }

    fn look_again(&self, id: Box<str>, session: &Session, at: Micros) {
        let mut waiting = self.0.lock();
        session.set_look_at(at);
        waiting.insert((at, id));
    }

    fn due(&self, now: Micros) -> Vec<Box<str>> {
        let mut waiting = self.0.lock();
        let later = waiting.split_off(&(now + 1, "".into()));
        std::mem::replace(&mut *waiting, later).into_iter().map(|(_, id)| id).collect()
    }
}

/// What to do with a session whose token ends at a certain time.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Look again then.
    Later(Micros),
    /// Say how many milliseconds are left, and look again then.
    Warn(i64, Micros),
    /// Say so, and look again then.
    Expired(Micros),
    /// Enough.
    End,
}

fn step(expires_at: Micros, now: Micros) -> Step {
    match expires_at - now {
        left if left > WARNING => Step::Later(expires_at - WARNING),
        left if left > 0 => Step::Warn(left / 1_000, expires_at),
        left if left > -GRACE => Step::Expired(expires_at + GRACE),
        _ => Step::End,
    }
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
        assert_eq!(step(end, end - 61 * SECOND), Step::Later(end - 60 * SECOND));
        assert_eq!(step(end, end - 60 * SECOND), Step::Warn(60_000, end));
        assert_eq!(step(end, end), Step::Expired(end + 5 * SECOND));
        assert_eq!(step(end, end + 5 * SECOND), Step::End);
    }

    #[test]
    fn a_refreshed_token_is_looked_at_later() {
        let refreshed = 5_000 * SECOND;
        assert_eq!(step(refreshed, 1_000 * SECOND), Step::Later(refreshed - 60 * SECOND));
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
