//! The events of the feed, read from the messages and the change log.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::Position;
use crate::ImksResult;
use crate::clock::Micros;
use crate::models::channel_change::ChangeKind;
use crate::models::db::{Db, on};
use crate::models::feed_batch::Range;
use crate::models::message::MessageDetail;
use crate::models::message_page::views;
use crate::models::message_row::{BY_IDS, Message, message_columns};
use crate::models::rows::{Column, RowsSql};

/// An event of a channel. Its payload is the message in its current state, so an event that is read late shows
/// nothing that has been changed or deleted since.
#[derive(Debug, Clone)]
pub struct Event {
    /// The name of the event, as clients know it.
    pub name: &'static str,
    /// The channel.
    pub channel_id: Uuid,
    /// The number of the message.
    pub seq: i64,
    /// The number of the change; 0 for a new message.
    pub rev: i64,
    /// The user, bot or webhook that did it.
    pub actor_id: Uuid,
    /// When it was committed.
    pub at: Micros,
    /// The message as JSON (docs/protocol.md).
    pub message: Arc<str>,
    /// The place of this event.
    pub place: Position,
    /// Where a follower goes on that has handled this event.
    pub next: Position,
}

impl Event {
    /// Returns about how many bytes the event takes.
    fn bytes(&self) -> usize {
        self.message.len() + EVENT_BYTES
    }
}

/// The event of a new message. The others are those of [`ChangeKind`].
const NEW: &str = "message:new";

/// What a follower wants to know. Empty sets stand for everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The channels.
    pub channels: HashSet<Uuid>,
    /// The names of events.
    pub events: HashSet<String>,
}

impl Filter {
    /// Returns the names of all events, each once.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        let is_first =
            |&(at, name): &(usize, &str)| ChangeKind::EVENTS.iter().position(|it| *it == name) == Some(at);
        let changes = ChangeKind::EVENTS.iter().copied().enumerate().filter(is_first);
        std::iter::once(NEW).chain(changes.map(|(_, name)| name))
    }

    fn has_channel(&self, channel: Uuid) -> bool {
        self.channels.is_empty() || self.channels.contains(&channel)
    }

    fn has_event(&self, name: &str) -> bool {
        self.events.is_empty() || self.events.contains(name)
    }
}

/// Some events of the feed, and where the next ones are.
#[derive(Debug)]
pub(super) struct Page {
    pub events: Vec<Event>,
    pub next: Position,
    /// Whether the row of the first position was there. If not, it was removed, or its transaction rolled back.
    pub is_joined: bool,
}

/// Reads events from `from` on, out of rows up to `head`, which must be complete: a page of [`EVENTS_PER_PAGE`] and
/// [`PAGE_BYTES_MAX`]. It is read in steps, so that few large messages are in memory that do not fit.
pub(super) async fn read(db: &Db, from: Position, head: i64, filter: &Filter) -> ImksResult<Page> {
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(ROWS).bind(from.batch).bind(head).bind(ROWS_PER_PAGE).fetch_all(pool).await?
    });
    let is_joined = rows.first().is_some_and(|row| row.id == from.batch);
    let is_last = rows.len() < usize::try_from(ROWS_PER_PAGE).unwrap_or(usize::MAX);
    let end = match rows.last() {
        Some(row) if !is_last => Position::after(row.id),
        _ => Position::after(head),
    };
    let mut page = Page { events: Vec::new(), next: from, is_joined };
    let (mut left, mut room) = (EVENTS_PER_PAGE, PAGE_BYTES_MAX);
    while left > 0 {
        let (parts, cut) = parts(&rows, page.next, filter, step(&page.events, room).min(left));
        left -= parts.iter().map(|part| part.range.events()).sum::<i64>();
        for event in events(db, &parts, filter).await? {
            let rest = room.checked_sub(event.bytes());
            if rest.is_none() && !page.events.is_empty() {
                return Ok(Page { next: event.place, ..page });
            }
            room = rest.unwrap_or_default();
            page.events.push(event);
        }
        page.next = cut.unwrap_or(end);
        if cut.is_none() {
            break;
        }
    }
    Ok(page)
}

/// Returns how many events to read next: as many as fit into the room if they are like those so far.
fn step(events: &[Event], room: usize) -> i64 {
    let bytes: usize = events.iter().map(Event::bytes).sum();
    let fitting = room * events.len() / bytes.max(1);
    i64::try_from(fitting).unwrap_or(i64::MAX).max(EVENTS_PER_STEP)
}

#[derive(FromRow)]
struct Row {
    id: i64,
    at: Micros,
    ranges: Vec<u8>,
}

/// A part of a transaction: events of one channel.
struct Part {
    at: Micros,
    range: Range,
    /// The place of the first event.
    first: Position,
    /// The number of events of the transaction.
    total: i64,
}

