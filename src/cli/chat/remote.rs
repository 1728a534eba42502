//! The connection of `imks chat`: does what the conversation wants, and tells it what happened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::conversation::Conversation;
use super::effect::{Effect, Kept, Purpose};
use super::outbox::Outbox;
use super::pipe::left_over;
use crate::cli::terminal::causes;
use crate::client::{
    Client, ClientBuilder, ClientError, ClientEvent, ClientResult, DisconnectReason, Event, Events, Socket,
};
use crate::clock::now_micros;

/// Something that happened.
pub(super) enum News {
    /// An event of the server.
    Event { name: String, payload: Value },
    /// Something about the connection.
    Connection(ClientEvent),
    /// The answer to a question.
    Answer { purpose: Purpose, answer: Result<Value, String> },
    /// The outcome of a message.
    Sent { channel: String, nonce: String, outcome: Result<Value, String> },
}

/// A connection, and the outbox, if there is one.
pub(super) struct Remote {
    outbox: Option<Outbox>,
    client: Client,
    socket: Socket,
    say: mpsc::Sender<News>,
    outgoing: Arc<Outgoing>,
    tasks: TaskTracker,
}

/// What is to be put into the outbox, in the order in which it was typed.
#[derive(Default)]
struct Outgoing {
    messages: Mutex<VecDeque<Message>>,
    /// Whoever puts a message into the outbox holds it, so that no other message overtakes.
    turn: tokio::sync::Mutex<()>,
}

struct Message {
    channel: String,
    nonce: String,
    payload: Value,
}

impl Outgoing {
    /// Waits until the client has everything.
    async fn handed_over(&self) {
        while !self.messages.lock().is_empty() {
            drop(self.turn.lock().await);
            yield_now().await;
        }
        drop(self.turn.lock().await);
    }
}

impl Remote {
    /// Creates a connection that is not there yet, and reads the outbox.
    ///
    /// # Errors
    /// Those of [`ClientBuilder::build`].
    pub(super) fn new(
        builder: ClientBuilder,
        outbox: Option<Outbox>,
    ) -> ClientResult<(Self, mpsc::Receiver<News>)> {
        let (say, news) = mpsc::channel(NEWS_MAX);
        let (client, tasks) = (builder.build()?, TaskTracker::new());
        let socket = client.socket("/")?;
        let telling = say.clone();
        socket.on_any(move |event| {
            let telling = telling.clone();
            async move {
                // Nobody listens any more when the tool has ended.
                let _ = telling.send(read(&event)).await;
            }
        });
        tasks.spawn(pass_on(client.events(), say.clone()));
        Ok((Self { outbox, client, socket, say, outgoing: Arc::default(), tasks }, news))
    }

    /// Connects and signs in.
    pub(super) fn sign_in(&self) -> impl Future<Output = ClientResult<()>> + use<> {
        let socket = self.socket.clone();
        async move { socket.connect().await }
    }

    /// Takes the messages that the outbox has kept since an earlier run. `None` without an outbox.
    pub(super) fn take_kept(&self) -> Option<Vec<Kept>> {
        self.outbox.as_ref().map(Outbox::take_kept)
    }

    /// Returns what becomes of what is not sent, if the chat ends now with so many messages that wait.
    pub(super) fn left_over(&self, waiting: usize) -> Option<String> {
        left_over(waiting, self.outbox.as_ref().map(Outbox::name).as_deref())
    }

    /// Does what concerns the server. Returns what concerns the terminal.
    pub(super) fn carry_out(&self, effect: Effect, conversation: &mut Conversation) -> Option<Effect> {
        match effect {
            Effect::Ask { purpose, event, payload } => self.ask(purpose, event, payload),
            Effect::Send { channel, nonce, payload } => self.send(channel, nonce, payload),
            Effect::Keep(kept) => {
                if let Some(Err(error)) = self.outbox.as_ref().map(|outbox| outbox.keep(&kept)) {
                    conversation.fails(format!("not kept in the outbox: {}", causes(&error)));
                }
            }
            Effect::Forget { nonce } => {
                if let Err(error) = forget(self.outbox.as_ref(), &nonce) {
                    conversation.fails(error);
                }
            }
            Effect::Tell { event, payload } => self.tell(event, payload),
            Effect::Stats => self.stats().into_iter().for_each(|line| conversation.notice(line)),
            Effect::Transport => {
                let transport = self.client.stats().transport.map_or("none", |transport| transport.name());
                conversation.notice(format!("transport: {transport}"));
            }
            other => return Some(other),
        }
        None
    }

