//! The contract of `benches/soak`: clients enter a room of their own, are asked something, are told to leave, are
//! refused, come back; and what the server still holds of them can be read.

use std::time::Duration;

use axum::{Json, Router, routing::get};
use imks::ImksResult;
use imks::engine::{self, Engine};
use imks::socket::{
    self, ConnectError, Event, Namespace, NamespaceBuilder, Parser, Recovery, RecoveryStatus, Server,
};
use serde::Serialize;

/// Ping after two seconds, pong within four; clients of version 3 allowed.
pub fn engine() -> engine::Config {
    engine::Config {
        ping_interval: Duration::from_secs(2),
        ping_timeout: Duration::from_secs(4),
        allow_eio3: true,
        ..engine::Config::default()
    }
}

/// CONNECT within six seconds; who comes back within ten goes on.
pub fn server(parser: Parser) -> ImksResult<Server> {
    let recovery = Recovery { max_disconnection_duration: Duration::from_secs(10), ..Recovery::default() };
    let config = socket::Config {
        connect_timeout: Duration::from_secs(6),
        parser,
        recovery: Some(recovery),
        cleanup_empty_child_namespaces: true,
        ..socket::Config::default()
    };
    Server::builder(config)
        .namespace("/", events)
        .namespace("/refusing", |namespace| {
            namespace.on_connect(|_, _| async { Err::<(), _>(ConnectError::new("not you")) });
        })
        .dynamic_namespace(OWN, "/own-*", |_| {})
        .build()
}

fn events(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("enter", |event| report(enter(event)));
    namespace.on("ask-me", |event| async move {
        let asked = event.socket().emit_with_ack("question", &(), ANSWER_TIMEOUT).await;
        tracing::debug!(answered = asked.is_ok(), "asked");
    });
    namespace.on_sync("leave-me", |event| event.socket().disconnect(true));
}

fn enter(mut event: Event) -> ImksResult<()> {
    let room: String = event.first()?;
    event.socket().join(&room);
    event.socket().namespace().to(&room).emit("entered", &room)?;
    event.take_ack().map_or(Ok(()), |ack| ack.send(&true))
}

fn report(result: ImksResult<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "event not handled");
    }
}

/// What a server holds of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holdings {
    /// Engine.IO sessions.
    pub sessions: usize,
    /// Connections: each is one task with its timers.
    pub connections: usize,
    /// Sockets in all namespaces.
    pub sockets: usize,
    /// Rooms of all namespaces.
    pub rooms: usize,
    /// Namespaces that clients caused to exist.
    pub dynamic_namespaces: usize,
    /// Sessions, clients that are away, packets and bytes kept for recovery.
    pub recovery: [usize; 4],
}

impl Holdings {
    /// What is there now.
    pub fn of(server: &Server, engine: &Engine) -> Self {
        let own = server.dynamic_namespace(OWN).map(|own| own.children()).unwrap_or_default();
        let namespaces = || server.namespaces().chain(&own);
        let kept: Vec<RecoveryStatus> = namespaces().filter_map(Namespace::recovery_status).collect();
        let sum = |field: fn(&RecoveryStatus) -> usize| kept.iter().map(field).sum();
        Self {
            sessions: engine.sessions(),
            connections: server.connections(),
            sockets: namespaces().map(Namespace::len).sum(),
            rooms: namespaces().map(Namespace::rooms_len).sum(),
            dynamic_namespaces: own.len(),
            recovery: [sum(|it| it.sessions), sum(|it| it.away), sum(|it| it.packets), sum(|it| it.bytes)],
        }
    }
}

/// `GET /holdings`.
pub fn routes(server: Server, engine: Engine) -> Router {
    Router::new().route("/holdings", get(async move || Json(Holdings::of(&server, &engine))))
}

const OWN: &str = "own";
/// Longer than any client stays.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
