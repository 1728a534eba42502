//! What back ends ask of imks, over gRPC and over HTTP: real servers, real clients, both databases.

#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "tests"
)]

#[path = "support/authority.rs"]
mod authority;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod client;
#[path = "support/core.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod core;
#[path = "support/http.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod http_request;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/schema.rs"]
mod schema;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod server;
#[path = "support/token.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod token;

#[path = "control/backend.rs"]
mod backend;
#[path = "control/broadcast.rs"]
mod broadcast;
#[path = "control/certificates.rs"]
mod certificates;
#[path = "control/contract.rs"]
mod contract;
#[path = "control/grpc.rs"]
mod grpc;
#[path = "control/keys.rs"]
mod keys;
#[path = "control/messages.rs"]
mod messages;
#[path = "control/nodes.rs"]
mod nodes;
#[path = "control/outage.rs"]
mod outage;
#[path = "control/queries.rs"]
mod queries;
#[path = "control/retention.rs"]
mod retention;
#[path = "control/users.rs"]
mod users;
#[path = "control/watch.rs"]
mod watch;
#[path = "control/webhooks.rs"]
mod webhooks;

/// Writes the test of a sentence for both databases. The server has an internal listener, and serves the HTTP API on
/// both.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($backend:ident: Backend) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn run(kind: $crate::server::Kind) {
                let $backend = $crate::backend::Backend::start(kind).await;
                $body
                $backend.stop().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                Box::pin(run($crate::server::Kind::Sqlite)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                Box::pin(run($crate::server::Kind::Postgres)).await;
            }
        }
    )*};
}
use on_both;
