//! A server of imks as a process of its own, which can really be killed.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::task::TaskTracker;

use crate::{ImksError, ImksResult};

/// A running server. It is killed when this is dropped, and ends by itself if this process is killed.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    setup: Setup,
}

/// How a server is started, and started again.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// The directory of its data and its log.
    pub(super) folder: PathBuf,
    /// Its configuration, as variables.
    pub(super) variables: Vec<(&'static str, String)>,
}

impl Server {
    /// Starts a server on a free port of loopback, and waits until it listens.
    ///
    /// # Errors
    /// [`ImksError::Io`] if it does not start; the text has the end of its log.
    pub(super) async fn start(setup: Setup) -> ImksResult<Self> {
        Self::start_at(setup, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Returns the URL of the server.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills the server as `kill -9` does, and starts another one at the same address on the same data.
    ///
    /// # Errors
    /// As [`Server::start`], and as [`Server::check_running`].
    pub(super) async fn kill_and_restart(&mut self) -> ImksResult<()> {
        self.check_running()?;
        // `Child::kill` sends SIGKILL, which no process can handle, and waits until it is gone.
        self.child.kill().await.map_err(ImksError::io("killing the server"))?;
        *self = Self::start_at(self.setup.clone(), self.address).await?;
        Ok(())
    }

    /// Checks that the server has not ended by itself, which nobody would notice after it was started again.
    ///
    /// # Errors
    /// [`ImksError::Io`] if it has; the text has the end of its log.
    pub(super) fn check_running(&mut self) -> ImksResult<()> {
        let ended = self.child.try_wait().map_err(ImksError::io("looking at the server"))?;
        let Some(status) = ended else { return Ok(()) };
        let context = failure("the server ended by itself", &self.setup.folder.join(LOG));
        Err(ImksError::Io { context, source: std::io::Error::other(status.to_string()) })
    }

    /// Ends the server.
    pub(super) async fn end(mut self) {
        // It was killed before if this fails, and dropping it would kill it too.
        let _ = self.child.kill().await;
    }

    async fn start_at(setup: Setup, address: SocketAddr) -> ImksResult<Self> {
        let program = std::env::current_exe().map_err(ImksError::io("finding this program"))?;
        let log = setup.folder.join(LOG);
        let opened = OpenOptions::new().create(true).append(true).open(&log);
        let stderr = opened.map_err(ImksError::io(format!("opening {}", log.display())))?;
        let mut command = Command::new(program);
        let listen = address.to_string();
        // The pipe to it ends with this process, also by `kill -9`.
        command.args(["serve", "--end-with-input", "--listen", &listen]).current_dir(&setup.folder);
        // Nothing of the configuration of this process may reach the server: it could name a database in use.
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| KEPT.iter().any(|kept| name == kept)));
        command.envs(setup.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        // Ctrl-C is for this process, which then ends the server.
        command.process_group(0);
        let mut child = command.spawn().map_err(ImksError::io("starting the server"))?;
        let greeting = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let listening = tokio::time::timeout(START_PATIENCE, listening(greeting)).await;
        match listening {
            Ok(Some(address)) => Ok(Self { child, address, setup }),
            _ => Err(ImksError::Io {
                context: failure("the server did not start", &log),
                source: std::io::Error::other("it does not listen"),
            }),
        }
    }
}

/// Waits until the server says where it listens, and reads on: a full pipe would stop it.
async fn listening(greeting: Option<Lines<BufReader<ChildStdout>>>) -> Option<SocketAddr> {
    let mut greeting = greeting?;
    while let Ok(Some(line)) = greeting.next_line().await {
        if let Some(address) = address(&line) {
            TaskTracker::new().spawn(async move { while let Ok(Some(_)) = greeting.next_line().await {} });
            return Some(address);
        }
    }
    None
}

/// Reads the address from the line of the greeting that has it.
fn address(line: &str) -> Option<SocketAddr> {
    let rest = line.trim().strip_prefix("listening")?.trim();
    rest.split_whitespace().next()?.strip_prefix("http://")?.parse().ok()
}

fn failure(what: &str, log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let from = text.lines().count().saturating_sub(LOG_LINES);
    let end: Vec<&str> = text.lines().skip(from).collect();
    format!("{what}; the end of its log:\n{}\n", end.join("\n"))
}

const LOG: &str = "server.log";

/// The number of lines of a log in an error.
const LOG_LINES: usize = 10;

/// How long a server may take to start.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The variables that say something about the machine, and nothing about imks.
const KEPT: [&str; 6] = ["PATH", "HOME", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_in_the_line_that_says_listening() {
        let line = "  listening  http://127.0.0.1:4123  (Socket.IO at /socket.io/, polling and WebSocket)";
        assert_eq!(address(line), Some("127.0.0.1:4123".parse().unwrap()));
        for other in ["imks 0.1.0 is ready.", "  health     curl http://127.0.0.1:1/health", "listening", ""]
        {
            assert_eq!(address(other), None, "{other}");
        }
    }
}
