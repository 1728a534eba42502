//! Socket.IO inside an existing axum application, on `axum::serve`: the engine answers everything below its path, the
//! router everything else, and handlers of the router reach the clients.
//!
//! ```text
//! cargo run --example axum_embedding
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
//! What to see: the number of clients from the first curl, and `notice deployed` in the terminal of the client.
//!
//! `axum::serve` is fine behind a proxy. Facing the internet, prefer `imks::http::listener`: it has deadlines for slow
//! requests, limits and a drain.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::routing::{any, get, post};
use imks::engine::{self, Engine};
use imks::socket::{Namespace, Server};

#[tokio::main]
async fn main() -> imks::ImksResult<()> {
    let server = Server::builder(Default::default()).namespace("/", |_| {}).build()?;
    let engine = Engine::new(engine::Config::default())?;
    let Some(namespace) = server.namespace("/").cloned() else { return Ok(()) };
    let app = Router::new()
        .route("/", get(clients))
        .route("/notify", post(notify))
        .with_state(namespace)
        .route("/socket.io/", any(socket_io).with_state(engine.clone()))
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = imks::http::listener::bind(([127, 0, 0, 1], 3000).into())?;
    let http = async { axum::serve(listener, app).await.map_err(imks::ImksError::io("serving")) };
    tokio::select! {
        () = server.serve(engine) => Ok(()),
        served = http => served,
    }
}

/// Requests and upgrades of Socket.IO clients.
async fn socket_io(
    State(engine): State<Engine>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    engine.handle(request, peer).await.map(axum::body::Body::new)
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
