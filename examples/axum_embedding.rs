//! Socket.IO in front of an existing axum application, on `axum::serve`: one layer answers Socket.IO clients, the routes
//! everything else, and handlers of the routes reach the clients.
//!
//! ```text
//! cargo run --example axum_embedding                     # or with an address: -- 127.0.0.1:8000
//! ```
//!
//! Then with Node.js (`npm install socket.io-client`) in one terminal, and curl in another:
//!
//! ```text
//! node -e '
//!   require("socket.io-client").io("http://localhost:3000").onAny((...event) => console.log(...event));
//! '
//! curl http://localhost:3000/
//! curl -X POST http://localhost:3000/notify -d "deployed"
//! ```
//!
//! What to see: the number of clients from the first curl, and `notice deployed` in the terminal of the client. After
//! Ctrl-C the client gets what waits for it, and then the program ends.
//!
//! `axum::serve` is fine behind a proxy. Facing the internet, prefer `imks::http::listener`: it has deadlines for slow
//! requests, limits and a drain.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use imks::http::SocketIo;
use imks::socket::{Namespace, Server};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it talks to a person")]
async fn main() -> imks::ImksResult<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let address: SocketAddr = address
        .parse()
        .map_err(|_| imks::ImksError::Config("usage: axum_embedding [ADDRESS:PORT]".into()))?;
    let server = Server::builder(Default::default()).namespace("/", |_| {}).build()?;
    let Some(namespace) = server.namespace("/").cloned() else { return Ok(()) };
    let io = SocketIo::start(server, Default::default())?;
    let app = Router::new()
        .route("/", get(clients))
        .route("/notify", post(notify))
        .with_state(namespace)
        .layer(io.clone())
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = imks::http::listener::bind(address)?;
    println!("http://{}", listener.local_addr().unwrap_or(address));
    let shutdown = async move {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "no signals: the program ends without a drain");
        }
        io.close().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await.map_err(imks::ImksError::io("serving"))
}

async fn clients(State(namespace): State<Namespace>) -> String {
    format!("{} clients\n", namespace.len())
}

async fn notify(State(namespace): State<Namespace>, text: String) -> &'static str {
    match namespace.emit("notice", &text) {
        Ok(()) => "told\n",
        Err(_) => "not told\n",
    }
}
