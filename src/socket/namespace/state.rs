//! Handlers with the state of the application: what a server's own program keeps, as one more argument.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::builder::NamespaceBuilder;
use super::connect::{Accept, ConnectPayload};
use super::handlers::Event;
use super::refusal::{ConnectError, EventError};
use super::socket::Socket;
use super::typed::IntoAck;
use crate::socket::reason::DisconnectReason;

/// A namespace under construction whose handlers get the application's state; see [`NamespaceBuilder::with_state`].
/// Each method is that of [`NamespaceBuilder`] with the same name, with the state as the last argument of the handler.
pub struct WithState<'a, S: ?Sized> {
    namespace: &'a mut NamespaceBuilder,
    state: Arc<S>,
}

impl NamespaceBuilder {
    /// Starts to set handlers that get a state of the application: a store, a counter, or all that a program has. The
    /// type is checked by the compiler, and nothing is looked up when an event arrives.
    ///
    /// The same state may serve several namespaces and the rest of the program, and a namespace may have handlers
    /// with several states, or with none. What belongs to one client is [`Socket::set_data`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use imks::socket::{Reply, Server};
    ///
    /// #[derive(Default)]
    /// struct Visits(AtomicU64);
    ///
    /// # fn main() -> imks::ImksResult<()> {
    /// let visits = Arc::new(Visits::default());
    /// let server = Server::builder(Default::default())
    ///     .namespace("/", |ns| {
    ///         ns.with_state(visits.clone())
    ///             .on_connected(|_, visits| async move {
    ///                 visits.0.fetch_add(1, Ordering::Relaxed);
    ///             })
    ///             .on_typed("visits", |_, (), visits| async move { Reply(visits.0.load(Ordering::Relaxed)) });
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn with_state<S: Send + Sync + ?Sized + 'static>(&mut self, state: Arc<S>) -> WithState<'_, S> {
        WithState { namespace: self, state }
    }
}

impl<S: Send + Sync + ?Sized + 'static> WithState<'_, S> {
    /// Sets a handler with typed arguments; see [`NamespaceBuilder::on_typed`].
    pub fn on_typed<T, F, Fut, R>(&mut self, event: &str, handler: F) -> &mut Self
    where
        T: DeserializeOwned,
        F: Fn(Socket, T, Arc<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoAck,
    {
        let state = self.state.clone();
        self.namespace.on_typed(event, move |socket, args| handler(socket, args, state.clone()));
        self
    }

    /// Sets the asynchronous handler of an event; see [`NamespaceBuilder::on`].
    pub fn on<F, Fut>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(Event, Arc<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let state = self.state.clone();
        self.namespace.on(event, move |event| handler(event, state.clone()));
        self
    }

    /// Sets the synchronous handler of an event; see [`NamespaceBuilder::on_sync`].
    pub fn on_sync(
        &mut self,
        event: &str,
        handler: impl Fn(Event, &Arc<S>) + Send + Sync + 'static,
    ) -> &mut Self {
        let state = self.state.clone();
        self.namespace.on_sync(event, move |event| handler(event, &state));
        self
    }

    /// Sets the handler of events that have none of their own; see [`NamespaceBuilder::on_unknown`].
    pub fn on_unknown<F, Fut>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Event, Arc<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let state = self.state.clone();
        self.namespace.on_unknown(move |event| handler(event, state.clone()));
        self
    }

    /// Sets the hook that decides whether a client may join; see [`NamespaceBuilder::on_connect`].
    pub fn on_connect<F, Fut, A>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Socket, ConnectPayload, Arc<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, ConnectError>> + Send + 'static,
        A: Into<Accept>,
    {
        let state = self.state.clone();
        self.namespace.on_connect(move |socket, payload| hook(socket, payload, state.clone()));
        self
    }

    /// Sets the hook that runs right after the CONNECT reply; see [`NamespaceBuilder::on_connected`].
    pub fn on_connected<F, Fut>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Socket, Arc<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let state = self.state.clone();
        self.namespace.on_connected(move |socket| hook(socket, state.clone()));
        self
    }

    /// Sets the hook that runs when a client leaves; see [`NamespaceBuilder::on_disconnecting`].
    pub fn on_disconnecting(
        &mut self,
        hook: impl Fn(&Socket, DisconnectReason, &Arc<S>) + Send + Sync + 'static,
    ) -> &mut Self {
        let state = self.state.clone();
        self.namespace.on_disconnecting(move |socket, reason| hook(socket, reason, &state));
        self
    }

    /// Sets the hook that runs after a client has left; see [`NamespaceBuilder::on_disconnect`].
    pub fn on_disconnect(
        &mut self,
        hook: impl Fn(&Socket, DisconnectReason, &Arc<S>) + Send + Sync + 'static,
    ) -> &mut Self {
        let state = self.state.clone();
        self.namespace.on_disconnect(move |socket, reason| hook(socket, reason, &state));
        self
    }

    /// Adds middleware that runs before the connect hook; see [`NamespaceBuilder::middleware`].
    pub fn middleware<F, Fut>(&mut self, step: F) -> &mut Self
    where
        F: Fn(Socket, ConnectPayload, Arc<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        let state = self.state.clone();
        self.namespace.middleware(move |socket, payload| step(socket, payload, state.clone()));
        self
    }

    /// Adds packet middleware; see [`NamespaceBuilder::packet_middleware`].
    pub fn packet_middleware<F, Fut>(&mut self, step: F) -> &mut Self
    where
        F: Fn(Event, Arc<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, EventError>> + Send + 'static,
    {
        let state = self.state.clone();
        self.namespace.packet_middleware(move |event| step(event, state.clone()));
        self
    }
}

impl<S: ?Sized> fmt::Debug for WithState<'_, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("WithState").field(&self.namespace).finish()
    }
}
