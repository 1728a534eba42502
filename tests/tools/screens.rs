//! What stands on the screen of a terminal when a tool has ended, as text, and how each tool ends when it is interrupted.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::program::{Program, within};
use super::run::imks;
use super::server::{Kind, TestServer};
use super::target::{self, Fault};
use super::terminal::Terminal;

/// Runs a tool in a terminal until the screen has a text. Returns its exit code, and its screen with `N` for each number.
async fn screen_of(
    arguments: &[&str],
    environment: &[(&str, &str)],
    last: &str,
) -> (Option<i32>, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).env("TERM", "xterm");
    let last = last.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        let terminal = Terminal::start(command, 140, 50);
        let screen = terminal.sees(&last);
        (terminal.ended().code(), screen)
    });
    let (code, screen) = ended.await.unwrap();
    (code, screen.lines().map(|line| masked(line.trim_end())).collect())
}

/// A line with `N` in the place of each number, whatever its length, and no more than one space in a row.
fn masked(line: &str) -> String {
    let mut out = String::new();
    for letter in line.chars() {
        let is_number = letter.is_ascii_digit() || (letter == '.' && out.ends_with('N'));
        match (letter, is_number) {
            (_, true) if out.ends_with('N') => {}
            (_, true) => out.push('N'),
            (' ', _) if out.ends_with(' ') => {}
            _ => out.push(letter),
        }
    }
    out
}

