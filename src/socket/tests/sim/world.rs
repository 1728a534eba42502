//! A simulated cluster: its nodes, its clients, its bus and its log, all on one runtime with paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{Client, session_key};
use super::observer::Observer;
use super::scenario::{Kind, Scenario, Step, Whom};
use crate::bus::sim::{Dice, SimBus};
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::recovery::log_sim::{Moods, SimLog};
use crate::socket::recovery::session_store::Link;
use crate::socket::tests::open;
use crate::socket::tests::recovery::main;
use crate::socket::{
    Broadcast, Config, ConnectError, Namespace, NamespaceBuilder, Recovery, RoomChange, Server, Socket,
};

/// A simulated cluster.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) bus: SimBus,
    pub(super) log: SimLog,
    pub(super) slots: Mutex<Vec<Slot>>,
    pub(super) clients: Vec<Arc<Client>>,
    pub(super) observer: Arc<Mutex<Observer>>,
    pub(super) tasks: TaskTracker,
    /// What is going to end by itself: faults, questions.
    pub(super) passing: TaskTracker,
    processes: AtomicU64,
    /// The number of faults that have begun or ended.
    pub(super) changes: AtomicU64,
    /// The number of faults that go on.
    ongoing: AtomicU64,
    /// Cancelled when the faults have ended.
    pub(super) faults_over: CancellationToken,
    /// Cancelled when all nodes notice that a connection is broken.
    pub(super) ghosts_over: CancellationToken,
    /// Cancelled when the clients stay away.
    pub(super) over: CancellationToken,
}

/// The place of a node in the cluster. Processes come and go.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) node: Option<Node>,
    still_until: Option<Instant>,
    /// Whether it waits for the answer to a question.
    pub(super) is_asking: bool,
}

