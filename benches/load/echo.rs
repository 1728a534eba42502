//! Echo: each connection keeps a window of events waiting for their acks.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    Outcome,
    client::{Client, Lines, Via},
    frame::{ACK_DIGITS, FIRST_ACK, Template, number},
    histogram::Histogram,
    measure::{DRAIN, MEASURED, Mark, Measured, WARM_UP},
    pace::Pace,
    server::Server,
};

/// One echo load.
pub struct Echo {
    /// Events each connection has under way; with a rate, as many as it asks for.
    pub window: usize,
    /// Events per second of all connections, each due at its moment, from which its latency counts.
    pub rate: Option<f64>,
    /// Length of the argument.
    pub bytes: usize,
}

/// How long a turn waits for the network.
const IDLE: Duration = Duration::from_millis(10);

/// One connection's side.
struct Sender {
    /// When the events were sent whose acks are missing, from id `oldest` on; `None` once answered.
    sent: VecDeque<Option<Instant>>,
    oldest: u64,
}

struct Running {
    template: Template,
    /// Length of a right answer.
    answer_len: usize,
    wrong: u64,
    senders: Vec<Sender>,
    latency: Histogram,
    count: u64,
    unordered: u64,
    doubled: u64,
    under_way: u64,
    pace: Option<Pace>,
    stopped: bool,
}

impl Echo {
    pub fn run(&self, server: &Server, connections: usize) -> Outcome<Measured> {
        let mut client = Client::new()?;
        client.connect(server.address, connections, Via::WebSocket)?;
        let packet = format!(r#"42{}["echo","{}"]"#, "#".repeat(ACK_DIGITS), "x".repeat(self.bytes));
        let mut running = Running {
            template: Template::new(&packet, ACK_DIGITS)?,
            // The answer is the question without `"echo",`.
            answer_len: packet.len() - r#""echo","#.len(),
            wrong: 0,
            senders: (0..connections).map(|_| Sender::new()).collect(),
            latency: Histogram::default(),
            count: 0,
            unordered: 0,
            doubled: 0,
            under_way: 0,
            pace: self.rate.map(Pace::new),
            stopped: false,
        };
        for index in 0..connections {
            for _ in 0..if self.rate.is_some() { 0 } else { self.window } {
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
        if running.wrong > 0 {
            return Err(format!("{} acks without the argument", running.wrong).into());
        }
        measured.doubled = running.doubled;
        measured.lost = running.under_way;
        Ok(measured)
    }
}

impl Sender {
    fn new() -> Self {
        Self { sent: VecDeque::new(), oldest: FIRST_ACK }
    }

    fn send(&mut self, now: Instant) -> u64 {
        self.sent.push_back(Some(now));
        self.oldest + self.sent.len() as u64 - 1
    }

    /// When it was sent, and whether an earlier one is still unanswered.
    fn answered(&mut self, id: u64) -> Option<(Instant, bool)> {
        let early = id != self.oldest;
        let sent = self.sent.get_mut(id.checked_sub(self.oldest)? as usize)?.take()?;
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.oldest += 1;
        }
        Some((sent, early))
    }
}

impl Running {
    /// Turns until the time is over or, once stopped, until everything is answered.
    fn drive(&mut self, client: &mut Client, server: &Server, time: Duration) -> Outcome<()> {
        let end = Instant::now() + time;
        while Instant::now() < end && !(self.stopped && self.under_way == 0) {
            while let Some((number, due)) =
                self.pace.as_mut().and_then(Pace::next_due).filter(|_| !self.stopped)
            {
                self.send(number as usize % self.senders.len(), due, &mut client.lines);
            }
            let wait = self.pace.as_ref().map_or(IDLE, Pace::wait);
            client.turn(wait, server.address, |index, packet, now, lines| {
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
        let Some((sent, early)) = self.senders[index].answered(number(ack)) else {
            self.doubled += 1;
            return;
        };
        self.wrong += u64::from(packet.len() != self.answer_len);
        self.latency.record(now - sent);
        self.unordered += u64::from(early);
        self.count += 1;
        self.under_way -= 1;
        if self.pace.is_none() {
            self.send(index, now, lines);
        }
    }

    fn send(&mut self, index: usize, now: Instant, lines: &mut Lines) {
        if self.stopped {
            return;
        }
        let id = self.senders[index].send(now);
        self.under_way += 1;
        lines.send_with(index, |out| self.template.write(id, out));
    }
}
