//! How the nodes of a cluster pass on requests for each other's sessions, so that no balancer has to be sticky: each tells
//! the others where it listens, a few times in a second.

use std::time::Duration;

use imks::node::NodeId;
use imks::socket::parser::One;
use imks::socket::{NamespaceBuilder, Server};
use imks::testing::forward::{Contact, Forwarder};
use tokio::time::{Instant, interval};

/// The namespace in which nodes tell it.
pub const NAMESPACE: &str = "/nodes";

/// Where a node is, and the secret with which others sign what they pass on to it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Here {
    node: NodeId,
    address: String,
    secret: [u8; 32],
}

/// Takes in what other nodes tell.
pub fn hear(namespace: &mut NamespaceBuilder, forwarder: &Forwarder) {
    let forwarder = forwarder.clone();
    namespace.on_server_event(HERE, move |event| {
        if let Ok(Here { node, address, secret }) = event.args().first() {
            forwarder.update([(node, Contact { address, secret, certificate: None })], Instant::now());
        }
        std::future::ready(())
    });
}

/// Tells the other nodes again and again that this one listens on `port`.
pub async fn tell(server: Server, forwarder: Forwarder, port: u16) {
    let here =
        Here { node: server.node(), address: format!("127.0.0.1:{port}"), secret: *forwarder.secret() };
    let mut pace = interval(PACE);
    while let Some(namespace) = server.namespace(NAMESPACE) {
        pace.tick().await;
        if let Err(error) = namespace.server_side_emit(HERE, &One(&here)) {
            tracing::debug!(%error, "other nodes do not hear where this one is");
        }
    }
}

const HERE: &str = "here";
const PACE: Duration = Duration::from_millis(200);
