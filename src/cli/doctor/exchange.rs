//! The checks of `imks doctor` in a channel: messages there and back, the same on a second connection, and who is there.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::report::{Fault, Outcome};
use super::session::broken;
use super::{ANSWER_MAX, Doctor, advice};
use crate::ImksResult;
use crate::client::{Client, ClientBuilder, ClientError, EventStream, Reconnect, Socket, nonce};

/// Sends messages and waits for them as all members get them, here and on a second connection, looks who is there, and
/// deletes the messages.
pub(super) async fn examine(
    doctor: &mut Doctor,
    socket: &Socket,
    ready: &Value,
    wanted: Option<&str>,
    second: ClientBuilder,
) -> ImksResult<()> {
    let Some(wanted) = wanted else {
        return doctor.skip(&CHECKS, "give --channel NAME to send messages, which are deleted at once");
    };
    let all = ready["channels"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|channel| channel["name"] == wanted || channel["channel_id"] == wanted);
    let Some(channel) = found.and_then(|channel| channel["channel_id"].as_str()) else {
        let fault = Fault::new(
            format!("no channel {}", advice::excerpt(wanted)),
            "the user is no member of it, or there is none",
            "take one of the line `channels`",
        );
        doctor.check("send", async { (None::<()>, Outcome::Failed(fault)) }).await?;
        return doctor.skip(&CHECKS[1..], "nothing was sent");
    };
    let mut incoming: EventStream<Value> = socket.stream("message:new");
    let mut witness = Box::pin(Witness::open(second)).await;
    let mut sent = Vec::new();
    let is_sent = doctor.check("send", send(socket, channel, &mut sent)).await?.is_some();
    match is_sent {
        true => {
            doctor.check("receive", receive(&mut incoming, &sent)).await?;
            doctor.check("broadcast", broadcast(&mut witness, &sent)).await?;
            doctor.check("members", members(socket, channel, &ready["user"]["id"])).await?;
        }
        false => doctor.skip(&CHECKS[1..], "not everything was sent")?,
    }
    drop(incoming);
    if let Ok(witness) = witness {
        witness.client.close().await;
    }
    match remove(socket, channel, &sent).await {
        Some(fault) => doctor.check("delete", async { (None::<()>, Outcome::Warned(fault)) }).await.map(drop),
        None => Ok(()),
    }
}

/// A second connection of the user, which only listens.
struct Witness {
    client: Client,
    incoming: EventStream<Value>,
}

impl Witness {
    async fn open(builder: ClientBuilder) -> Result<Self, ClientError> {
        let client = builder.reconnect(Reconnect::never()).build()?;
        let socket = client.socket("/")?;
        let (incoming, mut ready) = (socket.stream("message:new"), socket.stream::<Value>("session:ready"));
        socket.connect().await?;
        // Another server than imks sends none; then nothing is sent either.
        let _ = timeout(ANSWER_MAX, ready.next()).await;
        Ok(Self { client, incoming })
    }
}

async fn send(socket: &Socket, channel: &str, sent: &mut Vec<Value>) -> (Option<()>, Outcome) {
    for number in 1..=MESSAGES {
        let body = format!("imks doctor was here: {number} of {MESSAGES}");
        let message = json!({ "channel_id": channel, "body": body, "nonce": nonce(), "flags": SILENT });
        match socket.ask::<Value>("message:send", &(message,)).timeout(ANSWER_MAX).await {
            Ok(answer) if answer["ok"] == true => sent.push(answer["data"]["message"]["id"].clone()),
            Ok(answer) => return (None, Outcome::Failed(refused(&answer["error"]))),
            Err(error) => return (None, Outcome::Failed(broken(&error))),
        }
    }
    (Some(()), Outcome::Good(format!("{MESSAGES} messages are stored")))
}

fn refused(error: &Value) -> Fault {
    Fault::new(
        format!(
            "{}: {}",
            error["code"].as_str().unwrap_or("refused"),
            advice::excerpt(error["message"].as_str().unwrap_or_default())
        ),
        "the server does not take a message of this user in this channel",
        "look up the code under \"Error codes\" in docs/protocol.md",
    )
}

