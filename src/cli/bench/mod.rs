//! `imks bench`: measures a Socket.IO server, and counts what it loses, doubles or puts out of order.

mod args;
pub(in crate::cli) mod chat;
mod connect;
mod crowd;
mod echo;
pub(in crate::cli) mod failure;
mod fanout;
mod file;
pub(in crate::cli) mod histogram;
mod html;
mod interrupts;
mod numbers;
mod pacer;
mod phase;
pub(in crate::cli) mod picture;
pub(in crate::cli) mod plan;
pub(in crate::cli) mod progress;
pub(in crate::cli) mod relay;
mod restarts;
mod rooms;
mod run;
mod script;
mod summary;
mod timeline;
mod tokens;

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::args::Args;
use self::crowd::{Crowd, Links};
use self::pacer::Pacer;
use self::plan::{Plan, Scenario};
use self::progress::Progress;
use self::relay::Relay;
use self::restarts::Restarts;
use self::run::{Meter, Outcome, Run};
use self::script::Script;
use self::summary::Summary;
use super::serve::raise_file_limit;
use super::terminal::EXIT_INTERRUPTED;
use crate::client::Tls;
use crate::config::Config;
use crate::{ImksError, ImksResult};

/// Measures, and prints the findings.
///
/// # Errors
/// `Config` for an address, a scenario or a file with tokens that cannot be used; `Io` if the server cannot be reached.
pub(super) async fn run(mut args: Args, config: &Config) -> ImksResult<ExitCode> {
    if let Err(error) = args.check() {
        return super::misused(error);
    }
    if let Scenario::File(file) = &args.scenario {
        args.script = Some(Arc::new(Script::read(file)?));
    }
    args.confirm()?;
    args.check_report()?;
    let asked = interrupts::listen().await?;
    raise_file_limit();
    let progress = Progress::new();
    progress.line(&args.first_line());
    let tokens = args.tokens.read(args.clients(), config).await?;
    let tls = args.tls()?;
    let relay = match args.chaos {
        Some(_) => Some(Relay::start(args.target()?).await?),
        None => None,
    };
    let url = relay.as_ref().map_or_else(|| args.url().to_owned(), |relay| args.url_through(relay));
    let run = Arc::new(args.start(url, tls, tokens, progress)?);
    let chaos = relay.as_ref().zip(args.chaos);
    let (outcome, is_interrupted) = tokio::select! {
        ended = Box::pin(watch(&args, &run, &asked)) => ended?,
        never = cut(chaos, &run.stop) => match never {},
    };
    run.progress.clear();
    let cuts = relay.as_ref().map_or(0, Relay::cuts);
    let summary = args.summary(&run, outcome, cuts, is_interrupted);
    args.print(&summary)?;
    Ok(match (summary.is_clean(), summary.ended_too_early()) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(EXIT_INTERRUPTED),
        (false, false) => ExitCode::from(EXIT_FAULTS),
    })
}

/// Runs the scenario and shows how far it is, and ends the sending when `asked` is cancelled.
async fn watch(args: &Args, run: &Arc<Run>, asked: &CancellationToken) -> ImksResult<(Outcome, bool)> {
    let mut scenario = Box::pin(args.scenario(run));
    let mut tick = tokio::time::interval(TICK);
    let (mut is_interrupted, mut restarts) = (false, Restarts::default());
    loop {
        tokio::select! {
            outcome = &mut scenario => {
                let mut outcome = outcome?;
                outcome.notes.extend(args.rolling.then(|| restarts.note()));
                return Ok((outcome, is_interrupted));
            }
            () = asked.cancelled(), if !is_interrupted => {
                is_interrupted = true;
                run.progress.line("ending: what is under way is still waited for; Ctrl-C again ends at once");
                run.stop.cancel();
            }
            _ = tick.tick() => {
                let away = run.crowd.links.away();
                if let Some(line) = restarts.see(away).filter(|_| args.rolling) {
                    run.progress.line(&line);
                }
                let away = if away > 0 { format!(", {away} away") } else { String::new() };
                run.progress.status(&format!("{}{away}", run.meter.status(args.unit())));
            }
        }
    }
}

/// Cuts connections until the run sends no more. It never ends by itself.
async fn cut(chaos: Option<(&Relay, Duration)>, stop: &CancellationToken) -> Infallible {
    if let Some((relay, period)) = chaos {
        let mut tick = tokio::time::interval(period.max(TICK));
        // The first tick is at once.
        tick.tick().await;
        while !stop.is_cancelled() {
            tick.tick().await;
            relay.cut_some(CHAOS_PART);
        }
    }
    std::future::pending().await
}

