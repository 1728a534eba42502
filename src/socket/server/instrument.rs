//! Instruments: they watch the namespaces of a server, and have one of their own.

use std::sync::Arc;

use super::server::WeakServer;
use crate::socket::namespace::builder::NamespaceBuilder;

/// Something that watches a server. A server without one has nothing of it: no hook, no flag, no field in a connection.
pub(crate) trait Instrument: Send + Sync {
    /// Path of its namespace.
    fn path(&self) -> &str;

    /// What its namespace does.
    fn describe(self: Arc<Self>) -> NamespaceBuilder;

    /// Adds to a namespace what it wants to see of it; without a path, to those that are made on demand.
    fn observe(self: Arc<Self>, path: Option<&str>, builder: &mut NamespaceBuilder);

    /// The server exists.
    fn bind(&self, server: WeakServer);

    /// Clients may come.
    fn start(self: Arc<Self>);

    /// The server ends.
    fn stop(&self);
}
