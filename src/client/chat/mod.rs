//! Messaging with imks over a socket: channels, history, an outbox, and one stream of events per channel in which nothing
//! is missing and nothing comes twice.
//!
//! ```no_run
//! use imks::client::chat::{ChannelEvent, Chat};
//! use imks::client::{Client, ClientResult};
//!
//! # async fn run() -> ClientResult<()> {
//! let client = Client::builder("http://127.0.0.1:3000").auth_token("…").build()?;
//! let chat = Chat::open(&client).await?;
//! let Some(channel) = chat.channels().first().map(|channel| channel.channel_id) else { return Ok(()) };
//!
//! chat.send(channel, "hello").await?;
//! let mut messages = chat.messages(channel).last(20).open();
//! while let Some(event) = messages.next().await {
//!     if let ChannelEvent::Message(message) = event? {
//!         println!("#{} {}: {}", message.seq, message.author.username, message.body);
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Inside
//!
//! `timeline` decides the order of one channel, and `readers` what the server is asked for all of them, both without I/O;
//! `asking` is the one task, which carries it out. Handlers of live events only hand them over, so no reader, however slow,
//! holds up the connection: what finds no room is dropped, and fetched when there is some.

mod asking;
mod event;
mod message;
mod readers;
mod state;
mod stream;
mod timeline;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, json};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use self::asking::{Asking, Envelope, request};
pub use self::event::{Change, ChannelEvent, Cursor};
pub use self::message::{At, Author, ChannelInfo, Draft, Message, Page, TextStream};
use self::state::State;
pub use self::stream::{Messages, Reading};
use super::error::{ClientError, ClientResult};
use super::handle::Client;
use super::handlers::HandlerId;
use super::socket::{Delivery, Socket};

/// The messaging of imks over the namespace `/` of a client. Cloning it is cheap, and all clones are the same chat.
///
/// It keeps the client alive, as a [`Socket`] does. Streams end when the client is closed.
#[derive(Clone)]
pub struct Chat(Arc<Inner>);

/// What the handles and streams of a chat share.
struct Inner {
    socket: Socket,
    state: Arc<State>,
    handlers: Vec<HandlerId>,
    #[expect(dead_code, reason = "it ends the task when it is dropped")]
    ending: DropGuard,
}

impl Chat {
    /// Connects, joins the namespace `/`, and waits until imks has said who the user is. Open the chat before that namespace
    /// is joined in another way, because imks says it once for each connection.
    ///
    /// # Errors
    /// Those of [`Socket::connect`]; [`ClientError::Timeout`] if the server did not say it, because it is not imks or
    /// has said it before.
    pub async fn open(client: &Client) -> ClientResult<Self> {
        let socket = client.socket(NAMESPACE)?;
        let state = Arc::new(State::new(super::random()));
        let handlers = state.listen(&socket);
        let ended = CancellationToken::new();
        let asking = Asking::new(socket.clone(), state.clone(), client.events());
        socket.spawn(asking.run(ended.clone()));
        let chat = Self(Arc::new(Inner { socket, state, handlers, ending: ended.drop_guard() }));
        chat.0.socket.connect().await?;
        let mut me = chat.0.state.me.subscribe();
        let known = timeout(SESSION_TIMEOUT, me.wait_for(Option::is_some)).await;
        drop(
            known
                .map_err(|_| ClientError::Timeout("session:ready, which imks says once when / is joined"))?,
        );
        Ok(chat)
    }

    /// Returns the socket, for events that the chat does not know.
    pub fn socket(&self) -> &Socket {
        &self.0.socket
    }

    /// Returns the user, as the server named them last.
    pub fn user(&self) -> Option<Author> {
        self.0.state.me.borrow().as_ref().map(|me| me.user.clone())
    }

    /// Returns the channels of the user, as the server named them when the connection began, with those that were joined and
    /// left since.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.0.state.me.borrow().as_ref().map(|me| me.channels.clone()).unwrap_or_default()
    }

    /// Begins to read a channel, with what comes next unless the [`Reading`] says otherwise. Each stream is one of its own.
    pub fn messages(&self, channel: Uuid) -> Reading {
        Reading::new(self.clone(), channel)
    }

    /// Puts a message into the outbox of the client, from which it is sent until the server has stored it: over lost
    /// connections and, with a store in a file, over restarts of the program. Its nonce is the same at every attempt, so that it
    /// is stored once. It is given up after the attempts that
    /// [`ClientBuilder::message_retry`](crate::client::ClientBuilder::message_retry) allows while there is a connection: eleven by
    /// default.
    ///
    /// # Errors
    /// Those of [`Socket::send`].
    pub async fn send(&self, channel: Uuid, draft: impl Into<Draft>) -> ClientResult<Sent> {
        let draft = draft.into();
        let nonce = draft.nonce_value().to_owned();
        let message = Addressed { channel_id: channel, draft: &draft };
        let delivery = self.0.socket.send("message:send", &message).await?;
        Ok(Sent { nonce, delivery })
    }

    /// Returns a page of the history of a channel, with 1 to 100 messages.
    ///
    /// # Errors
    /// Those of [`Chat::request`].
    pub async fn history(&self, channel: Uuid, at: At, limit: usize) -> ClientResult<Page> {
        let mut query = Map::new();
        query.insert("channel_id".into(), json!(channel));
        query.insert("limit".into(), json!(limit));
        query.extend(at.field().map(|(field, id)| (field.to_owned(), json!(id))));
        self.request("history", &query).await
    }

    /// Sends any request of docs/protocol.md, such as `message:edit`, `reaction:add`, `read:mark` or `typing:start`, and
    /// returns the data of its answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the error of the answer; those of [`Socket::emit_with_ack`].
    pub async fn request<T: DeserializeOwned + 'static>(
        &self,
        event: &str,
        payload: &(impl Serialize + ?Sized),
    ) -> ClientResult<T> {
        request(&self.0.socket, event, payload, None).await
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Chat({:?})", self.user().map(|user| user.username))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.handlers.iter().for_each(|handler| self.socket.off(*handler));
    }
}

/// A message in the outbox. Dropping it does not take the message out.
#[derive(Debug)]
pub struct Sent {
    nonce: String,
    delivery: Delivery,
}

impl Sent {
    /// Returns the nonce, by which the message is known again in the stream of its channel.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Waits until the server has stored the message, and returns it: what the server has acknowledged survives a crash of it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the error of the server if it does not take the message; those of
    /// [`Delivery::acknowledged`].
    pub async fn acknowledged(self) -> ClientResult<Message> {
        let answer: Envelope<Stored> = self.delivery.acknowledged().await?;
        answer.open().map(|stored| stored.message)
    }
}

/// The payload of `message:send`.
#[derive(Serialize)]
struct Addressed<'a> {
    channel_id: Uuid,
    #[serde(flatten)]
    draft: &'a Draft,
}

/// The answer to `message:send`.
#[derive(serde::Deserialize)]
struct Stored {
    message: Message,
}

/// The namespace in which imks talks.
const NAMESPACE: &str = "/";

/// How long imks may take to say who the user is.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
