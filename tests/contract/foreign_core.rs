//! imks with a core in another language, and stock clients with that core's tokens.

use std::path::Path;

use serde_json::Value;

use crate::database::{Database, Kind};
use crate::script::{Interpreter, Script};
use crate::server::{Server, free_port};

/// A core as a program that serves on `ADDRESS`.
struct Language {
    interpreter: Interpreter,
    program: &'static str,
    /// The private key, so that it stays the same when the core starts again.
    key: (&'static str, String),
    /// Whether it has the four streams of changes.
    has_streams: bool,
}

impl Language {
    fn start(&self, address: &str) -> (Script, Value) {
        let environment = [("ADDRESS", address), (self.key.0, &self.key.1)];
        let mut core = Script::start_with(self.interpreter, self.program, &environment);
        let line = core.hears(|line| line["listening"] == true);
        (core, line)
    }
}

fn people_of_a_foreign_core_talk(language: &Language) {
    let address = free_port().to_string();
    let (mut core, line) = language.start(&address);
    let database = Database::create(Kind::Sqlite).with("IMKS_CORE_URL", &format!("http://{address}"));
    let server = Server::start(&database);
    let streams = if language.has_streams { "yes" } else { "no" };
    let environment =
        [("URL", &*server.url()), ("TOKENS", &line["tokens"].to_string()), ("STREAMS", streams)];
    let mut clients = Script::start("foreign_core.js", &environment);
    loop {
        let line = clients.hears(|line| line["wants"].is_string() || line["done"] == true);
        let Some(word) = line["wants"].as_str() else { return clients.ends() };
        match word {
            "away" => core.kill(),
            "back" => core = language.start(&address).0,
            word => {
                core.tell(word);
                core.hears(|line| line["did"] == word);
            }
        }
        clients.tell(word);
    }
}

#[test]
fn people_of_a_core_in_python_talk_and_lose_what_it_takes_from_them() {
    people_of_a_foreign_core_talk(&Language {
        interpreter: Interpreter::Python,
        program: "foreign_core.py",
        key: ("SEED", "2a54e9f0c1d3b586".repeat(4)),
        has_streams: true,
    });
}

#[test]
fn people_of_a_core_of_fifty_lines_of_javascript_talk() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("core.key");
    std::fs::write(&file, KEY).unwrap();
    people_of_a_foreign_core_talk(&Language {
        interpreter: Interpreter::Node,
        program: "small_core.js",
        key: ("KEY", file.display().to_string()),
        has_streams: false,
    });
}

#[test]
fn the_core_of_fifty_lines_stands_in_the_documents_as_it_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = std::fs::read_to_string(root.join("tests/js/small_core.js")).unwrap();
    assert!(program.lines().count() <= 50);
    let document = std::fs::read_to_string(root.join("docs/rpc.md")).unwrap();
    assert!(document.contains(&program), "docs/rpc.md shows tests/js/small_core.js");
}

/// A P-256 key.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg35/CNv9jxyZMbliJ
mcFX+MbWsAjj0308HnlPNydKB3qhRANCAASqY6+WGlKgxvY2n28V6A1bUa6PX4VX
Y++ai4uPspRJrCorlhgHcdEqlwKwrZ5fNmuIzxq78IU7EcG8g6s8Iv8T
-----END PRIVATE KEY-----
";
