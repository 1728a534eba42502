//! Numbers about a client: what it sent and received, how its transports did, how long answers take.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::budget::Used;
use super::event::{ClientEvent, TransportKind};
use super::transport::Attempt;

/// What a client has done since it was built.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The transport that carries the connection now, if there is one.
    pub transport: Option<TransportKind>,
    /// How often it has connected, and connected again.
    pub connects: u64,
    /// How often its session began together with the handshake of its transport (0-RTT).
    pub early_connects: u64,
    /// How often a connection has ended.
    pub disconnects: u64,
    /// How often a namespace was joined again without anything missed.
    pub recoveries: u64,
    /// Packets handed to a transport.
    pub packets_sent: u64,
    /// Packets that came from a transport.
    pub packets_received: u64,
    /// Bytes of the packets that were sent, before a transport wraps them.
    pub bytes_sent: u64,
    /// Bytes of the messages that were received, after a transport has unwrapped them.
    pub bytes_received: u64,
    /// Events handed to the application.
    pub events_received: u64,
    /// Heartbeats of the server that were answered.
    pub heartbeats: u64,
    /// Events of the outbox that were acknowledged.
    pub messages_sent: u64,
    /// Events of the outbox that were given up.
    pub messages_failed: u64,
    /// Failures that no caller waits for.
    pub errors: u64,
    /// The time from an event to its answer, if one has come.
    pub rtt: Option<Rtt>,
    /// How each transport did.
    pub transports: BTreeMap<TransportKind, TransportStats>,
    /// What waits to be sent.
    pub waiting: Used,
}

/// The time from an event to its answer, over the last 128 answers.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Rtt {
    /// The last one.
    pub last: Duration,
    /// The time within which half of the answers came.
    pub p50: Duration,
    /// The time within which 95 of 100 answers came.
    pub p95: Duration,
}

/// How a transport did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct TransportStats {
    /// Attempts to open it.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub successes: u64,
    /// How long the last success took, from the look-up of the name to the handshake.
    pub connect_time: Option<Duration>,
}

impl TransportStats {
    /// Returns the part of attempts that succeeded, or `None` if there was none.
    pub fn success_rate(&self) -> Option<f64> {
        (self.attempts > 0).then(|| self.successes as f64 / self.attempts as f64)
    }
}

/// Numbers that are still counted.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    stats: Stats,
    rtts: Times,
}

/// Times to answers, of which the last ones are remembered.
#[derive(Debug, Default)]
pub(crate) struct Times(VecDeque<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        if self.0.len() == RTTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(time);
    }

    /// Returns what they say, if there is one.
    pub(crate) fn rtt(&self) -> Option<Rtt> {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = |part: usize| sorted.get((sorted.len() * part).div_ceil(100).saturating_sub(1)).copied();
        Some(Rtt { last: *self.0.back()?, p50: at(50)?, p95: at(95)? })
    }
}

impl Counting {
    /// Returns the numbers so far.
    pub(crate) fn stats(&self, waiting: Used) -> Stats {
        let rtt = self.rtts.rtt();
        Stats { rtt, waiting, ..self.stats.clone() }
    }

    /// Returns the transport that carries the connection now, if there is one.
    pub(crate) fn transport(&self) -> Option<TransportKind> {
        self.stats.transport
    }

    pub(crate) fn attempt(&mut self, attempt: &Attempt) {
        let stats = self.stats.transports.entry(attempt.transport).or_default();
        stats.attempts += 1;
        if attempt.has_succeeded() {
            stats.successes += 1;
            stats.connect_time = Some(attempt.took);
        }
    }

    pub(crate) fn early(&mut self) {
        self.stats.early_connects += 1;
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += bytes as u64;
    }

    pub(crate) fn received(&mut self, bytes: usize) {
        self.stats.packets_received += 1;
        self.stats.bytes_received += bytes as u64;
    }

    pub(crate) fn delivered(&mut self) {
        self.stats.events_received += 1;
    }

    /// Counts the time to an answer, and returns the transport that carried it.
    pub(crate) fn rtt(&mut self, rtt: Duration) -> Option<TransportKind> {
        self.rtts.push(rtt);
        self.stats.transport
    }

    pub(crate) fn event(&mut self, event: &ClientEvent) {
        let stats = &mut self.stats;
        match event {
            ClientEvent::Connected { transport }
            | ClientEvent::Reconnected { transport }
            | ClientEvent::TransportSwitched { transport } => stats.transport = Some(*transport),
            ClientEvent::Disconnected { .. } => stats.transport = None,
            _ => {}
        }
        let counter = match event {
            ClientEvent::Connected { .. } | ClientEvent::Reconnected { .. } => &mut stats.connects,
            ClientEvent::Disconnected { .. } => &mut stats.disconnects,
            ClientEvent::Joined { recovered: true, .. } => &mut stats.recoveries,
            ClientEvent::MessageSent { .. } => &mut stats.messages_sent,
            ClientEvent::MessageFailed { .. } => &mut stats.messages_failed,
            ClientEvent::Heartbeat { .. } => &mut stats.heartbeats,
            ClientEvent::Error(_) => &mut stats.errors,
            _ => return,
        };
        *counter += 1;
    }
}

/// The number of times from an event to its answer that are remembered.
const RTTS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_answers_are_of_the_last_ones_only() {
        let mut counting = Counting::default();
        assert_eq!(counting.stats(Used::default()).rtt, None);
        let times = std::iter::repeat_n(Duration::from_secs(9), 1_000);
        for time in times.chain((1..=128).map(Duration::from_millis)) {
            counting.rtt(time);
        }
        let rtt = counting.stats(Used::default()).rtt.unwrap();
        assert_eq!([rtt.last, rtt.p50, rtt.p95].map(|time| time.as_millis()), [128, 64, 122]);
    }

    #[test]
    fn the_part_of_attempts_that_succeeded_is_known_after_the_first() {
        let mut counting = Counting::default();
        for has_succeeded in [true, false, false, true] {
            let took = Duration::from_millis(7);
            let reached = has_succeeded.then_some(took);
            counting.attempt(&Attempt { transport: TransportKind::Polling, took, reached });
        }
        let stats = counting.stats(Used::default()).transports[&TransportKind::Polling];
        assert_eq!((stats.success_rate(), stats.connect_time), (Some(0.5), Some(Duration::from_millis(7))));
        assert_eq!(TransportStats::default().success_rate(), None);
    }
}