impl Args {
    fn start(&self, url: String, tls: Tls, tokens: Vec<String>, progress: Progress) -> ImksResult<Run> {
        let plan = Plan {
            clients: self.clients(),
            messages: self.messages(),
            message_bytes: self.message_size(),
            rate: self.rate,
            time: self.duration.map(|duration| duration + self.warm_up.unwrap_or_default()),
            window: self.window(),
            patience: self.patience,
        };
        let (transport, quic_port) = (self.transport, self.quic_port);
        let (namespace, links) = (self.namespace.clone(), Arc::new(Links::default()));
        let crowd = Crowd { url, transport, quic_port, tls, namespace, tokens, links };
        let (meter, tasks, stop) = (Meter::default(), TaskTracker::new(), CancellationToken::new());
        let (pacer, duration) = (Pacer::start()?, self.duration);
        let warm_up = self.warm_up.unwrap_or_default();
        Ok(Run { plan, duration, warm_up, crowd, meter, pacer, progress, tasks, stop })
    }

    async fn scenario(&self, run: &Arc<Run>) -> ImksResult<Outcome> {
        match self.scenario {
            Scenario::Echo => Box::pin(echo::run(run)).await,
            Scenario::Broadcast => Box::pin(rooms::run(run, self.clients())).await,
            Scenario::Rooms => Box::pin(rooms::run(run, self.room_size())).await,
            Scenario::Chat => Box::pin(chat::run(run, self.channel.as_deref())).await,
            Scenario::Connect => Box::pin(connect::run(run)).await,
            Scenario::File(_) => {
                let unread = || ImksError::Config("the file of the scenario was not read".into());
                Box::pin(script::player::run(run, self.script.as_ref().ok_or_else(unread)?)).await
            }
        }
    }

    fn summary(&self, run: &Run, outcome: Outcome, cuts: u64, is_interrupted: bool) -> Summary {
        let ((sent, completed), seconds) = (run.meter.counts(), run.meter.time().as_secs_f64());
        let sent = outcome.sent.unwrap_or(sent);
        let (latency_ms, timeline) = run.meter.latencies();
        let mut faults = outcome.faults;
        faults.failed = run.crowd.links.failed();
        let mut notes = outcome.notes;
        if self.chaos.is_some() && cuts == 0 {
            notes.push("no connection was cut: the run was shorter than the period of --chaos".into());
        }
        Summary {
            version: env!("CARGO_PKG_VERSION"),
            url: self.place(),
            scenario: self.scenario.name(),
            transport: self.transport.name(),
            clients: self.clients(),
            message_bytes: self.has_one_size().then(|| self.message_size()),
            seconds,
            is_interrupted,
            sent,
            completed,
            unit: self.unit(),
            per_second: if seconds > 0.0 { completed as f64 / seconds } else { 0.0 },
            latency_ms,
            delivery_ms: outcome.delivery_ms,
            faults,
            connections: run.crowd.links.connections(cuts),
            phases: outcome.phases,
            timeline,
            notes,
        }
    }

    /// Creates the file of the report: that it cannot be written is told before the run and not after it.
    fn check_report(&self) -> ImksResult<()> {
        let Some(file) = &self.report else { return Ok(()) };
        // What is there from an earlier run stays until there is something new.
        let opened = OpenOptions::new().append(true).create(true).open(file);
        opened.map(drop).map_err(ImksError::io(format!("writing the report {}", file.display())))
    }

    /// Prints the findings before it writes the report: a file that cannot be written takes nothing away.
    fn print(&self, summary: &Summary) -> ImksResult<()> {
        super::say(&match () {
            () if self.json => serde_json::to_string(summary)?,
            () if self.prometheus => summary.prometheus(),
            () => summary.text(),
        })?;
        let Some(file) = &self.report else { return Ok(()) };
        let writing = std::fs::write(file, html::page(summary));
        writing.map_err(ImksError::io(format!("writing the report {}", file.display())))
    }
}

/// The exit code for a run that found faults.
const EXIT_FAULTS: u8 = 3;

/// One of so many connections is cut at a time.
const CHAOS_PART: usize = 10;

/// How often the status is shown.
const TICK: Duration = Duration::from_millis(200);
