//! The servers of one run: three nodes of a cluster, or one server alone.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    Outcome,
    client::{Client, Via},
    database::Postgres,
    frame::text,
    server::Server,
};

/// How the nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    Redis,
    Nats,
    Postgres,
    /// npm `socket.io` with `@socket.io/redis-adapter`.
    Node,
}

impl Adapter {
    pub const ALL: [Self; 4] = [Self::Redis, Self::Nats, Self::Postgres, Self::Node];

    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Postgres => "postgres",
            Self::Node => "node",
        }
    }

    pub fn named(name: &str) -> Outcome<Self> {
        let known = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|adapter| adapter.name() == name);
        found.ok_or_else(|| format!("{name} is none of {known}").into())
    }

    /// Says what is missing where it cannot be measured.
    pub fn is_there(self) -> bool {
        let needs_packages =
            self == Self::Node && !peer().join("node_modules/@socket.io/redis-adapter").exists();
        let missing = match self.variable() {
            _ if needs_packages => "npm ci in benches/peers/node",
            name if std::env::var_os(name).is_none() => name,
            _ => return true,
        };
        println!("{}: left out ({missing})", self.name());
        false
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Redis | Self::Node => "IMKS_TEST_REDIS_URL",
            Self::Nats => "IMKS_TEST_NATS_URL",
            Self::Postgres => "IMKS_TEST_POSTGRES_URL",
        }
    }

    /// Returns the command of one node.
    fn command(self, url: &str, prefix: &str, port: u16) -> Command {
        let port = port.to_string();
        if self == Self::Node {
            let mut command = Command::new("node");
            command.arg(peer().join("cluster.js")).args([&port, url, prefix]).env("NODE_ENV", "production");
            return command;
        }
        let mut command = Command::new(conformance());
        command.args(["cluster", "--port", &port, "--adapter", url, "--prefix", prefix]);
        command
    }
}

/// The running servers. Fields are dropped in this order: the nodes leave before their database.
pub struct Nodes {
    all: Vec<Server>,
    _database: Option<Postgres>,
}

impl Nodes {
    /// Starts three nodes, or without an adapter one server.
    pub fn start(adapter: Option<Adapter>) -> Outcome<Self> {
        let Some(adapter) = adapter else {
            let alone = |port: u16| {
                let mut command = Command::new(conformance());
                command.args(["load", "--port", &port.to_string()]);
                command
            };
            return Ok(Self { all: vec![Server::start(alone)?], _database: None });
        };
        let database = (adapter == Adapter::Postgres).then(Postgres::create).transpose()?;
        let url = match &database {
            Some(database) => database.url()?,
            None => std::env::var(adapter.variable())?,
        };
        // A cluster of its own, whatever ran before.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let prefix = format!("bench{}", since.as_millis());
        let node = |_| Server::start(|port| adapter.command(&url, &prefix, port));
        let all = (0..NODES).map(node).collect::<Outcome<_>>()?;
        Ok(Self { all, _database: database })
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Server> {
        self.all.iter()
    }

    /// The node that clients send to.
    pub fn sender(&self) -> &Server {
        &self.all[0]
    }

    /// The node with the members of the room: the second one, or the only one.
    pub fn receiver(&self) -> &Server {
        self.all.get(1).unwrap_or(&self.all[0])
    }

    /// Waits until what is sent to the first node arrives at the second one.
    pub fn meet(&self) -> Outcome<()> {
        let mut client = Client::new()?;
        client.connect(self.sender().address, 1, Via::WebSocket)?;
        client.connect(self.receiver().address, 2, Via::WebSocket)?;
        client
            .join(self.sender().address, |index| if index == 0 { "nobody".into() } else { "here".into() })?;
        let deadline = Instant::now() + MEET_TIMEOUT;
        let mut have_met = false;
        while !have_met {
            if Instant::now() > deadline {
                return Err("the nodes do not hear each other".into());
            }
            client.lines.send(0, &text(r#"42["broadcast","here","hello"]"#));
            client.turn(Duration::from_millis(100), self.sender().address, |_, packet, _, _| {
                have_met |= packet.starts_with(br#"42["msg""#);
            })?;
        }
        Ok(())
    }
}

/// The name of the single server.
pub const ALONE: &str = "alone";
/// The number of nodes of a cluster.
const NODES: usize = 3;
/// How long nodes may take to find each other.
const MEET_TIMEOUT: Duration = Duration::from_secs(20);

fn peer() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers/node")
}

/// Beside this program: `target/release/deps/cluster-…` and `target/release/examples/conformance`.
fn conformance() -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    path.pop();
    path.join("examples/conformance")
}
