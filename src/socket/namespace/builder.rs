//! The description of a namespace, complete before its server is built.

use std::fmt;
use std::sync::Arc;

use super::connect::{Accept, ConnectPayload};
use super::handlers::{Event, Handler, Handlers, Hooks, RoomChange, ServerEvent};
use super::refusal::{ConnectError, EventError};
use super::socket::Socket;
use crate::socket::codec::packet::Args;
use crate::socket::reason::DisconnectReason;

/// Says what a namespace does, before its server is built.
#[derive(Default)]
pub struct NamespaceBuilder(Handlers);

impl NamespaceBuilder {
    /// Decides whether a client may join. Runs before the CONNECT reply: authenticate here, join rooms here; what
    /// is sent to the socket meanwhile waits behind the reply. Packets of the client wait as well.
    pub fn on_connect<F, Fut, A>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Socket, ConnectPayload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, ConnectError>> + Send + 'static,
        A: Into<Accept>,
    {
        self.0.hooks.connect = Some(Box::new(move |socket, payload| {
            let joining = hook(socket, payload);
            Box::pin(async move { joining.await.map(Into::into) })
        }));
        self
    }

    /// Runs right after the CONNECT reply, before the client's first event.
    pub fn on_connected<F, Fut>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.hooks.connected = Some(Box::new(move |socket| Box::pin(hook(socket))));
        self
    }

    /// Runs when a client goes, while it is still in its rooms.
    pub fn on_disconnecting(
        &mut self,
        hook: impl Fn(&Socket, DisconnectReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.disconnecting = Some(Box::new(hook));
        self
    }

    /// Runs when a client has gone and left its rooms.
    pub fn on_disconnect(
        &mut self,
        hook: impl Fn(&Socket, DisconnectReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.disconnected = Some(Box::new(hook));
        self
    }

    /// Handles an event. Handlers of one connection start in the order its events arrived; one that waits does not
    /// hold up the next.
    pub fn on<F, Fut>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0
            .events
            .by_name
            .insert(event.into(), Handler::Async(Box::new(move |event| Box::pin(handler(event)))));
        self
    }

    /// Handles an event without ever waiting: the cheapest way.
    pub fn on_sync(&mut self, event: &str, handler: impl Fn(Event) + Send + Sync + 'static) -> &mut Self {
        self.0.events.by_name.insert(event.into(), Handler::Sync(Box::new(handler)));
        self
    }

    /// Handles events that have no handler of their own; without it they are ignored.
    pub fn on_unknown<F, Fut>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.events.fallback = Some(Handler::Async(Box::new(move |event| Box::pin(handler(event)))));
        self
    }

    /// Runs before the connect hook, in the order given; the first error refuses the client with it.
    pub fn middleware<F, Fut>(&mut self, step: F) -> &mut Self
    where
        F: Fn(Socket, ConnectPayload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.0.hooks.middleware.push(Arc::new(move |socket, payload| Box::pin(step(socket, payload))));
        self
    }

    /// Sees every event of a client before its handler, in the order given: passes it on, replaces it, or refuses
    /// it. A step that waits does not hold up the events behind it, which may then overtake.
    pub fn packet_middleware<F, Fut>(&mut self, step: F) -> &mut Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, EventError>> + Send + 'static,
    {
        self.0.listeners.add_middleware(step);
        self
    }

    /// Sees every event that clients send, before packet middleware and handlers.
    pub fn on_any(&mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> &mut Self {
        self.0.listeners.incoming.push(Arc::new(listener));
        self
    }

    /// Sees every event that is sent to a client, once per client; acks aside.
    pub fn on_any_outgoing(
        &mut self,
        listener: impl Fn(&Socket, &Args) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.listeners.outgoing.push(Arc::new(listener));
        self
    }

    /// Hears of events that packet middleware refused. The reference calls this the `error` event.
    pub fn on_event_refused(
        &mut self,
        hook: impl Fn(&Socket, &EventError) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.refused = Some(Box::new(hook));
        self
    }

    /// Hears of sockets entering and leaving rooms on this node; their own rooms aside.
    pub fn on_room_change(
        &mut self,
        hook: impl Fn(&Socket, RoomChange<'_>) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.room = Some(Box::new(hook));
        self
    }

    /// Handles an event that another node sends with [`Namespace::server_side_emit`](crate::socket::Namespace).
    pub fn on_server_event<F, Fut>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(ServerEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.server_events.insert(event.into(), Arc::new(move |event| Box::pin(handler(event))));
        self
    }

    pub(crate) fn hooks_mut(&mut self) -> &mut Hooks {
        &mut self.0.hooks
    }

    pub(crate) fn build(self) -> Handlers {
        self.0
    }
}

impl fmt::Debug for NamespaceBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("NamespaceBuilder").field(&self.0.events).finish()
    }
}
