//! A server as the other parts see it: one of several nodes, and the keeper of its namespaces.

use super::server::{Server, WeakServer};
use crate::node::NodeId;
use crate::socket::namespace::cluster_link::ClusterLink;
use crate::socket::namespace::namespace::Namespace;

impl Server {
    /// Nodes of the cluster that gave a sign of life lately, this one included.
    pub fn server_count(&self) -> usize {
        self.0.bus.others().len() + 1
    }

    /// Name of this node among the others.
    pub fn node(&self) -> NodeId {
        self.0.bus.node()
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
        WeakServer::new(self)
    }

    pub(crate) fn listen_to_bus(&self) {
        self.0.namespaces.values().for_each(|namespace| self.0.bus.listen(namespace));
        let server = self.downgrade();
        self.0.bus.start(move |path| server.upgrade()?.find(path));
        self.0.instruments.iter().for_each(|instrument| instrument.clone().start());
    }

    /// Leaves the cluster in order: the other nodes know of it when this returns.
    pub(crate) async fn leave_bus(&self) {
        self.0.instruments.iter().for_each(|instrument| instrument.stop());
        self.0.bus.leave().await;
    }
}
