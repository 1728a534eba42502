//! The builder of a server, which is complete before clients may connect.

use std::collections::HashMap;
use std::sync::Arc;

use super::config::Config;
use super::dynamic::{Dynamic, DynamicLimits, NamespaceMatch, NewNamespaceHook, Parent};
use super::instrument::Instrument;
use super::server::Server;
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::adapter::Adapter;
use crate::socket::adapter::local::LocalAdapter;
use crate::socket::cluster::family::Imks;
use crate::socket::cluster::message_bus::MessageBus;
use crate::socket::cluster::namespace_cluster::NamespaceCluster;
use crate::socket::namespace::builder::NamespaceBuilder;
use crate::socket::namespace::delivery::Delivery;
use crate::socket::namespace::namespace::{Namespace, check_path};
use crate::socket::recovery::log::RecoveryLog;
use crate::socket::recovery::session_store::SharedLog;

/// The builder of a server. Namespaces cannot be added after the server is built.
pub struct ServerBuilder {
    config: Config,
    adapter: Arc<dyn Adapter>,
    node: Option<NodeId>,
    namespaces: Vec<(String, NamespaceBuilder)>,
    parents: Vec<(String, NamespaceMatch, NamespaceBuilder)>,
    instruments: Vec<MakeInstrument>,
    recovery_log: Option<Arc<dyn RecoveryLog>>,
    on_new_namespace: Option<NewNamespaceHook>,
}

/// A constructor of an instrument, called when the server is built.
type MakeInstrument = Box<dyn FnOnce() -> ImksResult<Arc<dyn Instrument>> + Send>;

impl Server {
    /// Starts the configuration of a server.
    pub fn builder(config: Config) -> ServerBuilder {
        ServerBuilder {
            config,
            adapter: Arc::new(LocalAdapter),
            node: None,
            namespaces: Vec::new(),
            parents: Vec::new(),
            instruments: Vec::new(),
            recovery_log: None,
            on_new_namespace: None,
        }
    }
}

impl ServerBuilder {
    /// Connects the server to others through an adapter. Without one, the server is alone.
    pub fn adapter(mut self, adapter: Arc<dyn Adapter>) -> Self {
        self.adapter = adapter;
        self
    }

    /// Keeps the sessions of clients in a log that all nodes share, so that a client which comes back to another node
    /// continues its session, also if its node has died. Needs [`Config::recovery`], and an adapter if there are other
    /// nodes. Without a log, sessions are in memory.
    ///
    /// Events then reach clients when they are in the log: everybody gets them in the same order, and nobody while the log
    /// is away. Volatile and local events, and those with an ack, are not in it. Namespaces created on demand keep their
    /// sessions in memory.
    pub fn recovery_log(mut self, log: Arc<dyn RecoveryLog>) -> Self {
        self.recovery_log = Some(log);
        self
    }

    /// Sets the id of the node. By default, the server generates one.
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// Adds a namespace. If a path is added twice, the later one wins.
    pub fn namespace(mut self, path: &str, describe: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        let mut builder = NamespaceBuilder::default();
        describe(&mut builder);
        self.namespaces.push((path.to_owned(), builder));
        self
    }

    /// Adds a dynamic namespace, whose children are created on demand.
    ///
    /// When a client asks for a path that is not a static namespace, the dynamic namespaces are tried in the
    /// order added. `name` identifies this one for [`Server::dynamic_namespace`].
    pub fn dynamic_namespace(
        mut self,
        name: &str,
        paths: impl Into<NamespaceMatch>,
        describe: impl FnOnce(&mut NamespaceBuilder),
    ) -> Self {
        let mut builder = NamespaceBuilder::default();
        describe(&mut builder);
        self.parents.push((name.to_owned(), paths.into(), builder));
        self
    }

    /// Sets the hook for namespaces created on demand. It runs before the first socket joins the namespace.
    pub fn on_new_namespace(mut self, hook: impl Fn(&Namespace) + Send + Sync + 'static) -> Self {
        self.on_new_namespace = Some(Box::new(hook));
        self
    }

    /// Adds an instrument, which watches the namespaces of the server.
    pub(crate) fn instrument_with(
        mut self,
        make: impl FnOnce() -> ImksResult<Arc<dyn Instrument>> + Send + 'static,
    ) -> Self {
        self.instruments.push(Box::new(make));
        self
    }

    /// Builds the server.
    ///
    /// # Errors
    /// [`ImksError::Namespace`] for an invalid path, and [`ImksError::Config`] for an Admin UI that cannot
    /// work.
    pub fn build(mut self) -> ImksResult<Server> {
        let instruments = std::mem::take(&mut self.instruments);
        let instruments = instruments.into_iter().map(|make| make()).collect::<ImksResult<Vec<_>>>()?;
        for instrument in &instruments {
            self.observe(instrument)?;
        }
        let node = self.node.map_or_else(NodeId::random, Ok)?;
        let timeout = self.config.request_timeout;
        let bus = Arc::new(MessageBus::new(node, self.adapter, Arc::new(Imks), timeout)?);
        let (mut namespaces, mut clusters) = (HashMap::new(), Vec::new());
        for (path, builder) in self.namespaces {
            check_path(&path)?;
            // Instruments send a page the whole state when it reconnects, so they need no recovery.
            let is_watching = instruments.iter().any(|instrument| instrument.path() == path);
            let handlers = Arc::new(builder.build());
            let recovers = !is_watching && handlers.hooks.never_drops();
            let recovery = self.config.recovery.as_ref().filter(|_| recovers);
            let classic = handlers.hooks.classic.as_ref();
            let has_log = classic.is_none() && handlers.hooks.never_drops();
            let shared = self.recovery_log.clone().filter(|_| has_log);
            let shared = shared.map(|log| SharedLog::new(log, &path)).transpose()?;
            let delivery = Delivery::new(recovery, shared)?;
            let cluster = NamespaceCluster::of(&path, classic, &bus, timeout)?;
            let namespace = Namespace::new(&path, handlers.clone(), cluster.link(), delivery, None);
            clusters.push((namespace.clone(), cluster));
            namespaces.insert(path.into_boxed_str(), namespace);
        }
        let parent = |(name, rule, builder): (_, _, NamespaceBuilder)| Parent {
            name,
            rule,
            handlers: Arc::new(builder.build()),
        };
        let parents = self.parents.into_iter().map(parent).collect();
        let limits = DynamicLimits {
            children_max: self.config.dynamic_namespaces_max,
            cleanup: self.config.cleanup_empty_child_namespaces,
            recovery: self.config.recovery.clone(),
            request_timeout: timeout,
        };
        let dynamic = Dynamic::new(parents, limits, self.on_new_namespace, bus.clone());
        Ok(Server::new(self.config, namespaces, clusters, dynamic, bus, instruments))
    }

    /// Adds the namespace of an instrument, and its observers in the other namespaces.
    fn observe(&mut self, instrument: &Arc<dyn Instrument>) -> ImksResult<()> {
        let path = instrument.path();
        if self.namespaces.iter().any(|(known, _)| known == path) {
            return Err(ImksError::Config(format!("the namespace {path} is taken")));
        }
        self.namespaces.push((path.to_owned(), instrument.clone().describe()));
        for (path, builder) in &mut self.namespaces {
            instrument.clone().observe(Some(path), builder);
        }
        self.parents.iter_mut().for_each(|(_, _, builder)| instrument.clone().observe(None, builder));
        Ok(())
    }
}
