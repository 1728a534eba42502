//! What `imks prove` found: a table for people, one JSON document for programs, and whether the promise was kept.

use std::fmt::Write;

use serde::Serialize;

use super::super::bench::chat::ledger::Verdict;
use super::super::bench::picture::short;

/// The findings of a proof.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Proof {
    /// The version of imks that was tried.
    pub(super) version: &'static str,
    /// The database of the server, without credentials.
    pub(super) database: String,
    pub(super) clients: usize,
    pub(super) seconds: f64,
    /// Whether Ctrl-C ended it before all faults were tried: then nothing is proven.
    pub(super) is_interrupted: bool,
    pub(super) verdict: Verdict,
    pub(super) faults: Vec<Fault>,
    /// What was not tried, and why.
    pub(super) not_tried: Vec<String>,
    /// Whether the promise was kept.
    pub(super) is_kept: bool,
}

/// Something that was done to the server, and how it came back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Fault {
    /// `kill -9`, or `database cut`.
    pub(super) kind: &'static str,
    /// Messages that were acknowledged before it.
    pub(super) acknowledged_before: u64,
    /// The time from the fault until the server listened again, or the database could be reached again.
    pub(super) repaired_ms: f64,
    /// The time from the fault until the next message was acknowledged; absent if none was within a minute.
    pub(super) back_ms: Option<f64>,
}

impl Proof {
    /// Decides whether the promise was kept: nothing acknowledged was lost, doubled or out of order, nothing was refused
    /// for good, the server came back from each fault, and something was acknowledged and seen at all. The last does
    /// not matter where Ctrl-C ended it, because nothing is proven then.
    pub(super) fn decide(mut self) -> Self {
        let came_back = self.faults.iter().all(|fault| fault.back_ms.is_some());
        let verdict = &self.verdict;
        let was_tried = self.is_interrupted || (verdict.acknowledged > 0 && verdict.seen_live > 0);
        self.is_kept = verdict.is_kept() && verdict.refused == 0 && came_back && was_tried;
        self
    }

    /// Returns the findings for people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("imks prove: {}\n", self.sentence());
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<20}{value}");
        };
        let verdict = &self.verdict;
        let unasked = verdict.unacknowledged_in_history;
        row("database", self.database.clone());
        row("acknowledged", format!("{} of {} sent", verdict.acknowledged, verdict.sent));
        row(
            "in the history",
            format!("{}, {unasked} of them without an acknowledgement", verdict.in_history),
        );
        row("lost", verdict.lost.to_string());
        row("doubled", verdict.doubled.to_string());
        row("out of order", verdict.out_of_order.to_string());
        row("other number", verdict.moved.to_string());
        row("holes", verdict.holes.to_string());
        let Verdict { seen_live, live_doubled, live_out_of_order, .. } = verdict;
        row(
            "seen live",
            format!("{seen_live}, {live_doubled} of them doubled, {live_out_of_order} out of order"),
        );
        row(
            "refused",
            format!("{} (retryable, sent again), {} for good", verdict.refused_retryable, verdict.refused),
        );
        self.faults.iter().for_each(|fault| row(fault.kind, fault.text()));
        self.not_tried.iter().for_each(|why| row("not tried", why.clone()));
        verdict.examples.iter().for_each(|example| row("message", example.clone()));
        text.trim_end().to_owned()
    }

    fn sentence(&self) -> &'static str {
        match (self.is_kept, self.is_interrupted) {
            (true, false) => {
                "the promise was kept: what was acknowledged is in the history, once and in order"
            }
            (true, true) => "ended early: nothing is wrong so far, and nothing is proven",
            (false, _) if self.verdict.acknowledged == 0 => "nothing was acknowledged, so nothing is proven",
            (false, _) if self.verdict.is_kept() && self.verdict.seen_live == 0 => {
                "no reader saw a message as it happened, so nothing is proven"
            }
            (false, _) => "THE PROMISE WAS BROKEN",
        }
    }
}

impl Fault {
    fn text(&self) -> String {
        let repaired = match self.kind {
            KILL => "listening again",
            _ => "reachable again",
        };
        let seconds = |ms: f64| format!("{} s", short(ms / 1_000.0));
        let back = self.back_ms.map_or("NO MESSAGE ACKNOWLEDGED SINCE".into(), |back| {
            format!("the next message acknowledged after {}", seconds(back))
        });
        format!(
            "after {} acknowledged messages: {repaired} after {}, {back}",
            self.acknowledged_before,
            seconds(self.repaired_ms)
        )
    }
}

/// The fault of a server that is killed.
pub(super) const KILL: &str = "kill -9";

/// The fault of a database that cannot be reached.
pub(super) const CUT: &str = "database cut";

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Proof {
        let verdict =
            Verdict { sent: 10, acknowledged: 9, in_history: 9, seen_live: 20, ..Verdict::default() };
        let fault = Fault { kind: KILL, acknowledged_before: 4, repaired_ms: 410.0, back_ms: Some(630.0) };
        Proof { verdict, faults: vec![fault], database: "SQLite".into(), ..Proof::default() }
    }

    #[test]
    fn the_promise_is_kept_if_nothing_is_wrong() {
        let proof = kept().decide();
        assert!(proof.is_kept);
        let text = proof.text();
        assert!(text.starts_with("imks prove: the promise was kept"), "{text}");
        assert!(
            text.contains("listening again after 0.41 s, the next message acknowledged after 0.63 s"),
            "{text}"
        );
    }

    #[test]
    fn any_fault_breaks_the_promise_and_is_shouted() {
        let breaks: [fn(&mut Proof); 11] = [
            |proof| proof.verdict.lost = 1,
            |proof| proof.verdict.doubled = 1,
            |proof| proof.verdict.out_of_order = 1,
            |proof| proof.verdict.moved = 1,
            |proof| proof.verdict.holes = 1,
            |proof| proof.verdict.live_doubled = 1,
            |proof| proof.verdict.live_out_of_order = 1,
            |proof| proof.verdict.refused = 1,
            |proof| proof.verdict.acknowledged = 0,
            |proof| proof.verdict.seen_live = 0,
            |proof| proof.faults[0].back_ms = None,
        ];
        for (index, change) in breaks.into_iter().enumerate() {
            let mut proof = kept();
            change(&mut proof);
            let proof = proof.decide();
            assert!(!proof.is_kept, "{index}");
            let text = proof.text();
            assert!(text.contains("THE PROMISE WAS BROKEN") || text.contains("nothing is proven"), "{text}");
        }
    }

    #[test]
    fn a_proof_that_was_ended_early_proves_nothing() {
        let proof = Proof { is_interrupted: true, ..kept() }.decide();
        assert!(proof.text().contains("nothing is proven"));
        let at_once = Proof { is_interrupted: true, ..Proof::default() }.decide();
        assert!(at_once.is_kept, "nothing is broken before anything was acknowledged");
        assert!(at_once.text().contains("nothing is proven"));
    }
}
