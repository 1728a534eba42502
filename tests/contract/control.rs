//! Back ends in other languages that tell imks what to do, and a stock client that hears it.

use std::process::Command;

use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::script::{Interpreter, Script};
use crate::server::{Server, free_port, run, token};

/// A server with a client of a member, who hears what `act` does with a key, at the address for operators, in a
/// channel.
fn a_client_hears_what_a_back_end_does(act: impl FnOnce(&str, &str, &str)) {
    let internal = free_port().to_string();
    let database = Database::create(Kind::Sqlite).with("IMKS_INTERNAL_LISTEN", &internal);
    let alice = token(&database, "alice", &[]);
    let key = run(&database, &["key", "add", "backend"]);
    let server = Server::start(&database);
    let environment = [("URL", &*server.url()), ("TOKEN_ALICE", &alice)];
    let mut client = Script::start("control_client.js", &environment);
    let line = client.hears(|line| line["channel"].is_string());
    act(&internal, &key, line["channel"].as_str().unwrap());
    client.tell("acted");
    client.done();
}

fn a_program_acts(interpreter: Interpreter, program: &'static str) {
    a_client_hears_what_a_back_end_does(|target, key, channel| {
        let environment = [("TARGET", target), ("KEY", key), ("CHANNEL", channel)];
        Script::run_with(interpreter, program, &environment);
    });
}

#[test]
fn a_back_end_in_python_sends_as_a_bot_and_broadcasts() {
    a_program_acts(Interpreter::Python, "control.py");
}

#[test]
fn a_back_end_in_javascript_sends_as_a_bot_and_broadcasts() {
    a_program_acts(Interpreter::Node, "control.js");
}

#[test]
fn curl_alone_sends_as_a_bot_and_broadcasts() {
    a_client_hears_what_a_back_end_does(|target, key, channel| {
        let api = format!("http://{target}/api/v1/admin");
        let post = |path: &str, body: Value| curl(&format!("{api}{path}"), key, &body);
        let message =
            json!({"identity": {"name": "Build"}, "content": {"body": "build 7 is done"}, "request_id": "7"});
        let path = format!("/channels/{channel}/messages");
        let [first, again] = [(), ()].map(|()| post(&path, message.clone())["data"]["stored"].clone());
        assert_eq!((&first["message_id"], &again["duplicate"]), (&again["message_id"], &json!(true)));
        let release =
            json!({"target": {"channel_id": channel}, "event": "app:release", "payload": {"version": 7}});
        assert_eq!(post("/broadcast", release)["ok"], true);
        let refused = curl(&format!("{api}{path}"), "imks_wrong", &message);
        assert_eq!(refused["error"]["code"], "unauthenticated");
    });
}

/// The answer to a POST.
fn curl(url: &str, key: &str, body: &Value) -> Value {
    let authorization = format!("Authorization: Bearer {key}");
    let output =
        Command::new("curl").args(["-sS", "-H", &authorization, url, "-d", &body.to_string()]).output();
    let output = output.expect("curl; tests/run installs it");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}
