//! A reader against a server: in the cases that have a name, and in random interleavings, in which whatever is lost, doubled,
//! late or cut, the reader's copy becomes the server's.

mod server;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use self::server::{LIMIT, Made, Prepared, Row, Server, id};
use super::*;

const RUNS: u64 = 250;
const STEPS: usize = 300;
const BUFFER: usize = 8;

/// Numbers that are always the same for one seed.
struct Random(u64);

impl Random {
    /// Returns a number from 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What a reader keeps, and what it was promised.
#[derive(Default)]
struct Reader {
    messages: Vec<Message>,
    newest: i64,
    counts: BTreeMap<&'static str, u64>,
    cursor: Option<Cursor>,
}

impl Reader {
    fn read(&mut self, (event, cursor): (ChannelEvent, Cursor)) {
        let name = match &event {
            ChannelEvent::Message(message) => {
                assert_eq!(message.seq, self.newest + 1, "the next message comes next");
                self.newest += 1;
                "message"
            }
            ChannelEvent::Gap { after, before } => {
                assert!(*after == self.newest && *before > after + 1, "a gap has something in it");
                self.newest = before - 1;
                "gap"
            }
            ChannelEvent::Removed { until_seq, .. } => {
                self.newest = self.newest.max(*until_seq);
                "removed"
            }
            ChannelEvent::Reset { .. } => {
                self.newest = cursor.seq;
                "reset"
            }
            ChannelEvent::Updated { id, .. } | ChannelEvent::Deleted { id, .. } => {
                assert!(Some(*id) <= cursor.id, "no change comes before its message");
                if matches!(event, ChannelEvent::Deleted { .. }) { "deleted" } else { "updated" }
            }
            ChannelEvent::Append { .. } => "append",
        };
        *self.counts.entry(name).or_default() += 1;
        assert_eq!(cursor.seq, self.newest, "a cursor is the place after its event");
        event.apply(&mut self.messages);
        self.cursor = Some(cursor);
    }
}

enum Stage {
    Begin,
    Make(Prepared),
    Arrive(Made),
}

struct World {
    random: Random,
    now: Instant,
    server: Server,
    wire: VecDeque<Live>,
    is_connected: bool,
    asked: Option<(Ask, Stage)>,
    backup: Option<Server>,
    reader: Reader,
    timeline: Timeline,
    options: Options,
    /// The streamed messages whose last piece did not arrive.
    torn: BTreeSet<Uuid>,
}

impl World {
    fn new(seed: u64, skip_gaps: bool) -> Self {
        let options = Options { buffer: BUFFER, skip_gaps };
        Self {
            random: Random(seed),
            now: Instant::now(),
            server: Server::default(),
            wire: VecDeque::new(),
            is_connected: false,
            asked: None,
            backup: None,
            reader: Reader::default(),
            timeline: Timeline::new(Cursor::default(), 0, options),
            options,
            torn: BTreeSet::new(),
        }
    }

    fn chance(&mut self, part: f64) -> bool {
        self.random.next() < part
    }

    /// Carries what the server has sent.
    fn carry(&mut self) {
        let sent = std::mem::take(&mut self.server.sent);
        if self.is_connected {
            self.wire.extend(sent);
        }
    }

    /// Returns the number of a message, mostly of a new one.
    fn any(&mut self) -> i64 {
        let back = self.random.next().powi(3) * self.server.seq() as f64;
        self.server.seq() - back as i64
    }

    fn talk(&mut self) {
        let (what, seq, text) = (self.random.next(), self.any(), format!("text {}", self.random.next()));
        match what {
            _ if what < 0.35 => self.server.send(&text, false),
            _ if what < 0.42 => self.server.send("…", true),
            _ if what < 0.55 => {
                let (emoji, is_own) = (if self.chance(0.5) { "a" } else { "b" }, self.chance(0.3));
                self.server.react(seq, emoji, is_own);
            }
            _ if what < 0.68 => self.server.edit(seq, &text),
            _ if what < 0.73 => self.server.delete(seq),
            _ if what < 0.93 => self.server.append(seq, "π😀"),
            _ if what < 0.98 => self.server.finish(seq),
            _ if what < 0.995 => {
                let until = self.server.seq() as f64 * self.random.next();
                self.server.retain(until as i64);
            }
            _ => self.remember(),
        }
        self.carry();
    }

    /// Restores a backup of the server, which is another history. Until it has grown beyond the old one, everybody can see that.
    fn remember(&mut self) {
        match self.backup.take() {
            None => self.backup = Some(self.server.clone()),
            Some(backup) if self.reader.newest > backup.seq() && self.asked.is_none() => {
                self.cut();
                self.server = backup;
                self.connect();
                self.settle();
            }
            backup => self.backup = backup,
        }
    }

