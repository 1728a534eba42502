//! Nodes of `imks serve` as processes, which can be killed, told to end, and started again.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::{Broker, Kind, free_address};

/// Nothing takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answer to one request on a connection of its own: status and body.
pub async fn http(addr: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    http_over(TcpStream::connect(addr).await.unwrap(), method, path, body).await
}

/// The answer to the only request on this connection.
pub async fn http_over(mut stream: TcpStream, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Opens a session by polling; its path.
pub async fn open(addr: SocketAddr) -> String {
    let path = "/socket.io/?EIO=4&transport=polling";
    let (_, body) = http(addr, "GET", path, "").await;
    let opened: serde_json::Value = serde_json::from_str(&body[1..]).unwrap();
    format!("{path}&sid={}", opened["sid"].as_str().unwrap())
}

/// Waits until all nodes pass requests on to each other.
pub async fn acquainted(nodes: &[SocketAddr]) {
    let deadline = Instant::now() + PATIENCE;
    for owner in nodes {
        for other in nodes {
            while http(*other, "POST", &open(*owner).await, "40").await.1 != "ok" {
                assert!(Instant::now() < deadline, "{other} passes nothing on to {owner}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The program, for this cluster.
pub fn imks(broker: &Broker, database: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH"));
    command.env("DATABASE_URL", database).env("IMKS_CLUSTER_PREFIX", &broker.prefix).stdin(Stdio::null());
    match broker.kind {
        Kind::Redis => command.env("REDIS_URL", broker.url()),
        Kind::Nats => command.env("NATS_URL", broker.url()),
        Kind::Postgres => command.env("IMKS_ADAPTER", "postgres"),
    };
    command
}

/// A node as a process; killed when dropped.
pub struct Process {
    pub addr: SocketAddr,
    command: Command,
    child: Child,
}

impl Process {
    pub fn start(broker: &Broker, database: &str, name: &str, settings: &[(&str, &str)]) -> Self {
        let addr = free_address();
        let mut command = imks(broker, database);
        command.env("IMKS_NODE", name).envs(settings.iter().copied());
        command.args(["--listen", &addr.to_string()]).stdout(Stdio::piped());
        let child = begin(&mut command, addr);
        Self { addr, command, child }
    }

    /// Starts it again, at the same address.
    pub fn start_again(&mut self) {
        self.child = begin(&mut self.command, self.addr);
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to end, and waits until it has.
    pub fn drain(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the drain ended with {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a node and waits until it takes connections.
fn begin(command: &mut Command, addr: SocketAddr) -> Child {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(&addr.to_string())), "imks does not start");
    // Reads on to the end: a full pipe would block the server.
    std::thread::spawn(move || lines.for_each(drop));
    child
}
