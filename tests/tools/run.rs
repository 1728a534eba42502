//! A tool that is run to its end, and what it said.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a tool said, and how it ended.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The JSON object that it printed.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("not JSON: {} {}", self.out, self.err))
    }
}

/// Runs `imks` with these arguments and nothing of this environment.
pub async fn imks(arguments: &[&str]) -> Ended {
    imks_with(arguments, &[], "").await
}

/// Runs `imks` with these arguments and variables, and gives it `input`.
pub async fn imks_with(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A tool that ends early does not read everything.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output: Output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// No tool takes longer, unless it will never end.
pub const PATIENCE: Duration = Duration::from_secs(60);
