//! `@imks/client`, the TypeScript client in `clients/js`, against the real binary.
//!
//! `make test` installs what it is built with.

use super::database::{Database, Kind};
use super::npm::{build, npm};
use super::script::Script;
use super::server::{Server, token};

/// Deaths of the server while people talk.
const KILLS: usize = 3;
/// Acknowledged messages between two deaths, at least. A person's messages are sent one after the other.
const ACKS_PER_LIFE: u64 = 50;
/// How long a token lasts whose end is tested.
const SHORT: &str = "4s";

/// A server and two people, with tokens.
struct World {
    database: Database,
    server: Server,
    alice: String,
    bob: String,
}

impl World {
    fn start(database: Database) -> Self {
        build();
        let database = database.without_rate_limits();
        let server = Server::start(&database);
        let (alice, bob) = (token(&database, "alice", &[]), token(&database, "bob", &[]));
        Self { database, server, alice, bob }
    }

    fn script(&self, name: &'static str) -> Script {
        let url = self.server.url();
        Script::start(name, &[("URL", &*url), ("TOKEN_ALICE", &self.alice), ("TOKEN_BOB", &self.bob)])
    }
}

#[test]
fn the_client_package_orders_events_in_any_interleaving_and_its_examples_compile() {
    build();
    npm("check");
}

#[test]
fn the_client_package_misses_nothing_on_a_bad_network_after_a_long_absence_or_with_a_slow_reader() {
    let database = Database::create(Kind::Sqlite)
        .with("IMKS_ENGINE_PING_INTERVAL", "5s")
        .with("IMKS_ENGINE_PING_TIMEOUT", "1s");
    World::start(database).script("package_away.js").done();
}

#[test]
fn the_client_package_loses_and_doubles_nothing_when_the_server_is_killed() {
    let mut world = World::start(Database::create(Kind::Sqlite));
    let mut script = world.script("package_crash.js");
    let mut acked = 0;
    for _ in 0..KILLS {
        let line = script.hears(|line| line["acked"].as_u64() >= Some(acked + ACKS_PER_LIFE));
        acked = line["acked"].as_u64().expect("a number");
        world.server.kill_and_restart(&world.database);
    }
    script.hears(|line| line["acked"].as_u64() >= Some(acked + ACKS_PER_LIFE));
    script.tell("finish");
    let last = script.done();
    assert_eq!(last["acked"], last["stored"], "every message that was sent is stored once");
}

#[test]
fn the_client_package_fetches_tokens_anew_and_says_why_it_is_refused() {
    let world = World::start(Database::create(Kind::Sqlite).with("IMKS_TOKEN_LEEWAY", "0s"));
    let mut script = world.script("package_tokens.js");
    script.hears(|line| line["ready"] == true);
    script.tell(&token(&world.database, "alice", &["--ttl", SHORT]));
    script.done();
}

#[test]
fn the_client_package_sends_is_cut_off_is_reloaded_and_comes_back_in_a_browser() {
    World::start(Database::create(Kind::Sqlite)).script("package_page.js").done();
}

#[test]
fn the_client_package_is_installed_from_its_file_compiles_and_runs() {
    World::start(Database::create(Kind::Sqlite)).script("package_install.js").done();
}
