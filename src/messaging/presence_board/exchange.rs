//! What nodes tell each other of their users, and how a node finds out that it has missed something. Pure: `now` is an
//! argument, and the caller sends what is returned.
//!
//! A node numbers its reports without holes. Whoever hears a number that it does not expect, or of a node for the first
//! time, asks that node for all of its users, page by page. So nobody has to know why something is missing.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::aggregate::Presences;
use super::user::{Moment, Presence};
use super::wire::{Body, Message, Record, VERSION};
use crate::messaging::metrics;
use crate::node::NodeId;

/// What this node and the others have told each other.
#[derive(Debug)]
pub(super) struct Exchange {
    node: NodeId,
    /// The number of the last reports of this node.
    number: u64,
    others: HashMap<NodeId, Other>,
}

/// Another node.
#[derive(Debug)]
struct Other {
    /// The number of its last reports.
    number: u64,
    heard: Instant,
    /// Whether the cluster knows it as one of its members.
    is_member: bool,
    asking: Option<Asking>,
}

/// The state of a question for all users of another node.
#[derive(Debug, Default)]
struct Asking {
    after: Option<Uuid>,
    /// The number of the first page. Who is neither on a page nor reported since is gone.
    base: Option<u64>,
    /// When the next page was asked for.
    asked: Option<Instant>,
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    All,
    One(NodeId),
}

/// What follows from a message or from the time: what clients have to be told, and what to send.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) told: Vec<Presence>,
    pub(super) sent: Vec<(To, Message)>,
}

