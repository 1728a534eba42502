//! What `imks top` shows of its table: a screen, lines or JSON.

use serde_json::{Value, json};

use super::table::{Left, Order, Session, Table};
use crate::cli::terminal::screen::{Row, Screen, Style};
use crate::cli::terminal::text::{counted, cut, fill, line, width};
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
    let (sorted, left): (Vec<&Session>, Vec<&Left>) = (table.sorted(order), table.left().collect());
    // Nobody who has left needs no room.
    let below = if left.is_empty() { 0 } else { (left.len() + 1).min((rows / 3).max(2)) };
    let room = rows.saturating_sub(HEAD_ROWS + below + 1);
    let shown = if sorted.len() > room { room.saturating_sub(1) } else { sorted.len() };
    let (shown, others) = sorted.split_at(shown);
    let mut lines = rows_of(table, shown, Some(columns), now_us).into_iter();
    screen.extend(lines.next().map(|head| Row::of(Style::Bold, fill(&head, columns))));
    screen.extend(lines.map(|line| Row::of(Style::Plain, cut(&line, columns))));
    screen.extend(
        (!others.is_empty()).then(|| Row::of(Style::Dim, cut(&format!("{} more", others.len()), columns))),
    );
    screen.resize(rows.saturating_sub(below + 1), Row::default());
    if below > 0 {
        screen.push(Row::of(Style::Bold, fill("LEFT", columns)));
    }
    let left = gone(left.into_iter().take(below.saturating_sub(1)), now_us);
    screen.extend(left.iter().map(|line| Row::of(Style::Plain, cut(line, columns))));
    screen.resize(rows.saturating_sub(1), Row::default());
    let keys = format!("q ends, s sorts: {}", order.name());
    screen.push(Row::of(Style::Dim, cut(&keys, columns)));
    Screen { rows: screen, cursor: None }
}

