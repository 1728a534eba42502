//! The options of `imks bench`, and what they mean for a run.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::plan::{self, CLIENTS_MAX, EVENTS_MAX, MESSAGE_BYTES_MAX, Scenario, Transport};
use super::relay::Relay;
use super::script::Script;
use super::tokens;
use crate::cli::terminal::text::counted;
use crate::cli::terminal::{Trust, without_secrets};
use crate::client::{Address, Tls};
use crate::config::Setting;
use crate::{ImksError, ImksResult};

/// Options of `imks bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct Args {
    /// The server: http://, https://, ws:// or wss://, its host, and its path if that is not /socket.io/
    url: String,
    /// What the clients do: echo, broadcast, rooms, chat or connect as below, or what a file FILE.toml says
    #[arg(long, default_value = "echo", value_parser = Scenario::parse)]
    pub(super) scenario: Scenario,
    /// What the file of the scenario says.
    #[arg(skip)]
    pub(super) script: Option<Arc<Script>>,
    /// The number of clients [default: 10, or what the file of the scenario says]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    clients: Option<u64>,
    /// Events of each sender [default: 100; without --duration and --rolling]
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=EVENTS_MAX))]
    messages: Option<u64>,
    /// Bytes of the text of an event, up to 16 MiB [default: 1024]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=MESSAGE_BYTES_MAX))]
    message_size: Option<u64>,
    /// Events per second of all senders together; without it, as many as --window allows. Latencies are counted
    /// from the moment at which an event is due
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// How long events are sent, for example 30s or 5m
    #[arg(long, value_parser = plan::time)]
    pub(super) duration: Option<Duration>,
    /// How long events are sent before anything is measured: --duration begins after it
    #[arg(long, value_name = "TIME", requires = "duration", value_parser = plan::time)]
    pub(super) warm_up: Option<Duration>,
    #[arg(long, value_enum, default_value = "websocket")]
    pub(super) transport: Transport,
    /// The UDP port of --transport quic, if it is not that of the address
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) quic_port: Option<u16>,
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
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    room_size: Option<u64>,
    #[arg(long, default_value = "/")]
    pub(super) namespace: String,
    /// How long an answer or a delivery may take before it counts as lost
    #[arg(long = "timeout", value_name = "TIME", default_value = "10s", value_parser = plan::time)]
    pub(super) patience: Duration,
    #[command(flatten)]
    pub(super) tokens: tokens::Options,
    /// The channel of the scenario `chat`, by name or id [default: the first one of each user]
    #[arg(long)]
    pub(super) channel: Option<String>,
    /// Cuts a tenth of the connections at random, each PERIOD (1s); http:// and ws:// only
    #[arg(long, value_name = "PERIOD", num_args = 0..=1, require_equals = true, default_missing_value = "1s",
          value_parser = plan::time)]
    pub(super) chaos: Option<Duration>,
    /// Goes on until Ctrl-C or --duration while servers are restarted, says who is away, and proves in the end that
    /// nothing acknowledged was lost; with the scenario `chat`
    #[arg(long)]
    pub(super) rolling: bool,
    /// Writes a report with drawings
    #[arg(long, value_name = "FILE.html")]
    pub(super) report: Option<PathBuf>,
    /// Prints one JSON document
    #[arg(long, conflicts_with = "prometheus")]
    pub(super) json: bool,
    /// Prints the Prometheus text format
    #[arg(long)]
    pub(super) prometheus: bool,
    /// Does not ask before more than 10,000 connections to another machine
    #[arg(long)]
    yes: bool,
}

impl Args {
    /// Checks what the options mean together.
    ///
    /// # Errors
    /// [`ImksError::Config`] for an address that cannot be used; [`ImksError::InvalidInput`] for options that cannot work
    /// together.
    pub(super) fn check(&self) -> ImksResult<()> {
        let address = self.address()?;
        self.check_file()?;
        self.check_chat()?;
        self.check_way(&address)
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
            ("--warm-up", self.warm_up.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(ImksError::invalid(option, "the file of the scenario says that")),
            None => Ok(()),
        }
    }

