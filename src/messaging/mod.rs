//! The features: the only layer that combines sockets, data and identities. [`register`] lists them.

mod absent;
mod access;
mod ack;
mod acquaintances;
mod activity;
pub mod api;
mod app_event;
mod attachment;
mod audience;
pub mod backend;
mod backend_users;
mod bookmark;
mod budget;
mod call;
mod channel;
mod channel_rooms;
mod channels;
mod coming_back;
mod connect;
mod connection;
mod ctx;
mod dispatch;
mod draft;
mod edit;
mod emoji;
mod expiring;
mod expiry;
mod farewell;
mod focus;
mod forward;
mod greeting;
mod held;
mod history;
mod input;
mod key_package;
mod mention;
mod message;
pub mod metrics;
mod node_message;
mod online;
mod online_lookups;
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
mod resume;
mod retention;
mod scheduled;
mod search;
mod server_facts;
mod session;
mod session_log;
mod shared_query;
mod shared_rates;
mod small_channels;
mod standings;
mod stream;
mod subscription;
mod sync;
mod thread;
mod ticks;
mod timed;
mod traced;
mod turn;
mod typing;
mod typists;
mod view;
mod workspaces;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ImksResult;
use crate::background;
use crate::clock;
use crate::contract::Contract;
use crate::models::append::Commits;
use crate::models::feed::Feed;
use crate::models::key_package as key_package_rows;
use crate::models::sweep;
use crate::page_fetcher::Policy;
use crate::rate_limit::Rate;
use crate::socket::{DisconnectReason, Namespace, NamespaceBuilder, Socket};
use api::{Api, Route};
use audience::Audience;
pub use budget::AnswerLimits;
use expiry::Expiry;
pub use farewell::{SHUTDOWN, Shutdown};
pub use parts::{Messaging, Parts};
use registry::{Registered, Registry};
pub use relay::Relay;
pub use remembered::Remembered;
pub use resume::ResumeConfig;
pub use retention::Retention;
use server_facts::ServerFacts;
use timed::timed;
pub use workspaces::workspace_room;

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
    /// The most sockets of one user on all nodes; 0 means no limit.
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
    /// How long messages are kept.
    pub retention: Retention,
    /// The sessions that continue where they were.
    pub resume: ResumeConfig,
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
            retention: Retention::default(),
            resume: ResumeConfig::default(),
        }
    }
}

/// The background tasks of messaging, which start once the namespace exists, and the routes of the HTTP API.
#[derive(Debug)]
pub struct Jobs {
    messaging: Messaging,
    expiry: Expiry,
    routes: Vec<Route>,
    contract: Contract,
    facts: ServerFacts,
}

/// Forgets a socket whose client has left.
fn left(messaging: &Messaging, expiry: &Expiry, socket: &Socket, reason: DisconnectReason) {
    session_log::left(socket, reason);
    expiry.forget(socket);
    messaging.typing().left(socket, None);
    messaging.presence().left(socket);
    messaging.resume().left(socket, reason);
}

/// Registers every feature on the namespace of the users, one per line.
pub fn register(builder: &mut NamespaceBuilder, messaging: &Messaging) -> Jobs {
    let expiry = Expiry::default();
    let of_connected = messaging.clone();
    builder.on_connected(move |socket| {
        of_connected.presence().joined(&socket);
        of_connected.resume().connected(&socket);
        access::arrived(of_connected.clone(), socket)
    });
    let (of_sessions, of_disconnected) = (expiry.clone(), messaging.clone());
    builder.on_disconnect(move |socket, reason| left(&of_disconnected, &of_sessions, socket, reason));
    backend_users::describe(builder);
    let mut events = Registry::new(builder, messaging);
    connection::register(&mut events, &expiry);
    subscription::register(&mut events);
    focus::register(&mut events);
    message::register(&mut events);
    mention::register(&mut events);
    key_package::register(&mut events);
    edit::register(&mut events);
    stream::register(&mut events);
    history::register(&mut events);
    sync::register(&mut events);
    read_state::register(&mut events);
    reaction::register(&mut events);
    emoji::register(&mut events);
    pin::register(&mut events);
    poll::register(&mut events);
    ack::register(&mut events);
    thread::register(&mut events);
    typing::register(&mut events);
    presence::register(&mut events);
    call::register(&mut events);
    draft::register(&mut events);
    bookmark::register(&mut events);
    search::register(&mut events);
    attachment::register(&mut events);
    scheduled::register(&mut events);
    report::register(&mut events);
    receipt::register(&mut events);
    let Registered { routes, limits, mut contract } = events.finish();
    let limits = Arc::new(limits);
    mention::listen(builder, messaging);
    online::listen(builder, messaging);
    absent::listen(builder);
    orders::register(builder, messaging);
    messaging.resume().listen(builder);
    connect::register(builder, messaging, &expiry, &limits);
    let facts = ServerFacts::new(limits, &mut contract);
    Jobs { messaging: messaging.clone(), expiry, routes, contract, facts }
}