#[test]
fn numbers_are_masked_and_words_are_not() {
    assert_eq!(masked("p50 1.25 ms,  max 9 ms."), "pN N ms, max N ms.");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_shows_each_check_and_nothing_of_its_progress_stays() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (format!("http://{}", server.addr()), server.token("ann").await);
    let arguments = ["doctor", &url, "--channel", "general"];
    let (code, screen) = screen_of(&arguments, &[("IMKS_TOKEN", &token)], "skipped.").await;
    assert_eq!(code, Some(0), "{screen:?}");
    for name in
        ["tcp", "http", "polling", "websocket", "upgrade", "token", "sign-in", "ping", "receive", "close"]
    {
        let is_well = |line: &String| line.starts_with(&format!("ok {name} "));
        assert!(screen.iter().any(is_well), "{name}: {screen:#?}");
    }
    assert_eq!(screen[0], "imks doctor: http://N:N", "{screen:#?}");
    assert!(!screen.iter().any(|line| line.starts_with('…')), "{screen:#?}");
    assert!(screen.last().unwrap().starts_with("All is well: N checks, N skipped."), "{screen:#?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_below_a_fault_what_it_means_and_what_to_do() {
    let (code, screen) = screen_of(&["doctor", "http://127.0.0.1:1"], &[], "skipped.").await;
    assert_eq!(code, Some(1));
    let at = screen
        .iter()
        .position(|line| line.starts_with("failed tcp "))
        .unwrap_or_else(|| panic!("{screen:#?}"));
    assert!(screen[at + 1].trim_start().starts_with("means: "), "{screen:#?}");
    assert!(screen.iter().any(|line| line.trim_start().starts_with("do: ")), "{screen:#?}");
    assert!(screen.iter().any(|line| line.starts_with("skipped websocket ")), "{screen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_leaves_its_findings_on_the_screen() {
    let url = target::start(Fault::Nothing);
    let arguments = ["bench", &url, "--clients=2", "--rate=50", "--duration=1s", "--window=2"];
    let (code, screen) = screen_of(&arguments, &[], "note: duplicates").await;
    assert_eq!(code, Some(0), "{screen:#?}");
    let at = screen.iter().position(|line| line.contains("clean")).unwrap_or_else(|| panic!("{screen:#?}"));
    let found: Vec<&str> = screen[at..].iter().map(String::as_str).take(10).collect();
    let percentiles = "pN N ms, pN N ms, pN N ms, max N ms";
    let expected = [
        "echo on http://N:N: clean".to_owned(),
        " N clients, N bytes, websocket: N sent, N answers in N s, N per second".to_owned(),
        format!(" latency {percentiles}"),
        format!(" connecting {percentiles}"),
        " lost N".to_owned(),
        " duplicates not measured".to_owned(),
        " out of order N".to_owned(),
        " wrong N".to_owned(),
        " failed N".to_owned(),
        " connections N joined, N lost".to_owned(),
    ];
    assert_eq!(found, expected, "{screen:#?}");
    assert!(screen.iter().any(|line| line.contains('█')), "{screen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_that_is_interrupted_before_anything_was_answered_ends_with_130() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut bench = Program::start(&["bench", &url, "--json", "--clients=1"]);
    bench.says("connecting").await;
    bench.interrupt().await;
    let ended = bench.ended().await;
    assert_eq!(ended.code, Some(130), "{} {}", ended.stdout, ended.stderr);
    assert_eq!(ended.json()["completed"], 0);
}

/// Starts a tool on a pipe, waits for its first line, interrupts it, and returns its code and what it printed.
async fn interrupted(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let variables: Vec<(&str, String)> =
        environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let mut program = Program::start_with(arguments, &variables);
    let first = within(program.stdout.next_line()).await.unwrap().expect("it has ended");
    program.interrupt().await;
    let ended = program.ended().await;
    (ended.code, format!("{first}\n{}", ended.stdout))
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_that_is_interrupted_ends_with_130_and_says_what_it_has_found() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (format!("http://{}", server.addr()), server.token("ann").await);
    let (code, said) = interrupted(&["doctor", &url, "--watch", "10m"], &[("IMKS_TOKEN", &token)]).await;
    assert_eq!(code, Some(130), "{said}");
    let last = said.trim_end().lines().last().unwrap();
    assert!(said.starts_with("imks doctor: http://") && last.starts_with("Interrupted after "), "{said}");
    assert!(!last.contains("well"), "what was not tried is not known to be well: {last}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_that_is_interrupted_on_a_pipe_ends_with_130_and_every_line_is_whole() {
    let server = TestServer::start(Kind::Sqlite).await;
    let url = format!("http://{}", server.addr());
    let directory = server.database().data_dir.to_str().unwrap().to_owned();
    let key = imks(&["key", "add", "top", "--scope", "read", "--data-dir", &directory]).await.out;
    let arguments = ["top", &url, "--json", "--count=1000", "--interval=500ms"];
    let (code, said) = interrupted(&arguments, &[("IMKS_KEY", key.trim())]).await;
    assert_eq!(code, Some(130), "{said}");
    let samples = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(samples.count() > 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_none_ends_each_tool_with_the_code_that_its_document_says() {
    for (arguments, code) in [
        (&["top", "chat.example", "--key", "imks_x"][..], 78),
        (&["chat", "chat.example", "--token", "x"], 78),
        (&["bench", "chat.example"], 78),
        (&["top"], 2),
        (&["chat"], 2),
        (&["demo", "--pace=fast"], 2),
    ] {
        let ended = imks(arguments).await;
        assert_eq!(ended.code, Some(code), "{arguments:?} {} {}", ended.out, ended.err);
        assert!(!ended.err.is_empty(), "{arguments:?} {} {}", ended.out, ended.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_nobody_or_for_no_time_is_refused_with_2_and_no_database_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").to_str().unwrap().to_owned();
    for arguments in [&["token", ""][..], &["token", "a b"], &["token", "ann", "--ttl", "0s"]] {
        let ended = imks(&[arguments, &["--data-dir", &data]].concat()).await;
        assert_eq!(ended.code, Some(2), "{arguments:?} {} {}", ended.out, ended.err);
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{arguments:?} {}", ended.err);
    }
    assert!(!directory.path().join("data").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_on_a_pipe_says_lines_that_people_can_read() {
    let ended = super::program::run(&["demo", "--listen=127.0.0.1:0", "--pace=50", "--seconds=2"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let masked: Vec<String> = ended.stdout.lines().map(masked).collect();
    assert!(masked[0].starts_with("imks demo: three people chat at http://N:N"), "{}", ended.stdout);
    assert!(ended.stdout.contains("messages ("), "{}", ended.stdout);
    assert!(!ended.stdout.contains('\u{1b}'), "no terminal, no escapes: {}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_in_a_terminal_says_that_it_is_signed_out_and_then_ends_with_1() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (url, token) = (format!("http://{}", server.addr()), server.token("ann").await);
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(["chat", &url, "--channel", "general"]).env_clear().env("IMKS_TOKEN", &token);
    let mut terminal = Terminal::start(command, 80, 20);
    terminal.sees("online");
    server.directory().revoke_user("ann").await.unwrap();
    terminal.sees("/quit ends");
    terminal.press("/quit\r");
    let ending = tokio::task::spawn_blocking(move || terminal.ended());
    let status = tokio::time::timeout(Duration::from_secs(60), ending).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    server.stop().await;
}
