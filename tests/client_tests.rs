//! The official JavaScript client, unmodified, against the real binary on both databases.
//!
//! `make test` installs the client and starts PostgreSQL.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "client/database.rs"]
mod database;
#[path = "support/npm.rs"]
mod npm;
#[path = "client/package.rs"]
mod package;
#[allow(dead_code, reason = "shared with dialect_tests, which uses what is left")]
#[path = "client/script.rs"]
mod script;
#[path = "client/server.rs"]
mod server;

use std::net::Ipv4Addr;
use std::time::Duration;

use database::{Database, Kind};
use script::Script;
use server::{Core, Server, free_port, run, token};

/// Deaths of the server in one crash test.
const KILLS: usize = 4;
/// How long a drain waits for clients to take their leave (docs/operations.md).
const FAREWELL: Duration = Duration::from_secs(5);
/// For a busy machine. Far below the deadline of the whole drain, 30 seconds.
const LEEWAY: Duration = Duration::from_secs(5);
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
/// Where newcomers are who are not on this machine.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Acknowledged messages between two deaths, at least.
const ACKS_PER_LIFE: u64 = 500;
const SENDERS: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];

fn people_talk(kind: Kind, via: &str) {
    people_talk_with(&Database::create(kind), via, "json");
}

fn people_talk_with(database: &Database, via: &str, parser: &str) {
    let server = Server::start(database);
    let (alice, bob) = (token(database, "alice", &[]), token(database, "bob", &[]));
    let url = server.url();
    let people = [("TOKEN_ALICE", &*alice), ("TOKEN_BOB", &bob)];
    let environment = [&[("URL", &*url), ("VIA", via), ("PARSER", parser)], &people[..]].concat();
    Script::run("conversation.js", &environment);
}

#[test]
fn two_people_talk_over_polling_on_sqlite() {
    people_talk(Kind::Sqlite, "polling");
}

#[test]
fn two_people_talk_over_websocket_on_sqlite() {
    people_talk(Kind::Sqlite, "websocket");
}

#[test]
fn two_people_talk_with_an_upgrade_on_sqlite() {
    people_talk(Kind::Sqlite, "upgrade");
}

#[test]
fn two_people_talk_over_polling_on_postgres() {
    people_talk(Kind::Postgres, "polling");
}

#[test]
fn two_people_talk_over_websocket_on_postgres() {
    people_talk(Kind::Postgres, "websocket");
}

#[test]
fn two_people_talk_with_an_upgrade_on_postgres() {
    people_talk(Kind::Postgres, "upgrade");
}

#[test]
fn two_people_talk_with_the_msgpack_parser() {
    for via in ["polling", "websocket"] {
        let database = Database::create(Kind::Sqlite).with("IMKS_PARSER", "msgpack");
        people_talk_with(&database, via, "msgpack");
    }
}

#[test]
fn every_feature_works_in_a_browser_on_two_devices_of_one_user_and_for_another() {
    let database = Database::create(Kind::Sqlite).without_rate_limits();
    let (alice, bob) = (token(&database, "alice", &[]), token(&database, "bob", &[]));
    run(&database, &["directory", "member", "add", "general", "alice", "--role", "owner"]);
    let key = run(&database, &["key", "add", "backend", "--scope", "publish"]);
    let server = Server::start(&database);
    let environment = [("URL", &*server.url()), ("KEY", &key), ("TOKEN_ALICE", &alice), ("TOKEN_BOB", &bob)];
    Script::run("features.js", &environment);
}

fn wrong_tokens_are_refused(via: &str) {
    let database = Database::create(Kind::Sqlite).with("IMKS_TOKEN_LEEWAY", "0s");
    let server = Server::start(&database);
    let alice = token(&database, "alice", &[]);
    let short = token(&database, "alice", &["--ttl", "1s"]);
    let environment =
        [("URL", &*server.url()), ("VIA", via), ("TOKEN_ALICE", &alice), ("TOKEN_SHORT", &short)];
    Script::run("refusals.js", &environment);
}

