//! A test client that recovers its session.

use serde_json::{Value, json};

use super::main;
use crate::engine::MemoryPeer;
use crate::socket::tests::{open, text};
use crate::socket::{Server, Socket};

/// A client that behaves like the stock one, with its private id and last offset.
pub(in crate::socket::tests) struct Client {
    pub(in crate::socket::tests) server: Server,
    pub(in crate::socket::tests) peer: MemoryPeer,
    pub(in crate::socket::tests) sid: String,
    pub(in crate::socket::tests) pid: String,
    pub(in crate::socket::tests) offset: Option<String>,
    pub(in crate::socket::tests) recovered: bool,
    /// The first argument of every event, in order of arrival.
    pub(in crate::socket::tests) received: Vec<Value>,
    pub(in crate::socket::tests) auth: Value,
}

impl Client {
    pub(in crate::socket::tests) async fn join(server: &Server) -> Self {
        Self::join_as(server, json!({})).await
    }

    pub(in crate::socket::tests) async fn join_as(server: &Server, auth: Value) -> Self {
        let peer = open(server);
        let (sid, pid) = Default::default();
        let server = server.clone();
        let (offset, received) = (None, Vec::new());
        let mut client = Self { server, peer, sid, pid, offset, recovered: false, received, auth };
        client.connect().await;
        client
    }

    /// Sends CONNECT and reads until the reply.
    pub(in crate::socket::tests) async fn connect(&mut self) {
        assert_eq!(self.try_connect().await, None);
    }

    /// Connects. Returns the reason if it is refused.
    pub(in crate::socket::tests) async fn try_connect(&mut self) -> Option<Value> {
        self.peer.send(&self.hello());
        let mut early = Vec::new();
        loop {
            let text = text(&self.peer).await;
            if let Some(refusal) = text.strip_prefix('4') {
                return Some(serde_json::from_str(refusal).unwrap());
            }
            let Some(reply) = text.strip_prefix('0') else {
                early.push(text);
                continue;
            };
            let reply: Value = serde_json::from_str(reply).unwrap();
            let pid = reply["pid"].as_str().unwrap().to_owned();
            self.sid = reply["sid"].as_str().unwrap().to_owned();
            self.recovered = self.pid == pid;
            self.pid = pid;
            early.iter().for_each(|text| self.process(text));
            return None;
        }
    }

    fn process(&mut self, text: &str) {
        let Some(event) = text.strip_prefix('2') else { return };
        let args: Vec<Value> =
            serde_json::from_str(event.trim_start_matches(|digit: char| digit.is_ascii_digit())).unwrap();
        self.received.push(args[1].clone());
        if let Some(offset) = args.last().and_then(Value::as_str) {
            self.offset = Some(offset.to_owned());
        }
    }

    /// Returns a CONNECT packet with everything the client knows of its session.
    pub(in crate::socket::tests) fn hello(&self) -> String {
        let mut auth = self.auth.clone();
        if !self.pid.is_empty() {
            auth["pid"] = json!(self.pid);
        }
        if let Some(offset) = &self.offset {
            auth["offset"] = json!(offset);
        }
        format!("0{auth}")
    }

    /// Reads what has arrived. The last `lost` packets are lost in transit.
    pub(in crate::socket::tests) async fn read(&mut self, lost: usize) {
        self.peer.send("0/no-such-namespace,");
        let mut texts = Vec::new();
        loop {
            let text = text(&self.peer).await;
            if text.starts_with("4/no-such-namespace,") {
                break;
            }
            texts.push(text);
        }
        let read = texts.len().saturating_sub(lost);
        texts[..read].iter().for_each(|text| self.process(text));
    }

    pub(in crate::socket::tests) fn socket(&self) -> Socket {
        main(&self.server).socket(&self.sid).unwrap()
    }

    /// Breaks the connection so that the server notices.
    pub(in crate::socket::tests) async fn drop_connection(&mut self) {
        let socket = self.socket();
        self.peer.close();
        while socket.is_connected() {
            tokio::task::yield_now().await;
        }
    }

    pub(in crate::socket::tests) async fn come_back(&mut self) {
        self.peer = open(&self.server);
        self.connect().await;
    }

    pub(in crate::socket::tests) fn numbers(&self) -> Vec<u64> {
        self.received.iter().filter_map(Value::as_u64).collect()
    }
}
