//! The people of a conversation in imks: they write over the outbox of the client library, and read what happens.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::pacer::Pacer;
use super::super::plan::Plan;
use super::ledger::Ledger;
use crate::cli::bench::failure::failed;
use crate::cli::terminal::text;
use crate::client::{Client, ClientBuilder, ClientError, Retry, Socket, nonce};
use crate::{ImksError, ImksResult};

/// A conversation: the ledger, how many messages were acknowledged so far, and the clock of writers who have a rate.
/// Clones are the same one.
#[derive(Clone)]
pub(in crate::cli) struct Conversation {
    pub(in crate::cli) ledger: Arc<Mutex<Ledger>>,
    pub(in crate::cli) acknowledged: watch::Sender<u64>,
    pacer: Arc<Pacer>,
}

/// Somebody who has joined the server.
pub(in crate::cli) struct Person {
    pub(in crate::cli) client: Client,
    pub(in crate::cli) socket: Socket,
    pub(in crate::cli) channel_id: String,
    /// The number of the last message of the channel when the person came.
    pub(in crate::cli) last_seq: i64,
}

/// What happens to a message, for those who measure: the moment and how long it took.
pub(in crate::cli) type Measure = Arc<dyn Fn(Instant, Duration) + Send + Sync>;

/// A message as readers need it.
#[derive(Deserialize)]
struct Heard {
    seq: i64,
    body: String,
}

impl Conversation {
    /// Begins a conversation.
    ///
    /// # Errors
    /// Those of [`Pacer::start`].
    pub(in crate::cli) fn new(writers: usize, readers: usize) -> ImksResult<Self> {
        let run = nonce();
        let ledger = Arc::new(Mutex::new(Ledger::new(run, writers, readers)));
        Ok(Self { ledger, acknowledged: watch::Sender::new(0), pacer: Arc::new(Pacer::start()?) })
    }

    /// Lets somebody join, as the reader `reader`, in the channel of a name, or in their first one.
    ///
    /// # Errors
    /// [`ImksError::Io`] if the server refuses or is not imks; [`ImksError::UnknownName`] if they are in no such channel.
    pub(in crate::cli) async fn enter(
        &self,
        builder: ClientBuilder,
        reader: usize,
        channel: Option<&str>,
        on_delivery: Measure,
    ) -> ImksResult<Person> {
        let client =
            builder.message_retry(self.retry()).build().map_err(|error| failed("the client", error))?;
        let socket = client.socket("/").map_err(|error| failed("the namespace", error))?;
        let ledger = self.ledger.clone();
        socket.on("message:new", move |Heard { seq, body }: Heard| {
            let now = Instant::now();
            if let Some(took) = ledger.lock().see(reader, seq, &body, now) {
                on_delivery(now, took);
            }
            async {}
        });
        let mut ready = socket.stream::<Value>("session:ready");
        socket.connect().await.map_err(|error| failed("joining", error))?;
        let ready = tokio::time::timeout(READY_PATIENCE, ready.next()).await;
        let Ok(Some(Ok(ready))) = ready else { return Err(ImksError::Timeout(NOT_IMKS)) };
        let channels = ready["channels"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_it = |it: &&Value| channel.is_none_or(|name| it["name"] == name || it["channel_id"] == name);
        let found = channels
            .iter()
            .find(is_it)
            .and_then(|it| Some((it["channel_id"].as_str()?, it["last_seq"].as_i64()?)));
        let Some((channel_id, last_seq)) = found else {
            let name = channel.unwrap_or("of this user").to_owned();
            return Err(ImksError::UnknownName { what: "channel", name });
        };
        Ok(Person { channel_id: channel_id.to_owned(), last_seq, client, socket })
    }

    /// Writes as the writer `writer` until all is written or `stop`, and then waits for the last answer, for as long as
    /// the plan is patient. Each message waits for the acknowledgement of the one before.
    ///
    /// # Errors
    /// [`ImksError::Io`] if the client cannot go on.
    pub(in crate::cli) async fn write(
        &self,
        person: &Person,
        writer: usize,
        writers: usize,
        plan: &Plan,
        stop: &CancellationToken,
        on_answer: Measure,
    ) -> ImksResult<()> {
        let start = Instant::now();
        let mut sent = 0;
        while plan.has_more((writer, writers), sent) && !stop.is_cancelled() {
            let due = plan.due(start, writer, writers, sent);
            if let Some(due) = due {
                tokio::select! {
                    () = self.pacer.until(due) => {}
                    () = stop.cancelled() => break,
                }
            }
            let now = due.unwrap_or_else(Instant::now);
            let Some((number, body)) = self.ledger.lock().write(writer, plan.message_bytes, now) else {
                break;
            };
            sent += 1;
            let message = json!({ "channel_id": person.channel_id, "body": body, "nonce": nonce() });
            let delivery =
                person.socket.send("message:send", &message).await.map_err(|it| failed("sending", it))?;
            let answer = tokio::select! {
                answer = delivery.acknowledged::<Value>() => answer,
                () = expired(stop, plan.patience) => break,
            };
            if self.answered(writer, number, answer)? {
                let answered = Instant::now();
                on_answer(answered, answered.saturating_duration_since(now));
            }
        }
        Ok(())
    }

    /// Notes an answer, and returns whether it is an acknowledgement.
    fn answered(&self, writer: usize, number: usize, answer: Result<Value, ClientError>) -> ImksResult<bool> {
        let answer = answer.map_err(|error| failed("a message", error))?;
        let seq = answer["data"]["message"]["seq"].as_i64().filter(|_| answer["ok"] == true);
        let Some(seq) = seq else {
            let code = answer["error"]["code"].as_str().unwrap_or("no code");
            self.ledger.lock().refuse(text::line(code));
            return Ok(false);
        };
        self.ledger.lock().acknowledge(writer, number, seq);
        self.acknowledged.send_modify(|count| *count += 1);
        Ok(true)
    }

    /// Sends again until the server has decided, and counts how often it said to try again.
    fn retry(&self) -> Retry {
        let ledger = self.ledger.clone();
        Retry::forever(RETRY_PAUSE).answer_timeout(ANSWER_TIMEOUT).when(move |args| {
            let answer: Value = args.first().ok()?;
            let error = answer.get("error").filter(|error| error["retryable"] == true)?;
            ledger.lock().retry(error["code"] == "rate_limited");
            Some(Duration::from_millis(error["retry_after_ms"].as_u64().unwrap_or_default()))
        })
    }
}

/// Waits until `stop`, and then for `patience`.
async fn expired(stop: &CancellationToken, patience: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(patience).await;
}

/// The pause before a message is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long an answer may take before the message is sent again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the first event of imks may take.
const READY_PATIENCE: Duration = Duration::from_secs(10);

const NOT_IMKS: &str = "no session:ready after joining: this needs a server of imks";
