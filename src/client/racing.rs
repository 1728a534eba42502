//! Which transport of a race is the best, from how all of them did: scores, and when a better one becomes the favourite.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::event::TransportKind;
use super::stats::{Rtt, Times};

/// A race between transports at every attempt to connect. It is one of ways to the server, not of sessions: only the
/// winner begins a session.
///
/// The winner of the last race is the favourite, which gets a head start in the next one. While the client is connected,
/// all transports are measured now and then, and another one becomes the favourite where its score is better by a fifth
/// twice in a row. Then the connection changes to it, if the server restores sessions: nothing is lost, doubled or out of
/// order. Otherwise the next attempt to connect begins with it.
///
/// The score is `weight × success rate ÷ (connect time + round trip)`, where the round trip is the time within which
/// 95 of 100 answers came.
#[derive(Debug, Clone, PartialEq)]
pub struct Racing {
    between: Vec<(TransportKind, f64)>,
    timeout: Duration,
    head_start: Duration,
    interval: Duration,
    probes: usize,
    has_fallback: bool,
    switches_without_recovery: bool,
}

impl Default for Racing {
    /// WebTransport with the weight 0.7 and a WebSocket with 0.3, and polling where both fail.
    fn default() -> Self {
        Self {
            between: vec![(TransportKind::WebTransport, 0.7), (TransportKind::WebSocket, 0.3)],
            timeout: Duration::from_secs(3),
            head_start: Duration::from_millis(250),
            interval: Duration::from_secs(60),
            probes: 5,
            has_fallback: true,
            switches_without_recovery: false,
        }
    }
}

impl Racing {
    /// Sets the weight of a transport in its score, and lets it take part if it did not, as [`TransportKind::Quic`] does
    /// not by itself. With 0 it does not take part.
    #[must_use]
    pub fn weight(mut self, transport: TransportKind, weight: f64) -> Self {
        self.between.retain(|(other, _)| *other != transport);
        // A weight that is not a number would win and lose against everything.
        if weight > 0.0 {
            self.between.push((transport, weight));
        }
        self
    }

    /// Sets how long a transport may take to reach the server. The default is 3 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how much earlier the favourite begins. The default is 250 ms.
    #[must_use]
    pub fn head_start(mut self, head_start: Duration) -> Self {
        self.head_start = head_start;
        self
    }

    /// Sets the time between two measurements of all transports while the client is connected, which each client varies
    /// by a quarter, at least 100 ms. A measurement connects and hangs up. The default is a minute; `Duration::MAX` means
    /// never.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(INTERVAL_MIN);
        self
    }

    /// Sets how many of the last attempts and measurements count for the score, at least one. The default is 5.
    #[must_use]
    pub fn probes(mut self, probes: usize) -> Self {
        self.probes = probes.clamp(1, PROBES_MAX);
        self
    }

    /// Fails where no transport of the race can connect, instead of using polling.
    #[must_use]
    pub fn without_fallback(mut self) -> Self {
        self.has_fallback = false;
        self
    }

    /// Changes to a better transport also where the server has not shown that it restores sessions. Whatever it sends
    /// between the two transports is lost then, rooms have to be joined again, and `Joined { recovered: false, .. }` says
    /// so: for applications that ask for what they have missed, as with `sync` of imks.
    #[must_use]
    pub fn switch_without_recovery(mut self) -> Self {
        self.switches_without_recovery = true;
        self
    }

    pub(crate) fn switches_without_recovery(&self) -> bool {
        self.switches_without_recovery
    }

    /// Returns the transports that take part, the one with the highest weight first.
    pub(crate) fn between(&self) -> Vec<TransportKind> {
        let mut between = self.between.clone();
        between.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        between.into_iter().map(|(transport, _)| transport).collect()
    }

    pub(crate) fn has_fallback(&self) -> bool {
        self.has_fallback
    }

    pub(crate) fn reach_timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the pause before the next measurement. `random` is a number from 0 to 1.
    pub(crate) fn pause(&self, random: f64) -> Duration {
        let varied = self.interval.as_secs_f64() * (0.75 + random / 2.0);
        Duration::try_from_secs_f64(varied).unwrap_or(Duration::MAX)
    }

    fn weight_of(&self, transport: TransportKind) -> f64 {
        self.between.iter().find(|(other, _)| *other == transport).map_or(0.0, |(_, weight)| *weight)
    }
}

