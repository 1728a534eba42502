//! The Rust client against real servers: imks, and the reference that `make test` installs.

#![cfg(all(feature = "client-quic", feature = "socketio"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "tests")]

#[path = "client_library/application.rs"]
mod application;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/auto_racing_client.rs"]
mod auto_racing_client;
#[path = "client_library/bounds.rs"]
mod bounds;
#[cfg(feature = "server")]
#[path = "client_library/chat.rs"]
mod chat;
#[cfg(feature = "server")]
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/chat_client.rs"]
mod chat_client;
#[path = "client_library/compression.rs"]
mod compression;
#[path = "client_library/conformance.rs"]
mod conformance;
#[path = "client_library/connection.rs"]
mod connection;
#[path = "client_library/conversation.rs"]
mod conversation;
#[cfg(feature = "server")]
#[path = "client_library/crash.rs"]
mod crash;
#[cfg(feature = "server")]
#[allow(dead_code, reason = "shared with client_tests, which uses what is left")]
#[path = "client/database.rs"]
mod database;
#[path = "client_library/faults.rs"]
mod faults;
#[path = "client_library/floor.rs"]
mod floor;
#[path = "client_library/outbox.rs"]
mod outbox;
#[allow(dead_code, reason = "shared with tests of the core, which use what is left")]
#[path = "support/proxy.rs"]
mod proxy;
#[path = "client_library/quic.rs"]
mod quic;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/quic_client.rs"]
mod quic_client;
#[path = "client_library/racing.rs"]
mod racing;
#[path = "client_library/raw.rs"]
mod raw;
#[path = "client_library/relay.rs"]
mod relay;
#[allow(dead_code, reason = "shared with client_tests, which uses what is left")]
#[path = "client/script.rs"]
mod script;
#[cfg(feature = "server")]
#[allow(dead_code, reason = "shared with client_tests, which uses what is left")]
#[path = "client/server.rs"]
mod server;
#[path = "client_library/switching.rs"]
mod switching;
#[path = "client_library/tls.rs"]
mod tls;
#[path = "client_library/together.rs"]
mod together;
#[path = "client_library/topics.rs"]
mod topics;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/ws_echo_client.rs"]
mod ws_echo_client;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/ws_echo_server.rs"]
mod ws_echo_server;

use std::time::Duration;

use imks::client::{
    Client, ClientBuilder, ClientEvent, Events, Racing, Reconnect, Tls, TransportKind, Transports,
};

/// Nothing on this machine takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Waits until something is so that nobody tells.
async fn until(is_so: impl Fn() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A client that loses no time.
fn builder(url: &str, via: Via) -> ClientBuilder {
    let pause = Duration::from_millis(20);
    let builder = Client::builder(url).transports(via.transports()).reconnect(Reconnect::fixed(pause));
    // Its certificate is made when the server starts.
    if via.has_quic() { builder.tls(Tls::new().danger_accept_invalid_certs()) } else { builder }
}

/// Waits until the connection has seen what `wanted` looks for.
async fn hears(events: &mut Events, wanted: impl Fn(&ClientEvent) -> bool) -> ClientEvent {
    within(async {
        loop {
            let event = events.next().await.expect("the client is there");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

/// The way to the server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Via {
    WebSocket,
    Polling,
    WebTransport,
    Quic,
    Upgrade,
    UpgradeToWebTransport,
    Racing,
}

impl Via {
    fn transports(self) -> Transports {
        match self {
            Self::WebSocket => Transports::only(TransportKind::WebSocket),
            Self::Polling => Transports::only(TransportKind::Polling),
            Self::WebTransport => Transports::only(TransportKind::WebTransport),
            Self::Quic => Transports::only(TransportKind::Quic),
            Self::Upgrade => Transports::upgrade(),
            Self::UpgradeToWebTransport => Transports::upgrade_to([TransportKind::WebTransport]),
            Self::Racing => Transports::racing(Racing::default()),
        }
    }

    fn has_quic(self) -> bool {
        matches!(self, Self::WebTransport | Self::Quic | Self::UpgradeToWebTransport | Self::Racing)
    }

    /// Whether this transport can carry the connection in the end.
    fn settles_on(self, transport: TransportKind) -> bool {
        match self {
            Self::WebSocket | Self::Upgrade => transport == TransportKind::WebSocket,
            Self::Polling => transport == TransportKind::Polling,
            Self::WebTransport | Self::UpgradeToWebTransport => transport == TransportKind::WebTransport,
            Self::Quic => transport == TransportKind::Quic,
            Self::Racing => transport != TransportKind::Polling,
        }
    }
}

/// An address that nobody listens on.
async fn relay_to_nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
