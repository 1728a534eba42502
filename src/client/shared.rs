//! What the handles of a client and its task share.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::budget::{Budget, Place};
use super::core::{Emit, Incoming, Path, Reply};
use super::error::{ClientError, ClientResult};
use super::event::{ClientEvent, Status, TransportKind};
use super::payload::Payloads;
use super::racing::Racer;
use super::stats::Counting;
use super::store::{Entry, Store};
use crate::socket::codec::outgoing::EncodedArgs;

/// The state that both sides see.
pub(crate) struct Shared {
    pub(crate) budget: Budget,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) events: Mutex<Telling>,
    /// Whether events of the server are told to those who listen to the connection too.
    pub(crate) tells_received: bool,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) counting: Mutex<Counting>,
    pub(crate) racer: Mutex<Racer>,
    /// Where the events of each namespace go.
    pub(crate) sockets: Mutex<HashMap<Path, mpsc::Sender<Received>>>,
    pub(crate) store: Option<Arc<Mutex<dyn Store>>>,
    pub(crate) payloads: Payloads,
    pub(crate) tasks: TaskTracker,
}

/// The way to those who read events: it has room for all events that are kept.
#[derive(Debug, Default)]
pub(crate) enum Telling {
    /// Nobody has asked for them yet.
    #[default]
    Nobody,
    All(broadcast::Sender<ClientEvent>),
    /// There will be no more.
    Ended,
}

/// An event on its way to its handlers, and its place among those that wait for them.
pub(crate) type Received = (Incoming, Place);

/// A callback for everything that happens to the connection.
pub(crate) type Listener = Box<dyn Fn(&ClientEvent) + Send + Sync>;

/// A call of a handle.
#[derive(Debug)]
pub(crate) enum Command {
    Connect(Waiter),
    Join(Path, Waiter),
    /// Waits until the namespace is joined, if somebody wants that.
    Attend(Path, Waiter),
    Leave(Path),
    /// Changes to another transport, if that loses nothing.
    Switch(TransportKind),
    Close(oneshot::Sender<()>),
    Rebind(UdpSocket, oneshot::Sender<io::Result<()>>),
    Emit(Path, Emit, Option<Waiter>),
    Queue(Entry, Waiter, Place),
    Answer(Path, (u64, u64), EncodedArgs, Place),
}

/// Somebody who waits for the result of a call.
pub(crate) type Waiter = oneshot::Sender<ClientResult<Reply>>;

impl Shared {
    /// Tells everybody who listens what happened.
    pub(crate) fn notify(&self, event: ClientEvent) {
        // What the server's events say is nobody's business in a log.
        if !matches!(event, ClientEvent::MessageReceived { .. }) {
            tracing::debug!(?event, "client");
        }
        self.counting.lock().event(&event);
        for listener in &self.listeners {
            // It is called in the task of the client, which must not end with it.
            if catch_unwind(AssertUnwindSafe(|| listener(&event))).is_err() {
                tracing::error!("a listener to the events of a client panicked");
            }
        }
        if let Telling::All(events) = &*self.events.lock() {
            // An error means only that nobody listens any more.
            let _ = events.send(event);
        }
    }

    /// Returns the events from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<ClientEvent> {
        let mut telling = self.events.lock();
        match &*telling {
            Telling::All(events) => events.subscribe(),
            // Without a sender it has ended.
            Telling::Ended => broadcast::Sender::new(1).subscribe(),
            Telling::Nobody => {
                let events = broadcast::Sender::new(EVENTS_KEPT);
                let listening = events.subscribe();
                *telling = Telling::All(events);
                listening
            }
        }
    }

    /// Ends the events: those that were told can still be read.
    pub(crate) fn end(&self) {
        *self.events.lock() = Telling::Ended;
    }

    /// Adds an entry to the store of the outbox, if there is one.
    pub(crate) async fn keep(&self, entry: Entry) -> ClientResult<Entry> {
        let Some(store) = self.store.clone() else { return Ok(entry) };
        let adding = self.tasks.spawn_blocking(move || store.lock().add(&entry).map(|()| entry));
        let added = adding.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        added.map_err(|error| ClientError::Outbox(Arc::new(error)))
    }

    /// Removes an entry from the store of the outbox. Nobody waits for that: after a crash before it is done, the
    /// event is sent once more, which its nonce is for.
    pub(crate) fn forget(self: &Arc<Self>, id: Uuid) {
        let Some(store) = self.store.clone() else { return };
        let shared = self.clone();
        self.tasks.spawn_blocking(move || {
            if let Err(error) = store.lock().remove(id) {
                shared.notify(ClientEvent::Error(ClientError::Outbox(Arc::new(error))));
            }
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

/// The number of events about the connection that a slow listener can still get.
const EVENTS_KEPT: usize = 256;
