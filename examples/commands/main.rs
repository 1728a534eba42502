//! A server that takes commands as text: JOIN, LEAVE, SEND and BROADCAST, in a typed protocol of its own
//! (`examples/commands/protocol.rs`).
//!
//! ```text
//! cargo run --example commands                               # or with an address: -- 127.0.0.1:8000
//! cargo run --example commands_client -- anna                  # in two more terminals, with two names
//! ```
//!
//! Or with Node.js (`npm install socket.io-client`):
//!
//! ```text
//! node -e '
//!   const socket = require("socket.io-client").io("http://localhost:3000", { auth: { name: "anna" } });
//!   socket.on("message", (message) => console.log(message));
//!   for (const line of ["SEND lobby hello", "JOIN lobby", "SEND lobby hello", "DANCE"]) socket.send(line);
//! '
//! ```
//!
//! What to see: who comes and goes and what they say, each an object with a `type`; `not_in_room` for the first line and
//! `unknown_command` for the last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use imks::socket::{ConnectPayload, EventError, NamespaceBuilder, Reply, Server, ServerBuilder, Socket};
use imks::{ImksError, ImksResult};
use serde::Deserialize;

pub mod protocol;

use protocol::{Command, CommandError, Message};

/// Kept with each socket.
struct Name(String);

/// What the server counts, for all clients.
#[derive(Default)]
pub struct Totals {
    /// The commands of all clients, carried out or not.
    pub commands: AtomicU64,
}

#[tokio::main]
async fn main() -> ImksResult<()> {
    tracing_subscriber::fmt().init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let address: SocketAddr =
        address.parse().map_err(|_| ImksError::Config("usage: commands [ADDRESS:PORT]".into()))?;
    let serving = server(Arc::default()).listen(address)?;
    tracing::info!(addr = %serving.addr(), "listening");
    serving.until(tokio::signal::ctrl_c()).await;
    Ok(())
}

/// The server with its handlers, which add to `totals`.
pub fn server(totals: Arc<Totals>) -> ServerBuilder {
    Server::builder(Default::default()).namespace("/", |ns| commands(ns, totals))
}

fn commands(ns: &mut NamespaceBuilder, totals: Arc<Totals>) {
    #[derive(Deserialize)]
    struct Auth {
        name: Option<String>,
    }
    ns.on_connect(|socket, payload: ConnectPayload| async move {
        let name = payload.parse::<Auth>().ok().and_then(|auth| auth.name);
        socket.set_data(Name(name.unwrap_or_else(|| "somebody".into())));
        Ok(())
    });
    ns.on_disconnecting(|socket, _| {
        for room in socket.rooms().iter().filter(|room| ***room != *socket.id()) {
            report(tell(socket, room, &Message::Leave { user: name(socket), room: room.to_string() }));
        }
    });
    ns.with_state(totals).on_typed("message", |socket: Socket, line: String, totals| async move {
        totals.commands.fetch_add(1, Ordering::Relaxed);
        match line.parse().and_then(|command| carry_out(&socket, command)) {
            Ok(sent) => sent.map(|()| Reply("done")).map_err(EventError::from),
            Err(error) => {
                let refusal = EventError::new(error.to_string());
                socket.emit("message", &Message::from(error))?;
                Err(refusal)
            }
        }
    });
}

fn carry_out(socket: &Socket, command: Command) -> Result<ImksResult<()>, CommandError> {
    let user = name(socket);
    Ok(match command {
        Command::Join { room } => {
            socket.join(&room);
            tell(socket, &room, &Message::Join { user, room: room.clone() })
        }
        Command::Leave { room } if socket.is_in(&room) => {
            socket.leave(&room);
            tell(socket, &room, &Message::Leave { user, room: room.clone() })
        }
        Command::Send { room, text } if socket.is_in(&room) => {
            let chat = Message::Chat { user, room: Some(room.clone()), message: text, timestamp: now() };
            tell(socket, &room, &chat)
        }
        Command::Broadcast { text } => {
            let chat = Message::Chat { user, room: None, message: text, timestamp: now() };
            socket.namespace().emit("message", &chat)
        }
        Command::Leave { room } | Command::Send { room, .. } => return Err(CommandError::NotInRoom(room)),
    })
}

/// Sends a message to the others in a room.
fn tell(socket: &Socket, room: &str, message: &Message) -> ImksResult<()> {
    socket.to(room).emit("message", message)
}

fn report(sent: ImksResult<()>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "the room was not told");
    }
}

fn name(socket: &Socket) -> String {
    socket.data::<Name>().map(|name| name.0.clone()).unwrap_or_default()
}

#[allow(clippy::disallowed_methods, reason = "an application may read the clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
