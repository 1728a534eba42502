//! `imks chat` in a terminal, whose screen is compared as text, and on a pipe.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::relay::Relay;
use super::run::{Ended, PATIENCE, imks, imks_with};
use super::server::{Kind, TestServer, first_channel};
use super::terminal::Terminal;

/// A chat of this user in a terminal of 80 columns and 20 rows.
async fn chat(server: &TestServer, url: &str, name: &str) -> Terminal {
    let token = server.token(name).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(["chat", url, "--channel", "general"]).env_clear().env("IMKS_TOKEN", token);
    Terminal::start(command, 80, 20)
}

fn url(server: &TestServer) -> String {
    format!("http://{}", server.addr())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_people_chat_and_the_cursor_stands_right_after_wide_characters() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut bob = server.client("bob").await;
    let channel = first_channel(&bob);
    bob.ok("message:send", json!({ "channel_id": channel, "body": "before you came" })).await;
    let mut ann = chat(&server, &url(&server), "ann").await;
    ann.sees("online");
    ann.sees("before you came");
    bob.ok("message:send", json!({ "channel_id": channel, "body": "hello ann" })).await;
    let screen = ann.sees("hello ann");
    assert!(screen.lines().next().unwrap().contains("#general"), "{screen}");
    bob.ok("typing:start", json!({ "channel_id": channel })).await;
    ann.sees("bob types");
    ann.press("日本語 👍");
    ann.sees("> 日本語 👍");
    assert_eq!(ann.cursor(), (19, 2 + 9));
    ann.press("\x1b[D\x1b[D\x7f");
    ann.sees("> 日本 👍");
    assert_eq!(ann.cursor(), (19, 2 + 4));
    ann.press("\r");
    let heard = loop {
        let message = bob.expect("message:new").await;
        if message["author"]["username"] == "ann" {
            break message;
        }
    };
    assert_eq!(heard["body"], "日本 👍");
    let screen = ann.sees_no("(sending)");
    assert!(screen.contains("日本 👍") && screen.contains("ann #3"), "{screen}");
    ann.press("/react #2 🎉\r");
    ann.sees("🎉 1");
    ann.press("/edit better\r");
    ann.sees("better (edited)");
    ann.press("/quit\r");
    assert!(ann.ended().success());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_control_characters_of_others_never_reach_the_terminal() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut bob = server.client("bob").await;
    let channel = first_channel(&bob);
    let mut ann = chat(&server, &url(&server), "ann").await;
    ann.sees("online");
    let body = "\u{1b}]0;owned\u{7}\u{1b}[31mred\u{9b}2J\u{202e}end";
    bob.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
    ann.sees("]0;owned[31mred2Jend");
    let raw = String::from_utf8_lossy(&ann.raw()).into_owned();
    for forbidden in ["\u{1b}]0;", "\u{1b}[31m", "\u{9b}", "\u{202e}", "\u{7}"] {
        assert!(!raw.contains(forbidden), "{forbidden:?}");
    }
    ann.press("\u{3}");
    assert!(ann.ended().success());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_lost_connection_nothing_is_missing_and_what_was_typed_is_sent() {
    let server = TestServer::start(Kind::Sqlite).await;
    let relay = Relay::start(server.addr()).await;
    let mut bob = server.client("bob").await;
    let channel = first_channel(&bob);
    let mut ann = chat(&server, &relay.url(), "ann").await;
    ann.sees("online");
    bob.ok("message:send", json!({ "channel_id": channel, "body": "one" })).await;
    ann.sees("one");
    ann.press("half a ");
    ann.sees("> half a");
    relay.close();
    ann.sees("reconnecting");
    for body in ["two", "three"] {
        bob.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
    }
    ann.press("line\r");
    ann.sees("half a line (sending)");
    relay.open();
    ann.sees("online");
    ann.sees("three");
    let screen = ann.sees_no("(sending)");
    let places: Vec<usize> =
        ["one", "two", "three", "half a line"].iter().map(|text| screen.find(text).unwrap()).collect();
    assert!(places.is_sorted(), "{screen}");
    let heard = loop {
        let message = bob.expect("message:new").await;
        if message["author"]["username"] == "ann" {
            break message;
        }
    };
    assert_eq!(heard["body"], "half a line");
    ann.press("/stats\r/transport\r");
    ann.sees("transport: websocket");
    ann.press("/quit\r");
    assert!(ann.ended().success());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_in_other_channels_are_counted_until_they_are_shown() {
    let server = TestServer::start(Kind::Sqlite).await;
    server.token("ann").await;
    let other = server.channel("zoo", &["ann", "bob"]).await;
    let mut bob = server.client("bob").await;
    let mut ann = chat(&server, &url(&server), "ann").await;
    ann.sees("online");
    ann.sees("zoo");
    for body in ["lion", "tiger"] {
        bob.ok("message:send", json!({ "channel_id": other, "body": body })).await;
    }
    let screen = ann.sees("zoo 2");
    assert!(!screen.contains("lion"), "{screen}");
    ann.press("\u{e}");
    let screen = ann.sees("tiger");
    assert!(screen.contains("lion") && !screen.contains("zoo 2"), "{screen}");
    ann.press("/quit\r");
    assert!(ann.ended().success());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_pipe_lines_go_in_and_messages_come_out() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (url(&server), server.token("ann").await);
    let input = "hello from a pipe\n/list\n/dance\n/ping\n";
    let ended = imks_with(&["chat", &url, "--channel", "general"], &[("IMKS_TOKEN", &token)], input).await;
    assert_eq!(ended.code, Some(1), "/dance is no command: {} {}", ended.out, ended.err);
    let lines: Vec<&str> = ended.out.lines().collect();
    assert!(
        lines.len() == 1
            && lines[0].starts_with("[general] ")
            && lines[0].ends_with("#1 ann: hello from a pipe"),
        "{lines:?}"
    );
    for told in ["imks chat: http://", "general", "/help lists them", "answer after"] {
        assert!(ended.err.contains(told), "{told} is missing in {}", ended.err);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_read_one_json_object_per_line() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (url(&server), server.token("ann").await);
    let ended = imks_with(&["chat", &url, "--json", "--token", &token], &[], "one\ntwo\n").await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.out, ended.err);
    let all: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<(&str, i64)> = all
        .iter()
        .filter(|line| line["event"] == "message")
        .map(|line| (line["body"].as_str().unwrap(), line["seq"].as_i64().unwrap()))
        .collect();
    assert_eq!(messages, [("one", 1), ("two", 2)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_pipe_a_channel_that_is_missing_ends_with_1_and_nothing_is_sent_to_another() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (url(&server), server.token("ann").await);
    for form in ["--plain", "--json"] {
        let arguments = ["chat", &url, "--token", &token, "--channel", "ops", form];
        let ended = imks_with(&arguments, &[], "secret deploy\n").await;
        assert_eq!(ended.code, Some(1), "{form}: {} {}", ended.out, ended.err);
        let told = format!("{}{}", ended.out, ended.err);
        assert!(told.contains("no channel ops"), "{form}: {told}");
    }
    let joining = imks_with(&["chat", &url, "--token", &token], &[], "/join ops\nsecret deploy\n").await;
    assert_eq!(joining.code, Some(1), "{} {}", joining.out, joining.err);
    assert!(joining.err.contains("no channel ops"), "{}", joining.err);
    let mut bob = server.client("bob").await;
    let channel = first_channel(&bob);
    let history = bob.ok("history", json!({ "channel_id": channel })).await;
    assert_eq!(history["messages"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn an_address_with_a_user_is_refused_with_78_and_its_password_is_not_shown() {
    let ended = imks(&["chat", "http://u:hunter2@127.0.0.1:1", "--token", "x"]).await;
    assert_eq!(ended.code, Some(78), "{}", ended.err);
    assert!(ended.err.contains("no user") && !ended.err.contains("hunter2"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lines_that_come_at_once_are_sent_in_their_order() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (url(&server), server.token("ann").await);
    let typed: Vec<String> = (0..10).map(|number| format!("line {number}")).collect();
    let ended = imks_with(&["chat", &url, "--json", "--token", &token], &[], &typed.join("\n")).await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.out, ended.err);
    assert_eq!(bodies(&server).await, typed);
    server.stop().await;
}

/// The messages of the channel `general`, as the server has them.
async fn stored(server: &TestServer) -> Vec<Value> {
    let mut bob = server.client("bob").await;
    let channel = first_channel(&bob);
    let mut history = bob.ok("history", json!({ "channel_id": channel })).await;
    serde_json::from_value(history["messages"].take()).unwrap()
}

/// Their texts.
async fn bodies(server: &TestServer) -> Vec<String> {
    let messages = stored(server).await;
    messages.iter().map(|message| message["body"].as_str().unwrap().to_owned()).collect()
}

/// Gives this input to a chat of `ann` in `general`.
async fn typed(server: &TestServer, input: &str) -> Ended {
    let token = server.token("ann").await;
    imks_with(&["chat", &url(server), "--token", &token, "--channel", "general"], &[], input).await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_pipe_nothing_goes_to_a_channel_that_was_left() {
    let server = TestServer::start(Kind::Sqlite).await;
    server.token("ann").await;
    server.channel("team", &["ann"]).await;
    for input in
        ["/leave\nafter leave\n", "/leave general\nafter leave\n", "/join team\n/leave\nafter leave\n"]
    {
        let ended = typed(&server, input).await;
        assert_eq!(ended.code, Some(1), "{input}: {} {}", ended.out, ended.err);
        assert!(ended.err.contains("you are in no channel"), "{input}: {}", ended.err);
        assert_eq!(ended.out, "", "{input}");
    }
    assert_eq!(bodies(&server).await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_pipe_commands_are_obeyed_in_their_order_and_find_earlier_messages() {
    let server = TestServer::start(Kind::Sqlite).await;
    for input in
        ["hi\n/edit hi edited\n/react 👍\n", "/thread #1 a reply\n", "/history 100\n/thread #1 another\n"]
    {
        let ended = typed(&server, input).await;
        assert_eq!(ended.code, Some(0), "{input}: {} {}", ended.out, ended.err);
    }
    let messages = stored(&server).await;
    assert_eq!(messages[0]["body"], "hi edited");
    assert_eq!(messages[0]["reactions"]["👍"]["count"], 1);
    let replies: Vec<_> = messages[1..].iter().map(|reply| (&reply["body"], &reply["thread_id"])).collect();
    let root = &messages[0]["id"];
    assert_eq!(replies, [(&json!("a reply"), root), (&json!("another"), root)]);
    let shown = typed(&server, "/thread #1\n").await;
    assert!(shown.err.contains("2 replies to #1 in general"), "{}", shown.err);
    for (input, told) in [
        ("/thread #9 nobody\nstill sent\n", "no message #9 in general"),
        ("/react #1 no emoji\n", "not changed"),
        ("/edit\n", "write it as /edit"),
    ] {
        let ended = typed(&server, input).await;
        assert_eq!(ended.code, Some(1), "{input}: {} {}", ended.out, ended.err);
        assert!(ended.err.contains(told), "{input}: {}", ended.err);
    }
    assert_eq!(bodies(&server).await, ["hi edited", "a reply", "another", "still sent"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_pipe_what_stands_before_a_line_that_is_no_text_is_sent() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (url(&server), server.token("ann").await);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(["chat", &url, "--channel", "general", "--token", &token]).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"before\n\xff\nafter\n").await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("the input ends here"), "{told}");
    assert_eq!(bodies(&server).await, ["before"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_pipe_quit_sends_what_waits_and_reads_no_further() {
    let server = TestServer::start(Kind::Sqlite).await;
    let ended = typed(&server, "q1\nq2\n/quit\nafter quit\n").await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.out, ended.err);
    assert_eq!(bodies(&server).await, ["q1", "q2"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_while_the_server_is_down_is_kept_in_the_outbox_and_sent_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = folder.path().join("ob");
    let outbox = outbox.to_str().unwrap();
    let down = |more: &'static [&str], input| async move {
        let mut arguments = vec!["chat", "http://127.0.0.1:1", "--token", "x", "--outbox", outbox];
        arguments.extend(more);
        let ended = imks_with(&arguments, &[], input).await;
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        ended.err
    };
    let told = down(&["--channel", "general"], "deployed\n").await;
    assert!(
        told.contains("imks doctor") && told.contains("1 message is kept in") && told.contains(outbox),
        "{told}"
    );
    let told = down(&["--channel", "general"], "again\n/who\nnot taken\n").await;
    assert!(told.contains("2 messages are kept") && told.contains("a command needs the server"), "{told}");
    assert!(down(&[], "nowhere\n").await.contains("with --channel it is kept"));
    down(&["--channel", "opz"], "to a channel that is not there\n").await;
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (url(&server), server.token("ann").await);
    let arguments = ["chat", &url, "--token", &token, "--channel", "general", "--outbox", outbox];
    let ended = imks_with(&arguments, &[], "up\n").await;
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    let lost = "no channel opz for you: to a channel that is not there";
    assert!(ended.err.contains(lost), "{}", ended.err);
    let ended = imks_with(&arguments, &[], "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(bodies(&server).await, ["deployed", "again", "up"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_to_a_server_that_does_not_answer_survives_an_interrupt() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let outbox = folder.path().join("ob");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(["chat", &url, "--token", "x", "--channel", "general", "--outbox"]).arg(&outbox);
    command.env_clear().kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\n").await.unwrap();
    let is_kept = || std::fs::read_to_string(&outbox).is_ok_and(|text| text.contains("one"));
    let keeping = async {
        while !is_kept() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, keeping).await.unwrap();
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("1 message is kept in"), "{told}");
    assert!(is_kept());
}

#[test]
fn without_a_connection_nobody_types_into_the_outbox_of_a_chat_that_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args([
        "chat",
        "http://127.0.0.1:1",
        "--token",
        "x",
        "--channel",
        "general",
        "--plain",
        "--outbox",
    ]);
    command.arg(folder.path().join("ob")).env_clear();
    let ann = Terminal::start(command, 80, 20);
    assert_eq!(ann.ended().code(), Some(1));
}

#[tokio::test]
async fn an_outbox_that_cannot_be_used_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("notes");
    std::fs::write(&other, "buy milk\n").unwrap();
    let (missing, other) = (folder.path().join("x/y"), other);
    for (path, todo) in [(&missing, "does not exist: make it"), (&other, "is no outbox")] {
        let path = path.to_str().unwrap();
        let ended = imks(&["chat", "http://127.0.0.1:1", "--token", "x", "--outbox", path]).await;
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        assert!(ended.err.contains(path) && ended.err.contains(todo), "{}", ended.err);
        assert!(!ended.err.contains("doctor"), "{}", ended.err);
    }
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "buy milk\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_pipe_who_loses_the_token_is_told_so() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("ann").await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(["chat", &url(&server), "--plain"]).env_clear().env("IMKS_TOKEN", &token).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _input = child.stdin.take();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
        if line.contains("online") {
            server.directory().revoke_user("ann").await.unwrap();
        }
        said.push(line);
    }
    assert!(said.iter().any(|line| line.contains("your token is not valid any more")), "{said:?}");
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1), "{said:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_signed_out_by_the_server_ends_with_1() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("ann").await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(["chat", &url(&server), "--json"]).env_clear().env("IMKS_TOKEN", &token).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // The input stays open: its end would end the chat.
    let _input = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    server.directory().revoke_user("ann").await.unwrap();
    while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
        said.push_str(&line);
    }
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains(&token), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_and_a_closed_port_end_with_1_and_name_the_doctor() {
    let server = TestServer::start(Kind::Sqlite).await;
    let url = url(&server);
    let refused = imks(&["chat", &url, "--token", "secret"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("unauthenticated") && refused.err.contains("imks doctor"),
        "{}",
        refused.err
    );
    server.stop().await;
    let closed = imks(&["chat", &url, "--token", "secret"]).await;
    assert_eq!(closed.code, Some(1), "{}", closed.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_a_chat_on_a_pipe_with_130() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (url(&server), server.token("ann").await);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(["chat", &url, "--json"]).env_clear().env("IMKS_TOKEN", &token).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // The input stays open: its end would end the chat.
    let _input = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let online = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(online.contains("connection"), "{online}");
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    server.stop().await;
}