/// How a transport of a race has done lately.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ProtocolMetrics {
    /// The part of the last attempts and measurements that succeeded, from 0 to 1.
    pub success_rate: f64,
    /// The median of the times that it took to reach the server, if it was reached.
    pub connect_time: Option<Duration>,
    /// The time from an event to its answer while this transport carried the connection, if one has come.
    pub rtt: Option<Rtt>,
    /// The score of [`Racing`]: the higher, the better.
    pub score: f64,
}

/// The memory of a client that lets transports race.
#[derive(Debug)]
pub(crate) struct Racer {
    racing: Racing,
    tracks: BTreeMap<TransportKind, Track>,
    favourite: Option<TransportKind>,
    /// A transport with a better score than the favourite, and how often in a row it had.
    challenger: Option<(TransportKind, u32)>,
}

/// What is remembered of one transport.
#[derive(Debug, Default)]
struct Track {
    /// How long each of the last attempts took, or that it failed.
    attempts: VecDeque<Option<Duration>>,
    rtts: Times,
}

impl Racer {
    pub(crate) fn new(racing: Racing) -> Self {
        Self { racing, tracks: BTreeMap::new(), favourite: None, challenger: None }
    }

    /// Remembers an attempt: how long it took to reach the server, or that it failed.
    pub(crate) fn attempt(&mut self, transport: TransportKind, took: Option<Duration>) {
        let probes = self.racing.probes;
        let attempts = &mut self.tracks.entry(transport).or_default().attempts;
        attempts.push_back(took);
        while attempts.len() > probes {
            attempts.pop_front();
        }
    }

    /// Remembers the time from an event to its answer.
    pub(crate) fn rtt(&mut self, transport: TransportKind, rtt: Duration) {
        self.tracks.entry(transport).or_default().rtts.push(rtt);
    }

    /// Remembers the winner of a race, which is the favourite of the next one. What carries a session has been tried
    /// harder than by any measurement.
    pub(crate) fn won(&mut self, transport: TransportKind) {
        if self.racing.weight_of(transport) > 0.0 {
            self.favourite = Some(transport);
            self.challenger = None;
        }
    }

    /// Compares the scores after a round of measurements. Another transport becomes the favourite if its score is better
    /// by a fifth twice in a row.
    pub(crate) fn judge(&mut self) {
        let Some(favourite) = self.favourite else { return };
        let bar = self.score(favourite).unwrap_or(0.0) * LEAD;
        let others = self.racing.between().into_iter().filter(|other| *other != favourite);
        let scored = others.filter_map(|other| Some((other, self.score(other)?)));
        let best =
            scored.filter(|(_, score)| *score > bar).max_by(|(_, one), (_, other)| one.total_cmp(other));
        self.challenger = match (best, self.challenger) {
            (Some((best, _)), Some((known, times))) if best == known => Some((best, times + 1)),
            (Some((best, _)), _) => Some((best, 1)),
            (None, _) => None,
        };
        if let Some((best, LEADS)) = self.challenger {
            (self.favourite, self.challenger) = (Some(best), None);
        }
    }

    /// Returns the transports in the order in which they begin, and the head start of each before the next.
    pub(crate) fn line_up(&self) -> (Vec<TransportKind>, Duration) {
        let mut between = self.racing.between();
        let Some(favourite) = self.favourite else { return (between, Duration::ZERO) };
        between.sort_by_key(|transport| *transport != favourite);
        (between, self.racing.head_start)
    }

    /// Returns the favourite, if a race was won.
    pub(crate) fn favourite(&self) -> Option<TransportKind> {
        self.favourite
    }

    /// Whether the last attempt of a transport has succeeded, or `None` if there was none.
    pub(crate) fn is_available(&self, transport: TransportKind) -> Option<bool> {
        self.tracks.get(&transport)?.attempts.back().map(Option::is_some)
    }

