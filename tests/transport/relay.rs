//! Carries datagrams between one client and a server, and can send them from another address.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub struct Relay {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

struct Shared {
    front: UdpSocket,
    client: Mutex<Option<SocketAddr>>,
    back: Mutex<Arc<UdpSocket>>,
    server: SocketAddr,
}

impl Relay {
    pub async fn start(server: SocketAddr) -> Self {
        let front = bind().await;
        let addr = front.local_addr().unwrap();
        let back = Mutex::new(Arc::new(bind().await));
        let shared = Arc::new(Shared { front, client: Mutex::default(), back, server });
        let relay = Self { addr, shared: shared.clone(), tasks: Mutex::default() };
        relay.spawn(async move {
            let mut datagram = [0; 2048];
            while let Ok((length, from)) = shared.front.recv_from(&mut datagram).await {
                *shared.client.lock() = Some(from);
                let back = shared.back.lock().clone();
                let _ = back.send_to(&datagram[..length], shared.server).await;
            }
        });
        relay.carry_back();
        relay
    }

    /// From now on the server sees another address.
    pub async fn change_path(&self) {
        *self.shared.back.lock() = Arc::new(bind().await);
        self.carry_back();
    }

    fn carry_back(&self) {
        let (shared, back) = (self.shared.clone(), self.shared.back.lock().clone());
        self.spawn(async move {
            let mut datagram = [0; 2048];
            while let Ok((length, _)) = back.recv_from(&mut datagram).await {
                let client = *shared.client.lock();
                if let Some(client) = client {
                    let _ = shared.front.send_to(&datagram[..length], client).await;
                }
            }
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().push(AbortOnDropHandle::new(TaskTracker::new().spawn(work)));
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}