/// What came of the messages that were sent, in the order in which it came.
async fn heard(incoming: &mut EventStream<Value>, sent: &[Value]) -> Vec<Value> {
    let mut heard = Vec::new();
    let hearing = async {
        while heard.len() < sent.len() {
            let Some(message) = incoming.next().await else { return };
            heard.extend(message.ok().map(|it| it["id"].clone()).filter(|id| sent.contains(id)));
        }
    };
    // What has not come by then is missing in what is returned.
    let _ = timeout(ANSWER_MAX, hearing).await;
    heard
}

async fn receive(incoming: &mut EventStream<Value>, sent: &[Value]) -> (Option<()>, Outcome) {
    let heard = heard(incoming, sent).await;
    match heard == sent {
        true => (Some(()), Outcome::Good("all came as events, in their order".into())),
        false => (None, Outcome::Failed(not_heard("this connection", &heard, sent))),
    }
}

async fn broadcast(witness: &mut Result<Witness, ClientError>, sent: &[Value]) -> (Option<()>, Outcome) {
    let witness = match witness {
        Ok(witness) => witness,
        Err(error) => return (None, Outcome::Failed(broken(error))),
    };
    let heard = heard(&mut witness.incoming, sent).await;
    match heard == sent {
        true => (Some(()), Outcome::Good("a second connection got them too".into())),
        false => (None, Outcome::Failed(not_heard("a second connection", &heard, sent))),
    }
}

fn not_heard(who: &str, heard: &[Value], sent: &[Value]) -> Fault {
    match heard.len() == sent.len() {
        true => Fault::new(
            format!("{who} got the messages in another order"),
            "something between the server and this connection puts events out of order",
            "report it, with the log of the server",
        ),
        false => Fault::new(
            format!(
                "{} of {} messages did not come as an event to {who}",
                sent.len() - heard.len(),
                sent.len()
            ),
            "they were stored, and not delivered; with several servers, they may not hear each other",
            "look at imks_bus_messages_dropped_total and at the log of the server; `imks doctor --redis` or `--nats` examines \
             the broker",
        ),
    }
}

/// Asks who of the channel is connected: this user must be among them.
async fn members(socket: &Socket, channel: &str, user: &Value) -> (Option<()>, Outcome) {
    let question = json!({ "channel_id": channel });
    let answer = match socket.ask::<Value>("presence:list", &(question,)).timeout(ANSWER_MAX).await {
        Ok(answer) if answer["ok"] == true => answer,
        Ok(answer) => return (None, Outcome::Failed(refused(&answer["error"]))),
        Err(error) => return (None, Outcome::Failed(broken(&error))),
    };
    let online = answer["data"]["presences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (count, is_page) = (online.len(), !answer["data"]["next"].is_null());
    if is_page || online.iter().any(|presence| presence["user_id"] == *user) {
        let others = if is_page { "a page of them" } else { "this user among them" };
        return (Some(()), Outcome::Good(format!("{count} online, {others}")));
    }
    let fault = Fault::new(
        format!("{count} online, without this user"),
        "others see the user as absent: they chose to be invisible, or the servers do not agree who is there",
        "ask for the choice with `presence:set`; with several servers, examine their broker",
    );
    (None, Outcome::Warned(fault))
}

/// Deletes the messages. Returns the fault if one is left.
async fn remove(socket: &Socket, channel: &str, sent: &[Value]) -> Option<Fault> {
    let mut left = 0;
    for message in sent {
        let removal = json!({ "channel_id": channel, "message_id": message });
        let answer = socket.ask::<Value>("message:delete", &(removal,)).timeout(ANSWER_MAX).await;
        left += u32::from(!answer.is_ok_and(|answer| answer["ok"] == true));
    }
    let found = format!("{left} of the messages are still there");
    (left > 0).then(|| Fault::new(found, "they were not deleted", "delete them by hand"))
}

/// The checks in a channel.
const CHECKS: [&str; 4] = ["send", "receive", "broadcast", "members"];
/// How many messages are sent: enough to see their order.
const MESSAGES: usize = 3;
/// The flag of a message that notifies nobody.
const SILENT: u32 = 1;