    /// Refuses what the scenario `chat` cannot do, and what no other one can.
    fn check_chat(&self) -> ImksResult<()> {
        let refuse = |field: &'static str, reason: &str| Err(ImksError::invalid(field, reason));
        let is_chat = self.scenario == Scenario::Chat;
        if self.rolling && !is_chat {
            return refuse(
                "--rolling",
                "only a server that stores messages can be asked for them: use --scenario chat",
            );
        }
        if is_chat && self.window() > 1 {
            return refuse("--window", "in `chat` each message waits for the one before: use more --clients");
        }
        if is_chat && self.warm_up.is_some() {
            return refuse("--warm-up", "in `chat` everything that is acknowledged counts");
        }
        if is_chat && self.namespace != "/" {
            return refuse("--namespace", "imks has its messages in /");
        }
        if is_chat && self.tokens.is_empty() {
            return refuse("--token", "`chat` needs tokens: --token, --token-file, or --development");
        }
        Ok(())
    }

    /// Refuses what does not go together on the way to the server.
    fn check_way(&self, address: &Address) -> ImksResult<()> {
        let refuse = |field: &'static str, reason: &str| Err(ImksError::invalid(field, reason));
        if self.chaos.is_some() && address.is_secure {
            return refuse(
                "--chaos",
                "the relay that cuts connections does not know TLS: use http:// or ws://",
            );
        }
        if self.chaos.is_some() && self.transport.has_quic() {
            return refuse("--chaos", "the relay that cuts connections carries no datagrams: use websocket");
        }
        if self.quic_port.is_some() && self.transport != Transport::Quic {
            return refuse("--quic-port", "only --transport quic has a port of its own");
        }
        Ok(())
    }

    /// Returns the address of the server. What may be secret in one that cannot be used is not in the error.
    fn address(&self) -> ImksResult<Address> {
        Address::parse(&self.url).map_err(|_| {
            let shown = without_secrets(&self.url);
            ImksError::Config(format!(
                "the address {shown:?} cannot be used: write http://, https://, ws:// or wss://, then a host and, \
                 if need be, a port up to 65535, without a user"
            ))
        })
    }

    /// Returns the number of clients.
    pub(super) fn clients(&self) -> usize {
        let of_file = self.script.as_ref().map(|script| u64::from(script.clients));
        number(self.clients.or(of_file).unwrap_or(CLIENTS_DEFAULT))
    }

    /// Returns the size of the text of an event.
    pub(super) fn message_size(&self) -> usize {
        number(self.message_size.unwrap_or(MESSAGE_BYTES_DEFAULT))
    }

    /// Whether all events of a run have one size: nothing is sent by `connect`, and a file says the size of each.
    pub(super) fn has_one_size(&self) -> bool {
        !matches!(self.scenario, Scenario::Connect | Scenario::File(_))
    }

    /// Returns how many events a sender may have under way.
    pub(super) fn window(&self) -> usize {
        self.window.unwrap_or(1) as usize
    }

    /// Returns the members of a room in the scenario `rooms`.
    pub(super) fn room_size(&self) -> usize {
        number(self.room_size.unwrap_or(ROOM_SIZE_DEFAULT))
    }

    /// Returns which servers are trusted.
    ///
    /// # Errors
    /// Those of [`Trust`].
    pub(super) fn tls(&self) -> ImksResult<Tls> {
        match self.danger_accept_invalid_certs {
            true => Ok(Tls::new().danger_accept_invalid_certs()),
            false => Trust::read(self.ca.as_deref())?.tls(),
        }
    }

    /// Asks a person whether very many connections to another machine are meant, unless somebody has said yes.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] without a yes.
    pub(super) fn confirm(&self) -> ImksResult<()> {
        match self.asks_about()? {
            Some(host) => confirm(&host),
            None => Ok(()),
        }
    }

