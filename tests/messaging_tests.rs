//! Messaging, as a client sees it: a real server, real connections, both databases.

#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "tests"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/collector.rs"]
mod collector;
#[path = "support/core.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod core;
#[path = "support/http.rs"]
mod http_request;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "cluster/proxy.rs"]
mod proxy;
#[path = "support/schema.rs"]
mod schema;
#[path = "client/script.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod script;
#[path = "support/server.rs"]
mod server;
#[path = "support/token.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod token;

#[path = "messaging/absent.rs"]
mod absent;
#[path = "messaging/access.rs"]
mod access;
#[path = "messaging/ack.rs"]
mod ack;
#[path = "messaging/admin.rs"]
mod admin;
#[path = "messaging/api.rs"]
mod api;
#[path = "messaging/app_event.rs"]
mod app_event;
#[path = "messaging/attachment.rs"]
mod attachment;
#[path = "messaging/bad_input.rs"]
mod bad_input;
#[path = "messaging/body.rs"]
mod body;
#[path = "messaging/bookmark.rs"]
mod bookmark;
#[path = "messaging/call.rs"]
mod call;
#[path = "messaging/command_line.rs"]
mod command_line;
#[path = "messaging/connect.rs"]
mod connect;
#[path = "messaging/contract.rs"]
mod contract;
#[path = "messaging/core_outage.rs"]
mod core_outage;
#[path = "messaging/crowd.rs"]
mod crowd;
#[path = "messaging/database_outage.rs"]
mod database_outage;
#[path = "messaging/draft.rs"]
mod draft;
#[path = "messaging/drain.rs"]
mod drain;
#[path = "messaging/edit.rs"]
mod edit;
#[path = "messaging/embed.rs"]
mod embed;
#[path = "messaging/emoji.rs"]
mod emoji;
#[path = "messaging/fake_s3.rs"]
mod fake_s3;
#[path = "messaging/fault.rs"]
mod fault;
#[path = "messaging/focus.rs"]
mod focus;
#[path = "messaging/forward.rs"]
mod forward;
#[path = "messaging/history.rs"]
mod history;
#[path = "messaging/hook.rs"]
mod hook;
#[path = "messaging/http.rs"]
mod http;
#[path = "messaging/incoming.rs"]
mod incoming;
#[path = "messaging/injection.rs"]
mod injection;
#[path = "messaging/key_package.rs"]
mod key_package;
#[path = "messaging/limits.rs"]
mod limits;
#[path = "messaging/machine.rs"]
mod machine;
#[path = "messaging/matrix.rs"]
mod matrix;
#[path = "messaging/memory.rs"]
mod memory;
#[path = "messaging/mention.rs"]
mod mention;
#[path = "messaging/moderation.rs"]
mod moderation;
#[path = "messaging/own_logins.rs"]
mod own_logins;
#[path = "messaging/pin.rs"]
mod pin;
#[path = "messaging/poll.rs"]
mod poll;
#[path = "messaging/presence.rs"]
mod presence;
#[path = "messaging/publish.rs"]
mod publish;
#[path = "messaging/reaction.rs"]
mod reaction;
#[path = "messaging/read_state.rs"]
mod read_state;
#[path = "messaging/refusal_log.rs"]
mod refusal_log;
#[path = "messaging/reload.rs"]
mod reload;
#[path = "messaging/report.rs"]
mod report;
#[path = "messaging/resume.rs"]
mod resume;
#[path = "messaging/resume_again.rs"]
mod resume_again;
#[path = "messaging/routes.rs"]
mod routes;
#[path = "messaging/scheduled.rs"]
mod scheduled;
#[path = "messaging/search.rs"]
mod search;
#[path = "messaging/send.rs"]
mod send;
#[path = "messaging/speaker.rs"]
mod speaker;
#[path = "messaging/stream.rs"]
mod stream;
#[path = "messaging/sync.rs"]
mod sync;
#[path = "messaging/telemetry.rs"]
mod telemetry;
#[path = "messaging/thread.rs"]
mod thread;
#[path = "messaging/traces.rs"]
mod traces;
#[path = "messaging/trust.rs"]
mod trust;
#[path = "messaging/typing.rs"]
mod typing;
#[path = "messaging/walk.rs"]
mod walk;
#[path = "messaging/webhook.rs"]
mod webhook;

/// Writes the test of a sentence for both databases.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($server:ident: TestServer) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn run(kind: $crate::server::Kind) {
                let $server = $crate::server::TestServer::start(kind).await;
                $body
                $server.stop().await;
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
