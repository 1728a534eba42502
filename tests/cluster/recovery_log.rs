//! What nodes expect of a recovery log, of each real one: that what is written twice, late or into a log that was emptied
//! makes no wrong answer.

use std::sync::Arc;

use bytes::Bytes;
use imks::node::NodeId;
use imks::recovery_log;
use imks::socket::recovery_log::{Batch, Expected, Found, Keep, RecoveryLog, SavedSession, SessionKey};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::{Broker, BrokerProcess, Kind};

/// A node: its connection, and what it counts.
struct Node {
    log: Arc<dyn RecoveryLog>,
    id: NodeId,
    epoch: u64,
    serial: u64,
    number: u64,
}

impl Node {
    async fn start(broker: &Broker) -> Self {
        let (url, prefix) = (broker.url(), &broker.prefix);
        let log = match broker.kind {
            Kind::Postgres => recovery_log::postgres(&url, prefix).await,
            Kind::Redis => recovery_log::redis(&url, prefix).await,
            Kind::Nats => recovery_log::nats(&url, None, prefix).await,
        };
        let log = log.unwrap();
        let epoch = log.read("/", 0).await.unwrap().epoch;
        Self { log, id: NodeId::random().unwrap(), epoch, serial: 0, number: 1 }
    }

    /// A batch whose sessions have its number as their version.
    fn batch(&mut self, entries: &[&'static str], sessions: &[(SessionKey, u64, &'static str)]) -> Batch {
        self.serial += 1;
        let number = self.number;
        self.number += entries.len() as u64;
        let saved = |(key, generation, record): &(SessionKey, u64, &'static str)| SavedSession {
            key: *key,
            generation: *generation,
            version: self.serial,
            away_millis: None,
            record: Bytes::from_static(record.as_bytes()),
        };
        Batch {
            node: self.id,
            serial: self.serial,
            epoch: self.epoch,
            number,
            entries: entries.iter().map(|entry| Bytes::from_static(entry.as_bytes())).collect(),
            sessions: sessions.iter().map(saved).collect(),
            ended: Vec::new(),
            lease: None,
            again: false,
        }
    }

    async fn positions(&self, batch: &Batch) -> Vec<u64> {
        self.log.write("/", batch).await.unwrap().positions
    }

    async fn taken(&self, batch: &Batch) -> Vec<SessionKey> {
        self.log.write("/", batch).await.unwrap().taken
    }

    async fn found(&self, key: SessionKey) -> Option<Found> {
        self.log.find("/", key).await.unwrap()
    }

    async fn takes(&self, key: SessionKey, generation: u64, version: Option<u64>) -> bool {
        self.log.take("/", key, Expected { generation, version }, self.id).await.unwrap()
    }

    async fn keeps(&self, entries: u64) {
        let keep = Keep { millis: 3_600_000, entries, bytes: 1 << 20, sessions: 100 };
        self.log.trim("/", keep).await.unwrap();
    }

    async fn entries(&self) -> Vec<Bytes> {
        self.log.read("/", 0).await.unwrap().entries
    }

    /// Writes a batch until it is written, and returns whether it was into another log than before, from its beginning and
    /// without the session.
    async fn begins_anew(&mut self, key: SessionKey) -> bool {
        let mut batch = self.batch(&["anew"], &[(key, 1, "of the old log")]);
        batch.lease = Some(100);
        let written = loop {
            if let Ok(written) = self.log.write("/", &batch).await {
                break written;
            }
            batch.again = true;
        };
        written.epoch != self.epoch
            && written.positions == [1]
            && written.taken.is_empty()
            && self.entries().await == ["anew"]
            && self.found(key).await.is_none()
    }
}

const ONE: SessionKey = SessionKey([1; 16]);
const TWO: SessionKey = SessionKey([2; 16]);

