//! The state machine of one Engine.IO session: open, heartbeat, upgrade, close. It does no I/O and has no
//! clock: packets and time are passed to `handle_*`, and the resulting actions are returned by
//! [`Session::poll_output`]. After any `handle_*`, the caller must drain `poll_output` until it is empty.
//! Messages are separate, in `poll_message`: they may wait while the layer above is busy, but actions may
//! not.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::config::Timing;
use crate::engine::heartbeat::{Beat, Heartbeat};
use crate::engine::packet::PROBE;
use crate::engine::{Close, CloseReason, Message, Packet, Transport};

/// The wire that a packet or event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// The wire that carries the session.
    Current,
    /// A WebSocket or WebTransport stream that wants to take over from polling.
    Candidate,
}

/// An action that the caller has to perform.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send a ping on the current wire.
    Ping,
    /// Answer a ping on the current wire (version 3).
    Pong,
    /// Answer the probe on the candidate.
    PongProbe,
    /// Make the candidate the current wire.
    Switch,
    /// Refuse the candidate. The session stays on its current wire.
    DropCandidate,
    /// End the session. This is the last output, and is returned once.
    Closed(CloseReason),
}

/// The state of one session.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    transport: Transport,
    upgrade: Option<Box<Upgrade>>,
    /// Whether the client may wait for an answer: it is new, or has sent messages since its last payload.
    unanswered: bool,
    heartbeat: Heartbeat,
    timing: Arc<Timing>,
    outputs: VecDeque<Output>,
    messages: VecDeque<Message>,
    /// The total size of `messages` in bytes.
    message_bytes: usize,
    /// The time from the last ping to its pong in microseconds; 0 if it was taken, or is not known.
    rtt_micros: u32,
}

#[derive(Debug)]
enum State {
    Open,
    /// The session closes once everything queued has been sent, or at the deadline.
    Closing {
        reason: CloseReason,
        deadline: Instant,
    },
    Closed,
}

#[derive(Debug)]
struct Upgrade {
    to: Transport,
    probe: Probe,
    /// The probe is answered, or the poll that waits is ended, at this time. A client starts the POSTs of its
    /// handlers together with its next poll, so one may still arrive, and the answers to its packets belong
    /// in that poll.
    hold: Instant,
    deadline: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Probe {
    Expected,
    /// The probe is answered right before the next payload, which then is the last one, or when the client has
    /// been silent for a while.
    Received,
    /// The probe was answered. A poll that crossed the answer is held.
    Answered,
    /// The probe was answered, and a poll that waits ends with a noop.
    Released,
}

impl Session {
    pub(crate) fn new(transport: Transport, timing: Arc<Timing>, now: Instant) -> Self {
        Self {
            state: State::Open,
            transport,
            upgrade: None,
            unanswered: true,
            heartbeat: Heartbeat::new(timing.clone(), now),
            timing,
            outputs: VecDeque::new(),
            messages: VecDeque::new(),
            message_bytes: 0,
            rtt_micros: 0,
        }
    }

    /// Creates the session of an Engine.IO v3 client.
    pub(crate) fn legacy(transport: Transport, timing: Arc<Timing>, now: Instant) -> Self {
        let heartbeat = Heartbeat::passive(timing.clone(), now);
        Self { heartbeat, ..Self::new(transport, timing, now) }
    }

    /// Handles a received packet.
    pub(crate) fn handle_packet(&mut self, wire: Wire, packet: Packet, now: Instant) {
        match (&self.state, wire) {
            (State::Closed, _) => {}
            (_, Wire::Current) => self.handle_current(packet, now),
            (_, Wire::Candidate) => self.handle_candidate(packet, now),
        }
    }

    /// Handles another wire that wants to take over. `poll_waits` tells whether a poll waits for a payload.
    /// Returns whether the wire may try.
    pub(crate) fn handle_attach(&mut self, to: Transport, poll_waits: bool, now: Instant) -> bool {
        let allowed = !self.is_closed() && self.transport == Transport::Polling && self.upgrade.is_none();
        if allowed {
            // What the client sent with a poll that waits arrives before the probe, which is a round trip away.
            let hold = if poll_waits && !self.unanswered { now } else { now + HOLD };
            let deadline = self.heartbeat.read_by().max(now) + self.timing.upgrade_timeout;
            self.upgrade = Some(Box::new(Upgrade { to, probe: Probe::Expected, hold, deadline }));
        }
        allowed
    }