    fn cut(&mut self) {
        self.is_connected = false;
        self.wire.clear();
        if self.asked.take().is_some() {
            self.timeline.resync();
        }
    }

    fn connect(&mut self) {
        self.is_connected = true;
        self.timeline.resync();
    }

    fn hear(&mut self) {
        let Some(event) = self.wire.pop_front() else { return };
        // What a slow connection does not get: states that are followed by newer ones, and pieces of streams.
        let piece_of = match &event {
            Live::Append { id, .. } => Some(*id),
            _ => None,
        };
        let is_reaction = matches!(&event, Live::Change(Numbered { changed: Changed::Updated { kind, .. }, .. })
            if &**kind == "reaction");
        let is_lossy = is_reaction || matches!(event, Live::Append { .. } | Live::Horizon { .. });
        piece_of.map(|id| self.torn.remove(&id));
        if is_lossy && self.chance(0.2) {
            self.torn.extend(piece_of);
            return;
        }
        self.timeline.live(event.clone(), self.now);
        if self.chance(0.05) {
            self.timeline.live(event, self.now);
        }
    }

    fn ask(&mut self) {
        if self.is_connected && self.asked.is_none() {
            self.asked = self.timeline.next(self.now).map(|ask| (ask, Stage::Begin));
        }
    }

    /// A request arrives some time after it was sent, the answer is made some time after that, and arrives later still.
    fn answer(&mut self) {
        let Some((ask, stage)) = self.asked.take() else { return };
        let next = match stage {
            Stage::Begin => Stage::Make(self.server.prepare(&ask)),
            Stage::Make(prepared) => Stage::Arrive(self.server.make(prepared)),
            Stage::Arrive(Made::Sync(answer)) => return self.timeline.synced(answer, self.now),
            Stage::Arrive(Made::History(page)) => return self.timeline.page(page, self.now),
            Stage::Arrive(Made::Messages(messages)) => return self.timeline.got(messages),
        };
        self.asked = Some((ask, next));
    }

    fn newest(&self, is_so: impl Fn(&Row) -> bool) -> Option<i64> {
        self.server.present().rev().find(|row| is_so(row)).map(|row| row.seq)
    }

    /// A piece is lost, the next one shows it, and the text is asked for.
    fn tear(&mut self) {
        if !self.is_connected {
            return;
        }
        self.settle();
        let Some(seq) = self.newest(Row::is_active) else { return };
        self.server.append(seq, "lost");
        self.server.sent.clear();
        self.torn.insert(id(seq));
        self.server.append(seq, "heard");
        self.carry();
        self.hear();
        self.ask();
    }

    /// While a text is asked for, its message is deleted, ends or changes, and that may be heard before the answer.
    fn overtake(&mut self) {
        let seq = match &self.asked {
            Some((Ask::Messages { ids }, _)) => self.newest(|row| ids.contains(&id(row.seq))),
            Some((Ask::Sync { seq, .. }, _)) => self.newest(|row| row.seq <= *seq && row.is_active()),
            _ => return,
        };
        let is_of_one = matches!(&self.asked, Some((Ask::Messages { .. }, _)));
        let Some(seq) = seq else { return };
        match self.random.next() {
            part if part < 0.3 => self.server.delete(seq),
            part if part < 0.65 => self.server.finish(seq),
            _ => self.server.react(seq, "a", false),
        }
        self.carry();
        while is_of_one && !self.wire.is_empty() {
            self.hear();
        }
    }

    fn read(&mut self) -> bool {
        let event = self.timeline.take();
        let is_there = event.is_some();
        event.into_iter().for_each(|event| self.reader.read(event));
        is_there
    }

    /// The program of the reader goes on from the last event that it has read.
    fn restart(&mut self) {
        let Some(cursor) = self.reader.cursor else { return };
        self.cut();
        self.timeline = Timeline::new(cursor, 0, self.options);
        self.connect();
    }

    fn step(&mut self) {
        let what = self.random.next();
        if self.chance(0.01) {
            self.tear();
        }
        if self.chance(0.1) {
            self.overtake();
        }
        match what {
            _ if what < 0.4 => self.talk(),
            _ if what < 0.65 => self.hear(),
            _ if what < 0.72 => self.ask(),
            _ if what < 0.82 => self.answer(),
            _ if what < 0.93 => drop(self.read()),
            _ if what < 0.95 => self.now += HOLE_MAX.mul_f64(self.random.next()),
            _ if what < 0.965 && self.is_connected => self.cut(),
            _ if what < 0.965 => self.connect(),
            _ if what < 0.97 => self.timeline.heads(self.server.seq(), self.server.rev()),
            _ if what < 0.985 => self.timeline.resync(),
            _ if self.chance(0.3) => (0..LIMIT * 4).for_each(|_| self.talk()),
            _ => {}
        }
        let bound = BUFFER + 3 * LIMIT + PENDING_MAX + 4;
        assert!(self.timeline.waiting() <= bound, "{} events wait", self.timeline.waiting());
    }