    /// Closes the connection, as soon as the client has what was typed: the outbox keeps nothing else.
    pub(super) async fn close(self) {
        // Where the client takes nothing more, waiting does not help.
        let _ = timeout(HAND_OVER_MAX, self.outgoing.handed_over()).await;
        self.client.close().await;
    }

    fn ask(&self, purpose: Purpose, event: &'static str, payload: Value) {
        let (socket, say) = (self.socket.clone(), self.say.clone());
        self.tasks.spawn(async move {
            let answer = answered(socket.ask::<Value>(event, &(payload,)).await);
            let purpose = match purpose {
                Purpose::Ping { started_ms, .. } => Purpose::Ping { started_ms, now_ms: now_ms() },
                purpose => purpose,
            };
            let _ = say.send(News::Answer { purpose, answer }).await;
        });
    }

    fn send(&self, channel: String, nonce: String, payload: Value) {
        self.outgoing.messages.lock().push_back(Message { channel, nonce, payload });
        let (socket, say, outgoing) = (self.socket.clone(), self.say.clone(), self.outgoing.clone());
        let outbox = self.outbox.clone();
        self.tasks.spawn(async move {
            let turn = outgoing.turn.lock().await;
            let next = outgoing.messages.lock().pop_front();
            let Some(Message { channel, nonce, payload }) = next else { return };
            let sent = socket.send("message:send", &payload).await;
            drop(turn);
            let outcome = match sent {
                // The client has it now, under the same nonce.
                Ok(delivery) => match forget(outbox.as_ref(), &nonce) {
                    Ok(()) => answered(delivery.acknowledged().await),
                    Err(why) => Err(why),
                },
                Err(error) => Err(causes(&error)),
            };
            let _ = say.send(News::Sent { channel, nonce, outcome }).await;
        });
    }

    fn tell(&self, event: &'static str, payload: Value) {
        let socket = self.socket.clone();
        self.tasks.spawn(async move {
            // It may be lost.
            let _ = socket.emit_volatile(event, &(payload,)).await;
        });
    }

    fn stats(&self) -> Vec<String> {
        let stats = self.client.stats();
        let rtt = stats.rtt.map_or("none yet".into(), |rtt| {
            format!(
                "last {} ms, median {} ms, p95 {} ms",
                rtt.last.as_millis(),
                rtt.p50.as_millis(),
                rtt.p95.as_millis()
            )
        });
        vec![
            format!(
                "connects {}, disconnects {}, heartbeats {}",
                stats.connects, stats.disconnects, stats.heartbeats
            ),
            format!(
                "sent {} packets, {} bytes; received {}, {}",
                stats.packets_sent, stats.bytes_sent, stats.packets_received, stats.bytes_received
            ),
            format!(
                "messages sent {}, failed {}, waiting {}",
                stats.messages_sent, stats.messages_failed, stats.waiting.events
            ),
            format!("answers: {rtt}"),
        ]
    }
}

fn read(event: &Event) -> News {
    let payload = event.parse::<Value>().unwrap_or_else(|_| json!({}));
    News::Event { name: event.name().to_owned(), payload }
}

/// Forgets what the outbox has kept under this nonce, if there is one.
fn forget(outbox: Option<&Outbox>, nonce: &str) -> Result<(), String> {
    let forgotten = outbox.map_or(Ok(()), |outbox| outbox.forget(nonce));
    forgotten.map_err(|error| format!("still kept in the outbox: {}", causes(&error)))
}

