//! A TCP proxy whose connections can be cut or go silent.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
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
}

pub struct Proxy {
    pub addr: SocketAddr,
    line: watch::Sender<Line>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let line = watch::Sender::new(Line::Open);
        let (tasks, lines) = (TaskTracker::new(), line.clone());
        let accepting = async move {
            while let Ok((client, _)) = listener.accept().await {
                tasks.spawn(carry(client, server, lines.subscribe()));
            }
        };
        let accepting = AbortOnDropHandle::new(tokio::spawn(accepting));
        Arc::new(Self { addr, line, _accepting: accepting })
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, mut line: watch::Receiver<Line>) {
    let first = *line.borrow_and_update();
    if first == Line::Open {
        let Ok(mut upstream) = TcpStream::connect(server).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut upstream) => return,
            changed = line.wait_for(|line| *line != Line::Open) => if changed.is_err() { return },
        }
        if *line.borrow() == Line::Silent {
            // A connection that was silent stays so: its peers have to notice by themselves.
            std::future::pending::<()>().await;
        }
    } else if first == Line::Silent {
        std::future::pending::<()>().await;
    }
}
