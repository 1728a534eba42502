//! All results as Markdown tables, with ratios.

use std::fmt::Write;

use super::host::Host;
use super::program::Maker;
use super::work::{Figures, Workload};

/// Everything measured in this run.
#[derive(Default)]
pub struct Report {
    results: Vec<(Workload, Maker, Figures)>,
    failures: Vec<(Workload, Maker)>,
}

type Figure = fn(&Figures) -> Option<f64>;

impl Report {
    pub fn add(&mut self, workload: Workload, maker: Maker, figures: Figures) {
        self.results.push((workload, maker, figures));
    }

    pub fn fail(&mut self, workload: Workload, maker: Maker) {
        self.failures.push((workload, maker));
    }

    pub fn markdown(&self, server: Host, workloads: &[Workload], makers: &[Maker]) -> String {
        let mut text = format!("## Clients, with {} as the server: lowest (median)\n\n", server.name());
        let names: Vec<&str> = makers.iter().map(|maker| maker.name()).collect();
        let peers = makers.iter().filter(|maker| **maker != Maker::Imks);
        let ratios: Vec<String> = peers.map(|peer| format!("imks / {}", peer.name())).collect();
        let _ = writeln!(text, "| what | {} | {} |", names.join(" | "), ratios.join(" | "));
        let _ = writeln!(text, "|---|{}", "---:|".repeat(names.len() + ratios.len()));
        let rows: [(&str, Figure); 4] = [
            ("CPU us per message", |it| it.message_us),
            ("CPU us to connect", |it| it.connection_us),
            ("KiB per connection at rest", |it| it.rest_kib),
            ("KiB per connection at most", |it| it.peak_kib),
        ];
        for workload in workloads {
            for (what, figure) in rows {
                self.row(&mut text, *workload, makers, what, figure);
            }
        }
        for (workload, maker) in &self.failures {
            let _ = writeln!(text, "\nFailed once: {} of {}.", workload.name(), maker.name());
        }
        text
    }

    fn row(&self, text: &mut String, workload: Workload, makers: &[Maker], what: &str, figure: Figure) {
        let found: Vec<_> = makers.iter().map(|maker| self.lowest(workload, *maker, figure)).collect();
        if found.iter().all(Option::is_none) {
            return;
        }
        let _ = write!(text, "| {}: {}; {what} |", workload.name(), workload.meaning());
        for found in &found {
            match found {
                Some((lowest, median)) => _ = write!(text, " {lowest:.2} ({median:.2}) |"),
                None => text.push_str(" - |"),
            }
        }
        let ours = self.lowest(workload, Maker::Imks, figure).map(|(lowest, _)| lowest);
        for (_, found) in makers.iter().zip(&found).filter(|(maker, _)| **maker != Maker::Imks) {
            match ours.zip(*found) {
                Some((ours, (peer, _))) if peer > 0.0 => _ = write!(text, " **{:.2}** |", ours / peer),
                _ => text.push_str(" - |"),
            }
        }
        text.push('\n');
    }

    /// Lowest and median of a figure over the rounds.
    fn lowest(&self, workload: Workload, maker: Maker, figure: Figure) -> Option<(f64, f64)> {
        let of = self.results.iter().filter(|(w, m, _)| *w == workload && *m == maker);
        let mut figures: Vec<f64> = of.filter_map(|(.., figures)| figure(figures)).collect();
        figures.sort_by(f64::total_cmp);
        Some((*figures.first()?, figures[figures.len() / 2]))
    }
}
