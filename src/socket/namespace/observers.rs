//! Observers of events: packet middleware and catch-all listeners, of a namespace or of one socket.
//!
//! Without observers, an event costs one load of a flag of its namespace.

use super::handlers::{Event, Handler, Listeners};
use super::namespace::Namespace;
use super::refusal::EventError;
use super::socket::Socket;
use crate::socket::codec::packet::Args;

/// Passes an event through listeners and middleware to its handler.
pub(crate) async fn handle_observed(namespace: Namespace, event: Event) {
    let socket = event.socket().clone();
    let of_socket = socket.listeners();
    let both = || [Some(namespace.listeners()), of_socket.as_ref()].into_iter().flatten();
    both().flat_map(|listeners| &listeners.incoming).for_each(|listener| listener(&event));
    let mut event = event;
    for step in both().flat_map(|listeners| &listeners.middleware) {
        match step(event).await {
            Ok(passed) => event = passed,
            Err(refusal) => return refuse(&namespace, &socket, &refusal),
        }
    }
    if socket.is_connected() {
        handle(&namespace, event).await;
    }
}

async fn handle(namespace: &Namespace, event: Event) {
    match namespace.events().get(event.name()) {
        Some(Handler::Sync(handler)) => handler(event),
        Some(Handler::Async(handler)) => handler(event).await,
        None => {
            tracing::debug!(socket_sid = event.socket().id(), event = &*event.logged_name(), "no handler")
        }
    }
}

/// Reports to the application that packet middleware refused an event.
pub(crate) fn refuse(namespace: &Namespace, socket: &Socket, refusal: &EventError) {
    tracing::debug!(socket_sid = socket.id(), message = refusal.message, "event refused");
    if let Some(hook) = &namespace.hooks().refused {
        hook(socket, refusal);
    }
}

/// Shows an event to all listeners for what is sent to this socket.
pub(crate) fn show_outgoing(socket: &Socket, args: &Args) {
    let of_socket = socket.listeners();
    let of_socket = of_socket.iter().flat_map(|listeners| &listeners.outgoing);
    let of_namespace = &socket.namespace().listeners().outgoing;
    of_namespace.iter().chain(of_socket).for_each(|listener| listener(socket, args));
}

impl Socket {
    /// Adds packet middleware for this socket only; it runs after that of the namespace. See
    /// [`NamespaceBuilder::packet_middleware`](crate::socket::NamespaceBuilder::packet_middleware).
    pub fn packet_middleware<F, Fut>(&self, step: F)
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, EventError>> + Send + 'static,
    {
        self.listen(|listeners| listeners.add_middleware(step));
    }

    /// Adds a listener for every event of this client. It runs before packet middleware and handlers.
    pub fn on_any(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.listen(|listeners| listeners.incoming.push(std::sync::Arc::new(listener)));
    }

    /// Adds a listener for every event that is sent to this client, except acks.
    pub fn on_any_outgoing(&self, listener: impl Fn(&Socket, &Args) + Send + Sync + 'static) {
        self.listen(|listeners| listeners.outgoing.push(std::sync::Arc::new(listener)));
    }

    /// Removes all packet middleware and listeners of this socket.
    pub fn off_any(&self) {
        self.listen(|listeners| *listeners = Listeners::default());
    }
}
