//! A TCP proxy in front of a core. It counts connections, and can fall silent like a network that lost its way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// A proxy. Clones are the same proxy.
#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    silenced: Arc<watch::Sender<()>>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts on a free port.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            silenced: Arc::new(watch::Sender::new(())),
            connections: Arc::default(),
        };
        let accepting = proxy.clone();
        let (tasks, of_connections) = (TaskTracker::new(), TaskTracker::new());
        tasks.spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                of_connections.spawn(pass(client, target, accepting.silenced.subscribe()));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The connections that are open stay open and pass nothing any more. New ones work.
    pub fn silence(&self) {
        self.silenced.send_replace(());
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, mut silenced: watch::Receiver<()>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = silenced.changed() => std::future::pending().await,
    }
}
