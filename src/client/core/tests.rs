//! Tests of the core against a server in the same process: random interleavings, and what each rule is for.

mod interleavings;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::client::reconnect::Reconnect;
use crate::client::retry::Retry;
use crate::engine::Message;
use crate::engine::codec::decode_text;
use crate::socket::Binary;
use crate::socket::packet::{Args, Limits, PacketBody};
use crate::socket::parser::One;

const SECOND: Duration = Duration::from_secs(1);
const CONNECT: Ticket = 1_000_000;
const JOIN: Ticket = 1_000_001;

fn settings() -> Settings {
    Settings {
        reconnect: Reconnect::fixed(SECOND),
        retry_initial: true,
        connect_timeout: 5 * SECOND,
        join_timeout: 20 * SECOND,
        retry: Retry::forever(SECOND),
        limits: Limits::default(),
        encoding: Encoding::Json,
        has_fresh_credentials: true,
        switch_without_recovery: false,
    }
}

fn args(value: &Value) -> EncodedArgs {
    EncodedArgs::new(&One(value)).unwrap()
}

/// A client, a server, and a wire between them that breaks on demand. Time stands still until it is moved.
struct World {
    now: Instant,
    core: Core,
    budget: Budget,
    server: Server,
    /// Packets on their way, if there is a wire.
    wire: Option<Wire>,
    /// The wire of a transport that says goodbye.
    leaving: Option<Wire>,
    /// How long the last goodbye could take.
    leave_by: Option<Instant>,
    has_successor: bool,
    is_opening: bool,
    /// Whether namespaces are joined together with the handshake, and those to join.
    is_early: bool,
    greetings: Vec<(Path, Greeting)>,
    /// Whether the network takes nothing, so that packets keep their places.
    is_slow: bool,
    /// The largest message that the server takes.
    payload_max: usize,
    held: Vec<Place>,
    asked: VecDeque<(Path, u64)>,
    answers: BTreeMap<Ticket, ClientResult>,
    delivered: Vec<u64>,
    /// How much the application had been told when each event was delivered.
    told_before: Vec<usize>,
    /// Questions of the server that the application has not answered yet.
    owed: VecDeque<(u64, u64)>,
    notified: Vec<ClientEvent>,
    forgotten: Vec<uuid::Uuid>,
}

type Wire = (VecDeque<Outgoing>, VecDeque<Packet>);

type ClientResult = Result<Reply, ClientError>;

/// What a server remembers: it handles events of the outbox once, by their nonce, and keeps what it sent.
#[derive(Default)]
struct Server {
    applied: Vec<u64>,
    plain: Vec<u64>,
    sent: Vec<u64>,
    /// The private id of each session and the number of events that were sent before it began.
    sessions: BTreeMap<String, usize>,
    /// The number of events that were sent before each session began, by the id of its socket.
    began: BTreeMap<String, u64>,
    /// The session that is connected.
    current: Option<String>,
    next_pid: u64,
    /// How many connections there have been.
    connections: u64,
    /// The connection on which each question was asked that is not answered yet.
    questions: BTreeMap<u64, u64>,
    moods: VecDeque<Mood>,
}

/// How the server treats the next packet that needs an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Friendly,
    /// It handles the event and forgets to answer.
    Forgetful,
    /// It does not handle it, and says so: try again.
    Busy,
    /// It neither handles nor answers it.
    Deaf,
}

