//! The task of a chat: asks the server for what its readers miss, one request at a time, and follows the connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::NAMESPACE;
use super::readers::{Answer, Job, Readership};
use super::state::State;
use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::client::event::ClientEvent;
use crate::client::handle::Events;
use crate::client::socket::Socket;

/// What the task owns.
pub(super) struct Asking {
    socket: Socket,
    state: Arc<State>,
    events: Events,
    request: Option<BoxFuture<'static, (Readership, ClientResult<Answer>)>>,
    /// The return of a connection that is lost.
    coming_back: Option<BoxFuture<'static, ClientResult<()>>>,
    /// Why the namespace was left last.
    left: Option<DisconnectReason>,
}

impl Asking {
    pub(super) fn new(socket: Socket, state: Arc<State>, events: Events) -> Self {
        Self { socket, state, events, request: None, coming_back: None, left: None }
    }

    /// Runs until nobody has the chat any more, or the client has ended.
    pub(super) async fn run(mut self, ended: CancellationToken) {
        loop {
            let due = self.ask(Instant::now());
            tokio::select! {
                // What is told of the connection is older than its return, and than answers that come over the next one.
                biased;
                () = ended.cancelled() => return,
                event = self.events.next() => match event {
                    Some(event) => self.handle(event),
                    None => return self.state.readers.lock().ended(None),
                },
                Some(result) = OptionFuture::from(self.coming_back.as_mut()) => self.came_back(result),
                Some((asked, answer)) = OptionFuture::from(self.request.as_mut()) => self.answered(&asked, answer),
                () = self.state.poke.notified() => {}
                Some(()) = OptionFuture::from(due.map(sleep_until)) => {}
            }
        }
    }

    /// Begins the next request, if none is under way and it is time for one. Returns when to look again.
    fn ask(&mut self, now: Instant) -> Option<Instant> {
        if self.request.is_some() {
            return None;
        }
        let mut readers = self.state.readers.lock();
        match readers.next(now) {
            Some((job, asked)) => {
                let socket = self.socket.clone();
                self.request = Some(Box::pin(async move { (asked, carry_out(&socket, job).await) }));
                None
            }
            None => readers.due_at(now),
        }
    }

    fn answered(&mut self, asked: &Readership, answer: ClientResult<Answer>) {
        self.request = None;
        let (mut readers, now) = (self.state.readers.lock(), Instant::now());
        match answer {
            Ok(answer) => readers.answered(asked, answer, now),
            Err(error) => readers.failed(asked, &error, now),
        }
    }

    fn handle(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Joined { namespace, recovered, .. } if namespace == NAMESPACE => {
                (self.coming_back, self.left) = (None, None);
                let mut readers = self.state.readers.lock();
                // A session that was restored goes on where it was.
                if !(recovered && readers.is_connected()) {
                    readers.connected();
                }
            }
            ClientEvent::Left { namespace, reason } if namespace == NAMESPACE => {
                self.left = Some(reason);
                self.lost();
            }
            // Among them may have been that the connection was lost.
            ClientEvent::Missed { .. } => self.lost(),
            ClientEvent::ReconnectFailed { error } => {
                self.coming_back = None;
                self.state.readers.lock().ended(Some(&error));
            }
            _ => {}
        }
    }

    fn lost(&mut self) {
        self.state.readers.lock().lost();
        let socket = self.socket.clone();
        self.coming_back = Some(Box::pin(async move { socket.joined().await }));
    }

    fn came_back(&mut self, result: ClientResult<()>) {
        self.coming_back = None;
        let left = self.left.take();
        let is_expired = self.state.is_expired.swap(false, Ordering::Relaxed);
        if let (Err(ClientError::Closed), Some(DisconnectReason::ByServer), true) =
            (&result, &left, is_expired)
        {
            // Whoever can show a new token is let in again.
            let socket = self.socket.clone();
            self.coming_back = Some(Box::pin(rejoin(socket)));
            return;
        }
        let mut readers = self.state.readers.lock();
        match (result, left) {
            (Ok(()), _) => readers.connected(),
            (Err(ClientError::Closed), Some(DisconnectReason::Refused(refusal))) => {
                readers.ended(Some(&ClientError::Refused(refusal)));
            }
            (Err(ClientError::Closed), Some(reason @ DisconnectReason::ByServer)) => {
                readers.ended(Some(&ClientError::ConnectionClosed(reason)));
            }
            (Err(ClientError::Closed), _) => readers.ended(None),
            (Err(error), _) => readers.ended(Some(&error)),
        }
    }
}

/// Joins with a new token. It is the first attempt of a connection if the old one has closed meanwhile, which nobody else
/// repeats.
async fn rejoin(socket: Socket) -> ClientResult<()> {
    loop {
        match socket.connect().await {
            Err(error) if error.is_retryable() && !matches!(error, ClientError::ReconnectFailed { .. }) => {
                sleep(REJOIN_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Sends a request to imks and returns the data of its answer.
pub(super) async fn request<T: DeserializeOwned + 'static>(
    socket: &Socket,
    event: &str,
    payload: &(impl Serialize + ?Sized),
    timeout: Option<Duration>,
) -> ClientResult<T> {
    let question = socket.emit_with_ack::<Envelope<T>>(event, payload);
    let question = match timeout {
        Some(timeout) => question.timeout(timeout),
        None => question,
    };
    question.await?.open()
}

/// The answer of imks to any request.
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    ok: bool,
    data: Option<T>,
    #[serde(default)]
    error: Value,
}

impl<T> Envelope<T> {
    /// Returns its data, or its error.
    pub(super) fn open(self) -> ClientResult<T> {
        if !self.ok {
            return Err(ClientError::refused(&self.error));
        }
        let missing =
            || ClientError::invalid(crate::ImksError::InvalidPayload("an answer without data".into()));
        self.data.ok_or_else(missing)
    }
}

async fn carry_out(socket: &Socket, job: Job) -> ClientResult<Answer> {
    // Large answers take their time on a slow line; a connection that is dead ends by itself.
    let patience = Some(ANSWER_TIMEOUT);
    match job {
        Job::Join(channels) => {
            let payload = json!({ "channel_ids": channels });
            request(socket, "channel:subscribe", &payload, patience).await.map(Answer::Joined)
        }
        Job::Sync(cursors) => {
            let cursors = cursors.into_iter();
            let cursors = cursors.map(|(id, seq, rev)| json!({ "channel_id": id, "seq": seq, "rev": rev }));
            let payload = json!({ "channels": cursors.collect::<Vec<_>>() });
            request(socket, "sync", &payload, patience).await.map(Answer::Synced)
        }
        Job::Page { channel, after, limit } => {
            let payload = json!({ "channel_id": channel, "after": after, "limit": limit });
            request(socket, "history", &payload, patience).await.map(Answer::Page)
        }
        Job::Messages(channel, ids) => {
            let payload = json!({ "channel_id": channel, "message_ids": ids });
            request(socket, "message:get", &payload, patience).await.map(Answer::Messages)
        }
    }
}

/// How long the answer to a request of a reader may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before joining with a new token is tried again.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);
