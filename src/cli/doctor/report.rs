//! What `imks doctor` has found: its checks, as lines for people and as JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::terminal::text::counted;

/// A fault: what was seen, what it means, and what to do about it. Each is a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) found: String,
    pub(super) means: String,
    pub(super) todo: String,
}

impl Fault {
    /// Creates a fault of its three sentences.
    pub(super) fn new(found: impl Into<String>, means: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { found: found.into(), means: means.into(), todo: todo.into() }
    }
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is well; the text says what was found.
    Good(String),
    /// It works, but not for everybody, or not for long.
    Warned(Fault),
    /// It does not work.
    Failed(Fault),
    /// It was not tried; the text says why.
    Skipped(String),
}

impl Outcome {
    /// Returns the word for lines and JSON: `ok`, `warning`, `failed` or `skipped`.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Good(_) => "ok",
            Self::Warned(_) => "warning",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// A check that was made, or skipped.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

impl Check {
    /// Returns the lines for people: one, and two more with what to do about a fault.
    pub(super) fn lines(&self) -> Vec<String> {
        let took = match self.outcome {
            Outcome::Skipped(_) => String::new(),
            _ => format!("{:.1} ms", self.took.as_secs_f64() * 1_000.0),
        };
        let line = |text: &str| format!("{:8} {:13} {took:>10}  {text}", self.outcome.word(), self.name);
        match &self.outcome {
            Outcome::Good(text) | Outcome::Skipped(text) => vec![line(text)],
            Outcome::Warned(fault) | Outcome::Failed(fault) => vec![
                line(&fault.found),
                format!("{INDENT}means: {}", fault.means),
                format!("{INDENT}do:    {}", fault.todo),
            ],
        }
    }

    fn json(&self) -> Value {
        let took_ms = (self.took.as_secs_f64() * 10_000.0).round() / 10.0;
        let mut value = json!({ "name": self.name, "status": self.outcome.word(), "took_ms": took_ms });
        let (found, fault) = match &self.outcome {
            Outcome::Good(text) | Outcome::Skipped(text) => (text, None),
            Outcome::Warned(fault) | Outcome::Failed(fault) => (&fault.found, Some(fault)),
        };
        value["found"] = json!(found);
        if let Some(fault) = fault {
            value["means"] = json!(fault.means);
            value["do"] = json!(fault.todo);
        }
        value
    }
}

/// The checks of one target, in the order in which they were made.
#[derive(Debug)]
pub(super) struct Report {
    target: String,
    checks: Vec<Check>,
}

impl Report {
    /// Creates the report of a target without checks. The name of the target is shown, so it must have no secrets.
    pub(super) fn new(target: String) -> Self {
        Self { target, checks: Vec::new() }
    }

    /// Adds a check.
    pub(super) fn push(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Whether every check that was made is well.
    pub(super) fn is_well(&self) -> bool {
        self.checks.iter().all(|check| matches!(check.outcome, Outcome::Good(_) | Outcome::Skipped(_)))
    }

    /// Returns the last line for people.
    pub(super) fn summary(&self) -> String {
        let (made, skipped) = (self.made(), self.count("skipped"));
        match (self.count("failed"), self.count("warning")) {
            (0, 0) => format!("All is well: {made}, {skipped} skipped."),
            (0, warnings) => format!("It works, with {warnings} of {made} to look at; {skipped} skipped."),
            (failed, 0) => format!("{failed} of {made} failed; {skipped} skipped."),
            (failed, warnings) => {
                format!("{failed} of {made} failed, {warnings} more to look at; {skipped} skipped.")
            }
        }
    }

    /// Returns the last line for people of an examination that was ended early: what was not tried is not well.
    pub(super) fn summary_so_far(&self) -> String {
        let (failed, warnings) = (self.count("failed"), self.count("warning"));
        format!("Interrupted after {}: {failed} failed, {warnings} to look at.", self.made())
    }

    fn count(&self, word: &str) -> u64 {
        self.checks.iter().filter(|check| check.outcome.word() == word).count() as u64
    }

    /// Returns how many checks were made, with the word for them.
    fn made(&self) -> String {
        counted(self.checks.len() as u64 - self.count("skipped"), "check", "checks")
    }

    /// Returns the report for programs.
    pub(super) fn json(&self) -> Value {
        let checks: Vec<Value> = self.checks.iter().map(Check::json).collect();
        json!({ "target": self.target, "ok": self.is_well(), "checks": checks })
    }
}

/// The place of what follows the first line of a fault: below what was found.
const INDENT: &str = "                                   ";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, outcome: Outcome) -> Check {
        Check { name, outcome, took: Duration::from_micros(1_250) }
    }

    #[test]
    fn a_fault_is_followed_by_what_it_means_and_what_to_do() {
        let fault = Fault::new("refused", "nothing listens", "start it");
        let lines = check("tcp", Outcome::Failed(fault)).lines();
        assert_eq!(lines[0], "failed   tcp               1.2 ms  refused");
        assert_eq!(lines[0].find("refused"), lines[1].find("means:"));
        assert_eq!(lines[2].trim(), "do:    start it");
    }

    #[test]
    fn all_is_well_only_if_nothing_failed_and_nothing_is_to_look_at() {
        let mut report = Report::new("here".into());
        report.push(check("dns", Outcome::Good("1 address".into())));
        report.push(check("cors", Outcome::Skipped("no --origin".into())));
        assert!(report.is_well());
        assert_eq!(report.summary(), "All is well: 1 check, 1 skipped.");
        report.push(check("tls", Outcome::Warned(Fault::new("3 days left", "it expires", "renew it"))));
        assert!(!report.is_well());
        assert_eq!(report.summary_so_far(), "Interrupted after 2 checks: 0 failed, 1 to look at.");
        let json = report.json();
        assert_eq!((json["ok"].as_bool(), json["checks"][2]["do"].as_str()), (Some(false), Some("renew it")));
        assert_eq!(json["checks"][0]["took_ms"], 1.3);
    }
}