    /// Returns how all transports did of which there was an attempt.
    pub(crate) fn metrics(&self) -> BTreeMap<TransportKind, ProtocolMetrics> {
        let metrics = |transport| {
            let track = self.tracks.get(&transport)?;
            Some(ProtocolMetrics {
                success_rate: track.success_rate()?,
                connect_time: track.connect_time(),
                rtt: track.rtts.rtt(),
                score: self.score(transport)?,
            })
        };
        self.tracks.keys().filter_map(|transport| Some((*transport, metrics(*transport)?))).collect()
    }

    fn score(&self, transport: TransportKind) -> Option<f64> {
        let track = self.tracks.get(&transport)?;
        let success_rate = track.success_rate()?;
        let Some(connect_time) = track.connect_time() else { return Some(0.0) };
        // Answers are measured on one transport at a time. What is not known of this one is taken from another.
        let known = std::iter::once(track).chain(self.tracks.values()).find_map(|track| track.rtts.rtt());
        let time = connect_time + known.map_or(Duration::ZERO, |rtt| rtt.p95);
        Some(self.racing.weight_of(transport) * success_rate / time.max(TIME_MIN).as_secs_f64())
    }
}

impl Track {
    fn success_rate(&self) -> Option<f64> {
        let successes = self.attempts.iter().flatten().count();
        (!self.attempts.is_empty()).then(|| successes as f64 / self.attempts.len() as f64)
    }

    fn connect_time(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.attempts.iter().flatten().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }
}

/// How much better than that of the favourite a score must be.
const LEAD: f64 = 1.2;

/// How often in a row it must be better.
const LEADS: u32 = 2;

/// Times below this one are equal: a network that near has no better transport.
const TIME_MIN: Duration = Duration::from_millis(1);

