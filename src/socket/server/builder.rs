//! What a server does, said before clients may come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::dynamic::{Dynamic, DynamicLimits, NamespaceMatch, NewNamespaceHook, Parent};
use super::server::Server;
use crate::error::{ImksError, ImksResult};
use crate::socket::adapter::Adapter;
use crate::socket::admin::{self, Admin};
use crate::socket::cluster::message_bus::MessageBus;
use crate::socket::codec::dialect::Parser;
use crate::socket::codec::parser::Limits;
use crate::socket::namespace::builder::NamespaceBuilder;
use crate::socket::namespace::namespace::{Namespace, check_path};
use crate::socket::recovery::session_store::{Recovery, SessionStore};

/// What a server can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// A connection that has joined no namespace by then is closed.
    pub connect_timeout: Duration,
    /// Encoding of packets; clients must be set to the same.
    pub parser: Parser,
    /// Attachments of one packet.
    pub limits: Limits,
    /// Clients that lost their connection may come back to their session; not when absent.
    pub recovery: Option<Recovery>,
    /// Handlers of one connection that may be waiting at once; then the connection is not read from.
    pub events_in_flight_max: usize,
    /// Namespaces that clients may cause to exist at once on this node; then [`NamespaceMatch`]es are refused.
    pub dynamic_namespaces_max: usize,
    /// Whether a dynamic namespace ends with its last socket. Without it, it stays until the server ends.
    pub cleanup_empty_child_namespaces: bool,
    /// How long other nodes are waited for, where the caller gives no time of its own.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(45),
            parser: Parser::default(),
            limits: Limits::default(),
            recovery: None,
            events_in_flight_max: 64,
            dynamic_namespaces_max: 10_000,
            cleanup_empty_child_namespaces: false,
            request_timeout: Duration::from_secs(5),
        }
    }
}

/// Collects namespaces; nothing can be added once clients may come.
pub struct ServerBuilder {
    config: Config,
    adapter: Arc<dyn Adapter>,
    namespaces: Vec<(String, NamespaceBuilder)>,
    parents: Vec<(String, NamespaceMatch, NamespaceBuilder)>,
    admin: Option<admin::Config>,
    on_new_namespace: Option<NewNamespaceHook>,
}

impl ServerBuilder {
    pub(crate) fn new(config: Config, adapter: Arc<dyn Adapter>) -> Self {
        Self {
            config,
            adapter,
            namespaces: Vec::new(),
            parents: Vec::new(),
            admin: None,
            on_new_namespace: None,
        }
    }

    /// Describes a namespace. A path that is given twice gets the later description.
    pub fn namespace(mut self, path: &str, describe: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        let mut builder = NamespaceBuilder::default();
        describe(&mut builder);
        self.namespaces.push((path.to_owned(), builder));
        self
    }

    /// Describes namespaces that are made on demand: when a client asks for a path that nobody described by name,
    /// the dynamic namespaces are tried in the order given. `name` is for [`Server::dynamic_namespace`].
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

    /// Hears of every namespace that is made on demand, before its first socket is in it.
    pub fn on_new_namespace(mut self, hook: impl Fn(&Namespace) + Send + Sync + 'static) -> Self {
        self.on_new_namespace = Some(Box::new(hook));
        self
    }

    /// Lets the stock Admin UI see this server, and do something to it; see [`admin`].
    pub fn instrument(mut self, admin: admin::Config) -> Self {
        self.admin = Some(admin);
        self
    }

    /// The server, ready to serve an engine.
    ///
    /// # Errors
    /// [`ImksError::Namespace`] for a path that breaks the rules,
    /// [`ImksError::Config`] for an Admin UI that cannot work.
    pub fn build(mut self) -> ImksResult<Server> {
        let admin = self.admin.take().map(Admin::new).transpose()?;
        if let Some(admin) = &admin {
            self.observe(admin)?;
        }
        let bus = Arc::new(MessageBus::new(self.adapter, self.config.request_timeout)?);
        let mut namespaces = HashMap::new();
        for (path, builder) in self.namespaces {
            check_path(&path)?;
            // What a page missed, it is told anew.
            let recovers = admin.as_ref().is_none_or(|admin| admin.path() != path);
            let recovery = self.config.recovery.as_ref().filter(|_| recovers);
            let sessions = recovery.map(SessionStore::new).transpose()?;
            let namespace = Namespace::new(&path, Arc::new(builder.build()), bus.clone(), None, sessions);
            namespaces.insert(path.into_boxed_str(), namespace);
        }
        let parent = |(name, rule, builder): (_, _, NamespaceBuilder)| Parent {
            name,
            rule,
            description: Arc::new(builder.build()),
        };
        let parents = self.parents.into_iter().map(parent).collect();
        let limits = DynamicLimits {
            children_max: self.config.dynamic_namespaces_max,
            cleanup: self.config.cleanup_empty_child_namespaces,
            recovery: self.config.recovery.clone(),
        };
        let dynamic = Dynamic::new(parents, limits, self.on_new_namespace, bus.clone());
        Ok(Server::new(self.config, namespaces, dynamic, bus, admin))
    }

    /// The namespace of the Admin UI, and what it wants to see of the others.
    fn observe(&mut self, admin: &Arc<Admin>) -> ImksResult<()> {
        if self.namespaces.iter().any(|(path, _)| path == admin.path()) {
            return Err(ImksError::Config(format!("{} is the namespace of the Admin UI", admin.path())));
        }
        self.namespaces.push((admin.path().to_owned(), admin.describe()));
        for (path, builder) in &mut self.namespaces {
            admin.observe(Some(path), builder);
        }
        self.parents.iter_mut().for_each(|(_, _, builder)| admin.observe(None, builder));
        Ok(())
    }
}
