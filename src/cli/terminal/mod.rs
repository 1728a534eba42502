//! What the tools on the terminal share: their runtime, trust in certificates, progress, and the full screen.

mod address;
mod full;
pub(crate) mod screen;
pub(crate) mod text;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) use self::address::without_secrets;
pub(crate) use self::full::FullScreen;
use crate::client::Tls;
use crate::{ImksError, ImksResult};

/// Runs a tool until it ends.
pub(super) fn block_on(tool: impl Future<Output = ImksResult<ExitCode>>) -> ImksResult<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("imks")
        .build()
        .map_err(ImksError::io("starting the runtime"))?;
    let ended = runtime.block_on(Box::pin(tool));
    // A task that waits for the keyboard does not end by itself.
    runtime.shutdown_background();
    ended
}

/// The signals that ask a tool to end: SIGINT and SIGTERM. None is missed from the creation of this value on.
pub(super) struct Endings {
    interrupt: Signal,
    terminate: Signal,
}

impl Endings {
    /// Begins to listen to the signals.
    ///
    /// # Errors
    /// [`ImksError::Io`] if the system does not allow it.
    pub(super) fn new() -> ImksResult<Self> {
        let listen = |kind| signal(kind).map_err(ImksError::io("waiting for signals"));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The certificates that a tool trusts beside those of the system.
pub(super) struct Trust(Option<Vec<u8>>);

impl Trust {
    /// Reads a file with certificates, if one is named.
    ///
    /// # Errors
    /// [`ImksError::Io`] if it cannot be read.
    pub(super) fn read(ca: Option<&Path>) -> ImksResult<Self> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(ImksError::io(format!("reading the certificates {}", path.display())))
        };
        ca.map(read).transpose().map(Self)
    }

    /// Returns the settings of TLS for a client.
    ///
    /// # Errors
    /// [`ImksError::Config`] if there is no certificate in the file.
    pub(super) fn tls(&self) -> ImksResult<Tls> {
        match &self.0 {
            None => Ok(Tls::new()),
            Some(pem) => Tls::new().root_pem(pem).map_err(|error| ImksError::Config(causes(&error))),
        }
    }

    /// Returns the settings of TLS for connections without the client library.
    ///
    /// # Errors
    /// [`ImksError::Config`] if there is no certificate in the file, or none of the system.
    pub(super) fn config(&self) -> ImksResult<Arc<ClientConfig>> {
        let tls = self.tls()?;
        let config = tls.verifier().and_then(|verifier| tls.tcp(verifier));
        config.map_err(|error| ImksError::Config(causes(&error)))
    }
}

/// Returns an error with its causes, in one line that a terminal may show.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    self::text::line(&super::with_causes(error))
}

/// A word on the terminal that says what is being waited for, as long as this value lives.
pub(super) struct Progress(bool);

impl Progress {
    /// Shows what is being waited for, if standard error is a terminal and nobody wants silence.
    pub(super) fn show(what: &str, is_silent: bool) -> Self {
        let is_shown = !is_silent && std::io::stderr().is_terminal();
        if is_shown {
            // It is only for people to look at.
            let _ = write!(std::io::stderr().lock(), "… {what}");
        }
        Self(is_shown)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.0 {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// The exit code of a tool that was interrupted: 128 and the number of SIGINT, as shells have it.
pub(super) const EXIT_INTERRUPTED: u8 = 130;
