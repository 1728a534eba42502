//! A relay in front of a server, for TCP and UDP on one port. It cuts connections, keeps new ones out, lets no datagrams
//! through, makes TCP slow, delays everything and loses its way for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// A relay. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Relay {
    address: SocketAddr,
    target: SocketAddr,
    /// Where datagrams go.
    udp_target: Arc<Mutex<SocketAddr>>,
    /// How often everything was cut.
    cuts: Arc<watch::Sender<usize>>,
    /// How often the server was made to see another address.
    paths: Arc<AtomicUsize>,
    /// The datagrams of clients, from the first one on.
    recorded: Arc<Mutex<Vec<Vec<u8>>>>,
    is_closed: Arc<AtomicBool>,
    is_without_udp: Arc<AtomicBool>,
    /// Whether nothing comes back from the server.
    is_mute: Arc<AtomicBool>,
    delay: Arc<Mutex<Duration>>,
    /// How long each datagram of the server occupies the way to the client.
    pace: Arc<Mutex<Duration>>,
    /// How many bytes of the server were carried in datagrams.
    carried: Arc<AtomicUsize>,
    /// How long everything takes on its way.
    lag: Arc<Mutex<Duration>>,
    /// Whether everything disappears that comes.
    is_lost: Arc<watch::Sender<bool>>,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        Self::between(target, target).await
    }

    /// A relay to two addresses of a server, for TCP and for UDP.
    pub(crate) async fn between(target: SocketAddr, udp_target: SocketAddr) -> Self {
        let (listener, udp) = bind().await;
        let relay = Self {
            address: listener.local_addr().unwrap(),
            target,
            udp_target: Arc::new(Mutex::new(udp_target)),
            cuts: Arc::new(watch::Sender::new(0)),
            paths: Arc::default(),
            recorded: Arc::default(),
            is_closed: Arc::default(),
            is_without_udp: Arc::default(),
            is_mute: Arc::default(),
            delay: Arc::default(),
            pace: Arc::default(),
            carried: Arc::default(),
            lag: Arc::default(),
            is_lost: Arc::new(watch::Sender::new(false)),
            connections: Arc::default(),
        };
        let tasks = TaskTracker::new();
        tasks.spawn(relay.clone().carry_connections(listener));
        tasks.spawn(relay.clone().carry_datagrams(Arc::new(udp)));
        relay
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address with TLS, which is a part of reaching the server that the relay can make slow.
    pub(crate) fn secure_url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Ends all connections: those of TCP are closed, and nothing comes through any more on those of QUIC. New ones are
    /// possible.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends all connections, and every new one, until it is opened again.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    pub(crate) fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    /// Lets no datagram through from now on, as some firewalls do.
    pub(crate) fn block_udp(&self) {
        self.is_without_udp.store(true, Ordering::SeqCst);
    }

    pub(crate) fn let_udp_through(&self) {
        self.is_without_udp.store(false, Ordering::SeqCst);
    }

    /// Lets the server see another address of each client from now on, as a router does that has forgotten them.
    pub(crate) fn change_path(&self) {
        self.paths.fetch_add(1, Ordering::SeqCst);
    }

    /// Carries the datagrams of clients that come anew to another server.
    pub(crate) fn lead_to(&self, udp_target: SocketAddr) {
        *self.udp_target.lock() = udp_target;
    }

    /// Lets the datagrams of clients through, and whether those of the server.
    pub(crate) fn mute_server(&self, is_mute: bool) {
        self.is_mute.store(is_mute, Ordering::SeqCst);
    }

    /// Carries datagrams of the server one after the other, each in this time.
    pub(crate) fn throttle(&self, pace: Duration) {
        *self.pace.lock() = pace;
    }

    /// How many bytes of the server were carried in datagrams.
    pub(crate) fn carried(&self) -> usize {
        self.carried.load(Ordering::SeqCst)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The datagrams that have come from clients since the last call.
    pub(crate) fn recorded(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.recorded.lock())
    }

    /// Makes every new TCP connection wait before anything is carried on it.
    pub(crate) fn slow_tcp(&self, delay: Duration) {
        *self.delay.lock() = delay;
    }

    /// Makes everything take so long on its way from now on.
    pub(crate) fn lag(&self, lag: Duration) {
        *self.lag.lock() = lag;
    }

    /// Passes nothing any more, without ending a connection, as a network that has lost its way; new connections are
    /// taken and get no answer. Later everything goes on, where nobody has lost patience.
    pub(crate) fn lose(&self, is_lost: bool) {
        self.is_lost.send_replace(is_lost);
    }

    /// Waits until what has come may go on.
    async fn hold(&self) {
        // The sender lives as long as the relay.
        let _ = self.is_lost.subscribe().wait_for(|is_lost| !is_lost).await;
        let lag = *self.lag.lock();
        if !lag.is_zero() {
            tokio::time::sleep(lag).await;
        }
    }

    /// How many TCP connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn carry_connections(self, listener: TcpListener) {
        let tasks = TaskTracker::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            self.connections.fetch_add(1, Ordering::SeqCst);
            if !self.is_closed.load(Ordering::SeqCst) {
                let (delay, cuts) = (*self.delay.lock(), self.cuts.subscribe());
                tasks.spawn(pass(self.clone(), client, delay, cuts));
            }
        }
    }

    async fn carry_datagrams(self, front: Arc<UdpSocket>) {
        let (tasks, mut flows) =
            (TaskTracker::new(), HashMap::<SocketAddr, (usize, usize, Arc<UdpSocket>)>::new());
        let mut datagram = [0; 2_048];
        while let Ok((length, client)) = front.recv_from(&mut datagram).await {
            self.recorded.lock().push(datagram[..length].to_vec());
            let is_blocked =
                self.is_closed.load(Ordering::SeqCst) || self.is_without_udp.load(Ordering::SeqCst);
            let is_blocked = is_blocked || *self.is_lost.borrow();
            let now = *self.cuts.borrow();
            if is_blocked || flows.get(&client).is_some_and(|(begun, ..)| *begun != now) {
                continue;
            }
            let target = *self.udp_target.lock();
            let path = self.paths.load(Ordering::SeqCst);
            let is_known = flows.get(&client).is_some_and(|(_, known, _)| *known == path);
            if !is_known {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                tasks.spawn(self.clone().carry_back(back.clone(), front.clone(), client));
                flows.insert(client, (now, path, back));
            }
            self.hold().await;
            let _ = flows[&client].2.send_to(&datagram[..length], target).await;
        }
    }

    async fn carry_back(self, back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
        let mut cuts = self.cuts.subscribe();
        let mut datagram = [0; 2_048];
        loop {
            let length = tokio::select! {
                received = back.recv_from(&mut datagram) => received.map_or(0, |(length, _)| length),
                _ = cuts.changed() => return,
            };
            let is_through =
                !self.is_without_udp.load(Ordering::SeqCst) && !self.is_mute.load(Ordering::SeqCst);
            if is_through && !*self.is_lost.borrow() {
                self.hold().await;
                let _ = front.send_to(&datagram[..length], client).await;
                self.carried.fetch_add(length, Ordering::SeqCst);
            }
            let pace = *self.pace.lock();
            if !pace.is_zero() {
                tokio::time::sleep(pace).await;
            }
        }
    }
}

/// One port that is free for both.
async fn bind() -> (TcpListener, UdpSocket) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            return (listener, udp);
        }
    }
}

async fn pass(relay: Relay, client: TcpStream, delay: Duration, mut cuts: watch::Receiver<usize>) {
    tokio::time::sleep(delay).await;
    let Ok(server) = TcpStream::connect(relay.target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let carrying = async {
        tokio::try_join!(carry(&relay, from_client, to_server), carry(&relay, from_server, to_client))
    };
    tokio::select! {
        _ = carrying => {}
        _ = cuts.changed() => {}
    }
}

/// Carries what comes until it ends.
async fn carry(relay: &Relay, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match from.read(&mut bytes).await? {
            0 => return to.shutdown().await,
            count => {
                relay.hold().await;
                to.write_all(&bytes[..count]).await?;
            }
        }
    }
}
