//! `imks prove`: the promise of the README, on both databases.

use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::program::{Ended, Program, on_a_terminal, run, within};

/// As short as a proof can be.
const SHORT: [&str; 4] = ["prove", "--rounds=1", "--load=300ms", "--clients=2"];

fn assert_kept(ended: &Ended) -> Value {
    let found = ended.json();
    assert_eq!((ended.code, &found["is_kept"]), (Some(0), &true.into()), "{found} {}", ended.stderr);
    let verdict = &found["verdict"];
    for fault in
        ["lost", "doubled", "out_of_order", "moved", "holes", "live_doubled", "live_out_of_order", "refused"]
    {
        assert_eq!(verdict[fault], 0, "{fault}: {found}");
    }
    let count = |name: &str| verdict[name].as_u64().unwrap();
    assert!(count("acknowledged") > 0 && count("in_history") >= count("acknowledged"), "{found}");
    assert!(count("seen_live") > 0, "{found}");
    for fault in found["faults"].as_array().unwrap() {
        assert!(fault["back_ms"].as_f64().unwrap() >= fault["repaired_ms"].as_f64().unwrap(), "{found}");
    }
    assert!(ended.left.is_empty(), "{:?}", ended.left);
    found
}

fn kinds(found: &Value) -> Vec<&str> {
    found["faults"].as_array().unwrap().iter().map(|fault| fault["kind"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_kill_9_is_in_the_history() {
    let ended = run(&["prove", "--rounds=2", "--load=500ms", "--json"]).await;
    let found = assert_kept(&ended);
    assert_eq!(kinds(&found), ["kill -9", "kill -9"]);
    assert!(found["not_tried"][0].as_str().unwrap().contains("--database"), "{found}");
    assert!(found["database"].as_str().unwrap().starts_with("SQLite"), "{found}");
}

/// # Panics
///
/// Where `IMKS_TEST_POSTGRES_URL` is not set: `make test` sets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_cut_off_loses_nothing_and_the_one_of_the_proof_is_removed() {
    let url =
        std::env::var("IMKS_TEST_POSTGRES_URL").expect("IMKS_TEST_POSTGRES_URL: run `make test`, or set it");
    let before = scratch_databases(&url).await;
    let arguments = [&SHORT[..], &["--cut=700ms", "--json", "--database", &url]].concat();
    let ended = run(&arguments).await;
    let found = assert_kept(&ended);
    assert_eq!(kinds(&found), ["kill -9", "database cut"]);
    assert!(found["faults"][1]["repaired_ms"].as_f64().unwrap() >= 700.0, "{found}");
    assert_eq!(found["not_tried"], Value::Array(Vec::new()));
    let after = scratch_databases(&url).await;
    assert!(after.iter().all(|name| before.contains(name)), "{after:?}");
    assert!(!ended.stdout.contains(&url) && !ended.stderr.contains(&url), "the password stays secret");
}

async fn scratch_databases(url: &str) -> Vec<String> {
    let mut connection = Box::pin(PgConnection::connect(url)).await.unwrap();
    sqlx::query_scalar("SELECT datname FROM pg_database WHERE datname LIKE 'imks\\_scratch\\_%'")
        .fetch_all(&mut connection)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_by_itself_is_not_taken_for_one_that_was_killed() {
    let mut prove = Program::start(&["prove", "--rounds=1", "--load=5s"]);
    prove.says("people are in").await;
    prove.kill_its_servers().await;
    let ended = prove.ended().await;
    assert_eq!(ended.code, Some(1), "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("the server ended by itself"), "{}", ended.stderr);
    assert!(ended.stderr.contains("kept for a look") && ended.left.len() == 1, "{:?}", ended.left);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_is_a_table() {
    let (code, text) = on_a_terminal(&SHORT).await;
    assert_eq!(code, Some(0), "{text}");
    for wanted in [
        "the promise was kept",
        "acknowledged",
        "lost                0",
        "listening again after",
        "not tried",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_with_what_was_found_and_proves_nothing() {
    let mut prove = Program::start(&["prove", "--load=10m"]);
    prove.says("people are in").await;
    prove.interrupt().await;
    let ended = prove.ended().await;
    assert_eq!(ended.code, Some(130), "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("nothing is proven"), "{}", ended.stdout);
    assert!(ended.left.is_empty(), "{:?}", ended.left);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_is_heard_while_the_server_is_made_and_a_second_one_does_not_wait_for_it() {
    // A database that takes the connection and never says a word.
    let database = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://me@{}/x", database.local_addr().unwrap());
    let mut prove = Program::start(&["prove", "--database", &url]);
    let (_silent, _) = within(database.accept()).await.unwrap();
    prove.interrupt().await;
    prove.says("ending when the server has started").await;
    prove.interrupt().await;
    let ended = prove.ended().await;
    assert_eq!(ended.code, Some(1), "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("second Ctrl-C") && ended.left.is_empty(), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_closed_leaves_no_server_behind() {
    let mut prove = Program::start(&["prove", "--load=10m"]);
    prove.says("people are in").await;
    prove.hang_up().await;
    let ended = prove.ended().await;
    assert_eq!(ended.code, Some(130), "{} {}", ended.stdout, ended.stderr);
    assert!(ended.left.is_empty(), "{:?}", ended.left);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_killed_leaves_no_server_behind() {
    let mut prove = Program::start(&["prove", "--load=10m"]);
    prove.says("people are in").await;
    prove.kill_and_see_its_servers_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why() {
    assert_eq!(run(&["prove", "--clients=0"]).await.code, Some(2));
    assert_eq!(
        run(&["prove", "--rounds=0"]).await.code,
        Some(2),
        "without a fault there is nothing to prove"
    );
    let unreachable = run(&["prove", "--database=postgres://me:secret@127.0.0.1:1/x"]).await;
    assert_eq!(unreachable.code, Some(1));
    assert!(
        unreachable.stderr.contains("127.0.0.1:1") && !unreachable.stderr.contains("secret"),
        "{}",
        unreachable.stderr
    );
    assert!(unreachable.left.is_empty());
    for time in ["--load=0s", "--cut=0s", "--load=745h"] {
        assert_eq!(run(&["prove", time]).await.code, Some(2), "{time}");
    }
    let wrong = run(&["prove", "--database=mysql://me:secret@x"]).await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("postgres://") && !wrong.stderr.contains("secret"), "{}", wrong.stderr);
    assert!(wrong.left.is_empty());
}
