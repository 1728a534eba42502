//! As much of the conversation of tests/js/dialect.js as rust_socketio can hold: it does not answer the server's
//! questions, an event is either text or one attachment, and an event with an attachment cannot ask for an answer.
//!
//! Reads URL and VIA (polling, websocket or upgrade). Prints a JSON line when everything was as it should be.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rust_socketio::client::Client;
use rust_socketio::{ClientBuilder, Event, Payload, RawClient, TransportType};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);
const BYTES: &[u8] = &[0, 1, 4, 127, 128, 255];
const LARGE: usize = 300_000;

/// A client with what it heard.
struct Speaker {
    client: Client,
    heard: Receiver<(String, Payload)>,
}

impl Speaker {
    fn open(namespace: &str, auth: Option<Value>) -> Self {
        let (say, heard) = channel();
        let transport = match std::env::var("VIA").expect("VIA is set").as_str() {
            "polling" => TransportType::Polling,
            "websocket" => TransportType::Websocket,
            _ => TransportType::WebsocketUpgrade,
        };
        let builder = ClientBuilder::new(std::env::var("URL").expect("URL is set"))
            .namespace(namespace)
            .transport_type(transport)
            .reconnect(false);
        let builder = match auth {
            Some(auth) => builder.auth(auth),
            None => builder,
        };
        let builder = ["message-back", "shared", "auth"].into_iter().fold(builder, |builder, event| {
            let say: Sender<_> = say.clone();
            builder
                .on(event, move |payload, _: RawClient| say.send((event.to_owned(), payload)).expect("heard"))
        });
        let connected = say.clone();
        let builder = builder.on(Event::Connect, move |payload, _: RawClient| {
            connected.send(("connected".to_owned(), payload)).expect("heard");
        });
        Self { client: builder.connect().expect("a connection"), heard }
    }

    fn hear(&self, wanted: &str) -> Payload {
        loop {
            let (event, payload) = self.heard.recv_timeout(PATIENCE).expect(wanted);
            if event == wanted {
                return payload;
            }
        }
    }

    fn ask(&self, event: &str, payload: impl Into<Payload>) -> Payload {
        let (say, answer) = channel();
        let answered = move |payload, _: RawClient| say.send(payload).expect("heard");
        self.client.emit_with_ack(event, payload, PATIENCE, answered).expect("sent");
        answer.recv_timeout(PATIENCE).expect(event)
    }

    /// Values and bytes go there and back, as event and as answer.
    fn talk(&self) {
        let values =
            vec![json!(1), json!(1.5), json!("é€😀\u{2028}\u{1}"), json!(null), json!({"a": [true, {}]})];
        self.client.emit("message", Payload::Text(values.clone())).expect("sent");
        assert_eq!(self.hear("message-back"), Payload::Text(values.clone()));
        self.client.emit("message", BYTES).expect("sent");
        assert_eq!(self.hear("message-back"), BYTES.into());
        // It hands over all arguments of an answer as one.
        assert_eq!(
            self.ask("message-with-ack", Payload::Text(values.clone())),
            Payload::Text(vec![values.into()])
        );
    }
}

fn main() {
    let (one, other) = (Speaker::open("/", None), Speaker::open("/", None));
    one.hear("connected");
    other.hear("connected");
    one.talk();
    for speaker in [&one, &other] {
        speaker.ask("join", json!("room"));
    }
    one.client.emit("share", Payload::Text(vec![json!("room"), json!("text")])).expect("sent");
    for speaker in [&one, &other] {
        assert_eq!(speaker.hear("shared"), Payload::Text(vec![json!("text")]));
    }
    let auth = json!({"token": "a b&c", "n": "1"});
    let custom = Speaker::open("/custom", Some(auth.clone()));
    assert_eq!(custom.hear("auth"), Payload::Text(vec![auth]));
    custom.talk();
    let large = "x".repeat(LARGE);
    one.client.emit("message", json!(large)).expect("sent");
    assert_eq!(one.hear("message-back"), Payload::Text(vec![json!(large)]));
    for speaker in [one, other, custom] {
        speaker.client.disconnect().expect("a farewell");
    }
    println!("{}", json!({"done": true}));
}
