//! The Admin UI: a stock client against imks and the reference's own instrumentation, what each sees must be the same;
//! and the stock page in a real browser.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "tests")]

mod admin {
    pub mod application;
}
#[path = "client/database.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod database;
#[path = "client/script.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod script;
#[path = "client/server.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod server;

use std::io::Write;
use std::process::{Command, Stdio};

use database::{Database, Kind};
use imks::socket::admin::{Auth, Config, Mode, check_hash};
use script::Script;
use server::{Server, token};

const USERNAME: &str = "operator";
const PASSWORD: &str = "correct horse";
/// Of [`PASSWORD`], as bcryptjs writes it; cheap, because it is compared often.
const HASH: &str = "$2a$04$OneS8iRvsGvbwV6J.uVmXeTPtw.wkVclr65.kYV1Qml8xDfSg.wEK";

/// What the page of a server sees, one line each.
fn seen(url: &str, mode: &str, read_only: bool, reference: &str) -> Vec<String> {
    let read_only = read_only.to_string();
    let environment = [
        ("URL", url),
        ("MODE", mode),
        ("READ_ONLY", &read_only),
        ("USERNAME", USERNAME),
        ("PASSWORD", PASSWORD),
        ("REFERENCE", reference),
    ];
    let last = Script::start("admin.js", &environment).done();
    let lines = last["lines"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

fn seen_of_the_reference(mode: &str, read_only: bool) -> Vec<String> {
    let only = read_only.to_string();
    let environment = [("MODE", mode), ("READ_ONLY", &*only), ("USERNAME", USERNAME), ("HASH", HASH)];
    let mut reference = Script::start("admin_reference.js", &environment);
    let port = reference.hears(|line| line["port"].is_u64())["port"].clone();
    let seen = seen(&format!("http://localhost:{port}"), mode, read_only, "true");
    reference.tell("done");
    reference.done();
    seen
}

fn seen_of_imks(mode: Mode, read_only: bool) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let auth = Auth::Basic { username: USERNAME.into(), password_hash: HASH.into() };
    let config = Config { mode, read_only, server_id: Some("one".into()), ..Config::new(auth) };
    let address = runtime.block_on(async { admin::application::serve(config) });
    let word = if mode == Mode::Development { "development" } else { "production" };
    seen(&format!("http://{address}"), word, read_only, "")
}

fn compare(mode: Mode, word: &str, read_only: bool) {
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| seen_of_the_reference(word, read_only));
        (seen_of_imks(mode, read_only), theirs.join().unwrap())
    });
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn in_production_mode_a_page_sees_counters_and_its_commands_work() {
    compare(Mode::Production, "production", false);
}

#[test]
fn in_development_mode_a_page_sees_every_socket_room_and_event() {
    compare(Mode::Development, "development", false);
}

#[test]
fn a_page_that_may_only_watch_is_not_obeyed() {
    compare(Mode::Production, "production", true);
}

/// The stock page, served by `imks serve`, in Chromium.
fn an_operator_signs_in(mode: &str) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js/node_modules/@socket.io/admin-ui/ui/dist");
    let database = Database::create(Kind::Sqlite)
        .with("IMKS_ADMIN", "true")
        .with("IMKS_ADMIN_USERNAME", USERNAME)
        .with("IMKS_ADMIN_PASSWORD_HASH", HASH)
        .with("IMKS_ADMIN_MODE", mode)
        .with("IMKS_ADMIN_SERVER_ID", "server-one")
        .with("IMKS_ADMIN_UI_DIR", page);
    let server = Server::start(&database);
    let anna = token(&database, "anna", &[]);
    let environment = [
        ("URL", &*server.url()),
        ("MODE", mode),
        ("TOKEN", &anna),
        ("USERNAME", USERNAME),
        ("PASSWORD", PASSWORD),
        ("SERVER_ID", "server-one"),
    ];
    Script::run("admin_page.js", &environment);
}

#[test]
fn the_stock_page_shows_counters_in_production_mode() {
    an_operator_signs_in("production");
}

#[test]
fn the_stock_page_shows_sockets_in_development_mode_and_disconnects_one() {
    an_operator_signs_in("development");
}

/// `imks` with these arguments, settings and input: exit code, output, complaint.
fn run(arguments: &[&str], settings: &[(&str, &str)], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(arguments).env_clear().envs(settings.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_hash_is_made_of_a_line_of_input_and_nothing_else_is_printed() {
    let (code, hash, _) = run(&["admin", "hash"], &[], "correct horse\n");
    assert_eq!((code, check_hash(hash.trim())), (Some(0), Ok(())));
    let settings = [
        ("IMKS_ADMIN", "true"),
        ("IMKS_ADMIN_USERNAME", USERNAME),
        ("IMKS_ADMIN_PASSWORD_HASH", hash.trim()),
    ];
    let (code, shown, complaint) = run(&["check-config"], &settings, "");
    assert_eq!(code, Some(0), "{complaint}");
    assert!(!shown.contains(hash.trim()), "the hash is a secret");
    assert_eq!(run(&["admin", "hash"], &[], "\n").0, Some(1));
}

#[test]
fn without_credentials_the_server_does_not_start() {
    let (code, _, complaint) = run(&["serve"], &[("IMKS_ADMIN", "true")], "");
    assert_eq!(code, Some(78));
    assert!(complaint.contains("IMKS_ADMIN_PASSWORD_HASH"), "{complaint}");
}
