//! The documents are true: what they say about the code is compared with the code.
//!
//! Each failure says what to do. The map in `AGENTS.md` and the table of docs/limits.md are written by the tests
//! themselves: `IMKS_UPDATE_DOCS=1 cargo test --test architecture_tests`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod architecture;
