//! The task of a client: does what the core says, and tells the core what happened.

use std::collections::{HashMap, VecDeque};
use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::auth::Auth;
use super::budget::Budget;
use super::core::{Action, Core, Credentials, Incoming, Opened, Path, Sending, Ticket, hello};
use super::error::{ClientError, ClientResult};
use super::event::{ClientEvent, Status, TransportKind};
use super::shared::{Command, Received, Shared, Waiter};
use super::transport::{Attempt, Dialer, Joins, Link, LinkEvent, Transports, open};
use crate::engine::Packet;
use crate::socket::codec::outgoing::{Encoding, Outgoing};

/// Everything that the task of a client owns.
pub(super) struct Driver {
    pub(super) core: Core,
    pub(super) shared: Arc<Shared>,
    pub(super) auth: Auth,
    pub(super) dialer: Arc<Dialer>,
    pub(super) transports: Transports,
    wires: Wires,
    waiters: HashMap<Ticket, Waiter>,
    next_ticket: Ticket,
}

/// What the task waits for.
struct Wires {
    commands: mpsc::Receiver<Command>,
    link: Option<Link>,
    opening: Option<BoxFuture<'static, Outcome>>,
    succession: Succession,
    asking: FuturesUnordered<BoxFuture<'static, (Path, u64, Credentials)>>,
    /// The events for which their socket had no room. The connection is not read while there are any.
    undelivered: VecDeque<(mpsc::Sender<Received>, Received)>,
    /// The room for the bytes of all events that wait for handlers. The connection is not read while they exceed it.
    received: Budget,
}

type Outcome = (Vec<Attempt>, ClientResult<(Link, Opened)>);

