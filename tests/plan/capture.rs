//! What a database is asked, and how it answers: the statements and plans of one query of the server.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

/// Everything that sqlx has said since it was looked at.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    /// The one of this process.
    pub fn listen() -> Self {
        static ONE: OnceLock<Said> = OnceLock::new();
        let one = ONE.get_or_init(|| {
            let said = Said::default();
            tracing::subscriber::set_global_default(registry().with(said.clone())).unwrap();
            said
        });
        one.clone()
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl<S: Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        match event.metadata().target() {
            "sqlx::query" | "sqlx::postgres::notice" => event.record(&mut text),
            _ => return,
        }
        self.0.lock().push(if text.whole.is_empty() { text.short } else { text.whole });
    }
}

/// The text of a statement, or of a notice.
#[derive(Default)]
struct Text {
    short: String,
    whole: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" | "message" => self.short = value.trim().to_owned(),
            "db.statement" => self.whole = value.trim().to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// A plan that PostgreSQL has carried out.
pub struct Plan {
    pub statement: String,
    /// The rows that its scans have looked at, those that a filter removed included.
    pub rows: f64,
    pub millis: f64,
    /// What it should not have: scans from end to end.
    pub scans: Vec<String>,
}

impl Plan {
    /// Reads a notice of auto_explain.
    pub fn of_notice(notice: &str) -> Option<Self> {
        let (duration, json) = notice.strip_prefix("duration: ")?.split_once("plan:")?;
        let json: Value = serde_json::from_str(json).expect("a plan in JSON");
        let statement = json["Query Text"].as_str().unwrap_or_default().to_owned();
        let millis = duration.split_once(' ')?.0.parse().ok()?;
        let mut plan = Self { statement, rows: 0.0, millis, scans: Vec::new() };
        plan.add(&json["Plan"]);
        Some(plan)
    }

    fn add(&mut self, node: &Value) {
        let kind = node["Node Type"].as_str().unwrap();
        let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
        // Of what is computed, such as a list of ids, there is no table to read.
        let reads_a_table = node["Relation Name"].is_string();
        if reads_a_table && kind.ends_with("Scan") {
            let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
            self.rows += (number("Actual Rows") + removed) * number("Actual Loops");
        }
        // The database may walk through the beginning of an index instead of looking up each of many keys.
        let is_whole_index =
            kind.starts_with("Index") && node["Index Cond"].is_null() && number("Actual Rows") > WALKED_MAX;
        if reads_a_table && (kind == "Seq Scan" || is_whole_index) {
            self.scans.push(format!("{kind} on {} ({} rows)", node["Relation Name"], number("Actual Rows")));
        }
        node["Plans"].as_array().into_iter().flatten().for_each(|below| self.add(below));
    }
}

/// The most rows of an index without a condition.
const WALKED_MAX: f64 = 1_000.0;
