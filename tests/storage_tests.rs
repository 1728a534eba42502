//! What the store promises, on SQLite and on PostgreSQL: every test runs on both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    missing_docs,
    reason = "a test that fails says so by panicking"
)]

#[path = "storage/append.rs"]
mod append;
#[path = "storage/attachment.rs"]
mod attachment;
#[path = "storage/concurrency.rs"]
mod concurrency;
#[path = "storage/expect.rs"]
mod expect;
#[path = "storage/fault.rs"]
mod fault;
#[path = "storage/feed.rs"]
mod feed;
#[path = "storage/history.rs"]
mod history;
#[path = "storage/key_package.rs"]
mod key_package;
#[path = "storage/own.rs"]
mod own;
#[path = "storage/poll.rs"]
mod poll;
#[path = "storage/purge.rs"]
mod purge;
#[path = "storage/reaction.rs"]
mod reaction;
#[path = "storage/read_state.rs"]
mod read_state;
#[path = "storage/resume.rs"]
mod resume;
#[path = "storage/retention.rs"]
mod retention;
#[path = "storage/scheduled.rs"]
mod scheduled;
#[path = "storage/schema.rs"]
mod schema;
#[path = "storage/search.rs"]
mod search;
#[path = "storage/silence.rs"]
mod silence;
#[path = "storage/stream.rs"]
mod stream;
#[path = "storage/support.rs"]
mod support;
#[path = "storage/thread.rs"]
mod thread;
