//! Those who see every packet: packet middleware and catch-all listeners, of a namespace or of one socket.
//!
//! Where nobody listens, an event costs one load of a flag of its namespace.

use std::fmt;
use std::sync::Arc;

use tungstenite::Utf8Bytes;

use super::events::{BoxFuture, Event, EventError};
use super::namespace::Namespace;
use super::socket::Socket;
use crate::engine::Message;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::packet::{Args, PacketBody};
use crate::socket::codec::parser::{Decoder, Frames, Limits};

type Middleware = Arc<dyn Fn(Event) -> BoxFuture<Result<Event, EventError>> + Send + Sync>;
type Incoming = Arc<dyn Fn(&Event) + Send + Sync>;
type Outgoing = Arc<dyn Fn(&Socket, &Args) + Send + Sync>;

/// Middleware and listeners in the order they were added.
#[derive(Default, Clone)]
pub(crate) struct Listeners {
    middleware: Vec<Middleware>,
    incoming: Vec<Incoming>,
    outgoing: Vec<Outgoing>,
}

impl Listeners {
    pub(crate) fn add_middleware<F, Fut>(&mut self, step: F)
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, EventError>> + Send + 'static,
    {
        self.middleware.push(Arc::new(move |event| Box::pin(step(event))));
    }

    pub(crate) fn add_incoming(&mut self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.incoming.push(Arc::new(listener));
    }

    pub(crate) fn add_outgoing(&mut self, listener: impl Fn(&Socket, &Args) + Send + Sync + 'static) {
        self.outgoing.push(Arc::new(listener));
    }

    /// Whether anybody wants to see what clients send.
    pub(crate) fn watch_incoming(&self) -> bool {
        !self.middleware.is_empty() || !self.incoming.is_empty()
    }

    /// Whether anybody wants to see what is sent to clients.
    pub(crate) fn watch_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [self.middleware.len(), self.incoming.len(), self.outgoing.len()];
        formatter.debug_tuple("Listeners").field(&counts).finish()
    }
}

/// One event on its way through listeners and middleware to its handler.
pub(crate) async fn handle_watched(namespace: Namespace, event: Event) {
    let socket = event.socket().clone();
    let of_socket = socket.listeners();
    let both = || [Some(namespace.listeners()), of_socket.as_ref()].into_iter().flatten();
    both().flat_map(|listeners| &listeners.incoming).for_each(|listener| listener(&event));
    let mut event = event;
    for step in both().flat_map(|listeners| &listeners.middleware) {
        match step(event).await {
            Ok(passed) => event = passed,
            Err(refusal) => return refused(&namespace, &socket, &refusal),
        }
    }
    if socket.is_connected() {
        namespace.events().handle(event).await;
    }
}

fn refused(namespace: &Namespace, socket: &Socket, refusal: &EventError) {
    tracing::debug!(socket_sid = socket.id(), message = refusal.message, "event refused");
    if let Some(hook) = &namespace.hooks().refused {
        hook(socket, refusal);
    }
}

/// Shows an event to everybody who watches what is sent to this socket.
pub(crate) fn show_outgoing(socket: &Socket, args: &Args) {
    let of_socket = socket.listeners();
    let of_socket = of_socket.iter().flat_map(|listeners| &listeners.outgoing);
    let of_namespace = &socket.namespace().listeners().outgoing;
    of_namespace.iter().chain(of_socket).for_each(|listener| listener(socket, args));
}

/// Name and arguments of an encoded event. Attachments are shared.
pub(crate) fn args_of(frames: &Frames) -> ImksResult<Args> {
    let mut decoder = Decoder::new(Limits { attachments_max: usize::MAX, attachment_bytes_max: usize::MAX });
    for frame in frames {
        let payload = frame.wire().slice_ref(frame.payload());
        let message = match frame.is_binary() {
            true => Message::Binary(payload),
            false => Message::Text(text_of(payload.slice(1.min(payload.len())..))?),
        };
        if let Some(packet) = decoder.add(message)?
            && let PacketBody::Event(_, args) = packet.body
        {
            return Ok(args);
        }
    }
    Err(ImksError::Internal("encoded packet is no event"))
}

fn text_of(bytes: bytes::Bytes) -> ImksResult<Utf8Bytes> {
    Utf8Bytes::try_from(bytes).map_err(|_| ImksError::Internal("encoded packet is not UTF-8"))
}
