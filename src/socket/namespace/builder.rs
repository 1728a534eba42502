//! The builder of a namespace, which is complete before its server is built.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connect::{Accept, ConnectPayload};
use super::handlers::{Ack, Event, Handler, Handlers, Hooks, RoomChange, ServerEvent};
use super::refusal::{ConnectError, EventError};
use super::socket::Socket;
use crate::bus::Pipe;
use crate::engine::WhenFull;
use crate::socket::codec::packet::Args;
use crate::socket::data::RestoreValue;
use crate::socket::reason::DisconnectReason;

/// The builder of a namespace: its hooks, handlers and middleware.
#[derive(Default)]
pub struct NamespaceBuilder(Handlers);

impl NamespaceBuilder {
    /// Sets the hook that decides whether a client may join. It is the place to authenticate and to join
    /// rooms.
    ///
    /// The hook runs before the CONNECT reply. What is sent to the socket meanwhile is buffered until after
    /// the reply, and packets of the client wait as well.
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

    /// Sets the hook that runs right after the CONNECT reply, before the client's first event.
    pub fn on_connected<F, Fut>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.hooks.connected = Some(Box::new(move |socket| Box::pin(hook(socket))));
        self
    }

    /// Sets the hook that runs when a client leaves, while it is still in its rooms.
    pub fn on_disconnecting(
        &mut self,
        hook: impl Fn(&Socket, DisconnectReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.disconnecting = Some(Box::new(hook));
        self
    }

    /// Sets the hook that runs after a client has left the namespace and its rooms.
    pub fn on_disconnect(
        &mut self,
        hook: impl Fn(&Socket, DisconnectReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.disconnected = Some(Box::new(hook));
        self
    }

    /// Sets what happens with the events of this namespace for a client that reads too slowly. By default its connection is
    /// closed.
    ///
    /// With a policy that drops, clients miss events without knowing it, so their sessions are not recovered. Acks and the
    /// end of the namespace are never dropped; with [`WhenFull::DropOldest`] they go before events that wait.
    /// Lanes and keys of the latest state do not matter then.
    pub fn when_full(&mut self, policy: WhenFull) -> &mut Self {
        self.0.hooks.when_full = policy;
        self
    }

    /// Shares the namespace with Node.js servers that use `createAdapter` of npm `@socket.io/redis-adapter`, and with
    /// programs that use `@socket.io/redis-emitter`. `adapter` is a pipe of `imks::socket::adapter::redis::classic`, which
    /// several namespaces of one server can have in common.
    ///
    /// Whoever may publish in that Redis can send to every client of the namespace. Node.js servers do not say who they are, so
    /// the ids of nodes in answers and in lists of silent ones only stand for their number. Sessions of clients stay in the memory of
    /// this node, and keys of the latest state and lanes of events do not reach other nodes.
    pub fn classic(&mut self, adapter: Arc<dyn Pipe>) -> &mut Self {
        self.0.hooks.classic = Some(adapter);
        self
    }

    /// Sets the function that returns what other nodes may see of a socket as `data.NAME` of a
    /// [`RemoteSocket`](crate::socket::RemoteSocket). It is called only when somebody looks, so it costs a socket
    /// nothing, unlike [`Socket::share_data`].
    pub fn describe<T: Serialize>(
        &mut self,
        name: &'static str,
        value: impl Fn(&Socket) -> Option<T> + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.described = Some(Box::new(move |socket| {
            // A value that is no JSON is not shown.
            Some((name, serde_json::to_value(value(socket)?).ok()?))
        }));
        self
    }

    /// Keeps values that are attached with [`Socket::share_data`] under this name when another node continues the
    /// session of a client ([`ServerBuilder::recovery_log`](crate::socket::ServerBuilder::recovery_log)). Other values of a
    /// socket are not there any more then.
    pub fn recover_data<T: DeserializeOwned + Send + Sync + 'static>(
        &mut self,
        name: &'static str,
    ) -> &mut Self {
        let restore: RestoreValue = Box::new(|value| {
            let value = T::deserialize(value).ok()?;
            Some(Arc::new(value))
        });
        self.0.hooks.restored.insert(name, restore);
        self
    }

    /// Sets the asynchronous handler of an event.
    ///
    /// The handlers of one connection start in the order in which its events arrived. A handler that waits
    /// does not delay the next one.
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

    /// Sets the synchronous handler of an event, which cannot wait. It is the cheapest kind of handler.
    pub fn on_sync(&mut self, event: &str, handler: impl Fn(Event) + Send + Sync + 'static) -> &mut Self {
        self.0.events.by_name.insert(event.into(), Handler::Sync(Box::new(handler)));
        self
    }

    /// Sets the handler of events that have no handler of their own. Without it they are ignored.
    pub fn on_unknown<F, Fut>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.events.fallback = Some(Handler::Async(Box::new(move |event| Box::pin(handler(event)))));
        self
    }

    /// Adds middleware that runs before the connect hook, in the order added. The first error refuses the
    /// client.
    pub fn middleware<F, Fut>(&mut self, step: F) -> &mut Self
    where
        F: Fn(Socket, ConnectPayload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.0.hooks.middleware.push(Arc::new(move |socket, payload| Box::pin(step(socket, payload))));
        self
    }

    /// Adds packet middleware, which sees every event of a client before its handler, in the order added.
    ///
    /// It passes the event on, replaces it or refuses it. Middleware that waits does not delay later events,
    /// which may then overtake.
    pub fn packet_middleware<F, Fut>(&mut self, step: F) -> &mut Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, EventError>> + Send + 'static,
    {
        self.0.listeners.add_middleware(step);
        self
    }

    /// Adds a listener for every event that clients send. It runs before packet middleware and handlers.
    pub fn on_any(&mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> &mut Self {
        self.0.listeners.incoming.push(Arc::new(listener));
        self
    }

    /// Adds a listener for every event that is sent to a client. It runs once per client, and not for acks.
    pub fn on_any_outgoing(
        &mut self,
        listener: impl Fn(&Socket, &Args) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.listeners.outgoing.push(Arc::new(listener));
        self
    }

    /// Sets the hook for events that packet middleware refused, that exceed a limit of the server, or whose arguments
    /// are not those of their [typed handler](NamespaceBuilder::on_typed). The reference calls this the `error`
    /// event.
    pub fn on_event_refused(
        &mut self,
        hook: impl Fn(&Socket, &EventError) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.refused = Some(Box::new(hook));
        self
    }

    /// Sets the answer to events that exceed a limit of the server, which no handler gets. There is no ack if
    /// the client asked for none. By default an ack is `{"error":{"message":…}}`.
    pub fn answer_refused_events(
        &mut self,
        answer: impl Fn(&Socket, &EventError, Option<Ack>) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.refused_answer = Some(Box::new(answer));
        self
    }

    /// Sets the hook for sockets that enter or leave rooms on this node. A socket's own room is not reported.
    pub fn on_room_change(
        &mut self,
        hook: impl Fn(&Socket, RoomChange<'_>) + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.hooks.room = Some(Box::new(hook));
        self
    }

    /// Sets the handler of an event that another node sends with
    /// [`Namespace::server_side_emit`](crate::socket::Namespace).
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
