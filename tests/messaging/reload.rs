//! The real binary while its operator changes the configuration: what counts at once, what after a restart, and what is
//! refused. Its log is read as programs do.

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

/// A server whose log is JSON, with a configuration file of its own.
struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        Self::run("serve", &[])
    }

    /// Runs a command that serves.
    fn run(command: &str, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("imks.toml");
        std::fs::write(&file, "[log]\nformat = \"json\"\n").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_imks"))
            .args([command, "--listen", "127.0.0.1:0", "--config", file.to_str().unwrap()])
            .env_clear()
            .env("IMKS_DATA_DIR", directory.path())
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut server = Self { child, lines, file, _directory: directory };
        let ready = server.says("ready");
        assert!(ready["fields"]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{ready}");
        server
    }

    /// Reads lines up to the one with this message. Every line is JSON.
    fn says(&mut self, message: &str) -> Value {
        for line in &mut self.lines {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if line["fields"]["message"] == message {
                return line;
            }
        }
        panic!("{message} was not said");
    }

    fn reload(&self, text: &str) {
        std::fs::write(&self.file, format!("[log]\nformat = \"json\"\n{text}")).unwrap();
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end, before which it must have written nothing to standard output.
    fn ends_silently(mut self) {
        assert!(self.child.wait().unwrap().success());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.child.stdout.take().unwrap(), &mut said).unwrap();
        assert_eq!(said, "", "the log has the greeting");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_changed_configuration_counts_without_a_restart_and_says_what_does_not() {
    let mut server = Server::start();
    server.reload("[limits]\nsessions_per_user = 3\n[append]\nlanes = 3\n");
    let told = server.says("configuration reloaded");
    assert_eq!(told["fields"]["in_use"], "limits.sessions_per_user");
    assert_eq!(told["fields"]["after_restart"], "append.lanes");
    server.reload("nonsense = 1\n");
    let refused = server.says("the configuration was not reloaded, the old one stays in use");
    assert!(refused["fields"]["error"].as_str().unwrap().contains("nonsense"), "{refused}");
    server.reload("filter = \"error\"\n");
    server.reload("filter = \"info\"\n[limits]\nevents = \"7/9\"\n");
    loop {
        let told = server.says("configuration reloaded");
        if told["fields"]["in_use"].as_str().unwrap().contains("limits.events") {
            break;
        }
    }
    server.signal(rustix::process::Signal::TERM);
    server.says("stopped");
    server.ends_silently();
}

#[test]
fn the_log_of_a_core_says_that_it_is_ready_and_nothing_else_does() {
    let core = Server::run("core", &[("IMKS_INTERNAL_LISTEN", "127.0.0.1:0")]);
    core.signal(rustix::process::Signal::TERM);
    core.ends_silently();
}
