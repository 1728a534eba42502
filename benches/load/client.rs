//! All connections of one run, on one thread and one epoll instance.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Registry, Token};

use super::{
    Outcome,
    connection::{Connection, Phase},
    frame::{self, FIRST_ACK, number},
    histogram::Histogram,
    poller::Step,
};

/// Connections that may be connecting at one moment.
const OPENING: usize = 64;
/// Shared by all connections: nothing is held for an idle one.
const READ_BUFFER: usize = 256 * 1024;
/// How long a whole set may take to connect or to join its rooms.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// How clients connect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Via {
    WebSocket,
    Upgrade,
}

/// The clients of one run.
pub struct Client {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    connections: Vec<Connection>,
    pub lines: Lines,
}

/// What waits to be written, by connection: apart from the connections, so that whoever handles a packet of one can
/// write to any.
pub struct Lines {
    /// What connection `i` sends to join the namespace.
    hello: Box<dyn Fn(usize) -> String>,
    queues: Vec<Vec<u8>>,
    marked: Vec<bool>,
    dirty: Vec<usize>,
}

impl Lines {
    /// Queues bytes; everything queued leaves at the end of the turn, in one write per connection.
    pub fn send(&mut self, index: usize, bytes: &[u8]) {
        self.send_with(index, |queue| queue.extend_from_slice(bytes));
    }

    /// Like [`Self::send`], for a frame that is written into the queue.
    pub fn send_with(&mut self, index: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if !std::mem::replace(&mut self.marked[index], true) {
            self.dirty.push(index);
        }
        write(&mut self.queues[index]);
    }

    pub fn say_hello(&mut self, index: usize) {
        let packet = (self.hello)(index);
        self.send(index, &frame::text(&packet));
    }

    fn add(&mut self) {
        self.queues.push(Vec::new());
        self.marked.push(false);
    }
}

impl Client {
    pub fn new() -> Outcome<Self> {
        Self::with_hello(|_| "40".to_owned())
    }

    /// Clients that join the namespace with a packet of their own, for example with a token.
    pub fn with_hello(hello: impl Fn(usize) -> String + 'static) -> Outcome<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ_BUFFER],
            connections: Vec::new(),
            lines: Lines {
                hello: Box::new(hello),
                queues: Vec::new(),
                marked: Vec::new(),
                dirty: Vec::new(),
            },
        })
    }

    /// Opens `count` connections, a bounded number at a time, and returns how long each took.
    pub fn connect(&mut self, address: SocketAddr, count: usize, via: Via) -> Outcome<Histogram> {
        self.connect_with(address, count, via, |_, _, _, _| {})
    }

    /// Like [`Self::connect`], for servers that speak first: packets may arrive while others still connect.
    pub fn connect_with(
        &mut self,
        address: SocketAddr,
        count: usize,
        via: Via,
        mut on_packet: impl FnMut(usize, &[u8], Instant, &mut Lines),
    ) -> Outcome<Histogram> {
        let deadline = Instant::now() + SET_UP_TIMEOUT;
        let mut latency = Histogram::default();
        let mut opening: Vec<usize> = Vec::new();
        loop {
            while opening.len() < OPENING && self.connections.len() < count {
                opening.push(self.open(address, via)?);
            }
            if opening.is_empty() {
                return Ok(latency);
            }
            self.turn(Duration::from_millis(100), address, &mut on_packet)?;
            let connections = &self.connections;
            opening.retain(|index| {
                let connection = &connections[*index];
                if connection.phase == Phase::Ready {
                    latency.record(connection.connected_in);
                }
                connection.phase != Phase::Ready
            });
            if Instant::now() > deadline {
                return Err(format!(
                    "{} of {count} connected in time",
                    self.connections.len() - opening.len()
                )
                .into());
            }
        }
    }

    fn open(&mut self, address: SocketAddr, via: Via) -> Outcome<usize> {
        let index = self.connections.len();
        let registry = self.poll.registry();
        self.lines.add();
        self.connections.push(match via {
            Via::WebSocket => Connection::websocket(index, address, registry, &mut self.lines)?,
            Via::Upgrade => Connection::polling(index, address, registry)?,
        });
        Ok(index)
    }

    /// Puts every connection into its room and waits for all acks.
    pub fn join(&mut self, address: SocketAddr, room: impl Fn(usize) -> String) -> Outcome<()> {
        let deadline = Instant::now() + SET_UP_TIMEOUT;
        let mut left = self.connections.len();
        for start in (0..self.connections.len()).step_by(OPENING) {
            for index in start..(start + OPENING).min(self.connections.len()) {
                let packet = format!(r#"42{FIRST_ACK}["join","{}"]"#, room(index));
                self.lines.send(index, &frame::text(&packet));
            }
            let expected = self.connections.len().saturating_sub(start + OPENING);
            while left > expected {
                self.turn(Duration::from_millis(100), address, |_, payload, _, _| {
                    left -= usize::from(payload.starts_with(b"43") && number(&payload[2..]) == FIRST_ACK);
                })?;
                if Instant::now() > deadline {
                    return Err(format!("{left} did not join their room in time").into());
                }
            }
        }
        Ok(())
    }

    /// Flushes, waits for the network at most `wait`, and hands every Socket.IO packet (with its Engine.IO `4`) to
    /// `on_packet`: index of the connection, packet, time, and the lines to answer on.
    ///
    /// # Errors
    ///
    /// When a server closes a connection: no workload expects that.
    pub fn turn(
        &mut self,
        wait: Duration,
        address: SocketAddr,
        mut on_packet: impl FnMut(usize, &[u8], Instant, &mut Lines),
    ) -> Outcome<()> {
        self.flush();
        if let Err(error) = self.poll.poll(&mut self.events, Some(wait))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        let Self { poll, events, buffer, connections, lines } = self;
        for event in events.iter() {
            let Token(token) = event.token();
            let (index, polling) = (token / 2, token % 2 == 1);
            let connection = &mut connections[index];
            if polling {
                advance_poller(connection, address, buffer, poll.registry(), lines)?;
                continue;
            }
            if event.is_writable() && !lines.queues[index].is_empty() {
                connection.flush(&mut lines.queues[index]);
            }
            if event.is_readable() {
                let now = Instant::now();
                connection.read(buffer, lines, &mut |packet, lines| on_packet(index, packet, now, lines));
            }
            if connection.phase == Phase::Closed {
                return Err(format!("the server closed connection {index}").into());
            }
        }
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        for index in self.lines.dirty.drain(..) {
            self.lines.marked[index] = false;
            self.connections[index].flush(&mut self.lines.queues[index]);
        }
    }
}

fn advance_poller(
    connection: &mut Connection,
    address: SocketAddr,
    buffer: &mut [u8],
    registry: &Registry,
    lines: &mut Lines,
) -> Outcome<()> {
    let paused = connection.phase == Phase::Pausing;
    let Some(poller) = &mut connection.poller else { return Ok(()) };
    match poller.advance(buffer, paused) {
        Step::None => {}
        Step::Joined => {
            let sid = poller.sid.clone();
            connection.open(address, registry, lines, Some(&sid))?;
        }
        Step::Failed => return Err("a poll failed".into()),
    }
    connection.finish_upgrade(lines);
    Ok(())
}
