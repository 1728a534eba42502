//! `imks bench`: measures a Socket.IO server, and counts what it loses, doubles or puts out of order.

pub(in crate::cli) mod chat;
mod connect;
mod crowd;
mod echo;
pub(in crate::cli) mod failure;
mod fanout;
pub(in crate::cli) mod histogram;
mod html;
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
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::crowd::{Crowd, Links};
use self::pacer::Pacer;
use self::plan::{Plan, Scenario, Transport};
use self::progress::Progress;
use self::relay::Relay;
use self::restarts::Restarts;
use self::run::{Meter, Outcome, Run};
use self::script::Script;
use self::summary::Summary;
use super::serve::{Signals, raise_file_limit};
use super::terminal::Trust;
use crate::client::Tls;
use crate::config::{Config, Setting};
use crate::{ImksError, ImksResult};

/// Options of `imks bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The server: http://, https://, ws:// or wss://, its host, and its path if that is not /socket.io/
    url: String,
    /// What the clients do: echo, broadcast, rooms, chat or connect as below, or what a file FILE.toml says
    #[arg(long, default_value = "echo", value_parser = Scenario::parse)]
    scenario: Scenario,
    /// What the file of the scenario says.
    #[arg(skip)]
    script: Option<Arc<Script>>,
    /// The number of clients [default: 10, or what the file of the scenario says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    clients: Option<u32>,
    /// Events of each sender [default: 100; without --duration and --rolling]
    #[arg(long)]
    messages: Option<u64>,
    /// Bytes of the text of an event [default: 1024]
    #[arg(long, value_name = "BYTES")]
    message_size: Option<usize>,
    /// Events per second of all senders together; without it, as many as --window allows. Latencies are counted
    /// from the moment at which an event is due
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// How long events are sent, for example 30s or 5m
    #[arg(long, value_parser = Duration::parse)]
    duration: Option<Duration>,
    #[arg(long, value_enum, default_value = "websocket")]
    transport: Transport,
    /// A file with certificates to trust too, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Trusts whatever certificate the server shows: for one that makes its own when it starts
    #[arg(long, conflicts_with = "ca")]
    danger_accept_invalid_certs: bool,
    /// Events that a sender may have under way; `chat` has one [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=WINDOW_MAX))]
    window: Option<u32>,
    /// Members of a room in the scenario `rooms` [default: 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    room_size: Option<u32>,
    #[arg(long, default_value = "/")]
    namespace: String,
    /// How long an answer or a delivery may take before it counts as lost
    #[arg(long = "timeout", value_name = "TIME", default_value = "10s", value_parser = Duration::parse)]
    patience: Duration,
    #[command(flatten)]
    tokens: tokens::Options,
    /// The channel of the scenario `chat`, by name or id [default: the first one of each user]
    #[arg(long)]
    channel: Option<String>,
    /// Cuts a tenth of the connections at random, each PERIOD (1s); http:// and ws:// only
    #[arg(long, value_name = "PERIOD", num_args = 0..=1, require_equals = true, default_missing_value = "1s",
          value_parser = Duration::parse)]
    chaos: Option<Duration>,
    /// Goes on until Ctrl-C or --duration while servers are restarted, says who is away, and proves in the end that
    /// nothing acknowledged was lost; with the scenario `chat`
    #[arg(long)]
    rolling: bool,
    /// Writes a report with drawings
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Prints one JSON document
    #[arg(long, conflicts_with = "prometheus")]
    json: bool,
    /// Prints the Prometheus text format
    #[arg(long)]
    prometheus: bool,
    /// Does not ask before more than 10,000 connections to another machine
    #[arg(long)]
    yes: bool,
}

