//! Clients of other dialects, and clients that come back to their session, unmodified, against one server.
//!
//! `make test` installs the clients.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "shared with client_tests")]
#[path = "client/script.rs"]
mod script;
#[path = "dialect/server.rs"]
mod server;

use std::time::Duration;

use imks::engine;
use imks::socket::{Config, Parser, Recovery};
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

/// Every message, be it small, is worth compressing.
fn deflating() -> engine::Config {
    engine::Config {
        per_message_deflate: true,
        per_message_deflate_threshold: 1,
        allow_eio3: true,
        ..engine::Config::default()
    }
}

#[test]
fn clients_of_all_dialects_talk_compressed_if_they_can() {
    for (dialect, other) in [("v5", "v5"), ("v5", "v2"), ("v2", "v5"), ("v4.0", "v5")] {
        let server = Running::start(deflating(), Config::default());
        for via in ["websocket", "upgrade"] {
            let environment = [("URL", &*server.url()), ("DIALECT", dialect), ("OTHER", other), ("VIA", via)];
            Script::run("dialect.js", &environment);
        }
    }
    let msgpack = Config { parser: Parser::MsgPack, ..Config::default() };
    let server = Running::start(deflating(), msgpack);
    Script::run("dialect.js", &[("URL", &server.url()), ("DIALECT", "msgpack"), ("VIA", "upgrade")]);
}

#[test]
fn the_stock_client_negotiates_compression_and_it_saves_bytes() {
    let config = engine::Config { per_message_deflate: true, ..engine::Config::default() };
    let server = Running::start(config, Config::default());
    Script::run("deflate.js", &[("URL", &server.url())]);
}

#[test]
fn a_client_of_the_default_dialect_has_the_same_conversation() {
    let server = Running::start(engine::Config::default(), Config::default());
    Script::run("dialect.js", &[("URL", &server.url()), ("DIALECT", "v5"), ("VIA", "upgrade")]);
}

fn comes_back(via: &str, cut: &str, recovery: Recovery, more: &[(&str, &str)]) {
    let config = Config { recovery: Some(recovery), ..Config::default() };
    // So that a client that vanishes between two polls is not waited for too long.
    let beat = Duration::from_secs(5);
    let engine = engine::Config { ping_interval: beat, ping_timeout: beat, ..engine::Config::default() };
    let server = Running::start(engine, config);
    let url = server.url();
    let environment = [&[("URL", &*url), ("VIA", via), ("CUT", cut)], more].concat();
    Script::run("recovery.js", &environment);
}

#[test]
fn a_client_recovers_when_its_polls_are_cut() {
    comes_back("polling", "network", Recovery::default(), &[]);
}

#[test]
fn a_client_recovers_when_its_websocket_is_cut() {
    comes_back("websocket", "network", Recovery::default(), &[]);
}

#[test]
fn a_client_recovers_when_it_is_cut_after_an_upgrade() {
    comes_back("upgrade", "network", Recovery::default(), &[]);
}

#[test]
fn a_client_recovers_when_it_closes_its_transport_on_polling() {
    comes_back("polling", "client", Recovery::default(), &[]);
}

#[test]
fn a_client_recovers_when_it_closes_its_transport_on_websocket() {
    comes_back("websocket", "client", Recovery::default(), &[]);
}

#[test]
fn a_client_that_comes_back_too_late_starts_anew() {
    for via in ["polling", "websocket"] {
        let recovery =
            Recovery { max_disconnection_duration: Duration::from_millis(500), ..Recovery::default() };
        comes_back(via, "network", recovery, &[("LATE", "yes")]);
    }
}

#[test]
fn what_a_client_missed_and_the_reply_come_in_one_payload_by_polling() {
    let config = Config { recovery: Some(Recovery::default()), ..Config::default() };
    let server = Running::start(engine::Config::default(), config);
    Script::run("recovery_payload.js", &[("URL", &server.url())]);
}

/// The browser builds of an npm package under tests/js.
fn bundle(package: &str) -> engine::Config {
    let dist =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js/node_modules").to_owned() + "/" + package + "/dist";
    engine::Config { client_bundle_dir: Some(dist.into()), allow_eio3: true, ..engine::Config::default() }
}

#[test]
fn a_page_uses_the_client_that_the_server_serves_and_recovers() {
    let config = Config { recovery: Some(Recovery::default()), ..Config::default() };
    let server = Running::start(bundle("socket.io-client"), config);
    Script::run("bundle.js", &[("URL", &server.url())]);
}

#[test]
fn a_page_polls_with_script_elements() {
    let server = Running::start(bundle("socket.io-client-2"), Config::default());
    Script::run("bundle.js", &[("URL", &server.url()), ("JSONP", "yes")]);
}
