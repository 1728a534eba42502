//! The cluster of one namespace: that of all other namespaces of the server, or one that it shares with Node.js servers.

use std::sync::Arc;
use std::time::Duration;

use super::classic::ClassicLink;
use super::message_bus::MessageBus;
use crate::bus::Pipe;
use crate::error::ImksResult;
use crate::socket::namespace::cluster_link::ClusterLink;
use crate::socket::namespace::namespace::Namespace;

/// The cluster of one namespace. Cheap to clone.
#[derive(Clone)]
pub(crate) enum NamespaceCluster {
    Imks(Arc<MessageBus>),
    Classic(ClassicLink),
}

impl NamespaceCluster {
    /// Returns the cluster of a namespace: that of its own pipe to Node.js servers, if it has one.
    pub(crate) fn of(
        path: &str,
        classic: Option<&Arc<dyn Pipe>>,
        bus: &Arc<MessageBus>,
        request_timeout: Duration,
    ) -> ImksResult<Self> {
        match classic {
            Some(pipe) => {
                ClassicLink::new(bus.node(), path, pipe.clone(), request_timeout).map(Self::Classic)
            }
            None => Ok(Self::Imks(bus.clone())),
        }
    }

    /// Returns the link that the namespace uses.
    pub(crate) fn link(&self) -> Arc<dyn ClusterLink> {
        match self {
            Self::Imks(bus) => bus.clone(),
            Self::Classic(link) => Arc::new(link.clone()),
        }
    }

    /// Starts to apply what other nodes send to this namespace.
    pub(crate) fn listen(&self, namespace: &Namespace) {
        match self {
            Self::Imks(bus) => bus.listen(namespace),
            Self::Classic(link) => link.listen(namespace),
        }
    }

    /// Stops applying what other nodes send to this namespace.
    pub(crate) fn unlisten(&self, path: &str) {
        match self {
            Self::Imks(bus) => bus.unlisten(path),
            Self::Classic(link) => link.unlisten(),
        }
    }

    /// Leaves a cluster with Node.js servers. The server itself leaves that of all other namespaces.
    pub(crate) async fn leave(&self) {
        if let Self::Classic(link) = self {
            link.leave().await;
        }
    }
}
