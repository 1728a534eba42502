//! Brokers that fail while people talk: whatever happens to them, what was acknowledged reaches everybody, once and in
//! order, soon after the fault has ended, and nothing is left of it in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::{Broker, BrokerProcess, Kind};
use crate::client::TestClient;
use crate::proxy::Line;
use crate::serve::Cluster;
use crate::server::first_channel;

/// The clients of all nodes together.
const CLIENTS: usize = 200;
/// How many of them write.
const WRITERS: usize = 12;
/// The pause between two messages of a writer. What is missed in the longest fault is still healed by events.
const PAUSE: Duration = Duration::from_millis(900);
/// How long all is well before each fault.
const CALM: Duration = Duration::from_secs(1);
/// The promise: how soon after a fault everybody has what was acknowledged meanwhile.
const BACK: Duration = Duration::from_secs(2);
/// How much longer that may take on a machine that runs other tests beside this one.
const BUSY: Duration = Duration::from_secs(2);
/// How long an attempt to connect that began in the silence hangs there before it is given up.
const HANGS: Duration = Duration::from_secs(5);
/// Nothing takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the process may have grown by: what the test has written down itself, and what allocators keep.
const GROWTH_KIB: u64 = 64 << 10;

/// What happens to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Its process is killed, and begins again with nothing in it.
    Killed,
    /// Its process is stopped, and goes on.
    Paused,
    /// Connections end, and no new ones are taken.
    Cut,
    /// Connections stay, and carry nothing any more.
    Silent,
    /// Everything comes later.
    Slow,
}

impl Fault {
    fn lasts(self) -> Duration {
        Duration::from_millis(match self {
            Self::Killed | Self::Cut => 1_000,
            Self::Slow => 2_000,
            // Longer than a probe takes to notice it, and shorter.
            Self::Silent => 8_000,
            Self::Paused => 3_000,
        })
    }

    /// How soon after its end everybody has everything.
    fn heals_within(self) -> Duration {
        BACK + BUSY + if self == Self::Silent { HANGS } else { Duration::ZERO }
    }

    async fn begin(self, broker: &Broker, process: Option<&mut BrokerProcess>) {
        match (self, process) {
            (Self::Killed, Some(process)) => process.kill(),
            (Self::Paused, Some(process)) => process.pause(),
            (Self::Cut, _) => broker.proxy.set(Line::Cut),
            (Self::Silent, _) => broker.proxy.set(Line::Silent),
            (Self::Slow, _) => broker.proxy.set(Line::Slow(Duration::from_millis(100))),
            (Self::Killed | Self::Paused, None) => panic!("a broker of others is not harmed"),
        }
    }

    async fn end(self, broker: &Broker, process: Option<&mut BrokerProcess>) {
        match (self, process) {
            (Self::Killed, Some(process)) => process.restart().await,
            (Self::Paused, Some(process)) => process.resume(),
            _ => broker.proxy.set(Line::Open),
        }
    }
}

/// What the clients of a trial have in common.
struct Trial {
    channel: String,
    stops: AtomicBool,
    /// The highest number that was acknowledged.
    acked: AtomicI64,
    /// By client: the number up to which it has everything.
    seen: Vec<AtomicI64>,
}

impl Trial {
    /// Whether everybody has the messages up to a number.
    fn have_all(&self, seq: i64) -> bool {
        self.seen.iter().all(|seen| seen.load(Ordering::SeqCst) >= seq)
    }

    /// Waits until everybody has what is acknowledged by now, and returns how long that took.
    async fn everybody_has_it(&self, patience: Duration) -> Duration {
        let (started, seq) = (Instant::now(), self.acked.load(Ordering::SeqCst));
        while !self.have_all(seq) {
            let seen: Vec<i64> = self.seen.iter().map(|seen| seen.load(Ordering::SeqCst)).collect();
            assert!(started.elapsed() < patience, "{seq} are acknowledged, and seen are {seen:?}");
            sleep(Duration::from_millis(10)).await;
        }
        started.elapsed()
    }
}

/// A person in front of a device.
struct Person {
    client: TestClient,
    trial: Arc<Trial>,
    index: usize,
    /// The number and text of the messages that were acknowledged.
    acked: Vec<(i64, String)>,
    /// The texts in the order of their arrival.
    read: Vec<String>,
}

impl Person {
    /// Reads until the trial is over, and writes now and then, until each message is acknowledged.
    async fn talk(mut self, writes: bool) -> Self {
        let mut next =
            Instant::now() + PAUSE * u32::try_from(self.index).unwrap() / u32::try_from(WRITERS).unwrap();
        while !self.trial.stops.load(Ordering::SeqCst) {
            if writes && Instant::now() >= next {
                self.write().await;
                next = Instant::now() + PAUSE;
            }
            let wait = if writes { next } else { Instant::now() + Duration::from_millis(100) };
            if let Ok((name, payload)) = tokio::time::timeout_at(wait, self.client.event()).await {
                self.take(&name, &payload);
            }
        }
        self
    }

