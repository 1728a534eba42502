//! A TCP relay in front of a server, which cuts connections and keeps new ones out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// A relay. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Relay {
    address: SocketAddr,
    cut: Arc<watch::Sender<()>>,
    is_closed: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            cut: Arc::new(watch::Sender::new(())),
            is_closed: Arc::default(),
            connections: Arc::default(),
        };
        let (accepting, tasks) = (relay.clone(), TaskTracker::new());
        TaskTracker::new().spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                if !accepting.is_closed.load(Ordering::SeqCst) {
                    tasks.spawn(pass(client, target, accepting.cut.subscribe()));
                }
            }
        });
        relay
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends all connections. New ones are possible.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }

    /// Ends all connections, and every new one, until it is opened again.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    pub(crate) fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, mut cut: watch::Receiver<()>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = cut.changed() => {}
    }
}
