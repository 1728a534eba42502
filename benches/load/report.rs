//! All results as Markdown tables, with ratios and the budgets of `docs/performance.md`.

use std::fmt::Write;

use super::{kind::Kind, measure::Measured, workload::Workload};

/// KiB per idle connection that the first system may take, and the goal.
const IDLE_KIB_FIRST: f64 = 8.0;
const IDLE_KIB_GOAL: f64 = 3.0;
/// Milliseconds from the TCP connect until a client has joined its namespace, of 99 in 100.
const CONNECT_MS_MAX: f64 = 100.0;
const KIB_PER_GIB: f64 = 1_048_576.0;

/// Everything measured in this run.
#[derive(Default)]
pub struct Report {
    results: Vec<(Workload, Kind, Measured)>,
    failures: Vec<(Workload, Kind)>,
}

impl Report {
    pub fn add(&mut self, workload: Workload, kind: Kind, measured: Measured) {
        self.results.push((workload, kind, measured));
    }

    pub fn fail(&mut self, workload: Workload, kind: Kind) {
        self.failures.push((workload, kind));
    }

    pub fn markdown(&self, workloads: &[Workload], servers: &[Kind]) -> String {
        let mut text = String::from("## Server CPU, microseconds each: lowest (median)\n\n");
        self.cost_table(&mut text, workloads, servers);
        text.push_str("\n## Memory per idle connection, KiB resident\n\n");
        self.memory_table(&mut text, workloads, servers);
        text.push_str("\n## At rest: connections per GiB, and CPU of all of them in percent of a core\n\n");
        self.rest_table(&mut text, workloads, servers);
        text.push_str("\n## Rate per second (highest), latency p50 / p99 in ms (best round)\n\n");
        self.rate_table(&mut text, workloads, servers);
        text.push_str("\n## Order and loss (all rounds)\n\n");
        self.order_table(&mut text, servers);
        for (workload, kind) in &self.failures {
            let _ = writeln!(text, "\nFailed once: {} on {}.", workload.name(), kind.name());
        }
        text
    }

    fn cost_table(&self, text: &mut String, workloads: &[Workload], servers: &[Kind]) {
        header(text, servers, &["imks / socketioxide", "first", "goal", ""]);
        for workload in workloads {
            let _ = write!(text, "| {}: {} |", workload.name(), workload.meaning());
            for kind in servers {
                match self.lowest(*workload, *kind, |m| Some(m.cpu_us)) {
                    Some((lowest, median)) => _ = write!(text, " {lowest:.2} ({median:.2}) |"),
                    None => text.push_str(" - |"),
                }
            }
            let budget = workload.budget();
            let ratio = self.ratio(*workload);
            let verdict = ratio.map_or("", |ratio| verdict(ratio, budget.first, budget.goal));
            let ratio = ratio.map_or("-".to_owned(), |ratio| format!("**{ratio:.2}**"));
            let _ = writeln!(text, " {ratio} | {:.2} | {:.2} | {verdict} |", budget.first, budget.goal);
        }
    }

    fn memory_table(&self, text: &mut String, workloads: &[Workload], servers: &[Kind]) {
        header(text, servers, &["first", "goal", ""]);
        for workload in workloads.iter().filter(|w| matches!(w, Workload::Connect | Workload::ConnectUpgrade))
        {
            let _ = write!(text, "| {}: {} |", workload.name(), workload.meaning());
            for kind in servers {
                match self.lowest(*workload, *kind, |m| m.idle_kib) {
                    Some((lowest, median)) => _ = write!(text, " {lowest:.2} ({median:.2}) |"),
                    None => text.push_str(" - |"),
                }
            }
            let ours = self.lowest(*workload, Kind::Imks, |m| m.idle_kib);
            let verdict = ours.map_or("", |(kib, _)| verdict(kib, IDLE_KIB_FIRST, IDLE_KIB_GOAL));
            let _ = writeln!(text, " {IDLE_KIB_FIRST} | {IDLE_KIB_GOAL} | {verdict} |");
        }
    }

    fn rest_table(&self, text: &mut String, workloads: &[Workload], servers: &[Kind]) {
        header(text, servers, &[]);
        for workload in workloads.iter().filter(|w| matches!(w, Workload::Connect | Workload::ConnectUpgrade))
        {
            let _ = write!(text, "| {} |", workload.name());
            for kind in servers {
                let kib = self.lowest(*workload, *kind, |m| m.idle_kib);
                let percent = self.lowest(*workload, *kind, |m| m.idle_percent);
                match kib.zip(percent) {
                    Some(((kib, _), (percent, _))) => {
                        let per_gib = KIB_PER_GIB / kib.max(f64::MIN_POSITIVE);
                        _ = write!(text, " {per_gib:.0}, {percent:.1} % |");
                    }
                    None => text.push_str(" - |"),
                }
            }
            text.push('\n');
        }
    }