    /// Everything arrives, is asked and read.
    fn settle(&mut self) {
        if !self.is_connected {
            self.connect();
        }
        for _ in 0..10_000 {
            while let Some(event) = self.wire.pop_front() {
                self.timeline.live(event, self.now);
            }
            self.now += HOLE_MAX;
            let (is_read, was_asked) = (self.read(), self.asked.is_some());
            self.ask();
            let is_asked = self.asked.is_some();
            self.answer();
            if !(is_read || was_asked || is_asked) && self.timeline.due_at(self.now).is_none() {
                return;
            }
        }
        panic!("it comes to no end");
    }

    fn check(&mut self) {
        self.settle();
        // What was left out is followed by something newer: the next state, the next piece of a stream.
        self.server.send("the last word", false);
        self.server.react(self.server.seq(), "c", false);
        let torn: Vec<i64> =
            self.server.present().map(|row| row.seq).filter(|seq| self.torn.contains(&id(*seq))).collect();
        torn.into_iter().for_each(|seq| self.server.append(seq, "!"));
        self.carry();
        self.settle();
        let cursor = self.timeline.cursor;
        assert_eq!((cursor.seq, cursor.rev), (self.server.seq(), self.server.rev()));
        assert_eq!(self.timeline.waiting(), 0);
        // The event that says what was removed may be lost. The next `sync` says it again.
        let mine: Vec<&Message> =
            self.reader.messages.iter().filter(|it| it.seq > self.server.horizon).collect();
        for message in &mine {
            let theirs = self.server.row(message.seq).map(Row::view).unwrap();
            let fields = |it: &Message| {
                (
                    it.body.clone(),
                    it.deleted_at.clone(),
                    it.edited_at.clone(),
                    it.stream.clone(),
                    it.more["version"].clone(),
                )
            };
            assert_eq!(
                fields(message),
                fields(&theirs),
                "the copy of the reader is the server's: {}",
                message.seq
            );
            assert_eq!(message.more["reactions"], theirs.more["reactions"], "{}", message.seq);
        }
        if let (false, Some(first)) = (self.options.skip_gaps, mine.first()) {
            let there = self.server.present().map(|row| row.seq).filter(|seq| *seq >= first.seq);
            assert!(there.eq(mine.iter().map(|message| message.seq)), "nothing is missing in between");
        }
    }
}

fn every_interleaving_is_right(skip_gaps: bool, kinds: &[&str]) {
    let mut counts = BTreeMap::<_, u64>::new();
    for seed in 1..=RUNS {
        let mut world = World::new(seed, skip_gaps);
        (0..STEPS).for_each(|_| world.step());
        world.check();
        world.reader.counts.into_iter().for_each(|(kind, count)| *counts.entry(kind).or_default() += count);
    }
    // The runs are worth something only if everything happens in them.
    for kind in kinds {
        assert!(counts.get(kind).is_some_and(|count| *count > RUNS / 50), "{kind}: {counts:?}");
    }
}

#[test]
fn every_message_comes_once_in_order_with_every_change_in_any_interleaving() {
    every_interleaving_is_right(false, &["message", "updated", "deleted", "append", "removed", "reset"]);
}

#[test]
fn a_reader_that_skips_gaps_has_everything_but_these_in_any_interleaving() {
    every_interleaving_is_right(
        true,
        &["message", "updated", "deleted", "append", "removed", "reset", "gap"],
    );
}

#[test]
fn a_program_that_goes_on_from_a_kept_cursor_misses_nothing_and_gets_nothing_twice() {
    for seed in 1..=RUNS / 2 {
        let mut world = World::new(seed, false);
        for _ in 0..STEPS {
            world.step();
            if world.chance(0.02) {
                world.restart();
            }
        }
        world.check();
    }
}

fn timeline(seq: i64, rev: i64) -> Timeline {
    let cursor = Cursor { seq, rev, id: (seq > 0).then(|| id(seq)) };
    Timeline::new(cursor, 0, Options { buffer: 4, skip_gaps: false })
}

/// The events of a server with these messages, of which the first was edited.
fn events(messages: i64) -> Vec<Live> {
    let mut server = Server::default();
    (1..=messages).for_each(|number| server.send(&number.to_string(), false));
    server.edit(1, "edited");
    server.sent
}

fn told(timeline: &mut Timeline) -> Vec<String> {
    let name = |event: ChannelEvent| match event {
        ChannelEvent::Message(message) => format!("message {}", message.seq),
        ChannelEvent::Updated { rev, .. } => format!("updated {rev}"),
        other => format!("{other:?}"),
    };
    std::iter::from_fn(|| timeline.take()).map(|(event, _)| name(event)).collect()
}

#[test]
fn a_hole_that_closes_by_itself_costs_no_request_and_one_that_stays_is_asked_for_after_two_seconds() {
    let (mut timeline, now) = (timeline(0, 0), Instant::now());
    let events = events(2);
    timeline.live(events[1].clone(), now);
    assert_eq!((timeline.next(now), timeline.due_at(now)), (None, Some(now + HOLE_MAX)));
    timeline.live(events[0].clone(), now);
    assert_eq!(
        (told(&mut timeline), timeline.due_at(now)),
        (vec!["message 1".into(), "message 2".into()], None)
    );
    let Live::Change(change) = events[2].clone() else { panic!() };
    timeline.live(Live::Change(Numbered { rev: 2, ..change }), now);
    assert_eq!(timeline.next(now + HOLE_MAX), Some(Ask::Sync { seq: 2, rev: 0 }));
}

#[test]
fn a_change_waits_for_its_message_and_what_comes_twice_is_told_once() {
    let (mut timeline, now) = (timeline(0, 0), Instant::now());
    let events = events(2);
    for at in [2, 1, 2, 0, 0, 1, 2] {
        timeline.live(events[at].clone(), now);
    }
    assert_eq!(told(&mut timeline), ["message 1", "updated 1", "message 2"]);
    assert_eq!(timeline.waiting(), 0);
}

#[test]
fn a_slow_reader_holds_nothing_but_its_buffer_and_gets_what_was_dropped_when_it_reads_again() {
    let (mut timeline, now) = (timeline(0, 0), Instant::now());
    for event in events(1_000) {
        timeline.live(event, now);
    }
    assert_eq!((timeline.waiting(), timeline.next(now)), (4, None));
    assert!(timeline.take().is_some() && timeline.take().is_some());
    assert_eq!(timeline.next(now), Some(Ask::Sync { seq: 4, rev: 0 }));
}

#[test]
fn numbers_at_their_end_break_nothing() {
    let (mut timeline, now) = (timeline(i64::MAX, i64::MAX), Instant::now());
    events(2).into_iter().for_each(|event| timeline.live(event, now));
    timeline.heads(i64::MAX, i64::MAX);
    let end = json!({
        "channel_id": Uuid::nil(), "messages": [], "changes": [], "seq": i64::MAX, "rev": i64::MAX, "truncated": true,
        "reset": true, "horizon_seq": i64::MAX, "horizon_id": null,
    });
    timeline.synced(serde_json::from_value(end).unwrap(), now);
    assert_eq!(timeline.take().map(|(_, cursor)| cursor.seq), Some(i64::MAX));
}

#[test]
fn what_quotes_a_deleted_message_loses_the_text_and_what_is_ones_own_stays() {
    let row = |seq: i64, more: serde_json::Value| -> Message {
        let mut message = json!({
            "id": id(seq), "channel_id": Uuid::nil(), "seq": seq, "body": "text", "created_at": "then",
            "author": { "id": Uuid::nil(), "username": "a" },
        });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(message).unwrap()
    };
    let mut list = vec![
        row(1, json!({ "acked": true })),
        row(2, json!({ "reply_to": { "id": id(1), "body": "text" }, "poll": { "my_votes": ["x"] } })),
    ];
    let deleted =
        ChannelEvent::Deleted { id: id(1), seq: 1, rev: 1, deleted_at: "now".into(), message: None };
    deleted.apply(&mut list);
    let fields = serde_json::Map::from_iter([("poll".to_owned(), json!({ "votes": 2 }))]);
    let (change, own) = (Change::Fields(fields), Some(BTreeMap::new()));
    ChannelEvent::Updated { id: id(2), rev: 2, kind: "poll".into(), change, own }.apply(&mut list);
    assert_eq!(
        (&*list[0].body, list[0].more.get("acked"), list[0].more["pinned"].clone()),
        ("", None, json!(false))
    );
    assert_eq!(list[1].more["reply_to"]["body"], "");
    assert_eq!(list[1].more["poll"], json!({ "votes": 2, "my_votes": ["x"] }));
}