async fn pass_on(mut events: Events, say: mpsc::Sender<News>) {
    while let Some(event) = events.next().await {
        if say.send(News::Connection(event)).await.is_err() {
            return;
        }
    }
}

/// Returns the data of an answer, or why there is none.
fn answered(answer: ClientResult<Value>) -> Result<Value, String> {
    match answer {
        Ok(mut answer) if answer["ok"] == true => Ok(answer["data"].take()),
        Ok(answer) => {
            let error = &answer["error"];
            let text = |field: &str| error[field].as_str().unwrap_or("refused").to_owned();
            Err(format!("{}: {}", text("code"), text("message")))
        }
        Err(error) => Err(causes(&error)),
    }
}

/// Tells the conversation what happened. Returns the failure that ended the session for good.
pub(super) fn tell(conversation: &mut Conversation, news: News) -> Option<ClientError> {
    match news {
        News::Event { name, payload } => conversation.event(&name, &payload, now_ms()),
        News::Answer { purpose, answer } => conversation.answer(purpose, answer),
        News::Sent { channel, nonce, outcome } => conversation.sent(&channel, &nonce, outcome),
        News::Connection(event) => return connection(conversation, event),
    }
    None
}

fn connection(conversation: &mut Conversation, event: ClientEvent) -> Option<ClientError> {
    match event {
        ClientEvent::Connected { transport } | ClientEvent::Reconnected { transport } => {
            conversation.linked(false, &format!("{transport}, signing in"));
        }
        ClientEvent::TransportSwitched { transport } => {
            conversation.linked(conversation.is_online, transport.name());
        }
        ClientEvent::Joined { .. } => conversation.linked(true, "online"),
        ClientEvent::Disconnected { reason } => {
            conversation.linked(false, &format!("disconnected: {reason}"));
        }
        ClientEvent::Left { reason, .. } => {
            conversation.linked(false, &format!("signed out: {reason}"));
            // After anything else the client comes back by itself.
            let is_final = matches!(reason, DisconnectReason::ByServer | DisconnectReason::Refused(_));
            return is_final.then_some(ClientError::ConnectionClosed(reason));
        }
        ClientEvent::Reconnecting { attempt, delay } => {
            let seconds = delay.as_secs_f64();
            conversation.linked(false, &format!("reconnecting, attempt {attempt} in {seconds:.1} s"));
        }
        ClientEvent::ReconnectFailed { error } => {
            conversation.linked(false, &format!("gave up: {}", causes(&error)));
            return Some(error);
        }
        // A token that has expired meanwhile, most of all: the client does not try again.
        ClientEvent::Error(ClientError::Refused(refusal)) if !refusal.is_retryable() => {
            conversation.linked(false, "signed out");
            return Some(ClientError::Refused(refusal));
        }
        ClientEvent::Error(error) => conversation.notice(causes(&error)),
        ClientEvent::Missed { .. } => conversation.notice("much happened to the connection at once"),
        _ => {}
    }
    None
}

/// Returns the time in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    u64::try_from(now_micros() / 1_000).unwrap_or_default()
}

/// How much may wait for the terminal. While there is more, the connection is not read.
const NEWS_MAX: usize = 1_024;
/// How long the client may take to put what was typed into the outbox, when the chat ends.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Refusal;

    #[test]
    fn the_session_is_over_only_if_the_client_does_not_come_back_by_itself() {
        let is_over = |event| connection(&mut Conversation::new(None, false), event).is_some();
        let left = |reason| ClientEvent::Left { namespace: "/".into(), reason };
        assert!(!is_over(left(DisconnectReason::TransportClosed)));
        assert!(is_over(left(DisconnectReason::ByServer)));
        let refused = |is_retryable: bool| {
            let refusal = Refusal { message: "no".into(), data: json!({ "retryable": is_retryable }) };
            ClientEvent::Error(ClientError::Refused(Arc::new(refusal)))
        };
        assert!(!is_over(refused(true)));
        assert!(is_over(refused(false)));
    }
}