#[test]
fn wrong_tokens_are_refused_with_a_stable_code_over_polling() {
    wrong_tokens_are_refused("polling");
}

#[test]
fn wrong_tokens_are_refused_with_a_stable_code_over_websocket() {
    wrong_tokens_are_refused("websocket");
}

fn a_client_comes_back(kind: Kind, via: &str, restart: fn(&mut Server, &Database)) {
    let database = Database::create(kind);
    let mut server = Server::start(&database);
    let alice = token(&database, "alice", &[]);
    let environment = [("URL", &*server.url()), ("VIA", via), ("TOKEN_ALICE", &alice)];
    let mut script = Script::start("reconnect.js", &environment);
    script.hears(|line| line["connected"] == true);
    restart(&mut server, &database);
    script.tell("restarted");
    script.done();
}

#[test]
fn a_client_comes_back_by_itself_after_a_restart_over_polling() {
    a_client_comes_back(Kind::Sqlite, "polling", Server::drain_and_restart);
}

#[test]
fn a_client_comes_back_by_itself_after_a_restart_over_websocket() {
    a_client_comes_back(Kind::Postgres, "websocket", Server::drain_and_restart);
}

#[test]
fn a_client_comes_back_by_itself_after_a_crash() {
    a_client_comes_back(Kind::Sqlite, "upgrade", Server::kill_and_restart);
}

fn a_client_comes_back_through_a_crowd(via: &'static str) {
    // Whoever waits to sign in stays where it is for the whole test.
    let crowded =
        Database::create(Kind::Sqlite).with("IMKS_UNJOINED_MAX", "100").with("IMKS_CONNECT_TIMEOUT", "5m");
    let server = Server::start(&crowded);
    let alice = token(&crowded, "alice", &[]);
    let environment = [("URL", &*server.url()), ("VIA", via), ("TOKEN_ALICE", &alice)];
    let mut script = Script::start("crowd.js", &environment);
    script.hears(|line| line["connected"] == true);
    let stranger = || server.status_for(STRANGER, POLLING);
    let waiting = (0..100).filter(|_| stranger() == 200).count();
    assert_eq!(waiting, 75, "of 100 newcomers");
    for _ in 0..5 {
        script.tell("cut");
        let back = script.hears(|line| line["back"].is_u64());
        assert_eq!(back["refused"], 0, "{back}");
        assert_eq!(stranger(), 503, "the newcomers are still there");
    }
    script.ends_when_told();
}

#[test]
fn a_client_that_comes_back_is_let_in_at_once_with_a_hundred_newcomers_ahead_over_polling() {
    a_client_comes_back_through_a_crowd("polling");
}

#[test]
fn a_client_that_comes_back_is_let_in_at_once_with_a_hundred_newcomers_ahead_over_websocket() {
    a_client_comes_back_through_a_crowd("websocket");
}

#[test]
fn a_client_that_comes_back_is_let_in_at_once_with_a_hundred_newcomers_ahead_with_an_upgrade() {
    a_client_comes_back_through_a_crowd("upgrade");
}

fn a_client_comes_in_after_an_outage(via: &'static str) {
    let database = Database::create(Kind::Sqlite);
    let alice = token(&database, "alice", &[]);
    let port = free_port().to_string();
    let core = Core::start(&database, &port);
    let own = Database::create(Kind::Sqlite)
        .with("IMKS_CORE_URL", &format!("http://{port}"))
        .with("IMKS_CONNECT_TIMEOUT", "2s");
    let server = Server::start(&own);
    drop(core);
    let environment = [("URL", &*server.url()), ("TOKEN_ALICE", &alice), ("VIA", via)];
    let mut script = Script::start("outage.js", &environment);
    script.hears(|line| line["held"] == true);
    let _core = Core::start(&database, &port);
    script.tell("back");
    script.done();
}

#[test]
fn a_client_that_connects_while_the_core_is_away_comes_in_by_itself_over_websocket() {
    a_client_comes_in_after_an_outage("websocket");
}

#[test]
fn a_client_that_connects_while_the_core_is_away_comes_in_by_itself_over_polling() {
    a_client_comes_in_after_an_outage("polling");
}

