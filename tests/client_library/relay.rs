//! A relay in front of a server, for TCP and UDP on one port. It cuts connections, keeps new ones out, lets no datagrams
//! through and makes TCP slow.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
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
                tasks.spawn(pass(client, self.target, delay, cuts));
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
            if !self.is_without_udp.load(Ordering::SeqCst) && !self.is_mute.load(Ordering::SeqCst) {
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

async fn pass(mut client: TcpStream, target: SocketAddr, delay: Duration, mut cuts: watch::Receiver<usize>) {
    tokio::time::sleep(delay).await;
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = cuts.changed() => {}
    }
}