    async fn write(&mut self) {
        let body = format!("{} of {}", self.acked.len(), self.index);
        let request = json!({ "channel_id": self.trial.channel, "body": body, "nonce": body });
        loop {
            let answer = self.client.call("message:send", request.clone()).await;
            for (name, payload) in self.client.kept() {
                self.take(&name, &payload);
            }
            if answer["ok"] == true {
                let seq = answer["data"]["message"]["seq"].as_i64().unwrap();
                self.acked.push((seq, body));
                self.trial.acked.fetch_max(seq, Ordering::SeqCst);
                return;
            }
            assert_eq!(answer["error"]["retryable"], true, "{answer}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Everything comes once, and after what was before it.
    fn take(&mut self, name: &str, payload: &Value) {
        assert_ne!(name, "sync:required", "so little is healed by events");
        if name != "message:new" {
            return;
        }
        let seq = payload["seq"].as_i64().unwrap();
        let before = self.trial.seen[self.index].swap(seq, Ordering::SeqCst);
        assert_eq!(seq, before + 1, "client {} got this after {before}: {payload}", self.index);
        self.read.push(payload["body"].as_str().unwrap().to_owned());
    }
}

/// The memory of this process, in which all nodes run.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn people(cluster: &Cluster) -> (Arc<Trial>, JoinSet<Person>) {
    let mut clients = Vec::new();
    for index in 0..CLIENTS {
        let name = format!("user{}", index % WRITERS);
        clients.push(cluster.client(index % cluster.nodes.len(), &name).await);
    }
    let trial = Arc::new(Trial {
        channel: first_channel(&clients[0]),
        stops: AtomicBool::new(false),
        acked: AtomicI64::new(0),
        seen: (0..CLIENTS).map(|_| AtomicI64::new(0)).collect(),
    });
    let mut talking = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        let person = Person { client, trial: trial.clone(), index, acked: Vec::new(), read: Vec::new() };
        talking.spawn(person.talk(index < WRITERS));
    }
    (trial, talking)
}

async fn talk_through(broker: Broker, mut process: Option<BrokerProcess>, faults: &[Fault]) {
    let cluster = Cluster::start_on(broker, 3, |_| {}).await;
    let (trial, mut talking) = people(&cluster).await;
    while trial.acked.load(Ordering::SeqCst) < 2 * WRITERS as i64 {
        sleep(Duration::from_millis(20)).await;
    }
    trial.everybody_has_it(PATIENCE).await;
    let before = resident_kib();
    for fault in faults {
        sleep(CALM).await;
        fault.begin(&cluster.broker, process.as_mut()).await;
        sleep(fault.lasts()).await;
        fault.end(&cluster.broker, process.as_mut()).await;
        let took = trial.everybody_has_it(PATIENCE).await;
        assert!(took < fault.heals_within(), "after {fault:?} it took {took:?}");
        // What is written from now on takes the usual way.
        let took = after_the_fault(&trial).await;
        assert!(took < fault.heals_within(), "after {fault:?} the next messages took {took:?}");
    }
    trial.stops.store(true, Ordering::SeqCst);
    let mut people = Vec::new();
    while let Some(person) = timeout(PATIENCE, talking.join_next()).await.expect("everybody ends") {
        people.push(person.unwrap());
    }
    compare(&mut people, &trial).await;
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "the process has grown by {grown} KiB");
    drop(people);
    cluster.stop().await;
}

/// How long the next message takes to everybody.
async fn after_the_fault(trial: &Trial) -> Duration {
    let acked = trial.acked.load(Ordering::SeqCst);
    while trial.acked.load(Ordering::SeqCst) == acked {
        sleep(Duration::from_millis(10)).await;
    }
    trial.everybody_has_it(PATIENCE).await
}

/// What was acknowledged was read by all, under the number that was acknowledged, and nothing else was.
async fn compare(people: &mut [Person], trial: &Trial) {
    let mut acked: Vec<_> = people.iter_mut().flat_map(|person| std::mem::take(&mut person.acked)).collect();
    acked.sort();
    let numbers: BTreeSet<i64> = acked.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers.len(), acked.len(), "no two messages have one number");
    let last = trial.acked.load(Ordering::SeqCst);
    assert_eq!(numbers, (1..=last).collect(), "one message for each number");
    for person in people {
        while trial.seen[person.index].load(Ordering::SeqCst) < last {
            let (name, payload) = person.client.event().await;
            person.take(&name, &payload);
        }
        let read = person.read.iter().zip(&acked).all(|(read, (_, written))| read == written);
        assert!(read && person.read.len() == acked.len(), "client {} has read something else", person.index);
        let more = person.client.events_so_far().await;
        assert!(more.iter().all(|(name, _)| name != "message:new"), "{more:?}");
    }
}

async fn a_process_fails(kind: Kind) {
    let process = BrokerProcess::start(kind).await;
    let broker = Broker::own(&process).await;
    talk_through(broker, Some(process), &[Fault::Killed, Fault::Paused, Fault::Killed]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_out_of_order_when_redis_is_killed_and_paused_under_load() {
    Box::pin(a_process_fails(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_out_of_order_when_nats_is_killed_and_paused_under_load() {
    Box::pin(a_process_fails(Kind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_out_of_order_when_redis_is_cut_off_silent_or_slow_under_load()
 {
    let broker = Broker::shared(Kind::Redis).await;
    Box::pin(talk_through(broker, None, &[Fault::Cut, Fault::Slow, Fault::Silent])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_out_of_order_when_nats_is_cut_off_silent_or_slow_under_load()
{
    let broker = Broker::shared(Kind::Nats).await;
    Box::pin(talk_through(broker, None, &[Fault::Cut, Fault::Slow, Fault::Silent])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_out_of_order_when_postgres_is_cut_off_or_slow_under_load() {
    let broker = Broker::shared(Kind::Postgres).await;
    Box::pin(talk_through(broker, None, &[Fault::Cut, Fault::Slow, Fault::Cut])).await;
}