fn users_of_an_express_application_come_in_with_one_line_of_configuration(script: &'static str) {
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("jwt.pem").display().to_string();
    let database = Database::create(Kind::Sqlite);
    run(&database, &["directory", "channel", "add", "support"]);
    let mut application = Script::start(script, &[("PUBLIC_KEY_FILE", &file)]);
    application.hears(|line| line["listening"] == true);
    let database = database.with("IMKS_TOKEN_PUBLIC_KEY_FILE", &file);
    let server = Server::start(&database);
    application.tell(&server.url());
    application.done();
}

#[test]
fn users_of_an_express_application_come_in_with_one_line_of_configuration_by_the_official_client() {
    users_of_an_express_application_come_in_with_one_line_of_configuration("own_login.js");
}

#[test]
fn users_of_an_express_application_come_in_with_one_line_of_configuration_by_a_browser() {
    users_of_an_express_application_come_in_with_one_line_of_configuration("own_login_page.js");
}

#[test]
fn a_server_that_nobody_is_connected_to_ends_at_once() {
    let mut server = Server::start(&Database::create(Kind::Sqlite));
    let took = server.drain();
    assert!(took < FAREWELL / 2, "{took:?}");
}

#[test]
fn a_client_that_never_polls_holds_a_drain_up_for_five_seconds_only() {
    let database = Database::create(Kind::Sqlite);
    let mut server = Server::start(&database);
    let open = server.http("GET", POLLING, "");
    let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
    let session = format!("{POLLING}&sid={}", open["sid"].as_str().unwrap());
    let hello = serde_json::json!({ "token": token(&database, "alice", &[]), "protocol": 1 });
    assert_eq!(server.http("POST", &session, &format!("40{hello}")), "ok");
    assert!(server.http("GET", &session, "").starts_with("40{"));
    let took = server.drain();
    assert!((FAREWELL..FAREWELL + LEEWAY).contains(&took), "{took:?}");
}

#[test]
fn a_session_without_a_namespace_and_half_a_post_hold_a_drain_up_for_no_second() {
    let mut server = Server::start(&Database::create(Kind::Sqlite));
    let open = server.http("GET", POLLING, "");
    let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
    let mut post = std::net::TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
    let path = format!("{POLLING}&sid={}", open["sid"].as_str().unwrap());
    let half = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n4a");
    std::io::Write::write_all(&mut post, half.as_bytes()).unwrap();
    let took = server.drain();
    assert!(took < FAREWELL / 5, "{took:?}");
}

/// `restart` again and again under load, then compare every ack with the history.
fn nothing_acknowledged_is_lost(kind: Kind, restart: fn(&mut Server, &Database)) {
    let database = Database::create(kind).without_rate_limits();
    let mut server = Server::start(&database);
    let tokens: Vec<String> = SENDERS.iter().map(|user| token(&database, user, &[])).collect();
    let environment = [("URL", &*server.url()), ("TOKENS", &*tokens.join(","))];
    let mut script = Script::start("ledger.js", &environment);
    let mut acked = 0;
    for _ in 0..KILLS {
        let enough = acked + ACKS_PER_LIFE;
        let line = script.hears(|line| line["acked"].as_u64() >= Some(enough));
        acked = line["acked"].as_u64().unwrap();
        restart(&mut server, &database);
    }
    let enough = acked + ACKS_PER_LIFE;
    script.hears(|line| line["acked"].as_u64() >= Some(enough));
    script.tell("finish");
    let last = script.done();
    println!("{last}");
    assert_eq!(last["acked"], last["stored"], "every message that was sent is acknowledged in the end");
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed_on_sqlite() {
    nothing_acknowledged_is_lost(Kind::Sqlite, Server::kill_and_restart);
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed_on_postgres() {
    nothing_acknowledged_is_lost(Kind::Postgres, Server::kill_and_restart);
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_when_the_server_drains_under_load() {
    nothing_acknowledged_is_lost(Kind::Sqlite, Server::drain_and_restart);
}