    /// Handles a poll that arrived. The POST of a handler that ran before it may arrive later.
    pub(crate) fn handle_poll(&mut self, now: Instant) {
        self.hold_poll(now);
    }

    /// Handles a payload that is about to be sent. Returns whether the probe must be answered before it: a
    /// client that has the answer does not poll again.
    pub(crate) fn handle_payload(&mut self, now: Instant) -> bool {
        self.unanswered = false;
        // The client has to read it before it polls again.
        self.hold_poll(now + HOLD);
        let received = self.upgrade.as_mut().filter(|upgrade| upgrade.probe == Probe::Received);
        received.map(|upgrade| upgrade.probe = Probe::Answered).is_some()
    }

    /// Handles a wire that ended, or whose peer violated the protocol.
    pub(crate) fn handle_lost(&mut self, wire: Wire, reason: CloseReason) {
        match wire {
            Wire::Current => self.close(reason),
            Wire::Candidate if self.upgrade.take().is_some() => self.output(Output::DropCandidate),
            Wire::Candidate => {}
        }
    }

    /// Handles a close by the holder.
    pub(crate) fn handle_close(&mut self, close: Close, now: Instant) {
        let reason = match close {
            Close::Now => return self.close(CloseReason::ForcedClose),
            Close::Graceful => CloseReason::ForcedClose,
            Close::Shutdown => CloseReason::ServerShutdown,
        };
        if matches!(self.state, State::Open) {
            self.state = State::Closing { reason, deadline: now + self.timing.close_timeout };
        }
    }

    /// Handles that all queued packets have been sent on the current wire.
    pub(crate) fn handle_drained(&mut self) {
        if let State::Closing { reason, .. } = self.state
            && self.upgrade.is_none()
        {
            self.close(reason);
        }
    }

