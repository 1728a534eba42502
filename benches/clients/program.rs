//! A program of clients under test: told what to do on its standard input, and measured from outside.
//!
//! Each of them understands the same lines. `connect N` opens N connections by WebSocket alone and joins the room `all`,
//! `echo BYTES COUNT` and `back BYTES COUNT` let each client send COUNT messages, one after the other, and `hear COUNT`
//! waits for COUNT broadcasts on each. The answers are `ready`, `listening` and `done`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use super::{OURS, Outcome, host::peers, server};

/// No step of a run takes longer, unless it will never end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whose clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Imks,
    RustSocketio,
    Npm,
}

impl Maker {
    pub const ALL: [Self; 3] = [Self::Imks, Self::RustSocketio, Self::Npm];

    pub fn name(self) -> &'static str {
        match self {
            Self::Imks => "imks",
            Self::RustSocketio => "rust_socketio",
            Self::Npm => "npm",
        }
    }

    /// Says how to build it where it is not.
    pub fn is_built(self) -> bool {
        let (file, how) = match self {
            Self::Imks => return true,
            Self::RustSocketio => (rust_socketio(), "cargo build --release in benches/peers/rust_socketio"),
            Self::Npm => (peers().join("node/node_modules/socket.io-client"), "npm ci in benches/peers/node"),
        };
        let built = file.exists();
        if !built {
            println!("{}: not built, left out ({how})", self.name());
        }
        built
    }

    pub fn command(self, url: &str) -> Outcome<Command> {
        let mut command = match self {
            Self::Imks => Command::new(std::env::current_exe()?),
            Self::RustSocketio => Command::new(rust_socketio()),
            Self::Npm => Command::new("node"),
        };
        match self {
            Self::Imks => command.arg(OURS),
            Self::RustSocketio => &mut command,
            Self::Npm => command.arg(peers().join("node/client.js")),
        };
        command.arg(url).env("NODE_ENV", "production");
        Ok(command)
    }
}

fn rust_socketio() -> PathBuf {
    peers().join("rust_socketio/target/release/imks-peer-rust-socketio")
}

/// A running program of clients; killed when dropped.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Program {
    /// Starts it, and waits until it can be told what to do.
    pub fn start(mut command: Command) -> Outcome<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("no output")?;
        let (say, said) = sync_channel(16);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines();
            while let Some(Ok(line)) = lines.next() {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let program = Self { child, input, said };
        program.hear("started")?;
        Ok(program)
    }

    /// Tells it something, and waits for its answer.
    pub fn ask(&mut self, line: &str, answer: &str) -> Outcome<()> {
        writeln!(self.input.as_mut().ok_or("it was told to end")?, "{line}")?;
        self.hear(answer)
    }

    pub fn hear(&self, answer: &str) -> Outcome<()> {
        let said =
            self.said.recv_timeout(PATIENCE).map_err(|_| format!("the clients did not say {answer:?}"))?;
        if said == answer { Ok(()) } else { Err(format!("{said:?} instead of {answer:?}").into()) }
    }

    /// User and system time of all its threads, in seconds.
    pub fn cpu(&self) -> Outcome<f64> {
        server::cpu(self.child.id())
    }

    /// A field of its status, for example `VmRSS`, in KiB.
    pub fn memory_kib(&self, field: &str) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.ok_or_else(|| format!("no {field}"))?.trim().trim_end_matches(" kB").parse()?)
    }

    /// Ends it, and fails if it does not end well.
    pub fn end(mut self) -> Outcome<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the clients ended with {status}").into()) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
