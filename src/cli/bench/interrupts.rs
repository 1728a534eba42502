//! The signals that end a run, heard on a thread of their own: whatever the run is busy with, a second Ctrl-C ends it.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cli::serve::Signals;
use crate::cli::{EXIT_FAILED, complain};
use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// Listens to SIGINT (Ctrl-C) and SIGTERM from now on. The first one cancels the token that is returned, and the second
/// one ends the process.
///
/// # Errors
/// [`ImksError::Io`] if the system does not allow it; [`ImksError::Task`] if there can be no thread.
pub(super) async fn listen() -> ImksResult<CancellationToken> {
    let asked = CancellationToken::new();
    let (ready, is_ready) = oneshot::channel();
    let asking = asked.clone();
    let thread = std::thread::Builder::new().name("signals".into());
    let started = thread.spawn(move || match start() {
        Ok((runtime, signals)) => {
            // Whoever waits for this has gone only if the program ends.
            let _ = ready.send(Ok(()));
            runtime.block_on(hear(signals, asking));
        }
        Err(error) => drop(ready.send(Err(error))),
    });
    started.map_err(|error| ImksError::Task(Cause::new(error)))?;
    is_ready.await.map_err(|error| ImksError::Task(Cause::new(error)))??;
    Ok(asked)
}

fn start() -> ImksResult<(Runtime, Signals)> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ImksError::io("listening for signals"))?;
    let signals = runtime.block_on(async { Signals::new() })?;
    Ok((runtime, signals))
}

async fn hear(mut signals: Signals, asked: CancellationToken) {
    signals.next().await;
    asked.cancel();
    signals.next().await;
    // Whoever reads standard error may have stopped, and with it whoever writes to it.
    let saying = spawn_blocking(|| {
        complain(&ImksError::Timeout("ended by a second Ctrl-C, without a summary"));
    });
    let _ = timeout(PATIENCE, saying).await;
    std::process::exit(i32::from(EXIT_FAILED))
}

/// How long the last word may take.
const PATIENCE: Duration = Duration::from_secs(1);