impl Exchange {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, number: 0, others: HashMap::new() }
    }

    /// Returns the next reports, if there is something to report.
    pub(super) fn reports(&mut self, all: &mut Presences, now: Moment) -> Option<Message> {
        let records = all.take_news(RECORDS_MAX, now);
        if records.is_empty() {
            return None;
        }
        self.number += 1;
        Some(self.message(Body::Reports(records), now))
    }

    /// Returns a sign of life.
    pub(super) fn alive(&self, now: Moment) -> Message {
        self.message(Body::Reports(Vec::new()), now)
    }

    /// Returns a sign of life that asks the others for theirs.
    pub(super) fn hello(&self, now: Moment) -> Message {
        self.message(Body::Hello, now)
    }

    fn message(&self, body: Body, now: Moment) -> Message {
        Message { version: VERSION, node: self.node, at: now.micros, number: self.number, body }
    }

    /// Takes a message of another node.
    pub(super) fn take(&mut self, all: &mut Presences, message: Message, now: Moment) -> Outcome {
        let Message { node, at, number, body, .. } = message;
        let (mut outcome, sent) = (Outcome::default(), Moment { instant: now.instant, micros: at });
        if node == self.node || !self.knows(node, number, now) {
            return outcome;
        }
        match body {
            Body::Reports(records) => {
                if self.hears(node, number, !records.is_empty()) {
                    let told = records.iter().filter_map(|record| all.report((node, number), record, sent));
                    outcome.told.extend(told);
                }
            }
            Body::Hello => {
                self.hears(node, number, false);
                outcome.sent.push((To::All, self.alive(now)));
            }
            Body::Ask { after } => outcome.sent.push((To::One(node), self.page(all, after, now))),
            Body::Page { after, records, is_last } => {
                if let Some(base) = self.expects(node, number, after, &records, is_last) {
                    let told = records.iter().filter_map(|record| all.report((node, number), record, sent));
                    outcome.told.extend(told);
                    outcome.told.extend(self.turn_page(all, (node, base), &records, is_last, now));
                }
            }
        }
        outcome.sent.extend(self.question(node, now));
        outcome
    }

    /// Notes a sign of life. Returns whether there is room to know the node.
    fn knows(&mut self, node: NodeId, number: u64, now: Moment) -> bool {
        if self.others.len() >= NODES_MAX && !self.others.contains_key(&node) {
            return false;
        }
        let unknown = || Other {
            // These reports are taken too.
            number: number.saturating_sub(1),
            heard: now.instant,
            is_member: false,
            asking: Some(Asking::default()),
        };
        self.others.entry(node).or_insert_with(unknown).heard = now.instant;
        true
    }

    /// Notes the number of reports, or of the last ones. Returns whether these are news.
    fn hears(&mut self, node: NodeId, number: u64, are_reports: bool) -> bool {
        let Some(other) = self.others.get_mut(&node) else { return false };
        let expected = other.number + u64::from(are_reports);
        if number > expected {
            let asked = other.asking.as_ref().and_then(|asking| asking.asked);
            other.asking = Some(Asking { asked, ..Asking::default() });
        }
        let is_news = number > other.number;
        other.number = other.number.max(number);
        is_news
    }

    /// Returns the next users of this node, for another one.
    fn page(&self, all: &Presences, after: Option<Uuid>, now: Moment) -> Message {
        let mut records = all.page(after, RECORDS_MAX + 1);
        let is_last = records.len() <= RECORDS_MAX;
        records.truncate(RECORDS_MAX);
        self.message(Body::Page { after, records, is_last }, now)
    }

    /// Returns the number of the first page, if a page is the one that was asked for.
    fn expects(
        &mut self,
        node: NodeId,
        number: u64,
        after: Option<Uuid>,
        records: &[Record],
        is_last: bool,
    ) -> Option<u64> {
        let other = self.others.get_mut(&node)?;
        let asking = other.asking.as_mut()?;
        // A page that is not the last one must come further, or the question would never end.
        let comes_further = records.last().is_some_and(|last| after.is_none_or(|after| last.user > after));
        // One that later reports have overtaken would bring back who has left since. It is asked for again.
        let is_right = asking.asked.is_some() && asking.after == after && number >= other.number;
        if !is_right || !(is_last || comes_further) {
            return None;
        }
        if asking.base.is_none() {
            other.number = number;
        }
        Some(*asking.base.get_or_insert(number))
    }

    /// Goes on with the page after this one, or ends the question.
    fn turn_page(
        &mut self,
        all: &mut Presences,
        (node, base): (NodeId, u64),
        records: &[Record],
        is_last: bool,
        now: Moment,
    ) -> Vec<Presence> {
        let Some(other) = self.others.get_mut(&node) else { return Vec::new() };
        if let Some(asking) = other.asking.as_mut().filter(|_| !is_last) {
            (asking.after, asking.asked) = (records.last().map(|last| last.user), None);
            return Vec::new();
        }
        other.asking = None;
        metrics::PRESENCE_READ.increment();
        all.forget(node, Some(base), now)
    }

    /// Returns the question that another node has to be asked now.
    fn question(&mut self, node: NodeId, now: Moment) -> Option<(To, Message)> {
        let asking = self.others.get_mut(&node)?.asking.as_mut()?;
        if asking.asked.is_some_and(|asked| now.instant.duration_since(asked) < ASK_PAUSE) {
            return None;
        }
        asking.asked = Some(now.instant);
        let ask = Body::Ask { after: asking.after };
        Some((To::One(node), self.message(ask, now)))
    }

    /// Forgets the nodes that are not among the members of the cluster any more, and asks again where no answer came.
    pub(super) fn look(&mut self, all: &mut Presences, members: &[NodeId], now: Moment) -> Outcome {
        let mut outcome = Outcome::default();
        self.others.retain(|node, other| {
            let was_member = std::mem::replace(&mut other.is_member, members.contains(node));
            let is_new = !was_member && now.instant.duration_since(other.heard) < MEMBER_WAIT;
            let stays = other.is_member || is_new;
            if !stays {
                outcome.told.extend(all.forget(*node, None, now));
            }
            stays
        });
        let nodes: Vec<NodeId> = self.others.keys().copied().collect();
        outcome.sent.extend(nodes.into_iter().filter_map(|node| self.question(node, now)));
        outcome
    }

    /// Keeps what other nodes have reported while this node cannot hear them: that is no sign that they are gone.
    pub(super) fn cannot_hear(&mut self, now: Moment) {
        for other in self.others.values_mut() {
            (other.is_member, other.heard) = (false, now.instant);
        }
    }
}