    /// Handles the deadlines that have passed at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Closed => return,
            State::Closing { reason, deadline } if now >= deadline => return self.close(reason),
            _ => {}
        }
        if self.upgrade.as_ref().is_some_and(|upgrade| now >= upgrade.deadline) {
            self.upgrade = None;
            self.output(Output::DropCandidate);
        }
        self.release_poll(now);
        match self.heartbeat.handle_timeout(now) {
            Some(Beat::Ping) => self.output(Output::Ping),
            Some(Beat::Timeout) => self.close(CloseReason::PingTimeout),
            None => {}
        }
    }

    /// Handles a slow peer that accepts data again, and has read it by `read_by`.
    pub(crate) fn handle_progress(&mut self, read_by: Instant) {
        self.heartbeat.handle_progress(read_by);
        // A client ends its last poll before it changes to the other wire.
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.deadline = upgrade.deadline.max(read_by + self.timing.upgrade_timeout);
        }
    }

    /// Handles whether the holder reads. The peer is not blamed for what the holder does not read.
    pub(crate) fn handle_reading(&mut self, reading: bool, now: Instant) {
        if reading {
            self.heartbeat.resume(now);
        } else {
            self.heartbeat.suspend();
        }
    }

    /// Returns the next action.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && self.outputs.capacity() > 0 {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Returns the next message for the layer above. Messages wait here until they are taken; those that
    /// arrived before the end are still returned after it.
    pub(crate) fn poll_message(&mut self) -> Option<Message> {
        let message = self.messages.pop_front();
        self.message_bytes -= message.as_ref().map_or(0, Message::len);
        if self.messages.is_empty() && self.messages.capacity() > 0 {
            self.messages = VecDeque::new();
        }
        message
    }

    /// Returns the number of messages that wait for the layer above.
    pub(crate) fn queued_messages(&self) -> usize {
        self.messages.len()
    }

    /// Returns the total size in bytes of the messages that wait for the layer above.
    pub(crate) fn queued_message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Returns the latest time at which [`Session::handle_timeout`] must be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let closing = match self.state {
            State::Open => None,
            State::Closing { deadline, .. } => Some(deadline),
            State::Closed => return None,
        };
        let upgrade = self.upgrade.as_ref().map(|upgrade| match upgrade.probe {
            Probe::Received | Probe::Answered => upgrade.hold.min(upgrade.deadline),
            Probe::Expected | Probe::Released => upgrade.deadline,
        });
        [self.heartbeat.poll_timeout(), upgrade, closing].into_iter().flatten().min()
    }

    /// Returns the time from a ping to its pong in microseconds, once for each that was measured.
    pub(crate) fn poll_rtt(&mut self) -> Option<NonZeroU32> {
        NonZeroU32::new(std::mem::take(&mut self.rtt_micros))
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub(crate) fn is_upgrading(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Whether a poll must be answered now, because another wire is about to take over.
    pub(crate) fn is_poll_released(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.probe == Probe::Released)
    }

    fn handle_current(&mut self, packet: Packet, now: Instant) {
        match packet {
            Packet::Message(message) => {
                self.heartbeat.handle_other(now);
                self.unanswered = true;
                self.hold_poll(now);
                if matches!(self.state, State::Open) {
                    self.message_bytes += message.len();
                    self.messages.push_back(message);
                }
            }
            Packet::Ping(_) if self.heartbeat.is_passive() => {
                self.heartbeat.handle_other(now);
                self.output(Output::Pong);
            }
            Packet::Pong(_) if !self.heartbeat.is_passive() => {
                let rtt = self.heartbeat.handle_pong(now).unwrap_or_default();
                self.rtt_micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
            }
            Packet::Close => self.close(CloseReason::TransportClose),
            // In version 4 only the server pings, in version 3 only the client.
            Packet::Ping(_) | Packet::Pong(_) => self.close(CloseReason::TransportError),
            Packet::Open(_) | Packet::Upgrade | Packet::Noop => self.heartbeat.handle_other(now),
        }
    }

    fn handle_candidate(&mut self, packet: Packet, now: Instant) {
        let Some(upgrade) = &mut self.upgrade else { return };
        match packet {
            Packet::Ping(content) if content.as_str() == PROBE => {
                match upgrade.probe {
                    Probe::Expected => upgrade.probe = Probe::Received,
                    Probe::Received => {}
                    Probe::Answered | Probe::Released => self.output(Output::PongProbe),
                }
                self.release_poll(now);
            }
            Packet::Upgrade => {
                self.transport = upgrade.to;
                self.upgrade = None;
                self.heartbeat.handle_switch(now);
                self.output(Output::Switch);
            }
            _ => {
                self.upgrade = None;
                self.output(Output::DropCandidate);
            }
        }
    }

    fn hold_poll(&mut self, now: Instant) {
        let Some(upgrade) = &mut self.upgrade else { return };
        upgrade.hold = now + HOLD;
        if upgrade.probe == Probe::Released {
            upgrade.probe = Probe::Answered;
        }
    }

    fn release_poll(&mut self, now: Instant) {
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| now >= upgrade.hold) else { return };
        match upgrade.probe {
            Probe::Expected | Probe::Released => {}
            Probe::Answered => upgrade.probe = Probe::Released,
            Probe::Received => {
                upgrade.probe = Probe::Released;
                self.output(Output::PongProbe);
            }
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        self.state = State::Closed;
        if self.upgrade.take().is_some() {
            self.output(Output::DropCandidate);
        }
        self.output(Output::Closed(reason));
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }
}

