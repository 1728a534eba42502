//! A namespace as the application sees it: sends events, and hands received ones to handlers and streams.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::budget::{Overflow, Place};
use super::core::{Emit, Path, Reply};
use super::driver::call;
use super::error::{ClientError, ClientResult};
use super::handlers::{Event, EventStream, HandlerId, Handlers};
use super::shared::{Command, Shared};
use super::store::Entry;
use crate::error::ImksError;
use crate::socket::codec::outgoing::EncodedArgs;
use crate::socket::packet::Args;
use crate::socket::parser::{Arguments, One};

/// A namespace of a connection. Cloning it is cheap, and all clones are the same namespace.
///
/// Handlers of one socket run one after the other, in the order of the events, and the next event waits until
/// they are done. A handler that takes long should hand its work to a task.
#[derive(Clone)]
pub struct Socket {
    pub(super) inner: Arc<Inner>,
}

/// What the clones of a socket share.
pub(super) struct Inner {
    pub(super) path: Path,
    pub(super) handlers: Arc<Handlers>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
    pub(super) overflow: Overflow,
    pub(super) answer_timeout: Duration,
    /// Entries of the outbox are stored and queued one at a time, so that both have the same order.
    pub(super) turn: Arc<Mutex<()>>,
}

impl Socket {
    /// Returns the path of the namespace.
    pub fn namespace(&self) -> &str {
        &self.inner.path
    }

    /// Joins the namespace, and connects first where necessary. From then on it is joined again by itself after
    /// each loss of the connection, until it is left.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for a refusal that is final; the failure of the first attempt to connect.
    pub async fn connect(&self) -> ClientResult<()> {
        let path = self.inner.path.clone();
        call(&self.inner.commands, |waiter| Command::Join(path, waiter)).await?.map(drop)
    }

    /// Waits until the namespace is joined, without asking for that.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if nobody wants it; what ends the attempts to join it.
    pub(super) async fn joined(&self) -> ClientResult<()> {
        let path = self.inner.path.clone();
        call(&self.inner.commands, |waiter| Command::Attend(path, waiter)).await?.map(drop)
    }

