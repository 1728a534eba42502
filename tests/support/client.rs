//! A Socket.IO client that speaks the raw protocol over one WebSocket, and can be rude.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Nothing on this machine takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection in the namespace `/`.
pub struct TestClient {
    wire: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The id of its Engine.IO session.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub sid: String,
    next_ack: u64,
    /// Events that arrived while something else was awaited.
    events: VecDeque<(String, Value)>,
    /// Acks that arrived while something else was awaited.
    acks: Vec<(u64, Value)>,
    /// Payload of `session:ready`.
    pub ready: Value,
    /// The private id of its session, if the server gave one.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub pid: Option<String>,
    /// The offset of the last event that had one.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub offset: Option<String>,
}

impl TestClient {
    /// Opens the connection and nothing more: no CONNECT is sent.
    pub async fn open(addr: SocketAddr) -> Self {
        Self::open_with(addr, "", &[]).await
    }

    /// Like [`TestClient::open`], with more of a query, and headers.
    pub async fn open_with(addr: SocketAddr, query: &str, headers: &[(&'static str, &str)]) -> Self {
        let url = format!("ws://{addr}/socket.io/?EIO=4&transport=websocket{query}");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (wire, _) = connect_async(request).await.unwrap();
        let mut client = Self {
            wire,
            sid: String::new(),
            next_ack: 0,
            events: VecDeque::new(),
            acks: Vec::new(),
            ready: Value::Null,
            pid: None,
            offset: None,
        };
        let packet = client.packet().await.unwrap();
        let handshake = packet.strip_prefix('0').expect("the handshake comes first");
        let handshake: Value = serde_json::from_str(handshake).unwrap();
        client.sid = handshake["sid"].as_str().unwrap().to_owned();
        client
    }

    /// Opens, joins and waits for the first event, which must be `session:ready`.
    pub async fn connect(addr: SocketAddr, token: &str) -> Self {
        let mut client = Self::open(addr).await;
        client.join(json!({ "token": token })).await.unwrap();
        let (name, ready) = client.event().await;
        assert_eq!(name, "session:ready");
        client.ready = ready;
        client
    }

    /// Sends CONNECT with this `auth`; the payload of CONNECT_ERROR where that is the answer.
    pub async fn join(&mut self, auth: Value) -> Result<Value, Value> {
        self.join_at("", auth).await
    }

    /// Like [`TestClient::join`], and waits for `session:ready`; nothing if the connection ends before that.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub async fn try_join(&mut self, auth: Value) -> Option<()> {
        self.try_raw(&format!("40{auth}")).await.ok()?;
        let answer: Value = serde_json::from_str(self.packet().await?.strip_prefix("40")?).unwrap();
        self.pid = answer["pid"].as_str().map(str::to_owned);
        self.receive().await?;
        let (name, ready) = self.events.pop_front()?;
        assert_eq!(name, "session:ready");
        self.ready = ready;
        Some(())
    }

    /// Like [`TestClient::join`], in the namespace that this prefix of a payload names.
    pub async fn join_at(&mut self, namespace: &str, auth: Value) -> Result<Value, Value> {
        self.raw(&format!("40{namespace}{auth}")).await;
        let packet = self.packet().await.expect("an answer to CONNECT");
        let (kind, answer) = packet.split_at(2);
        let answer: Value = serde_json::from_str(answer.strip_prefix(namespace).unwrap()).unwrap();
        self.pid = answer["pid"].as_str().map(str::to_owned);
        match kind {
            "40" => Ok(answer),
            "44" => Err(answer),
            _ => panic!("no answer to CONNECT: {packet}"),
        }
    }

    /// Sends any Engine.IO packet, however wrong.
    pub async fn raw(&mut self, packet: &str) {
        self.wire.send(Message::text(packet)).await.unwrap();
    }

    /// Like [`TestClient::raw`], where the connection may be gone.
    pub async fn try_raw(&mut self, packet: &str) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        self.wire.send(Message::text(packet)).await
    }

    /// Sends an event without asking for an ack.
    pub async fn emit(&mut self, event: &str, payload: Value) {
        self.raw(&format!("42{}", json!([event, payload]))).await;
    }

