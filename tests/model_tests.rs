//! Random conversations against a model: whatever users do, on however many devices and nodes, the server, a plain model
//! of it and every client agree in the end.
//!
//! `IMKS_MODEL_CASES` is the number of conversations per test, `IMKS_MODEL_STEPS` the steps of the longest. Many take longer than
//! nextest lets a test run: `IMKS_MODEL_CASES=100 cargo test --test model_tests`.

#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::print_stdout,
    missing_docs,
    reason = "tests"
)]

#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod client;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod server;

#[path = "model/contention.rs"]
mod contention;
#[path = "model/conversation.rs"]
mod conversation;
#[path = "model/model.rs"]
mod model;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/own.rs"]
mod own;
#[path = "model/people.rs"]
mod people;
#[path = "model/play.rs"]
mod play;
#[path = "model/replica.rs"]
mod replica;
#[path = "model/truth.rs"]
mod truth;
