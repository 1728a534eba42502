//! Topics to publish to and to subscribe to, over a namespace of any Socket.IO server whose rooms are the topics.
//!
//! The server half is four events: `subscribe` and `unsubscribe` with a topic, `publish` with a topic and a value, and
//! `message` with both, to whoever has subscribed. `subscribe` and `publish` are answered with `{"ok":true}`, or with
//! `{"ok":false,"error":{"code":…,"message":…}}`, which refuses them. With imks as a library:
//!
//! ```
//! # #[cfg(feature = "socketio")]
//! # fn topics() -> imks::ImksResult<imks::socket::Server> {
//! use imks::socket::{EventError, Reply, Server, Socket};
//! use serde_json::{Value, json};
//!
//! let server = Server::builder(Default::default()).namespace("/topics", |ns| {
//!     ns.on_typed("subscribe", |socket: Socket, topic: String| async move {
//!         socket.join(&topic);
//!         Reply(json!({ "ok": true }))
//!     });
//!     ns.on_typed("unsubscribe", |socket: Socket, topic: String| async move { socket.leave(&topic) });
//!     ns.on_typed("publish", |socket: Socket, (topic, value): (String, Value)| async move {
//!         socket.namespace().to(&topic).emit_args("message", &(&topic, value))?;
//!         Ok::<_, EventError>(Reply(json!({ "ok": true })))
//!     });
//! });
//! # server.build() }
//! ```
//!
//! and with the npm package:
//!
//! ```js
//! io.of("/topics").on("connection", (socket) => {
//!   socket.on("subscribe", (topic, done) => { socket.join(topic); done({ ok: true }); });
//!   socket.on("unsubscribe", (topic) => socket.leave(topic));
//!   socket.on("publish", (topic, value, done) => {
//!     io.of("/topics").to(topic).emit("message", topic, value);
//!     done({ ok: true });
//!   });
//! });
//! ```

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{ClientError, ClientResult};
use super::event::ClientEvent;
use super::handle::{Client, Events};
use super::handlers::{Event, HandlerId};
use super::socket::Socket;

/// A client of topics. Cloning it is cheap, and all clones share their subscriptions.
///
/// A message arrives at most once: what is published while the connection is lost does not come later, unless the server
/// restores sessions. The subscriptions themselves outlive it: they are made again with each new session.
#[derive(Clone)]
pub struct PubSub(Arc<Inner>);

struct Inner {
    socket: Socket,
    topics: Arc<Topics>,
    handler: HandlerId,
    #[expect(dead_code, reason = "it ends the task when it is dropped")]
    ending: DropGuard,
}

/// Who listens to what.
#[derive(Default)]
struct Topics {
    state: Mutex<State>,
    /// Wakes the task when a topic has lost its last subscription.
    changed: Notify,
}

#[derive(Default)]
struct State {
    subscribed: HashMap<String, Topic>,
    /// Topics that the server is to be told of, because nobody listens any more.
    left: Vec<String>,
}

struct Topic {
    messages: broadcast::Sender<Said>,
    subscriptions: usize,
}

/// What the subscriptions of a topic hear.
#[derive(Clone)]
enum Said {
    Message(Event),
    /// The server does not let the client subscribe again, or the client has ended.
    End(ClientError),
}

impl PubSub {
    /// Creates a client of the topics of a namespace, which is joined with [`PubSub::connect`] or in any other way.
    ///
    /// # Errors
    /// [`ClientError::InvalidNamespace`] as [`Client::socket`].
    pub fn new(client: &Client, namespace: &str) -> ClientResult<Self> {
        let socket = client.socket(namespace)?;
        let topics = Arc::new(Topics::default());
        let heard = topics.clone();
        let handler = socket.on_event("message", move |event| {
            heard.hear(event);
            ready(())
        });
        let ended = CancellationToken::new();
        socket.spawn(keep(socket.clone(), topics.clone(), client.events(), ended.clone()));
        Ok(Self(Arc::new(Inner { socket, topics, handler, ending: ended.drop_guard() })))
    }

    /// Joins the namespace, and connects first where necessary.
    ///
    /// # Errors
    /// Those of [`Socket::connect`].
    pub async fn connect(&self) -> ClientResult<()> {
        self.0.socket.connect().await
    }

    /// Returns the socket, for everything else.
    pub fn socket(&self) -> &Socket {
        &self.0.socket
    }

    /// Subscribes to a topic, whose messages have the type `T`, and waits until the server has done it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the server does not want it; those of [`Socket::ask`].
    pub async fn subscribe<T: DeserializeOwned>(&self, topic: &str) -> ClientResult<Subscription<T>> {
        let messages = self.0.topics.add(topic);
        let inner = self.0.clone();
        let subscription = Subscription { inner, topic: topic.to_owned(), messages, item: PhantomData };
        // The task subscribes again after a loss of the connection, which this must not wait for then.
        ask(&self.0.socket, "subscribe", &(topic,)).await?;
        Ok(subscription)
    }

    /// Publishes a value to a topic, and waits until the server has taken it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the server does not want it; those of [`Socket::ask`].
    pub async fn publish<T: Serialize + ?Sized>(&self, topic: &str, value: &T) -> ClientResult<()> {
        ask(&self.0.socket, "publish", &(topic, value)).await
    }
}

