//! TLS and WebTransport over real sockets, with clients in Rust and, for WebTransport, a real browser.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, clippy::large_futures, reason = "tests")]

#[path = "../examples/webtransport.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

#[path = "client/database.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod database;
#[path = "client/script.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod script;
#[path = "client/server.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod server;
#[path = "engine_io/support.rs"]
#[allow(dead_code, reason = "tests of the engine use the rest")]
mod support;

mod transport {
    pub mod addresses;
    pub mod binary;
    pub mod browser;
    pub mod certificate;
    pub mod embedding;
    pub mod http;
    pub mod relay;
    pub mod tls;
    pub mod webtransport;
    pub mod webtransport_passed_on;
    pub mod webtransport_rude;
    pub mod wt_client;
}
