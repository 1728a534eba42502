//! Fan-out: rooms with one sender each, a bounded number of broadcasts under way in all.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    Outcome,
    client::{Client, Lines, Via},
    frame::{SEQ_DIGITS, Template, number},
    histogram::Histogram,
    measure::{DRAIN, MEASURED, Mark, Measured, WARM_UP},
    pace::Pace,
    server::Server,
};

/// How long a turn waits for the network.
const IDLE: Duration = Duration::from_millis(10);

/// What every delivery starts with; the broadcast's number follows.
const DELIVERY: &[u8] = br#"42["msg",""#;

/// One fan-out load. Connection `i` is a member of room `i / members`; the first member of a room is its sender.
pub struct Fanout {
    pub rooms: usize,
    /// Broadcasts under way in all. The next one starts when one has reached its whole room.
    pub under_way: u64,
    /// Broadcasts per second in all, each due at its moment, instead of a number under way.
    pub rate: Option<f64>,
    /// Length of the payload.
    pub bytes: usize,
}

/// A broadcast under way.
struct Broadcast {
    sent: Instant,
    /// Members that have not got it yet.
    missing: usize,
}

struct Running {
    templates: Vec<Template>,
    /// Members of each room.
    members: usize,
    /// From number `first` on, in order of sending.
    broadcasts: VecDeque<Broadcast>,
    first: u64,
    /// By connection: the number of its latest delivery.
    latest: Vec<u64>,
    next_room: usize,
    latency: Histogram,
    count: u64,
    unordered: u64,
    doubled: u64,
    pace: Option<Pace>,
    stopped: bool,
}

impl Fanout {
    pub fn run(&self, server: &Server, connections: usize) -> Outcome<Measured> {
        let members = connections / self.rooms;
        let mut client = Client::new()?;
        client.connect(server.address, connections, Via::WebSocket)?;
        client.join(server.address, |index| room(index / members))?;
        let mut running = Running::new(self, members, connections)?;
        for _ in 0..if self.rate.is_some() { 0 } else { self.under_way } {
            running.send(Instant::now(), &mut client.lines);
        }
        running.drive(&mut client, server, WARM_UP)?;
        running.reset();
        let mark = Mark::now(server)?;
        running.drive(&mut client, server, MEASURED)?;
        let mut measured = mark.until_now(server, running.count, running.latency.clone())?;
        measured.unordered = running.unordered;
        running.stopped = true;
        running.drive(&mut client, server, DRAIN)?;
        measured.doubled = running.doubled;
        measured.lost = running.missing();
        Ok(measured)
    }
}

fn room(number: usize) -> String {
    format!("room{number}")
}

impl Running {
    fn new(load: &Fanout, members: usize, connections: usize) -> Outcome<Self> {
        let body = format!("{}{}", "#".repeat(SEQ_DIGITS), "x".repeat(load.bytes - SEQ_DIGITS));
        let templates = (0..load.rooms)
            .map(|number| {
                Template::new(&format!(r#"42["broadcast","{}","{body}"]"#, room(number)), SEQ_DIGITS)
            })
            .collect::<Outcome<_>>()?;
        Ok(Self {
            templates,
            members,
            broadcasts: VecDeque::new(),
            first: 1,
            latest: vec![0; connections],
            next_room: 0,
            latency: Histogram::default(),
            count: 0,
            unordered: 0,
            doubled: 0,
            pace: load.rate.map(Pace::new),
            stopped: false,
        })
    }

    /// Turns until the time is over or, once stopped, until everything has arrived.
    fn drive(&mut self, client: &mut Client, server: &Server, time: Duration) -> Outcome<()> {
        let end = Instant::now() + time;
        while Instant::now() < end && !(self.stopped && self.broadcasts.is_empty()) {
            while let Some((_, due)) = self.pace.as_mut().and_then(Pace::next_due).filter(|_| !self.stopped) {
                self.send(due, &mut client.lines);
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

    fn missing(&self) -> u64 {
        self.broadcasts.iter().map(|broadcast| broadcast.missing as u64).sum()
    }

    fn take(&mut self, index: usize, packet: &[u8], now: Instant, lines: &mut Lines) {
        let Some(payload) = packet.strip_prefix(DELIVERY) else { return };
        let seq = number(payload);
        let latest = &mut self.latest[index];
        self.unordered += u64::from(seq < *latest);
        self.doubled += u64::from(seq == *latest);
        *latest = seq.max(*latest);
        let Some(broadcast) = seq.checked_sub(self.first).and_then(|at| self.broadcasts.get_mut(at as usize))
        else {
            self.doubled += 1;
            return;
        };
        self.count += 1;
        self.latency.record(now - broadcast.sent);
        broadcast.missing = broadcast.missing.saturating_sub(1);
        if broadcast.missing > 0 {
            return;
        }
        while self.broadcasts.front().is_some_and(|oldest| oldest.missing == 0) {
            self.broadcasts.pop_front();
            self.first += 1;
        }
        if self.pace.is_none() {
            self.send(now, lines);
        }
    }

    fn send(&mut self, now: Instant, lines: &mut Lines) {
        if self.stopped {
            return;
        }
        let room = self.next_room;
        self.next_room = (room + 1) % self.templates.len();
        let seq = self.first + self.broadcasts.len() as u64;
        self.broadcasts.push_back(Broadcast { sent: now, missing: self.members });
        lines.send_with(room * self.members, |out| self.templates[room].write(seq, out));
    }
}
