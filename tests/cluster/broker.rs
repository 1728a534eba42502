//! Brokers of the tests: processes of their own where they are killed, those of `make test` otherwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use imks::bus::Pipe;
use imks::node::NodeId;
use imks::socket::adapter::{nats, redis};
use imks::testing::models::cluster_message;
use imks::testing::models::db::{Config, Db};
use tempfile::TempDir;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::postgres;
use crate::proxy::Proxy;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Nats,
    Postgres,
}

/// A broker behind a proxy, and a cluster of its own in it.
pub struct Broker {
    pub kind: Kind,
    pub proxy: Arc<Proxy>,
    pub prefix: String,
    pub database: Option<String>,
}

impl Broker {
    /// The running broker of this kind.
    pub async fn shared(kind: Kind) -> Self {
        let url = match kind {
            Kind::Redis => {
                std::env::var("IMKS_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into())
            }
            Kind::Nats => {
                std::env::var("IMKS_TEST_NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".into())
            }
            Kind::Postgres => postgres::create().await,
        };
        let host = host(&url);
        let proxy = Proxy::start(host.parse().unwrap()).await;
        let database = (kind == Kind::Postgres).then(|| url.replacen(&host, &proxy.addr.to_string(), 1));
        let broker = Self { kind, proxy, prefix: format!("t{}", Uuid::now_v7().simple()), database };
        if kind == Kind::Postgres {
            let db = broker.db().await;
            db.migrate().await.unwrap();
            db.close().await;
        }
        broker
    }

    /// A process of the test.
    pub async fn own(process: &BrokerProcess) -> Self {
        let proxy = Proxy::start(process.addr).await;
        Self { kind: process.kind, proxy, prefix: "own".into(), database: None }
    }

    /// The same broker once more.
    pub fn again(&self) -> Self {
        let (prefix, database) = (self.prefix.clone(), self.database.clone());
        Self { kind: self.kind, proxy: self.proxy.clone(), prefix, database }
    }

    /// The URL of the broker, through the proxy.
    pub fn url(&self) -> String {
        match (self.kind, &self.database) {
            (Kind::Postgres, Some(url)) => url.clone(),
            (Kind::Redis, _) => format!("redis://{}", self.proxy.addr),
            _ => format!("nats://{}", self.proxy.addr),
        }
    }

    /// The pipe of one more node, once it is connected.
    pub async fn pipe(&self) -> (NodeId, Arc<dyn Pipe>) {
        let node = NodeId::random().unwrap();
        let addr = self.proxy.addr;
        let pipe = match self.kind {
            Kind::Redis => redis::connect(&format!("redis://{addr}"), &self.prefix, node).unwrap(),
            Kind::Nats => nats::connect(&format!("nats://{addr}"), None, &self.prefix, node).unwrap(),
            Kind::Postgres => cluster_message::connect(&self.db().await, &self.prefix, node).unwrap(),
        };
        let mut state = pipe.state();
        let up = state.wait_for(|state| state.up);
        tokio::time::timeout(Duration::from_secs(20), up).await.expect("a connection").unwrap();
        (node, pipe)
    }

    async fn db(&self) -> Db {
        let url = self.database.clone().unwrap();
        Db::connect(&Config { url: Some(url.into()), max_connections: 2, ..Config::default() }).await.unwrap()
    }
}

/// A broker that a test kills, pauses and restarts.
pub struct BrokerProcess {
    pub addr: SocketAddr,
    kind: Kind,
    process: Child,
    directory: TempDir,
    more: &'static [&'static str],
}

impl BrokerProcess {
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, &[]).await
    }

    /// With further arguments.
    pub async fn start_with(kind: Kind, more: &'static [&'static str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addr = free_address();
        let process = spawn(kind, addr, &directory, more);
        let broker = Self { addr, kind, process, directory, more };
        broker.listens().await;
        broker
    }

    /// Ends the process without a word.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, with nothing in it.
    pub async fn restart(&mut self) {
        self.process = spawn(self.kind, self.addr, &self.directory, self.more);
        self.listens().await;
    }

    /// Stops the process so that it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        let pid = self.process.id().to_string();
        let name = if signal == libc::SIGSTOP { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    async fn listens(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(self.addr).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "the broker does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A Redis Cluster of three masters, with so many replicas of each and its URL.
pub async fn redis_cluster(replicas: usize) -> (Vec<BrokerProcess>, String) {
    const ARGS: &[&str] =
        &["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"];
    let mut nodes = Vec::new();
    for _ in 0..3 * (1 + replicas) {
        nodes.push(BrokerProcess::start_with(Kind::Redis, ARGS).await);
    }
    let addresses: Vec<String> = nodes.iter().map(|node| node.addr.to_string()).collect();
    let create = ["--cluster", "create", "--cluster-yes", "--cluster-replicas", &replicas.to_string()];
    redis_cli(create.into_iter().chain(addresses.iter().map(String::as_str)));
    for node in &nodes {
        let port = node.addr.port().to_string();
        let about = |part: [&str; 2]| redis_cli(["-p", &port].into_iter().chain(part));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !about(["cluster", "info"]).contains("cluster_state:ok")
            || about(["info", "replication"]).contains("master_link_status:down")
        {
            assert!(std::time::Instant::now() < deadline, "the Redis Cluster does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let url = format!("redis-cluster://{}?node={}&node={}", addresses[0], addresses[1], addresses[2]);
    (nodes, url)
}

fn redis_cli<'a>(args: impl IntoIterator<Item = &'a str>) -> String {
    let told = Command::new("redis-cli").args(args).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
    String::from_utf8(told.stdout).unwrap()
}

/// Returns an address for a process that may end and begin again. Its port is below those that the system gives to
/// connections: one of these could take it meanwhile, even the one that tries whether the process listens again. So is the
/// one that is 10,000 higher, which a Redis Cluster needs too.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in processes of their own.
    let first = 15_000 + u16::try_from(std::process::id() % 770).unwrap() * 10;
    let numbers = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
    let mut addresses = numbers.map(|number| SocketAddr::from((Ipv4Addr::LOCALHOST, first + number)));
    addresses.find(|address| std::net::TcpListener::bind(address).is_ok()).unwrap()
}

fn spawn(kind: Kind, addr: SocketAddr, directory: &TempDir, more: &[&str]) -> Child {
    let port = addr.port().to_string();
    let mut command = match kind {
        Kind::Redis => {
            let mut command = Command::new("redis-server");
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command
        }
        Kind::Nats => {
            let mut command = Command::new("nats-server");
            command.args(["-a", "127.0.0.1", "-p", &port]);
            command
        }
        Kind::Postgres => panic!("PostgreSQL is not killed, only cut off"),
    };
    command.args(more).current_dir(directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the broker; see `make test`")
}

fn host(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    rest.split(['/', '?']).next().unwrap().to_owned()
}