impl Jobs {
    /// Starts the tasks that follow the core and the clock until `stop`. Returns the HTTP API.
    pub fn start(self, namespace: &Namespace, tasks: &TaskTracker, stop: &CancellationToken) -> Api {
        let jobs = Started { messaging: &self.messaging, namespace, tasks, stop };
        jobs.keep("access", access::follow);
        jobs.keep("acquaintances", acquaintances::follow);
        jobs.keep("recheck", recheck::run);
        jobs.keep("typing", |messaging, namespace, stop| messaging.typing().clone().run(namespace, stop));
        jobs.keep("presence", |messaging, namespace, stop| messaging.presence().clone().run(namespace, stop));
        jobs.keep("purge", |messaging, _, stop| purge::run(messaging, stop));
        jobs.keep("retention", retention::run);
        jobs.keep("farewells", |messaging, namespace, stop| {
            messaging.farewells().clone().run(namespace, stop)
        });
        jobs.keep("polls", |messaging, _, stop| poll::close_overdue(messaging, stop));
        jobs.keep("streams", |messaging, _, stop| stream::interrupt_silent(messaging, stop));
        jobs.keep("expiring", |messaging, _, stop| expiring::delete_expired(messaging, stop));
        jobs.keep("reminders", bookmark::remind);
        jobs.keep("absent", absent::run);
        jobs.keep("search", |messaging, _, stop| search::index(messaging, stop));
        jobs.keep("attachments", |messaging, _, stop| attachment::sweep(messaging, stop));
        if let Some(fetcher) = self.messaging.fetcher().cloned() {
            jobs.keep("previews", move |messaging, _, stop| preview::run(messaging, fetcher.clone(), stop));
        }
        jobs.keep("scheduled", scheduled::dispatch);
        jobs.keep("activity", |messaging, namespace, stop| messaging.activity().clone().run(namespace, stop));
        jobs.keep("resume", |messaging, _, stop| messaging.resume().clone().run(stop));
        jobs.keep("forget", |messaging, _, stop| forget(messaging, stop));
        let expiry = self.expiry.run(namespace.clone(), stop.clone());
        tasks.spawn(background::essential("expiry", expiry));
        if let Some(relay) = self.messaging.relay() {
            let audience = Audience::new(namespace, self.messaging.activity(), self.messaging.resume());
            relay.start(&audience, tasks, stop);
            self.messaging.presence().report((relay.node(), relay.pipe()), namespace, tasks, stop);
            let (node, pipe) = (relay.node(), relay.pipe().clone());
            jobs.keep("rates", move |messaging, namespace, stop| {
                shared_rates::share(messaging, (node, pipe.clone()), namespace, stop)
            });
        }
        let Self { routes, contract, facts, .. } = self;
        Api { namespace: namespace.clone(), routes, contract, facts }
    }
}

/// What the jobs of messaging have in common.
struct Started<'a> {
    messaging: &'a Messaging,
    namespace: &'a Namespace,
    tasks: &'a TaskTracker,
    stop: &'a CancellationToken,
}

impl Started<'_> {
    /// Starts a job, which begins again if it panics.
    fn keep<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        begin: impl Fn(Messaging, Namespace, CancellationToken) -> F + Send + 'static,
    ) {
        let (messaging, namespace) = (self.messaging.clone(), self.namespace.clone());
        let begin = move |stop| begin(messaging.clone(), namespace.clone(), stop);
        self.tasks.spawn(background::keep(name, self.stop.clone(), begin));
    }
}

/// Starts a dispatcher per lane. Each ends with its lane.
pub fn dispatch(
    messaging: &Messaging,
    namespace: &Namespace,
    commits: Vec<Commits>,
    feed: &Feed,
) -> TaskTracker {
    let dispatchers = TaskTracker::new();
    let audience = Audience::new(namespace, messaging.activity(), messaging.resume());
    for lane in commits {
        let dispatched = dispatch::run(lane, audience.clone(), messaging.relay().cloned(), feed.clone());
        dispatchers.spawn(background::essential("dispatch", dispatched));
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
        let (db, now) = (messaging.db(), clock::now_micros);
        in_steps("old changes", sweep::SWEEP_STEP, &stop, || timed("sweep", sweep::sweep(db, now()))).await;
        if let Err(error) = timed("sweep", sweep::forget_removed(messaging.db(), clock::now_micros())).await {
            tracing::warn!(%error, "removed drafts and bookmarks were not forgotten");
        }
        let claimed = || timed("sweep", key_package_rows::forget_claimed(db, now()));
        in_steps("key packages that were handed out", key_package_rows::FORGET_STEP, &stop, claimed).await;
    }
}

/// Removes expired rows in small steps, so that no writer waits long for a lock.
async fn in_steps<F: Future<Output = ImksResult<u64>>>(
    what: &'static str,
    step: i64,
    stop: &CancellationToken,
    forget: impl Fn() -> F,
) {
    while !stop.is_cancelled() {
        match forget().await {
            Ok(forgotten) if forgotten >= step.unsigned_abs() => {}
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, what, "not forgotten"),
        }
    }
}

const FORGET: Duration = Duration::from_secs(30);
