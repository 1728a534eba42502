//! A TCP proxy whose connections can be cut, slow or silent, and lead to another server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Nothing is carried, and nothing is closed.
    Silent,
    /// Everything is closed, and new connections too.
    Cut,
    /// Connections that are opened now carry everything so much later.
    #[allow(dead_code, reason = "not every test file needs it")]
    Slow(Duration),
}

pub struct Proxy {
    pub addr: SocketAddr,
    server: Arc<watch::Sender<SocketAddr>>,
    line: watch::Sender<Line>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (line, server) = (watch::Sender::new(Line::Open), Arc::new(watch::Sender::new(server)));
        let (tasks, lines, servers) = (TaskTracker::new(), line.clone(), server.clone());
        let accepting = async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = *servers.borrow();
                tasks.spawn(carry(client, server, lines.subscribe()));
            }
        };
        let accepting = AbortOnDropHandle::new(tokio::spawn(accepting));
        Arc::new(Self { addr, server, line, _accepting: accepting })
    }

    /// New connections lead to another server.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub fn lead_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut line: watch::Receiver<Line>) {
    let first = *line.borrow_and_update();
    match first {
        Line::Cut => {}
        Line::Silent => std::future::pending().await,
        Line::Slow(delay) => {
            tokio::select! {
                _ = carry_late(client, server, delay) => {}
                _ = line.wait_for(|line| *line != first) => {}
            }
        }
        Line::Open => carry_while_open(client, server, line).await,
    }
}

async fn carry_while_open(mut client: TcpStream, server: SocketAddr, mut line: watch::Receiver<Line>) {
    let Ok(mut upstream) = TcpStream::connect(server).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut upstream) => return,
        changed = line.wait_for(|line| *line != Line::Open) => if changed.is_err() { return },
    }
    if *line.borrow() == Line::Silent {
        // A connection that was silent stays so: its peers have to notice by themselves.
        std::future::pending::<()>().await;
    }
}

async fn carry_late(client: TcpStream, server: SocketAddr, delay: Duration) -> io::Result<()> {
    let upstream = TcpStream::connect(server).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = upstream.into_split();
    tokio::try_join!(copy_late(from_client, to_server, delay), copy_late(from_server, to_client, delay))?;
    Ok(())
}

/// Copies what comes, a while after it came.
async fn copy_late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        tokio::time::sleep(delay).await;
        to.write_all(&piece[..length]).await?;
    }
}