    /// Returns the budgets of every release that were missed, in words.
    pub fn missed(&self, workloads: &[Workload]) -> Vec<String> {
        let over = |workload: &Workload| {
            let (ratio, first) = (self.ratio(*workload)?, workload.budget().first);
            (ratio > first)
                .then(|| format!("{}: {ratio:.2} of socketioxide, at most {first:.2}", workload.name()))
        };
        let mut missed: Vec<String> = workloads.iter().filter_map(over).collect();
        for workload in [Workload::Connect, Workload::ConnectUpgrade] {
            if let Some((kib, _)) = self.lowest(workload, Kind::Imks, |m| m.idle_kib)
                && kib > IDLE_KIB_FIRST
            {
                missed.push(format!("{}: {kib:.2} KiB at rest, at most {IDLE_KIB_FIRST}", workload.name()));
            }
            if let Some((ms, _)) = self.lowest(workload, Kind::Imks, |m| Some(m.latency.quantile_ms(0.99)))
                && ms > CONNECT_MS_MAX
            {
                missed.push(format!("{}: {ms:.0} ms to connect, at most {CONNECT_MS_MAX}", workload.name()));
            }
        }
        let failed = self.failures.iter().filter(|(_, kind)| *kind == Kind::Imks);
        missed.extend(failed.map(|(workload, _)| format!("{}: a round failed", workload.name())));
        let ours = self.results.iter().filter(|(_, kind, _)| *kind == Kind::Imks);
        let faults: u64 = ours.map(|(_, _, m)| m.unordered + m.doubled + m.lost).sum();
        if faults > 0 {
            missed.push(format!("{faults} deliveries were out of order, doubled or lost"));
        }
        missed
    }

    fn rate_table(&self, text: &mut String, workloads: &[Workload], servers: &[Kind]) {
        header(text, servers, &[]);
        for workload in workloads {
            let _ = write!(text, "| {} |", workload.name());
            for kind in servers {
                let best = self.of(*workload, *kind).max_by(|a, b| a.per_second.total_cmp(&b.per_second));
                let Some(best) = best else {
                    text.push_str(" - |");
                    continue;
                };
                let (p50, p99) = (best.latency.quantile_ms(0.5), best.latency.quantile_ms(0.99));
                let _ = write!(text, " {:.0}, {p50:.2} / {p99:.2} |", best.per_second);
            }
            text.push('\n');
        }
    }

    fn order_table(&self, text: &mut String, servers: &[Kind]) {
        text.push_str(
            "| server | out of one sender's order | doubled | lost | of |\n|---|---:|---:|---:|---:|\n",
        );
        for kind in servers {
            let all = || self.results.iter().filter(|(_, of, _)| of == kind).map(|(_, _, measured)| measured);
            let sum = |field: fn(&Measured) -> u64| all().map(field).sum::<u64>();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                kind.name(),
                sum(|m| m.unordered),
                sum(|m| m.doubled),
                sum(|m| m.lost),
                sum(|m| m.count)
            );
        }
    }

    fn of(&self, workload: Workload, kind: Kind) -> impl Iterator<Item = &Measured> {
        self.results.iter().filter(move |(w, k, _)| *w == workload && *k == kind).map(|(_, _, m)| m)
    }

    /// Lowest and median of a figure over the rounds.
    fn lowest(&self, w: Workload, k: Kind, figure: fn(&Measured) -> Option<f64>) -> Option<(f64, f64)> {
        let mut figures: Vec<f64> = self.of(w, k).filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        Some((*figures.first()?, figures[figures.len() / 2]))
    }

    fn ratio(&self, workload: Workload) -> Option<f64> {
        let ours = self.lowest(workload, Kind::Imks, |m| Some(m.cpu_us))?.0;
        let peer = self.lowest(workload, Kind::Socketioxide, |m| Some(m.cpu_us))?.0;
        (peer > 0.0).then_some(ours / peer)
    }
}

fn header(text: &mut String, servers: &[Kind], more: &[&str]) {
    let names = servers.iter().map(|kind| kind.name()).chain(more.iter().copied());
    let _ = writeln!(text, "| workload | {} |", names.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(servers.len() + more.len()));
}

fn verdict(figure: f64, first: f64, goal: f64) -> &'static str {
    match figure {
        figure if figure <= goal => "goal",
        figure if figure <= first => "first",
        _ => "**over**",
    }
}
