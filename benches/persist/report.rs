//! The results as a Markdown table, with the budgets of `docs/performance.md`.

use std::fmt::Write;

use super::database::Database;
use super::send::Measured;
use super::storm::Storm;

/// One load on one database.
pub struct Row {
    pub database: Database,
    pub measured: Measured,
}

pub fn markdown(rows: &[Row], storms: &[Storm]) -> String {
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
    text.push_str(&signed_in(rows));
    text.push_str(&heard(rows));
    text.push_str(&lost_server(storms));
    for Row { database, measured } in rows {
        if let Some(complaint) = &measured.complaint {
            let _ = writeln!(text, "\nRefused on {}, {}: `{complaint}`", database.name(), measured.name);
        }
    }
    text
}

/// From the TCP connect of a client with a token until its `session:ready`.
fn signed_in(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n### From the connect to `session:ready`: 200 clients with tokens of their own, 64 at a time\n\n\
         | database | load | p50 ms | p99 ms |\n|---|---|---:|---:|\n",
    );
    for Row { database, measured } in rows {
        let [p50, p99] = [0.5, 0.99].map(|share| measured.sign_in.quantile_ms(share));
        let _ = writeln!(text, "| {} | {} | {p50:.1} | {p99:.1} |", database.name(), measured.name);
    }
    text
}

/// From the moment a message was due to its arrival at 200 readers.
fn heard(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n### From `message:send` to its readers: one channel, 200 readers, 100 messages per second\n\n\
         | database | deliveries | p50 ms | p95 ms | p99 ms | out of order | lost |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
    );
    for Row { database, measured } in rows {
        let Some(delivery) = &measured.delivery else { continue };
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| delivery.latency.quantile_ms(share));
        let _ = writeln!(
            text,
            "| {} | {} | {p50:.1} | {p95:.1} | {p99:.1} | {} | {} |",
            database.name(),
            delivery.count,
            delivery.unordered,
            delivery.lost,
        );
    }
    text
}

fn lost_server(storms: &[Storm]) -> String {
    let mut text = String::from(
        "\n### Clients that lose their server (kill -9), which is started again at once\n\n\
         | database | clients | all back after, s | not back | sessions continued | queries per second before | and until all \
         were back | lost, doubled, out of order |\n|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for storm in storms {
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {} | {} | {:.0} | {:.0} | {} |",
            storm.database.name(),
            storm.clients,
            storm.back_after.as_secs_f64(),
            storm.not_back,
            storm.continued,
            storm.queries_before,
            storm.queries_meanwhile,
            storm.faults,
        );
    }
    text
}

/// Returns the budgets of every release that were missed, in words.
pub fn missed(rows: &[Row], storms: &[Storm]) -> Vec<String> {
    let mut missed = Vec::new();
    let mut at_most = |what: String, figure: f64, most: f64| {
        if figure > most {
            missed.push(format!("{what}: {figure:.2}, at most {most}"));
        }
    };
    for Row { database, measured } in rows {
        let what = |figure: &str| format!("{}, {}: {figure}", database.name(), measured.name);
        let all = measured.count.max(1) as f64;
        at_most(
            what("refused or lost, percent"),
            (measured.refused + measured.lost) as f64 / all * 100.0,
            0.1,
        );
        at_most(what("connect and sign in, ms"), measured.sign_in.quantile_ms(0.99), 100.0);
        let Some(delivery) = &measured.delivery else { continue };
        for (share, most) in [(0.5, 50.0), (0.95, 200.0), (0.99, 500.0)] {
            at_most(what("delivery, ms"), delivery.latency.quantile_ms(share), most);
        }
        at_most(what("deliveries lost or out of order"), (delivery.lost + delivery.unordered) as f64, 0.0);
    }
    for database in [Database::Sqlite, Database::Postgres] {
        let rates = nth(rows, database, 0).map(|all| 10_000.0 / all.per_second);
        rates
            .into_iter()
            .for_each(|share| at_most(format!("{}: 10,000/s of its rate", database.name()), share, 1.0));
    }
    for storm in storms {
        let what = |figure: &str| format!("{}, lost server: {figure}", storm.database.name());
        at_most(what("back after, s"), storm.back_after.as_secs_f64(), 10.0);
        at_most(what("not back, or lost"), (storm.not_back + storm.faults) as f64, 0.0);
        at_most(what("queries, of before"), storm.queries_meanwhile / storm.queries_before.max(1.0), 2.0);
    }
    missed
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
