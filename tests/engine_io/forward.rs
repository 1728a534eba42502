//! Two engines in one process, and a load balancer that is not sticky: each request may come to either of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use imks::engine::config::Hooks;
use imks::engine::{CloseReason, Config, Engine, OwnerUnreachable};
use imks::node::NodeId;
use parking_lot::Mutex;

use super::support::*;

/// The way between nodes: a table in memory.
#[derive(Clone, Default)]
struct Nodes(Arc<Mutex<HashMap<NodeId, Engine>>>);

impl Nodes {
    /// Starts a node that forwards to the others.
    async fn start(&self) -> (NodeId, Server) {
        let node = NodeId::random().unwrap();
        let nodes = self.clone();
        let hooks = Hooks {
            forward: Some(Arc::new(move |owner, request| {
                let owner = nodes.0.lock().get(&owner).cloned();
                Box::pin(async move {
                    let engine = owner.ok_or(OwnerUnreachable)?;
                    Ok(engine.handle_forwarded(request).await)
                })
            })),
            ..Hooks::default()
        };
        let server = Server::start(Config { node: Some(node), hooks, ..Config::default() }).await;
        self.0.lock().insert(node, server.engine.clone());
        (node, server)
    }
}

#[tokio::test]
async fn a_session_is_served_by_its_owner_whichever_node_is_asked() {
    let nodes = Nodes::default();
    let ((_, owner), (_, other)) = (nodes.start().await, nodes.start().await);
    let session = owner.open().await;
    for round in 0..4 {
        let (posted, polled) = if round % 2 == 0 { (&owner, &other) } else { (&other, &owner) };
        let message = format!("4round {round}");
        let (waiting, sent) = tokio::join!(polled.get(&session), posted.post(&session, &message));
        assert_eq!((waiting.body, &*sent.body), (message, "ok"));
    }
    assert_eq!((owner.engine.sessions(), other.engine.sessions()), (1, 0));
    let bad = other.post(&session, "abc").await;
    assert_eq!(bad.status, 400);
    assert_eq!(other.get(&session).await.body, r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[tokio::test]
async fn a_client_that_leaves_a_forwarded_poll_ends_its_session() {
    let nodes = Nodes::default();
    let ((_, mut owner), (_, other)) = (nodes.start().await, nodes.start().await);
    let session = owner.open().await;
    let waiting = other.send("GET", &session, &[], "").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(waiting);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn an_upgrade_at_the_wrong_node_is_refused_and_polling_goes_on() {
    let nodes = Nodes::default();
    let ((_, owner), (_, other)) = (nodes.start().await, nodes.start().await);
    let session = owner.open().await;
    assert_eq!(other.dial_refused(&as_websocket(&session)).await, (400, "Session ID unknown".into()));
    assert_eq!(other.post(&session, "4on").await.body, "ok");
    assert_eq!(other.get(&session).await.body, "4on");
}

#[tokio::test]
async fn a_session_whose_owner_is_gone_is_unknown_at_once() {
    let nodes = Nodes::default();
    let ((node, owner), (_, other)) = (nodes.start().await, nodes.start().await);
    let session = owner.open().await;
    nodes.0.lock().remove(&node);
    let answer = within(other.get(&session)).await;
    assert_eq!((answer.status, &*answer.body), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    let unknown = other.get("/socket.io/?EIO=4&transport=polling&sid=abc").await;
    assert_eq!(unknown.body, r#"{"code":1,"message":"Session ID unknown"}"#);
}