impl Part {
    /// Returns the place of an event, and the one after it.
    fn places(&self, index: i64) -> (Position, Position) {
        let place = Position { index: self.first.index + index, ..self.first };
        match place.index + 1 < self.total {
            true => (place, Position { index: place.index + 1, ..place }),
            false => (place, Position::after(place.batch)),
        }
    }
}

/// Selects parts with at most `room` events. Returns where the next ones begin, if not all fit.
fn parts(rows: &[Row], from: Position, filter: &Filter, mut room: i64) -> (Vec<Part>, Option<Position>) {
    let mut parts = Vec::new();
    for row in rows.iter().filter(|row| row.id >= from.batch) {
        let mut first = Position { batch: row.id, index: 0 };
        let ranges = Range::decode_all(&row.ranges);
        let total = ranges.iter().map(Range::events).sum();
        for mut range in ranges {
            let count = range.events();
            let skipped = if row.id == from.batch { (from.index - first.index).clamp(0, count) } else { 0 };
            first.index += skipped;
            skip(&mut range, skipped);
            if filter.has_channel(range.channel_id) {
                if room == 0 && range.events() > 0 {
                    return (parts, Some(first));
                }
                let rest = range.events() - room;
                trim(&mut range, rest.max(0));
                room -= range.events();
                parts.push(Part { at: row.at, range, first, total });
                if rest > 0 {
                    return (parts, Some(Position { index: first.index + range.events(), ..first }));
                }
            }
            first.index += count - skipped;
        }
    }
    (parts, None)
}

/// Takes events off the front: messages come before changes.
fn skip(range: &mut Range, count: i64) {
    let messages = count.min(range.messages());
    range.seq.0 += messages;
    range.rev.0 += count - messages;
}

/// Takes events off the end.
fn trim(range: &mut Range, count: i64) {
    let changes = count.min(range.rev.1 - range.rev.0);
    range.rev.1 -= changes;
    range.seq.1 -= count - changes;
}

async fn events(db: &Db, parts: &[Part], filter: &Filter) -> ImksResult<Vec<Event>> {
    let of = |numbers: fn(&Range) -> (i64, i64)| {
        let some: Vec<Range> =
            parts.iter().map(|part| part.range).filter(|it| numbers(it).0 < numbers(it).1).collect();
        [
            Column::of(&some, |range| range.channel_id),
            Column::of(&some, |range| numbers(range).0),
            Column::of(&some, |range| numbers(range).1),
        ]
    };
    let messages: Vec<Message> = MESSAGES.read(db, &of(|range| range.seq)).await?;
    let changes: Vec<Changed> = CHANGES.read(db, &of(|range| range.rev)).await?;
    let new: HashMap<(Uuid, i64), Uuid> =
        messages.iter().map(|row| ((row.channel_id, row.seq), row.id)).collect();
    let known: HashSet<Uuid> = messages.iter().map(|row| row.id).collect();
    let changes: HashMap<(Uuid, i64), Changed> =
        changes.into_iter().map(|change| ((change.channel_id, change.rev), change)).collect();
    let mut missing: Vec<Uuid> =
        changes.values().map(|change| change.message_id).filter(|id| !known.contains(id)).collect();
    missing.sort_unstable();
    missing.dedup();
    let mut rows = messages;
    rows.append(&mut BY_IDS.read(db, &[Column::Ids(missing)]).await?);
    let views = views(db, Uuid::nil(), rows).await?;
    let shown = views.iter().map(Shown::of).collect::<ImksResult<_>>()?;
    let found = Found { new, changes, shown };
    Ok(parts.iter().flat_map(|part| found.of(part)).filter(|event| filter.has_event(event.name)).collect())
}

/// What was read for a page.
struct Found {
    new: HashMap<(Uuid, i64), Uuid>,
    changes: HashMap<(Uuid, i64), Changed>,
    shown: HashMap<Uuid, Shown>,
}

/// A message in its current state.
struct Shown {
    json: Arc<str>,
    author_id: Uuid,
}

/// The message of an event, with the number of its last change.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(flatten)]
    message: &'a MessageDetail,
    rev: i64,
}

impl Shown {
    fn of(message: &MessageDetail) -> ImksResult<(Uuid, Self)> {
        let json = serde_json::to_string(&Payload { message, rev: message.rev })?.into();
        Ok((message.id, Self { json, author_id: message.author.id }))
    }
}

impl Found {
    /// Returns the events of a part. Those of messages that are no longer stored are left out.
    fn of<'a>(&'a self, part: &'a Part) -> impl Iterator<Item = Event> + 'a {
        let Part { at, range, .. } = *part;
        let messages = (range.seq.0 + 1..=range.seq.1).filter_map(move |seq| {
            let shown = self.shown.get(self.new.get(&(range.channel_id, seq))?)?;
            let (name, rev, (place, next)) = (NEW, 0, part.places(seq - range.seq.0 - 1));
            let (channel_id, actor_id, message) = (range.channel_id, shown.author_id, shown.json.clone());
            Some(Event { name, channel_id, seq, rev, actor_id, at, message, place, next })
        });
        let changes = (range.rev.0 + 1..=range.rev.1).filter_map(move |rev| {
            let change = self.changes.get(&(range.channel_id, rev))?;
            let message = self.shown.get(&change.message_id)?.json.clone();
            let (place, next) = part.places(range.messages() + rev - range.rev.0 - 1);
            let Changed { channel_id, kind, seq, actor_id, .. } = *change;
            let name = ChangeKind::event(kind);
            Some(Event { name, channel_id, seq, rev, actor_id, at, message, place, next })
        });
        messages.chain(changes)
    }
}

