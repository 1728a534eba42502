//! One load of `message:send`, from the sign-in to the last ack.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Outcome,
    client::{Client, Lines, Via},
    frame::{self, ACK_DIGITS, FIRST_ACK, Template, number},
    histogram::Histogram,
    server::Server,
    world::World,
};

const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);
/// How long what is under way at the end may take before it counts as lost.
const DRAIN: Duration = Duration::from_secs(10);
/// Length of a message's body.
const BODY: usize = 100;

/// How fast.
#[derive(Clone, Copy)]
pub enum Pace {
    /// So many under way per sender, the next one as soon as one is acknowledged.
    Window(usize),
    /// So many in all per second, whatever comes back; latencies count from the moment a message was due.
    PerSecond(f64),
}

/// One load.
pub struct Load {
    pub name: &'static str,
    /// All into one channel.
    pub hot: bool,
    pub pace: Pace,
    /// Everybody hears everything. Only together with `hot`, and at a pace per second.
    pub heard: bool,
}

/// What one load gave.
pub struct Measured {
    pub name: &'static str,
    pub per_second: f64,
    pub count: u64,
    pub cpu_us: f64,
    pub latency: Histogram,
    /// From the TCP connect of a client until its `session:ready`.
    pub sign_in: Histogram,
    pub refused: u64,
    pub lost: u64,
    /// From the moment a message was due to its arrival at each of its readers, where they hear it.
    pub delivery: Option<Delivery>,
    pub complaint: Option<String>,
}

/// What readers got.
pub struct Delivery {
    pub count: u64,
    pub latency: Histogram,
    /// Acknowledged, and not come to a reader.
    pub lost: u64,
    /// Not the next one in the channel.
    pub unordered: u64,
}

struct Running {
    /// By sender: its channels' prebuilt events, taken in turn.
    templates: Vec<Vec<Template>>,
    senders: Vec<Sender>,
    latency: Histogram,
    count: u64,
    refused: u64,
    complaint: Option<String>,
    readers: Option<Readers>,
    under_way: u64,
    /// The next message follows an ack.
    follow: bool,
    stopped: bool,
}

/// Those who hear the channel: everybody.
#[derive(Default)]
struct Readers {
    latency: Histogram,
    /// By sender, when each of its messages was due.
    due: Vec<Vec<Instant>>,
    /// By reader, the number of the last message.
    last: Vec<u64>,
    stored: u64,
    got: u64,
    unordered: u64,
}

struct Sender {
    /// Due times of those whose acks are missing, from id `oldest` on; `None` once answered.
    due: VecDeque<Option<Instant>>,
    oldest: u64,
}

impl Load {
    pub fn run(&self, world: &World) -> Outcome<Measured> {
        let tokens = if self.hot { &world.hot } else { &world.spread };
        let SignedIn { mut client, channels, latency: sign_in } = sign_in(&world.server, tokens, self.heard)?;
        let mut running = Running::new(&channels, self)?;
        if let Pace::Window(window) = self.pace {
            for index in (0..tokens.len()).cycle().take(tokens.len() * window) {
                running.send(index, Instant::now(), &mut client.lines);
            }
        }
        running.drive(&mut client, &world.server, WARM_UP, self.pace)?;
        running.reset();
        let (start, cpu) = (Instant::now(), world.server.cpu()?);
        running.drive(&mut client, &world.server, MEASURED, self.pace)?;
        let (took, cpu) = (start.elapsed(), world.server.cpu()? - cpu);
        let (count, latency) = (running.count, running.latency.clone());
        running.stopped = true;
        running.drive(&mut client, &world.server, DRAIN, self.pace)?;
        if count == 0 {
            return Err(running.complaint.unwrap_or_else(|| "nothing was acknowledged".into()).into());
        }
        Ok(Measured {
            name: self.name,
            per_second: count as f64 / took.as_secs_f64(),
            count,
            cpu_us: cpu * 1e6 / count as f64,
            latency,
            sign_in,
            refused: running.refused,
            lost: running.under_way,
            delivery: running.readers.map(Readers::delivery),
            complaint: running.complaint,
        })
    }
}

/// Everybody, with their channels.
struct SignedIn {
    client: Client,
    channels: Vec<Vec<String>>,
    latency: Histogram,
}

