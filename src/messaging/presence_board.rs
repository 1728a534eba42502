//! The presence of users, as this node sees it, and the event `presence:update` for those who watch them.
//!
//! Each node aggregates its own devices and tells only its own sockets. A cluster fills in the rest by reporting the
//! aggregate of each node to the others as one more source.

mod aggregate;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::push::Push;
use super::session::Session;
use crate::ImksResult;
use crate::clock::{self, Micros};
use crate::models::Db;
use crate::models::user_presence::{self, StoredChoice};
use crate::socket::{Namespace, Socket};
pub(super) use aggregate::{ACTIVE_LEASE, Choice, Presence, Status};
use aggregate::{Now, Presences};

/// Sent to those who watch a user when what they see of them changes.
const UPDATE: Push<Presence> = Push::new("presence:update");
/// The presence of all users, as this node sees it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<Mutex<Presences>>);

/// What a client said and a user chose before a connection; attached to the socket until it has joined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Whether the device starts idle.
    idle: bool,
    stored: Option<StoredChoice>,
}

impl Arrival {
    /// Reads what the user chose, unless this node knows it.
    pub(super) async fn new(board: &Board, db: &Db, user: Uuid, idle: bool) -> ImksResult<Self> {
        let is_known = board.0.lock().is_known(user);
        let stored = match is_known {
            true => None,
            false => user_presence::get(db, user).await?,
        };
        Ok(Self { idle, stored })
    }
}

impl Board {
    /// Notes that a socket has joined.
    pub(super) fn joined(&self, socket: &Socket) {
        let Some(session) = socket.data::<Session>() else { return };
        let (user, now) = (session.identity().user_id, now());
        let arrival = socket.data::<Arrival>();
        let told = {
            let mut all = self.0.lock();
            let shown = all.shown(user);
            if let Some(StoredChoice { choice, until }) = arrival.as_ref().and_then(|it| it.stored) {
                all.choose(user, from_stored(choice), until.map(|until| at(until, now)), now);
            }
            match arrival.is_some_and(|it| it.idle) {
                true => all.idle(user, socket.id(), now),
                false => all.active(user, socket.id(), now),
            };
            Some(all.shown(user)).filter(|after| after.status != shown.status)
        };
        tell(socket.namespace(), told);
    }

    /// Notes that a socket has left.
    pub(super) fn left(&self, socket: &Socket) {
        let Some(session) = socket.data::<Session>() else { return };
        let told = self.0.lock().gone(session.identity().user_id, socket.id(), now());
        tell(socket.namespace(), told);
    }

    pub(super) fn active(&self, socket: &Socket, user: Uuid) {
        // A socket that has left would be shown for ever.
        if !socket.is_connected() {
            return;
        }
        let told = self.0.lock().active(user, socket.id(), now());
        tell(socket.namespace(), told);
    }

    pub(super) fn choose(&self, namespace: &Namespace, user: Uuid, choice: Choice, until: Option<Micros>) {
        let now = now();
        let told = self.0.lock().choose(user, choice, until.map(|until| at(until, now)), now);
        tell(namespace, told);
    }

    pub(super) fn shown(&self, users: &[Uuid]) -> Vec<Presence> {
        let all = self.0.lock();
        users.iter().map(|user| all.shown(*user)).collect()
    }

    /// Tells what changes with time (idle devices, ended grace periods and choices), until `stop`.
    pub(super) async fn run(self, namespace: Namespace, stop: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let due = self.0.lock().due(now());
            tell(&namespace, due);
        }
    }
}

fn tell(namespace: &Namespace, told: impl IntoIterator<Item = Presence>) {
    for presence in told {
        UPDATE.to_local_room(namespace, &room_of(presence.user_id), &presence);
    }
}

fn now() -> Now {
    Now { instant: Instant::now(), micros: clock::now_micros() }
}

/// Converts a time of the calendar to a deadline.
fn at(time: Micros, now: Now) -> Instant {
    now.instant + Duration::from_micros(u64::try_from(time - now.micros).unwrap_or(0))
}

pub(super) fn to_stored(choice: Choice) -> i32 {
    choice as i32
}

/// Returns a stored choice. One that only a newer version knows is taken for `Online`.
pub(super) fn from_stored(number: i32) -> Choice {
    [Choice::Online, Choice::Idle, Choice::Dnd, Choice::Invisible]
        .into_iter()
        .find(|choice| to_stored(*choice) == number)
        .unwrap_or(Choice::Online)
}

pub(super) fn room_of(user: Uuid) -> String {
    format!("{ROOM_PREFIX}{user}")
}

/// The start of the names of rooms of those who watch a user.
pub(super) const ROOM_PREFIX: &str = "presence:";
/// How often the server looks for what changes with time.
const TICK: Duration = Duration::from_millis(500);
