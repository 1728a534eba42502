//! Back ends in other languages that tell imks what to do, and a stock client that hears it.

use std::path::Path;

use serde_json::{Value, json};

use crate::curl::Curl;
use crate::database::{Database, Kind};
use crate::script::{Interpreter, Script};
use crate::server::{Server, free_port, run, shell, token};

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
        let address = format!("http://{target}/api/v1/admin");
        let api = Curl::with_key(&address, key);
        let message =
            json!({"identity": {"name": "Build"}, "content": {"body": "build 7 is done"}, "request_id": "7"});
        let path = format!("/channels/{channel}/messages");
        let [first, again] = [(), ()].map(|()| api.ask("POST", &path, &message)["stored"].clone());
        assert_eq!((&first["message_id"], &again["duplicate"]), (&again["message_id"], &json!(true)));
        let release =
            json!({"target": {"channel_id": channel}, "event": "app:release", "payload": {"version": 7}});
        api.ask("POST", "/broadcast", &release);
        let refused = Curl::with_key(&address, "imks_wrong").refused("POST", &path, &message);
        assert_eq!(refused, "unauthenticated");
    });
}

#[test]
fn curl_alone_makes_a_channel_publishes_in_it_and_kicks_a_user_as_the_readme_says() {
    let database = Database::create(Kind::Sqlite);
    let (server, alice) = (Server::start(&database), token(&database, "alice", &[]));
    let mut client = Script::start("listener.js", &[("URL", &*server.url()), ("TOKEN", &alice)]);
    let mut heard = |event: &str| client.hears(|line| line["event"] == event)["data"].clone();
    heard("session:ready");
    let script = commands("README.md", "A back end needs an API key", &server);
    let answers = answers(&shell(&database, &script));
    assert_eq!((answers.len(), &answers[2]["data"]), (3, &json!({ "sockets": 1 })));
    let joined = heard("channel:joined");
    assert_eq!(joined["name"], "team");
    let message = heard("message:new");
    assert_eq!((&message["body"], &message["channel_id"]), (&json!("deployed"), &joined["channel_id"]));
    let left = heard("channel:left");
    assert_eq!((&left["reason"], &left["message"]), (&json!("kicked"), &json!("spam")));
    client.ends_when_told();
}

#[test]
fn the_commands_of_the_documents_work_one_after_the_other_on_a_new_server() {
    for (document, place) in
        [("docs/server-api.md", "## In one minute"), ("docs/directory.md", "## Over HTTP")]
    {
        let database = Database::create(Kind::Sqlite);
        let server = Server::start(&database);
        let script = commands(document, place, &server);
        let answers = answers(&shell(&database, &script));
        assert!(answers.len() > 4, "{document}: {answers:?}");
    }
}

/// The first block of commands in a document after some words, for a server on another port that runs already.
fn commands(document: &str, after: &str, server: &Server) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let block =
        text.split_once(after).unwrap().1.split_once("```sh\n").unwrap().1.split_once("\n```").unwrap().0;
    let lines = block.lines().filter(|line| !line.starts_with("imks &"));
    let script = lines.collect::<Vec<_>>().join("\n").replace("target/debug/imks", "imks");
    script.replace("http://127.0.0.1:3000", &server.url())
}

/// The answers that a script prints. All of them are good.
fn answers(printed: &str) -> Vec<Value> {
    let answers: Vec<Value> =
        serde_json::Deserializer::from_str(printed).into_iter().collect::<Result<_, _>>().unwrap();
    assert!(answers.iter().all(|answer| answer["ok"] == true), "{printed}");
    answers
}
