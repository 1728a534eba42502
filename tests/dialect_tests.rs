//! Clients of other dialects, unmodified, against one server.
//!
//! `make test` installs the clients.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "shared with client_tests, which uses all of it")]
#[path = "client/script.rs"]
mod script;
#[path = "dialect/server.rs"]
mod server;

use imks::engine;
use imks::socket::{Config, Parser};
use script::Script;
use server::Running;

fn msgpack(via: &str) {
    let config = Config { parser: Parser::MsgPack, ..Config::default() };
    let server = Running::start(engine::Config::default(), config);
    Script::run("dialect.js", &[("URL", &server.url()), ("DIALECT", "msgpack"), ("VIA", via)]);
}

#[test]
fn a_client_with_the_msgpack_parser_talks_over_polling() {
    msgpack("polling");
}

#[test]
fn a_client_with_the_msgpack_parser_talks_over_websocket() {
    msgpack("websocket");
}

#[test]
fn a_client_with_the_msgpack_parser_talks_with_an_upgrade() {
    msgpack("upgrade");
}

#[test]
fn a_client_of_the_default_dialect_has_the_same_conversation() {
    let server = Running::start(engine::Config::default(), Config::default());
    Script::run("dialect.js", &[("URL", &server.url()), ("DIALECT", "v5"), ("VIA", "upgrade")]);
}
