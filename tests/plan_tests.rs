//! The plans of the statements that run often, on databases with many messages: as the server makes them, not copies.
//!
//! `IMKS_PLAN_MESSAGES` is the number of messages; each test prints what each query reads and how long it takes.

#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::large_futures,
    missing_docs,
    reason = "tests"
)]

#[path = "plan/capture.rs"]
mod capture;
#[path = "plan/fill.rs"]
mod fill;
#[path = "plan/queries.rs"]
mod queries;
#[path = "storage/support.rs"]
#[allow(dead_code, unused_macros, unused_imports, reason = "other tests need more of it")]
mod support;
