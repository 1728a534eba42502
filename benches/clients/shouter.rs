//! Who sends the broadcasts that clients hear: one more client, in this process, which is not measured.

use std::time::Duration;

use imks::client::{Binary, Client, Socket, TransportKind, Transports};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Outcome;

/// Broadcasts under way: the next one is sent when the first of them has come back.
const WINDOW: usize = 4;
/// How long a broadcast may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client in the room of all.
pub struct Shouter {
    runtime: Runtime,
    socket: Socket,
}

impl Shouter {
    pub fn new(url: &str) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let socket = runtime.block_on(async {
            let transports = Transports::only(TransportKind::WebSocket);
            let client = Client::builder(url).transports(transports).connect().await?;
            client.namespace("/").await
        })?;
        Ok(Self { runtime, socket })
    }

    /// Sends so many broadcasts of so many bytes, and waits until all have come back.
    pub fn shout(&self, bytes: usize, count: usize) -> Outcome<()> {
        self.runtime.block_on(async {
            self.socket.emit("join", "all").await?;
            let (say, mut back) = mpsc::channel(WINDOW);
            let handler = self.socket.on("msg", move |_: Binary| {
                let say = say.clone();
                async move {
                    // Nobody waits for it any more when a run has failed.
                    let _ = say.send(()).await;
                }
            });
            let payload = Binary(vec![7; bytes].into());
            for number in 0..count + WINDOW {
                if number >= WINDOW {
                    timeout(PATIENCE, back.recv()).await?;
                }
                if number < count {
                    self.socket.emit_args("broadcast", &("all", &payload)).await?;
                }
            }
            self.socket.off(handler);
            Ok(())
        })
    }
}