/// Connects everybody, learns their channels from `session:ready`, and unless everything is `heard` leaves the rooms:
/// nothing is delivered then.
fn sign_in(server: &Server, tokens: &[String], heard: bool) -> Outcome<SignedIn> {
    let hellos: Vec<String> =
        tokens.iter().map(|token| format!(r#"40{{"token":"{token}","protocol":1}}"#)).collect();
    let mut client = Client::with_hello(move |index| hellos[index].clone())?;
    let mut channels: Vec<Vec<String>> = vec![Vec::new(); tokens.len()];
    let mut missing = tokens.len();
    let mut take = |index: usize, packet: &[u8]| {
        if packet.starts_with(br#"42["session:ready","#) {
            channels[index] = channel_ids(&packet[2..]);
            missing -= 1;
        }
        missing == 0
    };
    let mut ready = false;
    let latency =
        client.connect_with(server.address, tokens.len(), Via::WebSocket, |index, packet, _, _| {
            ready = take(index, packet);
        })?;
    if !ready {
        wait(&mut client, server, "session:ready", take)?;
    }
    if heard {
        return Ok(SignedIn { client, channels: own(channels), latency });
    }
    for (index, ids) in channels.iter().enumerate() {
        let ids = serde_json::to_string(ids)?;
        let packet = format!(r#"42{FIRST_ACK}["channel:unsubscribe",{{"channel_ids":{ids}}}]"#);
        client.lines.send(index, &frame::text(&packet));
    }
    let mut missing = tokens.len();
    wait(&mut client, server, "channel:unsubscribe", |_, packet| {
        missing -= usize::from(packet.starts_with(b"43"));
        missing == 0
    })?;
    Ok(SignedIn { client, channels: own(channels), latency })
}

fn wait(
    client: &mut Client,
    server: &Server,
    what: &str,
    mut done: impl FnMut(usize, &[u8]) -> bool,
) -> Outcome<()> {
    let deadline = Instant::now() + DRAIN;
    let mut finished = false;
    while !finished {
        client.turn(Duration::from_millis(50), server.address, |index, packet, _, _| {
            finished = done(index, packet);
        })?;
        if Instant::now() > deadline {
            return Err(format!("no answer in time: {what}").into());
        }
    }
    Ok(())
}

/// The channels in `session:ready`, whose arguments are the session and an offset.
fn channel_ids(event: &[u8]) -> Vec<String> {
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    let channels = event[1]["channels"].as_array().into_iter().flatten();
    channels.filter_map(|channel| channel["channel_id"].as_str().map(str::to_owned)).collect()
}

/// Without the channel that all users are in, unless they have nothing else: then everybody gets the same one.
fn own(channels: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut shared: HashMap<String, usize> = HashMap::new();
    for id in channels.iter().flatten() {
        *shared.entry(id.clone()).or_default() += 1;
    }
    let everywhere: Vec<String> =
        shared.into_iter().filter(|(_, count)| *count == channels.len()).map(|(id, _)| id).collect();
    let only_shared = channels.iter().all(|ids| ids.iter().all(|id| everywhere.contains(id)));
    if only_shared {
        // The hot one, or the one of all users: either will do.
        return channels.into_iter().map(|ids| ids.into_iter().max().into_iter().collect()).collect();
    }
    let without = |ids: Vec<String>| ids.into_iter().filter(|id| !everywhere.contains(id)).collect();
    channels.into_iter().map(without).collect()
}

impl Running {
    fn new(channels: &[Vec<String>], load: &Load) -> Outcome<Self> {
        let digits = "#".repeat(ACK_DIGITS);
        let body = "x".repeat(BODY);
        // Unique per process start and load: nonces of an earlier load would make duplicates.
        let run = uuid::Uuid::now_v7().simple();
        let template = |index: usize, channel: &String| {
            let body = match load.heard {
                true => format!("{MARK}{index:03}-{digits} {}", &body[MARK.len() + 5 + ACK_DIGITS..]),
                false => body.clone(),
            };
            let request = format!(r#"{{"channel_id":"{channel}","body":"{body}","nonce":"{run}-{digits}"}}"#);
            Template::new(&format!(r#"42{digits}["message:send",{request}]"#), ACK_DIGITS)
        };
        let templates: Vec<Vec<Template>> = channels
            .iter()
            .enumerate()
            .map(|(index, ids)| ids.iter().map(|id| template(index, id)).collect::<Outcome<_>>())
            .collect::<Outcome<_>>()?;
        if templates.iter().any(Vec::is_empty) {
            return Err("a sender has no channel".into());
        }
        let senders = channels.iter().map(|_| Sender { due: VecDeque::new(), oldest: FIRST_ACK }).collect();
        Ok(Self {
            templates,
            senders,
            latency: Histogram::default(),
            count: 0,
            refused: 0,
            complaint: None,
            readers: load.heard.then(|| Readers::of(channels.len())),
            under_way: 0,
            follow: matches!(load.pace, Pace::Window(_)),
            stopped: false,
        })
    }

    fn reset(&mut self) {
        self.latency = Histogram::default();
        self.count = 0;
        if let Some(readers) = &mut self.readers {
            readers.latency = Histogram::default();
        }
    }

    fn drive(&mut self, client: &mut Client, server: &Server, time: Duration, pace: Pace) -> Outcome<()> {
        let start = Instant::now();
        let mut due = 0_u64;
        while start.elapsed() < time && !(self.stopped && self.under_way == 0 && self.missing() == 0) {
            if let Pace::PerSecond(rate) = pace
                && !self.stopped
            {
                while (due as f64) < start.elapsed().as_secs_f64() * rate {
                    let at = start + Duration::from_secs_f64(due as f64 / rate);
                    self.send(due as usize % self.senders.len(), at, &mut client.lines);
                    due += 1;
                }
            }
            client.turn(Duration::from_millis(1), server.address, |index, packet, now, lines| {
                self.take(index, packet, now, lines);
            })?;
        }
        Ok(())
    }

    /// Returns how many deliveries of what is stored have not come yet.
    fn missing(&self) -> u64 {
        self.readers.as_ref().map_or(0, Readers::missing)
    }

    fn take(&mut self, index: usize, packet: &[u8], now: Instant, lines: &mut Lines) {
        let Some(ack) = packet.strip_prefix(b"43") else {
            self.readers.iter_mut().for_each(|readers| readers.take(index, packet, now));
            return;
        };
        let Some(due) = self.senders[index].answered(number(ack)) else { return };
        self.under_way -= 1;
        if ack[ACK_DIGITS..].starts_with(br#"[{"ok":true"#) {
            self.latency.record(now - due);
            self.count += 1;
            self.readers.iter_mut().for_each(|readers| readers.stored += 1);
        } else {
            self.refused += 1;
            self.complaint.get_or_insert_with(|| String::from_utf8_lossy(ack).into_owned());
        }
        if self.follow {
            self.send(index, now, lines);
        }
    }

    fn send(&mut self, index: usize, due: Instant, lines: &mut Lines) {
        if self.stopped {
            return;
        }
        let sender = &mut self.senders[index];
        let id = sender.oldest + sender.due.len() as u64;
        sender.due.push_back(Some(due));
        self.readers.iter_mut().for_each(|readers| readers.due[index].push(due));
        self.under_way += 1;
        let templates = &self.templates[index];
        let template = &templates[id as usize % templates.len()];
        lines.send_with(index, |out| template.write(id, out));
    }
}

impl Sender {
    /// When it was due.
    fn answered(&mut self, id: u64) -> Option<Instant> {
        let due = self.due.get_mut(id.checked_sub(self.oldest)? as usize)?.take()?;
        while let Some(None) = self.due.front() {
            self.due.pop_front();
            self.oldest += 1;
        }
        Some(due)
    }
}

impl Readers {
    fn of(people: usize) -> Self {
        Self { due: vec![Vec::new(); people], last: vec![0; people], ..Self::default() }
    }

    fn missing(&self) -> u64 {
        (self.stored * self.last.len() as u64).saturating_sub(self.got)
    }

    /// Takes a packet for a reader; only `message:new` matters.
    fn take(&mut self, reader: usize, packet: &[u8], now: Instant) {
        let Some(event) = packet.strip_prefix(br#"42["message:new","#) else { return };
        let Some(body) = after(event, MARK.as_bytes()) else { return };
        let sender = number(body) as usize;
        let id = number(&body[4..]);
        let due = self.due.get(sender).and_then(|all| all.get((id - FIRST_ACK) as usize));
        let (Some(due), Some(seq)) = (due, after(event, br#""seq":"#)) else { return };
        self.latency.record(now - *due);
        self.got += 1;
        let last = std::mem::replace(&mut self.last[reader], number(seq));
        if last > 0 && self.last[reader] != last + 1 {
            self.unordered += 1;
        }
    }

    fn delivery(self) -> Delivery {
        Delivery { count: self.got, lost: self.missing(), latency: self.latency, unordered: self.unordered }
    }
}

/// Returns what follows a text for the first time.
fn after<'a>(bytes: &'a [u8], text: &[u8]) -> Option<&'a [u8]> {
    let at = bytes.windows(text.len()).position(|window| window == text)?;
    Some(&bytes[at + text.len()..])
}

/// What the bodies of heard messages begin with: then come the sender and the id, each with a fixed number of digits.
const MARK: &str = "from ";
