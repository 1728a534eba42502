//! What `imks top` shows of its table: a screen, lines or JSON.

use serde_json::{Value, json};

use super::table::{Left, Order, Session, Table};
use crate::cli::terminal::screen::{Row, Screen, Style};
use crate::cli::terminal::text::{cut, fill, line};
use crate::cli::terminal::without_secrets;

/// Makes the screen: totals, connections in their order, and who has left.
pub(super) fn screen(
    table: &Table,
    url: &str,
    order: Order,
    (columns, rows): (usize, usize),
    now_us: i64,
) -> Screen {
    let title = format!(" imks top  {}  {}", without_secrets(url), totals(table));
    let style = if table.failure().is_some() { Style::Alert } else { Style::Reverse };
    let mut screen = vec![Row::of(style, fill(&title, columns))];
    screen.push(Row::of(Style::Plain, cut(&closed(table), columns)));
    screen.push(Row::of(Style::Bold, fill(HEAD, columns)));
    let below = (rows / 3).max(2);
    let sessions = rows.saturating_sub(screen.len() + below + 1);
    let sorted = table.sorted(order);
    let shown = sorted
        .iter()
        .take(sessions)
        .map(|session| Row::of(Style::Plain, cut(&row(table, session, now_us), columns)));
    screen.extend(shown);
    screen.resize(rows.saturating_sub(below + 1), Row::default());
    screen.push(Row::of(Style::Bold, fill("LEFT", columns)));
    let left = table.left().take(below.saturating_sub(1));
    screen.extend(left.map(|left| Row::of(Style::Plain, cut(&gone(left, now_us), columns))));
    screen.resize(rows.saturating_sub(1), Row::default());
    let keys = format!("q ends, s sorts: {}", order.name());
    screen.push(Row::of(Style::Dim, cut(&keys, columns)));
    Screen { rows: screen, cursor: None }
}

/// Returns the lines of a sample.
pub(super) fn lines(table: &Table, order: Order, now_us: i64) -> Vec<String> {
    let mut lines = vec![totals(table), closed(table), HEAD.trim_end().to_owned()];
    lines.extend(
        table.sorted(order).into_iter().map(|session| row(table, session, now_us).trim_end().to_owned()),
    );
    lines.extend(table.left().map(|left| format!("left: {}", gone(left, now_us))));
    lines
}

/// Returns a sample for programs.
pub(super) fn json(table: &Table, order: Order) -> Value {
    let sessions: Vec<Value> = table
        .sorted(order)
        .into_iter()
        .map(|session| {
            let mut value = json!(session);
            value["returns"] = json!(table.returns(&session.user_id));
            value
        })
        .collect();
    let left: Vec<&Left> = table.left().collect();
    json!({ "sessions": sessions, "transports": table.transports(), "left": left, "closed": table.reasons() })
}

fn totals(table: &Table) -> String {
    if let Some(failure) = table.failure() {
        return format!("no answer: {failure}");
    }
    let transports = table.transports();
    let all: usize = transports.values().sum();
    let by: Vec<String> = transports.iter().map(|(name, count)| format!("{count} {}", line(name))).collect();
    match by.is_empty() {
        true => "nobody is connected".into(),
        false => format!("{all} connections: {}", by.join(", ")),
    }
}

fn closed(table: &Table) -> String {
    match table.reasons() {
        None => "why sessions end is not told here: /metrics is on the internal listener".into(),
        Some(reasons) if reasons.is_empty() => "no session has ended since the start".into(),
        Some(reasons) => {
            let by: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            format!("ended since the start: {}", by.join(", "))
        }
    }
}

fn row(table: &Table, session: &Session, now_us: i64) -> String {
    let program = match session.client_version.is_empty() {
        true => line(&session.client_name),
        false => format!("{} {}", line(&session.client_name), line(&session.client_version)),
    };
    format!(
        "{} {} {} {:>7} {:>7} {:>7} {} {}",
        fill(&line(&session.user_id), 36),
        fill(&line(&session.peer), 24),
        fill(&line(&session.transport), 12),
        rtt(session.rtt_us),
        age(now_us.saturating_sub(session.connected_us)),
        table.returns(&session.user_id),
        fill(&line(&session.node), 9),
        program
    )
}

fn gone(left: &Left, now_us: i64) -> String {
    let session = &left.session;
    let reason = left.reason.as_deref().unwrap_or("reason not told");
    format!(
        "{} {} {} ago after {}: {}",
        fill(&line(&session.user_id), 36),
        fill(&line(&session.peer), 24),
        age(now_us.saturating_sub(left.left_us)),
        age(left.left_us.saturating_sub(session.connected_us)),
        line(reason)
    )
}

/// Returns a round trip in microseconds as people say it.
fn rtt(micros: i64) -> String {
    match micros {
        ..=0 => "-".into(),
        1..10_000 => format!("{:.1}ms", micros as f64 / 1_000.0),
        10_000..10_000_000 => format!("{}ms", micros / 1_000),
        _ => format!("{}s", micros / 1_000_000),
    }
}

/// Returns a time in microseconds as people say it.
fn age(micros: i64) -> String {
    let seconds = (micros / 1_000_000).max(0);
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

const HEAD: &str = "USER                                 ADDRESS                  TRANSPORT        RTT     AGE RETURNS NODE      PROGRAM";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::table::Sample;

    fn table() -> Table {
        let session = Session {
            user_id: "0190a8c0-0000-7000-8000-000000000001".into(),
            socket_id: "s".into(),
            node: "5q1xB2w".into(),
            transport: "polling".into(),
            peer: "10.0.0.7:4711".into(),
            client_name: "web\u{1b}[2J".into(),
            client_version: "1.4".into(),
            connected_us: 1_000_000,
            rtt_us: 4_321,
        };
        let mut table = Table::default();
        table.take(Sample { sessions: vec![session], closed: None }, 2_000_000);
        table
    }

    #[test]
    fn the_columns_stand_below_their_heads_and_strangers_cannot_act_on_the_terminal() {
        let lines = lines(&table(), Order::Trouble, 61_000_000);
        assert_eq!(lines[0], "1 connections: 1 polling");
        for (head, value) in [
            ("ADDRESS", "10.0.0.7:4711"),
            ("TRANSPORT", "polling"),
            ("NODE", "5q1xB2w"),
            ("PROGRAM", "web[2J 1.4"),
        ] {
            assert_eq!(lines[2].find(head), lines[3].find(value), "{lines:#?}");
        }
        assert!(lines[3].contains(" 60s ") && lines[3].contains(" 4.3ms "));
        assert_eq!([0, 999, 12_345, 61_000_000].map(rtt), ["-", "1.0ms", "12ms", "61s"]);
    }

    #[test]
    fn the_screen_has_exactly_the_rows_of_the_terminal() {
        for size in [(80, 24), (20, 5), (200, 60), (10, 3), (1, 1)] {
            assert_eq!(screen(&table(), "http://a", Order::Trouble, size, 0).rows.len(), size.1);
        }
    }

    #[test]
    fn programs_get_every_field() {
        let json = json(&table(), Order::Trouble);
        assert_eq!(json["sessions"][0]["transport"], "polling");
        assert_eq!((json["transports"]["polling"].as_u64(), json["closed"].is_null()), (Some(1), true));
    }
}
