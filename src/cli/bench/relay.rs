//! A TCP relay in this process, which cuts the connections that pass through it and can keep new ones out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::{ImksError, ImksResult};

/// A relay on a free port of loopback. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Shared {
    /// Host and port behind the relay.
    target: String,
    is_closed: AtomicBool,
    next: AtomicU64,
    cuts: AtomicU64,
    open: Mutex<HashMap<u64, CancellationToken>>,
    tasks: TaskTracker,
}

impl Relay {
    /// Starts a relay to a host and a port.
    ///
    /// # Errors
    /// [`ImksError::Io`] if there is no free port.
    pub(in crate::cli) async fn start(target: String) -> ImksResult<Self> {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.map_err(ImksError::io("starting a relay on loopback"))?;
        let address = listener.local_addr().map_err(ImksError::io("the address of the relay"))?;
        let (is_closed, next, cuts) = (AtomicBool::default(), AtomicU64::default(), AtomicU64::default());
        let (open, tasks) = (Mutex::default(), TaskTracker::new());
        let shared = Arc::new(Shared { target, is_closed, next, cuts, open, tasks });
        let end = CancellationToken::new();
        let (accepting, until) = (shared.clone(), end.clone());
        shared.tasks.spawn(async move {
            tokio::select! {
                () = accepting.accept(&listener) => {}
                () = until.cancelled() => accepting.cut_all(),
            }
        });
        Ok(Self { address, shared, _end: end.drop_guard() })
    }

    /// Returns the address on loopback.
    pub(in crate::cli) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections, and every new one, until the relay is opened again.
    pub(in crate::cli) fn close(&self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.cut_all();
    }

    /// Lets connections through again.
    pub(in crate::cli) fn open(&self) {
        self.shared.is_closed.store(false, Ordering::SeqCst);
    }

    /// Cuts about one of `of` connections, chosen at random, and at least one where there are any.
    pub(in crate::cli) fn cut_some(&self, of: usize) {
        let mut open = self.shared.open.lock();
        let wanted = open.len().div_ceil(of.max(1));
        for _ in 0..wanted {
            let random = getrandom::u32().unwrap_or_default() as usize;
            let chosen = open.keys().nth(random % open.len().max(1)).copied();
            if let Some(connection) = chosen.and_then(|id| open.remove(&id)) {
                connection.cancel();
                self.shared.cuts.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns how many connections [`Relay::cut_some`] has cut.
    pub(in crate::cli) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Shared {
    async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                // Out of descriptors: the next attempt may be luckier, and must not spin.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Some((id, cut)) = self.admit() else { continue };
            let shared = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = pass(client, &shared.target) => {}
                    () = cut.cancelled() => {}
                }
                shared.open.lock().remove(&id);
            });
        }
    }

    /// Notes a new connection; `None` while the relay is closed. That is looked up under the lock of the connections,
    /// so that none is added after [`Shared::cut_all`] has cut those that it found.
    fn admit(&self) -> Option<(u64, CancellationToken)> {
        let mut open = self.open.lock();
        if self.is_closed.load(Ordering::SeqCst) {
            return None;
        }
        let (id, cut) = (self.next.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        open.insert(id, cut.clone());
        Some((id, cut))
    }

    fn cut_all(&self) {
        self.open.lock().drain().for_each(|(_, connection)| connection.cancel());
    }
}

async fn pass(mut client: TcpStream, target: &str) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    // Without this, small packets would wait for each other in both directions.
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    // How the connection ended is for its two sides to see.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        TaskTracker::new().spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tasks.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn answers(stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        stream.write_all(b"x").await.is_ok() && stream.read_exact(&mut byte).await.is_ok()
    }

    #[tokio::test]
    async fn a_connection_passes_until_it_is_cut_and_a_closed_relay_lets_nobody_in() {
        let relay = Relay::start(echo().await.to_string()).await.unwrap();
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        assert!(answers(&mut stream).await);
        relay.cut_some(10);
        assert!(!answers(&mut stream).await);
        assert_eq!(relay.cuts(), 1);
        relay.close();
        assert!(relay.shared.admit().is_none());
        let mut kept_out = TcpStream::connect(relay.address()).await.unwrap();
        assert!(!answers(&mut kept_out).await);
        relay.open();
        let mut back = TcpStream::connect(relay.address()).await.unwrap();
        assert!(answers(&mut back).await);
    }

    #[tokio::test]
    async fn without_connections_there_is_nothing_to_cut() {
        let relay = Relay::start("127.0.0.1:9".into()).await.unwrap();
        relay.cut_some(1);
        assert_eq!(relay.cuts(), 0);
    }
}
