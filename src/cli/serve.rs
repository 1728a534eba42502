//! `imks serve`: runs the server from its start until it is drained.

use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::app::{App, Changes, ServiceManager};
use crate::background;
use crate::config::{Config, Listing};
use crate::telemetry::metrics::{RELOADS, Reload};
use crate::{ImksError, ImksResult};

/// Options of `imks serve`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Ends when its standard input ends, as by SIGTERM: for a tool that starts a server, and whose end, however it comes,
    /// shall be that of the server too
    #[arg(long, hide = true)]
    end_with_input: bool,
}

/// Runs the server until SIGTERM or SIGINT, then drains it. A second signal ends the process at once.
/// `read` reads the configuration again, for SIGHUP.
pub(super) async fn run(
    args: Args,
    mut config: Config,
    read: impl Fn() -> ImksResult<Config>,
) -> ImksResult<ExitCode> {
    let drain = config.drain;
    let manager = ServiceManager::of_process();
    let mut reloader = Reloader { used: Listing::of(&mut config), read, manager };
    // Before anything is said, because whoever reads it may send one.
    let (mut signals, mut others) = (Signals::new()?, OtherSignals::new()?);
    let mut input_ended = Box::pin(end_of(args.end_with_input.then(watch_input).transpose()?));
    raise_file_limit();
    let app = tokio::select! {
        app = Box::pin(App::start(config)) => app?,
        // Nobody is connected yet, and what was begun ends with the process.
        () = stopped_early(&mut signals, &mut input_ended) => {
            tracing::info!("stopped before the start was over");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if app.logs_json() {
        app.log_ready();
    } else {
        super::say(&app.greeting())?;
    }
    reloader.manager.ready();
    let ended = tokio::select! {
        ended = Box::pin(until_stopped(&app, &mut signals, &mut others, &mut reloader)) => ended?,
        () = &mut input_ended => Ended::BySignal,
    };
    reloader.manager.stopping(drain.delay + drain.deadline + CLOSING);
    tracing::info!(delay = ?drain.delay, deadline = ?drain.deadline, "draining; a second signal ends at once");
    tokio::select! {
        outcome = app.drain(drain) => outcome.map(|()| {
            tracing::info!("stopped");
            match ended {
                Ended::BySignal => ExitCode::SUCCESS,
                Ended::Broken => ExitCode::FAILURE,
            }
        }),
        () = signals.next() => {
            tracing::warn!("second signal: ending without a drain");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Waits until something says that a server which is starting shall not.
async fn stopped_early(signals: &mut Signals, input_ended: &mut (impl Future<Output = ()> + Unpin)) {
    tokio::select! {
        () = signals.next() => {}
        () = input_ended => {}
    }
}

/// Returns what is told when the standard input has ended. It is read on a thread of its own, for which the end of the
/// program does not wait.
fn watch_input() -> ImksResult<oneshot::Receiver<()>> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("input".into());
    let started = thread.spawn(move || {
        // An input that fails has ended as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = tell.send(());
    });
    started.map(|_| told).map_err(ImksError::io("watching the standard input"))
}

/// Waits until the standard input has ended, or for ever where nobody watches it.
async fn end_of(input: Option<oneshot::Receiver<()>>) {
    match input {
        Some(input) => drop(input.await),
        None => std::future::pending().await,
    }
}

/// Why a server stops.
enum Ended {
    BySignal,
    /// A task has panicked that the server cannot do without; what started the server should start it again.
    Broken,
}

/// Waits for a signal to stop, or until the server is broken. SIGHUP reloads the configuration. SIGUSR1 and SIGUSR2,
/// which other servers use to reopen their logs, change nothing.
async fn until_stopped<R>(
    app: &App,
    signals: &mut Signals,
    others: &mut OtherSignals,
    reloader: &mut Reloader<R>,
) -> ImksResult<Ended>
where
    R: Fn() -> ImksResult<Config>,
{
    let OtherSignals { hangup, first, second } = others;
    loop {
        tokio::select! {
            () = signals.next() => return Ok(Ended::BySignal),
            task = background::broken() => {
                tracing::error!(task, "the server ends: it cannot go on without this task");
                return Ok(Ended::Broken);
            }
            _ = first.recv() => tracing::info!("SIGUSR1 changes nothing: the log goes to standard error"),
            _ = second.recv() => tracing::info!("SIGUSR2 changes nothing"),
            _ = hangup.recv() => Box::pin(reloader.reload(app)).await,
        }
    }
}

/// The signals that stop nothing.
struct OtherSignals {
    hangup: Signal,
    first: Signal,
    second: Signal,
}

impl OtherSignals {
    fn new() -> ImksResult<Self> {
        let listen = |kind| signal(kind).map_err(ImksError::io("listening for signals"));
        let (first, second) = (listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?);
        Ok(Self { hangup: listen(SignalKind::hangup())?, first, second })
    }
}

/// Reads the configuration again, and tells what came of it.
struct Reloader<R> {
    /// The values in use.
    used: Listing,
    read: R,
    manager: ServiceManager,
}

impl<R: Fn() -> ImksResult<Config>> Reloader<R> {
    async fn reload(&mut self, app: &App) {
        self.manager.reloading();
        Box::pin(self.read_again(app)).await;
        self.manager.ready();
    }

    async fn read_again(&mut self, app: &App) {
        let mut config = match (self.read)() {
            Ok(config) => config,
            Err(error) => {
                RELOADS.of(Reload::Refused).increment();
                return tracing::error!(%error, "the configuration was not reloaded, the old one stays in use");
            }
        };
        let read = Listing::of(&mut config);
        let changes = Changes::between(&self.used, &read);
        if let Err(error) = app.reload(&config).await {
            RELOADS.of(Reload::Refused).increment();
            return tracing::error!(%error, "the configuration was reloaded only in part");
        }
        changes.apply(&mut self.used, &read);
        RELOADS.of(Reload::Taken).increment();
        let (in_use, after_restart) = (changes.in_use.join(","), changes.after_restart.join(","));
        tracing::info!(in_use, after_restart, "configuration reloaded");
    }
}

/// The signals to stop: SIGTERM (service managers), SIGINT (Ctrl-C) and, for tools, SIGHUP (the terminal is closed),
/// which have the same effect.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    pub(super) fn new() -> ImksResult<Self> {
        let listen = |kind| signal(kind).map_err(ImksError::io("listening for signals"));
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hangup: None })
    }

    /// Returns the signals for a tool that would leave something behind if its terminal ended it: a process, a database,
    /// a directory.
    #[cfg(feature = "tools")]
    pub(super) fn of_tool() -> ImksResult<Self> {
        let hangup = signal(SignalKind::hangup()).map_err(ImksError::io("listening for signals"))?;
        Ok(Self { hangup: Some(hangup), ..Self::new()? })
    }

    pub(super) async fn next(&mut self) {
        let Self { terminate, interrupt, hangup } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hung_up => {}
        }
    }
}

/// Raises the soft limit of open files to the hard limit. Every client needs a descriptor, and the usual soft
/// limit of a shell is 1024.
pub(super) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If the limit cannot be raised, the warning shows the old one.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_ok();
    let allowed = if raised { limit.maximum } else { limit.current };
    if let Some(allowed) = allowed.filter(|allowed| *allowed < FILES_WANTED) {
        tracing::warn!(
            allowed,
            "few open files are allowed, so few clients can connect; raise it with `ulimit -n`"
        );
    }
}

/// What a service manager grants beyond the deadline of the drain: the last tasks, the database and the last export of
/// metrics end after it.
const CLOSING: Duration = Duration::from_secs(15);
/// The limit of open files below which a warning is logged.
const FILES_WANTED: u64 = 4096;
