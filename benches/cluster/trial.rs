//! The two loads: one broadcast after the other to a large room, and a steady rate of broadcasts to a room with one member.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    Outcome,
    client::{Client, Via},
    frame::{SEQ_DIGITS, Template, number},
    histogram::Histogram,
    measure::{DRAIN, WARM_UP},
    nodes::Nodes,
    pace::Pace,
};

/// How long a turn waits for the network.
const IDLE: Duration = Duration::from_millis(10);
/// What every delivery starts with; the broadcast's number follows.
const DELIVERY: &[u8] = br#"42["msg",""#;
/// Length of the payload.
const BYTES: usize = 100;
/// The connection that sends.
const SENDER: usize = 0;

/// What nodes use while nothing happens, in seconds of CPU per second.
pub struct Rest(Vec<f64>);

impl Rest {
    pub fn of(nodes: &Nodes, time: Duration) -> Outcome<Self> {
        let before = cpu(nodes)?;
        std::thread::sleep(time);
        let used = cpu(nodes)?.into_iter().zip(before);
        Ok(Self(used.map(|(after, before)| (after - before) / time.as_secs_f64()).collect()))
    }

    /// Percent of a core, of the node that uses most.
    pub fn percent(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max) * 100.0
    }
}

fn cpu(nodes: &Nodes) -> Outcome<Vec<f64>> {
    nodes.iter().map(|node| node.cpu()).collect()
}

/// What a load gave.
pub struct Measured {
    pub broadcasts: u64,
    pub deliveries: u64,
    pub deliveries_per_second: f64,
    pub latency: Histogram,
    /// By node: CPU for all of it, in microseconds, beyond what the node uses at rest.
    pub cpu_us: Vec<f64>,
    pub unordered: u64,
    pub doubled: u64,
    pub lost: u64,
}

impl Measured {
    /// CPU per broadcast of a node, where there is such a node.
    pub fn per_broadcast(&self, node: usize) -> Option<f64> {
        (self.broadcasts > 0).then_some(self.cpu_us.get(node)? / self.broadcasts as f64)
    }

    /// CPU per delivery of the node that delivers: the second one, or the only one.
    pub fn per_delivery(&self) -> Option<f64> {
        let cpu = self.cpu_us.get(1).or(self.cpu_us.first())?;
        (self.deliveries > 0).then_some(cpu / self.deliveries as f64)
    }
}

/// A large room: the next broadcast starts when one has reached all members.
pub struct Windowed {
    pub members: usize,
}

impl Windowed {
    pub fn run(&self, nodes: &Nodes, rest: &Rest, time: Duration) -> Outcome<Measured> {
        Running::start(nodes, self.members, None)?.run(nodes, rest, time)
    }
}

/// Broadcasts at their moments to a room with one member at another node; a single server has none.
pub struct Paced {
    pub rate: f64,
}

impl Paced {
    pub fn run(&self, nodes: &Nodes, rest: &Rest, time: Duration) -> Outcome<Measured> {
        let members = usize::from(nodes.iter().len() > 1);
        Running::start(nodes, members, Some(self.rate))?.run(nodes, rest, time)
    }
}

/// A broadcast under way.
struct Broadcast {
    sent: Instant,
    /// Members that have not got it yet.
    missing: usize,
}

struct Running {
    client: Client,
    counts: Counts,
}

struct Counts {
    template: Template,
    members: usize,
    /// From number `first` on, in order of sending.
    under_way: VecDeque<Broadcast>,
    first: u64,
    /// By connection: the number of its latest delivery.
    latest: Vec<u64>,
    latency: Histogram,
    sent: u64,
    deliveries: u64,
    unordered: u64,
    doubled: u64,
    pace: Option<Pace>,
    stopped: bool,
}

