//! A server in a process of its own, on a machine that fails it: its disk, its clock, its open files, its memory.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::command_line::{imks, text};

/// Nothing takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The data of a server, and what fails on its machine.
pub struct World {
    directory: TempDir,
    faults: File,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut faults = OpenOptions::new();
        let faults = faults.write(true).create_new(true).open(directory.path().join("faults")).unwrap();
        let world = Self { directory, faults };
        world.set_faults(0, 0);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn data(&self) -> String {
        self.path("data").display().to_string()
    }

    /// A token of a member of `general`, good for so long.
    pub fn token(&self, user: &str, ttl: &str) -> String {
        let output = imks(&["token", user, "--ttl", ttl, "--data-dir", &self.data()], &[]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// A channel of its members.
    pub fn channel(&self, name: &str, members: &[&str]) {
        let run = |arguments: &[&str]| {
            let output = imks(&[&["directory"], arguments, &["--data-dir", &self.data()]].concat(), &[]);
            assert!(output.status.success(), "{}", text(&output.stderr));
        };
        run(&["channel", "add", name]);
        members.iter().for_each(|member| run(&["member", "add", name, member]));
    }

    /// From now on the clock is so many seconds ahead, and every write to a file fails with this error (0: none).
    pub fn set_faults(&self, seconds: i64, error: i32) {
        let bytes = [seconds.to_ne_bytes(), i64::from(error).to_ne_bytes()].concat();
        self.faults.write_all_at(&bytes, 0).unwrap();
    }

    /// A server whose clock and disk obey [`World::set_faults`].
    pub fn serve(&self) -> Machine {
        let library = self.path("machine.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/messaging/machine.c");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
        assert!(compiled.unwrap().success());
        let library = format!("export LD_PRELOAD={};", library.display());
        self.serve_by(&["sh"], &library)
    }

    /// A server that this shell starts at the end of a script.
    pub fn serve_by(&self, shell: &[&str], script: &str) -> Machine {
        let mut child = self.command(shell, script).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (say, log) = mpsc::channel();
        // Reads on to the end: a full pipe would block the server.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = say.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut machine = Machine { child, address: nowhere, operators: nowhere, log };
        let ready = machine.says("ready");
        let address = |field: &str| ready["fields"][field].as_str().unwrap().parse().unwrap();
        (machine.address, machine.operators) = (address("address"), address("internal"));
        machine
    }

    /// The server at the end of a script, not started yet.
    pub fn command(&self, shell: &[&str], script: &str) -> Command {
        let mut command = Command::new(shell[0]);
        let script = format!("{script} exec \"$PROGRAM\" serve --listen 127.0.0.1:0");
        command.args(&shell[1..]).args(["-c", &script]);
        command.env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH"));
        command.env("PROGRAM", env!("CARGO_BIN_EXE_imks")).env("IMKS_DATA_DIR", self.data());
        command.env("FAULTS", self.path("faults"));
        for (name, value) in SETTINGS {
            command.env(name, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The running server. It is killed when dropped.
pub struct Machine {
    child: Child,
    pub address: SocketAddr,
    pub operators: SocketAddr,
    log: mpsc::Receiver<Value>,
}

impl Machine {
    /// Waits for a line of the log.
    pub fn says(&self, message: &str) -> Value {
        let mut before = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line["fields"]["message"] == message => return line,
                Ok(line) => before.push(line),
                Err(_) => panic!("{message} was not said, but {before:#?}"),
            }
        }
    }

    /// The root of the file system that it sees.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.child.id()))
    }

    /// How many files it has open.
    pub fn open_files(&self) -> u64 {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        files.count().try_into().unwrap()
    }

    /// How many bytes of addresses it uses.
    pub fn addresses(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Lets it have no more than this; `None` for as much as before.
    pub fn limit(&self, resource: Resource, most: Option<u64>) {
        let pid = Some(Pid::from_child(&self.child));
        let hard = rustix::process::getrlimit(resource).maximum;
        prlimit(pid, resource, Rlimit { current: most.or(hard), maximum: hard }).unwrap();
    }

    /// Whether it has ended, and how.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell that may mount, where the system lets it.
pub fn mounting_shell() -> Option<&'static [&'static str]> {
    let allowed = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status();
    if allowed.is_ok_and(|status| status.success()) {
        return Some(&["unshare", "-Urm", "sh"]);
    }
    let _ = writeln!(std::io::stderr(), "skipped: this system lets nobody mount in a namespace of their own");
    None
}

const SETTINGS: [(&str, &str); 6] = [
    ("IMKS_LOG_FORMAT", "json"),
    ("IMKS_INTERNAL_LISTEN", "127.0.0.1:0"),
    ("IMKS_FIRST_PAGE", "off"),
    ("IMKS_LIMIT_EVENTS", "off"),
    ("IMKS_LIMIT_SENDS", "off"),
    ("IMKS_LIMIT_SENDS_PER_CHANNEL", "off"),
];
