//! Socket.IO over WebTransport (HTTP/3 on QUIC), beside HTTPS, polling and WebSockets, on one port and with one
//! certificate. Clients in Rust also come without HTTP/3, to UDP port 3001 (`examples/quic_client.rs`).
//!
//! ```text
//! cargo run --example webtransport -- cert.pem key.pem
//! ```
//!
//! Without files, it makes a certificate for development, and serves plain HTTP over TCP. Then open a page of
//! `http://localhost:3000` (or any other) in Chrome, load `socket.io.js`, and say in its console:
//!
//! ```text
//! const { hashes } = await fetch("http://localhost:3000/webtransport/certificate-hashes").then((it) => it.json());
//! const serverCertificateHashes = hashes.map(({ algorithm, value }) =>
//!   ({ algorithm, value: Uint8Array.from(atob(value), (it) => it.charCodeAt(0)) }));
//! const socket = io("http://localhost:3000", { transportOptions: { webtransport: { serverCertificateHashes } } });
//! socket.io.engine.on("upgrade", (transport) => console.log("upgraded to", transport.name));
//! console.log(await socket.emitWithAck("transport"));
//! ```
//!
//! What to see: `upgraded to webtransport`, and `webtransport` for each call after that. When the files are replaced, new
//! connections get the new certificate within 30 seconds, and open ones continue.

use std::env;

use imks::http::webtransport::{Config, Mode};
use imks::http::{SocketIo, SocketIoBuilder, quic};
use imks::socket::{Reply, Server, Socket};

#[tokio::main]
async fn main() -> imks::ImksResult<()> {
    tracing_subscriber::fmt().init();
    let files: Vec<String> = env::args().skip(1).collect();
    let quic =
        quic::Config { listen: Some(([127, 0, 0, 1], 3001).into()), zero_rtt: true, ..Default::default() };
    let serving = builder(&files)?.with_quic(quic).listen(([127, 0, 0, 1], 3000))?;
    let (udp, quic) = (serving.webtransport_addr(), serving.quic_addr());
    tracing::info!(tcp = %serving.addr(), ?udp, ?quic, "listening");
    serving.until(tokio::signal::ctrl_c()).await;
    Ok(())
}

/// The server with a certificate from files, or with one for development.
pub fn builder(files: &[String]) -> imks::ImksResult<SocketIoBuilder> {
    let server = Server::builder(Default::default())
        .namespace("/", |ns| {
            ns.on_typed("transport", |socket: Socket, ()| async move { Reply(socket.transport().name()) });
        })
        .build()?;
    let builder = SocketIo::builder(server);
    Ok(match files {
        [cert, key] => builder.with_cert_path(cert).with_key_path(key),
        _ => builder.with_webtransport(Config { mode: Mode::On, ..Config::default() }),
    })
}
