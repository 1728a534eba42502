//! One client: a WebSocket, from the TCP connect to the namespace's reply, then a bare pipe of frames.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, net::TcpStream};
use socket2::SockRef;

use super::{
    Outcome,
    client::Lines,
    frame::{self, Incoming},
    poller::Poller,
};

/// Where a connection is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The polling half of an upgrade is under way; no WebSocket yet.
    Polling,
    /// Waiting for the answer to the HTTP upgrade.
    Upgrading,
    /// Waiting for the Engine.IO handshake, or for the pong of the probe.
    Opening,
    /// Probe answered; waiting for the pending poll to end, as the official client does.
    Pausing,
    /// Waiting for the namespace's reply.
    Joining,
    Ready,
    Closed,
}

/// One client.
pub struct Connection {
    index: usize,
    pub phase: Phase,
    /// When it started to connect, then how long that took.
    pub started: Instant,
    pub connected_in: Duration,
    pub poller: Option<Poller>,
    stream: Option<TcpStream>,
    partial: Vec<u8>,
}

impl Connection {
    /// A WebSocket-only client that starts to connect.
    pub fn websocket(
        index: usize,
        address: SocketAddr,
        registry: &Registry,
        lines: &mut Lines,
    ) -> Outcome<Self> {
        let mut connection = Self::new(index, None);
        connection.open(address, registry, lines, None)?;
        Ok(connection)
    }

    /// A client that starts with polling and upgrades.
    pub fn polling(index: usize, address: SocketAddr, registry: &Registry) -> Outcome<Self> {
        let poller = Poller::open(address, Token(2 * index + 1), registry)?;
        Ok(Self::new(index, Some(poller)))
    }

    fn new(index: usize, poller: Option<Poller>) -> Self {
        Self {
            index,
            phase: Phase::Polling,
            started: Instant::now(),
            connected_in: Duration::ZERO,
            poller,
            stream: None,
            partial: Vec::new(),
        }
    }

    /// Opens the WebSocket, for a session that exists already or for a new one.
    pub fn open(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        lines: &mut Lines,
        sid: Option<&str>,
    ) -> Outcome<()> {
        self.stream = Some(connect(address, Token(2 * self.index), registry)?);
        self.phase = Phase::Upgrading;
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket{sid} HTTP/1.1\r\nHost: {address}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        lines.send(self.index, request.as_bytes());
        Ok(())
    }

    /// Writes what is queued, as far as the kernel takes it; the rest leaves with the next writable event.
    pub fn flush(&mut self, queue: &mut Vec<u8>) {
        let Some(stream) = &mut self.stream else { return };
        let mut done = 0;
        while done < queue.len() {
            match stream.write(&queue[done..]) {
                Ok(written) => done += written,
                Err(error) if pending(&error) => break,
                Err(_) => {
                    self.phase = Phase::Closed;
                    break;
                }
            }
        }
        queue.drain(..done);
    }

    /// Reads all there is and hands every Socket.IO packet to `on_packet`, with the lines to answer on.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        lines: &mut Lines,
        on_packet: &mut impl FnMut(&[u8], &mut Lines),
    ) {
        while self.phase != Phase::Closed {
            let Some(stream) = &mut self.stream else { return };
            let read = match stream.read(buffer) {
                Ok(read) if read > 0 => read,
                Err(error) if pending(&error) => return,
                Ok(_) | Err(_) => {
                    self.phase = Phase::Closed;
                    return;
                }
            };
            if self.partial.is_empty() {
                let used = self.consume(&buffer[..read], lines, on_packet);
                self.partial.extend_from_slice(&buffer[used..read]);
            } else {
                let mut bytes = std::mem::take(&mut self.partial);
                bytes.extend_from_slice(&buffer[..read]);
                let used = self.consume(&bytes, lines, on_packet);
                bytes.drain(..used);
                self.partial = bytes;
            }
            // Less than a buffer: the socket is empty, and the next bytes are a new edge.
            if read < buffer.len() {
                return;
            }
        }
    }

    fn consume(
        &mut self,
        bytes: &[u8],
        lines: &mut Lines,
        on_packet: &mut impl FnMut(&[u8], &mut Lines),
    ) -> usize {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return 0 };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                self.phase = Phase::Closed;
                return bytes.len();
            }
            used = end + 4;
            self.phase = Phase::Opening;
            if self.poller.is_some() {
                lines.send(self.index, &frame::text("2probe"));
            }
        }
        while let Some(frame) = Incoming::parse(&bytes[used..]) {
            used += frame.len;
            match frame.opcode {
                1 => self.take_text(frame.payload, lines, on_packet),
                8 => self.phase = Phase::Closed,
                _ => {}
            }
        }
        used
    }

    fn take_text(
        &mut self,
        payload: &[u8],
        lines: &mut Lines,
        on_packet: &mut impl FnMut(&[u8], &mut Lines),
    ) {
        match (self.phase, payload.first()) {
            (Phase::Ready, Some(b'4')) => on_packet(payload, lines),
            (_, Some(b'2')) => lines.send(self.index, &frame::text("3")),
            (Phase::Opening, Some(b'0')) => {
                self.phase = Phase::Joining;
                lines.say_hello(self.index);
            }
            (Phase::Opening, Some(b'3')) => {
                self.phase = Phase::Pausing;
                self.finish_upgrade(lines);
            }
            (Phase::Joining, Some(b'4')) => self.ready(payload.starts_with(b"40")),
            _ => {}
        }
    }

    /// Ends the upgrade once the probe is answered and no poll is pending.
    pub fn finish_upgrade(&mut self, lines: &mut Lines) {
        let Some(poller) = self.poller.take_if(|poller| self.phase == Phase::Pausing && !poller.is_pending())
        else {
            return;
        };
        lines.send(self.index, &frame::text("5"));
        if poller.owes_pong {
            lines.send(self.index, &frame::text("3"));
        }
        self.ready(true);
    }

    fn ready(&mut self, accepted: bool) {
        self.phase = if accepted { Phase::Ready } else { Phase::Closed };
        self.connected_in = self.started.elapsed();
    }
}

/// A non-blocking connect, registered for both directions.
pub fn connect(address: SocketAddr, token: Token, registry: &Registry) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    // A reset at the end leaves no TIME_WAIT behind: ten thousand of them slow down the next server's connects.
    socket.set_linger(Some(Duration::ZERO))?;
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

/// Not an end: nothing to read, no room to write, or not connected yet.
pub fn pending(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}
