//! What a run does: the checked form of the options of `imks bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::Instant;

use crate::client::{Racing, TransportKind, Transports};
use crate::config::Setting;

/// What the clients of a run do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scenario {
    Echo,
    Broadcast,
    Rooms,
    Chat,
    Connect,
    /// What a file says.
    File(PathBuf),
}

impl Scenario {
    /// Reads the name of a scenario, or of a file.
    ///
    /// # Errors
    /// The sentence that says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let named = [Self::Echo, Self::Broadcast, Self::Rooms, Self::Chat, Self::Connect];
        let named = named.into_iter().find(|scenario| scenario.name() == text);
        let file = || text.ends_with(".toml").then(|| Self::File(text.into()));
        named.or_else(file).ok_or_else(|| {
            "write echo, broadcast, rooms, chat or connect, or a file whose name ends with .toml".into()
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Broadcast => "broadcast",
            Self::Rooms => "rooms",
            Self::Chat => "chat",
            Self::Connect => "connect",
            Self::File(_) => "file",
        }
    }
}

/// The transports that the clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// A WebSocket and nothing else
    Websocket,
    /// HTTP requests and nothing else
    Polling,
    /// Polling, from which a WebSocket takes over, as the stock client does
    Upgrade,
    /// WebTransport (QUIC and HTTP/3) and nothing else
    Webtransport,
    /// WebTransport or a WebSocket, whichever reaches the server first
    Racing,
    /// QUIC without HTTP/3, where imks listens for it (IMKS_QUIC_LISTEN), and nothing else
    Quic,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Polling => "polling",
            Self::Upgrade => "upgrade",
            Self::Webtransport => "webtransport",
            Self::Racing => "racing",
            Self::Quic => "quic",
        }
    }

    pub(crate) fn transports(self) -> Transports {
        match self {
            Self::Websocket => Transports::only(TransportKind::WebSocket),
            Self::Polling => Transports::only(TransportKind::Polling),
            Self::Upgrade => Transports::upgrade(),
            Self::Webtransport => Transports::only(TransportKind::WebTransport),
            // What measures does not measure the ways to the server beside it.
            Self::Racing => Transports::racing(Racing::default().interval(Duration::MAX)),
            Self::Quic => Transports::only(TransportKind::Quic),
        }
    }

    /// Whether clients may come over QUIC.
    pub(crate) fn has_quic(self) -> bool {
        matches!(self, Self::Webtransport | Self::Racing | Self::Quic)
    }
}

/// How much is sent, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    /// How many events each sender sends; `None` for as many as fit into the time.
    pub(crate) messages: Option<u64>,
    pub(crate) message_bytes: usize,
    /// Events per second of all senders together; `None` for as many as the window allows.
    pub(crate) rate: Option<f64>,
    /// How long events of a rate are due, from the start on; `None` if only their number ends them.
    pub(crate) time: Option<Duration>,
    /// How many events a sender may have under way.
    pub(crate) window: usize,
    /// How long an answer or a delivery may take.
    pub(crate) patience: Duration,
}

impl Plan {
    /// Whether a sender, as one of so many, that has sent `sent` events has more to send. What would be due when the time is
    /// over belongs to the next moment, which nobody measures.
    pub(crate) fn has_more(&self, sender: (usize, usize), sent: u64) -> bool {
        let is_due = |(rate, time)| after(rate, sender, sent) < time;
        self.messages.is_none_or(|messages| sent < messages) && self.rate.zip(self.time).is_none_or(is_due)
    }

    /// Returns when a sender's event number `sent`, from 0, is due; `None` for at once. The events of `senders` are
    /// spread evenly over the time.
    pub(crate) fn due(&self, start: Instant, sender: usize, senders: usize, sent: u64) -> Option<Instant> {
        Some(due(start, self.rate?, (sender, senders), sent))
    }

    /// Returns the text of an event: its number in twelve digits, filled up to the size of a message.
    pub(crate) fn text(&self, number: u64) -> String {
        let mut text = format!("{number:0NUMBER_DIGITS$}");
        let missing = self.message_bytes.saturating_sub(text.len());
        text.push_str(&"x".repeat(missing));
        text
    }
}

/// Returns when what a sender does is due, the first thing with `done` 0, if all `senders` together do `rate` things per
/// second. What is due later than anybody waits is due in a year: a rate that is too low is not one without a limit.
pub(super) fn due(start: Instant, rate: f64, sender: (usize, usize), done: u64) -> Instant {
    start + after(rate, sender, done)
}

/// Returns how long after the start something is due.
fn after(rate: f64, (sender, senders): (usize, usize), done: u64) -> Duration {
    let before = done as f64 * senders as f64 + sender as f64;
    Duration::try_from_secs_f64(before / rate).map_or(FAR, |after| after.min(FAR))
}

/// Whether this is the text of the event with a number, of this size.
pub(crate) fn is_text(text: &str, of: u64, bytes: usize) -> bool {
    let is_filled = || text.bytes().skip(NUMBER_DIGITS).all(|byte| byte == b'x');
    text.len() == bytes.max(NUMBER_DIGITS) && number(text) == Some(of) && is_filled()
}

