//! An echo server: every event comes back, as the ack where the client wants one, and as an event otherwise.
//!
//! ```text
//! cargo run --example echo_server                         # http and ws, port 3000
//! cargo run --example echo_server -- --self-signed        # https, wss and WebTransport, port 8443
//! cargo run --example echo_server -- cert.pem key.pem     # the same, with your certificate
//! cargo run --example echo_client                         # in a second terminal; its first lines say the rest
//! ```
//!
//! Or with Node.js (`npm install socket.io-client`):
//!
//! ```text
//! node -e '
//!   const socket = require("socket.io-client").io("http://localhost:3000");
//!   socket.onAny((...event) => console.log("back:", ...event));
//!   socket.emit("hello", 1, { two: [3] }, Buffer.from("four"));
//!   socket.emit("hello", 5, (...args) => console.log("ack:", ...args));
//! '
//! ```
//!
//! What to see: `back: hello 1 { two: [ 3 ] } <Buffer 66 6f 75 72>`, and `ack: 5`. Ctrl-C ends the server after every
//! client has got what waits for it.

use std::env;
use std::net::SocketAddr;

use imks::ImksResult;
use imks::http::{SocketIo, SocketIoBuilder};
use imks::socket::{Event, NamespaceBuilder, Server};

#[tokio::main]
async fn main() -> ImksResult<()> {
    tracing_subscriber::fmt().init();
    let args: Vec<String> = env::args().skip(1).collect();
    let port = if args.is_empty() { 3000 } else { 8443 };
    let serving = builder(&args)?.listen(SocketAddr::from(([127, 0, 0, 1], port)))?;
    tracing::info!(tcp = %serving.addr(), udp = ?serving.webtransport_addr(), "listening");
    serving.until(tokio::signal::ctrl_c()).await;
    Ok(())
}

/// The server with a certificate from files, with one for development, or without any.
pub fn builder(args: &[String]) -> ImksResult<SocketIoBuilder> {
    let io = SocketIo::builder(Server::builder(Default::default()).namespace("/", echo).build()?);
    Ok(match args {
        [cert, key] => io.with_cert_path(cert).with_key_path(key),
        [flag] if flag == "--self-signed" => io.with_self_signed(["localhost", "127.0.0.1"]),
        _ => io,
    })
}

fn echo(ns: &mut NamespaceBuilder) {
    ns.on_unknown(|mut event: Event| async move {
        let sent = match event.take_ack() {
            Some(ack) => ack.send_args(event.args()),
            None => event.socket().emit_args(event.name(), event.args()),
        };
        if let Err(error) = sent {
            tracing::info!(%error, "not sent back");
        }
    });
}
