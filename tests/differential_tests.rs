//! imks beside the reference server: what a client can tell apart is what docs/compatibility.md lists, and no more.
//!
//! `make test` installs the reference. The rows are in tests/differential/rows.txt.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "differential/application.rs"]
mod application;
#[path = "differential/exchange.rs"]
mod exchange;
#[allow(dead_code, reason = "shared with architecture_tests, which uses all of it")]
#[path = "architecture/markdown.rs"]
mod markdown;
#[path = "differential/player.rs"]
mod player;
#[path = "differential/rows.rs"]
mod rows;
#[allow(dead_code, reason = "shared with client_tests")]
#[path = "client/script.rs"]
mod script;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

use application::{HASTY, LONG, MANY, PATIENT, SLOW_MS};
use futures_util::future::join_all;
use player::Player;
use rows::{Row, rows};
use script::Script;
use serde_json::Value;
use tokio::sync::Semaphore;

const TABLE: &str = include_str!("../docs/compatibility.md");
/// Rows under way at once: enough to be fast, few enough that no deadline is missed.
const AT_ONCE: usize = 24;
/// How often a row with an unknown difference is played.
const ATTEMPTS: usize = 3;

/// Row, step, what the reference does, what imks does: as the table has them.
type Difference = [String; 4];

/// What both did, in the same steps.
struct Played {
    row: Row,
    reference: Vec<(String, String)>,
    ours: Vec<(String, String)>,
}

#[test]
fn a_client_sees_no_difference_to_the_reference_but_the_listed_ones() {
    let (long, many, slow) = (LONG.to_string(), MANY.to_string(), SLOW_MS.to_string());
    let (patient, hasty) = (PATIENT.options(), HASTY.options());
    let environment =
        [("PATIENT", &*patient), ("HASTY", &*hasty), ("LONG", &*long), ("MANY", &*many), ("SLOW_MS", &*slow)];
    let mut reference = Script::start("reference.js", &environment);
    let ports = reference.hears(|line| line["patient"].is_u64());
    is_what_the_table_says(&ports["versions"]);
    let listed = listed();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let played = runtime.block_on(async {
        let ours = [PATIENT.serve().await, HASTY.serve().await];
        let theirs = ["patient", "hasty"].map(|name| local(&ports[name]));
        let turns = Semaphore::new(AT_ONCE);
        let play_in_turn = async |row| {
            let _turn = turns.acquire().await;
            play(row, theirs, ours, &listed).await
        };
        join_all(rows().into_iter().map(play_in_turn)).await
    });
    reference.tell("stop");
    reference.done();
    if std::env::var_os("IMKS_SHOW_TRANSCRIPTS").is_some() {
        let mut all = String::new();
        played.iter().for_each(|it| it.complain(&it.differences(), &mut all));
        panic!("{all}");
    }
    compare(&played, &listed);
}

#[test]
fn an_event_of_the_connect_handler_is_acked_before_the_poll_ends_for_the_upgrade() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = runtime.block_on(PATIENT.serve());
    Script::run("connect_handler.js", &[("URL", &format!("http://{address}"))]);
}

/// What was installed is what docs/compatibility.md was compared with.
fn is_what_the_table_says(versions: &Value) {
    for (name, version) in versions.as_object().expect("the reference says what it is") {
        let said = format!("{name} {}", version.as_str().unwrap_or_default());
        assert!(
            TABLE.contains(&said),
            "the reference is {said} now: look at its changes, correct the table and then the version in \
             docs/compatibility.md"
        );
    }
}

/// Where the machine was too busy for a deadline, another attempt shows what is always so.
async fn play(
    row: Row,
    theirs: [SocketAddr; 2],
    ours: [SocketAddr; 2],
    listed: &BTreeSet<Difference>,
) -> Played {
    let server = usize::from(row.hasty);
    let (theirs, ours) = (theirs[server], ours[server]);
    let mut played = Played { row, reference: vec![], ours: vec![] };
    for _ in 0..ATTEMPTS {
        (played.reference, played.ours) = tokio::join!(notes(&played.row, theirs), notes(&played.row, ours));
        if played.differences().iter().all(|it| listed.contains(it) || general(it, listed).is_some()) {
            break;
        }
    }
    played
}