    /// Returns the other machine that would get very many connections, if nobody has said yes to that.
    fn asks_about(&self) -> ImksResult<Option<String>> {
        let address = self.address()?;
        let connections = match self.scenario {
            Scenario::Connect => {
                self.messages().map(|messages| messages.saturating_mul(self.clients() as u64))
            }
            _ => Some(self.clients() as u64),
        };
        let is_many = connections.is_none_or(|connections| connections > UNASKED_MAX);
        let is_asked = is_many && !plan::is_loopback(&address.host) && !self.yes;
        is_asked.then(|| self.target()).transpose()
    }

    /// Returns the host with its port.
    ///
    /// # Errors
    /// [`ImksError::Config`] for an address that cannot be used.
    pub(super) fn target(&self) -> ImksResult<String> {
        let Address { host, port, .. } = self.address()?;
        Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }

    /// Returns the address as it was given.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the address of the server behind a relay, which passes no TLS.
    pub(super) fn url_through(&self, relay: &Relay) -> String {
        let path = plan::split(&self.url).map(|(.., path)| path).unwrap_or_default();
        format!("http://{}{path}", relay.address())
    }

    /// Returns how many events each sender sends: as many as fit, if the time is limited in another way.
    pub(super) fn messages(&self) -> Option<u64> {
        self.messages.or((self.duration.is_none() && !self.rolling).then_some(MESSAGES_DEFAULT))
    }

    /// Returns the line that says what is done.
    pub(super) fn first_line(&self) -> String {
        let (scenario, place, transport) = (self.scenario.name(), self.place(), self.transport.name());
        let clients = counted(self.clients() as u64, "client", "clients");
        if let (Scenario::File(file), Some(script)) = (&self.scenario, &self.script) {
            let phases = counted(script.phases.len() as u64, "phase", "phases");
            return format!("imks bench: {} on {place}, {clients}, {phases}, {transport}", file.display());
        }
        let (one, several) = match self.scenario {
            Scenario::Connect => ("connection", "connections"),
            _ => ("message", "messages"),
        };
        let messages = self.messages();
        let messages =
            messages.map_or(several.into(), |count| format!("{} each", counted(count, one, several)));
        let warm_up = self.warm_up.map(|time| format!(" after {}", time.show())).unwrap_or_default();
        let time = self.duration.map(|time| format!(" for {}{warm_up}", time.show())).unwrap_or_default();
        let bytes = match self.has_one_size() {
            true => format!(" of {}", counted(self.message_size() as u64, "byte", "bytes")),
            false => String::new(),
        };
        format!("imks bench: {scenario} on {place}, {clients}, {messages}{bytes}{time}, {transport}")
    }

    /// Returns the server without what may be secret in its address.
    pub(super) fn place(&self) -> String {
        let split = plan::split(&self.url);
        split.map_or(String::new(), |(scheme, host, path)| {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        })
    }

    /// Returns what is counted.
    pub(super) fn unit(&self) -> &'static str {
        match self.scenario {
            Scenario::Echo | Scenario::File(_) => "answers",
            Scenario::Broadcast | Scenario::Rooms => "deliveries",
            Scenario::Chat => "messages",
            Scenario::Connect => "connections",
        }
    }
}