/// Measures, and prints the findings.
///
/// # Errors
/// `InvalidInput` for options that cannot work together; `Io` if the server cannot be reached.
pub(super) async fn run(mut args: Args, config: &Config) -> ImksResult<ExitCode> {
    args.check()?;
    if let Scenario::File(file) = &args.scenario {
        args.script = Some(Arc::new(Script::read(file)?));
    }
    if let Some(host) = args.asks_about()? {
        confirm(&host)?;
    }
    let mut signals = Signals::new()?;
    raise_file_limit();
    let progress = Progress::new();
    progress.line(&args.first_line());
    let tokens = args.tokens.read(args.clients(), config).await?;
    let tls = args.tls()?;
    let relay = match args.chaos {
        Some(_) => Some(Relay::start(args.target()?.1).await?),
        None => None,
    };
    let url = relay.as_ref().map_or(Ok(args.url.clone()), |relay| args.url_through(relay))?;
    let run = Arc::new(args.start(url, tls, tokens, progress)?);
    let chaos = relay.as_ref().zip(args.chaos);
    let (outcome, is_interrupted) = tokio::select! {
        ended = Box::pin(watch(&args, &run, &mut signals)) => ended?,
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

/// Runs the scenario and shows how far it is. Ctrl-C ends the sending, and a second one everything.
async fn watch(args: &Args, run: &Arc<Run>, signals: &mut Signals) -> ImksResult<(Outcome, bool)> {
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
            () = signals.next() => {
                if is_interrupted {
                    return Err(ImksError::Timeout("ended by a second Ctrl-C, without a summary"));
                }
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
    fn check(&self) -> ImksResult<()> {
        let (scheme, _) = self.target()?;
        let refuse = |field: &'static str, reason: &str| Err(ImksError::invalid(field, reason));
        let is_chat = self.scenario == Scenario::Chat;
        if self.rolling && !is_chat {
            return refuse(
                "--rolling",
                "only a server that stores messages can be asked for them: use --scenario chat",
            );
        }
        self.check_file()?;
        if is_chat && self.window() > 1 {
            return refuse("--window", "in `chat` each message waits for the one before: use more --clients");
        }
        if is_chat && self.namespace != "/" {
            return refuse("--namespace", "imks has its messages in /");
        }
        if is_chat && self.tokens.is_empty() {
            return refuse("--token", "`chat` needs tokens: --token, --token-file, or --development");
        }
        if self.chaos.is_some() && !matches!(scheme.as_str(), "http" | "ws") {
            return refuse(
                "--chaos",
                "the relay that cuts connections does not know TLS: use http:// or ws://",
            );
        }
        if self.chaos.is_some() && self.transport.has_quic() {
            return refuse("--chaos", "the relay that cuts connections carries no datagrams: use websocket");
        }
        if self.patience.is_zero() {
            return refuse("--timeout", "nothing can be answered in no time");
        }
        Ok(())
    }

    /// Refuses options in whose place a scenario from a file has something of its own.
    fn check_file(&self) -> ImksResult<()> {
        if !matches!(self.scenario, Scenario::File(_)) {
            return Ok(());
        }
        let given = [
            ("--messages", self.messages.is_some()),
            ("--message-size", self.message_size.is_some()),
            ("--rate", self.rate.is_some()),
            ("--duration", self.duration.is_some()),
            ("--window", self.window.is_some()),
            ("--room-size", self.room_size.is_some()),
            ("--channel", self.channel.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(ImksError::invalid(option, "the file of the scenario says that")),
            None => Ok(()),
        }
    }

    fn clients(&self) -> usize {
        let of_file = self.script.as_ref().map(|script| script.clients);
        self.clients.or(of_file).unwrap_or(CLIENTS_DEFAULT) as usize
    }

    fn message_size(&self) -> usize {
        self.message_size.unwrap_or(MESSAGE_BYTES_DEFAULT)
    }

    fn window(&self) -> usize {
        self.window.unwrap_or(1) as usize
    }

    fn tls(&self) -> ImksResult<Tls> {
        match self.danger_accept_invalid_certs {
            true => Ok(Tls::new().danger_accept_invalid_certs()),
            false => Trust::read(self.ca.as_deref())?.tls(),
        }
    }

    /// Returns the other machine that would get very many connections, if nobody has said yes to that.
    fn asks_about(&self) -> ImksResult<Option<String>> {
        let (_, host) = self.target()?;
        let connections = match self.scenario {
            Scenario::Connect => {
                self.messages().map(|messages| messages.saturating_mul(self.clients() as u64))
            }
            _ => Some(self.clients() as u64),
        };
        let is_many = connections.is_none_or(|connections| connections > UNASKED_MAX);
        let name = host.rsplit_once(':').map_or(&*host, |(name, _)| name);
        Ok((is_many && !plan::is_loopback(name) && !self.yes).then_some(host))
    }

    /// Returns the scheme, and the host with its port.
    fn target(&self) -> ImksResult<(String, String)> {
        let split =
            plan::split(&self.url).filter(|(scheme, ..)| matches!(*scheme, "http" | "https" | "ws" | "wss"));
        let wrong = || ImksError::invalid("URL", "write http://, https://, ws:// or wss://, and a host");
        split.map(|(scheme, host, _)| (scheme.to_owned(), host)).ok_or_else(wrong)
    }

    fn url_through(&self, relay: &Relay) -> ImksResult<String> {
        let (scheme, _) = self.target()?;
        let path = plan::split(&self.url).map(|(.., path)| path).unwrap_or_default();
        Ok(format!("{scheme}://{}{path}", relay.address()))
    }

    /// Returns how many events each sender sends: as many as fit, if the time is limited in another way.
    fn messages(&self) -> Option<u64> {
        self.messages.or((self.duration.is_none() && !self.rolling).then_some(MESSAGES_DEFAULT))
    }

    fn first_line(&self) -> String {
        let (scenario, place, transport) = (self.scenario.name(), self.place(), self.transport.name());
        let clients = self.clients();
        if let (Scenario::File(file), Some(script)) = (&self.scenario, &self.script) {
            let (file, phases) = (file.display(), script.phases.len());
            return format!("imks bench: {file} on {place}, {clients} clients, {phases} phases, {transport}");
        }
        let messages =
            self.messages().map_or("messages".into(), |messages| format!("{messages} messages each"));
        let time = self.duration.map(|time| format!(" for {}", time.show())).unwrap_or_default();
        let bytes = self.message_size();
        format!(
            "imks bench: {scenario} on {place}, {clients} clients, {messages} of {bytes} bytes{time}, {transport}"
        )
    }

    /// Returns the server without what may be secret in its address.
    fn place(&self) -> String {
        let split = plan::split(&self.url);
        split.map_or(String::new(), |(scheme, host, path)| {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        })
    }

    fn unit(&self) -> &'static str {
        match self.scenario {
            Scenario::Echo | Scenario::File(_) => "answers",
            Scenario::Broadcast | Scenario::Rooms => "deliveries",
            Scenario::Chat => "messages",
            Scenario::Connect => "connections",
        }
    }

    fn start(&self, url: String, tls: Tls, tokens: Vec<String>, progress: Progress) -> ImksResult<Run> {
        let plan = Plan {
            clients: self.clients(),
            messages: self.messages(),
            message_bytes: self.message_size(),
            rate: self.rate,
            window: self.window(),
            patience: self.patience,
        };
        let (transport, namespace) = (self.transport, self.namespace.clone());
        let crowd = Crowd { url, transport, tls, namespace, tokens, links: Arc::new(Links::default()) };
        let (meter, tasks, stop) = (Meter::default(), TaskTracker::new(), CancellationToken::new());
        let (pacer, duration) = (Pacer::start()?, self.duration);
        Ok(Run { plan, duration, crowd, meter, pacer, progress, tasks, stop })
    }

    async fn scenario(&self, run: &Arc<Run>) -> ImksResult<Outcome> {
        match self.scenario {
            Scenario::Echo => Box::pin(echo::run(run)).await,
            Scenario::Broadcast => Box::pin(rooms::run(run, self.clients())).await,
            Scenario::Rooms => {
                let size = self.room_size.unwrap_or(ROOM_SIZE_DEFAULT) as usize;
                Box::pin(rooms::run(run, size)).await
            }
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
            message_bytes: self.message_size(),
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

    /// Prints the findings before it writes the report: a file that cannot be written takes nothing away.
    fn print(&self, summary: &Summary) -> ImksResult<()> {
        super::say(&match () {
            () if self.json => serde_json::to_string(summary)?,
            () if self.prometheus => summary.prometheus(),
            () => summary.text(),
        })?;
        let Some(file) = &self.report else { return Ok(()) };
        let writing = std::fs::write(file, html::page(summary));
        writing.map_err(ImksError::io(format!("writing {}", file.display())))
    }
}

/// Asks a person whether so many connections are meant.
fn confirm(host: &str) -> ImksResult<()> {
    let refused = || {
        let reason =
            format!("more than {UNASKED_MAX} connections to {host} need --yes: they can look like an attack");
        Err(ImksError::invalid("--clients", reason))
    };
    if !std::io::stdin().is_terminal() {
        return refused();
    }
    super::hint(&format!(
        "More than {UNASKED_MAX} connections to {host} can look like an attack. Is it yours? [y/N]"
    ));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(ImksError::io("reading the answer"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { refused() }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "write a number of events per second above 0".into())
}

const AFTER_HELP: &str = "\
Scenarios, and what the server must do:
  echo       Each client sends `echo` with a text and waits for the ack:
             socket.on(\"echo\", (text, ack) => ack(text))
  broadcast  One room with everybody in it, one sender. The server acks `join(room, ack)`, and on `broadcast(room, text)`
             it emits `msg(text)` to the room, the sender included
  rooms      Rooms of --room-size clients, each with one sender; the server does as for `broadcast`
  chat       Messages in a channel of imks, stored and acknowledged, and read back in the end; needs tokens
  connect    Connects, joins the namespace and closes, --messages times for each client
  FILE.toml  Phases, rates, pauses and steps of your own: docs/tools.md, examples/bench.toml

Exit codes: 0 nothing was lost, doubled, out of order or wrong; 1 could not run; 2 invalid command line; 3 faults \
were found, or nothing was answered; 78 invalid configuration; 130 ended before anything was answered. Ctrl-C ends \
the sending and prints what was found so far. Progress goes to standard error. docs/tools.md describes the output.";

/// The exit code for a run that found faults.
const EXIT_FAULTS: u8 = 3;

/// The exit code for a run that was ended before it found anything: that of a process that SIGINT ends.
const EXIT_INTERRUPTED: u8 = 130;

/// The number of clients if neither the command line nor a file says it.
const CLIENTS_DEFAULT: u32 = 10;

/// The size of the text of an event in bytes if nobody says it.
const MESSAGE_BYTES_DEFAULT: usize = 1_024;

/// The members of a room if nobody says it.
const ROOM_SIZE_DEFAULT: u32 = 10;

/// Events of each sender if neither their number nor the time is given.
const MESSAGES_DEFAULT: u64 = 100;

/// The maximum number of connections to another machine that needs no confirmation.
const UNASKED_MAX: u64 = 10_000;

/// The maximum number of events that one sender may have under way.
const WINDOW_MAX: i64 = 1_024;

/// One of so many connections is cut at a time.
const CHAOS_PART: usize = 10;

/// How often the status is shown.
const TICK: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn check(line: &[&str]) -> Result<(), String> {
        let words = ["bench"].iter().chain(line);
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        parsed.args.check().map_err(|error| error.to_string())
    }

    #[test]
    fn options_that_cannot_work_are_refused_with_what_to_do() {
        assert_eq!(check(&["http://127.0.0.1:3000"]), Ok(()));
        for (line, word) in [
            (&["chat.example"][..], "http://"),
            (&["http://x", "--rolling"], "--scenario chat"),
            (&["http://x", "--scenario", "chat"], "--development"),
            (&["http://x", "--scenario", "chat", "--token", "t", "--window", "2"], "--clients"),
            (&["https://x", "--chaos"], "TLS"),
            (&["http://x", "--chaos", "--transport", "webtransport"], "datagrams"),
            (&["http://x", "--scenario", "a.toml", "--rate", "5"], "--rate"),
            (&["http://x", "--scenario", "dance"], ".toml"),
            (&["http://x", "--rate", "0"], "above 0"),
            (&["http://x", "--clients", "0"], "--clients"),
            (&["http://x", "--timeout", "0s"], "no time"),
        ] {
            let error = check(line).unwrap_err();
            assert!(error.contains(word), "{line:?}: {error}");
        }
    }

    #[test]
    fn many_connections_to_another_machine_need_a_word_and_to_this_one_they_do_not() {
        let asks = |line: &[&str]| {
            let words = ["bench"].iter().chain(line);
            Line::try_parse_from(words).unwrap().args.asks_about().unwrap()
        };
        let many = "--clients=10001";
        assert_eq!(asks(&["http://chat.example", many]).as_deref(), Some("chat.example:80"));
        assert_eq!(asks(&["http://chat.example", many, "--yes"]), None);
        assert_eq!(asks(&["http://localhost:3000", many]), None);
        assert_eq!(asks(&["http://chat.example", "--clients=10000"]), None);
        let connecting = ["http://chat.example", "--scenario=connect", "--clients=101", "--messages=100"];
        assert!(asks(&connecting).is_some(), "one after the other, but as many");
    }

    #[test]
    fn what_may_be_secret_in_an_address_is_not_shown() {
        let line = Line::try_parse_from(["bench", "http://me:secret@host/io/?token=secret"]).unwrap();
        assert_eq!(line.args.place(), "http://host:80/io/");
        assert!(!line.args.first_line().contains("secret"));
    }
}