/// How far another transport is that is to take the place of the one in use.
enum Succession {
    None,
    Opening(Arc<Dialer>, BoxFuture<'static, Outcome>),
    /// It is open, and the core decides when it is its turn.
    Open(Arc<Dialer>, Link),
    /// The one before it says goodbye.
    Leaving(Arc<Dialer>, Link, BoxFuture<'static, ()>),
}

/// What ended the wait.
enum Wake {
    Command(Option<Command>),
    Opened(Outcome),
    Successor(Outcome),
    SuccessorLost,
    HandedOver,
    Link(LinkEvent),
    Credentials(Path, u64, Credentials),
    /// A socket has room for an event, or is gone.
    Room(Option<OwnedPermit<Received>>),
    /// Handlers have taken so much that more can be read.
    Readable,
    Time,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        shared: Arc<Shared>,
        auth: Auth,
        (dialer, transports): (Arc<Dialer>, Transports),
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let wires = Wires {
            commands,
            link: None,
            opening: None,
            succession: Succession::None,
            asking: FuturesUnordered::new(),
            undelivered: VecDeque::new(),
            received: Budget::new(usize::MAX, RECEIVED_BYTES_MAX),
        };
        Self { core, shared, auth, dialer, transports, wires, waiters: HashMap::new(), next_ticket: 0 }
    }

    /// Runs until the last handle of the client is dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.act().await;
            let wake = self.wires.wait(self.core.poll_timeout()).await;
            self.core.handle_congestion(self.wires.is_congested());
            match wake {
                Wake::Command(None) => break,
                Wake::Command(Some(command)) => self.handle_commands(command).await,
                wake => self.handle(wake),
            }
        }
        self.core.close(Instant::now());
        self.act().await;
    }

    /// Handles a call, and those that wait behind it, so that what they send leaves together.
    async fn handle_commands(&mut self, first: Command) {
        let mut next = Some(first);
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = next else { return };
            self.handle_command(command).await;
            next = self.wires.commands.try_recv().ok();
        }
        if let Some(command) = next {
            self.handle_command(command).await;
        }
    }

    async fn handle_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Connect(waiter) => {
                let ticket = self.ticket(waiter);
                self.core.connect(now, ticket);
            }
            Command::Join(path, waiter) => {
                let ticket = self.ticket(waiter);
                self.core.join(now, &path, ticket);
            }
            Command::Attend(path, waiter) => {
                let ticket = self.ticket(waiter);
                self.core.attend(now, &path, ticket);
            }
            Command::Leave(path) => self.core.leave(now, &path),
            Command::Switch(transport) => self.begin_succession(transport),
            Command::Close(closed) => {
                self.core.close(now);
                self.act().await;
                // The caller may have lost its patience.
                let _ = closed.send(());
            }
            Command::Rebind(socket, done) => {
                let unconnected = || Err(io::ErrorKind::NotConnected.into());
                // The caller may have lost its patience.
                let _ =
                    done.send(self.wires.link.as_mut().map_or_else(unconnected, |link| link.rebind(socket)));
            }
            Command::Emit(path, mut emit, waiter) => {
                let ticket = waiter.map(|waiter| self.ticket(waiter));
                emit.answer = ticket.zip(emit.answer.map(|(_, timeout)| timeout));
                self.core.emit(now, &path, emit, self.wires.is_congested());
            }
            Command::Queue(entry, waiter, place) => {
                let ticket = self.ticket(waiter);
                self.core.queue(now, entry, Some(ticket), Some(place));
            }
            Command::Answer(path, to, args, place) => self.core.reply(now, &path, to, &args, place),
        }
    }

    fn handle(&mut self, wake: Wake) {
        let now = Instant::now();
        match wake {
            Wake::Command(_) => {}
            Wake::Readable => self.core.handle_alive(now),
            Wake::Opened((attempts, result)) => {
                self.wires.opening = None;
                self.count(&attempts);
                match result {
                    Ok((link, opened)) => {
                        if self.transports.race().is_some() {
                            self.shared.racer.lock().won(opened.transport);
                        }
                        if opened.early.is_some() {
                            self.shared.counting.lock().early();
                        }
                        self.wires.link = Some(link);
                        self.core.handle_opened(now, opened);
                    }
                    Err(error) => self.core.handle_failed(now, error),
                }
            }
            Wake::Successor((attempts, result)) => {
                self.count(&attempts);
                self.handle_successor(now, result);
            }
            Wake::SuccessorLost => self.core.handle_successor_lost(now),
            Wake::HandedOver => {
                if let Succession::Leaving(dialer, link, _) = self.wires.succession.take() {
                    (self.dialer, self.wires.link) = (dialer, Some(link));
                    self.core.handle_handed_over(now);
                }
            }
            Wake::Link(event) => self.handle_link(now, event),
            Wake::Credentials(path, number, auth) => {
                self.core.handle_credentials(now, &path, number, auth);
            }
            Wake::Room(permit) => {
                self.core.handle_alive(now);
                let waiting = self.wires.undelivered.pop_front();
                if let (Some(permit), Some((_, received))) = (permit, waiting) {
                    permit.send(received);
                }
            }
            Wake::Time => {
                let is_read = self.wires.is_reading();
                self.core.handle_alive(if is_read { *self.dialer.heard_at.lock() } else { now });
                self.core.handle_timeout(now);
            }
        }
    }

    fn count(&self, attempts: &[Attempt]) {
        for attempt in attempts {
            self.shared.counting.lock().attempt(attempt);
            self.shared.racer.lock().attempt(attempt.transport, attempt.reached);
        }
    }

    /// Opens another transport beside the one in use, unless it could not take its place now.
    fn begin_succession(&mut self, transport: TransportKind) {
        if matches!(self.wires.succession, Succession::None) && self.core.may_switch() {
            // That the server is heard on it says nothing about the one in use.
            let dialer = Arc::new(self.dialer.apart());
            let opening = open(dialer.clone(), Transports::only(transport), Default::default(), None);
            self.wires.succession = Succession::Opening(dialer, Box::pin(opening));
        }
    }

    fn handle_successor(&mut self, now: Instant, result: ClientResult<(Link, Opened)>) {
        let Succession::Opening(dialer, _) = self.wires.succession.take() else { return };
        match result {
            Ok((link, opened)) => {
                self.wires.succession = Succession::Open(dialer, link);
                self.core.handle_successor(now, opened);
            }
            Err(error) => tracing::debug!(%error, "the transport stays, because the better one did not open"),
        }
    }

    /// Closes the transport in use for its successor.
    fn hand_over(&mut self, until: Instant) {
        if let (Some(old), Succession::Open(dialer, next)) =
            (self.wires.link.take(), self.wires.succession.take())
        {
            let leaving = Box::pin(old.leave(until.saturating_duration_since(Instant::now())));
            self.wires.succession = Succession::Leaving(dialer, next, leaving);
        }
    }

    fn handle_link(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Packet(packet) => {
                self.handle_packet(packet, |core, packet| core.handle_packet(now, packet))
            }
            LinkEvent::Bulk(packet) => {
                self.handle_packet(packet, |core, packet| core.handle_bulk(now, packet))
            }
            LinkEvent::Switched(transport) => self.core.handle_switched(transport),
            LinkEvent::NotUpgraded(error) => self.shared.notify(ClientEvent::Error(error)),
            LinkEvent::Closed(reason) => self.core.handle_closed(now, reason),
        }
    }

    fn handle_packet(&mut self, packet: Packet, handle: impl FnOnce(&mut Core, Packet)) {
        self.shared.counting.lock().received(match &packet {
            Packet::Message(message) => message.len(),
            _ => 0,
        });
        handle(&mut self.core, packet);
        if let Some(rtt) = self.core.poll_rtt() {
            let transport = self.shared.counting.lock().rtt(rtt);
            transport.into_iter().for_each(|transport| self.shared.racer.lock().rtt(transport, rtt));
        }
    }

    /// Does what the core says.
    async fn act(&mut self) {
        // Whoever hears that something has happened finds the state that goes with it.
        let status = self.core.status();
        self.shared.status.send_if_modified(|current| std::mem::replace(current, status) != status);
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Open => {
                    let line_up = match self.transports.race() {
                        Some(_) => self.shared.racer.lock().line_up(),
                        None => Default::default(),
                    };
                    let opening = open(self.dialer.clone(), self.transports.clone(), line_up, self.joins());
                    self.wires.opening = Some(Box::pin(opening));
                }
                Action::Drop => {
                    (self.wires.link, self.wires.opening) = (None, None);
                    self.wires.succession = Succession::None;
                }
                Action::HandOver(until) => self.hand_over(until),
                Action::DropSuccessor => self.wires.succession = Succession::None,
                Action::Close => {
                    if let Succession::Leaving(_, _, leaving) = self.wires.succession.take() {
                        // What is left behind then, the server has not taken in time.
                        let _ = timeout(CLOSE_TIMEOUT, leaving).await;
                    }
                    if let Some(link) = self.wires.link.take() {
                        Box::pin(link.close(CLOSE_TIMEOUT)).await;
                    }
                }
                Action::Authenticate { namespace, number, until } => {
                    let asking = timeout_at(until, self.auth.ask(&namespace));
                    self.wires.asking.push(Box::pin(async move {
                        let none = |_| Err(ClientError::Timeout("credentials"));
                        (namespace, number, asking.await.unwrap_or_else(none))
                    }));
                }
                Action::Send(sending) => self.send(sending),
                Action::Deliver(incoming) => self.deliver(incoming),
                Action::Answer(ticket, result) => {
                    if let Some(waiter) = self.waiters.remove(&ticket) {
                        // Whoever waited may have lost patience.
                        let _ = waiter.send(result);
                    }
                }
                Action::Forget(id) => self.shared.forget(id),
                Action::Notify(event) => self.shared.notify(event),
            }
        }
    }

    /// Returns the namespaces to join together with the handshake of a transport, if it can be so early.
    fn joins(&self) -> Option<Joins> {
        // The packet is text of a handshake, which others than JSON are not.
        if !self.dialer.may_be_early() || self.core.encoding() != Encoding::Json {
            return None;
        }
        let asking = self.core.greetings().into_iter().map(|(path, greeting)| {
            let auth = self.auth.ask(&path);
            async move {
                // A failure is told by the attempt that follows the handshake.
                let text = hello(auth.await.ok()?, greeting);
                let packet = Outgoing::connect(Encoding::Json, &path, &text).ok()?;
                Some((path, packet.text))
            }
        });
        let asking = join_all(asking);
        Some(Box::pin(async move { asking.await.into_iter().flatten().collect() }))
    }

    fn send(&mut self, sending: Sending) {
        let packet = &sending.packet;
        let bytes = packet.text.len() + packet.attachments.iter().map(|it| it.len()).sum::<usize>();
        self.shared.counting.lock().sent(bytes);
        if let Some(link) = &mut self.wires.link {
            link.send(sending);
        }
    }

    fn deliver(&mut self, incoming: Incoming) {
        self.shared.counting.lock().delivered();
        let Some(socket) = self.shared.sockets.lock().get(&incoming.namespace).cloned() else { return };
        let place = self.wires.received.take_anyway(incoming.args.bytes());
        let received = (incoming, place);
        if !self.wires.undelivered.is_empty() {
            return self.wires.undelivered.push_back((socket, received));
        }
        match socket.try_send(received) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(received)) => {
                self.wires.undelivered.push_back((socket, received));
            }
        }
    }

    fn ticket(&mut self, waiter: Waiter) -> Ticket {
        self.next_ticket += 1;
        self.waiters.insert(self.next_ticket, waiter);
        self.next_ticket
    }
}

