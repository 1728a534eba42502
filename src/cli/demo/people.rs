//! The people of the demo: each is a client of the server, as any other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::script::{Line, PEOPLE};
use crate::ImksResult;
use crate::cli::bench::failure::failed;
use crate::client::{Client, ClientResult, Socket, nonce};

/// Something that the people did, as one of the others saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Seen {
    /// Somebody types.
    Typing { user: String },
    /// A message, with its number in the channel, and the author of the message that it answers.
    Message { user: String, seq: i64, body: String, reply_to: Option<String> },
    /// A reaction to a message.
    Reaction { user: String, emoji: String, message_id: String },
    /// Somebody has read everything up to this number.
    Read { user: String, seq: i64 },
}

/// The people, all in one channel.
pub(super) struct People {
    clients: Vec<Client>,
    sockets: Vec<Socket>,
    channel_id: String,
    /// The message before: its id.
    latest: Option<String>,
    /// Pauses are divided by this.
    pace: f64,
    say: mpsc::Sender<Seen>,
}

impl People {
    /// Lets everybody join.
    ///
    /// # Errors
    /// `Io` if the server does not let them in.
    pub(super) async fn join(
        url: &str,
        tokens: &[String],
        pace: f64,
        say: mpsc::Sender<Seen>,
    ) -> ImksResult<Self> {
        let (mut clients, mut sockets, mut channel_id) = (Vec::new(), Vec::new(), String::new());
        let names = Names::default();
        for (index, token) in tokens.iter().enumerate() {
            let built = Client::builder(url).auth_token(token).build();
            let client = built.map_err(|error| failed("a client of the demo", error))?;
            let socket = client.socket("/").map_err(|error| failed("a client of the demo", error))?;
            watch(&socket, index, &say, &names);
            let mut ready = socket.stream::<Value>("session:ready");
            socket.connect().await.map_err(|error| failed("joining the demo", error))?;
            if let Some(Ok(ready)) = ready.next().await {
                ready["channels"][0]["channel_id"].as_str().unwrap_or_default().clone_into(&mut channel_id);
                learn(&names, &ready["user"]);
            }
            clients.push(client);
            sockets.push(socket);
        }
        Ok(Self { clients, sockets, channel_id, latest: None, pace, say })
    }

    /// Lets somebody write a line, and the others react and read it. A failure is told and the conversation goes on:
    /// somebody may have taken rights away in the console.
    ///
    /// # Errors
    /// Those of the client library, and what the server refused.
    pub(super) async fn perform(&mut self, line: &Line, random: f64) -> ClientResult<Option<String>> {
        self.pause(line.thinking(random)).await;
        let Some(writer) = self.sockets.get(line.who) else { return Ok(None) };
        let channel_id = &self.channel_id;
        writer.emit("typing:start", &json!({ "channel_id": channel_id })).await?;
        self.pause(line.typing()).await;
        let reply_to = self.latest.as_ref().filter(|_| line.is_reply);
        let message = json!({
            "channel_id": channel_id, "body": line.text, "nonce": nonce(), "reply_to_message_id": reply_to,
        });
        let answer: Value = writer.send("message:send", &message).await?.acknowledged().await?;
        let (Some(id), Some(seq)) =
            (answer["data"]["message"]["id"].as_str(), answer["data"]["message"]["seq"].as_i64())
        else {
            return Ok(Some(format!("{} could not write: {}", PEOPLE[line.who], answer["error"]["code"])));
        };
        if let Some((by, emoji)) = line.reaction
            && let Some(socket) = self.sockets.get(by)
        {
            self.pause(REACTION).await;
            let reaction = json!({ "channel_id": channel_id, "message_id": id, "emoji": emoji });
            let _: Value = socket.emit_with_ack("reaction:add", &reaction).await?;
        }
        let id = id.to_owned();
        self.read(line.who, seq).await?;
        self.latest = Some(id);
        Ok(None)
    }

    /// Lets everybody but the writer read up to a message.
    async fn read(&self, writer: usize, seq: i64) -> ClientResult<()> {
        for (index, socket) in self.sockets.iter().enumerate().filter(|(index, _)| *index != writer) {
            let read = json!({ "channel_id": self.channel_id, "seq": seq });
            let answer: Value = socket.emit_with_ack("read:mark", &read).await?;
            if answer["ok"] == true
                && let Some(user) = PEOPLE.get(index)
            {
                // Nobody listens any more when the demo ends.
                let _ = self.say.send(Seen::Read { user: (*user).to_owned(), seq }).await;
            }
        }
        Ok(())
    }

