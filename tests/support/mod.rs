//! What several test files need: a core that misbehaves on demand, and tokens of every kind.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod authority;
pub mod core;
pub mod database;
pub mod proxy;
pub mod token;
