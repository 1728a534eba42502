//! The results as a Markdown table, with the budgets of `docs/performance.md`.

use std::fmt::Write;

use super::{Options, nodes::ALONE, trial::Measured};

/// CPU per delivery at the node that delivers, as a ratio to a single server in the same run.
const DELIVERY_RATIO_MAX: f64 = 1.15;
/// CPU per broadcast at the busy node where it begins, beyond that of a single server, in microseconds.
const BROADCAST_US_MAX: f64 = 10.0;
/// The median time from a client of one node to one of another, in milliseconds.
const P50_MS_MAX: [(&str, f64); 2] = [("nats", 1.0), ("redis", 2.0)];
/// The adapters that keep these budgets. PostgreSQL writes a row for each message, and Node.js is not ours.
const BUDGETED: [&str; 2] = ["redis", "nats"];

/// What one run of a cluster gave.
pub struct Figures {
    pub windowed: Measured,
    pub paced: Measured,
    pub busy: Measured,
    pub idle_kib: Option<f64>,
    pub rest_percent: f64,
}

/// Everything measured in this run.
#[derive(Default)]
pub struct Report {
    results: Vec<(&'static str, Figures)>,
    failures: Vec<&'static str>,
}

impl Figures {
    fn all(&self) -> impl Iterator<Item = &Measured> {
        [&self.windowed, &self.paced, &self.busy].into_iter()
    }
}

type Figure = fn(&Figures) -> Option<f64>;

/// The rows with a number: the lowest of all rounds, and the median.
const COSTS: [(&str, Figure); 7] = [
    ("CPU per delivery at the receiving node, us", per_delivery),
    ("CPU per broadcast at the sending node, busy, us", per_broadcast),
    ("the same of one that comes alone, us", |it| it.paced.per_broadcast(0)),
    ("CPU per broadcast at a node without a member, busy, us", |it| it.busy.per_broadcast(2)),
    ("the same of one that comes alone, us", |it| it.paced.per_broadcast(2)),
    ("CPU of a node at rest, percent of a core", |it| Some(it.rest_percent)),
    ("memory per idle connection, KiB", |it| it.idle_kib),
];

fn per_delivery(figures: &Figures) -> Option<f64> {
    figures.windowed.per_delivery()
}

fn per_broadcast(figures: &Figures) -> Option<f64> {
    figures.busy.per_broadcast(0)
}

impl Report {
    pub fn add(&mut self, name: &'static str, figures: Figures) {
        self.results.push((name, figures));
    }

    pub fn fail(&mut self, name: &'static str) {
        self.failures.push(name);
    }

    pub fn markdown(&self, options: &Options) -> String {
        let names = self.names();
        let Options { members, rate, busy, .. } = options;
        let mut text = format!(
            "## Three nodes: senders at the first, {members} members at the second, none at the third; 100 B\n\n\
             One after the other to all members; then {busy} (busy) and {rate} broadcasts per second to one member.\n\n\
             | | {} |\n|---|{}\n",
            names.join(" | "),
            "---:|".repeat(names.len())
        );
        let mut row = |what: &str, cell: &dyn Fn(&str) -> Option<String>| {
            let cells: Vec<String> = names.iter().map(|name| cell(name).unwrap_or("-".into())).collect();
            let _ = writeln!(text, "| {what} | {} |", cells.join(" | "));
        };
        row("deliveries per second (highest)", &|name| {
            let rates = self.of(name).map(|it| it.windowed.deliveries_per_second);
            rates.max_by(f64::total_cmp).map(|rate| format!("{rate:.0}"))
        });
        for (what, figure) in COSTS {
            row(what, &|name| {
                self.lowest(name, figure).map(|(low, median)| format!("{low:.2} ({median:.2})"))
            });
        }
        row("**per delivery, of a single server**", &|name| {
            Some(format!("**{:.2}**", self.delivery_ratio(name)?))
        });
        row("**per broadcast, busy, more than a single server, us**", &|name| {
            Some(format!("**{:.1}**", self.broadcast_more(name)?))
        });
        for (what, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            row(&format!("{what} to a member at another node, {rate} broadcasts per second, ms"), &|name| {
                self.quantile(name, share).map(|ms| format!("{ms:.2}"))
            });
        }
        row("out of order, doubled, lost", &|name| {
            let sum = |field: fn(&Measured) -> u64| -> u64 {
                self.of(name).map(|it| it.all().map(field).sum::<u64>()).sum()
            };
            Some(format!("{}, {}, {}", sum(|m| m.unordered), sum(|m| m.doubled), sum(|m| m.lost)))
        });
        for name in &self.failures {
            let _ = writeln!(text, "\nFailed once: {name}.");
        }
        text
    }

