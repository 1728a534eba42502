//! The clients of a simulated cluster: like those of the stock library, they come back with what they know of their session.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::scenario::Kind;
use super::world::{Node, World};
use crate::bus::sim::Dice;
use crate::engine::{MemoryPeer, Message};
use crate::socket::recovery::log::SessionKey;
use crate::socket::tests::open;

/// A client, over all its connections.
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) face: Mutex<Face>,
    /// Wakes the client when its connection breaks.
    broken: Notify,
}

/// What a client knows, and what is known of it.
#[derive(Default)]
pub(super) struct Face {
    pub(super) sid: String,
    pid: String,
    offset: Option<String>,
    /// The process that it is connected to, or trying to connect to.
    pub(super) process: Option<u64>,
    /// The connection, once the server has accepted the client.
    pub(super) peer: Option<Arc<MemoryPeer>>,
    /// How its connection breaks: whether the server notices.
    breaks: Option<bool>,
    requests: u64,
    /// When it lost its connection.
    since: Option<Instant>,
    /// Whether its session must be there when it comes back: it was told something, and nobody else touched it since.
    pub(super) is_safe: bool,
    /// The events that it got in this session.
    pub(super) received: Vec<u64>,
}

/// What a packet means for the connection.
enum Next {
    GoOn,
    End,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self { number, face: Mutex::default(), broken: Notify::new() }
    }

    /// Breaks the connection, if there is one.
    pub(super) fn break_off(&self, is_noticed: bool) {
        let mut face = self.face.lock();
        if face.process.is_some() && face.breaks.is_none() {
            face.breaks = Some(is_noticed);
            self.broken.notify_one();
        }
    }

    /// Sends a request of the client to its server, if it is connected.
    pub(super) fn ask(&self, event: &str, room: &str) {
        let mut face = self.face.lock();
        face.requests += 1;
        let id = face.requests;
        if let Some(peer) = face.peer.as_ref().filter(|_| face.breaks.is_none()) {
            peer.send(&format!(r#"2{id}["{event}","{room}",{id}]"#));
        }
    }

    /// Returns a CONNECT packet with everything that the client knows of its session.
    pub(super) fn hello(&self) -> String {
        let face = self.face.lock();
        let mut auth = json!({});
        if !face.pid.is_empty() {
            auth["pid"] = json!(face.pid);
        }
        if let Some(offset) = &face.offset {
            auth["offset"] = json!(offset);
        }
        format!("0{auth}")
    }
}

impl World {
    /// Lets a client live: it connects to some node, again and again.
    pub(super) async fn live(self: Arc<Self>, client: Arc<Client>) {
        let mut dice = Dice::new(self.scenario.seed, ("client", client.number));
        while !self.over.is_cancelled() {
            if let Some(node) = self.door(&mut dice) {
                self.visit(&client, node, &mut dice).await;
            }
            let longest = if dice.chance(80) { 2_000 } else { 20_000 };
            sleep(Duration::from_millis(50 + dice.below(if self.hurries() { 500 } else { longest }))).await;
        }
    }

    /// Connects a client to a node, and stays until the connection ends.
    async fn visit(self: &Arc<Self>, client: &Arc<Client>, node: Node, dice: &mut Dice) {
        let peer = Arc::new(open(&node.server));
        client.face.lock().process = Some(node.process);
        let calm = self.calm();
        peer.send(&client.hello());
        let latency = match self.scenario.kind {
            Kind::Plain => Duration::ZERO,
            Kind::Logged => dice.duration(Duration::from_millis(150)),
        };
        let mut early = Vec::new();
        while let Some(message) = self.next(client, &peer, latency).await {
            // What has arrived on the way is there at the same time.
            let mut messages = std::iter::once(message).chain(std::iter::from_fn(|| peer.try_recv()));
            let ends = |message| matches!(self.process(client, &peer, &mut early, &message, calm), Next::End);
            if messages.any(ends) {
                break;
            }
        }
        let mut face = client.face.lock();
        self.observer.lock().note(format!("c{} away", client.number));
        (face.process, face.peer, face.since) = (None, None, Some(Instant::now()));
        if face.breaks.take() == Some(false) {
            self.haunt(peer, dice.duration(Duration::from_secs(45)));
        }
    }

    /// Returns the next message for a client, or `None` when its connection ends.
    async fn next(&self, client: &Client, peer: &MemoryPeer, latency: Duration) -> Option<Message> {
        tokio::select! {
            biased;
            () = client.broken.notified() => None,
            message = async {
                let message = peer.recv().await;
                if !latency.is_zero() {
                    sleep(latency).await;
                }
                message
            } => message,
        }
    }

    /// Keeps a connection that broke without its server, until that would have noticed.
    pub(super) fn haunt(&self, peer: Arc<MemoryPeer>, time: Duration) {
        let over = self.ghosts_over.clone();
        self.tasks.spawn(async move {
            over.run_until_cancelled(sleep(time)).await;
            drop(peer);
        });
    }

    fn process(
        &self,
        client: &Client,
        peer: &Arc<MemoryPeer>,
        early: &mut Vec<String>,
        message: &Message,
        calm: Option<u64>,
    ) -> Next {
        let Message::Text(text) = message else { panic!("not text: {message:?}") };
        let (kind, rest) = text.as_str().split_at(1);
        match kind {
            "0" => {
                self.welcome(client, peer, rest, calm);
                early.drain(..).for_each(|event| self.event(client, peer, &event));
            }
            "1" => {
                client.face.lock().is_safe = false;
                return Next::End;
            }
            "2" if client.face.lock().peer.is_none() => early.push(rest.to_owned()),
            "2" => self.event(client, peer, rest),
            "3" => {
                let id: u64 = rest.split('[').next().unwrap().parse().unwrap();
                let mut face = client.face.lock();
                face.is_safe = true;
                let mut observer = self.observer.lock();
                observer.sessions.told(&face.sid, id);
                observer.note(format!("c{} answer {id}", client.number));
            }
            _ => {
                self.observer.lock().note(format!("c{} refused {rest}", client.number));
                return Next::End;
            }
        }
        Next::GoOn
    }

    fn welcome(&self, client: &Client, peer: &Arc<MemoryPeer>, reply: &str, calm: Option<u64>) {
        let reply: Value = serde_json::from_str(reply).unwrap();
        let (sid, pid) = (reply["sid"].as_str().unwrap(), reply["pid"].as_str().unwrap_or_default());
        let mut face = client.face.lock();
        let recovered = !pid.is_empty() && face.pid == pid;
        let mut observer = self.observer.lock();
        let name = observer.name(sid);
        observer.note(format!(
            "c{} is {name} at p{}, recovered {recovered}",
            client.number,
            face.process.unwrap()
        ));
        let away = face.since.map(|since| since.elapsed()).unwrap_or_default();
        let had_to =
            !pid.is_empty() && face.is_safe && away < SAFE_MAX && calm.is_some() && calm == self.calm();
        if had_to && self.scenario.is_faithful && !recovered {
            observer.object(format!("c{} did not recover after {away:?}", client.number));
        }
        if !recovered {
            (face.offset, face.is_safe) = (None, false);
            face.received.clear();
        }
        (face.sid, face.pid) = (sid.to_owned(), pid.to_owned());
        face.peer = Some(peer.clone());
        if !pid.is_empty() {
            self.log.name(session_key(pid), client.number as u64 + 1);
        }
    }

    fn event(&self, client: &Client, peer: &MemoryPeer, packet: &str) {
        let id = packet.split('[').next().unwrap();
        let args: Vec<Value> = serde_json::from_str(&packet[id.len()..]).unwrap();
        if args[0] == "vote" {
            return peer.send(&format!("3{id}[{}]", client.number));
        }
        let number = args[1].as_u64().unwrap();
        let mut face = client.face.lock();
        face.received.push(number);
        let mut observer = self.observer.lock();
        let emit = observer.emits[number as usize].clone();
        let outcome = match args.get(2).and_then(Value::as_str) {
            Some(offset) => {
                face.offset = Some(offset.to_owned());
                observer.sessions.received(&face.sid, place(offset), number)
            }
            None => observer.sockets.received(&face.sid, number, &emit),
        };
        observer.note(format!("c{} gets {number}", client.number));
        observer.check(outcome.map_err(|wrong| format!("c{}: {wrong}", client.number)));
    }
}

/// Returns the key of the session with this private id.
pub(super) fn session_key(pid: &str) -> SessionKey {
    SessionKey(URL_SAFE_NO_PAD.decode(pid).unwrap().try_into().unwrap())
}

/// Returns what an offset says.
fn place(offset: &str) -> (u64, u64) {
    let value = u128::from_be_bytes(URL_SAFE_NO_PAD.decode(offset).unwrap().try_into().unwrap());
    ((value >> 64) as u64, value as u64)
}

/// After an absence of this length a session is still there, also if its node has been silent for longer.
const SAFE_MAX: Duration = Duration::from_secs(15);