async fn notes(row: &Row, address: SocketAddr) -> Vec<(String, String)> {
    let mut player = Player::new(address);
    for step in &row.steps {
        player.step(step).await;
    }
    player.notes
}

fn compare(played: &[Played], listed: &BTreeSet<Difference>) {
    let mut complaint = String::new();
    let mut found = BTreeSet::new();
    for it in played {
        it.began_well();
        let differences: Vec<Difference> =
            it.differences().into_iter().map(|found| general(&found, listed).unwrap_or(found)).collect();
        if differences.iter().any(|difference| !listed.contains(difference)) {
            it.complain(&differences, &mut complaint);
        }
        found.extend(differences);
    }
    for gone in listed.difference(&found) {
        writeln!(complaint, "\nlisted, but no difference any more:\n  {}", gone.join(" | ")).unwrap();
    }
    assert!(
        complaint.is_empty(),
        "imks and the reference differ otherwise than docs/compatibility.md says. Make imks do the same, or add \
         the line with the reason why it should not.\n{complaint}"
    );
}

/// The line that lists a difference for whatever row it occurs in.
fn general(found: &Difference, listed: &BTreeSet<Difference>) -> Option<Difference> {
    let [_, _, reference, ours] = found.clone();
    let general = ["any".into(), "any".into(), reference, ours];
    listed.contains(&general).then_some(general)
}

impl Played {
    /// A row that does not come to its point compares nothing.
    fn began_well(&self) {
        for (step, told) in &self.reference {
            if matches!(step.as_str(), r#"until 42["auth""# | r#"poll 42["auth""# | "until 3probe") {
                let wanted = step.split_once(' ').expect("two words").1;
                assert!(told.contains(wanted), "{}: {step}: {told}", self.row.name);
            }
        }
    }

    fn differences(&self) -> Vec<Difference> {
        let last = self.reference.len().max(self.ours.len());
        let nothing = (String::new(), String::new());
        let pairs = (0..last).map(|at| {
            let of = |notes: &[(String, String)]| notes.get(at).unwrap_or(&nothing).clone();
            (of(&self.reference), of(&self.ours))
        });
        pairs
            .filter(|(reference, ours)| reference != ours)
            .map(|((step, reference), (_, ours))| {
                [self.row.name.clone(), step, reference, ours].map(|it| cell(&it))
            })
            .collect()
    }

    fn complain(&self, differences: &[Difference], complaint: &mut String) {
        writeln!(complaint, "\n{}", self.row.name).unwrap();
        for (who, notes) in [("reference", &self.reference), ("imks", &self.ours)] {
            writeln!(complaint, "  {who}").unwrap();
            for (step, told) in notes {
                writeln!(complaint, "    {step:40.60}  {told:.400}").unwrap();
            }
        }
        for difference in differences {
            let cells = difference.iter().skip(1).map(|it| format!("`{it}`")).collect::<Vec<_>>();
            writeln!(complaint, "  | {} | {} | WHY |", difference[0], cells.join(" | ")).unwrap();
        }
    }
}

/// The table of docs/compatibility.md, without the reasons.
fn listed() -> BTreeSet<Difference> {
    let section =
        markdown::section(TABLE, "differences").expect("docs/compatibility.md has `<!-- differences`");
    let rows = markdown::table(section).into_iter().map(|row| {
        let [name, step, reference, ours, why] = row.try_into().expect("five columns");
        assert!(!why.is_empty(), "{name}: no reason");
        [name, step, reference, ours].map(|it| it.replace('`', ""))
    });
    rows.collect()
}

/// As it stands in a table.
fn cell(text: &str) -> String {
    text.replace('|', "/").replace('`', "'").replace('\x1e', " ").trim().to_owned()
}

fn local(port: &Value) -> SocketAddr {
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    (Ipv4Addr::LOCALHOST, port).into()
}