    /// Starts a task that belongs to the client.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.shared.tasks.spawn(task);
    }

    /// Leaves the namespace. Events that wait are dropped, and whoever waits for an answer gets
    /// [`ClientError::Closed`].
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the client has ended.
    pub async fn disconnect(&self) -> ClientResult<()> {
        self.command(Command::Leave(self.inner.path.clone())).await
    }

    /// Sends an event with one argument, or with several as a tuple in [`Socket::emit_args`]. It arrives at most
    /// once: what was on its way when the connection was lost is not sent again. While the namespace is being
    /// joined again, it waits.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] for a value that cannot be JSON; [`ClientError::Full`] if there is no room
    /// and the client was built to fail then.
    pub async fn emit<T: Serialize + ?Sized>(&self, event: &str, argument: &T) -> ClientResult<()> {
        self.emit_args(event, &One(argument)).await
    }

    /// Sends an event with any arguments: `()` for none, a tuple for several, received [`Args`] as they are.
    ///
    /// # Errors
    /// As [`Socket::emit`].
    pub async fn emit_args(&self, event: &str, args: &impl Arguments) -> ClientResult<()> {
        let args = self.encode(event, args)?;
        self.send_emit(event, args, false, None).await
    }

    /// Sends an event only if that can be done at once, for values that the next one replaces.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] for a value that cannot be JSON.
    pub async fn emit_volatile(&self, event: &str, args: &impl Arguments) -> ClientResult<()> {
        let args = self.encode(event, args)?;
        self.send_emit(event, args, true, None).await
    }

    /// Sends an event with one argument, and waits for the answer.
    ///
    /// ```no_run
    /// # async fn run(socket: imks::client::Socket) -> imks::client::ClientResult<()> {
    /// let sum: i64 = socket.emit_with_ack("double", &21).await?;
    /// # Ok(()) }
    /// ```
    pub fn emit_with_ack<T: DeserializeOwned>(
        &self,
        event: &str,
        argument: &(impl Serialize + ?Sized),
    ) -> Question<T> {
        self.ask(event, &One(argument))
    }

    /// Sends an event with any arguments, and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&self, event: &str, args: &impl Arguments) -> Question<T> {
        Question {
            socket: self.clone(),
            event: event.to_owned(),
            args: self.encode(event, args),
            timeout: self.inner.answer_timeout,
            answer: PhantomData,
        }
    }

    /// Puts an event with one argument into the outbox, from which it is sent again and again until the server
    /// acknowledges it: over lost connections and, with a store in a file, over restarts. The server may get it
    /// more than once, so the argument should contain a [`nonce`](crate::client::nonce) by which the server
    /// recognises it.
    ///
    /// Events of the outbox of one namespace are handled in the order in which they were put there. Once there is
    /// room for the event, dropping the future of this function does not stop it.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] for a value that cannot be JSON; [`ClientError::Full`] if there is no room and
    /// the client was not built to wait for it; [`ClientError::Outbox`] if the store failed.
    pub async fn send<T: Serialize + ?Sized>(&self, event: &str, argument: &T) -> ClientResult<Delivery> {
        let args = self.encode(event, &One(argument))?;
        let place = match self.inner.overflow {
            Overflow::Wait => self.inner.shared.budget.wait(args.bytes()).await,
            _ => self.inner.shared.budget.take(args.bytes()),
        };
        let place = place.ok_or(ClientError::Full)?;
        let id = crate::clock::new_id();
        let (waiter, answer) = oneshot::channel();
        let entry = Entry { id, namespace: self.inner.path.clone(), event: event.into(), args };
        let inner = self.inner.clone();
        let queueing = self.inner.shared.tasks.spawn(async move {
            let _turn = inner.turn.lock().await;
            let entry = inner.shared.keep(entry).await?;
            let queue = Command::Queue(entry, waiter, place);
            inner.commands.send(queue).await.map_err(|_| ClientError::Closed)
        });
        queueing.await.map_err(|_| ClientError::Closed)??;
        Ok(Delivery { id, answer })
    }

    /// Handles every event of this name with its arguments: the only one, or several as a tuple. What does not
    /// have the type becomes a [`ClientEvent::Error`](crate::client::ClientEvent::Error).
    pub fn on<T, F, R>(&self, event: &str, handle: F) -> HandlerId
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.inner.handlers.on(event, handle)
    }

    /// Handles every event of this name that wants an answer, with what the handler returns.
    pub fn on_question<T, A, F, R>(&self, event: &str, handle: F) -> HandlerId
    where
        T: DeserializeOwned + Send + 'static,
        A: Serialize + Send + 'static,
        F: Fn(T) -> R + Send + Sync + 'static,
        R: Future<Output = A> + Send + 'static,
    {
        self.inner.handlers.on_question(event, handle)
    }

    /// Handles every event of this name as it came.
    pub fn on_event<F, R>(&self, event: &str, handle: F) -> HandlerId
    where
        F: Fn(Event) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.inner.handlers.on_event(Some(event), handle)
    }

    /// Handles every event of any name, before those who want it by its name.
    pub fn on_any<F, R>(&self, handle: F) -> HandlerId
    where
        F: Fn(Event) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.inner.handlers.on_event(None, handle)
    }

    /// Returns the events of this name from now on. A stream that nobody reads holds up all events of its socket:
    /// drop it.
    pub fn stream<T: DeserializeOwned>(&self, event: &str) -> EventStream<T> {
        self.inner.handlers.stream(event)
    }

    /// Removes a handler. One that runs ends by itself.
    pub fn off(&self, handler: HandlerId) {
        self.inner.handlers.off(handler);
    }

    /// Encodes the arguments of an event, and changes them as the application wants it.
    fn encode(&self, event: &str, args: &impl Arguments) -> ClientResult<EncodedArgs> {
        self.inner.shared.payloads.encode(event, encode(event, args)?)
    }

    async fn send_emit(
        &self,
        event: &str,
        args: EncodedArgs,
        is_volatile: bool,
        waiter: Option<(super::shared::Waiter, Duration)>,
    ) -> ClientResult<()> {
        let begun = Instant::now();
        let Some(place) = self.place(args.bytes(), waiter.is_some(), is_volatile).await? else {
            return Ok(());
        };
        let (waiter, timeout) = waiter.unzip();
        let answer = timeout.map(|time| (0, time.saturating_sub(begun.elapsed())));
        let emit = Emit { event: event.into(), args, answer, is_volatile, place };
        self.command(Command::Emit(self.inner.path.clone(), emit, waiter)).await
    }

    /// Finds room for an event. `None` means that it is dropped and nobody needs to know.
    async fn place(&self, bytes: usize, is_question: bool, is_volatile: bool) -> ClientResult<Option<Place>> {
        let budget = &self.inner.shared.budget;
        match self.inner.overflow {
            _ if is_volatile => Ok(budget.take(bytes)),
            Overflow::Wait => budget.wait(bytes).await.map(Some).ok_or(ClientError::Full),
            Overflow::DropNewest if !is_question => Ok(budget.take(bytes)),
            Overflow::Fail | Overflow::DropNewest => budget.take(bytes).map(Some).ok_or(ClientError::Full),
            Overflow::DropOldest => Ok(Some(budget.take_anyway(bytes))),
        }
    }

    async fn command(&self, command: Command) -> ClientResult<()> {
        self.inner.commands.send(command).await.map_err(|_| ClientError::Closed)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Socket({})", self.inner.path)
    }
}