impl World {
    fn new(settings: Settings, budget: Budget) -> Self {
        let core = Core::new(settings, budget.clone(), || 0.5);
        Self {
            now: Instant::now(),
            core,
            budget,
            server: Server::default(),
            wire: None,
            leaving: None,
            leave_by: None,
            has_successor: false,
            is_opening: false,
            is_early: false,
            greetings: Vec::new(),
            is_slow: false,
            payload_max: usize::MAX,
            held: Vec::new(),
            asked: VecDeque::new(),
            answers: BTreeMap::new(),
            delivered: Vec::new(),
            told_before: Vec::new(),
            owed: VecDeque::new(),
            notified: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    fn joined() -> Self {
        let mut world = Self::new(settings(), Budget::new(100, 10_000));
        world.join();
        world.settle();
        assert!(matches!(world.answers[&JOIN], Ok(Reply::Done)));
        world
    }

    fn join(&mut self) {
        self.core.connect(self.now, CONNECT);
        self.core.join(self.now, &"/".into(), JOIN);
        self.act();
    }

    fn emit(&mut self, number: u64, answer: Option<Duration>) {
        let answer = answer.map(|timeout| (number, timeout));
        let args = args(&json!(number));
        let place = self.budget.take_anyway(args.bytes());
        let emit = Emit { event: "plain".into(), args, answer, is_volatile: false, place };
        self.core.emit(self.now, &"/".into(), emit, false);
        self.act();
    }

    fn send(&mut self, number: u64) {
        let (id, args) = (uuid::Uuid::from_u128(number.into()), args(&json!(number)));
        let entry = Entry { id, namespace: "/".into(), event: "reliable".into(), args };
        self.core.queue(self.now, entry, Some(number), None);
        self.act();
    }

    /// Does what the core says.
    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Open => (self.is_opening, self.greetings) = (true, self.core.greetings()),
                Action::Drop | Action::Close => {
                    (self.is_opening, self.wire) = (false, None);
                    (self.has_successor, self.leaving) = (false, None);
                    self.held.clear();
                }
                Action::HandOver(until) => {
                    (self.leaving, self.leave_by) = (self.wire.take(), Some(until));
                }
                Action::DropSuccessor => self.has_successor = false,
                Action::Authenticate { namespace, number, .. } => self.asked.push_back((namespace, number)),
                Action::Send(sending) => {
                    let wire = self.wire.as_mut().expect("packets are sent on a connection only");
                    wire.0.push_back(sending.packet);
                    self.held.extend(sending.place.filter(|_| self.is_slow));
                }
                Action::Deliver(incoming) => match incoming.answer_to {
                    Some(to) => self.owed.push_back(to),
                    None => {
                        self.delivered.push(incoming.args.first().unwrap());
                        self.told_before.push(self.notified.len());
                    }
                },
                Action::Answer(ticket, result) => {
                    assert!(self.answers.insert(ticket, result).is_none(), "{ticket} is answered once");
                }
                Action::Forget(id) => self.forgotten.push(id),
                Action::Notify(event) => self.notified.push(event),
            }
        }
    }

    fn open(&mut self, succeeds: bool) {
        if !std::mem::take(&mut self.is_opening) {
            return;
        }
        if succeeds {
            let (mut there, mut paths) = (VecDeque::new(), Vec::new());
            for (path, greeting) in std::mem::take(&mut self.greetings) {
                let token = json!({ "token": 0 }).as_object().unwrap().clone();
                there.push_back(
                    Outgoing::connect(Encoding::Json, &path, &hello(Some(token), greeting)).unwrap(),
                );
                paths.push(path);
            }
            let early = self.is_early.then_some(paths);
            self.wire = Some((if self.is_early { there } else { VecDeque::new() }, VecDeque::new()));
            self.server.current = None;
            self.server.connections += 1;
            let payload_max = PayloadMax { bytes: self.payload_max, is_base64: false };
            let opened =
                Opened { transport: TransportKind::WebSocket, silence_max: 45 * SECOND, payload_max, early };
            self.core.handle_opened(self.now, opened);
        } else {
            self.core.handle_failed(self.now, ClientError::connect("websocket", "refused"));
        }
        self.act();
    }

    fn authenticate(&mut self, succeeds: bool) {
        let Some((namespace, number)) = self.asked.pop_front() else { return };
        let token = json!({ "token": number }).as_object().unwrap().clone();
        let credentials = match succeeds {
            true => Ok(Some(token)),
            false => Err(ClientError::Timeout("a token")),
        };
        self.core.handle_credentials(self.now, &namespace, number, credentials);
        self.act();
    }

    fn cut(&mut self) {
        if self.wire.take().is_some() {
            self.held.clear();
            self.core.handle_closed(self.now, DisconnectReason::TransportClosed);
            self.act();
        }
    }

    /// Another transport opens beside the one in use.
    fn successor(&mut self) {
        if self.core.may_switch() {
            self.has_successor = true;
            let payload_max = PayloadMax { bytes: self.payload_max, is_base64: false };
            let opened = Opened {
                transport: TransportKind::WebTransport,
                silence_max: 45 * SECOND,
                payload_max,
                early: None,
            };
            self.core.handle_successor(self.now, opened);
            self.act();
        }
    }

    /// The server reads what is left on the old transport, and ends it.
    fn handed_over(&mut self) {
        let Some(old) = self.leaving.take() else { return };
        self.wire = Some(old);
        while self.wire.as_ref().is_some_and(|(there, _)| !there.is_empty()) {
            self.server_reads();
        }
        (self.wire, self.has_successor) = (Some(Default::default()), false);
        self.server.current = None;
        self.core.handle_handed_over(self.now);
        self.act();
    }

    /// The server reads one packet.
    fn server_reads(&mut self) {
        let Some((there, back)) = &mut self.wire else { return };
        let Some(packet) = there.pop_front() else { return };
        let Packet::Message(message) = decode_text(packet.text.as_bytes().to_vec().into()).unwrap() else {
            return;
        };
        let packet = Decoder::new(Limits::default()).add(message).unwrap().unwrap();
        back.extend(self.server.handle(packet.body).into_iter().map(text));
    }

    /// The texts of the packets on their way to the server.
    fn on_their_way(&self) -> Vec<&str> {
        self.wire.iter().flat_map(|(there, _)| there).map(|packet| packet.text.as_str()).collect()
    }

    /// The client reads one packet.
    fn client_reads(&mut self) {
        let Some((_, back)) = &mut self.wire else { return };
        let Some(packet) = back.pop_front() else { return };
        self.core.handle_packet(self.now, packet);
        self.act();
    }

    /// The server sends an event to everybody, connected or not.
    fn broadcast(&mut self) {
        let number = self.server.sent.len() as u64;
        self.server.sent.push(number);
        if let (Some((_, back)), Some(_)) = (&mut self.wire, &self.server.current) {
            back.push_back(text(Server::event(number)));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.handle_timeout(self.now);
        self.act();
    }

    /// Everybody is well and everything arrives, until nothing is left to do but heartbeats.
    fn settle(&mut self) {
        self.server.moods.clear();
        for _ in 0..10_000 {
            let (there, back) = self.wire.as_ref().map_or((0, 0), |(there, back)| (there.len(), back.len()));
            if self.is_opening {
                self.open(true);
            } else if self.leaving.is_some() {
                self.handed_over();
            } else if !self.asked.is_empty() {
                self.authenticate(true);
            } else if there > 0 {
                self.server_reads();
            } else if back > 0 {
                self.client_reads();
            } else {
                let Some(next) = self.core.poll_timeout() else { return };
                if next > self.now + 40 * SECOND {
                    return;
                }
                self.pass(next - self.now);
            }
        }
        panic!("the client does not come to rest");
    }
}

