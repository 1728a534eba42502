//! Tests of recovery against a model, with events in random order.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::{main, server_with};
use crate::engine::MemoryPeer;
use crate::socket::tests::open;
use crate::socket::{Recovery, RecoveryStatus, Server};

/// A step of the model.
#[derive(Debug, Clone)]
enum Step {
    ToRoom(usize),
    ToBoth(usize, usize),
    ToAll,
    ToAllExcept(usize),
    ToOthers {
        client: usize,
        room: usize,
    },
    ToOne(usize),
    Join {
        client: usize,
        room: usize,
    },
    Leave {
        client: usize,
        room: usize,
    },
    Read(usize),
    /// Breaks the connection and loses the last packets. The server may not notice before the client returns.
    Drop {
        client: usize,
        lost: usize,
        noticed: bool,
    },
    /// Sends CONNECT on a new connection, and breaks it before the reply.
    DropAtOnce(usize),
    ComeBack(usize),
    Wait(u64),
}

const CLIENTS: usize = 3;
const ROOMS: [&str; 3] = ["a", "b", "c"];

fn step() -> impl Strategy<Value = Step> {
    let (client, room) = (0..CLIENTS, 0..ROOMS.len());
    let both = || (client.clone(), room.clone());
    prop_oneof![
        4 => room.clone().prop_map(Step::ToRoom),
        1 => (room.clone(), room.clone()).prop_map(|(a, b)| Step::ToBoth(a, b)),
        2 => Just(Step::ToAll),
        1 => room.clone().prop_map(Step::ToAllExcept),
        1 => both().prop_map(|(client, room)| Step::ToOthers { client, room }),
        1 => client.clone().prop_map(Step::ToOne),
        3 => both().prop_map(|(client, room)| Step::Join { client, room }),
        2 => both().prop_map(|(client, room)| Step::Leave { client, room }),
        2 => client.clone().prop_map(Step::Read),
        2 => (client.clone(), 0..6_usize, any::<bool>()).prop_map(|(client, lost, noticed)| Step::Drop { client, lost, noticed }),
        1 => client.clone().prop_map(Step::DropAtOnce),
        3 => client.clone().prop_map(Step::ComeBack),
        1 => prop_oneof![1..100_u64, Just(119), Just(121)].prop_map(Step::Wait),
    ]
}

/// The state of a client as the rules demand it.
struct Model {
    expected: Vec<u64>,
    rooms: BTreeSet<&'static str>,
    /// The time since when it is away, as the server sees it.
    away: Option<u64>,
    /// The time since when it receives nothing.
    broken: u64,
    connected: bool,
}

struct World {
    server: Server,
    clients: Vec<Client>,
    models: Vec<Model>,
    /// The broken connections that the server has not noticed.
    zombies: Vec<MemoryPeer>,
    next: u64,
    now: u64,
    /// Whether clients must be able to return in time.
    generous: bool,
}

impl World {
    async fn new(recovery: Recovery, generous: bool) -> Self {
        let server = server_with(recovery, |_| {});
        let (mut clients, mut models) = (Vec::new(), Vec::new());
        for _ in 0..CLIENTS {
            clients.push(Client::join(&server).await);
            models.push(Model {
                expected: Vec::new(),
                rooms: BTreeSet::new(),
                away: None,
                broken: 0,
                connected: true,
            });
        }
        Self { server, clients, models, zombies: Vec::new(), next: 0, now: 0, generous }
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
        let namespace = main(&self.server).clone();
        match step {
            Step::ToRoom(room) => {
                let number = self.number(|_, model| model.rooms.contains(ROOMS[room]));
                namespace.to(ROOMS[room]).emit("e", &number).unwrap();
            }
            Step::ToBoth(a, b) => {
                let number =
                    self.number(|_, model| model.rooms.contains(ROOMS[a]) || model.rooms.contains(ROOMS[b]));
                namespace.to(ROOMS[a]).to(ROOMS[b]).emit("e", &number).unwrap();
            }
            Step::ToAll => {
                let number = self.number(|_, _| true);
                namespace.emit("e", &number).unwrap();
            }
            Step::ToAllExcept(room) => {
                let number = self.number(|_, model| !model.rooms.contains(ROOMS[room]));
                namespace.except(ROOMS[room]).emit("e", &number).unwrap();
            }
            Step::ToOthers { client, room } => {
                let Some(socket) = namespace.socket(&self.clients[client].sid) else { return };
                let number = self.number(|n, model| n != client && model.rooms.contains(ROOMS[room]));
                socket.to(ROOMS[room]).emit("e", &number).unwrap();
            }
            Step::ToOne(client) => {
                let number = self.number(|n, _| n == client);
                namespace.to(&self.clients[client].sid).emit("e", &number).unwrap();
            }
            Step::Join { client, room } => {
                namespace.to(&self.clients[client].sid).sockets_join(ROOMS[room]).unwrap();
                self.models[client].rooms.insert(ROOMS[room]);
            }
            Step::Leave { client, room } => {
                namespace.to(&self.clients[client].sid).sockets_leave(ROOMS[room]).unwrap();
                self.models[client].rooms.remove(ROOMS[room]);
            }
            other => self.connection_step(other).await,
        }
    }

