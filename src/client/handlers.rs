//! The handlers and streams of one socket, and the task that hands events to them in their order.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::budget::Place;
use super::core::Incoming;
use super::error::{ClientError, ClientResult};
use super::event::ClientEvent;
use super::shared::{Command, Received, Shared};
use crate::socket::codec::outgoing::EncodedArgs;
use crate::socket::packet::Args;
use crate::socket::parser::{Arguments, One};

/// Who wants which events.
#[derive(Default)]
pub(super) struct Handlers(RwLock<Registered>);

#[derive(Default)]
struct Registered {
    by_name: HashMap<Box<str>, Vec<Handler>>,
    any: Vec<Handler>,
    next: u64,
}

/// A handler or a stream.
#[derive(Clone)]
struct Handler {
    id: HandlerId,
    call: Arc<Call>,
}

type Call = dyn Fn(Event) -> BoxFuture<'static, ()> + Send + Sync;

/// Names a handler, so that it can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandlerId(u64);

impl Handlers {
    pub(super) fn on<T, F, R>(&self, event: &str, handle: F) -> HandlerId
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let handle = Arc::new(handle);
        self.on_event(Some(event), move |event| {
            let handle = handle.clone();
            async move {
                match event.parse() {
                    Ok(argument) => handle(argument).await,
                    Err(error) => event.tell(error),
                }
            }
        })
    }

    pub(super) fn on_question<T, A, F, R>(&self, event: &str, handle: F) -> HandlerId
    where
        T: DeserializeOwned + Send + 'static,
        A: Serialize + Send + 'static,
        F: Fn(T) -> R + Send + Sync + 'static,
        R: Future<Output = A> + Send + 'static,
    {
        let handle = Arc::new(handle);
        self.on_event(Some(event), move |event| {
            let handle = handle.clone();
            async move {
                let answered = match event.parse() {
                    Ok(argument) => {
                        let answer = EncodedArgs::new(&One(&handle(argument).await));
                        event.answer_encoded(answer).await
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = answered {
                    event.tell(error);
                }
            }
        })
    }

    pub(super) fn on_event<F, R>(&self, event: Option<&str>, handle: F) -> HandlerId
    where
        F: Fn(Event) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        // The application may keep what it got for as long as it likes.
        self.add(event, move |event| Box::pin(handle(Event { place: None, ..event })))
    }

    pub(super) fn stream<T>(self: &Arc<Self>, event: &str) -> EventStream<T> {
        let (say, events) = mpsc::channel(STREAM_EVENTS_MAX);
        let id = self.add(Some(event), move |event| {
            let say = say.clone();
            Box::pin(async move {
                // A stream that is gone has removed its handler.
                let _ = say.send(event).await;
            })
        });
        EventStream { events, id, handlers: Arc::downgrade(self), item: PhantomData }
    }

    pub(super) fn off(&self, id: HandlerId) {
        // A handler that owns a stream removes that one's handler when it is dropped, so the lock must be free by then.
        let removed = self.0.write().remove(id);
        drop(removed);
    }

    fn add(
        &self,
        event: Option<&str>,
        call: impl Fn(Event) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> HandlerId {
        let mut registered = self.0.write();
        let id = HandlerId(registered.next);
        registered.next += 1;
        let handler = Handler { id, call: Arc::new(call) };
        match event {
            Some(name) => registered.by_name.entry(name.into()).or_default().push(handler),
            None => registered.any.push(handler),
        }
        id
    }

    /// Hands events to whoever wants them, until there are no more.
    pub(super) async fn run(
        self: Arc<Self>,
        shared: Arc<Shared>,
        commands: mpsc::WeakSender<Command>,
        mut events: mpsc::Receiver<Received>,
    ) {
        while let Some((mut incoming, place)) = events.recv().await {
            match shared.payloads.decode(&incoming.args) {
                Ok(Some(args)) => (incoming.args, incoming.may_have_offset) = (args, false),
                Ok(None) => {}
                Err(error) => {
                    shared.notify(ClientEvent::Error(error));
                    continue;
                }
            }
            let (commands, place) = (commands.clone(), Some(Arc::new(place)));
            let event = Event { incoming, shared: Arc::downgrade(&shared), commands, place };
            if shared.tells_received {
                let Incoming { namespace, args, .. } = event.incoming.clone();
                shared.notify(ClientEvent::MessageReceived { namespace, args });
            }
            let handlers: Vec<Handler> = {
                let registered = self.0.read();
                let named = registered.by_name.get(event.name()).into_iter().flatten();
                registered.any.iter().chain(named).cloned().collect()
            };
            for handler in handlers {
                let call = async { (handler.call)(event.clone()).await };
                // After a panic, the next events are as good as before.
                if AssertUnwindSafe(call).catch_unwind().await.is_err() {
                    let panicked = ClientError::HandlerPanicked(event.name().into());
                    shared.notify(ClientEvent::Error(panicked));
                }
            }
        }
    }
}

impl Registered {
    fn remove(&mut self, id: HandlerId) -> Option<Handler> {
        let find = |handlers: &[Handler]| handlers.iter().position(|handler| handler.id == id);
        if let Some(at) = find(&self.any) {
            return Some(self.any.remove(at));
        }
        let mut named = self.by_name.iter();
        let (name, at) = named.find_map(|(name, handlers)| Some((name.clone(), find(handlers)?)))?;
        let handlers = self.by_name.get_mut(&name)?;
        let removed = handlers.remove(at);
        if handlers.is_empty() {
            self.by_name.remove(&name);
        }
        Some(removed)
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registered = self.0.read();
        write!(formatter, "Handlers({} names, {} any)", registered.by_name.len(), registered.any.len())
    }
}

/// An event from the server, as it came. Cloning it is cheap.
#[derive(Clone)]
pub struct Event {
    incoming: Incoming,
    /// It may be kept for longer than the client lives, whose end must show all the same.
    shared: Weak<Shared>,
    commands: mpsc::WeakSender<Command>,
    /// Its place among what waits for handlers, until they are done with it.
    #[expect(dead_code, reason = "it is dropped with the event")]
    place: Option<Arc<Place>>,
}

impl Event {
    /// Returns the name of the event.
    pub fn name(&self) -> &str {
        self.incoming.args.name()
    }

    /// Returns the path of the namespace.
    pub fn namespace(&self) -> &str {
        &self.incoming.namespace
    }

    /// Returns the arguments as they came. Where a server restores sessions, it adds an offset of its own as the
    /// last one, which [`Event::parse`] knows to leave out.
    pub fn args(&self) -> &Args {
        &self.incoming.args
    }

    /// Reads all arguments as a tuple, or the only one. Binary values share the bytes that were received.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] if they do not have the type.
    pub fn parse<T: DeserializeOwned>(&self) -> ClientResult<T> {
        let args = &self.incoming.args;
        let parsed = args.extract().or_else(|error| {
            // Only the type tells an offset from an argument of the application: a volatile event has none.
            let shorter = args.without_last().ok().filter(|_| self.incoming.may_have_offset);
            shorter.and_then(|args| args.extract().ok()).ok_or(error)
        });
        parsed.map_err(ClientError::invalid)
    }

    /// Whether the server waits for an answer.
    pub fn wants_answer(&self) -> bool {
        self.incoming.answer_to.is_some()
    }

    /// Answers the event with one argument.
    ///
    /// # Errors
    /// As [`Event::answer_args`].
    pub async fn answer<T: Serialize + ?Sized>(&self, argument: &T) -> ClientResult<()> {
        self.answer_args(&One(argument)).await
    }

    /// Answers the event with any arguments. An answer to an event of a connection that was lost goes nowhere,
    /// because the server does not wait for it any more.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] for a value that cannot be JSON, or if the server wants no answer;
    /// [`ClientError::Full`] if there is no room for it; [`ClientError::Closed`] if the client has ended.
    pub async fn answer_args(&self, args: &impl Arguments) -> ClientResult<()> {
        self.answer_encoded(EncodedArgs::new(args)).await
    }

    async fn answer_encoded(&self, args: crate::ImksResult<EncodedArgs>) -> ClientResult<()> {
        let nobody = ClientError::invalid(crate::ImksError::InvalidPayload("no answer is wanted".into()));
        let to = self.incoming.answer_to.ok_or(nobody)?;
        let args = args.map_err(ClientError::invalid)?;
        let shared = self.shared.upgrade().ok_or(ClientError::Closed)?;
        let place = shared.budget.take(args.bytes()).ok_or(ClientError::Full)?;
        let commands = self.commands.upgrade().ok_or(ClientError::Closed)?;
        let answer = Command::Answer(self.incoming.namespace.clone(), to, args, place);
        commands.send(answer).await.map_err(|_| ClientError::Closed)
    }

    fn tell(&self, error: ClientError) {
        if let Some(shared) = self.shared.upgrade() {
            shared.notify(ClientEvent::Error(error));
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Event({:?} in {})", self.name(), self.incoming.namespace)
    }
}

/// The events of one name.
#[derive(Debug)]
pub struct EventStream<T> {
    events: mpsc::Receiver<Event>,
    id: HandlerId,
    handlers: Weak<Handlers>,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> EventStream<T> {
    /// Waits for the next event. `None` means that the client has ended.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] for an event that does not have the type. The stream goes on.
    pub async fn next(&mut self) -> Option<ClientResult<T>> {
        self.events.recv().await.map(|event| event.parse())
    }
}

impl<T: DeserializeOwned> Stream for EventStream<T> {
    type Item = ClientResult<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(cx).map(|event| event.map(|event| event.parse()))
    }
}

impl<T> Drop for EventStream<T> {
    fn drop(&mut self) {
        if let Some(handlers) = self.handlers.upgrade() {
            handlers.off(self.id);
        }
    }
}

/// The maximum number of events that wait in one stream. Further ones hold up all events of the socket.
const STREAM_EVENTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_dropped_leaves_nothing_behind() {
        let handlers = Arc::new(Handlers::default());
        drop(handlers.stream::<u8>("a"));
        assert_eq!(format!("{handlers:?}"), "Handlers(0 names, 0 any)");
        let stream = handlers.stream::<u8>("a");
        let owner = handlers.on_event(None, move |_| {
            let _stream = &stream;
            async {}
        });
        handlers.off(owner);
        assert_eq!(format!("{handlers:?}"), "Handlers(0 names, 0 any)");
    }
}