/// A process of the cluster.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) server: Server,
    pub(super) process: u64,
    pub(super) pipe: usize,
    pub(super) log: SimLog,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Arc<Self> {
        let (bus, log) =
            (SimBus::new(scenario.seed, scenario.weather), SimLog::new(scenario.seed, scenario.moods));
        let world = Arc::new(Self {
            bus,
            log,
            slots: Mutex::new((0..scenario.nodes).map(|_| Slot::default()).collect()),
            clients: (0..scenario.clients).map(|n| Arc::new(Client::new(n))).collect(),
            observer: Arc::new(Mutex::new(Observer::new())),
            tasks: TaskTracker::new(),
            passing: TaskTracker::new(),
            processes: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            ongoing: AtomicU64::new(0),
            faults_over: CancellationToken::new(),
            ghosts_over: CancellationToken::new(),
            over: CancellationToken::new(),
            scenario,
        });
        (0..world.scenario.nodes).for_each(|slot| world.start(slot, None));
        for client in &world.clients {
            world.tasks.spawn(world.clone().live(client.clone()));
        }
        world
    }

    /// Goes through all steps, and waits until the faults have ended.
    pub(super) async fn play(self: &Arc<Self>) {
        sleep(Duration::from_secs(2)).await;
        for (pause, step) in &self.scenario.steps {
            sleep(*pause).await;
            self.observer.lock().note(format!("{step:?}"));
            self.step(*step);
            self.check_bounds();
        }
        self.passing.close();
        self.passing.wait().await;
        self.faults_over.cancel();
    }

    /// Starts a process.
    fn start(&self, slot: usize, name: Option<NodeId>) {
        let process = self.processes.fetch_add(1, Ordering::Relaxed) + 1;
        let name = name.unwrap_or_else(|| NodeId::from_bytes([1, 2, 3, slot as u8, process as u8]));
        let (pipe, log) = (self.bus.pipe(), self.log.end());
        let recovery = Recovery {
            max_disconnection_duration: ABSENCE_MAX,
            packets_max: self.scenario.packets_max,
            ..Recovery::default()
        };
        let mut config = Config { request_timeout: QUESTION_MAX, ..Config::default() };
        config.recovery = (self.scenario.kind == Kind::Logged).then_some(recovery);
        let number = pipe.number();
        let mut server = Server::builder(config).adapter(pipe).node(name);
        if self.scenario.kind == Kind::Logged {
            server = server.recovery_log(Arc::new(log.clone()));
        }
        let server =
            server.namespace("/", |namespace| self.describe(process, &log, namespace)).build().unwrap();
        server.listen_to_bus();
        self.observer.lock().note(format!("p{process} starts"));
        self.slots.lock()[slot] =
            Slot { node: Some(Node { server, process, pipe: number, log }), ..Slot::default() };
    }

    fn describe(&self, process: u64, log: &SimLog, namespace: &mut NamespaceBuilder) {
        let slowness = Dice::new(self.scenario.seed, ("hook", process)).duration(HOOK_MAX);
        namespace.on_connect(move |_, _| async move {
            sleep(slowness).await;
            Ok::<(), ConnectError>(())
        });
        self.watch(process, log, namespace);
        for (event, joins) in [("join", true), ("leave", false)] {
            let observer = self.observer.clone();
            namespace.on_sync(event, move |mut event| {
                let (room, id): (String, u64) = event.parse().unwrap();
                enter(&observer, process, event.socket(), (&room, joins), Some(id));
                // It fails if too much waits for the log.
                let _ = event.take_ack().unwrap().send(&1);
            });
        }
        let observer = self.observer.clone();
        namespace.on_sync("say", move |event| {
            let (room, _): (String, u64) = event.parse().unwrap();
            emit(&observer, process, event.socket().namespace(), &[room], &[]);
        });
        namespace.on_server_event("sum", |mut event| async move {
            let (a, b): (u64, u64) = event.parse().unwrap();
            event.answer(&(a + b)).unwrap();
        });
    }

    /// Notes what happens to the sockets of a process.
    fn watch(&self, process: u64, log: &SimLog, namespace: &mut NamespaceBuilder) {
        let (observer, kind, log) = (self.observer.clone(), self.scenario.kind, log.clone());
        namespace.on_connected(move |socket| {
            let mut observer = observer.lock();
            observer.call(socket.id(), process);
            if kind == Kind::Logged {
                let rooms = socket.rooms();
                let others = rooms.iter().map(|room| room.to_string()).filter(|room| room != socket.id());
                let at = head(socket.namespace());
                let opened =
                    observer.sessions.opened(socket.id(), process, at, socket.recovered(), others.collect());
                observer.check(opened);
                let pid = socket.link().map(Link::pid).unwrap();
                if socket.recovered() && !log.has_taken(session_key(&pid)) {
                    observer.object(format!("p{process} continues a session that it has not taken"));
                }
            }
            async {}
        });
        let observer = self.observer.clone();
        namespace.on_room_change(move |socket, change| match change {
            RoomChange::Joined(room) => observer.lock().sockets.moved(socket.id(), room, true),
            RoomChange::Left(room) => observer.lock().sockets.moved(socket.id(), room, false),
            _ => {}
        });
    }

    /// Returns a node that a client finds open.
    pub(super) fn door(&self, dice: &mut Dice) -> Option<Node> {
        let open: Vec<Node> = (0..self.scenario.nodes).filter_map(|slot| self.open_node(slot)).collect();
        let chosen = dice.below(open.len() as u64) as usize;
        open.into_iter().nth(chosen)
    }

    /// Returns a node, unless it is down or stands still.
    pub(super) fn node(&self, slot: usize) -> Option<Node> {
        let slots = self.slots.lock();
        let is_still = slots[slot].still_until.is_some_and(|until| until > Instant::now());
        slots[slot].node.clone().filter(|_| !is_still)
    }

    /// Returns a node, unless clients have to wait there until the log is known: of several tasks that wait for one thing,
    /// tokio wakes any one first.
    fn open_node(&self, slot: usize) -> Option<Node> {
        let is_ready =
            |node: &Node| main(&node.server).delivery().shared().is_none_or(|store| store.is_ready());
        self.node(slot).filter(is_ready)
    }

    /// Returns the node that a client is connected to, unless that stands still.
    fn node_of(&self, client: usize) -> Option<(Node, Socket)> {
        let face = self.clients[client].face.lock();
        face.peer.as_ref()?;
        let node = (0..self.scenario.nodes).filter_map(|slot| self.node(slot));
        let node = node.into_iter().find(|node| Some(node.process) == face.process)?;
        let socket = main(&node.server).socket(&face.sid)?;
        Some((node, socket))
    }

    /// Whether the clients come back at once.
    pub(super) fn hurries(&self) -> bool {
        self.faults_over.is_cancelled()
    }

    /// Returns the number of faults so far, if none goes on.
    pub(super) fn calm(&self) -> Option<u64> {
        let is_calm = self.ongoing.load(Ordering::Relaxed) == 0;
        is_calm.then(|| self.changes.load(Ordering::Relaxed))
    }

    /// Returns the rooms of a selection, and its exceptions.
    fn selected(&self, whom: Whom) -> (Vec<String>, Vec<String>) {
        match whom {
            Whom::Everybody => (Vec::new(), Vec::new()),
            Whom::Room(n) => (vec![room(n)], Vec::new()),
            Whom::AllExcept(n) => (Vec::new(), vec![room(n)]),
            Whom::RoomWithout(n, m) => (vec![room(n)], vec![room(m)]),
            Whom::Client(n) => (vec![self.clients[n].face.lock().sid.clone()], Vec::new()),
        }
    }

    pub(super) fn emit(&self, node: &Node, whom: Whom) {
        let (rooms, except) = self.selected(whom);
        emit(&self.observer, node.process, main(&node.server), &rooms, &except);
    }

    fn step(self: &Arc<Self>, step: Step) {
        match step {
            Step::Emit { node, to } => {
                if let Some(node) = self.node(node) {
                    self.emit(&node, to);
                }
            }
            Step::Change { node, to, room: n, joins } => {
                let Some(node) = self.node(node) else { return };
                let (rooms, except) = self.selected(to);
                let (sockets, room) = (select(main(&node.server), &rooms, &except), room(n));
                let changed = if joins { sockets.sockets_join(&room) } else { sockets.sockets_leave(&room) };
                changed.unwrap();
            }
            Step::Tell { client } => self.tell(client),
            Step::Say { client, room: n } if self.node_of(client).is_some() => {
                self.clients[client].ask("say", &room(n))
            }
            Step::Move { client, room: n, joins } if self.node_of(client).is_some() => {
                self.clients[client].ask(if joins { "join" } else { "leave" }, &room(n));
            }
            Step::MoveHere { client, room: n, joins } => self.move_here(client, &room(n), joins),
            Step::Ask { node, question } => self.ask_later(node, question),
            Step::Drop { client, is_noticed } => self.clients[client].break_off(is_noticed),
            Step::Copy { client, node } => self.copy(client, node),
            Step::Rush { client } => (0..self.scenario.nodes).for_each(|node| self.copy(client, node)),
            Step::Kick { node, client } => {
                let Some(node) = self.node(node) else { return };
                self.clients[client].face.lock().is_safe = false;
                let (rooms, _) = self.selected(Whom::Client(client));
                select(main(&node.server), &rooms, &[]).disconnect_sockets(false).unwrap();
            }
            trouble => self.trouble(trouble),
        }
    }

    /// Lets the application on the node of a client send something to its socket.
    fn tell(&self, client: usize) {
        let Some((node, socket)) = self.node_of(client) else { return };
        let number = self.observer.lock().emit(node.process, vec![socket.id().to_owned()], Vec::new());
        let sent = socket.emit("e", &number);
        refused(&self.observer, number, sent);
    }

    /// Lets the application on the node of a client change its rooms, also if the client has gone without its node's
    /// notice.
    fn move_here(&self, client: usize, room: &str, joins: bool) {
        let sid = self.clients[client].face.lock().sid.clone();
        let nodes: Vec<Node> = (0..self.scenario.nodes).filter_map(|slot| self.node(slot)).collect();
        for node in nodes {
            if let Some(socket) = main(&node.server).socket(&sid) {
                // What is stored may change while another node looks at it.
                self.clients[client].face.lock().is_safe = false;
                enter(&self.observer, node.process, &socket, (room, joins), None);
            }
        }
    }

    /// Lets somebody with the credentials of a client come to a node, and stay for a while without a word.
    fn copy(self: &Arc<Self>, client: usize, node: usize) {
        let Some(node) = self.open_node(node) else { return };
        self.clients[client].face.lock().is_safe = false;
        let peer = Arc::new(open(&node.server));
        peer.send(&self.clients[client].hello());
        self.haunt(peer, Duration::from_secs(5));
    }

    fn trouble(self: &Arc<Self>, step: Step) {
        match step {
            Step::Kill { node, has_same_name, down } => self.kill(node, has_same_name, Some(down)),
            Step::KillNodeOf { client, down } => {
                let process = self.clients[client].face.lock().process;
                let is_meant =
                    |slot: &usize| self.node(*slot).is_some_and(|node| Some(node.process) == process);
                if let Some(slot) = (0..self.scenario.nodes).find(is_meant) {
                    self.kill(slot, false, Some(down));
                }
            }
            Step::Restart { node, down } => self.restart(node, down),
            Step::Stop { node: slot, time } => {
                let (Some(node), until) = (self.node(slot), Instant::now() + time) else { return };
                self.slots.lock()[slot].still_until = Some(until);
                self.bus.stop(node.pipe, until);
                node.log.stop(until);
                self.pass(time, |_| ());
            }
            Step::CutOff { node, time } => {
                let Some(node) = self.node(node) else { return };
                self.bus.partition([node.pipe]);
                self.pass(time, |world| world.bus.heal());
            }
            Step::Deafen { node, time } => {
                let Some(node) = self.node(node) else { return };
                self.bus.deafen(node.pipe, Instant::now() + time);
                self.pass(time, move |world| world.bus.reconnect(node.pipe));
            }
            Step::Reconnect { node } => {
                self.node(node).into_iter().for_each(|node| self.bus.reconnect(node.pipe))
            }
            Step::Away { time } => {
                self.log.set_moods(Moods { away: true, ..self.scenario.moods });
                self.pass(time, |world| world.log.set_moods(world.scenario.moods));
            }
            Step::Shorten { keep } => self.log.shorten(keep),
            Step::Crash => self.log.crash(),
            _ => {}
        }
    }

    /// Lets a fault pass after a time.
    fn pass(self: &Arc<Self>, time: Duration, end: impl FnOnce(&Self) + Send + 'static) {
        let world = self.clone();
        self.change();
        self.ongoing.fetch_add(1, Ordering::Relaxed);
        self.passing.spawn(async move {
            sleep(time).await;
            end(&world);
            world.ongoing.fetch_sub(1, Ordering::Relaxed);
            world.change();
        });
    }

    fn change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Kills a process, and starts another one in its place after a time.
    pub(super) fn kill(self: &Arc<Self>, slot: usize, has_same_name: bool, down: Option<Duration>) {
        let Some(node) = self.node(slot) else { return };
        self.slots.lock()[slot].node = None;
        self.change();
        self.bus.kill(node.pipe);
        node.log.set_cut(true);
        if let Some(store) = main(&node.server).delivery().shared() {
            store.abandon();
        }
        self.lose_clients_of(node.process);
        let world = self.clone();
        self.passing.spawn(async move {
            node.server.close().await;
            let Some(down) = down else { return };
            sleep(down).await;
            world.start(slot, has_same_name.then(|| node.server.node()));
            world.change();
        });
    }

    fn lose_clients_of(&self, process: u64) {
        for client in &self.clients {
            let process_of = client.face.lock().process;
            if process_of == Some(process) {
                client.break_off(true);
            }
        }
    }

    /// Ends a process in order, and starts another one in its place after a time.
    fn restart(self: &Arc<Self>, slot: usize, down: Duration) {
        let Some(node) = self.node(slot).filter(|_| !self.slots.lock()[slot].is_asking) else { return };
        self.slots.lock()[slot].node = None;
        self.change();
        let world = self.clone();
        self.passing.spawn(async move {
            node.server.close().await;
            sleep(down).await;
            world.start(slot, None);
            world.change();
        });
    }

    /// Checks that no table is larger than its bound.
    pub(super) fn check_bounds(&self) {
        for slot in 0..self.scenario.nodes {
            let tables = self.node(slot).map(|node| node.server.tables()).unwrap_or_default();
            for (name, size, bound) in tables.into_iter().filter(|(_, size, bound)| size > bound) {
                self.observer.lock().object(format!("{name}: {size} of {bound}"));
            }
        }
    }
}

