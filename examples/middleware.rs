//! Middleware of a namespace (who may join), of packets (what may pass), and listeners that see everything.
//!
//! ```text
//! cargo run --example middleware
//! ```
//!
//! Then with Node.js (`npm install socket.io-client`):
//!
//! ```text
//! node -e '
//!   const { io } = require("socket.io-client");
//!   io("http://localhost:3000").on("connect_error", (error) => console.log(error.message, error.data));
//!   const socket = io("http://localhost:3000", { auth: { token: "secret" }, forceNew: true });
//!   socket.emit("greet", "anna", console.log);
//!   socket.emit("hello", "bert", console.log);
//!   socket.emit("admin:reset", (answer) => console.log("never answered", answer));
//! '
//! ```
//!
//! What to see: the first client is refused with a message and data; the second one is greeted twice, although `hello`
//! is an old name; `admin:reset` is refused. The server logs every event in and out, and every refusal.

use imks::socket::{ConnectError, ConnectPayload, EventError, NamespaceBuilder, Reply, Server, Socket};
use serde_json::json;

#[tokio::main]
async fn main() -> imks::ImksResult<()> {
    tracing_subscriber::fmt().init();
    let server = Server::builder(Default::default()).namespace("/", guarded);
    server.listen(([127, 0, 0, 1], 3000))?.until(tokio::signal::ctrl_c()).await;
    Ok(())
}

fn guarded(ns: &mut NamespaceBuilder) {
    ns.middleware(|socket, _| async move {
        tracing::info!(socket = socket.id(), peer = %socket.handshake().peer, "wants to join");
        Ok(())
    });
    ns.middleware(|_, payload: ConnectPayload| async move {
        let auth: serde_json::Value = payload.parse().map_err(|_| ConnectError::new("unreadable"))?;
        match auth["token"].as_str() {
            Some("secret") => Ok(()),
            _ => Err(ConnectError::with_data("not authorized", json!({ "hint": "the token is secret" }))),
        }
    });
    ns.packet_middleware(|event| async move {
        match event.name() {
            "hello" => {
                let args = event.args().clone();
                event.replaced("greet", &args).map_err(EventError::from)
            }
            name if name.starts_with("admin:") => Err(EventError::new("for administrators only")),
            _ => Ok(event),
        }
    });
    ns.on_event_refused(|socket, error| tracing::info!(socket = socket.id(), error.message, "refused"));
    ns.on_any(|event| tracing::info!(event = event.name(), args = event.args().json(), "in"));
    ns.on_any_outgoing(|_, args| tracing::info!(event = args.name(), args = args.json(), "out"));
    ns.on_typed("greet", |socket: Socket, name: String| async move {
        socket.emit("greeted", &name)?;
        Ok::<_, EventError>(Reply(format!("hello {name}")))
    });
}