/// Reads the number of an event from its text.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.get(..NUMBER_DIGITS)?.parse().ok()
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads a time on the command line.
///
/// # Errors
/// The sentence that says what is allowed.
pub(in crate::cli) fn time(text: &str) -> Result<Duration, String> {
    let time = Duration::parse(text)?;
    match time.is_zero() || time > TIME_MAX {
        true => Err(format!("write a time above 0, at most {}", TIME_MAX.show())),
        false => Ok(time),
    }
}

/// Splits a URL into its scheme, its host with the port, and the rest from the path on. What may be a user and a
/// password before the host is left out; `None` without a scheme and a host.
pub(crate) fn split(url: &str) -> Option<(&str, String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let default = if matches!(scheme, "https" | "wss") { 443 } else { 80 };
    let host = if has_port { authority.to_owned() } else { format!("{authority}:{default}") };
    (!authority.is_empty()).then_some((scheme, host, path))
}

/// The maximum number of clients of a run.
pub(super) const CLIENTS_MAX: u64 = 1_000_000;

/// The maximum number of events of each sender of a run.
pub(super) const EVENTS_MAX: u64 = 1_000_000_000;

/// The size of the largest text or binary in an event of a run, in bytes.
pub(super) const MESSAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The longest time on the command line of a tool that measures: 31 days.
const TIME_MAX: Duration = Duration::from_secs(2_678_400);

/// How long after the start something is due that nobody waits for: a year.
const FAR: Duration = Duration::from_secs(31_536_000);

const NUMBER_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan() -> Plan {
        Plan {
            clients: 4,
            messages: Some(3),
            message_bytes: 20,
            rate: Some(10.0),
            time: None,
            window: 1,
            patience: Duration::from_secs(10),
        }
    }

    #[test]
    fn senders_share_a_rate_evenly() {
        let start = Instant::now();
        let due = |sender, sent| (plan().due(start, sender, 4, sent).unwrap() - start).as_millis();
        assert_eq!([due(0, 0), due(1, 0), due(3, 0), due(0, 1), due(3, 2)], [0, 100, 300, 400, 1_100]);
        assert_eq!(Plan { rate: None, ..plan() }.due(start, 0, 4, 7), None);
    }

    #[test]
    fn a_rate_and_a_time_make_exactly_so_many_events() {
        for (rate, seconds, senders, events) in
            [(20.0, 3, 1, 60), (20.0, 3, 7, 60), (0.1, 5, 2, 1), (3.0, 2, 4, 6)]
        {
            let time = Some(Duration::from_secs(seconds));
            let plan = Plan { messages: None, rate: Some(rate), time, ..plan() };
            let sent = |sender| (0..1_000).take_while(|sent| plan.has_more((sender, senders), *sent)).count();
            assert_eq!((0..senders).map(sent).sum::<usize>(), events, "{rate} per second, {seconds} s");
        }
        assert!(plan().has_more((3, 4), 2) && !plan().has_more((0, 4), 3));
        let free = Plan { rate: None, messages: None, time: Some(Duration::ZERO), ..plan() };
        assert!(free.has_more((0, 1), 1_000), "without a rate only the clock ends it");
    }

    #[test]
    fn what_is_due_after_the_end_of_all_clocks_is_not_due_at_once() {
        let start = Instant::now();
        for rate in [f64::MIN_POSITIVE, 1e-18, 1e-9] {
            assert_eq!(due(start, rate, (1, 2), 0) - start, FAR, "{rate}");
            assert_eq!(due(start, rate, (0, 2), 0), start, "{rate}");
        }
        assert_eq!(due(start, f64::MAX, (1, 2), 1_000_000_000), start);
    }

    #[test]
    fn an_address_is_split_and_its_password_is_left_out() {
        assert_eq!(split("http://127.0.0.1:3000/x?y"), Some(("http", "127.0.0.1:3000".into(), "/x?y")));
        assert_eq!(split("https://a:b@chat.example"), Some(("https", "chat.example:443".into(), "")));
        assert_eq!(split("ws://[::1]"), Some(("ws", "[::1]:80".into(), "")));
        assert_eq!((split("chat.example"), split("http://")), (None, None));
    }

    #[test]
    fn a_time_is_above_zero_and_at_most_a_month() {
        assert_eq!((time("1ms"), time("744h")), (Ok(Duration::from_millis(1)), Ok(TIME_MAX)));
        assert!(["0s", "745h", "1", ""].into_iter().all(|text| time(text).is_err()));
    }

    #[test]
    fn this_machine_is_known_by_every_name_it_has() {
        assert!(["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"].into_iter().all(is_loopback));
        assert!(!["10.0.0.1", "localhost.example", "0.0.0.0", ""].into_iter().any(is_loopback));
    }

    proptest! {
        #[test]
        fn a_text_has_its_number_and_its_size(number in 0_u64..1_000_000_000_000, bytes in 0_usize..100) {
            let text = Plan { message_bytes: bytes, ..plan() }.text(number);
            prop_assert_eq!(text.len(), bytes.max(NUMBER_DIGITS));
            prop_assert_eq!(super::number(&text), Some(number));
            prop_assert!(is_text(&text, number, bytes) && !is_text(&text, number + 1, bytes));
        }

        #[test]
        fn no_text_from_a_server_panics(text in ".*") {
            let _ = (number(&text), split(&text), is_loopback(&text));
        }
    }
}
