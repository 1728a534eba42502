//! Namespaces beside `/`: one by name, one per workspace made on demand, and one whose guests a function chooses.
//!
//! ```text
//! cargo run --example custom_namespace                   # or with an address: -- 127.0.0.1:8000
//! ```
//!
//! Then with Node.js (`npm install socket.io-client`):
//!
//! ```text
//! node -e '
//!   const { io } = require("socket.io-client");
//!   for (const path of ["/news", "/workspace-7", "/workspace-8", "/private/anna", "/nowhere"]) {
//!     const socket = io("http://localhost:3000" + path, { auth: { name: "anna" } });
//!     socket.on("connect_error", (error) => console.log(path, error.message));
//!     socket.onAny((...event) => console.log(path, ...event));
//!   }
//! '
//! ```
//!
//! What to see: a greeting in each namespace but `/nowhere`, which is refused, and every three seconds a notice in all
//! workspaces. Call it with another name, and `/private/anna` is refused too.

use std::net::SocketAddr;
use std::time::Duration;

use imks::socket::{Config, ConnectPayload, DynamicNamespace, NamespaceBuilder, NamespaceMatch, Server};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it talks to a person")]
async fn main() -> imks::ImksResult<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let address: SocketAddr = address
        .parse()
        .map_err(|_| imks::ImksError::Config("usage: custom_namespace [ADDRESS:PORT]".into()))?;
    let config = Config { cleanup_empty_child_namespaces: true, ..Config::default() };
    let server = Server::builder(config)
        .namespace("/news", greeting)
        .dynamic_namespace("workspaces", "/workspace-*", greeting)
        .dynamic_namespace("private", NamespaceMatch::ask(is_owner), greeting)
        .on_new_namespace(|namespace| tracing::info!(path = namespace.path(), "namespace made"));
    let serving = server.listen(address)?;
    println!("http://{}", serving.addr());
    let workspaces = serving.server().dynamic_namespace("workspaces");
    tokio::select! {
        () = serving.until(tokio::signal::ctrl_c()) => {}
        () = notices(workspaces) => {}
    }
    Ok(())
}

/// `/private/NAME` is for those who give that name.
async fn is_owner(path: std::sync::Arc<str>, payload: ConnectPayload) -> bool {
    let Some(owner) = path.strip_prefix("/private/") else { return false };
    let auth = payload.parse::<serde_json::Value>();
    auth.is_ok_and(|auth| auth["name"].as_str() == Some(owner))
}

fn greeting(ns: &mut NamespaceBuilder) {
    ns.on_connected(|socket| async move {
        let path = socket.namespace().path().to_owned();
        if let Err(error) = socket.emit("welcome", &path) {
            tracing::info!(%error, "left before the greeting");
        }
    });
}

/// Tells all workspaces at once.
async fn notices(workspaces: Option<DynamicNamespace>) {
    let Some(workspaces) = workspaces else { return };
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        if let Err(error) = workspaces.emit("notice", "still here") {
            tracing::warn!(%error, "no notice");
        }
    }
}
