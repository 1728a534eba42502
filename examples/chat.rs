//! A chat with rooms: join, say, leave, and who is there.
//!
//! ```text
//! cargo run --example chat
//! ```
//!
//! Then in two terminals with Node.js (`npm install socket.io-client`):
//!
//! ```text
//! node -e '
//!   const socket = require("socket.io-client").io("http://localhost:3000", { auth: { name: process.argv[1] } });
//!   socket.onAny((...event) => console.log(...event));
//!   socket.emit("join", "lobby", (names) => { console.log("here:", names); socket.emit("say", "lobby", "hello"); });
//! ' anna
//! ```
//!
//! What to see: each terminal prints who is in the lobby, and what the others say, join and leave.

use imks::socket::{
    ConnectError, ConnectPayload, EventError, NamespaceBuilder, Reply, RoomChange, Server, Socket,
};
use serde::{Deserialize, Serialize};

/// Kept with each socket.
struct Name(String);

#[derive(Deserialize)]
struct Auth {
    name: String,
}

#[derive(Serialize)]
struct Said<'a> {
    from: &'a str,
    text: &'a str,
}

#[tokio::main]
async fn main() -> imks::ImksResult<()> {
    let server = Server::builder(Default::default()).namespace("/", chat);
    server.listen(([127, 0, 0, 1], 3000))?.until(tokio::signal::ctrl_c()).await;
    Ok(())
}

fn chat(ns: &mut NamespaceBuilder) {
    ns.on_connect(|socket, payload: ConnectPayload| async move {
        let auth: Auth = payload.parse().map_err(|_| ConnectError::new("tell your name"))?;
        socket.set_data(Name(auth.name));
        Ok(())
    });
    ns.on_typed("join", |socket: Socket, room: String| async move {
        socket.join(&room);
        Reply(names(&socket, &room))
    });
    ns.on_typed("leave", |socket: Socket, room: String| async move { socket.leave(&room) });
    ns.on_typed("say", |socket: Socket, (room, text): (String, String)| async move {
        if !socket.is_in(&room) {
            return Err(EventError::new("join the room first"));
        }
        let said = Said { from: &name(&socket), text: &text };
        socket.to(&room).emit("said", &said).map_err(EventError::from)
    });
    ns.on_room_change(|socket, change| {
        let told = match change {
            RoomChange::Joined(room) => socket.to(room).emit("joined", &name(socket)),
            RoomChange::Left(room) => socket.to(room).emit("left", &name(socket)),
            RoomChange::Created(_) | RoomChange::Deleted(_) => Ok(()),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "the room was not told");
        }
    });
}

fn names(socket: &Socket, room: &str) -> Vec<String> {
    socket.namespace().sockets_in(room).iter().map(name).collect()
}

fn name(socket: &Socket) -> String {
    socket.data::<Name>().map(|name| name.0.clone()).unwrap_or_default()
}