/// Returns a number whose bound is far below what this machine can count.
fn number(bounded: u64) -> usize {
    usize::try_from(bounded).unwrap_or(usize::MAX)
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
    crate::cli::hint(&format!(
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
were found, or nothing was answered; 78 invalid configuration, or an address or a file that cannot be used; 130 \
ended before anything was answered. Ctrl-C ends the sending and prints what was found so far. Progress goes to \
standard error. docs/tools.md describes the output.";

/// The number of clients if neither the command line nor a file says it.
const CLIENTS_DEFAULT: u64 = 10;

/// The size of the text of an event in bytes if nobody says it.
const MESSAGE_BYTES_DEFAULT: u64 = 1_024;

/// The members of a room if nobody says it.
const ROOM_SIZE_DEFAULT: u64 = 10;

/// Events of each sender if neither their number nor the time is given.
const MESSAGES_DEFAULT: u64 = 100;

/// The maximum number of connections to another machine that needs no confirmation.
const UNASKED_MAX: u64 = 10_000;

/// The maximum number of events that one sender may have under way.
const WINDOW_MAX: i64 = 1_024;

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
            (&["ftp://x"], "http://"),
            (&["http://127.0.0.1:99999"], "65535"),
            (&["http://u:p@x"], "without a user"),
            (&["http://x", "--rolling"], "--scenario chat"),
            (&["http://x", "--scenario", "chat"], "--development"),
            (&["http://x", "--scenario", "chat", "--token", "t", "--window", "2"], "--clients"),
            (&["https://x", "--chaos"], "TLS"),
            (&["http://x", "--chaos", "--transport", "webtransport"], "datagrams"),
            (&["http://x", "--scenario", "a.toml", "--rate", "5"], "--rate"),
            (&["http://x", "--scenario", "dance"], ".toml"),
            (&["http://x", "--rate", "0"], "above 0"),
            (&["http://x", "--clients", "0"], "--clients"),
            (&["http://x", "--clients", "1000001"], "1000000"),
            (&["http://x", "--room-size", "0"], "--room-size"),
            (&["http://x", "--messages", "1000000001"], "1000000000"),
            (&["http://x", "--message-size", "0"], "--message-size"),
            (&["http://x", "--message-size", "99999999999"], "16777216"),
            (&["http://x", "--timeout", "0s"], "above 0"),
            (&["http://x", "--duration", "0s"], "above 0"),
            (&["http://x", "--duration", "1000h"], "at most 744h"),
            (&["http://x", "--chaos=0s"], "above 0"),
            (&["http://x", "--chaos", "--transport", "quic"], "datagrams"),
            (&["http://x", "--quic-port", "4433"], "--transport quic"),
            (&["http://x", "--transport", "quic", "--quic-port", "0"], "--quic-port"),
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
        let most = ["--scenario=connect", "--clients=1000000", "--messages=1000000000"];
        assert!(
            asks(&[&["http://chat.example"][..], &most].concat()).is_some(),
            "as many as can be asked for"
        );
    }

    #[test]
    fn the_most_that_can_be_asked_for_is_taken() {
        let most = ["http://x", "--clients=1000000", "--messages=1000000000", "--message-size=16777216"];
        assert_eq!(check(&most), Ok(()));
        assert_eq!(check(&["http://x", "--duration=744h", "--timeout=1ms"]), Ok(()));
        assert_eq!(check(&["https://[::1]:3000/io/", "--transport=quic", "--quic-port=4433"]), Ok(()));
    }

    #[test]
    fn the_first_line_says_what_is_done_and_no_size_where_nothing_is_sent() {
        let line =
            |words: &[&str]| Line::try_parse_from(["bench"].iter().chain(words)).unwrap().args.first_line();
        let echo = line(&["http://a:1", "--duration=30s", "--messages=5"]);
        assert_eq!(
            echo,
            "imks bench: echo on http://a:1, 10 clients, 5 messages each of 1024 bytes for 30s, websocket"
        );
        let least = line(&["http://a:1", "--clients=1", "--messages=1", "--message-size=1"]);
        assert_eq!(least, "imks bench: echo on http://a:1, 1 client, 1 message each of 1 byte, websocket");
        let connect = line(&["http://a:1", "--scenario=connect"]);
        assert_eq!(connect, "imks bench: connect on http://a:1, 10 clients, 100 connections each, websocket");
    }

    #[test]
    fn what_may_be_secret_in_an_address_is_not_shown() {
        let line = Line::try_parse_from(["bench", "http://me:secret@host/io/?token=secret"]).unwrap();
        assert_eq!(line.args.place(), "http://host:80/io/");
        assert!(!line.args.first_line().contains("secret"));
        for address in ["http://me:secret@host", "me:secret@host", "ftp://host?token=secret"] {
            let told = check(&[address]).unwrap_err();
            assert!(told.contains("host") && !told.contains("secret"), "{told}");
        }
    }
}
