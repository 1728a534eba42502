//! The screen of `imks chat`, made of what the conversation knows.

use super::channel::{Channel, Pending};
use super::conversation::{Conversation, Notice};
use super::input::Input;
use super::message::Message;
use crate::cli::terminal::screen::{Row, Screen, Style};
use crate::cli::terminal::text;

/// Makes the screen: a title, channels at the left where there is room, messages, who types, and the line that is
/// typed. `back` is by how many rows the messages are scrolled back, and is limited to what there is.
pub(super) fn screen(
    conversation: &mut Conversation,
    input: &Input,
    (columns, rows): (usize, usize),
    back: &mut usize,
    now_ms: u64,
) -> Screen {
    let side = if columns >= SIDE_NEEDS { SIDE } else { 0 };
    let height = rows.saturating_sub(3);
    let typing = typing(conversation, now_ms);
    let messages = pane(conversation, columns - side, height, back);
    let names = if side > 0 { channels(conversation, side, height) } else { Vec::new() };
    let mut screen = vec![title(conversation, columns)];
    for at in 0..height {
        let mut row = Row::default();
        if side > 0 {
            let (style, name) = names.get(at).cloned().unwrap_or_default();
            row = row.then(style, text::fill(&name, side - 2)).then(Style::Dim, "│ ");
        }
        row.0.extend(messages.get(at).cloned().unwrap_or_default().0);
        screen.push(row);
    }
    screen.push(Row::of(Style::Dim, text::cut(&typing, columns)));
    let (line, column) = input.window(columns.saturating_sub(PROMPT.len() + 1));
    screen.push(Row::of(Style::Bold, PROMPT).then(Style::Plain, line));
    screen.truncate(rows.max(1));
    let cursor = Some((PROMPT.len() + column, rows.saturating_sub(1)));
    Screen { rows: screen, cursor }
}

fn title(conversation: &Conversation, columns: usize) -> Row {
    let me = conversation.me.as_ref().map(|me| text::line(&me.username)).unwrap_or_default();
    let channel = conversation.shown().map(|channel| {
        let online = channel.online.values().filter(|status| *status != "offline").count();
        let online = if online > 0 { format!(" ({online} online)") } else { String::new() };
        format!("  #{}{online}", text::line(&channel.name))
    });
    let line = format!(" imks chat  {me}{}  {}", channel.unwrap_or_default(), conversation.link);
    let style = if conversation.is_online { Style::Reverse } else { Style::Alert };
    Row::of(style, text::fill(&line, columns))
}

fn channels(conversation: &Conversation, side: usize, height: usize) -> Vec<(Style, String)> {
    let here: Vec<&Channel> = conversation.channels.iter().filter(|channel| !channel.is_left).collect();
    let current =
        here.iter().position(|channel| Some(&channel.id) == conversation.current.as_ref()).unwrap_or(0);
    let first = (current + 1).saturating_sub(height);
    here.iter()
        .skip(first)
        .take(height)
        .map(|channel| {
            let name = text::line(&channel.name);
            let is_shown = Some(&channel.id) == conversation.current.as_ref();
            match (is_shown, channel.unread) {
                (true, _) => (Style::Reverse, format!(" {name}")),
                (false, 0) => (Style::Plain, format!(" {name}")),
                (false, unread) => {
                    let count = format!(" {unread}");
                    let room = (side - 3).saturating_sub(count.len());
                    (Style::Bold, format!(" {}{count}", text::cut(&name, room)))
                }
            }
        })
        .collect()
}