    /// Lets everybody leave.
    pub(super) async fn leave(self) {
        for client in &self.clients {
            client.close().await;
        }
    }

    async fn pause(&self, time: Duration) {
        sleep(time.div_f64(self.pace)).await;
    }
}

/// Tells what the first person sees of the others, and what the second sees of the first.
fn watch(socket: &Socket, index: usize, say: &mpsc::Sender<Seen>, names: &Names) {
    if index == 0 {
        let (authors, names) = (names.clone(), names.clone());
        tell(socket, "message:new", say, move |event| {
            learn(&authors, &event["author"]);
            message(event)
        });
        tell(socket, "reaction:updated", say, move |event| reaction(event, &names.lock()));
    }
    if index < 2 {
        let is_shown = move |user: &str| (index == 1) == (Some(&user) == PEOPLE.first());
        tell(socket, "typing", say, move |event| {
            let user = event["user"]["username"].as_str().filter(|user| is_shown(user))?;
            (event["typing"] == true).then(|| Seen::Typing { user: user.to_owned() })
        });
    }
}

fn tell(
    socket: &Socket,
    event: &str,
    say: &mpsc::Sender<Seen>,
    read: impl Fn(&Value) -> Option<Seen> + Send + Sync + 'static,
) {
    let say = say.clone();
    socket.on(event, move |value: Value| {
        let (say, seen) = (say.clone(), read(&value));
        async move {
            if let Some(seen) = seen {
                // Nobody listens any more when the demo ends.
                let _ = say.send(seen).await;
            }
        }
    });
}

fn message(event: &Value) -> Option<Seen> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Seen::Message {
        user: text(&event["author"]["username"])?,
        seq: event["seq"].as_i64()?,
        body: text(&event["body"])?,
        reply_to: text(&event["reply_to"]["author"]["username"]),
    })
}

/// Reads a new reaction. Somebody who has not written yet has no name.
fn reaction(event: &Value, names: &HashMap<String, String>) -> Option<Seen> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (emoji, message_id, user_id) =
        (text(&event["emoji"])?, text(&event["message_id"])?, text(&event["user_id"])?);
    let user = names.get(&user_id).cloned().unwrap_or_else(|| "somebody".into());
    (event["action"] == "add").then_some(Seen::Reaction { user, emoji, message_id })
}

/// The names of users, by their ids.
type Names = Arc<Mutex<HashMap<String, String>>>;

fn learn(names: &Names, user: &Value) {
    let mut names = names.lock();
    if let (Some(id), Some(name), true) =
        (user["id"].as_str(), user["username"].as_str(), names.len() < NAMES_MAX)
    {
        names.insert(id.to_owned(), name.to_owned());
    }
}

impl Seen {
    /// Returns a line for people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Typing { user } => format!("         {user} is typing …"),
            Self::Message { user, seq, body, reply_to: Some(to) } => {
                format!("#{seq:<4} {user} (to {to}): {body}")
            }
            Self::Message { user, seq, body, reply_to: None } => format!("#{seq:<4} {user}: {body}"),
            Self::Reaction { user, emoji, .. } => format!("         {user} reacts with {emoji}"),
            Self::Read { user, seq } => format!("         {user} has read #{seq}"),
        }
    }
}

/// The maximum number of names that are remembered. Further people are "somebody".
const NAMES_MAX: usize = 1_000;

/// How long people look at a message before they react to it.
const REACTION: Duration = Duration::from_millis(700);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_do_is_a_line_or_nothing() {
        let event = json!({ "author": { "username": "ada" }, "seq": 7, "body": "hello", "reply_to": null });
        assert_eq!(message(&event).unwrap().text(), "#7    ada: hello");
        assert_eq!(message(&json!({ "seq": 7 })), None);
        let names = HashMap::from([("1".to_owned(), "ben".to_owned())]);
        let event = json!({ "action": "add", "emoji": "👍", "user_id": "1", "message_id": "m" });
        assert_eq!(reaction(&event, &names).unwrap().text(), "         ben reacts with 👍");
        assert_eq!(
            reaction(
                &json!({ "action": "remove", "emoji": "👍", "user_id": "1", "message_id": "m" }),
                &names
            ),
            None
        );
        let read = Seen::Read { user: "ben".into(), seq: 7 };
        assert_eq!(serde_json::to_value(&read).unwrap(), json!({ "type": "read", "user": "ben", "seq": 7 }));
    }
}