    /// Returns the budgets that were missed, in words. What was not measured has kept none.
    pub fn missed(&self) -> Vec<String> {
        let mut missed: Vec<String> = self.failures.iter().map(|name| format!("{name}: failed")).collect();
        let mut at_most = |what: String, figure: Option<f64>, most: f64| match figure {
            Some(figure) if figure <= most => {}
            Some(figure) => missed.push(format!("{what}: {figure:.2}, at most {most}")),
            None => missed.push(format!("{what}: not measured")),
        };
        for name in BUDGETED.into_iter().filter(|name| self.of(name).next().is_some()) {
            at_most(
                format!("{name}: per delivery, of a single server"),
                self.delivery_ratio(name),
                DELIVERY_RATIO_MAX,
            );
            at_most(format!("{name}: more per broadcast, us"), self.broadcast_more(name), BROADCAST_US_MAX);
        }
        for (name, most) in P50_MS_MAX.into_iter().filter(|(name, _)| self.of(name).next().is_some()) {
            at_most(format!("{name}: p50, ms"), self.quantile(name, 0.5), most);
        }
        for (name, figures) in self.results.iter().filter(|(name, _)| *name != "node") {
            for measured in figures.all() {
                let faults = measured.unordered + measured.doubled + measured.lost;
                at_most(format!("{name}: out of order, doubled or lost"), Some(faults as f64), 0.0);
            }
        }
        missed
    }

    /// The names in the order in which they were measured.
    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (name, _) in &self.results {
            if !names.contains(name) {
                names.push(name);
            }
        }
        names
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Figures> {
        self.results.iter().filter(move |(of, _)| *of == name).map(|(_, figures)| figures)
    }

    /// Lowest and median of a figure over the rounds.
    fn lowest(&self, name: &str, figure: Figure) -> Option<(f64, f64)> {
        let mut figures: Vec<f64> = self.of(name).filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        Some((*figures.first()?, figures[figures.len() / 2]))
    }

    fn delivery_ratio(&self, name: &str) -> Option<f64> {
        let (own, alone) = (self.lowest(name, per_delivery)?, self.lowest(ALONE, per_delivery)?);
        (name != ALONE).then_some(own.0 / alone.0)
    }

    fn broadcast_more(&self, name: &str) -> Option<f64> {
        let (own, alone) = (self.lowest(name, per_broadcast)?, self.lowest(ALONE, per_broadcast)?);
        (name != ALONE).then_some(own.0 - alone.0)
    }

    /// Of the best round, in milliseconds.
    fn quantile(&self, name: &str, share: f64) -> Option<f64> {
        let rounds = self.of(name).filter(|it| it.paced.deliveries > 0);
        rounds.map(|it| it.paced.latency.quantile_ms(share)).min_by(f64::total_cmp)
    }
}

/// One run as one line.
pub fn line(figures: &Figures) -> String {
    let Figures { windowed, paced, idle_kib, .. } = figures;
    let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    format!(
        "{:.0} deliveries/s, {} us each, {} us per broadcast, p50 {:.2} ms, p99 {:.2} ms, {} KiB idle",
        windowed.deliveries_per_second,
        figure(windowed.per_delivery()),
        figure(per_broadcast(figures)),
        paced.latency.quantile_ms(0.5),
        paced.latency.quantile_ms(0.99),
        figure(*idle_kib),
    )
}
