//! A server as the other parts see it: one of several nodes, and the keeper of its namespaces.

use std::sync::{Arc, Weak};

use super::server::{Inner, Server};
use crate::socket::admin::Admin;
use crate::socket::namespace::namespace::Namespace;
use crate::socket::socket_id::NodeId;

/// A server that may have ended.
pub(crate) struct WeakServer(Weak<Inner>);

impl WeakServer {
    pub(crate) fn upgrade(&self) -> Option<Server> {
        self.0.upgrade().map(Server)
    }
}

impl Server {
    /// Nodes of the cluster that gave a sign of life lately, this one included.
    pub fn server_count(&self) -> usize {
        self.0.bus.cluster().others().len() + 1
    }

    /// Name of this node among the others.
    pub fn node(&self) -> NodeId {
        self.0.bus.cluster().node
    }

    /// Whether there can be other nodes.
    pub(crate) fn reaches_others(&self) -> bool {
        self.0.bus.reaches_others()
    }

    /// A namespace that exists now, described by name or not.
    pub(crate) fn find(&self, path: &str) -> Option<Namespace> {
        self.namespace(path).cloned().or_else(|| self.0.dynamic.child(path))
    }

    /// All namespaces that exist now, by path.
    pub(crate) fn every_namespace(&self) -> Vec<Namespace> {
        let mut all: Vec<_> = self.namespaces().cloned().chain(self.0.dynamic.children()).collect();
        all.sort_unstable_by(|a, b| a.path().cmp(b.path()));
        all
    }

    pub(crate) fn downgrade(&self) -> WeakServer {
        WeakServer(Arc::downgrade(&self.0))
    }

    pub(crate) fn listen_to_bus(&self) {
        self.0.namespaces.values().for_each(|namespace| self.0.bus.listen(namespace));
        let server = self.downgrade();
        self.0.bus.cluster().start(move |path| server.upgrade()?.find(path));
        self.0.admin.iter().for_each(Admin::start);
    }

    pub(crate) fn leave_bus(&self) {
        self.every_namespace().iter().for_each(|namespace| self.0.bus.unlisten(namespace.path()));
        self.0.bus.cluster().stop();
        self.0.admin.iter().for_each(|admin| admin.stop());
    }
}
