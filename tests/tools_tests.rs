//! The tools of the program `imks` that speak to servers, as people and programs use them.

#![cfg(feature = "tools")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "tests"
)]

#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod client;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "client_library/relay.rs"]
#[allow(dead_code, reason = "the tests of the client library need more of it")]
mod relay;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod server;
#[path = "support/terminal.rs"]
mod terminal;

#[path = "tools/bench.rs"]
mod bench;
#[path = "tools/certificate.rs"]
mod certificate;
#[path = "tools/chat.rs"]
mod chat;
#[path = "client/database.rs"]
#[allow(dead_code, reason = "shared with client_tests, which uses what is left")]
mod database;
#[path = "tools/demo.rs"]
mod demo;
#[path = "tools/doctor.rs"]
mod doctor;
#[path = "tools/examples.rs"]
mod examples;
#[path = "tools/faults.rs"]
mod faults;
#[path = "client/server.rs"]
#[allow(dead_code, reason = "shared with client_tests, which uses what is left")]
mod process;
#[path = "tools/program.rs"]
mod program;
#[path = "tools/prove.rs"]
mod prove;
#[path = "tools/run.rs"]
mod run;
#[path = "tools/screens.rs"]
mod screens;
#[path = "tools/target.rs"]
mod target;
#[path = "tools/top.rs"]
mod top;
