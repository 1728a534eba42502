//! Instruments, which watch the namespaces of a server and have a namespace of their own.

use std::sync::Arc;

use super::server::WeakServer;
use crate::socket::namespace::builder::NamespaceBuilder;

/// An observer of a server. A server without instruments has no overhead for them.
pub(crate) trait Instrument: Send + Sync {
    /// Returns the path of the instrument's own namespace.
    fn path(&self) -> &str;

    /// Describes the instrument's own namespace.
    fn describe(self: Arc<Self>) -> NamespaceBuilder;

    /// Adds observers to a namespace. Without a path, it is the template of a dynamic namespace.
    fn observe(self: Arc<Self>, path: Option<&str>, builder: &mut NamespaceBuilder);

    /// Called when the server has been built.
    fn bind(&self, server: WeakServer);

    /// Called when the server starts to serve.
    fn start(self: Arc<Self>);

    /// Called when the server ends.
    fn stop(&self);
}
