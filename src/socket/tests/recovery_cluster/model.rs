//! Tests of recovery across nodes against a model, with a log and a bus that misbehave, nodes that die and clients that
//! move, all from one seed.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{Cluster, kill, main};
use crate::bus::sim::{SimBus, Weather};
use crate::engine::MemoryPeer;
use crate::socket::recovery::log_sim::{Moods, SimLog};
use crate::socket::tests::open;
use crate::socket::tests::recovery::client::Client;
use crate::socket::{Recovery, Server};

const NODES: usize = 3;
const CLIENTS: usize = 3;
const ROOMS: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone)]
enum Step {
    ToRoom {
        node: usize,
        room: usize,
    },
    ToAllExcept {
        node: usize,
        room: usize,
    },
    ToOne {
        node: usize,
        client: usize,
    },
    Join {
        node: usize,
        client: usize,
        room: usize,
    },
    Leave {
        node: usize,
        client: usize,
        room: usize,
    },
    /// The application on the node of a client lets it enter a room.
    JoinHere {
        client: usize,
        room: usize,
    },
    /// The connection ends. The client has not got the last packets, and its node may not notice.
    Drop {
        client: usize,
        lost: usize,
        noticed: bool,
    },
    ComeBack {
        client: usize,
        node: usize,
    },
    /// A node dies, and another one starts in its place.
    Kill(usize),
    /// A node is stopped, or reaches nothing, for a time. Meanwhile its clients are sent something, and one of them moves.
    Stop {
        node: usize,
        room: usize,
        seconds: u64,
        moves: bool,
        kept: Option<usize>,
    },
    /// The log answers nothing for a time.
    Away(u64),
    Wait(u64),
    Shorten(usize),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let (node, client, room) = (0..NODES, 0..CLIENTS, 0..ROOMS.len());
    let all = || (node.clone(), client.clone(), room.clone());
    prop_oneof![
        6 => all().prop_map(|(node, _, room)| Step::ToRoom { node, room }),
        2 => all().prop_map(|(node, _, room)| Step::ToAllExcept { node, room }),
        2 => all().prop_map(|(node, client, _)| Step::ToOne { node, client }),
        4 => all().prop_map(|(node, client, room)| Step::Join { node, client, room }),
        2 => all().prop_map(|(node, client, room)| Step::Leave { node, client, room }),
        3 => (client.clone(), 0..4_usize, any::<bool>())
            .prop_map(|(client, lost, noticed)| Step::Drop { client, lost, noticed }),
        4 => all().prop_map(|(node, client, _)| Step::ComeBack { client, node }),
        2 => node.clone().prop_map(Step::Kill),
        2 => all().prop_map(|(_, client, room)| Step::JoinHere { client, room }),
        1 => (node.clone(), room.clone(), 1..30_u64, any::<bool>())
            .prop_map(|(node, room, seconds, moves)| Step::Stop { node, room, seconds, moves, kept: None }),
        1 => (1..8_u64).prop_map(Step::Away),
        2 => prop_oneof![1..30_u64, Just(70)].prop_map(Step::Wait),
    ]
}

/// Steps that lose what the log holds.
fn rough_step() -> impl Strategy<Value = Step> {
    let stop = (0..NODES, 0..ROOMS.len(), 1..30_u64, any::<bool>(), 0..4_usize);
    let stop = stop.prop_map(|(node, room, seconds, moves, kept)| Step::Stop {
        node,
        room,
        seconds,
        moves,
        kept: Some(kept),
    });
    prop_oneof![12 => step(), 1 => stop, 1 => (0..6_usize).prop_map(Step::Shorten), 1 => Just(Step::Crash)]
}

/// What the rules say about a client.
#[derive(Default)]
struct Model {
    expected: Vec<u64>,
    rooms: BTreeSet<&'static str>,
    connected: bool,
    node: usize,
    /// When it went away.
    since: Option<Instant>,
}

struct World {
    cluster: Cluster,
    nodes: Vec<Server>,
    /// The ends of the log that the nodes hold, and the numbers of their pipes.
    ends: Vec<(SimLog, usize)>,
    begun: usize,
    clients: Vec<Client>,
    models: Vec<Model>,
    /// The broken connections that nodes have not noticed.
    broken: Vec<MemoryPeer>,
    next: u64,
    /// Whether the log keeps what it should.
    faithful: bool,
    started: Instant,
    moods: Moods,
}

