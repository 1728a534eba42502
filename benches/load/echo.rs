//! Echo: each connection keeps a window of events waiting for their acks.

use std::time::{Duration, Instant};

use super::{
    Outcome,
    client::{Client, Lines, Via},
    frame::{ACK_DIGITS, FIRST_ACK, Template, number},
    histogram::Histogram,
    measure::{DRAIN, MEASURED, Mark, Measured, WARM_UP},
    server::Server,
};

/// One echo load.
pub struct Echo {
    /// Events each connection has under way.
    pub window: usize,
    /// Length of the argument.
    pub bytes: usize,
}

/// One connection's side.
struct Sender {
    next: u64,
    /// The ack that must come next.
    expected: u64,
    /// By ack id, modulo the window.
    sent: Vec<Instant>,
}

struct Running {
    template: Template,
    senders: Vec<Sender>,
    latency: Histogram,
    count: u64,
    unordered: u64,
    under_way: u64,
    stopped: bool,
}

impl Echo {
    pub fn run(&self, server: &Server, connections: usize) -> Outcome<Measured> {
        let mut client = Client::new()?;
        client.connect(server.address, connections, Via::WebSocket)?;
        let packet = format!(r#"42{}["echo","{}"]"#, "#".repeat(ACK_DIGITS), "x".repeat(self.bytes));
        let mut running = Running {
            template: Template::new(&packet, ACK_DIGITS)?,
            senders: (0..connections).map(|_| Sender::new(self.window)).collect(),
            latency: Histogram::default(),
            count: 0,
            unordered: 0,
            under_way: 0,
            stopped: false,
        };
        for index in 0..connections {
            for _ in 0..self.window {
                running.send(index, Instant::now(), &mut client.lines);
            }
        }
        running.drive(&mut client, server, WARM_UP)?;
        running.reset();
        let mark = Mark::now(server)?;
        running.drive(&mut client, server, MEASURED)?;
        let mut measured = mark.until_now(server, running.count, running.latency.clone())?;
        running.stopped = true;
        running.drive(&mut client, server, DRAIN)?;
        measured.unordered = running.unordered;
        measured.lost = running.under_way;
        Ok(measured)
    }
}

impl Sender {
    fn new(window: usize) -> Self {
        Self { next: FIRST_ACK, expected: FIRST_ACK, sent: vec![Instant::now(); window] }
    }

    fn slot(&mut self, id: u64) -> &mut Instant {
        let window = self.sent.len();
        &mut self.sent[id as usize % window]
    }
}

impl Running {
    /// Turns until the time is over or, once stopped, until everything is answered.
    fn drive(&mut self, client: &mut Client, server: &Server, time: Duration) -> Outcome<()> {
        let end = Instant::now() + time;
        while Instant::now() < end && !(self.stopped && self.under_way == 0) {
            client.turn(Duration::from_millis(10), server.address, |index, packet, now, lines| {
                self.take(index, packet, now, lines);
            })?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.latency = Histogram::default();
        self.count = 0;
        self.unordered = 0;
    }

    fn take(&mut self, index: usize, packet: &[u8], now: Instant, lines: &mut Lines) {
        let Some(ack) = packet.strip_prefix(b"43") else { return };
        let id = number(ack);
        let sender = &mut self.senders[index];
        self.latency.record(now - *sender.slot(id));
        self.unordered += u64::from(id != sender.expected);
        sender.expected = id + 1;
        self.count += 1;
        self.under_way -= 1;
        self.send(index, now, lines);
    }

    fn send(&mut self, index: usize, now: Instant, lines: &mut Lines) {
        if self.stopped {
            return;
        }
        let sender = &mut self.senders[index];
        let id = sender.next;
        sender.next += 1;
        *sender.slot(id) = now;
        self.under_way += 1;
        lines.send_with(index, |out| self.template.write(id, out));
    }
}
