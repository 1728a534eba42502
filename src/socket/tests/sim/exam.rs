//! The exam after the faults: all nodes agree, everything arrives, who dies is named, and in the end nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::logged::Journal;
use super::scenario::{Kind, Question, ROOMS, Whom};
use super::world::{ABSENCE_MAX, Node, World};
use crate::bus::sim::{Dice, Weather};
use crate::socket::recovery::log_sim::Moods;
use crate::socket::tests::recovery::main;

impl World {
    /// Looks whether the cluster has come through its faults.
    pub(super) async fn examine(self: &Arc<Self>) {
        self.bus.heal();
        self.bus.set_weather(Weather::default());
        self.log.set_moods(Moods { delay_max: Duration::from_millis(4), ..Moods::default() });
        if !self.everybody_is_there().await {
            return self.observer.lock().object("not all clients come back");
        }
        self.reach().await;
        // Connections that broke without their nodes' notice are still there, but not with a session that went on.
        self.places();
        self.ghosts_over.cancel();
        sleep(AGREED_AFTER).await;
        self.reach().await;
        self.agree().await;
        self.deliver().await;
        self.check_sessions();
        self.lose_a_node().await;
        self.leave_nothing().await;
    }

    fn nodes(&self) -> Vec<Node> {
        (0..self.scenario.nodes).filter_map(|slot| self.node(slot)).collect()
    }

    /// Returns where each client is, and its rooms.
    fn places(&self) -> BTreeMap<String, (u64, BTreeSet<String>)> {
        let mut places = BTreeMap::new();
        for node in self.nodes() {
            for socket in main(&node.server).sockets() {
                let rooms = socket.rooms().iter().map(|room| room.to_string()).collect();
                if let Some((other, _)) = places.insert(socket.id().to_owned(), (node.process, rooms)) {
                    self.observer.lock().object(format!("a session is on p{other} and p{}", node.process));
                }
            }
        }
        places
    }

    async fn everybody_is_there(&self) -> bool {
        for _ in 0..600 {
            if self.clients.iter().all(|client| client.face.lock().peer.is_some()) {
                return true;
            }
            sleep(Duration::from_millis(100)).await;
        }
        false
    }