impl World {
    async fn new(seed: u64, moods: Moods, weather: Weather, faithful: bool) -> Self {
        let recovery = Recovery { replay_packets_max: 4_000, ..Recovery::default() };
        let cluster =
            Cluster { bus: SimBus::new(seed, weather), log: SimLog::new(seed, Moods::default()), recovery };
        let ends: Vec<(SimLog, usize)> = (0..NODES).map(|n| (cluster.log.end(), n)).collect();
        let nodes: Vec<Server> = ends.iter().map(|(end, _)| cluster.node_on(end, |_| {})).collect();
        let (mut clients, mut models) = (Vec::new(), Vec::new());
        for n in 0..CLIENTS {
            clients.push(Client::join(&nodes[n % NODES]).await);
            models.push(Model { connected: true, node: n % NODES, ..Model::default() });
        }
        let mut world = Self {
            cluster,
            nodes,
            ends,
            begun: NODES,
            clients,
            models,
            broken: Vec::new(),
            next: 0,
            faithful,
            started: Instant::now(),
            moods,
        };
        world.quiesce().await;
        world.cluster.log.set_moods(moods);
        world
    }

    /// Waits until every node has delivered everything, so that the model knows the order of what happened.
    async fn quiesce(&mut self) {
        // What one has queued is in the log before the others are looked at.
        for node in self.nodes.iter().chain(&self.nodes) {
            self.cluster.reach(node).await;
        }
    }

    fn number(&mut self, meant: impl Fn(usize, &Model) -> bool) -> u64 {
        self.next += 1;
        for (n, model) in self.models.iter_mut().enumerate() {
            if meant(n, model) {
                model.expected.push(self.next);
            }
        }
        self.next
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::ToRoom { node, room } => {
                let number = self.number(|_, model| model.rooms.contains(ROOMS[room]));
                main(&self.nodes[node]).to(ROOMS[room]).emit("e", &number).unwrap();
            }
            Step::ToAllExcept { node, room } => {
                let number = self.number(|_, model| !model.rooms.contains(ROOMS[room]));
                main(&self.nodes[node]).except(ROOMS[room]).emit("e", &number).unwrap();
            }
            Step::ToOne { node, client } => {
                let number = self.number(|n, _| n == client);
                main(&self.nodes[node]).to(&self.clients[client].sid).emit("e", &number).unwrap();
            }
            Step::Join { node, client, room } => {
                self.models[client].rooms.insert(ROOMS[room]);
                main(&self.nodes[node]).to(&self.clients[client].sid).sockets_join(ROOMS[room]).unwrap();
            }
            Step::Leave { node, client, room } => {
                self.models[client].rooms.remove(ROOMS[room]);
                main(&self.nodes[node]).to(&self.clients[client].sid).sockets_leave(ROOMS[room]).unwrap();
            }
            other => self.trouble(other).await,
        }
        self.quiesce().await;
    }

    async fn trouble(&mut self, step: Step) {
        match step {
            Step::Drop { client, lost, noticed } if self.models[client].connected => {
                self.clients[client].read(lost).await;
                self.break_off(client, noticed).await;
            }
            Step::ComeBack { client, node } if !self.models[client].connected => {
                self.come_back(client, node).await
            }
            Step::JoinHere { client, room } if self.models[client].connected => {
                self.models[client].rooms.insert(ROOMS[room]);
                self.clients[client].socket().join(ROOMS[room]);
            }
            Step::Kill(node) => self.kill(node).await,
            Step::Stop { node, room, seconds, moves, kept } => {
                self.stop(node, room, moves).await;
                self.sleep(seconds).await;
                if let Some(kept) = kept {
                    self.cluster.log.shorten(kept);
                }
                self.go_on(node).await;
            }
            Step::Away(seconds) => {
                let moods = Moods { away: true, ..Moods::default() };
                self.cluster.log.set_moods(moods);
                self.sleep(seconds).await;
                self.cluster.log.set_moods(Moods::default());
            }
            Step::Wait(seconds) => self.sleep(seconds).await,
            Step::Shorten(keep) => self.cluster.log.shorten(keep),
            Step::Crash => self.crash().await,
            _ => {}
        }
    }

    async fn sleep(&mut self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    async fn break_off(&mut self, client: usize, noticed: bool) {
        self.models[client].connected = false;
        self.models[client].since = Some(Instant::now());
        if noticed {
            self.clients[client].drop_connection().await;
            return;
        }
        let dead = std::mem::replace(&mut self.clients[client].peer, open(&self.nodes[0]));
        self.broken.push(dead);
    }

    async fn kill(&mut self, node: usize) {
        kill(&self.nodes[node]);
        for client in 0..CLIENTS {
            if self.models[client].connected && self.models[client].node == node {
                self.clients[client].read(client).await;
                self.break_off(client, false).await;
            }
        }
        self.ends[node] = (self.cluster.log.end(), self.begun);
        self.begun += 1;
        self.nodes[node] = self.cluster.node_on(&self.ends[node].0, |_| {});
    }

    /// Cuts a node off. The others send something to everybody, and one of its clients comes to them.
    async fn stop(&mut self, node: usize, room: usize, moves: bool) {
        self.ends[node].0.set_cut(true);
        self.cluster.bus.partition([self.ends[node].1]);
        let other = (node + 1) % NODES;
        for client in 0..CLIENTS {
            self.models[client].rooms.insert(ROOMS[room]);
            main(&self.nodes[other]).to(&self.clients[client].sid).sockets_join(ROOMS[room]).unwrap();
        }
        let number = self.number(|_, model| model.rooms.contains(ROOMS[room]));
        main(&self.nodes[other]).to(ROOMS[room]).emit("e", &number).unwrap();
        self.cluster.reach(&self.nodes[other]).await;
        let held = |model: &Model| model.connected && model.node == node;
        if let Some(client) = (0..CLIENTS).find(|client| moves && held(&self.models[*client])) {
            self.break_off(client, false).await;
            self.come_back(client, other).await;
        }
    }

    /// Lets a node go on. It closes the connections of its clients if they have missed something.
    async fn go_on(&mut self, node: usize) {
        self.ends[node].0.set_cut(false);
        self.cluster.bus.heal();
        self.sleep(2).await;
        self.quiesce().await;
        for client in 0..CLIENTS {
            let model = &self.models[client];
            if model.connected && main(&self.nodes[model.node]).socket(&self.clients[client].sid).is_none() {
                assert!(!self.faithful, "client {client} is gone");
                self.break_off(client, false).await;
            }
        }
    }

    /// The log is empty, and every node notices. All sessions are gone.
    async fn crash(&mut self) {
        self.cluster.log.set_moods(Moods::default());
        self.cluster.log.crash();
        self.sleep(5).await;
        self.cluster.log.set_moods(self.moods);
        for client in 0..CLIENTS {
            self.models[client].connected = false;
            self.models[client].since = Some(Instant::now());
        }
    }

    async fn come_back(&mut self, client: usize, node: usize) {
        // Of two nodes that see a client at once one wins; this one takes its time.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.clients[client].server = self.nodes[node].clone();
        self.clients[client].peer = open(&self.nodes[node]);
        // A node that does not know the log yet refuses its clients.
        while self.clients[client].try_connect().await.is_some() {}
        let old = self.is_old();
        let (model, recovered) = (&mut self.models[client], self.clients[client].recovered);
        (model.connected, model.node) = (true, node);
        let away = model.since.map(|since| since.elapsed()).unwrap_or_default();
        assert!(
            recovered || !self.faithful || away.as_secs() >= 119 || old,
            "client {client} after {away:?}"
        );
        if !recovered {
            self.clients[client].received.clear();
            (model.expected, model.rooms) = Default::default();
            return;
        }
        let socket = self.clients[client].socket();
        let rooms: BTreeSet<String> = socket.rooms().iter().map(|room| room.to_string()).collect();
        let mut expected: BTreeSet<String> = model.rooms.iter().map(|room| (*room).to_owned()).collect();
        expected.insert(socket.id().to_owned());
        assert_eq!(rooms, expected, "client {client}");
    }

    /// Whether the log no longer holds what the first clients got.
    fn is_old(&self) -> bool {
        self.started.elapsed() >= Duration::from_secs(170)
    }

    async fn finish(mut self) {
        for client in 0..CLIENTS {
            if !self.models[client].connected {
                self.come_back(client, client % NODES).await;
            }
        }
        self.quiesce().await;
        for client in 0..CLIENTS {
            self.clients[client].read(0).await;
            assert_eq!(self.clients[client].numbers(), self.models[client].expected, "client {client}");
        }
        for client in &self.clients {
            let owners = self.nodes.iter().filter(|node| main(node).socket(&client.sid).is_some()).count();
            assert_eq!(owners, 1, "a session is on one node");
        }
        self.nodes.iter().for_each(kill);
    }
}

