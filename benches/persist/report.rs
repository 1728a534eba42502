//! The results as a Markdown table, with the budgets of `docs/performance.md`.

use std::fmt::Write;

use super::database::Database;
use super::send::Measured;

/// One load on one database.
pub struct Row {
    pub database: Database,
    pub measured: Measured,
}

pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "## Persisted path: `message:send` to ack, 200 senders, 8 under way each, nobody subscribed\n\n\
         | database | load | acked/s | ack p50 ms | ack p99 ms | server CPU us | refused | lost |\n\
         |---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for Row { database, measured } in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {} | {} |",
            database.name(),
            measured.name,
            measured.per_second,
            measured.latency.quantile_ms(0.5),
            measured.latency.quantile_ms(0.99),
            measured.cpu_us,
            measured.refused,
            measured.lost,
        );
    }
    text.push_str(
        "\n| against the budgets | sqlite | postgres | first | goal |\n|---|---:|---:|---:|---:|\n",
    );
    for (name, figure, first, goal) in BUDGETS {
        let cell = |database| figure(rows, database).map_or("-".to_owned(), |value| format!("{value:.2}"));
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {first} | {goal} |",
            cell(Database::Sqlite),
            cell(Database::Postgres)
        );
    }
    for Row { database, measured } in rows {
        if let Some(complaint) = &measured.complaint {
            let _ = writeln!(text, "\nRefused on {}, {}: `{complaint}`", database.name(), measured.name);
        }
    }
    text
}

type Figure = fn(&[Row], Database) -> Option<f64>;

const BUDGETS: [(&str, Figure, &str, &str); 3] = [
    ("one hot channel / 1,000 channels, rate", hot_ratio, "at least 0.7", "0.95"),
    ("ack p99 at half of the highest rate, ms", calm_p99, "at most 100", "20"),
    ("server CPU us per stored message", cpu, "at most 60", "20"),
];

fn hot_ratio(rows: &[Row], database: Database) -> Option<f64> {
    Some(nth(rows, database, 1)?.per_second / nth(rows, database, 0)?.per_second)
}

fn calm_p99(rows: &[Row], database: Database) -> Option<f64> {
    Some(nth(rows, database, 2)?.latency.quantile_ms(0.99))
}

fn cpu(rows: &[Row], database: Database) -> Option<f64> {
    Some(nth(rows, database, 0)?.cpu_us)
}

/// Rows come in the order in which `main` measures them.
fn nth(rows: &[Row], database: Database, n: usize) -> Option<&Measured> {
    rows.iter().filter(|row| row.database == database).nth(n).map(|row| &row.measured)
}