/// The time without a request or a payload after which a client that probes has nothing under way. The
/// reference server ends each poll 100 ms after the probe.
const HOLD: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timing() -> Arc<Timing> {
        Arc::new(Timing {
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            upgrade_timeout: Duration::from_millis(100),
            close_timeout: Duration::from_millis(400),
        })
    }

    fn text(content: &str) -> Packet {
        Packet::Message(Message::Text(content.into()))
    }

    fn probe() -> Packet {
        Packet::Ping(PROBE.into())
    }

    /// A session under test, with time in milliseconds since its start.
    struct Bench {
        session: Session,
        start: Instant,
    }

    impl Bench {
        fn new(transport: Transport) -> Self {
            let start = Instant::now();
            Self { session: Session::new(transport, timing(), start), start }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn packet(&mut self, ms: u64, wire: Wire, packet: Packet) -> Vec<Output> {
            self.session.handle_packet(wire, packet, self.at(ms));
            self.outputs()
        }

        fn time(&mut self, ms: u64) -> Vec<Output> {
            self.session.handle_timeout(self.at(ms));
            self.outputs()
        }

        fn attach(&mut self, ms: u64, poll_waits: bool) -> bool {
            self.session.handle_attach(Transport::WebSocket, poll_waits, self.at(ms))
        }

        fn outputs(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.session.poll_output()).collect()
        }
    }

    #[test]
    fn a_client_that_says_nothing_is_pinged_and_closed() {
        let mut bench = Bench::new(Transport::WebSocket);
        assert_eq!(bench.session.poll_timeout(), Some(bench.at(300)));
        assert_eq!((bench.time(299), bench.time(300)), (vec![], vec![Output::Ping]));
        assert_eq!(bench.time(500), [Output::Closed(CloseReason::PingTimeout)]);
        assert_eq!((bench.session.poll_timeout(), bench.time(900)), (None, vec![]));
    }

    #[test]
    fn the_time_from_a_ping_to_its_pong_is_told_once() {
        let mut bench = Bench::new(Transport::WebSocket);
        let pong = || Packet::Pong("".into());
        bench.packet(10, Wire::Current, pong());
        assert_eq!(bench.session.poll_rtt(), None, "nobody has asked");
        bench.time(310);
        bench.packet(353, Wire::Current, pong());
        assert_eq!(bench.session.poll_rtt().map(NonZeroU32::get), Some(43_000));
        assert_eq!(bench.session.poll_rtt(), None);
    }

    #[test]
    fn an_upgrade_goes_probe_then_switch() {
        let mut bench = Bench::new(Transport::Polling);
        assert!(bench.attach(0, true));
        assert!(!bench.attach(0, true), "one at a time");
        assert_eq!((bench.packet(1, Wire::Candidate, probe()), bench.time(49)), (vec![], vec![]));
        assert_eq!(bench.packet(49, Wire::Candidate, probe()), [], "it will be answered");
        assert!(!bench.session.is_poll_released());
        assert_eq!(bench.time(50), [Output::PongProbe]);
        assert!(bench.session.is_poll_released());
        assert_eq!(
            bench.packet(51, Wire::Candidate, probe()),
            [Output::PongProbe],
            "as often as it is asked"
        );
        assert!(bench.session.is_poll_released(), "released stays released");
        assert_eq!(bench.packet(52, Wire::Candidate, Packet::Upgrade), [Output::Switch]);
        assert!(!bench.attach(53, true), "never again");
        assert_eq!(bench.time(150), []);
    }

    #[test]
    fn a_client_that_was_silent_when_its_candidate_came_upgrades_at_once() {
        let mut bench = Bench::new(Transport::Polling);
        bench.session.handle_payload(bench.at(0));
        bench.attach(1, true);
        assert_eq!(bench.packet(2, Wire::Candidate, probe()), [Output::PongProbe]);
        assert!(bench.session.is_poll_released());
        assert_eq!(
            bench.session.poll_timeout(),
            Some(bench.at(101)),
            "only the deadline of the upgrade is left"
        );
    }

    #[test]
    fn a_probe_is_answered_right_before_the_next_payload() {
        let mut bench = Bench::new(Transport::Polling);
        bench.attach(0, false);
        assert_eq!(bench.packet(2, Wire::Candidate, probe()), []);
        assert!(bench.session.handle_payload(bench.at(3)));
        assert!(!bench.session.handle_payload(bench.at(4)), "once");
        bench.session.handle_poll(bench.at(5));
        assert_eq!((bench.time(54), bench.session.is_poll_released()), (vec![], false));
        assert_eq!((bench.time(55), bench.session.is_poll_released()), (vec![], true));
    }

    #[test]
    fn a_client_that_was_sent_something_may_be_slow_to_poll_again() {
        let mut bench = Bench::new(Transport::Polling);
        bench.attach(0, false);
        assert!(!bench.session.handle_payload(bench.at(1)));
        bench.packet(2, Wire::Candidate, probe());
        assert_eq!(bench.time(40), []);
        bench.session.handle_poll(bench.at(40));
        assert_eq!((bench.time(89), bench.time(90)), (vec![], vec![Output::PongProbe]));
        let mut bench = Bench::new(Transport::Polling);
        bench.attach(0, false);
        bench.session.handle_payload(bench.at(1));
        bench.packet(2, Wire::Candidate, probe());
        assert_eq!(bench.time(80), [], "it has not polled yet");
    }

    #[test]
    fn a_probe_waits_for_a_post_that_was_sent_with_the_poll_and_for_its_answer() {
        let mut bench = Bench::new(Transport::Polling);
        bench.session.handle_payload(bench.at(0));
        bench.attach(1, false);
        bench.session.handle_poll(bench.at(2));
        assert_eq!((bench.packet(3, Wire::Candidate, probe()), bench.time(51)), (vec![], vec![]));
        bench.packet(51, Wire::Current, text("from the connect handler"));
        assert_eq!(bench.time(90), []);
        assert!(bench.session.handle_payload(bench.at(90)));
        let mut bench = Bench::new(Transport::Polling);
        bench.session.handle_payload(bench.at(0));
        bench.packet(1, Wire::Current, text("asks"));
        bench.attach(40, true);
        bench.packet(41, Wire::Candidate, probe());
        assert_eq!((bench.time(89), bench.time(90)), (vec![], vec![Output::PongProbe]), "but not for ever");
    }

    #[test]
    fn a_client_that_still_reads_a_large_payload_has_time_to_upgrade() {
        for payload_comes_first in [true, false] {
            let mut bench = Bench::new(Transport::Polling);
            if payload_comes_first {
                bench.session.handle_progress(bench.at(1_000));
            }
            assert!(bench.attach(10, true));
            bench.packet(20, Wire::Candidate, probe());
            if !payload_comes_first {
                assert!(bench.session.handle_payload(bench.at(30)));
                bench.session.handle_progress(bench.at(1_000));
            }
            bench.time(1_099);
            assert!(bench.session.is_upgrading());
            assert!(bench.time(1_100).contains(&Output::DropCandidate));
        }
    }

    #[test]
    fn an_upgrade_that_fails_leaves_the_session_as_it_was() {
        let mut bench = Bench::new(Transport::Polling);
        bench.attach(0, true);
        assert_eq!(bench.packet(1, Wire::Candidate, text("early")), [Output::DropCandidate]);
        bench.attach(2, true);
        assert_eq!(bench.time(102), [Output::DropCandidate]);
        bench.attach(103, true);
        bench.session.handle_lost(Wire::Candidate, CloseReason::TransportClose);
        assert_eq!(bench.outputs(), [Output::DropCandidate]);
        assert_eq!(bench.packet(104, Wire::Current, text("a")), []);
        assert_eq!(bench.session.poll_message(), Some(Message::Text("a".into())));
    }

    #[test]
    fn a_graceful_close_waits_for_the_upgrade_and_for_the_queue() {
        let mut bench = Bench::new(Transport::Polling);
        bench.attach(0, true);
        bench.session.handle_close(Close::Shutdown, bench.at(1));
        bench.session.handle_drained();
        assert_eq!(bench.outputs(), []);
        bench.packet(2, Wire::Candidate, Packet::Upgrade);
        bench.session.handle_drained();
        assert_eq!(bench.outputs(), [Output::Closed(CloseReason::ServerShutdown)]);
    }

    #[test]
    fn a_graceful_close_that_nobody_reads_ends_at_its_deadline() {
        let mut bench = Bench::new(Transport::Polling);
        bench.packet(0, Wire::Current, Packet::Pong("".into()));
        bench.session.handle_close(Close::Graceful, bench.at(50));
        bench.packet(300, Wire::Current, Packet::Pong("".into()));
        assert_eq!(bench.time(450), [Output::Closed(CloseReason::ForcedClose)]);
    }

    #[test]
    fn a_client_of_version_3_pings_and_is_answered() {
        let start = Instant::now();
        let mut bench = Bench { session: Session::legacy(Transport::WebSocket, timing(), start), start };
        assert_eq!(bench.packet(400, Wire::Current, Packet::Ping("".into())), [Output::Pong]);
        assert_eq!(bench.time(899), []);
        assert_eq!(bench.time(900), [Output::Closed(CloseReason::PingTimeout)]);
        let mut bench = Bench { session: Session::legacy(Transport::WebSocket, timing(), start), start };
        let outputs = bench.packet(1, Wire::Current, Packet::Pong("".into()));
        assert_eq!(outputs, [Output::Closed(CloseReason::TransportError)], "only the client pings");
    }

    #[test]
    fn a_client_may_not_ping() {
        let mut bench = Bench::new(Transport::WebSocket);
        let outputs = bench.packet(1, Wire::Current, Packet::Ping("".into()));
        assert_eq!(outputs, [Output::Closed(CloseReason::TransportError)]);
    }

    #[derive(Clone, Debug)]
    enum Input {
        Packet(bool, u8),
        Attach(bool),
        Poll,
        Payload,
        Lost(bool),
        Close(u8),
        Drained,
        Reading(bool),
        Wait(u64),
    }

    fn inputs() -> impl Strategy<Value = Vec<Input>> {
        let input = prop_oneof![
            8 => (any::<bool>(), 0u8..10).prop_map(|(current, kind)| Input::Packet(current, kind)),
            3 => any::<bool>().prop_map(Input::Attach),
            1 => Just(Input::Poll),
            1 => Just(Input::Payload),
            1 => any::<bool>().prop_map(Input::Lost),
            1 => (0u8..3).prop_map(Input::Close),
            1 => Just(Input::Drained),
            1 => any::<bool>().prop_map(Input::Reading),
            4 => (0u64..150).prop_map(Input::Wait),
        ];
        proptest::collection::vec(input, 0..60)
    }

    fn wire(current: bool) -> Wire {
        if current { Wire::Current } else { Wire::Candidate }
    }

    fn packet(kind: u8, number: usize) -> Packet {
        match kind {
            0 => Packet::Close,
            1 => Packet::Ping("".into()),
            2 => probe(),
            3 => Packet::Pong("".into()),
            4 => Packet::Upgrade,
            5 => Packet::Noop,
            _ => text(&number.to_string()),
        }
    }

    fn apply(session: &mut Session, input: &Input, number: usize, now: Instant) {
        match input {
            Input::Packet(current, kind) => session.handle_packet(wire(*current), packet(*kind, number), now),
            Input::Attach(polls) => drop(session.handle_attach(Transport::WebSocket, *polls, now)),
            Input::Poll => session.handle_poll(now),
            Input::Payload => drop(session.handle_payload(now)),
            Input::Lost(current) => session.handle_lost(wire(*current), CloseReason::TransportError),
            Input::Close(0) => session.handle_close(Close::Now, now),
            Input::Close(1) => session.handle_close(Close::Graceful, now),
            Input::Close(_) => session.handle_close(Close::Shutdown, now),
            Input::Drained => session.handle_drained(),
            Input::Reading(reading) => session.handle_reading(*reading, now),
            Input::Wait(_) => session.handle_timeout(now),
        }
    }

    /// Returns the number of a message, if `input` is one that a session in this state must deliver.
    fn expected(session: &Session, input: &Input, number: usize) -> Option<usize> {
        let delivered = matches!(input, Input::Packet(true, 6..)) && matches!(session.state, State::Open);
        delivered.then_some(number)
    }

    proptest! {
        #[test]
        fn any_interleaving_keeps_the_promises(inputs in inputs(), polling in any::<bool>()) {
            let transport = if polling { Transport::Polling } else { Transport::WebSocket };
            let mut now = Instant::now();
            let mut session = Session::new(transport, timing(), now);
            let (mut outputs, mut sent) = (Vec::new(), Vec::new());
            let mut attached = 0;
            for (number, input) in inputs.iter().enumerate() {
                if let Input::Wait(ms) = input {
                    now += Duration::from_millis(*ms);
                }
                sent.extend(expected(&session, input, number));
                let candidate = session.is_upgrading();
                apply(&mut session, input, number, now);
                attached += usize::from(!candidate && session.is_upgrading());
                outputs.extend(std::iter::from_fn(|| session.poll_output()));
                // Deadlines that have passed are always handled before the next input.
                session.handle_timeout(now);
                outputs.extend(std::iter::from_fn(|| session.poll_output()));
                prop_assert!(session.poll_timeout().is_none_or(|due| due > now));
            }
            let received: Vec<_> = std::iter::from_fn(|| session.poll_message()).collect();
            let sent: Vec<_> =
                sent.iter().map(|number| Message::Text(number.to_string().into())).collect();
            prop_assert_eq!(received, sent, "no message lost, doubled or out of order");
            let count = |wanted: &dyn Fn(&Output) -> bool| outputs.iter().filter(|output| wanted(output)).count();
            let closed = count(&|output| matches!(output, Output::Closed(_)));
            prop_assert!(closed <= 1 && session.is_closed() == (closed == 1));
            prop_assert!(closed == 0 || matches!(outputs.last(), Some(Output::Closed(_))), "the end is the last");
            let switched = count(&|output| *output == Output::Switch);
            let dropped = count(&|output| *output == Output::DropCandidate);
            prop_assert!(switched <= 1);
            prop_assert_eq!(switched + dropped + usize::from(session.is_upgrading()), attached, "each attempt ends once");
        }

        #[test]
        fn a_session_that_hears_nothing_more_always_ends(inputs in inputs()) {
            let mut now = Instant::now();
            let mut session = Session::new(Transport::Polling, timing(), now);
            for (number, input) in inputs.iter().enumerate() {
                apply(&mut session, input, number, now);
            }
            session.handle_reading(true, now);
            for _ in 0..5 {
                let Some(due) = session.poll_timeout() else { break };
                now = now.max(due);
                session.handle_timeout(now);
            }
            prop_assert!(session.is_closed());
        }
    }
}