    async fn connection_step(&mut self, step: Step) {
        let namespace = main(&self.server).clone();
        match step {
            Step::Read(client) if self.models[client].connected => self.clients[client].read(0).await,
            Step::Drop { client, lost, noticed } if self.models[client].connected => {
                self.break_off(client, lost, noticed).await
            }
            Step::DropAtOnce(client) if !self.models[client].connected => {
                let before = self.server.connections();
                let peer = open(&self.server);
                peer.send(&self.clients[client].hello());
                peer.close();
                while self.server.connections() > before {
                    tokio::task::yield_now().await;
                }
                let model = &mut self.models[client];
                let gone = namespace.socket(&self.clients[client].sid).is_none();
                if gone && model.away.is_none_or(|since| self.now - since < 120) {
                    model.away = Some(self.now);
                }
            }
            Step::ComeBack(client) if !self.models[client].connected => self.come_back(client).await,
            Step::Wait(seconds) => self.wait(seconds).await,
            _ => {}
        }
    }

    async fn break_off(&mut self, client: usize, lost: usize, noticed: bool) {
        self.clients[client].read(lost).await;
        self.models[client].connected = false;
        self.models[client].broken = self.now;
        if noticed {
            self.models[client].away = Some(self.now);
            self.clients[client].drop_connection().await;
        } else {
            let dead = std::mem::replace(&mut self.clients[client].peer, open(&self.server));
            self.zombies.push(dead);
        }
    }

    async fn come_back(&mut self, client: usize) {
        self.clients[client].come_back().await;
        self.models[client].connected = true;
        let absent = self.models[client].away.take().map_or(0, |since| self.now - since);
        let recovered = self.clients[client].recovered;
        assert!(!recovered || absent < 120, "away for {absent} s");
        let too_late = absent >= 120 || self.now - self.models[client].broken >= 180;
        assert!(recovered || too_late || !self.generous, "it should have been recovered");
        if !recovered {
            self.clients[client].received.clear();
            self.models[client].expected.clear();
            self.models[client].rooms.clear();
            return;
        }
        let socket = self.clients[client].socket();
        let rooms: BTreeSet<String> = socket.rooms().iter().map(|room| room.to_string()).collect();
        let mut expected: BTreeSet<String> =
            self.models[client].rooms.iter().map(|room| (*room).to_owned()).collect();
        expected.insert(socket.id().to_owned());
        assert_eq!(rooms, expected);
    }

    /// Advances the time. Connected clients read in the meantime.
    async fn wait(&mut self, seconds: u64) {
        for client in 0..CLIENTS {
            if self.models[client].connected {
                self.clients[client].read(0).await;
            }
        }
        tokio::time::advance(Duration::from_secs(seconds)).await;
        self.now += seconds;
    }

    async fn finish(mut self) {
        for client in 0..CLIENTS {
            if !self.models[client].connected {
                self.come_back(client).await;
            }
            self.clients[client].read(0).await;
            assert_eq!(self.clients[client].numbers(), self.models[client].expected);
        }
        self.zombies.clear();
        for client in &mut self.clients {
            client.drop_connection().await;
        }
        tokio::time::sleep(Duration::from_secs(200)).await;
        let namespace = main(&self.server);
        assert_eq!((namespace.len(), namespace.rooms_len()), (0, 0));
        assert_eq!(namespace.recovery_status().unwrap(), RecoveryStatus::default());
        assert_eq!(self.server.connections(), 0);
    }
}

fn play(recovery: Recovery, generous: bool, steps: Vec<Step>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async move {
        let mut world = World::new(recovery, generous).await;
        for step in steps {
            world.step(step).await;
        }
        world.finish().await;
    });
}

proptest! {
    #[test]
    fn a_client_that_came_back_has_got_what_it_should_in_order_and_nothing_twice(
        steps in prop::collection::vec(step(), 0..80)
    ) {
        play(Recovery::default(), true, steps);
    }

    #[test]
    fn with_a_log_that_is_too_short_nothing_is_wrong_either(
        packets_max in 0..12_usize,
        replay_packets_max in 0..12_usize,
        sessions_max in 0..3_usize,
        steps in prop::collection::vec(step(), 0..80)
    ) {
        play(Recovery { packets_max, replay_packets_max, sessions_max, ..Recovery::default() }, false, steps);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_many_senders_at_once_a_client_that_comes_and_goes_misses_nothing() {
    const SENDERS: u64 = 4;
    const EVENTS: u64 = 400;
    let server = server_with(Recovery { replay_packets_max: 4_000, ..Recovery::default() }, |_| {});
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = Client::join(&server).await;
        client.socket().join("r");
        clients.push(client);
    }
    let tasks = TaskTracker::new();
    for sender in 0..SENDERS {
        let namespace = main(&server).clone();
        tasks.spawn(async move {
            for n in 0..EVENTS {
                namespace.to("r").emit("e", &(sender * EVENTS + n)).unwrap();
                tokio::task::yield_now().await;
            }
        });
    }
    let mut running = Vec::new();
    for (index, client) in clients.into_iter().enumerate() {
        running.push(tasks.spawn(come_and_go(client, index, (SENDERS * EVENTS) as usize)));
    }
    for client in running {
        let client = client.await.unwrap();
        for sender in 0..SENDERS {
            let own: Vec<u64> = client
                .numbers()
                .into_iter()
                .filter(|number| number / EVENTS == sender)
                .map(|number| number % EVENTS)
                .collect();
            assert_eq!(own, (0..EVENTS).collect::<Vec<_>>());
        }
    }
}

async fn come_and_go(mut client: Client, index: usize, events: usize) -> Client {
    let mut rounds = index;
    while client.received.len() < events {
        rounds += 1;
        client.read(rounds % 5).await;
        if rounds.is_multiple_of(3) {
            client.drop_connection().await;
        }
        client.come_back().await;
        assert!(client.recovered);
    }
    client
}