impl fmt::Debug for PubSub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.0.topics.state.lock().subscribed.len();
        write!(formatter, "PubSub({} topics in {})", topics, self.0.socket.namespace())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.socket.off(self.handler);
    }
}

/// The messages of one topic. Dropping it ends the subscription, if it is the last one of its topic.
pub struct Subscription<T> {
    inner: Arc<Inner>,
    topic: String,
    messages: broadcast::Receiver<Said>,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Subscription<T> {
    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Waits for the next message, also while the client is closed, since it can be connected again.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] for a message that does not have the type, and [`ClientError::Dropped`] if this
    /// subscription was so slow that more than 256 of its messages waited: the oldest are gone then. The subscription goes on
    /// after both. [`ClientError::Refused`] if the server does not let the client subscribe again after a loss of the
    /// connection, and [`ClientError::Closed`] if the client has ended: nothing follows then.
    pub async fn next(&mut self) -> ClientResult<T> {
        match self.messages.recv().await {
            Ok(Said::Message(event)) => event.parse().map(|(_, value): (IgnoredAny, T)| value),
            Ok(Said::End(error)) => Err(error),
            Err(RecvError::Lagged(_)) => Err(ClientError::Dropped),
            Err(RecvError::Closed) => Err(ClientError::Closed),
        }
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Subscription({:?}, {} wait)", self.topic, self.messages.len())
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        self.inner.topics.remove(&self.topic);
    }
}

impl Topics {
    fn add(&self, topic: &str) -> broadcast::Receiver<Said> {
        let mut state = self.state.lock();
        let new = || Topic { messages: broadcast::Sender::new(MESSAGES_KEPT), subscriptions: 0 };
        let topic = state.subscribed.entry(topic.to_owned()).or_insert_with(new);
        topic.subscriptions += 1;
        topic.messages.subscribe()
    }

    fn remove(&self, topic: &str) {
        let mut state = self.state.lock();
        let Some(known) = state.subscribed.get_mut(topic) else { return };
        known.subscriptions -= 1;
        if known.subscriptions == 0 {
            state.subscribed.remove(topic);
            state.left.push(topic.to_owned());
            self.changed.notify_one();
        }
    }

    fn hear(&self, event: Event) {
        let Ok((topic, _)) = event.parse::<(String, IgnoredAny)>() else { return };
        self.say(&topic, Said::Message(event));
    }

    fn say(&self, topic: &str, said: Said) {
        if let Some(topic) = self.state.lock().subscribed.get(topic) {
            // An error means only that the last subscription is just being dropped.
            let _ = topic.messages.send(said);
        }
    }

    fn end(&self, error: &ClientError) {
        self.all().iter().for_each(|topic| self.say(topic, Said::End(error.clone())));
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        self.state.lock().subscribed.contains_key(topic)
    }

    fn all(&self) -> Vec<String> {
        self.state.lock().subscribed.keys().cloned().collect()
    }
}

/// Subscribes again with each new session, and takes back what nobody listens to, until nobody has the topics any more.
async fn keep(socket: Socket, topics: Arc<Topics>, mut events: Events, ended: CancellationToken) {
    let work = async {
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(ClientEvent::Joined { namespace, recovered: false, .. })
                        if namespace == socket.namespace() => resubscribe(&socket, &topics).await,
                    // Among them may have been a new session.
                    Some(ClientEvent::Missed { .. }) => resubscribe(&socket, &topics).await,
                    Some(_) => {}
                    None => return topics.end(&ClientError::Closed),
                },
                () = topics.changed.notified() => unsubscribe(&socket, &topics).await,
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = ended.cancelled() => {}
    }
}

async fn resubscribe(socket: &Socket, topics: &Topics) {
    for topic in topics.all() {
        subscribe_again(socket, topics, &topic).await;
    }
}

/// Subscribes to a topic that somebody listens to, or tells them why that cannot be.
async fn subscribe_again(socket: &Socket, topics: &Topics, topic: &str) {
    while topics.is_subscribed(topic) {
        match ask(socket, "subscribe", &(topic,)).await {
            // The next session subscribes to all of them.
            Ok(()) | Err(ClientError::ConnectionClosed(_) | ClientError::Closed) => return,
            Err(error) if error.is_retryable() => sleep(PAUSE).await,
            Err(error) => return topics.say(topic, Said::End(error)),
        }
    }
}

async fn unsubscribe(socket: &Socket, topics: &Topics) {
    let left = std::mem::take(&mut topics.state.lock().left);
    for topic in left {
        if topics.is_subscribed(&topic) {
            continue;
        }
        // A session that is lost has no subscriptions.
        let _ = socket.emit_args("unsubscribe", &(&topic,)).await;
        // Somebody may have subscribed while this was on its way, and would be put out again.
        subscribe_again(socket, topics, &topic).await;
    }
}

async fn ask(socket: &Socket, event: &str, args: &impl crate::socket::parser::Arguments) -> ClientResult<()> {
    let answer: Answer = socket.ask(event, args).await?;
    if answer.ok { Ok(()) } else { Err(ClientError::refused(&answer.error)) }
}

/// The answer of the server half.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    error: Value,
}

/// The number of messages of a topic that a slow subscription can still get.
const MESSAGES_KEPT: usize = 256;

/// The pause after a subscription that failed for a reason that passes.
const PAUSE: Duration = Duration::from_secs(1);