async fn entries_are_there_once(broker: &Broker) {
    let (mut one, two) = (Node::start(broker).await, Node::start(broker).await);
    assert_eq!(one.epoch, two.epoch);
    let first = one.batch(&["a", "b"], &[]);
    assert_eq!(one.positions(&first).await, [1, 2]);
    let again = Batch { again: true, ..first.clone() };
    assert_eq!(one.positions(&again).await, [1, 2], "it had been written");
    let mut second = one.batch(&["c"], &[(ONE, 1, "now")]);
    second.lease = Some(3);
    assert_eq!(one.positions(&second).await, [3]);
    if broker.kind != Kind::Nats {
        // JetStream knows a late message by the sequence that it expects.
        let late = Batch { sessions: one.batch(&[], &[(ONE, 1, "before")]).sessions, ..first };
        let late = Batch { ended: vec![(ONE, 1)], lease: Some(1), ..late };
        assert!(one.log.write("/", &late).await.is_err());
    }
    let found = two.found(ONE).await.unwrap();
    assert_eq!((found.epoch, found.last, found.node, found.generation), (two.epoch, 3, one.id, 1));
    assert_eq!((found.connected, found.lease, &*found.record), (true, Some(3), &b"now"[..]));
    assert_eq!(two.entries().await, ["a", "b", "c"]);
}

async fn entries_that_were_removed_do_not_come_back(broker: &Broker) {
    if broker.kind == Kind::Nats {
        // JetStream removes entries by itself.
        return;
    }
    let mut node = Node::start(broker).await;
    let batch = node.batch(&["a", "b"], &[]);
    assert_eq!(node.positions(&batch).await, [1, 2]);
    let again = Batch { again: true, ..batch };
    node.keeps(1).await;
    assert_eq!((node.positions(&again).await, node.entries().await), (vec![1, 2], vec![Bytes::from("b")]));
    node.keeps(0).await;
    node.positions(&again).await;
    assert!(node.entries().await.is_empty());
    let next = node.batch(&["c"], &[]);
    assert_eq!(node.positions(&next).await, [3]);
}

async fn a_session_is_taken_as_it_was_found(broker: &Broker) {
    let (mut one, mut two) = (Node::start(broker).await, Node::start(broker).await);
    let batch = one.batch(&[], &[(ONE, 1, "x"), (TWO, 1, "x")]);
    assert!(one.taken(&batch).await.is_empty());
    let old = two.found(ONE).await.unwrap();
    let batch = one.batch(&[], &[(ONE, 1, "y")]);
    assert!(one.taken(&batch).await.is_empty());
    assert!(!two.takes(ONE, 1, Some(old.version)).await, "it has changed");
    let found = two.found(ONE).await.unwrap();
    assert!(two.takes(ONE, 1, Some(found.version)).await);
    assert!(!one.takes(ONE, 1, None).await && one.takes(TWO, 1, None).await);
    let batch = one.batch(&["late"], &[(ONE, 1, "z"), (TWO, 2, "z")]);
    assert_eq!(one.taken(&batch).await, [ONE]);
    let found = one.found(ONE).await.unwrap();
    assert_eq!((found.node, found.generation, &*found.record), (two.id, 2, &b"y"[..]));
    assert!(!found.connected && found.taken_millis.is_some());
    // Only its owner ends it.
    let batch = Batch { ended: vec![(ONE, 1), (TWO, 2)], ..one.batch(&[], &[]) };
    one.taken(&batch).await;
    assert!(one.found(ONE).await.is_some() && one.found(TWO).await.is_none());
    let batch = Batch { ended: vec![(ONE, 2)], ..two.batch(&[], &[]) };
    two.taken(&batch).await;
    assert!(one.found(ONE).await.is_none());
}

async fn positions_of_another_log_mean_nothing(broker: &Broker) {
    let mut one = Node::start(broker).await;
    let batch = Batch { lease: Some(0), ..one.batch(&["a"], &[(ONE, 1, "x")]) };
    one.positions(&batch).await;
    let other =
        Batch { epoch: one.epoch ^ 1, lease: Some(77), ..one.batch(&["b"], &[(TWO, 1, "x"), (ONE, 1, "y")]) };
    assert_eq!(one.positions(&other).await, [2]);
    assert!(one.found(TWO).await.is_none());
    let found = one.found(ONE).await.unwrap();
    assert_eq!((&*found.record, found.lease.unwrap_or_default()), (&b"x"[..], 0));
}

