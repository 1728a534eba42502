//! The server: its namespaces, its accept loop and its shutdown.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Weak};

use tokio_util::task::TaskTracker;

use super::config::Config;
use super::connection::ConnectionTask;
use super::dynamic::{Dynamic, DynamicNamespace};
use super::instrument::Instrument;
use super::open_connections::OpenConnections;
use crate::engine::{Connection, Engine};
use crate::socket::cluster::message_bus::MessageBus;
use crate::socket::cluster::namespace_cluster::NamespaceCluster;
use crate::socket::namespace::namespace::Namespace;

/// A Socket.IO server. It is cheap to clone.
#[derive(Clone)]
pub struct Server(pub(super) Arc<Inner>);

pub(crate) struct Inner {
    pub(super) config: Config,
    pub(super) namespaces: HashMap<Box<str>, Namespace>,
    /// The static namespaces, each with its cluster.
    pub(super) clusters: Vec<(Namespace, NamespaceCluster)>,
    pub(super) dynamic: Arc<Dynamic>,
    pub(super) bus: Arc<MessageBus>,
    pub(super) instruments: Vec<Arc<dyn Instrument>>,
    tasks: TaskTracker,
    /// The pending handlers.
    pub(super) handlers: TaskTracker,
    pub(super) open: OpenConnections,
}

impl Server {
    pub(crate) fn new(
        config: Config,
        namespaces: HashMap<Box<str>, Namespace>,
        clusters: Vec<(Namespace, NamespaceCluster)>,
        dynamic: Arc<Dynamic>,
        bus: Arc<MessageBus>,
        instruments: Vec<Arc<dyn Instrument>>,
    ) -> Self {
        let (tasks, handlers, open) = (TaskTracker::new(), TaskTracker::new(), OpenConnections::default());
        let server = Self(Arc::new(Inner {
            config,
            namespaces,
            clusters,
            dynamic,
            bus,
            instruments,
            tasks,
            handlers,
            open,
        }));
        server.0.instruments.iter().for_each(|instrument| instrument.bind(server.downgrade()));
        server
    }

    /// Returns a static namespace.
    pub fn namespace(&self, path: &str) -> Option<&Namespace> {
        self.0.namespaces.get(path)
    }

    /// Returns all static namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.0.namespaces.values()
    }

    /// Returns the dynamic namespace with this name.
    pub fn dynamic_namespace(&self, name: &str) -> Option<DynamicNamespace> {
        self.0.dynamic.parent(name)
    }

    /// Returns the number of open connections on this node.
    pub fn connections(&self) -> usize {
        self.0.tasks.len()
    }

    /// Waits until no handler is pending. Their acks are in the outboxes by then.
    ///
    /// New events may start new handlers in the meantime, so the caller should set a timeout.
    pub async fn idle(&self) {
        self.0.handlers.close();
        self.0.handlers.wait().await;
    }

    /// Spawns a task for one connection. If the server is closed, the connection is closed at once.
    pub fn take(&self, connection: Connection) {
        self.0.tasks.spawn(ConnectionTask::new(self.0.clone(), connection));
    }

    /// Serves the connections of an engine until the engine or the server is closed, then waits for them to
    /// end.
    ///
    /// When the server is closed, it closes the engine, which then refuses new sessions.
    pub async fn serve(&self, engine: Engine) {
        self.listen_to_bus();
        engine.set_new_max(self.0.config.unjoined_max.max(1));
        let closed = self.0.open.closed();
        let mut closed = pin!(closed);
        loop {
            let next = tokio::select! {
                next = engine.accept() => next,
                () = &mut closed => None,
            };
            let Some(connection) = next else { break };
            self.take(connection);
        }
        engine.close();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.leave_bus().await;
    }

    /// Closes every connection after its outbox is sent, and waits until all have ended.
    ///
    /// Clients get no DISCONNECT packet, so stock clients reconnect by themselves. Handlers see
    /// [`crate::engine::CloseReason::ServerShutdown`].
    pub async fn close(&self) {
        self.0.open.close();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.leave_bus().await;
    }
}

/// A weak reference to a server.
pub(crate) struct WeakServer(Weak<Inner>);

impl WeakServer {
    pub(super) fn new(server: &Server) -> Self {
        Self(Arc::downgrade(&server.0))
    }

    pub(crate) fn upgrade(&self) -> Option<Server> {
        self.0.upgrade().map(Server)
    }
}
