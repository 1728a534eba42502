//! Scenarios: what a simulated cluster goes through, made of nothing but a seed.

use std::time::Duration;

use crate::bus::sim::{Dice, Weather};
use crate::socket::recovery::log_sim::Moods;

/// How a cluster delivers its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Over the bus alone: what is lost is lost.
    Plain,
    /// Through a log that all nodes share: clients continue their sessions on any node.
    Logged,
}

/// A simulated cluster, and what happens to it.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) kind: Kind,
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) clients: usize,
    pub(super) weather: Weather,
    pub(super) moods: Moods,
    /// The maximum number of events that a node keeps.
    pub(super) packets_max: usize,
    /// Whether the log keeps what it should.
    pub(super) is_faithful: bool,
    /// The steps, each so long after the one before.
    pub(super) steps: Vec<(Duration, Step)>,
}

/// The sockets that something is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    Everybody,
    Room(usize),
    AllExcept(usize),
    /// Those in one room, without those that are in another one, too.
    RoomWithout(usize, usize),
    Client(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Which sockets there are.
    Sockets,
    /// What the servers say.
    Servers,
    /// What the clients say.
    Clients,
}

/// What happens next. Nodes, clients and rooms have numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The application on a node sends an event.
    Emit {
        node: usize,
        to: Whom,
    },
    /// The application on the node of a client sends an event to its socket.
    Tell {
        client: usize,
    },
    /// A client lets its server send an event to a room.
    Say {
        client: usize,
        room: usize,
    },
    /// The application on a node lets sockets of all nodes enter or leave a room.
    Change {
        node: usize,
        to: Whom,
        room: usize,
        joins: bool,
    },
    /// A client asks its server to let it enter or leave a room, and waits for the answer.
    Move {
        client: usize,
        room: usize,
        joins: bool,
    },
    /// The application on the node of a client lets it enter or leave a room, and tells nobody.
    MoveHere {
        client: usize,
        room: usize,
        joins: bool,
    },
    Ask {
        node: usize,
        question: Question,
    },
    /// The connection of a client breaks. Its node may not notice.
    Drop {
        client: usize,
        is_noticed: bool,
    },
    /// Somebody with the credentials of a client comes to a node.
    Copy {
        client: usize,
        node: usize,
    },
    /// Somebody with the credentials of a client comes to all nodes at once.
    Rush {
        client: usize,
    },
    /// The application on a node disconnects a client, wherever it is.
    Kick {
        node: usize,
        client: usize,
    },
    /// A process dies, and another one starts in its place, perhaps with the same name.
    Kill {
        node: usize,
        has_same_name: bool,
        down: Duration,
    },
    /// The process that a client is connected to dies, and another one starts in its place.
    KillNodeOf {
        client: usize,
        down: Duration,
    },
    /// A process ends in order, and another one starts in its place.
    Restart {
        node: usize,
        down: Duration,
    },
    /// A process stands still.
    Stop {
        node: usize,
        time: Duration,
    },
    /// A node and the others do not hear each other.
    CutOff {
        node: usize,
        time: Duration,
    },
    /// A node loses what it sends and what it is sent, until its connection to the broker is a new one.
    Deafen {
        node: usize,
        time: Duration,
    },
    /// The connection of a node to the broker is a new one.
    Reconnect {
        node: usize,
    },
    /// The log answers nothing.
    Away {
        time: Duration,
    },
    /// The log drops what is old.
    Shorten {
        keep: usize,
    },
    /// The log loses everything.
    Crash,
}

/// The number of rooms.
pub(super) const ROOMS: usize = 3;

impl Scenario {
    /// Makes the scenario of a seed.
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        let mut dice = Dice::new(seed, ("scenario", kind));
        let (nodes, clients) = (2 + dice.below(4) as usize, 2 + dice.below(4) as usize);
        let is_faithful = dice.chance(60);
        let bad = |dice: &mut Dice, percent| if dice.chance(50) { 0 } else { dice.below(percent) };
        let longest = [5, 50, 500][dice.below(3) as usize];
        let weather = Weather {
            delay_max: dice.duration(Duration::from_millis(longest)),
            lost_percent: bad(&mut dice, 30) as u8,
            direct_lost_percent: bad(&mut dice, 20) as u8,
            doubled_percent: bad(&mut dice, 30) as u8,
        };
        let mut moods = Moods { delay_max: dice.duration(Duration::from_millis(60)), ..Moods::default() };
        if !is_faithful {
            moods.failing_percent = bad(&mut dice, 30);
            moods.silent_percent = bad(&mut dice, 30);
            moods.late_percent = bad(&mut dice, 20);
        }
        let packets_max = if is_faithful || dice.chance(70) { 4_096 } else { 16 };
        let draft = Draft { kind, nodes: nodes as u64, clients: clients as u64, is_faithful };
        let count = 10 + dice.below(40);
        let mut steps = Vec::new();
        while steps.len() < count as usize {
            match dice.chance(12) {
                true => steps.extend(draft.plot(&mut dice)),
                false => steps.push((pause(&mut dice), draft.step(&mut dice))),
            }
        }
        Self { kind, seed, nodes, clients, weather, moods, packets_max, is_faithful, steps }
    }
}

