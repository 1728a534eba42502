//! The contract in other languages: cores that were made from `proto/` alone, and a check that it does not break them.
//!
//! `make test` installs what they need.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/authority.rs"]
mod authority;
#[allow(dead_code, reason = "shared with client_tests, which uses what is left")]
#[path = "client/database.rs"]
mod database;
#[allow(dead_code, reason = "shared with client_tests, which uses what is left")]
#[path = "client/script.rs"]
mod script;
#[allow(dead_code, reason = "shared with client_tests, which uses what is left")]
#[path = "client/server.rs"]
mod server;

#[path = "contract/breaking.rs"]
mod breaking;
#[path = "contract/control.rs"]
mod control;
#[path = "contract/core.rs"]
mod core;
#[path = "contract/curl.rs"]
mod curl;
#[path = "contract/foreign_core.rs"]
mod foreign_core;
