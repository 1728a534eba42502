//! `imks demo`: three people chat, and whoever has the token can join.

use imks::client::Client;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Program, on_a_terminal, path, run, within};

const QUICK: [&str; 4] = ["demo", "--listen=127.0.0.1:0", "--pace=50", "--json"];

#[tokio::test(flavor = "multi_thread")]
async fn three_people_write_answer_react_and_read() {
    let ended = run(&[&QUICK[..], &["--seconds=5"]].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines = ended.json_lines();
    assert_eq!(lines[0]["type"], "ready");
    let summary = lines.last().unwrap();
    assert_eq!((&summary["type"], &summary["failures"]), (&"summary".into(), &0.into()), "{summary}");
    let count = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count() as u64;
    assert_eq!(summary["messages"], count("message"), "{summary}");
    for kind in ["messages", "replies", "reactions", "reads"] {
        assert!(summary[kind].as_u64().unwrap() > 0, "{kind}: {summary}");
    }
    for user in ["ada", "ben", "chen"] {
        for kind in ["message", "typing"] {
            assert!(lines.iter().any(|line| line["type"] == kind && line["user"] == user), "{user} {kind}");
        }
    }
    assert!(ended.left.is_empty(), "{:?}", ended.left);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_can_join_with_the_token_and_ctrl_c_ends_it() {
    let mut demo = Program::start(&QUICK);
    let ready: Value =
        serde_json::from_str(&within(demo.stdout.next_line()).await.unwrap().unwrap()).unwrap();
    let (url, token) = (ready["url"].as_str().unwrap(), ready["token"].as_str().unwrap());
    assert!(ready["console_server"].as_str().unwrap().ends_with("/admin"));
    let client = Client::builder(url).auth_token(token).build().unwrap();
    let socket = client.socket("/").unwrap();
    let mut messages = socket.stream::<Value>("message:new");
    within(socket.connect()).await.unwrap();
    let message = within(messages.next()).await.unwrap().unwrap();
    assert!(["ada", "ben", "chen"].contains(&message["author"]["username"].as_str().unwrap()), "{message}");
    client.close().await;
    demo.interrupt().await;
    let ended = demo.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.json_lines().last().unwrap()["type"], "summary");
    assert!(ended.left.is_empty(), "{:?}", ended.left);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_are_kept_are_there_the_next_time() {
    let directory = TempDir::new().unwrap();
    let data = path(&directory, "data");
    let arguments = [&QUICK[..], &["--seconds=2", "--data", &data]].concat();
    let numbers = |ended: &crate::program::Ended| -> Vec<i64> {
        ended
            .json_lines()
            .iter()
            .filter_map(|line| line["seq"].as_i64().filter(|_| line["type"] == "message"))
            .collect()
    };
    let (first, second) = (run(&arguments).await, run(&arguments).await);
    let (first, second) = (numbers(&first), numbers(&second));
    assert!(first.last().unwrap() < second.first().unwrap(), "{first:?} {second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_is_a_chat_with_the_way_in() {
    let (code, text) = on_a_terminal(&["demo", "--listen=127.0.0.1:0", "--pace=50", "--seconds=3"]).await;
    assert_eq!(code, Some(0), "{text}");
    for wanted in [
        "imks demo: three people chat at http://127.0.0.1:",
        "console",
        "token",
        "ada:",
        "ben (to ada):",
        "messages (",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_says_which_option_helps() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["demo", "--listen", &address]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("--listen"), "{}", ended.stderr);
    assert_eq!(run(&["demo", "--pace=0"]).await.code, Some(2));
    assert_eq!(run(&["demo", "--name="]).await.code, Some(2), "nobody has no name");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_reads_any_further_it_ends_with_its_server_and_says_nothing() {
    let demo = Program::start(&QUICK).read_no_further().await;
    assert!(demo.stdout.contains("\"ready\""), "{}", demo.stdout);
    assert_eq!((demo.code, &*demo.stderr), (Some(0), ""));
    assert!(demo.left.is_empty(), "{:?}", demo.left);
}