/// However the task ends, by a panic or with its runtime too, nobody waits for it any more.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.sockets.lock().clear();
        self.shared.status.send_replace(Status::Closed);
        self.shared.end();
    }
}

impl Wires {
    /// Whether packets of the server are read: not while more waits for handlers than may.
    fn is_reading(&self) -> bool {
        self.undelivered.is_empty() && !self.received.is_over()
    }

    /// Whether the transport has not taken yet what was sent.
    fn is_congested(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_congested)
    }

    /// Waits for the next thing to happen.
    async fn wait(&mut self, timeout: Option<Instant>) -> Wake {
        let read = self.is_reading();
        let Self { commands, link, opening, succession, asking, undelivered, received } = self;
        let mut timer = timeout.map(|time| Box::pin(sleep_until(time)));
        tokio::select! {
            command = commands.recv() => Wake::Command(command),
            Some(outcome) = OptionFuture::from(opening.as_mut()) => Wake::Opened(outcome),
            wake = succession.wait() => wake,
            event = poll_fn(|cx| match link {
                Some(link) => link.poll(cx, read),
                None => std::task::Poll::Pending,
            }) => Wake::Link(event),
            Some((path, number, auth)) = asking.next(), if !asking.is_empty() => {
                Wake::Credentials(path, number, auth)
            }
            permit = room(undelivered.front()), if !undelivered.is_empty() => Wake::Room(permit),
            () = received.has_room(), if !read && undelivered.is_empty() => Wake::Readable,
            Some(()) = OptionFuture::from(timer.as_mut()) => Wake::Time,
        }
    }
}

