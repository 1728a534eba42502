//! The features: the only layer that combines sockets, data and identities. [`register`] lists them.

mod access;
mod acquaintances;
pub mod api;
mod attachment;
pub mod backend;
mod backend_users;
mod bookmark;
mod budget;
mod channel;
mod channels;
mod connect;
mod connection;
mod ctx;
mod dispatch;
mod draft;
mod edit;
mod expiring;
mod expiry;
mod farewell;
mod forward;
mod held;
mod history;
mod input;
mod key_package;
mod mention;
mod message;
pub mod metrics;
pub mod orders;
pub mod outbox;
mod outcome;
mod own;
mod page;
mod parts;
mod pin;
mod poll;
mod presence;
mod presence_board;
mod preview;
mod preview_queue;
mod purge;
mod push;
mod rates;
mod reaction;
mod read_state;
mod receipt;
mod recheck;
mod registry;
mod relay;
mod remembered;
mod report;
mod scheduled;
mod search;
mod session;
mod small_channels;
mod subscription;
mod sync;
mod thread;
mod ticks;
mod turn;
mod typing;
mod typists;

use std::future::ready;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::models::append::Commits;
use crate::models::feed::Feed;
use crate::models::key_package as key_package_rows;
use crate::models::sweep;
use crate::page_fetcher::Policy;
use crate::rate_limit::Rate;
use crate::socket::{Namespace, NamespaceBuilder};
use api::{Api, Route};
pub use budget::AnswerLimits;
use expiry::Expiry;
use parts::timed;
pub use parts::{Messaging, Parts};
use registry::{Registered, Registry};
pub use relay::Relay;
pub use remembered::Remembered;

cfg_if::cfg_if! {
    if #[cfg(feature = "testing")] {
        pub use budget::Reservation;
        pub use channel::{Channel, Moderate, Read, View, Write};
        pub use ctx::Ctx;
        pub use session::Session;
        pub use turn::Turn;
    }
}

/// The configuration of messaging.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this node that clients see.
    pub node: Option<String>,
    /// How long after its sending a message can be edited; `None` for ever.
    pub edit_window: Option<Duration>,
    /// The rate of events of one socket.
    pub events: Rate,
    /// The rate of messages, edits and deletions of one user.
    pub sends: Rate,
    /// The rate of messages, edits and deletions of one user in one channel.
    pub sends_per_channel: Rate,
    /// The rate of connects of one user. Generous, because all devices reconnect at once after a restart.
    pub connects: Rate,
    /// The most sockets of one user on this node; 0 means no limit.
    pub sessions_per_user: usize,
    /// The memory of large answers in flight.
    pub answers: AnswerLimits,
    /// The largest packet that the engine accepts; sent in `session:ready`.
    pub max_payload: usize,
    /// How often a core that does not report changes is asked about each session.
    pub recheck: Duration,
    /// How long a connect is held that cannot succeed at the moment.
    pub connect_hold: Duration,
    /// Whether messages get previews of the pages that they link to.
    pub link_previews: bool,
    /// The addresses that previews may be fetched from.
    pub preview_policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            edit_window: None,
            events: Rate::new(50, 100),
            sends: Rate::new(10, 20),
            sends_per_channel: Rate::new(5, 10),
            connects: Rate::new(1, 40),
            sessions_per_user: 20,
            answers: AnswerLimits::default(),
            max_payload: 1_000_000,
            recheck: Duration::from_secs(45),
            connect_hold: Duration::from_secs(9),
            link_previews: false,
            preview_policy: Policy::Public,
        }
    }
}

/// The background tasks of messaging, which start once the namespace exists, and the routes of the HTTP API.
#[derive(Debug)]
pub struct Jobs {
    messaging: Messaging,
    expiry: Expiry,
    routes: Vec<Route>,
}