/// A row of the change log.
#[derive(FromRow)]
struct Changed {
    channel_id: Uuid,
    rev: i64,
    kind: i32,
    message_id: Uuid,
    seq: i64,
    actor_id: Uuid,
}

static MESSAGES: RowsSql = RowsSql::new(
    "of_channel, after, upto",
    concat!(
        "SELECT ",
        message_columns!(),
        " FROM r JOIN message ON channel_id = of_channel AND seq > after AND seq <= upto"
    ),
);
static CHANGES: RowsSql = RowsSql::new(
    "of_channel, after, upto",
    "SELECT channel_id, rev, kind, message_id, seq, actor_id FROM r \
     JOIN channel_change ON channel_id = of_channel AND rev > after AND rev <= upto",
);
const ROWS: &str = "SELECT id, at, ranges FROM feed_batch WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $3";
/// The most transactions that are looked at for a page.
const ROWS_PER_PAGE: i64 = 64;
/// The most events of a page.
const EVENTS_PER_PAGE: i64 = 100;
/// The events that are read at once before it is known how large they are.
const EVENTS_PER_STEP: i64 = 16;
/// The most bytes of a page of the feed. A single event may be larger.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// What an event takes beside its message, in bytes.
const EVENT_BYTES: usize = 300;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn events_are_found_by_the_keys_of_their_channels() {
        for (sql, index) in [(&MESSAGES, "message_channel_seq"), (&CHANGES, "PRIMARY KEY")] {
            let plan = sqlite_plan(&sql.sqlite_text(3, 2).unwrap()).await;
            assert!(plan.iter().any(|line| line.starts_with("SEARCH") && line.contains(index)), "{plan:#?}");
        }
    }

    fn row(id: i64, counts: &[(i64, i64)]) -> Row {
        let mut ranges = Vec::new();
        for (channel, (messages, changes)) in (1_u128..).zip(counts) {
            ranges.extend_from_slice(Uuid::from_u128(channel).as_bytes());
            for number in [10 * id, 100 * id, 10 * id + messages, 100 * id + changes] {
                ranges.extend_from_slice(&number.to_be_bytes());
            }
        }
        Row { id, at: 0, ranges }
    }

    /// Returns every event of the parts: its channel, and whether it is a message or a change, with its number.
    fn told(parts: &[Part]) -> Vec<(Uuid, bool, i64)> {
        let of = |part: &Part| {
            let Range { channel_id, seq, rev } = part.range;
            let messages = (seq.0 + 1..=seq.1).map(move |seq| (channel_id, true, seq));
            messages.chain((rev.0 + 1..=rev.1).map(move |rev| (channel_id, false, rev)))
        };
        parts.iter().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn pages_that_follow_each_other_hold_everything_once(
            rows in prop::collection::vec(prop::collection::vec((0_i64..90, 0_i64..90), 1..4), 1..4),
            stop in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<Row> = (1..).zip(&rows).map(|(id, counts)| row(id, counts)).collect();
            let all: Vec<_> = rows.iter().flat_map(|row| Range::decode_all(&row.ranges)).collect();
            let everything: Vec<Part> = all
                .iter()
                .map(|range| Part { at: 0, range: *range, first: Position { batch: 0, index: 0 }, total: 0 })
                .collect();
            let everything = told(&everything);
            let (mut seen, mut from) = (Vec::new(), Position { batch: 1, index: 0 });
            loop {
                let rest: Vec<Row> = rows.iter().filter(|row| row.id >= from.batch)
                    .map(|row| Row { id: row.id, at: 0, ranges: row.ranges.clone() }).collect();
                let (parts, next) = parts(&rest, from, &Filter::default(), EVENTS_PER_PAGE);
                let page = told(&parts);
                prop_assert!(page.len() <= EVENTS_PER_PAGE as usize);
                // A follower may stop after any event of a page.
                if next.is_some() && !page.is_empty() && stop.index(3) == 0 {
                    let taken = 1 + stop.index(page.len());
                    seen.extend_from_slice(&page[..taken]);
                    let mut left = taken as i64;
                    let part = parts.iter().find(|part| {
                        let inside = left <= part.range.events();
                        if !inside { left -= part.range.events(); }
                        inside
                    }).unwrap();
                    from = Position { index: part.first.index + left, ..part.first };
                    continue;
                }
                seen.extend(page);
                let Some(next) = next else { break };
                from = next;
            }
            prop_assert_eq!(seen, everything);
        }
    }
}