impl Running {
    fn start(nodes: &Nodes, members: usize, rate: Option<f64>) -> Outcome<Self> {
        let mut client = Client::new()?;
        client.connect(nodes.sender().address, SENDER + 1, Via::WebSocket)?;
        client.connect(nodes.receiver().address, SENDER + 1 + members, Via::WebSocket)?;
        let room = |index: usize| if index == SENDER { "nobody".to_owned() } else { "room".to_owned() };
        client.join(nodes.sender().address, room)?;
        let body = format!("{}{}", "#".repeat(SEQ_DIGITS), "x".repeat(BYTES - SEQ_DIGITS));
        let counts = Counts {
            template: Template::new(&format!(r#"42["broadcast","room","{body}"]"#), SEQ_DIGITS)?,
            members,
            under_way: VecDeque::new(),
            first: 1,
            latest: vec![0; SENDER + 1 + members],
            latency: Histogram::default(),
            sent: 0,
            deliveries: 0,
            unordered: 0,
            doubled: 0,
            pace: rate.map(Pace::new),
            stopped: false,
        };
        Ok(Self { client, counts })
    }

    fn run(mut self, nodes: &Nodes, rest: &Rest, time: Duration) -> Outcome<Measured> {
        if self.counts.pace.is_none() {
            self.counts.send(Instant::now(), &mut self.client);
        }
        self.drive(nodes, WARM_UP)?;
        self.counts.reset();
        let (start, before) = (Instant::now(), cpu(nodes)?);
        self.drive(nodes, time)?;
        let (took, after) = (start.elapsed().as_secs_f64(), cpu(nodes)?);
        let used = after.iter().zip(&before).zip(&rest.0);
        let cpu_us = used.map(|((after, before), rest)| (after - before - rest * took) * 1e6).collect();
        let counts = &mut self.counts;
        let mut measured = Measured {
            broadcasts: counts.sent,
            deliveries: counts.deliveries,
            deliveries_per_second: counts.deliveries as f64 / took,
            latency: counts.latency.clone(),
            cpu_us,
            unordered: counts.unordered,
            doubled: 0,
            lost: 0,
        };
        counts.stopped = true;
        self.drive(nodes, DRAIN)?;
        measured.doubled = self.counts.doubled;
        measured.lost = self.counts.under_way.iter().map(|broadcast| broadcast.missing as u64).sum();
        if measured.broadcasts == 0 || (self.counts.members > 0 && measured.deliveries == 0) {
            return Err("nothing arrived".into());
        }
        Ok(measured)
    }

    /// Turns until the time is over or, once stopped, until everything has arrived.
    fn drive(&mut self, nodes: &Nodes, time: Duration) -> Outcome<()> {
        let end = Instant::now() + time;
        let Self { client, counts } = self;
        while Instant::now() < end && !(counts.stopped && counts.under_way.is_empty()) {
            while let Some((_, due)) =
                counts.pace.as_mut().and_then(Pace::next_due).filter(|_| !counts.stopped)
            {
                counts.send(due, client);
            }
            let wait = counts.pace.as_ref().map_or(IDLE, Pace::wait);
            let mut completed = None;
            client.turn(wait, nodes.sender().address, |index, packet, now, _| {
                if counts.take(index, packet, now) {
                    completed = Some(now);
                }
            })?;
            if let Some(now) = completed.filter(|_| counts.pace.is_none()) {
                counts.send(now, client);
            }
        }
        Ok(())
    }
}

impl Counts {
    fn reset(&mut self) {
        self.latency = Histogram::default();
        (self.sent, self.deliveries, self.unordered) = (0, 0, 0);
    }

    /// Notes a delivery. Returns whether its broadcast has reached everybody.
    fn take(&mut self, index: usize, packet: &[u8], now: Instant) -> bool {
        let Some(payload) = packet.strip_prefix(DELIVERY) else { return false };
        let seq = number(payload);
        let latest = &mut self.latest[index];
        self.unordered += u64::from(seq < *latest);
        let is_double = seq == *latest;
        *latest = seq.max(*latest);
        let place = seq.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(broadcast) = place.and_then(|at| self.under_way.get_mut(at)).filter(|_| !is_double) else {
            self.doubled += 1;
            return false;
        };
        self.deliveries += 1;
        self.latency.record(now.saturating_duration_since(broadcast.sent));
        broadcast.missing = broadcast.missing.saturating_sub(1);
        let is_complete = broadcast.missing == 0;
        while self.under_way.front().is_some_and(|oldest| oldest.missing == 0) {
            self.under_way.pop_front();
            self.first += 1;
        }
        is_complete
    }

    fn send(&mut self, now: Instant, client: &mut Client) {
        if self.stopped {
            return;
        }
        let seq = self.first + self.under_way.len() as u64;
        if self.members == 0 {
            self.first += 1;
        } else {
            self.under_way.push_back(Broadcast { sent: now, missing: self.members });
        }
        self.sent += 1;
        client.lines.send_with(SENDER, |out| self.template.write(seq, out));
    }
}