impl Succession {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::None)
    }

    /// Waits until it is one step further.
    async fn wait(&mut self) -> Wake {
        match self {
            Self::None => pending().await,
            Self::Opening(_, opening) => Wake::Successor(opening.await),
            Self::Open(_, link) => {
                attend(link).await;
                Wake::SuccessorLost
            }
            Self::Leaving(_, link, leaving) => {
                let lost = async {
                    attend(link).await;
                    // That is found out when it is used.
                    pending().await
                };
                tokio::select! {
                    () = leaving => Wake::HandedOver,
                    () = lost => Wake::HandedOver,
                }
            }
        }
    }
}

/// Answers the heartbeats of a server on a transport that waits for its turn, until it ends. Nothing else comes before a
/// namespace is joined.
async fn attend(link: &mut Link) {
    loop {
        match poll_fn(|cx| link.poll(cx, true)).await {
            LinkEvent::Packet(Packet::Ping(_)) => link.send(Sending::pong()),
            LinkEvent::Closed(_) => return,
            _ => {}
        }
    }
}

/// Waits until a socket has room for an event. `None` means that it is gone.
async fn room(waiting: Option<&(mpsc::Sender<Received>, Received)>) -> Option<OwnedPermit<Received>> {
    let (socket, _) = waiting?;
    socket.clone().reserve_owned().await.ok()
}

/// Sends a call to the task of a client and waits for its result.
pub(super) async fn call<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> ClientResult<T> {
    let (say, result) = oneshot::channel();
    commands.send(command(say)).await.map_err(|_| ClientError::Closed)?;
    result.await.map_err(|_| ClientError::Closed)
}

/// The maximum number of calls that are handled before their packets are sent.
const COMMANDS_PER_TURN: usize = 64;

/// The maximum number of bytes of events that wait for handlers. Where they are more, the connection is not read
/// until handlers have taken some.
const RECEIVED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long the last packets may take when a client is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
