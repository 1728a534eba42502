//! Clients of other dialects, unmodified, against one server.
//!
//! `make test` installs the clients.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "shared with client_tests")]
#[path = "client/script.rs"]
mod script;
#[path = "dialect/server.rs"]
mod server;

use imks::engine;
use imks::socket::{Config, Parser};
use script::{Interpreter, Script};
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

fn version2(via: &str, other: &str) {
    let engine = engine::Config { allow_eio3: true, ..engine::Config::default() };
    let server = Running::start(engine, Config::default());
    let environment = [("URL", &*server.url()), ("DIALECT", "v2"), ("OTHER", other), ("VIA", via)];
    Script::run("dialect.js", &environment);
}

#[test]
fn a_client_of_socket_io_2_talks_over_polling() {
    version2("polling", "v2");
}

#[test]
fn a_client_of_socket_io_2_talks_over_websocket() {
    version2("websocket", "v2");
}

#[test]
fn a_client_of_socket_io_2_talks_with_an_upgrade() {
    version2("upgrade", "v2");
}

#[test]
fn clients_of_socket_io_2_and_4_share_a_room() {
    version2("polling", "v5");
    version2("upgrade", "v5");
}

fn version4(via: &str, other: &str) {
    let server = Running::start(engine::Config::default(), Config::default());
    let environment = [("URL", &*server.url()), ("DIALECT", "v4.0"), ("OTHER", other), ("VIA", via)];
    Script::run("dialect.js", &environment);
}

#[test]
fn a_client_of_socket_io_4_0_talks_over_polling() {
    version4("polling", "v4.0");
}

#[test]
fn a_client_of_socket_io_4_0_talks_over_websocket() {
    version4("websocket", "v5");
}

#[test]
fn a_client_of_socket_io_4_0_talks_with_an_upgrade() {
    version4("upgrade", "v5");
}

fn python(via: &str) {
    let server = Running::start(engine::Config::default(), Config::default());
    Script::run_with(Interpreter::Python, "client.py", &[("URL", &server.url()), ("VIA", via)]);
}

#[test]
fn a_client_in_python_talks_over_polling() {
    python("polling");
}

#[test]
fn a_client_in_python_talks_over_websocket() {
    python("websocket");
}

#[test]
fn a_client_in_python_talks_with_an_upgrade() {
    python("upgrade");
}

fn rust(via: &str) {
    let server = Running::start(engine::Config::default(), Config::default());
    Script::run_with(Interpreter::Rust, "rust_socketio", &[("URL", &server.url()), ("VIA", via)]);
}

#[test]
fn a_client_in_rust_talks_over_polling() {
    rust("polling");
}

#[test]
fn a_client_in_rust_talks_over_websocket() {
    rust("websocket");
}

#[test]
fn a_client_in_rust_talks_with_an_upgrade() {
    rust("upgrade");
}

#[test]
fn a_client_of_the_default_dialect_has_the_same_conversation() {
    let server = Running::start(engine::Config::default(), Config::default());
    Script::run("dialect.js", &[("URL", &server.url()), ("DIALECT", "v5"), ("VIA", "upgrade")]);
}