impl Server {
    fn event(number: u64) -> String {
        format!(r#"2["news",{number},"{}"]"#, number + 1)
    }

    fn handle(&mut self, body: PacketBody) -> Vec<String> {
        match body {
            PacketBody::Connect(payload) => self.connect(&payload.unwrap().json),
            PacketBody::Event(id, args) => {
                let number = args.first().unwrap();
                match args.name() {
                    "plain" => self.plain.push(number),
                    _ => return self.apply(id.unwrap(), number),
                }
                id.map(|id| format!("3{id}[{number}]")).into_iter().collect()
            }
            PacketBody::Ack(id, _) => {
                if let Some(asked) = self.questions.remove(&id.unwrap()) {
                    assert_eq!(asked, self.connections, "an answer is for the connection that asked");
                }
                Vec::new()
            }
            PacketBody::Disconnect => {
                self.current.take().and_then(|pid| self.sessions.remove(&pid));
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn connect(&mut self, hello: &str) -> Vec<String> {
        let hello: Value = serde_json::from_str(hello).unwrap();
        assert!(hello["token"].is_u64(), "credentials are in every CONNECT");
        match self.moods.pop_front().unwrap_or(Mood::Friendly) {
            Mood::Busy => return vec![r#"4{"message":"busy","data":{"retryable":true}}"#.into()],
            Mood::Deaf => return Vec::new(),
            Mood::Friendly | Mood::Forgetful => {}
        }
        let known = hello["pid"].as_str().and_then(|pid| Some((pid.to_owned(), *self.sessions.get(pid)?)));
        let (pid, from) = known.unwrap_or_else(|| {
            self.next_pid += 1;
            let pid = self.next_pid.to_string();
            self.sessions.insert(pid.clone(), self.sent.len());
            self.began.insert(format!("s{pid}"), self.sent.len() as u64);
            (pid, self.sent.len())
        });
        let from = hello["offset"].as_str().map_or(from, |offset| offset.parse().unwrap());
        self.current = Some(pid.clone());
        // What was missed comes before the answer, as from the reference.
        let missed = self.sent[from..].iter().map(|number| Self::event(*number));
        missed.chain([format!(r#"0{{"sid":"s{pid}","pid":"{pid}"}}"#)]).collect()
    }

    fn apply(&mut self, id: u64, number: u64) -> Vec<String> {
        let mood = self.moods.pop_front().unwrap_or(Mood::Friendly);
        if mood == Mood::Busy {
            let error = json!({"ok": false, "error": {"retryable": true, "retry_after_ms": 1500}});
            return vec![format!("3{id}[{error}]")];
        }
        if mood == Mood::Deaf {
            return Vec::new();
        }
        if !self.applied.contains(&number) {
            self.applied.push(number);
        }
        if mood == Mood::Forgetful { Vec::new() } else { vec![format!("3{id}[{number}]")] }
    }
}

fn text(packet: String) -> Packet {
    Packet::Message(Message::Text(packet.into()))
}

#[derive(Debug, Clone)]
enum Step {
    Emit,
    EmitWithAck,
    Send,
    Broadcast,
    ToServer,
    ToClient,
    Open(bool),
    Authenticate(bool),
    Cut,
    Successor,
    HandedOver,
    Mood(Mood),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let mood = prop_oneof![Just(Mood::Forgetful), Just(Mood::Busy), Just(Mood::Deaf)];
    prop_oneof![
        1 => Just(Step::Emit),
        1 => Just(Step::EmitWithAck),
        3 => Just(Step::Send),
        2 => Just(Step::Broadcast),
        8 => Just(Step::ToServer),
        8 => Just(Step::ToClient),
        4 => prop::bool::weighted(0.7).prop_map(Step::Open),
        4 => prop::bool::weighted(0.8).prop_map(Step::Authenticate),
        1 => Just(Step::Cut),
        1 => Just(Step::Successor),
        2 => Just(Step::HandedOver),
        1 => mood.prop_map(Step::Mood),
        4 => (1_u64..15_000).prop_map(Step::Pass),
    ]
}

fn take(world: &mut World, step: &Step, number: u64) {
    match step {
        Step::Emit => world.emit(number, None),
        Step::EmitWithAck => world.emit(number, Some(10 * SECOND)),
        Step::Send => world.send(number),
        Step::Broadcast => world.broadcast(),
        Step::ToServer => world.server_reads(),
        Step::ToClient => world.client_reads(),
        Step::Open(succeeds) => world.open(*succeeds),
        Step::Authenticate(succeeds) => world.authenticate(*succeeds),
        Step::Cut => world.cut(),
        Step::Successor => world.successor(),
        Step::HandedOver => world.handed_over(),
        Step::Mood(mood) => world.server.moods.push_back(*mood),
        Step::Pass(millis) => world.pass(Duration::from_millis(*millis)),
    }
}

fn is_sorted_and_unique(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_or_doubled_and_the_order_is_kept(
        steps in prop::collection::vec(step(), 0..160),
        is_early in any::<bool>(),
    ) {
        let mut world = World { is_early, ..World::new(settings(), Budget::new(1_000, 1_000_000)) };
        world.join();
        let (mut sent, mut asked) = (Vec::new(), BTreeSet::new());
        for (number, step) in steps.iter().enumerate() {
            let number = number as u64;
            take(&mut world, step, number);
            match step {
                Step::Send => sent.push(number),
                Step::EmitWithAck => drop(asked.insert(number)),
                _ => {}
            }
            let acked = sent.iter().filter(|number| matches!(world.answers.get(*number), Some(Ok(_))));
            prop_assert!(acked.clone().all(|number| world.server.applied.contains(number)));
        }
        world.settle();
        world.pass(11 * SECOND);

        prop_assert_eq!(&world.server.applied, &sent, "each once, in the order in which they were sent");
        for number in &sent {
            let Some(Ok(Reply::Answer(answer))) = world.answers.get(number) else { panic!("{number}") };
            prop_assert_eq!(answer.first::<u64>().unwrap(), *number);
        }
        let ids: Vec<_> = sent.iter().map(|number| uuid::Uuid::from_u128((*number).into())).collect();
        prop_assert_eq!(&world.forgotten, &ids);
        for number in &asked {
            prop_assert!(world.answers.contains_key(number), "whoever asked learns what came of it");
        }
        prop_assert!(is_sorted_and_unique(&world.server.plain), "at most once: {:?}", world.server.plain);
        prop_assert!(is_sorted_and_unique(&world.delivered), "{:?}", world.delivered);
        if let Some(first) = world.delivered.first() {
            let expected: Vec<u64> = (*first..world.server.sent.len() as u64).collect();
            prop_assert_eq!(&world.delivered, &expected, "a session that is restored misses nothing");
        }
        prop_assert_eq!(world.budget.used(), crate::client::budget::Used::default());
    }
}

/// What happens to a client whose transports work, and change.
fn quiet_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Emit),
        1 => Just(Step::EmitWithAck),
        2 => Just(Step::Send),
        3 => Just(Step::Broadcast),
        9 => Just(Step::ToServer),
        9 => Just(Step::ToClient),
        4 => Just(Step::Authenticate(true)),
        3 => Just(Step::Successor),
        4 => Just(Step::HandedOver),
        4 => (1_u64..400).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_change_of_transport_loses_nothing_doubles_nothing_and_keeps_the_order(
        steps in prop::collection::vec(quiet_step(), 0..200),
    ) {
        let mut world = World::joined();
        world.budget = Budget::new(1_000, 1_000_000);
        world.core.budget = world.budget.clone();
        world.broadcast();
        world.settle();
        let (mut plain, mut asked, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            let number = number as u64;
            take(&mut world, step, number);
            match step {
                Step::Emit => plain.push(number),
                Step::EmitWithAck => {
                    plain.push(number);
                    asked.push(number);
                }
                Step::Send => sent.push(number),
                _ => {}
            }
        }
        world.settle();

        prop_assert_eq!(&world.server.plain, &plain, "each once, in the order in which they were sent");
        prop_assert_eq!(&world.server.applied, &sent);
        for number in asked.iter().chain(&sent) {
            prop_assert!(matches!(world.answers.get(number), Some(Ok(_))), "{number}: {:?}", world.answers.get(number));
        }
        let all: Vec<u64> = (0..world.server.sent.len() as u64).collect();
        prop_assert_eq!(&world.delivered, &all);
        prop_assert!(!world.has_successor && world.leaving.is_none());
        let is_away = |event: &ClientEvent| {
            matches!(event, ClientEvent::Left { .. } | ClientEvent::Disconnected { .. })
        };
        prop_assert!(!world.notified.iter().any(is_away), "nobody notices but by TransportSwitched");
        prop_assert_eq!(world.budget.used(), crate::client::budget::Used::default());
    }
}

/// A client that has got an event, so that its session can be restored from there.
fn with_an_offset() -> World {
    let mut world = World::joined();
    world.broadcast();
    world.settle();
    world
}

fn switches(world: &World) -> usize {
    world.notified.iter().filter(|event| matches!(event, ClientEvent::TransportSwitched { .. })).count()
}

#[test]
fn a_change_of_transport_waits_for_answers_and_holds_back_what_is_new() {
    let mut world = with_an_offset();
    world.emit(1, Some(10 * SECOND));
    world.successor();
    world.emit(2, None);
    assert_eq!(world.on_their_way().len(), 1, "the question");
    world.server_reads();
    world.client_reads();
    assert!(world.leaving.is_some());
    world.emit(3, None);
    world.settle();
    assert_eq!((world.server.plain.clone(), switches(&world)), (vec![1, 2, 3], 1));
    let joined = world.notified.iter().rfind(|event| matches!(event, ClientEvent::Joined { .. }));
    assert!(matches!(joined, Some(ClientEvent::Joined { recovered: true, .. })), "{joined:?}");
}

#[test]
fn a_server_has_time_for_what_it_does_not_answer() {
    let mut world = with_an_offset();
    world.emit(1, None);
    world.successor();
    assert!(world.leaving.is_none());
    assert_eq!(world.core.poll_timeout(), Some(world.now + SECOND / 2));
    world.pass(SECOND / 2);
    assert!(world.leaving.is_some());
}

#[test]
fn the_goodbye_of_a_transport_takes_no_longer_than_its_heartbeat_allows() {
    for (silence, patience) in [(0, 5), (43, 2)] {
        let mut world = with_an_offset();
        world.pass(silence * SECOND);
        world.successor();
        assert_eq!(world.leave_by, Some(world.now + patience * SECOND), "{silence}");
        assert!(world.core.poll_timeout().is_none_or(|time| time > world.now + 60 * SECOND));
    }
}

#[test]
fn a_question_of_the_server_is_answered_before_the_transport_changes() {
    let mut world = with_an_offset();
    world.core.handle_packet(world.now, text(r#"27["ask"]"#.into()));
    let Some(Action::Deliver(incoming)) = world.core.poll_action() else { panic!("no event") };
    world.successor();
    world.pass(SECOND);
    assert!(world.leaving.is_none());
    let place = world.budget.take_anyway(0);
    world.core.reply(world.now, &"/".into(), incoming.answer_to.unwrap(), &args(&json!("yes")), place);
    world.act();
    assert_eq!(world.on_their_way(), [r#"437["yes"]"#]);
    world.pass(SECOND);
    assert!(world.leaving.is_some());
}

#[test]
fn a_connection_that_does_not_come_to_rest_stays_on_its_transport() {
    let mut world = with_an_offset();
    world.emit(1, Some(60 * SECOND));
    world.successor();
    world.emit(2, None);
    world.pass(3 * SECOND);
    assert!(!world.has_successor && world.leaving.is_none());
    assert_eq!(world.on_their_way().len(), 2, "what was held back is on its way");
    world.settle();
    assert_eq!((world.server.plain.clone(), switches(&world)), (vec![1, 2], 0));
    assert!(world.answers[&1].is_ok());
}

#[test]
fn a_transport_that_has_not_taken_everything_yet_is_not_left() {
    for is_slow in [false, true] {
        let mut world = with_an_offset();
        world.emit(1, None);
        world.core.handle_congestion(true);
        world.successor();
        let begun = world.now;
        world.pass(SECOND);
        assert!(world.has_successor && world.leaving.is_none());
        assert_eq!(world.core.poll_timeout(), Some(begun + 3 * SECOND));
        world.core.handle_congestion(is_slow);
        world.pass(2 * SECOND);
        assert_eq!((world.has_successor, world.leaving.is_some()), (!is_slow, !is_slow));
    }
}

#[test]
fn a_connection_whose_successor_is_lost_stays_on_its_transport() {
    let mut world = with_an_offset();
    world.emit(1, Some(60 * SECOND));
    world.successor();
    world.emit(2, None);
    world.core.handle_successor_lost(world.now);
    world.act();
    assert_eq!((world.has_successor, world.on_their_way().len()), (false, 2));
}

#[test]
fn an_event_of_the_outbox_keeps_no_connection_where_it_is() {
    let mut world = with_an_offset();
    world.server.moods.push_back(Mood::Forgetful);
    world.send(1);
    world.server_reads();
    world.successor();
    world.pass(3 * SECOND);
    assert!(world.leaving.is_some());
    world.settle();
    assert_eq!((world.server.applied.clone(), world.answers[&1].is_ok()), (vec![1], true));
}

#[test]
fn a_transport_changes_only_where_the_server_restores_sessions_or_nobody_minds() {
    let mut world = World::joined();
    assert!(!world.core.may_switch(), "it may be a server that asks for an offset");
    world.core.settings.switch_without_recovery = true;
    world.successor();
    world.settle();
    assert_eq!(switches(&world), 1);
    let mut idle = World::new(settings(), Budget::new(9, 999));
    assert!(!idle.core.may_switch());
    idle.core.connect(idle.now, CONNECT);
    idle.act();
    idle.open(true);
    assert!(!idle.core.may_switch(), "nobody wants the connection");
}

#[test]
fn a_connection_that_is_lost_while_it_changes_comes_back_as_always() {
    for is_leaving in [false, true] {
        let mut world = with_an_offset();
        world.emit(1, (!is_leaving).then_some(10 * SECOND));
        world.successor();
        if is_leaving {
            world.settle();
            world.successor();
            world.handed_over();
        }
        world.emit(2, None);
        world.cut();
        assert!(!world.has_successor && world.leaving.is_none());
        let left = world.notified.iter().filter(|event| matches!(event, ClientEvent::Left { .. })).count();
        assert_eq!((world.core.status(), left), (Status::Reconnecting, 1));
        world.settle();
        assert_eq!(world.server.plain, if is_leaving { vec![1, 2] } else { vec![2] });
    }
}

#[test]
fn a_client_that_is_closed_while_it_changes_is_closed() {
    for is_leaving in [false, true] {
        let mut world = with_an_offset();
        world.emit(1, (!is_leaving).then_some(10 * SECOND));
        world.successor();
        if is_leaving {
            world.pass(SECOND);
            assert!(world.leaving.is_some());
        }
        world.core.close(world.now);
        world.act();
        assert_eq!((world.core.status(), world.core.poll_timeout()), (Status::Idle, None));
        assert!(world.leaving.is_none() && !world.has_successor);
        world.answers.clear();
        world.join();
        world.settle();
        world.emit(2, None);
        world.settle();
        assert!(world.server.plain.ends_with(&[2]));
    }
}

#[test]
fn a_namespace_that_is_joined_while_the_transport_changes_is_joined_after_it() {
    let mut world = with_an_offset();
    world.emit(1, None);
    world.successor();
    world.core.join(world.now, &"/other".into(), 7);
    world.core.leave(world.now, &"/".into());
    world.core.join(world.now, &"/".into(), 8);
    world.act();
    assert!(world.asked.is_empty());
    world.pass(SECOND);
    assert!(world.leaving.is_some());
    world.handed_over();
    assert_eq!(world.asked.len(), 2);
}

#[test]
fn the_heartbeat_is_answered_and_its_absence_ends_the_connection() {
    let mut world = World::joined();
    world.core.handle_packet(world.now, Packet::Ping("".into()));
    world.act();
    assert_eq!(world.wire.as_ref().unwrap().0.back().unwrap().text, "3");
    assert!(world.notified.iter().any(|event| matches!(event, ClientEvent::Heartbeat { .. })));
    world.pass(44 * SECOND);
    assert_eq!(world.core.status(), Status::Connected);
    world.pass(SECOND);
    assert_eq!(world.core.status(), Status::Reconnecting);
    let reason = world.notified.iter().find_map(|event| match event {
        ClientEvent::Disconnected { reason } => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(reason, Some(DisconnectReason::HeartbeatTimeout)));
}

#[test]
fn an_event_sent_while_away_goes_out_once_when_the_client_is_back() {
    let mut world = World::joined();
    world.cut();
    world.emit(1, None);
    world.emit(2, Some(30 * SECOND));
    world.settle();
    assert_eq!(world.server.plain, [1, 2]);
    assert!(matches!(world.answers[&2], Ok(Reply::Answer(_))));
}

#[test]
fn who_waits_for_an_answer_when_the_connection_is_lost_learns_that_nobody_knows() {
    let mut world = World::joined();
    world.emit(1, Some(30 * SECOND));
    world.cut();
    assert!(matches!(world.answers[&1], Err(ClientError::ConnectionClosed(_))));
    world.emit(2, Some(SECOND));
    world.pass(2 * SECOND);
    assert!(matches!(world.answers[&2], Err(ClientError::Timeout(_))));
    world.settle();
    assert_eq!(world.server.plain, Vec::<u64>::new(), "what timed out is not sent any more");
}

#[test]
fn a_volatile_event_is_dropped_where_it_cannot_be_sent_at_once() {
    let mut world = World::joined();
    let emit = |world: &mut World, number: u64, is_congested| {
        let (args, place) = (args(&json!(number)), world.budget.take_anyway(1));
        let emit = Emit { event: "plain".into(), args, answer: None, is_volatile: true, place };
        world.core.emit(world.now, &"/".into(), emit, is_congested);
        world.act();
    };
    emit(&mut world, 1, true);
    emit(&mut world, 2, false);
    world.settle();
    world.cut();
    emit(&mut world, 3, false);
    world.settle();
    assert_eq!(world.server.plain, [2]);
}

#[test]
fn the_oldest_event_makes_room_for_the_newest() {
    let mut world = World::joined();
    world.cut();
    let room = Budget::new(2, 1_000);
    (world.budget, world.core.budget) = (room.clone(), room);
    world.emit(1, Some(SECOND));
    (2..=3).for_each(|number| world.emit(number, None));
    assert!(matches!(world.answers[&1], Err(ClientError::Dropped)));
    world.settle();
    assert_eq!(world.server.plain, [2, 3]);
}

#[test]
fn the_newest_event_is_dropped_where_all_others_are_with_the_transport() {
    let mut world = World::joined();
    let room = Budget::new(1, 1_000);
    (world.budget, world.core.budget) = (room.clone(), room.clone());
    let on_its_way = room.take(1);
    world.emit(1, Some(SECOND));
    assert!(matches!(world.answers[&1], Err(ClientError::Dropped)));
    drop(on_its_way);
    world.emit(2, None);
    world.settle();
    assert_eq!(world.server.plain, [2]);
}

#[test]
fn the_first_failure_is_the_callers_unless_it_is_to_be_retried() {
    let mut world = World::new(Settings { retry_initial: false, ..settings() }, Budget::new(9, 999));
    world.join();
    world.open(false);
    for ticket in [CONNECT, JOIN] {
        assert!(matches!(world.answers[&ticket], Err(ClientError::ConnectionFailed { .. })));
    }
    assert_eq!((world.core.status(), world.core.poll_timeout()), (Status::Idle, None));
    let mut patient = World::new(settings(), Budget::new(9, 999));
    patient.join();
    patient.open(false);
    patient.settle();
    assert!(patient.answers[&CONNECT].is_ok() && patient.answers[&JOIN].is_ok());
}

#[test]
fn a_client_that_gives_up_says_so_to_everybody_who_waits() {
    let reconnect = Reconnect::fixed(SECOND).attempts_max(2);
    let mut world = World::joined();
    world.core.settings.reconnect = reconnect;
    world.cut();
    world.emit(1, Some(60 * SECOND));
    world.send(2);
    for _ in 0..2 {
        world.pass(SECOND);
        world.open(false);
    }
    for ticket in [1, 2] {
        assert!(matches!(world.answers[&ticket], Err(ClientError::ReconnectFailed { attempts: 2, .. })));
    }
    assert!(matches!(world.notified.last(), Some(ClientEvent::ReconnectFailed { .. })));
    assert!(world.forgotten.is_empty(), "the outbox keeps what was not acknowledged");
    world.answers.clear();
    world.join();
    world.settle();
    assert_eq!(world.server.applied, [2]);
}

#[test]
fn a_refusal_that_is_final_is_told_and_one_that_passes_is_waited_for() {
    let refuse = |world: &mut World, refusal: &str| {
        world.join();
        world.open(true);
        world.authenticate(true);
        world.core.handle_packet(world.now, text(refusal.to_owned()));
        world.act();
    };
    let mut world = World::new(settings(), Budget::new(9, 999));
    refuse(&mut world, r#"4{"message":"no","data":{"code":"unauthenticated","retryable":false}}"#);
    let Err(ClientError::Refused(refusal)) = &world.answers[&JOIN] else { panic!("{:?}", world.answers) };
    assert_eq!(refusal.code(), Some("unauthenticated"));

    for refusal in [
        r#"4{"message":"busy","data":{"code":"overloaded","retryable":true,"retry_after_ms":7000}}"#,
        r#"4{"message":"old","data":{"code":"token_expired","retryable":false}}"#,
    ] {
        let mut world = World::new(settings(), Budget::new(9, 999));
        refuse(&mut world, refusal);
        assert!(!world.answers.contains_key(&JOIN));
        let wait = world.core.poll_timeout().unwrap() - world.now;
        assert_eq!(wait, if refusal.contains("7000") { 7 * SECOND } else { SECOND });
        world.settle();
        assert!(world.answers[&JOIN].is_ok(), "with credentials that were asked for again");
    }
}

#[test]
fn the_server_may_put_a_client_out_and_it_stays_away() {
    let mut world = World::joined();
    world.core.handle_packet(world.now, text("1".into()));
    world.act();
    let left = world.notified.last();
    assert!(matches!(left, Some(ClientEvent::Left { reason: DisconnectReason::ByServer, .. })));
    world.cut();
    assert_eq!(world.core.status(), Status::Idle, "nobody wants the connection any more");
    world.emit(1, Some(SECOND));
    assert!(matches!(world.answers[&1], Err(ClientError::Closed)));
}

#[test]
fn a_namespace_that_is_left_before_the_answer_is_left_at_the_server_after_it() {
    let mut world = World::new(settings(), Budget::new(9, 999));
    world.join();
    world.open(true);
    world.authenticate(true);
    world.core.leave(world.now, &"/".into());
    world.act();
    assert!(matches!(world.answers.remove(&JOIN), Some(Err(ClientError::Closed))));
    world.core.join(world.now, &"/".into(), JOIN);
    world.act();
    assert_eq!(
        world.on_their_way().len(),
        1,
        "the reference ends a connection for a packet before its answer"
    );
    world.server_reads();
    world.client_reads();
    assert_eq!(world.on_their_way(), ["41"]);
    world.settle();
    assert!(matches!(world.answers[&JOIN], Ok(Reply::Done)));
    let sids = world.notified.iter().filter_map(|event| match event {
        ClientEvent::Joined { sid, .. } => Some(&**sid),
        _ => None,
    });
    assert_eq!(sids.collect::<Vec<_>>(), ["s2"], "the session of the one who left was nobody's");
}

#[test]
fn a_namespace_that_is_joined_again_at_once_gives_the_server_time_to_see_that_it_was_left() {
    let mut world = World::joined();
    world.core.leave(world.now, &"/".into());
    world.core.join(world.now, &"/".into(), 7);
    world.core.leave(world.now, &"/".into());
    world.core.join(world.now, &"/".into(), 8);
    world.act();
    assert!(world.asked.is_empty(), "the reference ends a connection on which it reads both at once");
    assert_eq!(world.on_their_way(), ["41"]);
    world.pass(SECOND / 10);
    assert_eq!(world.asked.len(), 1);
    world.settle();
    assert!(world.answers[&7].is_err() && world.answers[&8].is_ok());
    let losses = world.notified.iter().filter(|event| matches!(event, ClientEvent::Disconnected { .. }));
    assert_eq!(losses.count(), 0);
}

#[test]
fn a_namespace_that_is_joined_with_the_handshake_is_joined_once_and_restores_its_session() {
    let mut world = World { is_early: true, ..World::new(settings(), Budget::new(9, 999)) };
    for _ in 0..2 {
        world.join();
        world.open(true);
        assert!(world.asked.is_empty(), "its CONNECT is on its way");
        assert_eq!(world.on_their_way().len(), 1);
        world.settle();
        assert!(matches!(world.answers.remove(&JOIN), Some(Ok(Reply::Done))));
        world.answers.clear();
        world.broadcast();
        world.settle();
        world.cut();
        world.broadcast();
        world.pass(SECOND);
    }
    assert_eq!(world.delivered, [0, 1, 2]);
    assert_eq!(world.server.next_pid, 1, "one session");
}

#[test]
fn a_namespace_that_is_left_while_its_early_connect_is_on_its_way_is_left_after_the_answer() {
    let mut world = World { is_early: true, ..World::new(settings(), Budget::new(9, 999)) };
    world.join();
    world.core.leave(world.now, &"/".into());
    world.act();
    world.open(true);
    assert_eq!(world.on_their_way().len(), 1);
    world.server_reads();
    world.client_reads();
    assert_eq!(world.on_their_way(), ["41"]);
}

#[test]
fn a_namespace_that_is_left_and_never_answers_keeps_nobody_from_the_others() {
    let mut world = World::new(settings(), Budget::new(9, 999));
    world.join();
    world.open(true);
    world.authenticate(true);
    world.core.leave(world.now, &"/".into());
    world.act();
    world.pass(30 * SECOND);
    assert_eq!(world.core.status(), Status::Connected);
    world.core.close(world.now);
    world.act();
    world.answers.clear();
    world.join();
    world.settle();
    assert!(matches!(world.answers[&JOIN], Ok(Reply::Done)));
}

#[test]
fn a_namespace_that_has_refused_is_sent_nothing_more() {
    let mut world = World::new(Settings { reconnect: Reconnect::never(), ..settings() }, Budget::new(9, 999));
    world.join();
    world.open(true);
    world.authenticate(true);
    world.core.handle_packet(world.now, text(r#"4{"message":"busy","data":{"retryable":true}}"#.into()));
    world.act();
    assert!(matches!(world.answers[&JOIN], Err(ClientError::Refused(_))));
    assert_eq!(world.on_their_way().len(), 1, "the reference ends the connection of all namespaces for more");
}

#[test]
fn a_session_with_more_missed_events_than_can_wait_is_given_up() {
    let mut world = World::joined();
    world.broadcast();
    world.settle();
    world.cut();
    (0..=16_384).for_each(|_| world.broadcast());
    world.pass(SECOND);
    world.open(true);
    world.authenticate(true);
    world.server_reads();
    (0..=16_384).for_each(|_| world.client_reads());
    assert_eq!(world.core.status(), Status::Reconnecting);
    world.settle();
    let joined = world.notified.iter().rfind(|event| matches!(event, ClientEvent::Joined { .. }));
    assert!(matches!(joined, Some(ClientEvent::Joined { recovered: false, .. })), "{joined:?}");
    assert_eq!(world.delivered, [0]);
}

#[test]
fn a_client_that_was_idle_connects_and_does_not_reconnect() {
    let mut world = World::joined();
    world.core.close(world.now);
    world.act();
    world.notified.clear();
    world.answers.clear();
    world.join();
    assert_eq!(world.core.status(), Status::Connecting);
    world.settle();
    assert!(matches!(world.notified.first(), Some(ClientEvent::Connected { .. })), "{:?}", world.notified);
}

#[test]
fn a_closed_client_takes_its_leave_and_answers_everybody() {
    let mut world = World::joined();
    world.emit(1, Some(SECOND));
    world.send(2);
    world.core.close(world.now);
    let mut sent = Vec::new();
    while let Some(action) = world.core.poll_action() {
        match action {
            Action::Send(sending) => sent.push(sending.packet.text.to_string()),
            Action::Answer(ticket, Err(_)) => sent.push(ticket.to_string()),
            Action::Close => sent.push("close".into()),
            _ => {}
        }
    }
    assert_eq!(sent, ["41", "1", "2", "1", "close"]);
    assert_eq!(world.core.status(), Status::Idle);
}

#[test]
fn an_answer_goes_to_the_connection_that_asked_or_nowhere() {
    let mut world = World::joined();
    world.server.questions.insert(7, world.server.connections);
    world.core.handle_packet(world.now, text(r#"27["ask"]"#.into()));
    let Some(Action::Deliver(incoming)) = world.core.poll_action() else { panic!("no event") };
    let to = incoming.answer_to.unwrap();
    let reply = |world: &mut World| {
        let place = world.budget.take_anyway(0);
        world.core.reply(world.now, &"/".into(), to, &args(&json!("yes")), place);
        world.act();
        world.wire.as_ref().unwrap().0.iter().any(|packet| packet.text == r#"437["yes"]"#)
    };
    assert!(reply(&mut world));
    world.core.leave(world.now, &"/".into());
    world.core.join(world.now, &"/".into(), CONNECT + 10);
    world.act();
    world.settle();
    assert!(!reply(&mut world), "the id belongs to another session now");
    world.cut();
    world.settle();
    assert!(!reply(&mut world));
}

#[test]
fn nonsense_from_the_server_ends_the_connection_with_its_reason() {
    for nonsense in ["9", "2{}", "51-[\"a\",{\"_placeholder\":true,\"num\":9}]"] {
        let mut world = World::joined();
        world.core.handle_packet(world.now, text(nonsense.into()));
        world.core.handle_packet(world.now, Packet::Message(Message::Binary(Default::default())));
        world.act();
        let is_told = world.notified.iter().any(|event| {
            matches!(event, ClientEvent::Disconnected { reason: DisconnectReason::Protocol(_) })
        });
        assert!(is_told, "{nonsense}");
        assert_eq!(world.core.status(), Status::Reconnecting);
    }
}

#[test]
fn a_server_that_announces_more_attachments_than_there_can_be_gets_no_room_for_them() {
    let limits = Limits { attachments_max: usize::MAX, attachment_bytes_max: 1_000 };
    let mut world = World::new(Settings { limits, ..settings() }, Budget::new(9, 999));
    world.join();
    world.settle();
    world.core.handle_packet(world.now, text(r#"5999999999999999-["a"]"#.into()));
    world.core.handle_packet(world.now, Packet::Message(Message::Binary(Default::default())));
    world.core.handle_packet(world.now, text(r#"2["b"]"#.into()));
    world.act();
    assert_eq!(world.core.status(), Status::Reconnecting, "the others did not come");
}

#[test]
fn heartbeats_are_not_answered_faster_than_the_network_takes_the_answers() {
    let mut world = World::joined();
    world.is_slow = true;
    for _ in 0..1_000 {
        world.core.handle_packet(world.now, Packet::Ping("".into()));
    }
    world.act();
    assert_eq!(world.on_their_way().len(), PONGS_MAX);
    world.held.clear();
    world.core.handle_packet(world.now, Packet::Ping("".into()));
    world.act();
    assert_eq!(world.on_their_way().len(), PONGS_MAX + 1);
}

#[test]
fn an_event_that_the_network_has_not_taken_yet_is_not_sent_again() {
    let mut world = World::joined();
    world.core.settings.retry = Retry::times(1, SECOND);
    world.is_slow = true;
    world.send(1);
    (0..3).for_each(|_| world.pass(10 * SECOND));
    assert_eq!(world.on_their_way().len(), 1);
    assert!(!world.answers.contains_key(&1), "nobody could have answered");
    world.is_slow = false;
    world.held.clear();
    world.pass(10 * SECOND);
    world.pass(SECOND);
    assert_eq!(world.on_their_way().len(), 2);
    world.settle();
    assert!(matches!(world.answers[&1], Ok(Reply::Answer(_))));
    assert_eq!(world.server.applied, [1]);
}

#[test]
fn an_answer_that_the_application_cannot_judge_is_final() {
    let mut world = World::joined();
    let judge = |_: &Args| -> Option<Duration> { panic!("it is not what it was") };
    world.core.settings.retry = Retry::forever(SECOND).when(judge);
    world.send(1);
    world.settle();
    assert!(matches!(world.answers[&1], Ok(Reply::Answer(_))));
}

#[test]
fn an_event_that_is_given_up_makes_way_for_the_next() {
    let mut world = World::joined();
    world.core.settings.retry = Retry::times(1, SECOND);
    world.server.moods.extend([Mood::Deaf, Mood::Deaf]);
    world.send(1);
    world.send(2);
    world.server_reads();
    world.pass(10 * SECOND);
    world.pass(SECOND);
    world.server_reads();
    world.pass(10 * SECOND);
    assert!(matches!(world.answers[&1], Err(ClientError::Timeout(_))));
    world.settle();
    assert_eq!(world.server.applied, [2]);
    assert_eq!(world.forgotten.len(), 2);
}

#[test]
fn an_event_that_is_too_large_for_the_server_makes_way_for_the_next() {
    let (large, small) = (u64::MAX, 2);
    let mut world = World::new(settings(), Budget::new(100, 10_000));
    world.payload_max = 30;
    for number in [large, small] {
        world.send(number);
    }
    world.join();
    world.settle();
    assert!(matches!(world.answers[&large], Err(ClientError::InvalidMessage(_))));
    assert_eq!((world.server.applied.clone(), world.forgotten.len()), (vec![small], 2));
    for number in [large - 1, small + 1] {
        world.emit(number, Some(SECOND));
    }
    world.settle();
    assert!(matches!(world.answers[&(large - 1)], Err(ClientError::InvalidMessage(_))));
    assert_eq!(world.server.plain, [small + 1]);
    assert!(world.wire.is_some(), "the connection goes on");
}

#[test]
fn credentials_that_are_too_large_for_the_server_are_told_to_whoever_joins() {
    let mut world = World::new(settings(), Budget::new(100, 10_000));
    world.payload_max = 5;
    world.join();
    world.settle();
    assert!(matches!(world.answers[&JOIN], Err(ClientError::InvalidMessage(_))));
    assert!(world.wire.is_some(), "the connection goes on");
}

#[test]
fn what_is_too_large_in_base64_may_be_sent_after_the_upgrade() {
    let mut world = World::joined();
    world.core.payload_max = PayloadMax { bytes: 100, is_base64: true };
    let bytes = Binary::from(vec![0; 100]);
    for ticket in [1, 2] {
        let args = EncodedArgs::new(&One(&bytes)).unwrap();
        let place = world.budget.take_anyway(args.bytes());
        let answer = Some((ticket, SECOND));
        let emit = Emit { event: "plain".into(), args, answer, is_volatile: false, place };
        world.core.emit(world.now, &"/".into(), emit, false);
        world.core.handle_switched(TransportKind::WebSocket);
        world.act();
    }
    assert!(matches!(world.answers.get(&1), Some(Err(ClientError::InvalidMessage(_)))));
    assert!(!world.answers.contains_key(&2));
    assert_eq!(world.on_their_way().len(), 1);
}

#[test]
fn the_answer_to_the_last_attempt_is_the_answer_even_if_it_says_try_again() {
    let mut world = World::joined();
    world.core.settings.retry = Retry::times(1, SECOND);
    world.server.moods.extend([Mood::Busy, Mood::Busy]);
    world.send(1);
    for _ in 0..2 {
        world.server_reads();
        world.client_reads();
        world.pass(2 * SECOND);
    }
    let Some(Ok(Reply::Answer(answer))) = world.answers.get(&1) else { panic!("{:?}", world.answers) };
    assert_eq!(answer.first::<Value>().unwrap()["ok"], false);
}

#[test]
fn the_connection_is_not_taken_for_dead_while_nobody_reads_it() {
    let mut world = World::joined();
    world.now += 60 * SECOND;
    world.core.handle_alive(world.now);
    world.pass(Duration::ZERO);
    assert_eq!(world.core.status(), Status::Connected);
}

#[test]
fn the_time_to_an_answer_is_measured() {
    let mut world = World::joined();
    world.emit(1, Some(SECOND));
    world.server_reads();
    world.now += Duration::from_millis(30);
    world.client_reads();
    assert_eq!(world.core.poll_rtt(), Some(Duration::from_millis(30)));
    let _: &Args = match &world.answers[&1] {
        Ok(Reply::Answer(args)) => args,
        other => panic!("{other:?}"),
    };
}
