//! The real binary as a process of its own: what a person runs, and what `kill -9` really kills.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::database::Database;

/// How long it may take until it says that it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running `imks`; killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// On a free port.
    pub(crate) fn start(database: &Database) -> Self {
        Self::start_at(database, free_port())
    }

    fn start_at(database: &Database, address: SocketAddr) -> Self {
        let mut command = imks(database);
        command.args(["--listen", &address.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("imks starts");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let (say, heard) = mpsc::channel();
        // Reads on to the end: a full pipe would block the server.
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        loop {
            match heard.recv_timeout(START_TIMEOUT) {
                Ok(line) if line.contains(&address.to_string()) => break,
                Ok(_) => {}
                Err(_) => panic!("imks did not say that it listens on {address}"),
            }
        }
        Self { child, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `kill -9`, then a new process on the same port and database.
    pub(crate) fn kill_and_restart(&mut self, database: &Database) {
        self.kill();
        *self = Self::start_at(database, self.address);
    }

    /// SIGTERM, and how long it takes until the process has ended, with success.
    #[allow(clippy::disallowed_methods, reason = "another process has real time only")]
    pub(crate) fn drain(&mut self) -> Duration {
        let pid = self.child.id().to_string();
        let start = Instant::now();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().is_ok_and(|status| status.success()));
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "a drain ends with success: {status}");
        start.elapsed()
    }

    /// The body of an answer to one HTTP request on a connection of its own.
    pub(crate) fn http(&self, method: &str, path: &str, body: &str) -> String {
        let stream = TcpStream::connect(self.address).expect("it listens");
        exchange(stream, method, path, body).split_once("\r\n\r\n").expect("HTTP").1.to_owned()
    }

    /// The status of an answer to one GET of somebody at this address of the loopback network.
    #[allow(dead_code, reason = "called by client_tests")]
    pub(crate) fn status_for(&self, client: Ipv4Addr, path: &str) -> u16 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((client, 0)).into()).expect("an address of loopback");
        socket.connect(&self.address.into()).expect("it listens");
        let answer = exchange(socket.into(), "GET", path, "");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    /// SIGTERM, then a new process on the same port and database.
    pub(crate) fn drain_and_restart(&mut self, database: &Database) {
        self.drain();
        *self = Self::start_at(database, self.address);
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exchange(mut stream: TcpStream, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address that nobody listens on.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.expect("a free port")
}

/// A running `imks core`; killed when dropped.
pub(crate) struct Core {
    child: Child,
    #[allow(dead_code, reason = "read by contract_tests")]
    greeting: String,
}

impl Core {
    /// At an address for servers, and on a free port for back ends.
    pub(crate) fn start(database: &Database, address: &str) -> Self {
        let mut command = imks(database);
        command.args(["core", "--listen", address]);
        if !database.environment().iter().any(|(name, _)| *name == "IMKS_INTERNAL_LISTEN") {
            command.env("IMKS_INTERNAL_LISTEN", "127.0.0.1:0");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("imks core starts");
        let mut greeting = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        while !greeting.contains("health  ") {
            assert_ne!(stdout.read_line(&mut greeting).expect("a line"), 0, "{greeting}");
        }
        assert!(greeting.contains(address), "{greeting}");
        Self { child, greeting }
    }

    /// What it says when it has started.
    #[allow(dead_code, reason = "called by contract_tests")]
    pub(crate) fn greeting(&self) -> &str {
        &self.greeting
    }

    /// The address of the API for back ends.
    #[allow(dead_code, reason = "called by contract_tests")]
    pub(crate) fn api(&self) -> &str {
        let line = self.greeting.lines().find_map(|line| line.trim().strip_prefix("directory "));
        line.and_then(|line| line.trim().split_once("/…")).expect("an address").0
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `imks` prints with these arguments.
pub(crate) fn run(database: &Database, arguments: &[&str]) -> String {
    let output = imks(database).args(arguments).output().expect("imks runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// What a script prints that calls `imks`.
#[allow(dead_code, reason = "called by contract_tests")]
pub(crate) fn shell(database: &Database, script: &str) -> String {
    let imks = format!("imks() {{ '{}' \"$@\"; }}", env!("CARGO_BIN_EXE_imks"));
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &format!("{imks}\n{script}")]);
    command.env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH"));
    let output = command.envs(database.environment()).output().expect("bash runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A development token, as a person gets it.
pub(crate) fn token(database: &Database, user: &str, more: &[&str]) -> String {
    run(database, &[&["token", user], more].concat())
}

fn imks(database: &Database) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    // Nothing of the person's own environment may change what is tested.
    command.env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH"));
    command.envs(database.environment()).stdin(Stdio::null());
    command
}
