//! `imks bench` against servers that play along, servers that do not, and imks.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::database::{Database, Kind};
use crate::process::Server;
use crate::program::{Ended, Program, on_a_terminal, path, run};
use crate::target::{self, Fault};

async fn bench(url: &str, options: &[&str]) -> Ended {
    run(&[&["bench", url, "--json"], options].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_server_that_works_is_clean_and_what_was_not_measured_is_null() {
    let url = target::start(Fault::Nothing);
    for transport in ["websocket", "polling", "upgrade", "webtransport", "racing"] {
        let options = ["--clients=3", "--messages=20", "--window=4", "--transport", transport];
        let ended = bench(&url, &[&options[..], &["--danger-accept-invalid-certs"]].concat()).await;
        let found = ended.json();
        assert_eq!(ended.code, Some(0), "{found} {}", ended.stderr);
        assert_eq!((&found["sent"], &found["completed"]), (&60.into(), &60.into()));
        let faults = &found["faults"];
        assert_eq!([&faults["lost"], &faults["wrong"], &faults["out_of_order"]], [0, 0, 0], "{found}");
        assert_eq!(faults["duplicates"], Value::Null);
        assert!(found["notes"].to_string().contains("duplicates"), "{found}");
        assert!(found["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
        let carried = found["connections"]["by_transport"].as_object().unwrap();
        let expected: &[&str] = match transport {
            "upgrade" => &["websocket", "polling"],
            "racing" => &["websocket", "webtransport"],
            only => &[only],
        };
        assert!(carried.keys().all(|name| expected.contains(&&**name)), "{found}");
        assert_eq!(carried.values().filter_map(Value::as_u64).sum::<u64>(), 3, "{found}");
        assert!(ended.stderr.contains("imks bench: echo on http://127.0.0.1"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_without_http3_is_measured_on_its_port_and_its_danger_is_told_once() {
    let (url, port) = target::start_with_quic(Fault::Nothing);
    let port = format!("--quic-port={port}");
    let options =
        ["--clients=3", "--messages=20", "--transport=quic", &port, "--danger-accept-invalid-certs"];
    let ended = bench(&url, &options).await;
    let found = ended.json();
    assert_eq!((ended.code, &found["completed"]), (Some(0), &60.into()), "{found} {}", ended.stderr);
    assert_eq!(found["connections"]["by_transport"], serde_json::json!({ "quic": 3 }), "{found}");
    assert_eq!(ended.stderr.matches("anybody can pose").count(), 1, "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_during_the_warm_up_counts_nowhere_and_then_it_says_that_it_measures() {
    let url = target::start(Fault::Nothing);
    let cold = bench(&url, &["--clients=2", "--messages=20", "--warm-up=1h", "--duration=1h"]).await;
    let found = cold.json();
    assert_eq!((cold.code, &found["sent"], &found["completed"]), (Some(3), &0.into(), &0.into()), "{found}");
    assert!(!cold.stderr.contains("measuring"), "{}", cold.stderr);
    let warm = bench(&url, &["--clients=2", "--warm-up=100ms", "--duration=1s"]).await;
    assert_eq!(warm.code, Some(0), "{} {}", warm.stdout, warm.stderr);
    assert!(warm.json()["completed"].as_u64().unwrap() > 0);
    assert!(warm.stderr.lines().any(|line| line.ends_with("measuring")), "{}", warm.stderr);
    for refused in
        [&["--warm-up=1s"][..], &["--scenario=chat", "--development", "--warm-up=1s", "--duration=1s"]]
    {
        assert_eq!(bench(&url, refused).await.code, Some(2), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_wrongly_is_found_out() {
    let url = target::start(Fault::WrongAnswers);
    let ended = bench(&url, &["--clients=1", "--messages=20"]).await;
    assert_eq!((ended.code, &ended.json()["faults"]["wrong"]), (Some(3), &4.into()));
    assert_eq!(ended.json()["faults"]["out_of_order"], Value::Null, "with one at a time there is no order");
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_reach_every_member_of_their_room_and_no_other() {
    let url = target::start(Fault::Nothing);
    let whole = bench(&url, &["--scenario=broadcast", "--clients=6", "--messages=10", "--window=3"]).await;
    assert_eq!((whole.code, &whole.json()["completed"]), (Some(0), &60.into()), "{}", whole.stdout);
    let rooms = bench(&url, &["--scenario=rooms", "--clients=7", "--room-size=3", "--messages=10"]).await;
    let found = rooms.json();
    assert_eq!(
        (rooms.code, &found["sent"], &found["completed"]),
        (Some(0), &30.into(), &70.into()),
        "{found}"
    );
    assert_eq!(found["faults"]["duplicates"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_that_come_twice_or_never_are_counted() {
    let options = ["--scenario=broadcast", "--clients=3", "--messages=10", "--window=2", "--timeout=1s"];
    let doubled = bench(&target::start(Fault::Doubles), &options).await;
    assert_eq!(
        (doubled.code, &doubled.json()["faults"]["duplicates"]),
        (Some(3), &6.into()),
        "{}",
        doubled.stdout
    );
    let lost = bench(&target::start(Fault::Loses), &options).await;
    assert_eq!((lost.code, &lost.json()["faults"]["lost"]), (Some(3), &6.into()), "{}", lost.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_play_along_gets_a_hint() {
    let url = target::start(Fault::Ignorant);
    let options = ["--scenario=broadcast", "--clients=2", "--messages=2", "--timeout=500ms"];
    let ended = bench(&url, &options).await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.json()["notes"].to_string().contains("--help"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_and_timed() {
    let url = target::start(Fault::Nothing);
    let ended = bench(&url, &["--scenario=connect", "--clients=4", "--messages=5"]).await;
    let found = ended.json();
    assert_eq!(
        (ended.code, &found["completed"], &found["connections"]["joined"]),
        (Some(0), &20.into(), &20.into())
    );
    assert!(found["connections"]["connect_ms"]["max"].as_f64().unwrap() > 0.0);
    assert_eq!(found["message_bytes"], Value::Null, "nothing is sent but the handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_and_a_duration_ends_the_run() {
    let url = target::start(Fault::Nothing);
    let ended = bench(&url, &["--clients=4", "--rate=100", "--duration=2s"]).await;
    let (found, sent) = (ended.json(), ended.json()["sent"].as_u64().unwrap());
    assert_eq!(ended.code, Some(0), "{found}");
    assert!((150..=200).contains(&sent), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_come_back_and_lose_nothing_where_sessions_are_restored() {
    let url = target::start(Fault::Nothing);
    let options = [
        "--scenario=broadcast",
        "--clients=10",
        "--rate=50",
        "--duration=4s",
        "--window=64",
        "--chaos=500ms",
    ];
    let ended = bench(&url, &options).await;
    let found = ended.json();
    let connections = &found["connections"];
    assert!(connections["cuts"].as_u64().unwrap() >= 4, "{found}");
    assert!(connections["recovered"].as_u64().unwrap() > 0, "{found}");
    let share = connections["recovered_share"].as_f64().unwrap();
    assert!(share > 0.0 && share <= 1.0, "{found}");
    assert!(connections["away_ms"]["p50"].as_f64().unwrap() > 0.0, "{found}");
    assert_eq!([&found["faults"]["duplicates"], &found["faults"]["out_of_order"]], [0, 0], "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_findings_are_there_for_prometheus_and_as_a_page() {
    let (url, directory) = (target::start(Fault::Nothing), TempDir::new().unwrap());
    let report = path(&directory, "report.html");
    let ended = run(&["bench", &url, "--messages=10", "--prometheus", "--report", &report]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let completed = "imks_bench_completed{scenario=\"echo\",transport=\"websocket\"} 100";
    assert!(ended.stdout.lines().any(|line| line == completed), "{}", ended.stdout);
    let page = std::fs::read_to_string(&report).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_there_is_a_status_a_summary_and_a_picture() {
    let url = target::start(Fault::Nothing);
    let (code, text) = on_a_terminal(&["bench", &url, "--clients=2", "--rate=50", "--duration=1s"]).await;
    assert_eq!(code, Some(0), "{text}");
    for wanted in ["\r\u{1b}[2K", "per second", "clean", "p95", "█"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_run_and_its_summary_is_still_there() {
    let url = target::start(Fault::Nothing);
    let mut bench = Program::start(&["bench", &url, "--json", "--rate=20", "--duration=10m"]);
    bench.says(" answers, ").await;
    bench.interrupt().await;
    let ended = bench.ended().await;
    let found = ended.json();
    assert_eq!((ended.code, &found["is_interrupted"]), (Some(0), &true.into()), "{found}");
    assert!(!ended.stderr.contains('\u{1b}'), "no terminal, no escapes: {}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_ends_a_run_of_the_largest_events_at_once() {
    let url = target::start(Fault::Ignorant);
    let size = "--message-size=16777216";
    let mut bench =
        Program::start(&["bench", &url, "--scenario=broadcast", "--clients=2", size, "--timeout=10m"]);
    bench.says(" deliveries, ").await;
    bench.interrupt().await;
    bench.says("ending: ").await;
    let begun = std::time::Instant::now();
    bench.interrupt().await;
    let ended = bench.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(ended.code, Some(1), "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("second Ctrl-C") && ended.stdout.is_empty(), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_measured_nothing_is_no_success() {
    let url = target::start(Fault::Nothing);
    let ended = run(&["bench", &url, "--clients=2", "--messages=0", "--chaos=10m"]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stdout.contains("NOTHING WAS MEASURED"), "{}", ended.stdout);
    assert!(ended.stdout.contains("no connection was cut"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_written_is_told_before_anything_is_measured() {
    let directory = TempDir::new().unwrap();
    let report = path(&directory, "missing/report.html");
    let ended = bench("http://127.0.0.1:1", &["--clients=1", "--duration=10m", "--report", &report]).await;
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    assert!(
        ended.stderr.contains("report.html") && !ended.stderr.contains("imks bench: "),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why() {
    let refused = run(&["bench", "http://127.0.0.1:1", "--clients=1"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("127.0.0.1:1") && refused.stderr.contains("refused"),
        "{}",
        refused.stderr
    );
    assert_eq!(run(&["bench"]).await.code, Some(2));
    let many = run(&["bench", "http://192.0.2.1", "--clients=10001"]).await;
    assert_eq!(many.code, Some(1));
    assert!(many.stderr.contains("--yes"), "{}", many.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_cannot_be_meant_end_with_2_before_anything_is_done() {
    for (options, word) in [
        (&["--message-size=99999999999", "--messages=2"][..], "16777216"),
        (&["--message-size=300000000", "--clients=1"], "16777216"),
        (&["--clients=4294967295"], "1000000"),
        (&["--timeout=0s"], "above 0"),
        (&["--duration=0s"], "above 0"),
        (&["--chaos=0s"], "above 0"),
        (&["--rolling"], "--scenario chat"),
        (&["--scenario=chat"], "--development"),
        (&["--scenario=missing.toml", "--messages=20"], "--messages"),
        (&["--quic-port=4433"], "--transport quic"),
    ] {
        let ended = run(&[&["bench", "http://127.0.0.1:1"][..], options].concat()).await;
        assert_eq!(ended.code, Some(2), "{options:?} {}", ended.stderr);
        assert!(ended.stderr.contains(word) && ended.stdout.is_empty(), "{options:?} {}", ended.stderr);
    }
    let secure = run(&["bench", "https://127.0.0.1:1", "--chaos"]).await;
    assert!(secure.code == Some(2) && secure.stderr.contains("TLS"), "{}", secure.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_used_ends_with_78_and_its_password_is_not_shown() {
    for address in
        ["chat.example", "http://chat.example:99999", "http://u:geheim@chat.example", "u:geheim@chat.example"]
    {
        let ended = run(&["bench", address]).await;
        assert_eq!(ended.code, Some(78), "{address} {}", ended.stderr);
        assert!(ended.stderr.contains("chat.example"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("geheim") && !ended.stderr.contains(":80"), "{}", ended.stderr);
    }
    let unreachable = run(&["bench", "http://127.0.0.1:1/?token=geheim", "--clients=1"]).await;
    assert_eq!(unreachable.code, Some(1));
    assert!(!unreachable.stderr.contains("geheim"), "{}", unreachable.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_empty_or_not_text_ends_with_78_and_its_name() {
    let directory = TempDir::new().unwrap();
    let (empty, binary) = (path(&directory, "empty"), path(&directory, "binary.toml"));
    std::fs::write(&empty, "\n \n").unwrap();
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    for (options, word) in [
        (["--token-file", &*empty], "no token"),
        (["--token-file", "/missing/tokens"], "/missing/tokens"),
        (["--scenario", &*binary], "UTF-8"),
        (["--scenario", "/missing/scenario.toml"], "/missing/scenario.toml"),
    ] {
        let ended = run(&[&["bench", "http://127.0.0.1:1"][..], &options].concat()).await;
        assert_eq!(ended.code, Some(78), "{options:?} {}", ended.stderr);
        assert!(ended.stderr.contains(word), "{options:?} {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_imks_are_written_read_and_found_in_the_history() {
    let database = Database::create(Kind::Sqlite).without_rate_limits();
    let server = Server::start(&database);
    let arguments = [
        "bench",
        &server.url(),
        "--json",
        "--scenario=chat",
        "--development",
        "--clients=3",
        "--messages=15",
    ];
    let ended = Program::start_with(&arguments, &database.environment()).ended().await;
    let found = ended.json();
    assert_eq!(ended.code, Some(0), "{found} {}", ended.stderr);
    assert_eq!((&found["sent"], &found["completed"]), (&45.into(), &45.into()), "{found}");
    assert_eq!([&found["faults"]["lost"], &found["faults"]["duplicates"]], [0, 0], "{found}");
    assert!(found["delivery_ms"]["p50"].as_f64().unwrap() > 0.0, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_measures_imks_as_another_server_is_told_what_to_do_and_who_measures_its_limits_that_they_do() {
    let database = Database::create(Kind::Sqlite);
    let server = Server::start(&database);
    let url = server.url();
    let bare = run(&["bench", &url, "--clients=1"]).await;
    assert_eq!(bare.code, Some(1));
    assert!(bare.stderr.contains("--token") && bare.stderr.contains("--development"), "{}", bare.stderr);
    let imks = async |options: &[&str]| {
        let base = ["bench", &*url, "--json", "--development", "--clients=1"];
        let arguments = [&base[..], options].concat();
        let ended = Program::start_with(&arguments, &database.environment()).ended().await;
        (ended.code, ended.json()["notes"].to_string())
    };
    let (code, notes) = imks(&["--messages=3"]).await;
    assert_eq!(code, Some(3));
    assert!(notes.contains("unknown_event") && notes.contains("--scenario chat"), "{notes}");
    let (code, notes) = imks(&["--scenario=chat", "--messages=13"]).await;
    assert_eq!(code, Some(0));
    assert!(notes.contains("refused with rate_limited") && notes.contains("--rate"), "{notes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_under_the_eyes_of_bench_has_lost_nothing() {
    let database = Database::create(Kind::Sqlite).without_rate_limits();
    let mut server = Server::start(&database);
    let arguments =
        ["bench", &server.url(), "--json", "--scenario=chat", "--development", "--rolling", "--rate=100"];
    let mut bench = Program::start_with(&arguments, &database.environment());
    bench.says("have joined").await;
    for number in 1..=2 {
        tokio::task::block_in_place(|| match number {
            1 => server.drain_and_restart(&database),
            _ => server.kill_and_restart(&database),
        });
        bench.says(&format!("absence {number}: all are back")).await;
    }
    bench.interrupt().await;
    let ended = bench.ended().await;
    let found = ended.json();
    assert_eq!(ended.code, Some(0), "{found} {}", ended.stderr);
    assert!(found["connections"]["disconnects"].as_u64().unwrap() >= 20, "{found}");
    assert_eq!(found["faults"]["lost"], 0, "{found}");
    assert!(found["notes"].to_string().contains("clients were away 2 times"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_imks_whose_connections_are_cut_continue_and_the_report_counts_them() {
    let database = Database::create(Kind::Sqlite).without_rate_limits();
    let server = Server::start(&database);
    let url = server.url();
    let chaos = ["bench", &url, "--json", "--scenario=chat", "--development", "--clients=6", "--rate=60"];
    let arguments = [&chaos[..], &["--duration=4s", "--chaos=500ms"]].concat();
    let ended = Program::start_with(&arguments, &database.environment()).ended().await;
    let (found, connections) = (ended.json(), &ended.json()["connections"]);
    assert_eq!(ended.code, Some(0), "{found} {}", ended.stderr);
    let [lost, recovered, renewed] =
        ["disconnects", "recovered", "renewed"].map(|name| connections[name].as_u64().unwrap());
    assert!(lost >= 4 && recovered + renewed == lost, "all came back: {found}");
    assert!(recovered > renewed, "most continue: {found}");
    assert_eq!([&found["faults"]["lost"], &found["faults"]["duplicates"]], [0, 0], "{found}");
}

/// Writes a scenario with this text, and returns its file.
fn scenario(directory: &TempDir, text: &str) -> String {
    let file = path(directory, "scenario.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_scenario_runs_and_every_phase_is_told() {
    let url = target::start(Fault::Nothing);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bench.toml");
    let ended = bench(&url, &["--scenario", file, "--clients=8"]).await;
    let found = ended.json();
    assert_eq!((ended.code, &found["scenario"]), (Some(0), &"file".into()), "{found} {}", ended.stderr);
    let phases = found["phases"].as_array().unwrap();
    let of = |name: &str| phases.iter().map(|phase| phase[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["enter", "talk", "send pictures"]);
    assert_eq!(of("failed_rounds"), [0, 0, 0]);
    assert_eq!((&phases[0]["rounds"], &phases[0]["completed"]), (&8.into(), &8.into()), "{found}");
    let talked = phases[1]["rounds"].as_u64().unwrap();
    assert!((200..=300).contains(&talked), "a hundred per second for three: {found}");
    assert_eq!((&phases[2]["rounds"], &phases[2]["completed"]), (&24.into(), &24.into()), "{found}");
    assert!(phases[2]["latency_ms"]["p50"].as_f64().unwrap() > 0.0, "{found}");
    let text = run(&["bench", &url, "--scenario", file, "--clients=2"]).await;
    assert!(text.stdout.contains("send pictures: 6 rounds in"), "{}", text.stdout);
    assert!(text.stderr.contains("phase talk"), "{}", text.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_ends_its_round_and_the_run_with_3() {
    let directory = TempDir::new().unwrap();
    let file = scenario(
        &directory,
        r#"
        [connect]
        clients = 2
        [[phase]]
        name = "in vain"
        rounds = 3
        steps = [
            { ack = "echo", bytes = 8 },
            { expect = "never", within = "50ms" },
            { ack = "echo", bytes = 8 },
        ]"#,
    );
    let ended = bench(&target::start(Fault::Nothing), &["--scenario", &file]).await;
    let found = ended.json();
    assert_eq!((ended.code, &found["faults"]["lost"]), (Some(3), &6.into()), "{found}");
    assert_eq!(
        (&found["phases"][0]["failed_rounds"], &found["completed"]),
        (&6.into(), &6.into()),
        "{found}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_expects_what_it_has_sent_itself_is_not_content_with_that_of_others() {
    let directory = TempDir::new().unwrap();
    let file = scenario(
        &directory,
        r#"
        [connect]
        clients = 5
        [[phase]]
        name = "all in one room"
        rounds = 10
        steps = [
            { join = "room" },
            { emit = "broadcast", args = ["$room", "$text"], bytes = 64 },
            { expect = "msg", own = true, within = "500ms" },
        ]"#,
    );
    let whole = bench(&target::start(Fault::Nothing), &["--scenario", &file]).await;
    assert_eq!((whole.code, &whole.json()["completed"]), (Some(0), &50.into()), "{}", whole.stdout);
    let lossy = bench(&target::start(Fault::Loses), &["--scenario", &file]).await;
    assert_eq!((lossy.code, &lossy.json()["faults"]["lost"]), (Some(3), &10.into()), "{}", lossy.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_with_a_mistake_is_refused_with_its_line() {
    let directory = TempDir::new().unwrap();
    let file = scenario(&directory, "[connect]\nclients = 2\nspeed = 3\n");
    let ended = run(&["bench", "http://127.0.0.1:1", "--scenario", &file]).await;
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("scenario.toml:3: ") && ended.stderr.contains("`per_second`"),
        "{}",
        ended.stderr
    );
    let both = run(&["bench", "http://127.0.0.1:1", "--scenario", &file, "--messages=3"]).await;
    assert!(both.code == Some(2) && both.stderr.contains("--messages"), "{}", both.stderr);
    let unknown = run(&["bench", "http://127.0.0.1:1", "--scenario", "dance"]).await;
    assert!(unknown.code == Some(2) && unknown.stderr.contains("broadcast"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_entered_again_where_a_session_is_not_restored() {
    let directory = TempDir::new().unwrap();
    let file = scenario(
        &directory,
        r#"
        [connect]
        clients = 4
        [[phase]]
        name = "enter"
        rounds = 1
        steps = [{ join = "room" }]
        [[phase]]
        name = "stay"
        duration = "3s"
        think = "20ms"
        steps = [
            { emit = "broadcast", args = ["$room", "$text"], bytes = 64 },
            { expect = "msg", own = true, within = "5s" },
        ]"#,
    );
    let url = target::start(Fault::Forgets);
    let ended = bench(&url, &["--scenario", &file, "--chaos=400ms"]).await;
    let found = ended.json();
    assert!(found["connections"]["renewed"].as_u64().unwrap() > 0, "{found}");
    assert_eq!((ended.code, &found["faults"]["lost"]), (Some(0), &0.into()), "{found}");
}