    /// Sends an event and asks for an ack, but does not wait for it.
    pub async fn ask(&mut self, event: &str, payload: Value) -> u64 {
        let id = self.next_ack;
        self.next_ack += 1;
        self.raw(&format!("42{id}{}", json!([event, payload]))).await;
        id
    }

    /// The answer to the event that was sent as `id`.
    pub async fn answer(&mut self, id: u64) -> Value {
        loop {
            if let Some(at) = self.acks.iter().position(|(ack, _)| *ack == id) {
                return self.acks.swap_remove(at).1;
            }
            self.receive().await.expect("the connection ended before the ack");
        }
    }

    /// Sends an event and waits for its whole answer.
    pub async fn call(&mut self, event: &str, payload: Value) -> Value {
        let id = self.ask(event, payload).await;
        self.answer(id).await
    }

    /// [`TestClient::call`] that must succeed: its data.
    pub async fn ok(&mut self, event: &str, payload: Value) -> Value {
        let mut answer = self.call(event, payload).await;
        assert_eq!(answer["ok"], true, "{event}: {answer}");
        answer["data"].take()
    }

    /// [`TestClient::call`] that must be refused: its error.
    pub async fn refused(&mut self, event: &str, payload: Value) -> Value {
        let mut answer = self.call(event, payload).await;
        assert_eq!(answer["ok"], false, "{event}: {answer}");
        answer["error"].take()
    }

    /// The next event.
    pub async fn event(&mut self) -> (String, Value) {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.receive().await.expect("the connection ended before the event");
        }
    }

    /// The next event with this name; others are thrown away.
    pub async fn expect(&mut self, name: &str) -> Value {
        loop {
            let (event, payload) = self.event().await;
            if event == name {
                return payload;
            }
        }
    }

    /// Closes the connection with this code.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.wire.close(Some(frame)).await.unwrap();
    }

    /// Events that have arrived when the server has answered a `ping` sent now.
    pub async fn events_so_far(&mut self) -> Vec<(String, Value)> {
        self.ok("ping", json!({})).await;
        self.events.drain(..).collect()
    }

    /// Waits until the server has ended the connection; events on the way are kept.
    pub async fn ended(&mut self) {
        while self.receive().await.is_some() {}
    }

    /// Whether the server ended the connection with a Socket.IO DISCONNECT, after which a stock client stays away.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub async fn was_dismissed(&mut self) -> bool {
        let mut dismissed = false;
        while let Some(packet) = self.packet().await {
            dismissed |= packet == "41";
        }
        dismissed
    }

    /// Events that were kept.
    pub fn kept(&mut self) -> Vec<(String, Value)> {
        self.events.drain(..).collect()
    }

    /// Answers that were kept.
    pub fn kept_answers(&mut self) -> Vec<Value> {
        self.acks.drain(..).map(|(_, answer)| answer).collect()
    }

    async fn receive(&mut self) -> Option<()> {
        let packet = self.packet().await?;
        if let Some(event) = packet.strip_prefix("42") {
            // Those of other namespaces have its name first.
            let json =
                event.split_once(',').filter(|_| event.starts_with('/')).map_or(event, |(_, json)| json);
            let mut event: Vec<Value> = serde_json::from_str(json).unwrap();
            let payload = event.get_mut(1).map(Value::take).unwrap_or_default();
            if let Some(offset) = event.last().and_then(Value::as_str).filter(|_| event.len() > 2) {
                self.offset = Some(offset.to_owned());
            }
            self.events.push_back((event[0].as_str().unwrap().to_owned(), payload));
        } else if let Some(rest) = packet.strip_prefix("43") {
            let start = rest.find('[').unwrap();
            let mut args: Vec<Value> = serde_json::from_str(&rest[start..]).unwrap();
            self.acks.push((rest[..start].parse().unwrap(), args[0].take()));
        }
        Some(())
    }

    /// The next packet that is no heartbeat; nothing when the connection ended.
    async fn packet(&mut self) -> Option<String> {
        loop {
            let message = timeout(PATIENCE, self.wire.next()).await.expect("the server is silent")?;
            let Ok(Message::Text(text)) = message else { return None };
            if text.as_str() != "2" {
                return Some(text.to_string());
            }
            self.try_raw("3").await.ok()?;
        }
    }
}