/// Steps follow each other closely, with a longer pause now and then. No two are at the same time.
fn pause(dice: &mut Dice) -> Duration {
    let longest = if dice.chance(85) { 400 } else { 8_000 };
    Duration::from_millis(1 + dice.below(longest))
}

/// What a step has to choose from.
struct Draft {
    kind: Kind,
    nodes: u64,
    clients: u64,
    is_faithful: bool,
}

impl Draft {
    fn step(&self, dice: &mut Dice) -> Step {
        let (node, client, room) = (self.node(dice), self.client(dice), self.room(dice));
        let joins = dice.chance(70);
        match dice.below(100) {
            0..22 => Step::Emit { node, to: self.whom(dice) },
            22..25 => Step::Tell { client },
            25..32 => Step::Say { client, room },
            32..42 => Step::Change { node, to: self.whom(dice), room, joins },
            42..52 => Step::Move { client, room, joins },
            52..57 => Step::MoveHere { client, room, joins },
            57..68 => Step::Ask { node, question: self.question(dice) },
            68..79 => Step::Drop { client, is_noticed: dice.chance(60) },
            79..81 => Step::Copy { client, node },
            81..82 => Step::Kick { node, client },
            _ => self.trouble(node, dice),
        }
    }

    /// Several steps that are dangerous together, because of what they fall into.
    fn plot(&self, dice: &mut Dice) -> Vec<(Duration, Step)> {
        let (node, client, room) = (self.node(dice), self.client(dice), self.room(dice));
        let time = Duration::from_millis(2_000 + dice.below(3_000));
        let joins = dice.chance(70);
        let steps = match (self.kind, dice.below(4)) {
            // A node dies with what it has not stored, and somebody may have been told.
            (Kind::Logged, 0) => vec![
                Step::Away { time },
                Step::Move { client, room, joins },
                Step::Emit { node, to: Whom::Room(room) },
                Step::KillNodeOf { client, down: time },
            ],
            // A node misses what the log no longer has when it looks.
            (Kind::Logged, 1) if !self.is_faithful => vec![
                Step::Deafen { node, time },
                Step::Stop { node, time },
                Step::Change { node: self.node(dice), to: Whom::Everybody, room, joins },
                Step::Emit { node: self.node(dice), to: Whom::Room(room) },
                Step::Shorten { keep: dice.below(2) as usize },
            ],
            // Of many who come at once with the same credentials, one continues.
            (_, 2) => vec![Step::Drop { client, is_noticed: joins }, Step::Rush { client }],
            // The application goes on with a client that has left.
            _ => vec![
                Step::Drop { client, is_noticed: false },
                Step::MoveHere { client, room, joins },
                Step::Emit { node, to: Whom::Room(room) },
                Step::MoveHere { client, room, joins: !joins },
            ],
        };
        steps.into_iter().map(|step| (Duration::from_millis(1 + dice.below(250)), step)).collect()
    }

    fn trouble(&self, node: usize, dice: &mut Dice) -> Step {
        let time = Duration::from_millis(200 + dice.below(14_000));
        let down = Duration::from_millis(dice.below(4_000));
        let has_log = self.kind == Kind::Logged;
        match dice.below(18) {
            0..4 => Step::Kill { node, has_same_name: dice.chance(30), down },
            4..6 => Step::Restart { node, down },
            6..8 => Step::Stop { node, time },
            8..11 => Step::CutOff { node, time },
            11..13 => Step::Deafen { node, time },
            13 => Step::Reconnect { node },
            14..16 if has_log => Step::Away { time: time / 2 },
            16 if has_log && !self.is_faithful => Step::Shorten { keep: dice.below(6) as usize },
            17 if has_log && !self.is_faithful => Step::Crash,
            _ => Step::Reconnect { node },
        }
    }

    fn whom(&self, dice: &mut Dice) -> Whom {
        match dice.below(10) {
            0..2 => Whom::Everybody,
            2..6 => Whom::Room(self.room(dice)),
            6..7 => Whom::AllExcept(self.room(dice)),
            7..8 => Whom::RoomWithout(self.room(dice), self.room(dice)),
            _ => Whom::Client(self.client(dice)),
        }
    }

    fn question(&self, dice: &mut Dice) -> Question {
        [Question::Sockets, Question::Servers, Question::Clients][dice.below(3) as usize]
    }

    fn node(&self, dice: &mut Dice) -> usize {
        dice.below(self.nodes) as usize
    }

    fn client(&self, dice: &mut Dice) -> usize {
        dice.below(self.clients) as usize
    }

    fn room(&self, dice: &mut Dice) -> usize {
        dice.below(ROOMS as u64) as usize
    }
}
