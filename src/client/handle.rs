//! The handle of a client.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use super::budget::{Overflow, Used};
use super::builder::ClientBuilder;
use super::core::Path;
use super::driver::call;
use super::error::{ClientError, ClientResult};
use super::event::{ClientEvent, Status, TransportKind};
use super::handlers::Handlers;
use super::racing::ProtocolMetrics;
use super::shared::{Command, Shared};
use super::socket::{Inner, Socket};
use super::stats::Stats;

/// A client of a Socket.IO server. Cloning it is cheap, and all clones are the same client.
///
/// When the last clone and the last [`Socket`] are dropped, the client takes its leave of the server. A handler
/// that owns one of them keeps the client alive.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    overflow: Overflow,
    answer_timeout: Duration,
    receive_queue: usize,
    /// What the sockets of each namespace share. It stays as long as the client, like the namespace.
    sockets: Mutex<HashMap<Path, Arc<Handlers>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Client {
    /// Starts to build a client for a server: `http://`, `https://`, `ws://` or `wss://`, its host, and its path if
    /// that is not `/socket.io/`. With `quic://` it is reached over [`TransportKind::Quic`] and in no other way, unless the
    /// transports are set later.
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        shared: Arc<Shared>,
        overflow: Overflow,
        answer_timeout: Duration,
        receive_queue: usize,
    ) -> Self {
        let (sockets, turn) = (Mutex::default(), Arc::default());
        Self(Arc::new(Handle { commands, shared, overflow, answer_timeout, receive_queue, sockets, turn }))
    }

    /// Connects to the server, if the client is not connected. Namespaces are joined one by one, with
    /// [`Client::namespace`].
    ///
    /// # Errors
    /// The failure of the first attempt: [`ClientError::ConnectionFailed`], [`ClientError::NoTransport`],
    /// [`ClientError::Tls`], [`ClientError::Timeout`]. With
    /// [`ClientBuilder::retry_initial`] it is [`ClientError::ReconnectFailed`], when the client gives up.
    pub async fn connect(&self) -> ClientResult<()> {
        call(&self.0.commands, Command::Connect).await?.map(drop)
    }

    /// Joins a namespace, and connects first where necessary.
    ///
    /// Events that come with the answer of the server find no handlers yet: where these matter, register them with
    /// [`Client::socket`] first, and then call [`Socket::connect`].
    ///
    /// # Errors
    /// Those of [`Client::socket`] and [`Socket::connect`].
    pub async fn namespace(&self, path: &str) -> ClientResult<Socket> {
        let socket = self.socket(path)?;
        socket.connect().await?;
        Ok(socket)
    }

    /// Returns a namespace that is not joined yet.
    ///
    /// # Errors
    /// [`ClientError::InvalidNamespace`] for a path that does not begin with `/` or has a comma.
    pub fn socket(&self, path: &str) -> ClientResult<Socket> {
        if !path.starts_with('/') || path.contains(',') || path.len() > NAMESPACE_BYTES_MAX {
            return Err(ClientError::InvalidNamespace(path.into()));
        }
        let path = Path::from(path);
        let handlers = self.handlers(&path);
        let Handle { commands, shared, overflow, answer_timeout, turn, .. } = &*self.0;
        let inner = Inner {
            path,
            handlers,
            commands: commands.clone(),
            shared: shared.clone(),
            overflow: *overflow,
            answer_timeout: *answer_timeout,
            turn: turn.clone(),
        };
        Ok(Socket { inner: Arc::new(inner) })
    }

    /// Leaves all namespaces, sends what waits and closes the connection. The client can be connected again.
    pub async fn close(&self) {
        // A task that has ended has closed the connection.
        let _ = call(&self.0.commands, Command::Close).await;
    }

    /// Moves the connection to another socket of this device, for example after its network has changed. The session
    /// goes on, and nothing is lost. Only [`TransportKind::Quic`] can.
    ///
    /// # Errors
    /// [`ClientError::Config`] where the connection cannot move, or there is none.
    pub async fn rebind(&self, socket: UdpSocket) -> ClientResult<()> {
        let moved = call(&self.0.commands, |done| Command::Rebind(socket, done)).await?;
        moved.map_err(|error| ClientError::Config(format!("the connection cannot move: {error}")))
    }

    /// Returns the state of the client.
    pub fn status(&self) -> Status {
        *self.0.shared.status.borrow()
    }

    /// Returns a channel that shows the state of the client and wakes up when it changes.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.0.shared.status.subscribe()
    }

    /// Whether the client is connected.
    pub fn is_connected(&self) -> bool {
        self.status() == Status::Connected
    }

    /// Returns what happens to the connection from now on.
    pub fn events(&self) -> Events {
        Events(self.0.shared.listen())
    }

    /// Returns what the client has done so far.
    pub fn stats(&self) -> Stats {
        self.0.shared.counting.lock().stats(self.waiting())
    }

    /// Returns how each transport has done lately that was tried, by attempts to connect and by the measurements of
    /// [`Racing`](crate::client::Racing).
    pub fn protocol_metrics(&self) -> BTreeMap<TransportKind, ProtocolMetrics> {
        self.0.shared.racer.lock().metrics()
    }

    /// Returns the transport that gets the head start in the next race, if the client lets transports race and one has
    /// won.
    pub fn best_protocol(&self) -> Option<TransportKind> {
        self.0.shared.racer.lock().favourite()
    }

    /// Whether the last attempt or measurement of a transport has succeeded, or `None` if there was none.
    pub fn is_available(&self, transport: TransportKind) -> Option<bool> {
        self.0.shared.racer.lock().is_available(transport)
    }

    /// Returns how much waits to be sent, the outbox included.
    pub fn waiting(&self) -> Used {
        self.0.shared.budget.used()
    }

    /// Returns the handlers of a namespace. The task that runs them is started with them.
    fn handlers(&self, path: &Path) -> Arc<Handlers> {
        let mut sockets = self.0.sockets.lock();
        if let Some(handlers) = sockets.get(path) {
            return handlers.clone();
        }
        let handlers = Arc::new(Handlers::default());
        sockets.insert(path.clone(), handlers.clone());
        let (say, events) = mpsc::channel(self.0.receive_queue);
        let shared = &self.0.shared;
        shared.sockets.lock().insert(path.clone(), say);
        let commands = self.0.commands.downgrade();
        shared.tasks.spawn(handlers.clone().run(shared.clone(), commands, events));
        handlers
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Client({:?})", self.status())
    }
}

/// What happens to a connection, in its order.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<ClientEvent>);

impl Events {
    /// Waits for the next event. `None` means that the client has ended. Whoever reads so slowly that events are
    /// gone gets [`ClientEvent::Missed`] in their place.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => Some(ClientEvent::Missed { events }),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Creates a value by which a server recognises an event that it gets twice. It belongs into the arguments of what
/// is put into the outbox; imks reads it as `nonce`.
pub fn nonce() -> String {
    crate::clock::new_id().to_string()
}

/// The maximum number of bytes in the path of a namespace.
const NAMESPACE_BYTES_MAX: usize = 256;

const _: fn() = || {
    fn is_shared_between_tasks<T: Send + Sync>() {}
    is_shared_between_tasks::<(Client, Socket, ClientError)>();
};
