//! The polling half of an upgrading client: what the official client does, in its order.
//!
//! Open, POST the CONNECT, poll its reply, then keep a poll pending while the WebSocket probes. All on one kept-alive
//! connection.

use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use mio::{Registry, Token, net::TcpStream};

use super::{
    Outcome,
    connection::{connect, pending},
};

/// What the next HTTP response answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Post,
    Reply,
    /// Namespace joined: polls go on until the probe is answered.
    Joined,
}

/// What happened.
pub enum Step {
    None,
    /// The namespace is joined: time to open the WebSocket.
    Joined,
    Failed,
}

/// An HTTP client with one request under way.
pub struct Poller {
    stream: TcpStream,
    address: SocketAddr,
    stage: Stage,
    pub sid: String,
    /// A request is under way.
    under_way: bool,
    /// A ping came by polling; its pong leaves on the WebSocket.
    pub owes_pong: bool,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Poller {
    pub fn open(address: SocketAddr, token: Token, registry: &Registry) -> Outcome<Self> {
        let stream = connect(address, token, registry)?;
        let mut poller = Self {
            stream,
            address,
            stage: Stage::Open,
            sid: String::new(),
            under_way: false,
            owes_pong: false,
            input: Vec::new(),
            out: Vec::new(),
        };
        poller.request("GET", "");
        Ok(poller)
    }

    pub fn is_pending(&self) -> bool {
        self.under_way
    }

    /// The socket can be written or read. `paused`: no new poll, the WebSocket takes over.
    pub fn advance(&mut self, buffer: &mut [u8], paused: bool) -> Step {
        self.flush();
        let read = match self.stream.read(buffer) {
            Ok(0) => return Step::Failed,
            Ok(read) => read,
            Err(error) if pending(&error) => return Step::None,
            Err(_) => return Step::Failed,
        };
        self.input.extend_from_slice(&buffer[..read]);
        let Some(body) = self.response() else { return Step::None };
        let Some(body) = body else { return Step::Failed };
        self.under_way = false;
        self.take(&body, paused)
    }

    fn take(&mut self, body: &str, paused: bool) -> Step {
        self.owes_pong |= body.split('\x1e').any(|packet| packet == "2");
        match self.stage {
            Stage::Open => {
                let Some(sid) = body.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next())
                else {
                    return Step::Failed;
                };
                self.sid = sid.to_owned();
                self.stage = Stage::Post;
                self.request("POST", "40");
            }
            Stage::Post => {
                self.stage = Stage::Reply;
                self.request("GET", "");
            }
            Stage::Reply => {
                let joined = body.split('\x1e').any(|packet| packet.starts_with("40"));
                self.request("GET", "");
                if joined {
                    self.stage = Stage::Joined;
                    return Step::Joined;
                }
            }
            Stage::Joined if !paused => self.request("GET", ""),
            Stage::Joined => {}
        }
        Step::None
    }

    fn request(&mut self, method: &str, body: &str) {
        let Self { sid, address, .. } = self;
        let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
        let head = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n", body.len())
        };
        let request = format!(
            "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: {address}\r\n{head}\r\n{body}"
        );
        self.out.extend(request.bytes());
        self.under_way = true;
        self.flush();
    }

    fn flush(&mut self) {
        // A request fits the socket's buffer: either all of it is taken or the connect is not done yet.
        if let Ok(written) = self.stream.write(&self.out) {
            self.out.drain(..written);
        }
    }

    /// The body of a complete response with status 200; `Some(None)` for any other.
    fn response(&mut self) -> Option<Option<String>> {
        let end = self.input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.input[..end]).to_lowercase();
        let len = head.split("content-length:").nth(1)?.split("\r\n").next()?.trim().parse::<usize>().ok()?;
        let body = self.input.get(end..end + len)?;
        let body = String::from_utf8_lossy(body).into_owned();
        self.input.drain(..end + len);
        Some(head.starts_with("http/1.1 200").then_some(body))
    }
}
