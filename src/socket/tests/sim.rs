//! A simulated cluster in one process: everything that happens to it follows from a seed.
//!
//! `SEEDS=5000 make sim` goes through more seeds; `SEEDS=17..18` through one. A seed that failed belongs into
//! `sim/seeds.txt`, whose lines are played first.
//!
//! What is random in the servers stays out of the trace (ids, the order in hash maps) or out of what can happen at one time.
//! One source is left: of several tasks that wait for one `watch`, tokio wakes any one first. Where a client and a copy of it
//! wait on one node for what that has written, two traces may differ: about one seed of a hundred and fifty with a log.

mod client;
mod exam;
mod logged;
mod observer;
mod plain;
mod questions;
mod scenario;
mod world;

use std::ops::Range;
use std::time::Duration;

use self::scenario::{Kind, Scenario};
use self::world::World;
use crate::socket::metrics;

/// What was seen of a scenario: its trace, and what was wrong.
struct Seen {
    trace: Vec<String>,
    wrong: Vec<String>,
}

fn play(scenario: Scenario) -> Seen {
    let before = gauges();
    let mut seen = play_alone(scenario);
    // Other tests have a process of their own with nextest only.
    if std::env::var_os("NEXTEST").is_some() && gauges() != before {
        seen.wrong.push(format!("the gauges are {:?}, not {before:?}", gauges()));
    }
    seen
}

/// Returns the gauges of all servers of this process.
fn gauges() -> [i64; 2] {
    [metrics::SOCKETS.of(metrics::Path::Main).get(), metrics::RECOVERY_AWAY.get()]
}

fn play_alone(scenario: Scenario) -> Seen {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(scenario);
        world.play().await;
        world.examine().await;
        let observer = world.observer.lock();
        Seen { trace: observer.trace(), wrong: observer.wrong.clone() }
    })
}

/// Leaves out of a scenario in which something is wrong what does not matter for that.
fn shrink(mut scenario: Scenario) -> Scenario {
    let mut size = scenario.steps.len() / 2;
    while size > 0 {
        for start in (0..scenario.steps.len()).step_by(size).rev() {
            let mut fewer = scenario.clone();
            let end = (start + size).min(fewer.steps.len());
            let pause = fewer.steps.drain(start..end).map(|(pause, _)| pause).sum::<Duration>();
            // What follows happens at the same time as before.
            fewer.steps.get_mut(start).into_iter().for_each(|(before, _)| *before += pause);
            if !play(fewer.clone()).wrong.is_empty() {
                scenario = fewer;
            }
        }
        size /= 2;
    }
    scenario
}

/// Plays a seed twice. Returns what is wrong with it.
fn try_seed(kind: Kind, seed: u64) -> Result<(), String> {
    let scenario = Scenario::new(kind, seed);
    let (first, second) = (play(scenario.clone()), play(scenario));
    if let Some(wrong) = first.wrong.first() {
        return Err(format!("{kind:?} {seed}: {wrong}"));
    }
    let differs = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
    match differs.or_else(|| {
        (first.trace.len() != second.trace.len()).then(|| first.trace.len().min(second.trace.len()))
    }) {
        None => Ok(()),
        Some(at) => {
            let end = |trace: &[String]| {
                trace.iter().skip(at.saturating_sub(3)).take(6).cloned().collect::<Vec<_>>().join("\n")
            };
            Err(format!("{}\nor\n{}\n{kind:?} {seed}: two traces", end(&first.trace), end(&second.trace)))
        }
    }
}

/// Returns the seeds to play: those that failed once, then those of `SEEDS`, or a hundred.
fn seeds(kind: Kind) -> impl Iterator<Item = u64> {
    let kept = include_str!("sim/seeds.txt").lines().filter_map(move |line| {
        let (name, rest) = line.split_once(' ')?;
        let seed = rest.split(' ').next()?.parse().ok()?;
        (name == format!("{kind:?}").to_lowercase()).then_some(seed)
    });
    kept.chain(range(&std::env::var("SEEDS").unwrap_or_default()))
}

/// Reads a number of seeds, or a range of them.
fn range(text: &str) -> Range<u64> {
    match text.split_once("..") {
        Some((first, end)) => first.parse().unwrap()..end.parse().unwrap(),
        None => 0..text.parse().unwrap_or(200),
    }
}

fn simulate(kind: Kind) {
    let try_it = |seed| {
        let wrong = try_seed(kind, seed).err()?;
        println!("{wrong}");
        Some((seed, wrong))
    };
    let failed: Vec<(u64, String)> = seeds(kind).filter_map(try_it).collect();
    let Some((first, _)) = failed.first() else { return };
    let trace = play(shrink(Scenario::new(kind, *first))).trace.join("\n");
    let summary: Vec<&str> = failed.iter().map(|(_, wrong)| wrong.as_str()).collect();
    panic!(
        "The first one, with the steps that matter:\n{trace}\n{} failed:\n{}",
        failed.len(),
        summary.join("\n")
    );
}

#[test]
fn over_the_bus_alone_nothing_comes_twice_or_late_or_to_others_and_after_the_faults_all_nodes_agree() {
    simulate(Kind::Plain);
}

#[test]
fn through_the_log_clients_get_exactly_what_is_theirs_whatever_happens_to_nodes_bus_and_log() {
    simulate(Kind::Logged);
}