/// Returns what a node has delivered of the log.
fn head(namespace: &Namespace) -> (u64, u64) {
    namespace.delivery().shared().map(|store| store.head()).unwrap_or_default()
}

/// Lets a socket enter or leave a room.
fn enter(
    observer: &Mutex<Observer>,
    process: u64,
    socket: &Socket,
    (room, joins): (&str, bool),
    id: Option<u64>,
) {
    // The hooks look at the observer too.
    observer.lock().sessions.moved(socket.id(), process, head(socket.namespace()), (room, joins), id);
    if joins { socket.join(room) } else { socket.leave(room) }
}

fn emit(
    observer: &Mutex<Observer>,
    process: u64,
    namespace: &Namespace,
    rooms: &[String],
    except: &[String],
) {
    let number = observer.lock().emit(process, rooms.to_vec(), except.to_vec());
    let sent = select(namespace, rooms, except).emit("e", &number);
    refused(observer, number, sent);
}

/// Notes that a node has refused to send an event.
fn refused(observer: &Mutex<Observer>, number: u64, sent: ImksResult<()>) {
    if let Err(error) = sent {
        observer.lock().note(format!("{number} refused: {error}"));
    }
}

fn select<'a>(namespace: &'a Namespace, rooms: &'a [String], except: &'a [String]) -> Broadcast<'a> {
    let everybody = rooms.iter().fold(namespace.everybody(), |sockets, room| sockets.to(room.as_str()));
    except.iter().fold(everybody, |sockets, room| sockets.except(room.as_str()))
}

/// Returns the name of a room.
fn room(number: usize) -> String {
    format!("r{number}")
}

/// The longest time that the hook of a node takes to accept a client.
const HOOK_MAX: Duration = Duration::from_millis(100);

/// How long a client may be away.
pub(super) const ABSENCE_MAX: Duration = Duration::from_secs(40);

/// The deadline of questions.
pub(super) const QUESTION_MAX: Duration = Duration::from_secs(3);
