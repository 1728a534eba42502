//! The real binary with a certificate, and the official client over HTTPS and secure WebSockets.

use std::process::Command;

use super::certificate::{Files, Made};
use crate::{
    database::{Database, Kind},
    script::Script,
    server::{Server, token},
};

fn database(files: &Files) -> Database {
    Database::create(Kind::Sqlite)
        .with("IMKS_TLS_CERT", files.cert().to_str().unwrap())
        .with("IMKS_TLS_KEY", files.key().to_str().unwrap())
        .with("IMKS_REQUIRE_TLS", "true")
}

#[test]
fn two_people_talk_over_tls() {
    let files = Files::new(&Made::good());
    for via in ["polling", "websocket", "upgrade"] {
        let database = database(&files);
        let server = Server::start(&database);
        let url = server.url().replace("http:", "https:");
        let (alice, bob) = (token(&database, "alice", &[]), token(&database, "bob", &[]));
        let trusted = files.cert();
        let environment = [
            ("URL", &*url),
            ("VIA", via),
            ("TOKEN_ALICE", &alice),
            ("TOKEN_BOB", &bob),
            ("NODE_EXTRA_CA_CERTS", trusted.to_str().unwrap()),
        ];
        Script::run("conversation.js", &environment);
    }
}

#[test]
fn a_server_with_a_bad_certificate_does_not_start_and_says_why() {
    let files = Files::new(&Made::good());
    std::fs::write(files.key(), Made::good().key).unwrap();
    let database = database(&files);
    for command in ["serve", "check-config"] {
        let mut imks = Command::new(env!("CARGO_BIN_EXE_imks"));
        let output = imks.arg(command).envs(database.environment()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("belongs to another certificate"), "{said}");
        assert_eq!(output.status.code(), Some(78));
    }
}

#[test]
fn the_health_check_works_with_tls() {
    let files = Files::new(&Made::good());
    let database = database(&files);
    let server = Server::start(&database);
    let listen = server.url().replace("http://", "");
    let mut imks = Command::new(env!("CARGO_BIN_EXE_imks"));
    let status =
        imks.args(["healthcheck", "--ready"]).env("IMKS_LISTEN", listen).envs(database.environment());
    assert!(status.status().unwrap().success());
}
