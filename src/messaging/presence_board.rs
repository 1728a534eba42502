//! The presence of users in the whole cluster, as this node knows it, and the event `presence:update` for those who watch
//! them.
//!
//! Each node aggregates its own devices, reports to the others what changes, and tells its own sockets what follows from all
//! reports. See docs/adr/0056.

mod aggregate;
mod exchange;
mod reports;
mod untold;
mod user;
mod wire;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::push::Push;
use super::session::Session;
use crate::ImksResult;
use crate::clock;
use crate::models::Db;
use crate::models::user_presence::{self, StoredChoice};
use crate::node::NodeId;
use crate::socket::{Namespace, Socket};
use aggregate::Presences;
use exchange::Exchange;
use untold::Untold;
use user::Moment;
pub(super) use user::{ACTIVE_LEASE, Choice, Presence, Status};

/// Sent to those who watch a user when what they see of them changes.
pub(super) const UPDATE: Push<Presence> = Push::new("presence:update");

/// The presence of all users, as this node knows it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Filled while `state` is locked, so that it is in the order of the changes.
    untold: Untold,
    /// Notified when other nodes have to be told something.
    news: Notify,
}

#[derive(Debug)]
struct State {
    all: Presences,
    /// What is exchanged with other nodes, if there can be any.
    exchange: Option<Exchange>,
}

/// What a client said and a user chose before a connection; attached to the socket until it has joined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Whether the device starts idle.
    idle: bool,
    chosen: Option<StoredChoice>,
}

impl Arrival {
    /// Reads what the user chose, unless this node knows it for sure.
    pub(super) async fn new(board: &Board, db: &Db, user: Uuid, idle: bool) -> ImksResult<Self> {
        let chosen = match board.chosen(user) {
            Some(chosen) => chosen,
            None => user_presence::get(db, user).await?,
        };
        Ok(Self { idle, chosen })
    }
}

impl Board {
    /// Creates the board of a node. `node` is its name among others, if there can be any.
    pub(super) fn new(node: Option<NodeId>) -> Self {
        let state = State { all: Presences::new(node.is_some()), exchange: node.map(Exchange::new) };
        Self(Arc::new(Shared { state: Mutex::new(state), untold: Untold::default(), news: Notify::new() }))
    }

    /// Changes what is known, and tells those who watch.
    fn change<T: IntoIterator<Item = Presence>>(
        &self,
        namespace: &Namespace,
        change: impl FnOnce(&mut Presences, Moment) -> T,
    ) {
        let (is_told, has_news) = {
            let all = &mut self.0.state.lock().all;
            (self.0.untold.add(change(all, now())), all.has_news())
        };
        if has_news {
            self.0.news.notify_one();
        }
        if is_told {
            self.tell(namespace);
        }
    }

    /// Changes what is known of a device, unless it has left: it would be shown for ever, because [`Board::left`] is called only
    /// once. A socket is closed before that, so one that is connected while the state is locked has not been noted as gone.
    fn change_of(&self, socket: &Socket, change: impl FnOnce(&mut Presences, Moment) -> Option<Presence>) {
        self.change(socket.namespace(), |all, now| socket.is_connected().then(|| change(all, now)).flatten());
    }

    /// Tells those who are connected to this node what has changed.
    fn tell(&self, namespace: &Namespace) {
        self.0.untold.tell(|presence| {
            let room = room_of(presence.user_id);
            // Few of the users of a cluster are watched here.
            if namespace.rooms().get(&room).is_some() {
                UPDATE.to_local_room(namespace, &room, &presence);
            }
        });
    }

    /// Notes that a socket has joined.
    pub(super) fn joined(&self, socket: &Socket) {
        let Some(session) = socket.data::<Session>() else { return };
        let (user, arrival) = (session.identity().user_id, socket.data::<Arrival>());
        let (idle, chosen) = arrival.map_or((false, None), |arrival| (arrival.idle, arrival.chosen));
        self.change_of(socket, |all, now| all.arrived((user, socket.id()), idle, chosen, now));
    }

    /// Notes that a socket has left.
    pub(super) fn left(&self, socket: &Socket) {
        let Some(session) = socket.data::<Session>() else { return };
        let user = session.identity().user_id;
        self.change(socket.namespace(), |all, now| all.gone(user, socket.id(), now));
    }

    pub(super) fn active(&self, socket: &Socket, user: Uuid) {
        self.change_of(socket, |all, now| all.active(user, socket.id(), now));
    }

    pub(super) fn choose(&self, namespace: &Namespace, user: Uuid, chosen: StoredChoice) {
        self.change(namespace, |all, now| all.choose(user, chosen, now));
    }

    /// Returns what a user has chosen, if this node knows it for sure: news of other nodes may be lost.
    fn chosen(&self, user: Uuid) -> Option<Option<StoredChoice>> {
        let state = self.0.state.lock();
        state.all.chosen(user).filter(|_| state.exchange.is_none())
    }

    /// Returns how many devices of a user are connected to other nodes, as far as these have reported it.
    pub(super) fn elsewhere(&self, user: Uuid) -> usize {
        self.0.state.lock().all.elsewhere(user)
    }

    pub(super) fn shown(&self, users: &[Uuid]) -> Vec<Presence> {
        let (all, now) = (&self.0.state.lock().all, now());
        users.iter().map(|user| all.shown(*user, now)).collect()
    }

    /// Tells what changes with time (idle devices, ended grace periods and choices), until `stop`.
    pub(super) async fn run(self, namespace: Namespace, stop: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.change(&namespace, Presences::due);
            // All users of a node that died are due at once: meanwhile others get the lock, and the thread.
            while self.is_due() {
                yield_now().await;
                self.change(&namespace, Presences::due);
            }
        }
    }

    fn is_due(&self) -> bool {
        let (all, now) = (&self.0.state.lock().all, now());
        all.is_due(now)
    }
}

fn now() -> Moment {
    Moment { instant: Instant::now(), micros: clock::now_micros() }
}

pub(super) fn room_of(user: Uuid) -> String {
    format!("{ROOM_PREFIX}{user}")
}

/// The start of the names of rooms of those who watch a user.
pub(super) const ROOM_PREFIX: &str = "presence:";
/// How often the server looks for what changes with time.
const TICK: Duration = Duration::from_millis(500);
