//! The `load` contract on socketioxide: `imks-peer-socketioxide PORT`.
//!
//! `echo` acks its arguments; `join` ROOM and `leave` ROOM ack; `broadcast` ROOM X emits `msg` X to the whole
//! room, the sender included.

use serde_json::Value;
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef},
};

/// The default of 128 packets refuses sends whenever a burst is longer, and its members then miss messages.
const MAX_BUFFER_SIZE: usize = 8192;

fn register(socket: SocketRef) {
    socket.on("echo", async |Data(value): Data<Value>, ack: AckSender| {
        let _ = ack.send(&value);
    });
    socket.on("join", async |socket: SocketRef, Data(room): Data<String>, ack: AckSender| {
        socket.join(room);
        let _ = ack.send(&());
    });
    socket.on("leave", async |socket: SocketRef, Data(room): Data<String>, ack: AckSender| {
        socket.leave(room);
        let _ = ack.send(&());
    });
    socket.on("broadcast", async |socket: SocketRef, Data((room, body)): Data<(String, Value)>| {
        // `within` includes the sender, `to` would not.
        let _ = socket.within(room).emit("msg", &body).await;
    });
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).as_deref().unwrap_or("3000").parse()?;
    let (layer, io) = SocketIo::builder().max_buffer_size(MAX_BUFFER_SIZE).build_layer();
    io.ns("/", async |socket: SocketRef| register(socket));
    let socket = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {port}");
    axum::serve(socket, axum::Router::new().layer(layer)).await?;
    Ok(())
}
