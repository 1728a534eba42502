//! The server as a node of the cluster, and access to all its namespaces.

use std::sync::Arc;

use super::server::{Server, WeakServer};
use crate::node::NodeId;
use crate::socket::namespace::cluster_link::ClusterLink;
use crate::socket::namespace::namespace::Namespace;

impl Server {
    /// Returns the number of live nodes in the cluster, including this one.
    pub fn server_count(&self) -> usize {
        self.0.bus.others().len() + 1
    }

    /// Returns the id of this node.
    pub fn node(&self) -> NodeId {
        self.0.bus.node()
    }

    /// Whether there can be other nodes.
    pub(crate) fn reaches_others(&self) -> bool {
        self.0.bus.reaches_others()
    }

    /// Returns an existing namespace, static or dynamic.
    pub(crate) fn find(&self, path: &str) -> Option<Namespace> {
        self.namespace(path).cloned().or_else(|| self.0.dynamic.child(path))
    }

    /// Returns all existing namespaces, sorted by path.
    pub(crate) fn every_namespace(&self) -> Vec<Namespace> {
        let mut all: Vec<_> = self.namespaces().cloned().chain(self.0.dynamic.children()).collect();
        all.sort_unstable_by(|a, b| a.path().cmp(b.path()));
        all
    }

    pub(crate) fn downgrade(&self) -> WeakServer {
        WeakServer::new(self)
    }

    pub(crate) fn listen_to_bus(&self) {
        for namespace in self.0.namespaces.values() {
            self.0.bus.listen(namespace);
            if let Some(store) = namespace.delivery().shared() {
                store.start(Arc::new(namespace.clone()));
            }
        }
        let server = self.downgrade();
        self.0.bus.start(move |path| server.upgrade()?.find(path));
        self.0.instruments.iter().for_each(|instrument| instrument.clone().start());
    }

    /// Returns the tables of this node that grow and shrink: the name of each, its size and its bound.
    #[cfg(test)]
    pub(crate) fn tables(&self) -> Vec<(&'static str, usize, usize)> {
        let mut tables = self.0.bus.tables();
        for namespace in self.every_namespace() {
            tables.extend(namespace.delivery().shared().into_iter().flat_map(|store| store.tables()));
        }
        tables
    }

    /// Leaves the cluster. The other nodes have been notified when this returns.
    pub(crate) async fn leave_bus(&self) {
        self.0.instruments.iter().for_each(|instrument| instrument.stop());
        for store in self.0.namespaces.values().filter_map(|namespace| namespace.delivery().shared()) {
            store.stop().await;
        }
        self.0.bus.leave().await;
    }
}
