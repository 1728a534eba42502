//! The servers under test: start, wait until they listen, read their cost, stop.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::Outcome;

/// How long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// `USER_HZ`: the unit of CPU times in /proc, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Node,
    Socketioxide,
    Imks,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Node, Self::Socketioxide, Self::Imks];

    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Socketioxide => "socketioxide",
            Self::Imks => "imks",
        }
    }

    /// Says how to build it where it is not.
    pub fn is_built(self) -> bool {
        let (file, how) = match self {
            Self::Node => (peers().join("node/node_modules/socket.io"), "npm ci in benches/peers/node"),
            Self::Socketioxide => (socketioxide(), "cargo build --release in benches/peers/socketioxide"),
            Self::Imks => (imks(), "cargo build --release --example conformance"),
        };
        let built = file.exists();
        if !built {
            println!("{}: not built, left out ({how})", self.name());
        }
        built
    }

    fn command(self, port: u16) -> Command {
        let port = port.to_string();
        let mut command = match self {
            Self::Node => Command::new("node"),
            Self::Socketioxide => Command::new(socketioxide()),
            Self::Imks => Command::new(imks()),
        };
        match self {
            Self::Node => command.arg(peers().join("node/server.js")).arg(port),
            Self::Socketioxide => command.arg(port),
            Self::Imks => command.args(["load", "--port", &port]),
        };
        command.env("NODE_ENV", "production");
        command
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts it on a free port of the loopback interface and waits until it accepts.
    pub fn start(kind: Kind) -> Outcome<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = kind.command(address.port()).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut server = Self { child, address };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server ended at its start: {status}").into());
            }
            if Instant::now() > deadline {
                return Err("the server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// User and system time of all its threads, past and present, in seconds.
    pub fn cpu(&self) -> Outcome<f64> {
        cpu(self.child.id())
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process, in seconds.
pub fn cpu(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may hold spaces; utime and stime are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

fn peers() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

fn socketioxide() -> PathBuf {
    peers().join("socketioxide/target/release/imks-peer-socketioxide")
}

/// Beside this program: `target/release/deps/load-…` and `target/release/examples/conformance`.
fn imks() -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    path.pop();
    path.join("examples/conformance")
}