/// Registers every feature on the namespace of the users, one per line.
pub fn register(builder: &mut NamespaceBuilder, messaging: &Messaging) -> Jobs {
    let expiry = Expiry::default();
    let presence = messaging.presence().clone();
    builder.on_connected(move |socket| {
        presence.joined(&socket);
        ready(())
    });
    let (expiry_for_disconnect, of_disconnected) = (expiry.clone(), messaging.clone());
    builder.on_disconnect(move |socket, _| {
        expiry_for_disconnect.forget(socket);
        of_disconnected.typing().left(socket, None);
        of_disconnected.presence().left(socket);
    });
    backend_users::describe(builder);
    let mut events = Registry::new(builder, messaging);
    connection::register(&mut events);
    subscription::register(&mut events);
    message::register(&mut events);
    mention::register(&mut events);
    key_package::register(&mut events);
    edit::register(&mut events);
    history::register(&mut events);
    sync::register(&mut events);
    read_state::register(&mut events);
    reaction::register(&mut events);
    pin::register(&mut events);
    poll::register(&mut events);
    thread::register(&mut events);
    typing::register(&mut events);
    presence::register(&mut events);
    draft::register(&mut events);
    bookmark::register(&mut events);
    search::register(&mut events);
    attachment::register(&mut events);
    scheduled::register(&mut events);
    report::register(&mut events);
    receipt::register(&mut events);
    let Registered { routes, limits } = events.finish();
    mention::listen(builder, messaging);
    orders::register(builder, messaging);
    connect::register(builder, messaging, &expiry, limits);
    Jobs { messaging: messaging.clone(), expiry, routes }
}

impl Jobs {
    /// Starts the tasks that follow the core and the clock until `stop`. Returns the HTTP API.
    pub fn start(self, namespace: &Namespace, tasks: &TaskTracker, stop: &CancellationToken) -> Api {
        tasks.spawn(access::follow(self.messaging.clone(), namespace.clone(), stop.clone()));
        tasks.spawn(acquaintances::follow(self.messaging.clone(), namespace.clone(), stop.clone()));
        tasks.spawn(recheck::run(self.messaging.clone(), namespace.clone(), stop.clone()));
        tasks.spawn(self.expiry.run(namespace.clone(), stop.clone()));
        tasks.spawn(self.messaging.typing().clone().run(namespace.clone(), stop.clone()));
        tasks.spawn(self.messaging.presence().clone().run(namespace.clone(), stop.clone()));
        tasks.spawn(purge::run(self.messaging.clone(), stop.clone()));
        tasks.spawn(self.messaging.farewells().clone().run(namespace.clone(), stop.clone()));
        tasks.spawn(poll::close_overdue(self.messaging.clone(), stop.clone()));
        tasks.spawn(expiring::delete_expired(self.messaging.clone(), stop.clone()));
        tasks.spawn(bookmark::remind(self.messaging.clone(), namespace.clone(), stop.clone()));
        tasks.spawn(search::index(self.messaging.clone(), stop.clone()));
        tasks.spawn(attachment::sweep(self.messaging.clone(), stop.clone()));
        if let Some(fetcher) = self.messaging.fetcher() {
            tasks.spawn(preview::run(self.messaging.clone(), fetcher.clone(), stop.clone()));
        }
        tasks.spawn(scheduled::dispatch(self.messaging.clone(), namespace.clone(), stop.clone()));
        if let Some(relay) = self.messaging.relay() {
            relay.start(namespace, tasks, stop);
        }
        tasks.spawn(forget(self.messaging, stop.clone()));
        Api { namespace: namespace.clone(), routes: self.routes }
    }
}

/// Starts a dispatcher per lane. Each ends with its lane.
pub fn dispatch(
    namespace: &Namespace,
    commits: Vec<Commits>,
    relay: Option<&Relay>,
    feed: &Feed,
) -> TaskTracker {
    let dispatchers = TaskTracker::new();
    for lane in commits {
        dispatchers.spawn(dispatch::run(lane, namespace.clone(), relay.cloned(), feed.clone()));
    }
    dispatchers.close();
    dispatchers
}

/// Periodically removes idle rate limits and expired rows of the change log.
async fn forget(messaging: Messaging, stop: CancellationToken) {
    let mut ticks = interval(FORGET);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => messaging.sweep(Instant::now()),
        }
        forget_changes(&messaging, &stop).await;
        if let Err(error) = timed("sweep", sweep::forget_removed(messaging.db(), clock::now_micros())).await {
            tracing::warn!(%error, "removed drafts and bookmarks were not forgotten");
        }
        let claimed = key_package_rows::forget_claimed(messaging.db(), clock::now_micros());
        if let Err(error) = timed("sweep", claimed).await {
            tracing::warn!(%error, "key packages that were handed out were not forgotten");
        }
    }
}

/// Removes expired rows in small steps, so that no writer waits long for a lock.
async fn forget_changes(messaging: &Messaging, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match timed("sweep", sweep::sweep(messaging.db(), clock::now_micros())).await {
            Ok(forgotten) if forgotten >= sweep::SWEEP_STEP.unsigned_abs() => {}
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, "old changes were not forgotten"),
        }
    }
}

const FORGET: Duration = Duration::from_secs(30);
