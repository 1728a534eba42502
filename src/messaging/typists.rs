//! Those who type on this node: their leases, the task that ends them, and the event `typing`.

mod leases;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::push::Push;
use super::session::Session;
use crate::models::message::AuthorInfo;
use crate::socket::{Namespace, Socket};
pub(super) use leases::Started;
use leases::{LEASE, Leases, Place};

/// Sent to the room of the channel when somebody starts typing, goes on, or stops.
pub(super) const TYPING: Push<Typist<'_>> = Push::new("typing");

/// Everybody who is typing on this node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Typing(Arc<State>);

#[derive(Debug, Default)]
struct State {
    leases: Mutex<Leases>,
    /// The number of leases. While it is 0, a message that is sent costs one atomic load here.
    len: AtomicUsize,
}

impl Typing {
    pub(super) fn start(&self, place: Place, user: &AuthorInfo, socket: &str, now: Instant) -> Started {
        self.change(|leases| leases.start(place, user, socket, now))
    }

    pub(super) fn stop(&self, place: Place, user: Uuid) -> Option<AuthorInfo> {
        self.change(|leases| leases.stop(place, user))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Leases) -> T) -> T {
        let mut leases = self.0.leases.lock();
        let outcome = change(&mut leases);
        self.0.len.store(leases.len(), Ordering::Release);
        outcome
    }

    fn is_empty(&self) -> bool {
        self.0.len.load(Ordering::Acquire) == 0
    }

    /// Ends the lease of a user who has sent a message.
    pub(super) fn sent(&self, namespace: &Namespace, channel: Uuid, thread: Option<Uuid>, user: Uuid) {
        if self.is_empty() {
            return;
        }
        let place = (channel, thread);
        if let Some(user) = self.stop(place, user) {
            tell(namespace, place, &user);
        }
    }

    /// Ends the leases of a socket that leaves a channel, or all channels.
    pub(super) fn left(&self, socket: &Socket, channel: Option<Uuid>) {
        let Some(session) = socket.data::<Session>().filter(|_| !self.is_empty()) else { return };
        let user = session.identity().user_id;
        for (place, user) in self.change(|leases| leases.stop_socket(socket.id(), channel, user)) {
            tell(socket.namespace(), place, &user);
        }
    }

    /// Ends leases that are over, until `stop`.
    pub(super) async fn run(self, namespace: Namespace, stop: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if self.is_empty() {
                continue;
            }
            for (place, user) in self.change(|leases| leases.expire(Instant::now())) {
                tell(&namespace, place, &user);
            }
        }
    }
}

/// The payload of `typing`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Typist<'a> {
    channel_id: Uuid,
    thread_id: Option<Uuid>,
    user: &'a AuthorInfo,
    typing: bool,
    /// How long to show it without a further event; 0 if `typing` is false.
    expires_in_ms: u64,
}

impl<'a> Typist<'a> {
    fn new((channel_id, thread_id): Place, user: &'a AuthorInfo, typing: bool) -> Self {
        Self { channel_id, thread_id, user, typing, expires_in_ms: if typing { LEASE_MS } else { 0 } }
    }
}

/// Tells everybody in the channel but the socket that caused it.
pub(super) fn tell_except(socket: &Socket, place: Place, user: &AuthorInfo, typing: bool) {
    TYPING.to_room_except(socket, &place.0.to_string(), &key(place, user), &Typist::new(place, user, typing));
}

/// Tells everybody in the channel that a user does not type any more.
fn tell(namespace: &Namespace, place: Place, user: &AuthorInfo) {
    TYPING.to_room(namespace, &place.0.to_string(), &key(place, user), &Typist::new(place, user, false));
}

/// Returns the key of whether somebody types in a place.
fn key((_, thread): Place, user: &AuthorInfo) -> String {
    format!("typing:{}:{}", user.id, thread.unwrap_or_default())
}

/// How long somebody is shown as typing after the last `typing:start`, in milliseconds.
pub(super) const LEASE_MS: u64 = LEASE.as_secs() * 1_000;
/// How often the server looks for leases that are over.
const TICK: Duration = Duration::from_millis(250);