/// Returns the lines of a sample.
pub(super) fn lines(table: &Table, order: Order, now_us: i64) -> Vec<String> {
    let mut lines = vec![totals(table), closed(table)];
    lines.extend(rows_of(table, &table.sorted(order), None, now_us));
    lines.extend(gone(table.left(), now_us).into_iter().map(|line| format!("left: {line}")));
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
        false => format!("{}: {}", counted(all as u64, "connection", "connections"), by.join(", ")),
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

/// Returns the rows of connections below their heads, in columns that are as wide as what is in them. Where they are wider
/// together than `columns`, the widest become narrower.
fn rows_of(table: &Table, sessions: &[&Session], columns: Option<usize>, now_us: i64) -> Vec<String> {
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(sessions.iter().map(|session| cells(table, session, now_us)));
    let mut widths: [usize; 8] =
        std::array::from_fn(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or_default());
    let mut excess =
        columns.map_or(0, |columns| (widths.iter().sum::<usize>() + GAPS).saturating_sub(columns));
    while excess > 0 {
        let can_shrink = |at: &usize| widths[*at] > SHRINKING_MIN;
        let Some(widest) = SHRINKING.into_iter().filter(can_shrink).max_by_key(|at| widths[*at]) else {
            break;
        };
        widths[widest] -= 1;
        excess -= 1;
    }
    rows.iter().map(|row| joined(row, &widths)).collect()
}

fn joined(row: &[String; 8], widths: &[usize; 8]) -> String {
    let cell = |(at, text): (usize, &String)| match NUMBERS.contains(&at) {
        true => format!("{text:>0$}", widths[at]),
        false => fill(text, widths[at]),
    };
    let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
    cells.join(" ").trim_end().to_owned()
}

fn cells(table: &Table, session: &Session, now_us: i64) -> [String; 8] {
    let program = format!("{} {}", line(&session.client_name), line(&session.client_version));
    [
        line(session.who()),
        line(&session.peer),
        line(&session.transport),
        rtt(session.rtt_us),
        age(now_us.saturating_sub(session.connected_us)),
        table.returns(&session.user_id).to_string(),
        line(&session.node),
        program.trim().to_owned(),
    ]
}

/// Returns the lines of those who have left.
fn gone<'a>(left: impl Iterator<Item = &'a Left>, now_us: i64) -> Vec<String> {
    let who = |left: &'a Left| (line(left.session.who()), line(&left.session.peer), left);
    let left: Vec<_> = left.map(who).collect();
    let widest = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or_default();
    let names = widest(&mut left.iter().map(|(name, ..)| width(name)));
    let peers = widest(&mut left.iter().map(|(_, peer, _)| width(peer)));
    let one = |(name, peer, left): &(String, String, &Left)| {
        format!(
            "{} {} {} ago after {}: {}",
            fill(name, names),
            fill(peer, peers),
            age(now_us.saturating_sub(left.left_us)),
            age(left.left_us.saturating_sub(left.session.connected_us)),
            line(left.reason.as_deref().unwrap_or("reason not told"))
        )
    };
    left.iter().map(one).collect()
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

/// The heads of the columns.
const HEADS: [&str; 8] = ["USER", "ADDRESS", "TRANSPORT", "RTT", "AGE", "RETURNS", "NODE", "PROGRAM"];
/// The columns with numbers, which stand to the right.
const NUMBERS: [usize; 3] = [3, 4, 5];
/// The columns that become narrower where there is no room, and how narrow at most.
const SHRINKING: [usize; 4] = [0, 1, 6, 7];
const SHRINKING_MIN: usize = 8;
/// The spaces between the columns.
const GAPS: usize = HEADS.len() - 1;
/// The rows above the connections: title, reasons and heads.
const HEAD_ROWS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::table::Sample;

    fn table() -> Table {
        let session = Session {
            user_id: "0190a8c0-0000-7000-8000-000000000001".into(),
            username: String::new(),
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
        assert_eq!(lines[0], "1 connection: 1 polling");
        for (head, value) in [
            ("ADDRESS", "10.0.0.7:4711"),
            ("TRANSPORT", "polling"),
            ("NODE", "5q1xB2w"),
            ("PROGRAM", "web[2J 1.4"),
        ] {
            assert_eq!(lines[2].find(head), lines[3].find(value), "{lines:#?}");
        }
        assert!(lines[3].contains(" 60s ") && lines[3].contains(" 4.3ms "));
        assert!(lines[3].starts_with("0190a8c0-"), "without a name it is the id: {lines:#?}");
        assert_eq!([0, 999, 12_345, 61_000_000].map(rtt), ["-", "1.0ms", "12ms", "61s"]);
    }

    fn crowd(count: usize) -> Table {
        let session = |number: usize| Session {
            user_id: format!("0190a8c0-0000-7000-8000-{number:012}"),
            username: format!("user{number}"),
            socket_id: number.to_string(),
            node: "5q1xB2wK9a0Q".into(),
            transport: "webtransport".into(),
            peer: "203.0.113.199:50412".into(),
            client_name: "imks chat".into(),
            client_version: "0.1.0".into(),
            ..Session::default()
        };
        let mut table = Table::default();
        table.take(Sample { sessions: (0..count).map(session).collect(), closed: None }, 1);
        table
    }

    fn texts(table: &Table, size: (usize, usize)) -> Vec<String> {
        screen(table, "http://a", Order::User, size, 0).rows.iter().map(Row::text).collect()
    }

    #[test]
    fn people_are_shown_by_their_names_and_every_column_fits_into_100() {
        let rows = texts(&crowd(2), (100, 20));
        assert!(rows[3].starts_with("user0 ") && !rows[3].contains('…'), "{rows:#?}");
        assert!(rows[3].contains(" 5q1xB2wK9a0Q ") && rows[3].ends_with("imks chat 0.1.0"), "{rows:#?}");
        let narrow = texts(&crowd(2), (72, 20));
        assert!(narrow[3].starts_with("user0 ") && narrow[2].trim_end().ends_with("PROGRAM"), "{narrow:#?}");
        assert!(narrow.iter().all(|row| width(row) <= 72), "{narrow:#?}");
    }

    #[test]
    fn how_many_more_there_are_is_told_and_nobody_who_has_left_takes_no_room() {
        let rows = texts(&crowd(30), (100, 20));
        assert_eq!(rows.iter().filter(|row| row.starts_with("user")).count(), 15, "{rows:#?}");
        assert_eq!(rows[18], "15 more", "{rows:#?}");
        assert!(!rows.iter().any(|row| row.starts_with("LEFT")), "{rows:#?}");
        assert!(!texts(&crowd(16), (100, 20)).iter().any(|row| row.contains("more")), "all fit");
        let mut table = crowd(30);
        table.take(
            Sample { sessions: crowd(28).sorted(Order::User).into_iter().cloned().collect(), closed: None },
            2,
        );
        let rows = texts(&table, (100, 20));
        assert!(rows[16].starts_with("LEFT") && rows[17].starts_with("user29 "), "{rows:#?}");
        assert_eq!(rows[15], "16 more", "{rows:#?}");
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
