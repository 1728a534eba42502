//! A script under `tests/js`, run by Node with an official client, or one with the client of another language.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::Value;

/// How long a script may say nothing. Its own patience is shorter and its complaint better.
const SILENCE: Duration = Duration::from_secs(60);

/// What runs a script.
#[derive(Clone, Copy)]
pub(crate) enum Interpreter {
    Node,
    /// The one that tests/services made, with its packages.
    Python,
    /// None: the program that tests/services built.
    Rust,
}

impl Interpreter {
    fn command(self, name: &str) -> Command {
        let (directory, program) = match self {
            Self::Node => ("tests/js", "node".into()),
            Self::Python => ("tests/python", root("target/python/bin/python")),
            Self::Rust => ("tests/rust_client", root("target/rust_client/debug/imks-tests-rust-client")),
        };
        let mut command = Command::new(program);
        command.arg(name).current_dir(root(directory));
        command
    }
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A running script. It prints JSON lines; we write words.
pub(crate) struct Script {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Script {
    pub(crate) fn start(name: &'static str, environment: &[(&str, &str)]) -> Self {
        Self::start_with(Interpreter::Node, name, environment)
    }

    /// Starts it with another interpreter.
    pub(crate) fn start_with(
        interpreter: Interpreter,
        name: &'static str,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut child = interpreter
            .command(name)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs: `make test` installs what is missing");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let (say, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = say.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { name, child, stdin, lines }
    }

    /// Runs it to its good end.
    pub(crate) fn run(name: &'static str, environment: &[(&str, &str)]) {
        Self::start(name, environment).done();
    }

    /// The same with another interpreter.
    pub(crate) fn run_with(interpreter: Interpreter, name: &'static str, environment: &[(&str, &str)]) {
        Self::start_with(interpreter, name, environment).done();
    }

    /// The next line that `wanted` accepts.
    pub(crate) fn hears(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.lines.recv_timeout(SILENCE) {
                Ok(line) if wanted(&line) => return line,
                Ok(_) => {}
                Err(_) => {
                    let _ = self.child.kill();
                    let status = self.child.wait();
                    panic!("{} ended or fell silent: {status:?}; its complaint is above", self.name);
                }
            }
        }
    }

    pub(crate) fn tell(&mut self, word: &str) {
        let stdin = self.stdin.as_mut().expect("its input");
        writeln!(stdin, "{word}").expect("the script listens");
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Waits for its last line and its good end.
    pub(crate) fn done(mut self) -> Value {
        let last = self.hears(|line| line["done"] == true);
        self.ends();
        last
    }

    /// Tells it to end, and waits for its good end.
    pub(crate) fn ends_when_told(mut self) {
        self.tell("end");
        self.done();
    }

    /// Waits for its good end.
    pub(crate) fn ends(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{}: {status}", self.name);
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
