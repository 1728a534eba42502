//! The server that takes commands as text: `examples/commands`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use imks::client::{Client, ClientResult, EventStream, Socket};
use imks::http::Serving;
use serde_json::json;

use crate::within;

#[path = "../../examples/commands/main.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

use example::Totals;
use example::protocol::Message;

/// A client, and what it is told.
struct Person {
    _client: Client,
    socket: Socket,
    messages: EventStream<Message>,
}

impl Person {
    async fn join(server: &Serving, name: &str) -> Self {
        let url = format!("http://{}", server.addr());
        let client = Client::builder(&url).auth(&json!({ "name": name })).build().unwrap();
        let socket = client.socket("/").unwrap();
        let messages = socket.stream("message");
        within(socket.connect()).await.unwrap();
        Self { _client: client, socket, messages }
    }

    /// Sends a command, and waits until it was carried out.
    async fn says(&self, line: &str) {
        let done: ClientResult<String> = within(self.socket.emit_with_ack("message", line)).await;
        assert_eq!(done.unwrap(), "done", "{line}");
    }

    async fn hears(&mut self) -> Message {
        within(self.messages.next()).await.unwrap().unwrap()
    }

    /// What the next thing said is: its room, who says it, and the text.
    async fn hears_chat(&mut self) -> (Option<String>, String, String) {
        match self.hears().await {
            Message::Chat { user, room, message, timestamp } => {
                assert!(timestamp > 1_700_000_000_000, "milliseconds");
                (room, user, message)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn people_join_rooms_talk_there_and_to_everybody_and_leave() {
    let totals = Arc::new(Totals::default());
    let server = example::server(totals.clone()).listen(([127, 0, 0, 1], 0)).unwrap();
    let (mut anna, mut otto) = (Person::join(&server, "anna").await, Person::join(&server, "otto").await);
    let (otto_name, lobby) = (|| "otto".to_owned(), || "lobby".to_owned());
    anna.says("JOIN lobby").await;
    otto.says("join lobby").await;
    assert_eq!(anna.hears().await, Message::Join { user: otto_name(), room: lobby() });
    otto.says("SEND lobby hello  there").await;
    assert_eq!(anna.hears_chat().await, (Some(lobby()), otto_name(), "hello  there".into()));
    otto.says("BROADCAST good night").await;
    for person in [&mut anna, &mut otto] {
        assert_eq!(person.hears_chat().await, (None, otto_name(), "good night".into()));
    }
    otto.says("LEAVE lobby").await;
    assert_eq!(anna.hears().await, Message::Leave { user: otto_name(), room: lobby() });
    otto.says("JOIN lobby").await;
    assert_eq!(anna.hears().await, Message::Join { user: otto_name(), room: lobby() });
    drop(otto);
    assert_eq!(anna.hears().await, Message::Leave { user: otto_name(), room: lobby() });
    assert_eq!(totals.commands.load(Ordering::Relaxed), 6);
    within(server.close()).await;
}

#[tokio::test]
async fn a_command_that_is_not_carried_out_says_why() {
    let server = example::server(Arc::default()).listen(([127, 0, 0, 1], 0)).unwrap();
    let mut anna = Person::join(&server, "anna").await;
    for (line, expected) in [
        ("DANCE", "unknown_command"),
        ("JOIN", "missing_argument"),
        ("SEND lobby", "missing_argument"),
        ("SEND lobby hello", "not_in_room"),
        ("LEAVE lobby", "not_in_room"),
    ] {
        within(anna.socket.emit("message", line)).await.unwrap();
        match anna.hears().await {
            Message::Error { code, message } => assert_eq!(code, expected, "{message}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    let answer: serde_json::Value = within(anna.socket.emit_with_ack("message", &7)).await.unwrap();
    assert_eq!(answer["error"]["message"], "wrong arguments: expected a string");
    within(server.close()).await;
}