async fn what_nodes_expect(broker: Broker) {
    let named = |prefix: &str| Broker { prefix: format!("{}{prefix}", broker.prefix), ..broker.again() };
    entries_are_there_once(&named("a")).await;
    a_session_is_taken_as_it_was_found(&named("b")).await;
    positions_of_another_log_mean_nothing(&named("c")).await;
    entries_that_were_removed_do_not_come_back(&named("d")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_expect_of_a_recovery_log_is_true_of_postgres() {
    what_nodes_expect(Broker::shared(Kind::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_expect_of_a_recovery_log_is_true_of_redis() {
    what_nodes_expect(Broker::shared(Kind::Redis).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_expect_of_a_recovery_log_is_true_of_nats() {
    let nats = BrokerProcess::start_with(Kind::Nats, &["-js", "-sd", "."]).await;
    what_nodes_expect(Broker::own(&nats).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_log_that_was_emptied_in_postgres_is_another_one() {
    let broker = Broker::shared(Kind::Postgres).await;
    let mut node = Node::start(&broker).await;
    let batch = node.batch(&["a", "b"], &[(ONE, 1, "x")]);
    node.positions(&batch).await;
    // As after a crash of the server, since the tables are unlogged.
    let mut connection = PgConnection::connect(&broker.url()).await.unwrap();
    let tables = "TRUNCATE recovery_bucket, recovery_entry, recovery_session, recovery_lease";
    sqlx::query(tables).execute(&mut connection).await.unwrap();
    assert!(node.begins_anew(ONE).await);
}

/// Tells a Redis something, and returns the answer.
async fn tell(redis: &BrokerProcess, command: &str) -> String {
    let mut stream = TcpStream::connect(redis.addr).await.unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 16 << 10];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_log_that_was_emptied_in_redis_is_another_one() {
    let redis = BrokerProcess::start(Kind::Redis).await;
    let broker = Broker::own(&redis).await;
    let mut node = Node::start(&broker).await;
    let batch = node.batch(&["a", "b"], &[(ONE, 1, "x")]);
    node.positions(&batch).await;
    assert_eq!(tell(&redis, "FLUSHALL").await, "+OK\r\n");
    assert!(node.begins_anew(ONE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_took_the_place_of_a_redis_has_another_recovery_log() {
    let (first, second) = (BrokerProcess::start(Kind::Redis).await, BrokerProcess::start(Kind::Redis).await);
    let (broker, other) = (Broker::own(&first).await, Broker::own(&second).await);
    let mut node = Node::start(&broker).await;
    let batch = node.batch(&["a", "b"], &[(ONE, 1, "x")]);
    node.positions(&batch).await;
    tell(&second, &format!("REPLICAOF 127.0.0.1 {}", first.addr.port())).await;
    while tell(&second, "DBSIZE").await != tell(&first, "DBSIZE").await {
        tokio::task::yield_now().await;
    }
    tell(&second, "REPLICAOF NO ONE").await;
    // What it got of the log may not be all: nobody can know.
    let other = Node::start(&other).await;
    assert_ne!(other.epoch, node.epoch);
    node.log = other.log;
    assert!(node.begins_anew(ONE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_log_that_was_emptied_in_nats_is_another_one() {
    let nats = BrokerProcess::start_with(Kind::Nats, &["-js", "-sd", "."]).await;
    let broker = Broker::own(&nats).await;
    let mut node = Node::start(&broker).await;
    let batch = node.batch(&["a", "b"], &[(ONE, 1, "x")]);
    node.positions(&batch).await;
    // As in a cluster of NATS after a restart: the streams are there, of the same configuration, with nothing in them.
    let client = async_nats::connect(nats.addr.to_string()).await.unwrap();
    let ask = async |call: String, body: Vec<u8>| -> Value {
        let answer = client.request(format!("$JS.API.{call}"), body.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    for name in ask("STREAM.NAMES".into(), Vec::new()).await["streams"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        let config = ask(format!("STREAM.INFO.{name}"), Vec::new()).await["config"].to_string();
        ask(format!("STREAM.DELETE.{name}"), Vec::new()).await;
        assert!(ask(format!("STREAM.CREATE.{name}"), config.into()).await["error"].is_null());
    }
    assert!(node.begins_anew(ONE).await);
}