fn play(seed: u64, moods: Moods, weather: Weather, faithful: bool, steps: Vec<Step>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async move {
        let mut world = World::new(seed, moods, weather, faithful).await;
        for step in steps {
            world.step(step).await;
        }
        world.finish().await;
    });
}

fn weather() -> impl Strategy<Value = Weather> {
    (0..100_u64, 0..40_u8, 0..20_u8).prop_map(|(millis, lost_percent, doubled_percent)| Weather {
        delay_max: Duration::from_millis(millis),
        lost_percent,
        doubled_percent,
        ..Weather::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_client_that_moves_between_nodes_that_die_has_got_what_it_should_in_order_and_nothing_twice(
        seed in any::<u64>(),
        weather in weather(),
        delay in 0..60_u64,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let moods = Moods { delay_max: Duration::from_millis(delay), ..Moods::default() };
        play(seed, moods, weather, true, steps);
    }

    #[test]
    fn with_a_log_that_fails_and_forgets_a_client_may_get_a_new_session_and_never_a_wrong_yes(
        seed in any::<u64>(),
        weather in weather(),
        (failing_percent, silent_percent, late_percent) in (0..30_u64, 0..30_u64, 0..20_u64),
        steps in prop::collection::vec(rough_step(), 0..60),
    ) {
        let moods = Moods {
            delay_max: Duration::from_millis(20),
            failing_percent,
            silent_percent,
            late_percent,
            away: false,
        };
        play(seed, moods, weather, false, steps);
    }
}