/// The most users in one message between nodes.
pub(super) const RECORDS_MAX: usize = 1_000;
/// The most other nodes whose users this node knows.
const NODES_MAX: usize = 1_024;
/// The pause before a page is asked for again that did not come.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// How long a node may be heard before the cluster knows it as a member.
const MEMBER_WAIT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::user::{Choice, Status};
    use super::*;
    use crate::messaging::node_message::NodeMessage;
    use crate::models::user_presence::StoredChoice;

    const ALICE: Uuid = Uuid::from_u128(1);
    const PHONE: &str = "phone";

    struct Node {
        id: NodeId,
        all: Presences,
        exchange: Exchange,
        /// How far the clock for people is ahead.
        ahead: i64,
        told: Vec<Presence>,
    }

    /// Nodes, what is on its way between them, and the time.
    struct World {
        nodes: Vec<Node>,
        /// What is on its way, with the number of its receiver.
        under_way: Vec<(usize, Message)>,
        /// The nodes that have not died.
        alive: Vec<usize>,
        start: Instant,
        millis: u64,
    }

    impl World {
        fn new(count: u8) -> Self {
            let node = |n: u8| {
                let id = NodeId::from_bytes([n; 5]);
                let ahead = i64::from(n) * 3_000_000;
                Node { id, all: Presences::new(true), exchange: Exchange::new(id), ahead, told: Vec::new() }
            };
            let mut world = Self {
                nodes: (0..count).map(node).collect(),
                under_way: Vec::new(),
                alive: (0..usize::from(count)).collect(),
                start: Instant::now(),
                millis: 1_000_000,
            };
            for n in 0..world.nodes.len() {
                let hello = world.nodes[n].exchange.hello(world.now(n));
                world.send(n, To::All, &hello);
            }
            world
        }

        fn now(&self, node: usize) -> Moment {
            let micros = self.millis as i64 * 1_000 + self.nodes[node].ahead;
            Moment { instant: self.start + Duration::from_millis(self.millis), micros }
        }

        fn send(&mut self, from: usize, to: To, message: &Message) {
            for (n, node) in self.nodes.iter().enumerate() {
                if n != from && self.alive.contains(&n) && (to == To::All || to == To::One(node.id)) {
                    self.under_way.push((n, message.clone()));
                }
            }
        }

        fn change<T: IntoIterator<Item = Presence>>(
            &mut self,
            node: usize,
            change: impl FnOnce(&mut Presences, Moment) -> T,
        ) {
            let now = self.now(node);
            let it = &mut self.nodes[node];
            it.told.extend(change(&mut it.all, now));
        }

        /// Every node that is alive does what it does by itself after a while.
        fn pass(&mut self, millis: u64) {
            self.millis += millis;
            for n in self.alive.clone() {
                self.change(n, Presences::due);
                let now = self.now(n);
                let node = &mut self.nodes[n];
                let reports = node.exchange.reports(&mut node.all, now);
                reports.inspect(|reports| self.send(n, To::All, reports));
            }
        }

        /// Delivers the message at this place, or the last one.
        fn deliver(&mut self, place: usize) {
            if self.under_way.is_empty() {
                return;
            }
            let (n, message) = self.under_way.remove(place % self.under_way.len());
            let decoded = Message::decode(&message.encode().unwrap()).unwrap();
            let now = self.now(n);
            let node = &mut self.nodes[n];
            let Outcome { told, sent } = node.exchange.take(&mut node.all, decoded, now);
            node.told.extend(told);
            sent.iter().for_each(|(to, message)| self.send(n, *to, message));
        }

        /// Lets seconds pass in which nothing is lost, and all who are alive are known to be.
        fn calm(&mut self, seconds: usize) {
            (0..seconds).for_each(|_| self.calm_second());
        }

        /// Lets so much time pass that every lease and every grace period is over.
        fn calm_for_long(&mut self) {
            for _ in 0..6 {
                self.pass(15_000);
                self.calm(2);
            }
        }

        fn calm_second(&mut self) {
            self.pass(500);
            let ids: Vec<NodeId> = self.alive.iter().map(|n| self.nodes[*n].id).collect();
            for n in self.alive.clone() {
                let now = self.now(n);
                let node = &mut self.nodes[n];
                let Outcome { told, mut sent } = node.exchange.look(&mut node.all, &ids, now);
                node.told.extend(told);
                sent.push((To::All, node.exchange.alive(now)));
                sent.iter().for_each(|(to, message)| self.send(n, *to, message));
            }
            while !self.under_way.is_empty() {
                self.deliver(0);
            }
            self.pass(500);
            while !self.under_way.is_empty() {
                self.deliver(0);
            }
        }

        fn shown(&self, node: usize, user: Uuid) -> Presence {
            self.nodes[node].all.shown(user, self.now(node))
        }

        fn told(&mut self, node: usize) -> Vec<Status> {
            self.nodes[node].told.drain(..).map(|presence| presence.status).collect()
        }
    }

    #[test]
    fn a_user_with_devices_on_two_nodes_is_told_once_and_seen_alike_by_all() {
        let mut world = World::new(3);
        world.calm(1);
        world.change(0, |all, now| all.active(ALICE, PHONE, now));
        world.calm(1);
        world.change(1, |all, now| all.active(ALICE, "laptop", now));
        world.calm(1);
        for n in 0..3 {
            assert_eq!(world.told(n), [Status::Online]);
            assert_eq!(world.shown(n, ALICE), world.shown(0, ALICE));
        }
        let dnd = StoredChoice { choice: Choice::Dnd.number(), until: None, set_at: 1 };
        world.change(1, |all, now| all.choose(ALICE, dnd, now));
        world.calm(1);
        for n in 0..3 {
            assert_eq!(world.told(n), [Status::Dnd]);
            assert_eq!(world.shown(n, ALICE), world.shown(1, ALICE));
        }
    }

    #[test]
    fn every_node_knows_how_many_devices_a_user_has_on_the_others() {
        let mut world = World::new(3);
        let elsewhere = |world: &World| [0, 1, 2].map(|n: usize| world.nodes[n].all.elsewhere(ALICE));
        world.change(0, |all, now| all.active(ALICE, PHONE, now));
        world.change(0, |all, now| all.active(ALICE, "tablet", now));
        world.change(1, |all, now| all.arrived((ALICE, "laptop"), true, None, now));
        world.calm(1);
        assert_eq!(elsewhere(&world), [1, 2, 3]);
        world.change(0, |all, now| all.gone(ALICE, PHONE, now));
        world.calm(1);
        assert_eq!(elsewhere(&world), [1, 1, 2], "one of two has left");
        // As a node of an earlier version, which does not say how many there are.
        let record = Record {
            user: ALICE,
            devices: super::super::wire::Devices::Idle,
            count: 0,
            since: 0,
            last_active: None,
            version: 1,
            chosen: None,
        };
        let (old, now) = (NodeId::from_bytes([9; 5]), world.now(2));
        let message = Message {
            version: VERSION,
            node: old,
            at: now.micros,
            number: 1,
            body: Body::Reports(vec![record]),
        };
        world.under_way.push((2, message));
        world.deliver(0);
        assert_eq!(elsewhere(&world), [1, 1, 3]);
    }

    #[test]
    fn who_moves_to_another_node_within_the_grace_period_is_not_told_and_who_stays_away_is_told_once() {
        let mut world = World::new(3);
        world.change(0, |all, now| all.active(ALICE, PHONE, now));
        world.calm(1);
        world.nodes.iter_mut().for_each(|node| node.told.clear());
        world.change(0, |all, now| all.gone(ALICE, PHONE, now));
        world.calm(19);
        world.change(1, |all, now| all.active(ALICE, PHONE, now));
        world.calm(10);
        for n in 0..3 {
            assert_eq!(world.told(n), []);
        }
        world.change(1, |all, now| all.gone(ALICE, PHONE, now));
        world.calm(25);
        let version = world.nodes[0].told[0].version;
        for n in 0..3 {
            assert_eq!(world.nodes[n].told[0].version, version, "the same on all nodes");
            assert_eq!(world.told(n), [Status::Offline]);
            assert!(world.nodes[n].all.is_empty(), "nothing is left");
        }
    }

    #[test]
    fn a_node_that_joins_reads_all_users_of_the_others_page_by_page() {
        let mut world = World::new(2);
        world.calm(1);
        let users = RECORDS_MAX as u128 * 2 + 7;
        for user in 0..users {
            world.change(0, |all, now| all.active(Uuid::from_u128(user), PHONE, now));
        }
        world.calm(4);
        let late = World::new(3).nodes.pop().unwrap();
        world.nodes.push(late);
        world.alive.push(2);
        world.calm(2);
        let online = |user: u128| world.shown(2, Uuid::from_u128(user)).status == Status::Online;
        assert!((0..users).all(online));
        assert_eq!(world.shown(2, ALICE), world.shown(0, ALICE), "also the version");
        assert_eq!(world.told(2), vec![Status::Online; users as usize], "for those who have asked before");
    }

    #[test]
    fn a_node_that_dies_takes_its_users_with_it_and_an_outage_does_not() {
        let mut world = World::new(2);
        world.change(0, |all, now| all.active(ALICE, PHONE, now));
        world.calm(1);
        assert_eq!(world.told(1), [Status::Online]);
        for _ in 0..100 {
            let now = world.now(1);
            world.nodes[1].exchange.cannot_hear(now);
            world.pass(1_000);
            world.under_way.clear();
        }
        assert_eq!(world.told(1), [], "nobody is gone because the broker is");
        world.calm(1);
        world.calm(1);
        assert_eq!(world.told(1), [Status::Idle], "what was missed is read");
        world.alive = vec![1];
        world.calm(20);
        assert_eq!(world.told(1), []);
        world.calm(5);
        assert_eq!(world.told(1), [Status::Offline]);
        assert!(world.nodes[1].all.is_empty() && world.nodes[1].exchange.others.is_empty());
    }

    #[test]
    fn a_page_that_later_reports_have_overtaken_brings_nobody_back() {
        let mut world = World::new(2);
        world.change(0, |all, now| all.active(ALICE, PHONE, now));
        world.pass(0);
        // The second node meets the first one, and asks it.
        while !matches!(world.under_way.last(), Some((1, Message { body: Body::Page { .. }, .. }))) {
            world.deliver(0);
        }
        let page = world.under_way.pop().unwrap();
        world.change(0, |all, now| all.gone(ALICE, PHONE, now));
        world.pass(0);
        while !world.under_way.is_empty() {
            world.deliver(0);
        }
        world.under_way.push(page);
        world.calm(25);
        assert!(world.nodes[1].all.is_empty());
    }

    #[test]
    fn a_page_that_does_not_come_further_is_dropped() {
        let mut world = World::new(2);
        world.calm(1);
        let (from, now) = (world.nodes[0].id, world.now(1));
        let node = &mut world.nodes[1];
        node.exchange.others.get_mut(&from).unwrap().asking =
            Some(Asking { asked: Some(now.instant), ..Asking::default() });
        let body = Body::Page { after: None, records: Vec::new(), is_last: false };
        let page = Message { version: VERSION, node: from, at: 0, number: 9, body };
        let outcome = node.exchange.take(&mut node.all, page, now);
        assert!(outcome.sent.is_empty(), "no question that leads nowhere");
    }

    /// What a user does, or the bus.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Active { node: usize, user: u8, device: usize },
        Arrive { node: usize, user: u8, device: usize },
        Leave { node: usize, user: u8, device: usize },
        Choose { node: usize, user: u8, choice: i32 },
        Deliver(usize),
        Lose(usize),
        Double(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let device = || (0..3_usize, 0..4_u8, 0..2_usize);
        prop_oneof![
            4 => device().prop_map(|(node, user, device)| Step::Active { node, user, device }),
            2 => device().prop_map(|(node, user, device)| Step::Arrive { node, user, device }),
            4 => device().prop_map(|(node, user, device)| Step::Leave { node, user, device }),
            2 => (0..3_usize, 0..4_u8, 0..4_i32)
                .prop_map(|(node, user, choice)| Step::Choose { node, user, choice }),
            12 => any::<usize>().prop_map(Step::Deliver),
            3 => any::<usize>().prop_map(Step::Lose),
            3 => any::<usize>().prop_map(Step::Double),
            6 => (0..9_000_u64).prop_map(Step::Pass),
        ]
    }

    /// What is true: who is connected where, and what was chosen last.
    #[derive(Default)]
    struct Truth {
        devices: BTreeSet<(usize, u8, usize)>,
        chosen: BTreeMap<u8, StoredChoice>,
        choices: i64,
    }

    impl Truth {
        fn is_on(&self, node: usize, user: u8) -> bool {
            self.devices.iter().any(|it| (it.0, it.1) == (node, user))
        }

        fn status(&self, user: u8, active: bool) -> Status {
            let choice = self.chosen.get(&user).map_or(Choice::Online, |it| Choice::from_number(it.choice));
            match choice {
                _ if !self.devices.iter().any(|it| it.1 == user) => Status::Offline,
                Choice::Invisible => Status::Offline,
                Choice::Dnd => Status::Dnd,
                Choice::Online if active => Status::Online,
                Choice::Online | Choice::Idle => Status::Idle,
            }
        }
    }

    fn id(user: u8) -> Uuid {
        Uuid::from_u128(u128::from(user))
    }

    fn take_step(world: &mut World, truth: &mut Truth, step: Step) {
        let names = ["phone", "laptop"];
        match step {
            Step::Active { node, user, device } | Step::Arrive { node, user, device } => {
                let idle = matches!(step, Step::Arrive { .. });
                truth.devices.insert((node, user, device));
                let chosen = truth.chosen.get(&user).copied();
                world.change(node, |all, now| all.arrived((id(user), names[device]), idle, chosen, now));
            }
            Step::Leave { node, user, device } => {
                truth.devices.remove(&(node, user, device));
                world.change(node, |all, now| all.gone(id(user), names[device], now));
            }
            Step::Choose { node, user, choice } if truth.is_on(node, user) => {
                truth.choices += 1;
                let chosen = StoredChoice { choice, until: None, set_at: truth.choices };
                truth.chosen.insert(user, chosen);
                world.change(node, |all, now| all.choose(id(user), chosen, now));
            }
            Step::Choose { .. } => {}
            Step::Deliver(place) => world.deliver(place),
            Step::Lose(place) if !world.under_way.is_empty() => {
                world.under_way.remove(place % world.under_way.len());
            }
            Step::Double(place) if !world.under_way.is_empty() => {
                let again = world.under_way[place % world.under_way.len()].clone();
                world.under_way.push(again);
            }
            Step::Lose(_) | Step::Double(_) => {}
            Step::Pass(millis) => world.pass(millis),
        }
    }

    proptest! {
        #[test]
        fn whatever_is_lost_repeated_or_reordered_all_nodes_agree_with_the_truth_in_the_end(
            steps in prop::collection::vec(step(), 0..250)
        ) {
            let (mut world, mut truth) = (World::new(3), Truth::default());
            for step in steps {
                take_step(&mut world, &mut truth, step);
            }
            world.calm_for_long();
            for (node, user) in (0..3).flat_map(|node| (0..4).map(move |user| (node, user))) {
                prop_assert_eq!(world.shown(node, id(user)).status, truth.status(user, false), "{} on {}", user, node);
            }
            let devices: Vec<_> = truth.devices.iter().copied().collect();
            for (node, user, device) in devices {
                take_step(&mut world, &mut truth, Step::Active { node, user, device });
            }
            world.calm(1);
            for (node, user) in (0..3).flat_map(|node| (0..4).map(move |user| (node, user))) {
                let (here, there) = (world.shown(node, id(user)), world.shown(0, id(user)));
                prop_assert_eq!(here.status, truth.status(user, true));
                if here.status == Status::Online {
                    prop_assert_eq!(here, there, "also the version");
                }
            }
            // The last node dies, then everybody leaves the others.
            world.alive.pop();
            truth.devices.retain(|(node, ..)| *node != 2);
            world.calm_for_long();
            for (node, user) in (0..2).flat_map(|node| (0..4).map(move |user| (node, user))) {
                prop_assert_eq!(world.shown(node, id(user)).status, truth.status(user, false));
            }
            for (node, user, device) in std::mem::take(&mut truth.devices) {
                take_step(&mut world, &mut truth, Step::Leave { node, user, device });
            }
            world.calm_for_long();
            // What was chosen here is remembered a while longer, for others who have missed it.
            world.pass(600_000);
            prop_assert!(world.alive.iter().all(|node| world.nodes[*node].all.is_empty()));
        }

        #[test]
        fn any_message_is_taken_without_harm(
            numbers in (any::<u64>(), any::<i64>(), any::<i64>(), any::<i64>()),
            until in any::<Option<i64>>(), kind in 0..3_u8, last in any::<bool>(),
        ) {
            let mut world = World::new(2);
            world.calm(1);
            let (number, at, since, version) = numbers;
            let chosen = Some(StoredChoice { choice: version as i32, until, set_at: since });
            let devices = [super::super::wire::Devices::Gone, super::super::wire::Devices::Idle, super::super::wire::Devices::Active];
            let records: Vec<Record> = devices.into_iter().map(|devices| Record {
                user: ALICE, devices, count: u16::MAX, since, last_active: Some(at.wrapping_mul(3)), version, chosen,
            }).collect();
            let body = match kind {
                0 => Body::Reports(records),
                1 => Body::Ask { after: None },
                _ => Body::Page { after: None, records, is_last: last },
            };
            let message = Message { version: VERSION, node: NodeId::from_bytes([9; 5]), at, number, body };
            for _ in 0..2 {
                world.under_way.push((0, message.clone()));
                world.calm(1);
            }
        }
    }
}