    /// Waits until every node has delivered everything.
    async fn reach(&self) {
        let since = Instant::now();
        for node in self.nodes() {
            let Some(store) = main(&node.server).delivery().shared().cloned() else { return };
            while !store.is_settled() || store.head() != (self.log.epoch(), self.log.last()) {
                if since.elapsed() > REACHED_AFTER {
                    return self.observer.lock().object(format!("p{} does not follow the log", node.process));
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
        // Clients read what has arrived.
        sleep(Duration::from_millis(400)).await;
    }

    /// Checks that all nodes know each other, and say the same of all clients.
    async fn agree(&self) {
        let (nodes, places) = (self.nodes(), self.places());
        let clients: BTreeSet<String> =
            self.clients.iter().map(|client| client.face.lock().sid.clone()).collect();
        let all: BTreeSet<String> = places.keys().cloned().collect();
        if all != clients {
            self.observer.lock().object(format!("{} sockets for {} clients", all.len(), clients.len()));
        }
        for node in &nodes {
            let found = main(&node.server).fetch_sockets().await.unwrap();
            let process =
                |node| nodes.iter().find(|other| other.server.node() == node).map(|node| node.process);
            let found: BTreeMap<String, (u64, BTreeSet<String>)> = found
                .sockets
                .iter()
                .map(|it| {
                    (
                        it.id().to_owned(),
                        (process(it.node()).unwrap_or_default(), it.rooms().iter().cloned().collect()),
                    )
                })
                .collect();
            if found != places || node.server.server_count() != nodes.len() {
                self.observer.lock().object(format!("p{} sees {found:?}, not {places:?}", node.process));
            }
            for question in [Question::Sockets, Question::Servers, Question::Clients] {
                let outcome = self.ask(node, question).await;
                let is_complete = match question {
                    Question::Servers => outcome.nodes.len() + 1 == nodes.len(),
                    Question::Sockets | Question::Clients => outcome.sockets == clients,
                };
                if !is_complete || !outcome.silent.is_empty() || !outcome.silent_clients.is_empty() {
                    self.observer.lock().object(format!("p{} asked {question:?}: {outcome:?}", node.process));
                }
            }
        }
    }

    /// Sends something from every node, and checks that everybody gets what is for them.
    async fn deliver(&self) {
        let places = self.places();
        let begun = self.observer.lock().emits.len() as u64;
        for node in self.nodes() {
            let rooms = (0..ROOMS).flat_map(|n| [Whom::Room(n), Whom::AllExcept(n)]);
            let clients = (0..self.scenario.clients).map(Whom::Client);
            [Whom::Everybody].into_iter().chain(rooms).chain(clients).for_each(|whom| self.emit(&node, whom));
        }
        sleep(Duration::from_secs(1)).await;
        self.reach().await;
        let mut observer = self.observer.lock();
        for client in &self.clients {
            let face = client.face.lock();
            let got: BTreeSet<u64> =
                face.received.iter().copied().filter(|number| *number >= begun).collect();
            let Some((_, rooms)) = places.get(&face.sid) else { continue };
            let meant = (begun..observer.emits.len() as u64).filter(|number| {
                let emit = &observer.emits[*number as usize];
                let (to, except) = (&emit.rooms, &emit.except);
                (to.is_empty() || to.iter().any(|room| rooms.contains(room)))
                    && !except.iter().any(|room| rooms.contains(room))
            });
            let meant: BTreeSet<u64> = meant.collect();
            if got != meant {
                observer.object(format!("c{} got {got:?}, not {meant:?}", client.number));
            }
        }
    }

    /// Checks all sessions against the log.
    pub(super) fn check_sessions(&self) {
        if self.scenario.kind != Kind::Logged {
            return;
        }
        let journal = Journal::read(self.log.journal());
        let mut observer = self.observer.lock();
        let outcome = journal.check(&observer.emits);
        observer.check(outcome);
        let sids: BTreeSet<String> =
            self.clients.iter().map(|client| client.face.lock().sid.clone()).collect();
        let sessions = std::mem::take(&mut observer.sessions);
        for (sid, session) in &sessions.0 {
            let outcome = session.check(sid, &journal, sids.contains(sid));
            let Err(wrong) = outcome else { continue };
            let name = observer.name(sid);
            observer.note(format!("{}{}", journal.story(), session.story()));
            observer.object(format!("{name}: {wrong}"));
        }
        observer.sessions = sessions;
    }

    /// Kills a node. Its silence costs every question one deadline, until ten seconds have passed.
    async fn lose_a_node(self: &Arc<Self>) {
        let mut dice = Dice::new(self.scenario.seed, "exam");
        let slot = dice.below(self.scenario.nodes as u64) as usize;
        let dead = self.slots.lock()[slot].node.as_ref().map(|node| node.server.node());
        let (Some(dead), Some(asking)) = (dead, self.node((slot + 1) % self.scenario.nodes)) else { return };
        self.kill(slot, false, None);
        for question in [Question::Sockets, Question::Servers, Question::Clients] {
            let outcome = self.ask(&asking, question).await;
            if outcome.silent != BTreeSet::from([dead]) {
                self.observer.lock().object(format!("after a death {question:?}: {outcome:?}"));
            }
        }
        sleep(Duration::from_secs(10)).await;
        let outcome = self.ask(&asking, Question::Servers).await;
        if !outcome.silent.is_empty() || outcome.nodes.len() + 2 != self.scenario.nodes {
            self.observer.lock().object(format!("long after a death: {outcome:?}"));
        }
        if !self.everybody_is_there().await {
            self.observer.lock().object("not all clients come back after a death");
        }
    }

    /// Lets all clients go, then all nodes. Nothing is left of them.
    async fn leave_nothing(&self) {
        self.over.cancel();
        for client in &self.clients {
            if let Some(peer) = client.face.lock().peer.as_ref().filter(|_| client.number % 2 == 0) {
                peer.send("1");
            }
            client.break_off(true);
        }
        sleep(match self.scenario.kind {
            Kind::Plain => Duration::from_secs(1),
            Kind::Logged => FORGOTTEN_AFTER,
        })
        .await;
        for node in self.nodes() {
            let mut tables = node.server.tables();
            let namespace = main(&node.server);
            tables.extend([("sockets", namespace.len(), 0), ("rooms", namespace.rooms_len(), 0)]);
            for (name, size, _) in tables.into_iter().filter(|(_, size, _)| *size > 0) {
                self.observer.lock().object(format!("p{} keeps {size} {name}", node.process));
            }
        }
        if self.log.sessions() > 0 {
            self.observer.lock().object(format!("the log keeps {} sessions", self.log.sessions()));
        }
        for node in self.nodes() {
            node.server.close().await;
        }
        self.passing.wait().await;
        self.tasks.close();
        self.tasks.wait().await;
        if self.bus.subscriptions() > 0 {
            self.observer.lock().object("subscriptions are left");
        }
    }
}

/// After how long all nodes agree: longer than a heartbeat, and the silence that ends a membership.
const AGREED_AFTER: Duration = Duration::from_secs(16);

/// How long a node may take to follow the log.
const REACHED_AFTER: Duration = Duration::from_secs(10);

/// After how long nothing is kept of a client that is gone, and of the events for it: the log keeps them for a minute more
/// than the absence, and is trimmed now and then.
const FORGOTTEN_AFTER: Duration = ABSENCE_MAX.saturating_add(Duration::from_secs(90));