/// An event that waits for an answer. Nothing is sent before it is awaited.
#[must_use = "the event is sent when this is awaited"]
pub struct Question<T> {
    socket: Socket,
    event: String,
    args: ClientResult<EncodedArgs>,
    timeout: Duration,
    answer: PhantomData<fn() -> T>,
}

impl<T> Question<T> {
    /// Sets how long the answer may take, the time without a connection and without room to send included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn send(self) -> ClientResult<Args> {
        let (waiter, answer) = oneshot::channel();
        let args = self.args?;
        let sending = self.socket.send_emit(&self.event, args, false, Some((waiter, self.timeout)));
        let sent = tokio::time::timeout(self.timeout, sending).await;
        sent.unwrap_or(Err(ClientError::Timeout("room to send")))?;
        answered(answer).await
    }
}

/// Fails with [`ClientError::Timeout`] without an answer, with [`ClientError::ConnectionClosed`] if the connection
/// was lost on the way, and with [`ClientError::InvalidMessage`] if the answer does not have the type.
impl<T: DeserializeOwned + 'static> IntoFuture for Question<T> {
    type Output = ClientResult<T>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { extract(&self.send().await?) })
    }
}

impl<T> fmt::Debug for Question<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Question({:?} in {})", self.event, self.socket.inner.path)
    }
}

/// An event that is in the outbox. Dropping it does not take the event out.
#[derive(Debug)]
pub struct Delivery {
    id: Uuid,
    answer: oneshot::Receiver<ClientResult<Reply>>,
}

impl Delivery {
    /// Returns the id of the event in the outbox, which
    /// [`ClientEvent::MessageSent`](crate::client::ClientEvent::MessageSent) names.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Waits until the server has acknowledged the event, and returns its answer.
    ///
    /// # Errors
    /// The last failure if the event was given up; [`ClientError::Closed`] if the client was closed before. The
    /// event is then still in the store, if there is one.
    pub async fn acknowledged<T: DeserializeOwned>(self) -> ClientResult<T> {
        extract(&answered(self.answer).await?)
    }
}

async fn answered(answer: oneshot::Receiver<ClientResult<Reply>>) -> ClientResult<Args> {
    match answer.await.map_err(|_| ClientError::Closed)?? {
        Reply::Answer(args) => Ok(args),
        Reply::Done => Ok(Args::none()),
    }
}

/// Reads all arguments of an answer as a tuple, or the only one.
fn extract<T: DeserializeOwned>(args: &Args) -> ClientResult<T> {
    args.extract().map_err(ClientError::invalid)
}

fn encode(event: &str, args: &impl Arguments) -> ClientResult<EncodedArgs> {
    if RESERVED.contains(&event) {
        return Err(ClientError::ReservedEvent(event.into()));
    }
    let args = EncodedArgs::new(args).map_err(ClientError::invalid)?;
    match args.attachments().len() > ATTACHMENTS_SENT_MAX {
        true => Err(ClientError::invalid(ImksError::LimitReached("attachments of one event"))),
        false => Ok(args),
    }
}

/// The names that servers refuse, and close the connection for.
pub(crate) const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// The maximum number of attachments of an event that is sent. Servers take fewer by default: ten.
const ATTACHMENTS_SENT_MAX: usize = 1_024;