/// The shortest time between two measurements: each costs the server a handshake.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The maximum number of attempts of a transport that are remembered.
const PROBES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUIC: TransportKind = TransportKind::WebTransport;
    const WS: TransportKind = TransportKind::WebSocket;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// What can happen to a racer.
    #[derive(Debug, Clone)]
    enum Step {
        Attempt(TransportKind, Option<u64>),
        Rtt(TransportKind, u64),
        Won(TransportKind),
        Judge,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let kind = || prop_oneof![Just(QUIC), Just(WS)];
        let step = prop_oneof![
            (kind(), proptest::option::of(0u64..3_000)).prop_map(|(kind, took)| Step::Attempt(kind, took)),
            (kind(), 0u64..3_000).prop_map(|(kind, rtt)| Step::Rtt(kind, rtt)),
            kind().prop_map(Step::Won),
            Just(Step::Judge),
        ];
        proptest::collection::vec(step, 0..60)
    }

    fn take(racer: &mut Racer, step: &Step) {
        match *step {
            Step::Attempt(kind, took) => racer.attempt(kind, took.map(millis)),
            Step::Rtt(kind, rtt) => racer.rtt(kind, millis(rtt)),
            Step::Won(kind) => racer.won(kind),
            Step::Judge => racer.judge(),
        }
    }

    proptest! {
        #[test]
        fn the_favourite_changes_only_by_a_race_or_by_two_judgements_that_agree(steps in steps()) {
            let mut racer = Racer::new(Racing::default());
            let mut leads = 0;
            for step in &steps {
                let before = racer.favourite();
                let other = before.map(|favourite| if favourite == QUIC { WS } else { QUIC });
                let leads_now = before.zip(other).is_some_and(|(favourite, other)| {
                    racer.score(other).is_some_and(|score| score > racer.score(favourite).unwrap_or(0.0) * 1.2)
                });
                take(&mut racer, step);
                match step {
                    Step::Won(kind) => {
                        leads = 0;
                        prop_assert_eq!(racer.favourite(), Some(*kind));
                    }
                    Step::Judge => {
                        leads = if leads_now { leads + 1 } else { 0 };
                        let changes = leads == 2;
                        prop_assert_eq!(racer.favourite(), if changes { other } else { before });
                        leads %= 2;
                    }
                    Step::Attempt(..) | Step::Rtt(..) => prop_assert_eq!(racer.favourite(), before),
                }
            }
        }

        #[test]
        fn all_take_part_in_every_race_and_the_favourite_begins(steps in steps()) {
            let mut racer = Racer::new(Racing::default());
            steps.iter().for_each(|step| take(&mut racer, step));
            let (mut order, head_start) = racer.line_up();
            prop_assert!(racer.favourite().is_none_or(|favourite| order[0] == favourite));
            prop_assert_eq!(head_start.is_zero(), racer.favourite().is_none());
            order.sort();
            prop_assert_eq!(order, [WS, QUIC]);
        }

        #[test]
        fn scores_are_numbers_and_what_is_remembered_is_bounded(steps in steps()) {
            let mut racer = Racer::new(Racing::default());
            steps.iter().for_each(|step| take(&mut racer, step));
            for (kind, metrics) in racer.metrics() {
                prop_assert!(metrics.score.is_finite() && metrics.score >= 0.0);
                prop_assert!((0.0..=1.0).contains(&metrics.success_rate));
                prop_assert!(racer.tracks[&kind].attempts.len() <= 5);
                prop_assert_eq!(racer.is_available(kind) == Some(false) && metrics.success_rate == 1.0, false);
            }
        }

        #[test]
        fn a_quicker_success_never_lowers_a_score(times in proptest::collection::vec(1u64..3_000, 1..6)) {
            let score = |times: &[u64]| {
                let mut racer = Racer::new(Racing::default());
                times.iter().for_each(|time| racer.attempt(QUIC, Some(millis(*time))));
                racer.score(QUIC).unwrap()
            };
            let halved: Vec<u64> = times.iter().map(|time| time / 2).collect();
            prop_assert!(score(&halved) >= score(&times));
        }
    }

    #[test]
    fn a_transport_that_is_blocked_loses_its_place_after_two_measurements() {
        let mut racer = Racer::new(Racing::default());
        racer.attempt(QUIC, Some(millis(20)));
        racer.won(QUIC);
        for round in 0..2 {
            assert_eq!(racer.favourite(), Some(QUIC), "{round}");
            (0..5).for_each(|_| racer.attempt(QUIC, None));
            racer.attempt(WS, Some(millis(500)));
            racer.judge();
        }
        assert_eq!((racer.favourite(), racer.is_available(QUIC)), (Some(WS), Some(false)));
        assert_eq!(racer.line_up(), (vec![WS, QUIC], millis(250)));
    }

    #[test]
    fn the_weight_decides_between_equals_and_the_time_between_unequals() {
        for (websocket, favourite) in [(100, QUIC), (60, QUIC), (20, WS)] {
            let mut racer = Racer::new(Racing::default());
            racer.attempt(QUIC, Some(millis(100)));
            racer.attempt(WS, Some(millis(websocket)));
            racer.won(if favourite == QUIC { WS } else { QUIC });
            (0..2).for_each(|_| racer.judge());
            assert_eq!(racer.favourite(), Some(favourite), "{websocket}");
        }
    }

    #[test]
    fn answers_on_one_transport_count_for_the_other_until_it_has_its_own() {
        let mut racer = Racer::new(Racing::default());
        racer.attempt(QUIC, Some(millis(100)));
        racer.attempt(WS, Some(millis(100)));
        racer.rtt(WS, millis(900));
        let ratio = |racer: &Racer| racer.score(QUIC).unwrap() / racer.score(WS).unwrap();
        assert!((ratio(&racer) - 0.7 / 0.3).abs() < 1e-9);
        racer.rtt(QUIC, millis(100));
        assert!((ratio(&racer) - 5.0 * 0.7 / 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_weight_that_is_none_takes_no_part() {
        for weight in [0.0, -1.0, f64::NAN] {
            assert_eq!(Racing::default().weight(QUIC, weight).between(), [WS], "{weight}");
        }
        assert_eq!(Racing::default().weight(WS, 0.9).between(), [WS, QUIC]);
    }

    #[test]
    fn measurements_of_many_clients_are_spread_and_may_be_turned_off() {
        let racing = Racing::default();
        assert_eq!([racing.pause(0.0), racing.pause(1.0)].map(|it| it.as_secs()), [45, 75]);
        assert_eq!(racing.clone().interval(Duration::MAX).pause(1.0), Duration::MAX);
        assert_eq!(racing.interval(Duration::ZERO).pause(0.0).as_millis(), 75);
    }
}
