//! A rolling restart: three nodes behind a balancer are told to end and started again, one after the other, while people
//! talk. Nothing is lost or doubled, nobody is away for long, their sessions continue, and they come back to both of the others,
//! not all at once.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::balancer::{Balancer, Front, Rule};
use crate::broker::{Broker, Kind};
use crate::npm;
use crate::process::{Process, acquainted, http, imks};
use crate::script::Script;

/// What the nodes are called.
const NAMES: [&str; 3] = ["one", "two", "three"];
/// How many users the clients are of.
const USERS: usize = 5;
/// Messages that are acknowledged before the next node ends, at least.
const ACKS: u64 = 60;
/// The promise: how long a client is away.
const AWAY_MS: f64 = 2_000.0;
/// How much longer that may be on a machine that runs other tests beside this one.
const BUSY_MS: f64 = 1_500.0;
/// The settings of a node: readiness fails for a while before sessions end, as behind every balancer.
const SETTINGS: [(&str, &str); 7] = [
    ("IMKS_DRAIN_DELAY", "1s"),
    ("IMKS_DRAIN_DEADLINE", "15s"),
    ("IMKS_LIMIT_CONNECTS", "off"),
    ("IMKS_LIMIT_EVENTS", "off"),
    ("IMKS_LIMIT_SENDS", "off"),
    ("IMKS_LIMIT_SENDS_PER_CHANNEL", "off"),
    ("IMKS_LIMIT_SESSIONS_PER_USER", "0"),
];

fn restart_one_after_the_other(kind: Kind) {
    let told =
        restart_behind(kind, &[], async |nodes| Balancer::start_checking(nodes, Rule::RoundRobin).await);
    // It forgets at once that a node was away, as others do not.
    for (ended, moved) in moves(&told).into_iter().filter(|(_, moved)| moved.len() >= 6) {
        for other in NAMES.into_iter().filter(|name| *name != ended) {
            let share = moved.iter().filter(|absence| absence["to"] == other).count();
            assert!(share * 5 >= moved.len(), "{share} of {} came back to {other}", moved.len());
        }
    }
}

/// Restarts the nodes behind a balancer, with further settings. Returns what the clients have seen.
pub fn restart_behind<F: Front>(
    kind: Kind,
    more: &[(&str, &str)],
    balance: impl AsyncFnOnce(Vec<SocketAddr>) -> F,
) -> Value {
    npm::build();
    let runtime = Runtime::new().unwrap();
    let (broker, database) = runtime.block_on(async {
        let broker = Broker::shared(kind).await;
        let database = match &broker.database {
            Some(url) => url.clone(),
            None => crate::postgres::create().await,
        };
        (broker, database)
    });
    let settings = [&SETTINGS, more].concat();
    let mut nodes = NAMES.map(|name| Process::start(&broker, &database, name, &settings));
    let addresses: Vec<_> = nodes.iter().map(|node| node.addr).collect();
    let balancer = runtime.block_on(async {
        acquainted(&addresses).await;
        balance(addresses.clone()).await
    });
    let token = |n: usize| {
        let token = imks(&broker, &database).args(["token", &format!("user{n}")]).output().unwrap();
        String::from_utf8(token.stdout).unwrap().trim().to_owned()
    };
    let tokens = (0..USERS).map(token).collect::<Vec<_>>().join(",");
    let mut script = Script::start("rolling.js", &[("URL", &*balancer.url()), ("TOKENS", &tokens)]);
    script.hears(|line| line["ready"] == true);
    let mut acked = 0;
    for node in &mut nodes {
        acked = some_more(&mut script, acked);
        node.drain();
        acked = some_more(&mut script, acked);
        node.start_again();
        runtime.block_on(ready(node));
        runtime.block_on(acquainted(&addresses));
    }
    some_more(&mut script, acked);
    script.tell("finish");
    let told = script.done();
    judge(&told);
    told
}

/// The absences, by the node that had ended.
fn moves(told: &Value) -> Vec<(&'static str, Vec<&Value>)> {
    let absences = told["absences"].as_array().unwrap();
    let from =
        |ended: &'static str| (ended, absences.iter().filter(|absence| absence["from"] == ended).collect());
    NAMES.into_iter().map(from).collect()
}

/// Waits until so many more messages are acknowledged.
fn some_more(script: &mut Script, acked: u64) -> u64 {
    let line = script.hears(|line| line["acked"].as_u64() >= Some(acked + ACKS));
    line["acked"].as_u64().unwrap()
}

async fn ready(node: &Process) {
    while http(node.addr, "GET", "/health/ready", "").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Who was away, for how long, and where they came back to.
fn judge(told: &Value) {
    let absences = told["absences"].as_array().unwrap();
    let clients = told["clients"].as_u64().unwrap() as usize;
    assert!(absences.len() >= clients, "each client was on some node: {absences:?}");
    let longest = absences.iter().max_by(|a, b| ms(a, "ms").total_cmp(&ms(b, "ms"))).unwrap();
    assert!(ms(longest, "ms") < AWAY_MS + BUSY_MS, "{longest}");
    let new: Vec<&Value> = absences.iter().filter(|absence| absence["resumed"] != true).collect();
    assert!(new.len() * 10 <= absences.len(), "nodes hand their sessions over, but for {new:?}");
    for (ended, moved) in moves(told) {
        assert!(!moved.is_empty(), "nobody was on {ended}");
        if moved.len() < 6 {
            continue;
        }
        for other in NAMES.into_iter().filter(|name| *name != ended) {
            let is_chosen = moved.iter().any(|absence| absence["to"] == other);
            // So many do not all come to one of two by chance.
            assert!(is_chosen || moved.len() < 12, "nobody of {} came back to {other}", moved.len());
        }
        let mut back: Vec<f64> = moved.iter().map(|absence| ms(absence, "at") + ms(absence, "ms")).collect();
        back.sort_by(f64::total_cmp);
        let middle = back[back.len() * 3 / 4] - back[back.len() / 4];
        assert!(middle > 50.0, "half of those on {ended} came back within {middle} ms");
    }
}

fn ms(absence: &Value, field: &str) -> f64 {
    absence[field].as_f64().unwrap()
}

#[test]
fn a_rolling_restart_under_load_loses_and_doubles_nothing_and_nobody_is_away_for_long_with_redis() {
    restart_one_after_the_other(Kind::Redis);
}

#[test]
fn a_rolling_restart_under_load_loses_and_doubles_nothing_and_nobody_is_away_for_long_with_nats() {
    restart_one_after_the_other(Kind::Nats);
}

#[test]
fn a_rolling_restart_under_load_loses_and_doubles_nothing_and_nobody_is_away_for_long_with_postgres() {
    restart_one_after_the_other(Kind::Postgres);
}
