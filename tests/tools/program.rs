//! The program `imks` as a process: with its output on a pipe, or on a terminal.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// Nothing that a test runs takes longer, unless it will never end.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a program has left behind.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// What it left in its directory for temporary files, and the processes that still work there.
    pub(crate) left: Vec<String>,
}

impl Ended {
    /// The only document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}\n{}", self.stdout, self.stderr))
    }

    /// The lines of standard output, each a document.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

/// A program that runs. It is killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    said: String,
    temporary: TempDir,
}

impl Program {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// With variables of its environment, which is empty otherwise.
    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, String)]) -> Self {
        let temporary = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
        command.args(arguments).env_clear().env("TMPDIR", temporary.path());
        command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdout, stderr, said: String::new(), temporary }
    }

    /// Waits until it says something on standard error.
    pub(crate) async fn says(&mut self, words: &str) {
        within(async {
            loop {
                let line = self.stderr.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("it did not say {words:?}: {}", self.said));
                self.said.push_str(&line);
                self.said.push('\n');
                if line.contains(words) {
                    return;
                }
            }
        })
        .await;
    }

    /// What Ctrl-C does.
    pub(crate) async fn interrupt(&self) {
        self.signal("-INT").await;
    }

    /// What a terminal does that is closed.
    pub(crate) async fn hang_up(&self) {
        self.signal("-HUP").await;
    }

    /// What `head -1` does: it reads a line and goes.
    pub(crate) async fn read_no_further(self) -> Ended {
        let Self { mut child, mut stdout, mut stderr, mut said, temporary } = self;
        let first = within(stdout.next_line()).await.unwrap().unwrap();
        drop(stdout);
        within(stderr.get_mut().read_to_string(&mut said)).await.unwrap();
        let status = within(child.wait()).await.unwrap();
        Ended { code: status.code(), stdout: first, stderr: said, left: left_in(&temporary) }
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// What `kill -9` does to the servers that it has started.
    pub(crate) async fn kill_its_servers(&self) {
        let processes = processes_in(self.temporary.path());
        assert!(!processes.is_empty(), "{}", self.said);
        assert!(Command::new("kill").arg("-9").args(processes).status().await.unwrap().success());
    }

    /// What `kill -9` does to it. Then it waits until the servers that it has started are gone.
    pub(crate) async fn kill_and_see_its_servers_end(mut self) {
        assert!(!processes_in(self.temporary.path()).is_empty(), "{}", self.said);
        self.child.kill().await.unwrap();
        let gone = async {
            while !processes_in(self.temporary.path()).is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within(gone).await;
    }

    pub(crate) async fn ended(mut self) -> Ended {
        let (mut out, mut err) = (String::new(), self.said);
        let (stdout, stderr) = (self.stdout.get_mut(), self.stderr.get_mut());
        let reading =
            async { tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
        within(reading).await.0.unwrap();
        let status: ExitStatus = within(self.child.wait()).await.unwrap();
        Ended { code: status.code(), stdout: out, stderr: err, left: left_in(&self.temporary) }
    }
}

/// The files in a directory, and the processes that work there.
fn left_in(directory: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let files = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    files.chain(processes_in(directory.path())).collect()
}

/// The ids of the processes whose working directory is in a directory.
fn processes_in(directory: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let are_there = processes.filter(|process| {
        std::fs::read_link(process.path().join("cwd")).is_ok_and(|place| place.starts_with(directory))
    });
    are_there.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

/// Runs it to its end, with its output on pipes.
pub(crate) async fn run(arguments: &[&str]) -> Ended {
    Program::start(arguments).ended().await
}

/// Runs it to its end on a terminal, where both outputs are one.
pub(crate) async fn on_a_terminal(arguments: &[&str]) -> (Option<i32>, String) {
    let quoted = arguments.iter().map(|argument| format!("'{argument}'"));
    let line: Vec<String> =
        std::iter::once(format!("'{}'", env!("CARGO_BIN_EXE_imks"))).chain(quoted).collect();
    let mut command = Command::new("script");
    command.args(["-qfec", &line.join(" "), "/dev/null"]).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("IMKS_CONFIG").env("TERM", "xterm");
    let output = within(command.output()).await.expect("util-linux has `script`");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// A file in a directory, as an argument.
pub(crate) fn path(directory: &TempDir, name: impl AsRef<OsStr>) -> String {
    directory.path().join(name.as_ref()).display().to_string()
}