/// Returns the rows of the messages, as many as there is room for.
fn pane(conversation: &Conversation, columns: usize, height: usize, back: &mut usize) -> Vec<Row> {
    let Some(channel) = conversation.shown() else {
        let notices = conversation.notices.iter().flat_map(|notice| noticed(notice, columns));
        return last(notices.collect(), height, back);
    };
    let concerns = |notice: &&Notice| notice.channel.as_ref().is_none_or(|id| *id == channel.id);
    let mut notices = conversation.notices.iter().rev().filter(concerns).peekable();
    // From the newest upwards, so that a long history costs nothing while it is not looked at.
    let mut upward: Vec<Row> =
        channel.pending.iter().flat_map(|pending| waiting(pending, columns)).rev().collect();
    let needed = height.saturating_add(*back);
    let mut day_below = None;
    for message in channel.messages().iter().rev().filter(|message| message.is_in_channel()) {
        if upward.len() >= needed {
            break;
        }
        let day = message.day();
        if let Some(below) = day_below.replace(day.clone()).filter(|below| *below != day) {
            upward.push(heading(&below, columns));
        }
        while let Some(notice) = notices.next_if(|notice| notice.after >= message.seq) {
            upward.extend(noticed(notice, columns).into_iter().rev());
        }
        upward.extend(written(message, columns).into_iter().rev());
    }
    upward.extend(day_below.map(|day| heading(&day, columns)));
    upward.extend(notices.flat_map(|notice| noticed(notice, columns).into_iter().rev()));
    upward.reverse();
    last(upward, height, back)
}

fn heading(day: &str, columns: usize) -> Row {
    Row::of(Style::Dim, text::cut(&format!("── {day} ──"), columns))
}

fn waiting(pending: &Pending, columns: usize) -> Vec<Row> {
    let (style, mark) = match &pending.failure {
        None => (Style::Dim, "sending".to_owned()),
        Some(why) => (Style::Alert, format!("not sent: {}", text::line(why))),
    };
    let lines = text::wrap(&format!("{} ({mark})", pending.body), columns.saturating_sub(INDENT));
    lines.into_iter().map(|line| Row::of(style, format!("{}{line}", " ".repeat(INDENT)))).collect()
}

fn written(message: &Message, columns: usize) -> Vec<Row> {
    let head = format!("{} ", message.time());
    let name = format!("{} ", text::cut(&message.name(), NAME_MAX));
    let number = format!("#{}", message.seq);
    let mut rows = vec![Row::of(Style::Dim, head).then(Style::Bold, name).then(Style::Dim, number)];
    let indent = " ".repeat(INDENT);
    let lines = text::wrap(&message.shown(), columns.saturating_sub(INDENT));
    let style = if message.deleted_at.is_some() { Style::Dim } else { Style::Plain };
    rows.extend(lines.into_iter().map(|line| Row::of(style, format!("{indent}{line}"))));
    if let Some(addition) = message.addition() {
        let lines = text::wrap(&addition, columns.saturating_sub(INDENT));
        rows.extend(lines.into_iter().map(|line| Row::of(Style::Dim, format!("{indent}{line}"))));
    }
    rows
}

fn noticed(notice: &Notice, columns: usize) -> Vec<Row> {
    let lines = text::wrap(&notice.text, columns.saturating_sub(2));
    lines.into_iter().map(|line| Row::of(Style::Alert, format!("* {line}"))).collect()
}

fn last(mut rows: Vec<Row>, height: usize, back: &mut usize) -> Vec<Row> {
    *back = (*back).min(rows.len().saturating_sub(height));
    rows.truncate(rows.len() - *back);
    rows.split_off(rows.len().saturating_sub(height))
}

fn typing(conversation: &mut Conversation, now_ms: u64) -> String {
    let Some(current) = conversation.current.clone() else { return String::new() };
    let typists = conversation.channel(&current).map(|channel| channel.typists(now_ms)).unwrap_or_default();
    match typists.as_slice() {
        [] => String::new(),
        [one] => format!(" {one} types…"),
        [one, other] => format!(" {one} and {other} type…"),
        several => format!(" {} people type…", several.len()),
    }
}

/// The sign before the line that is typed.
const PROMPT: &str = "> ";
/// The width of the list of channels, with its border.
const SIDE: usize = 22;
/// How wide the terminal must be for it.
const SIDE_NEEDS: usize = 60;
/// How far the text of a message is indented.
const INDENT: usize = 6;
/// The most columns of the name of an author.
const NAME_MAX: usize = 24;

#[cfg(test)]
mod tests;
