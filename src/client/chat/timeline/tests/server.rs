//! A channel as the server keeps it, with small limits: what it answers, and the events that it sends.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::*;
use crate::client::chat::message::Page;
use crate::client::chat::wire::{Append, ChannelSync, Deleted, Horizon, Live, OfChannel, Reactions, Updated};

/// The maximum number of messages, and of changes, in one answer of `sync`.
pub(super) const LIMIT: usize = 6;
const PAGE: usize = 4;
/// How many changes are remembered.
const LOG: i64 = 24;
pub(super) const ME: Uuid = Uuid::from_u128(7);

pub(super) fn id(seq: i64) -> Uuid {
    Uuid::from_u128(0x0190_a8c0_0000_7000_8000_0000_0000_0000 + seq as u128)
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) body: String,
    pub(super) is_deleted: bool,
    pub(super) stream: Option<TextStream>,
    reactions: BTreeMap<&'static str, i64>,
    own: BTreeSet<&'static str>,
    version: i64,
    rev: i64,
}

impl Row {
    pub(super) fn is_active(&self) -> bool {
        self.stream.as_ref().is_some_and(TextStream::is_active)
    }

    /// The message as events show it, or to the reader.
    fn json(&self, is_answer: bool) -> Value {
        let total = |(emoji, count): (&&str, &i64)| match is_answer && self.own.contains(emoji) {
            true => ((*emoji).to_owned(), json!({ "count": count, "me": true })),
            false => ((*emoji).to_owned(), json!({ "count": count })),
        };
        let reactions: serde_json::Map<_, _> = self.reactions.iter().map(total).collect();
        json!({
            "id": id(self.seq), "channel_id": Uuid::nil(), "seq": self.seq, "body": self.body, "created_at": "then",
            "author": { "id": ME, "username": "me" }, "nonce": null, "thread_id": null,
            "deleted_at": self.is_deleted.then_some("now"), "stream": self.stream, "reactions": reactions,
            "version": self.version, "edited_at": (self.version > 1).then(|| format!("edit {}", self.version)),
        })
    }

    pub(super) fn view(&self) -> Message {
        serde_json::from_value(self.json(true)).unwrap()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    /// By `seq` - 1. `None` when they are removed.
    rows: Vec<Option<Row>>,
    /// The number of the message that changed, by `rev` - 1.
    log: Vec<i64>,
    pub(super) horizon: i64,
    /// The events that were sent and not fetched.
    pub(super) sent: Vec<Live>,
}

/// An answer that is being made: the heads are read first, and the rows later.
pub(super) enum Prepared {
    Sync { newest: Vec<i64>, missing: usize, changed: Vec<(i64, i64)>, head: ChannelSync },
    History { seqs: Vec<i64> },
    Messages { ids: Vec<Uuid> },
}

pub(super) enum Made {
    Sync(ChannelSync),
    History(Page),
    Messages(Vec<Message>),
}

fn live<T: OfChannel + DeserializeOwned>(payload: Value) -> Live {
    serde_json::from_value::<T>(payload).unwrap().told_to(Some(ME))
}

impl Server {
    pub(super) fn seq(&self) -> i64 {
        self.rows.len() as i64
    }

    pub(super) fn rev(&self) -> i64 {
        self.log.len() as i64
    }

    pub(super) fn present(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.rows.iter().flatten()
    }

    pub(super) fn row(&self, seq: i64) -> Option<&Row> {
        self.rows.get((seq - 1) as usize)?.as_ref()
    }

    pub(super) fn send(&mut self, body: &str, is_streamed: bool) {
        let stream = is_streamed.then(|| TextStream::active(1));
        let (reactions, own) = (BTreeMap::new(), BTreeSet::new());
        let (seq, body) = (self.seq() + 1, body.to_owned());
        let row = Row { seq, body, is_deleted: false, stream, reactions, own, version: 1, rev: 0 };
        self.sent.push(live::<Message>(row.json(false)));
        self.rows.push(Some(row));
    }

    fn change(&mut self, seq: i64, act: impl FnOnce(&mut Row)) -> Option<(i64, Value)> {
        let rev = self.rev() + 1;
        let row = self.rows.get_mut((seq - 1) as usize)?.as_mut().filter(|row| !row.is_deleted)?;
        act(row);
        row.rev = rev;
        let shown = row.json(false);
        self.log.push(seq);
        Some((rev, shown))
    }

    fn update(&mut self, seq: i64, kind: &str, act: impl FnOnce(&mut Row)) {
        let Some((rev, mut payload)) = self.change(seq, act) else { return };
        (payload["rev"], payload["kind"], payload["event_id"]) = (rev.into(), kind.into(), "e".into());
        self.sent.push(live::<Updated>(payload));
    }

    pub(super) fn edit(&mut self, seq: i64, body: &str) {
        self.update(seq, "edit", |row| {
            (row.body, row.version) = (body.to_owned(), row.version + 1);
            row.stream.iter_mut().for_each(|stream| stream.state = "finished".into());
        });
    }

    pub(super) fn finish(&mut self, seq: i64) {
        if self.row(seq).is_some_and(Row::is_active) {
            self.update(seq, "stream", |row| {
                row.stream.iter_mut().for_each(|stream| stream.state = "finished".into());
            });
        }
    }

    pub(super) fn delete(&mut self, seq: i64) {
        let deleted = self.change(seq, |row| {
            (row.is_deleted, row.stream) = (true, None);
            row.body.clear();
            row.reactions.clear();
            row.own.clear();
        });
        let Some((rev, _)) = deleted else { return };
        let payload =
            json!({ "channel_id": Uuid::nil(), "id": id(seq), "seq": seq, "rev": rev, "deleted_at": "now" });
        self.sent.push(live::<Deleted>(payload));
    }

    /// Somebody adds a reaction; the reader takes theirs back if there is one.
    pub(super) fn react(&mut self, seq: i64, emoji: &'static str, is_own: bool) {
        let mut is_added = true;
        let changed = self.change(seq, |row| {
            is_added = !(is_own && row.own.remove(emoji));
            if is_own && is_added {
                row.own.insert(emoji);
            }
            *row.reactions.entry(emoji).or_default() += if is_added { 1 } else { -1 };
            row.reactions.retain(|_, count| *count > 0);
        });
        let Some((rev, shown)) = changed else { return };
        self.sent.push(live::<Reactions>(json!({
            "channel_id": Uuid::nil(), "message_id": id(seq), "rev": rev, "reactions": shown["reactions"],
            "emoji": emoji, "action": if is_added { "add" } else { "remove" },
            "user_id": if is_own { ME } else { Uuid::nil() },
        })));
    }

    pub(super) fn append(&mut self, seq: i64, text: &str) {
        let row = self.rows.get_mut((seq - 1) as usize).and_then(Option::as_mut);
        let Some(row) = row.filter(|row| row.is_active()) else { return };
        let offset = row.stream.as_ref().unwrap().offset;
        row.body.push_str(text);
        row.stream = Some(TextStream::active(offset + text.chars().count() as u64));
        let payload = json!({ "channel_id": Uuid::nil(), "id": id(seq), "offset": offset, "text": text });
        self.sent.push(live::<Append>(payload));
    }

    /// Removes the messages up to `seq`, because they are too old.
    pub(super) fn retain(&mut self, seq: i64) {
        if seq <= self.horizon {
            return;
        }
        self.horizon = seq;
        self.rows.iter_mut().take(seq as usize).for_each(|row| *row = None);
        let payload = json!({ "channel_id": Uuid::nil(), "horizon_seq": seq, "horizon_id": id(seq) });
        self.sent.push(live::<Horizon>(payload));
    }

    pub(super) fn prepare(&self, ask: &Ask) -> Prepared {
        match ask {
            Ask::Sync { seq, rev } => self.prepare_sync(*seq, *rev),
            Ask::History { after } => Prepared::History {
                seqs: self.present().map(|row| row.seq).filter(|seq| id(*seq) > *after).collect(),
            },
            Ask::Messages { ids } => Prepared::Messages { ids: ids.clone() },
        }
    }

    fn prepare_sync(&self, seq: i64, rev: i64) -> Prepared {
        let (head, until, horizon) = (self.seq(), self.rev(), self.horizon);
        let mut changed = BTreeMap::new();
        for at in rev..until {
            changed.insert(self.log[at as usize], at + 1);
        }
        let reset = seq > head || rev > until || until - rev > LOG || changed.len() > LIMIT;
        let missing = (head - if reset { horizon } else { seq.max(horizon) }) as usize;
        let newest =
            self.present().map(|row| row.seq).filter(|it| *it > head - missing.min(LIMIT) as i64).collect();
        let mut changes: Vec<(i64, i64)> = Vec::new();
        if !reset {
            let active = self
                .present()
                .filter(|row| row.is_active() && row.seq <= seq && !changed.contains_key(&row.seq));
            // A streamed message may have the number of another change.
            changes.extend(active.map(|row| (until.min(row.rev), row.seq)));
            changes.extend(changed.into_iter().map(|(seq, rev)| (rev, seq)));
            changes.sort_by_key(|(rev, _)| *rev);
        }
        let head = ChannelSync {
            channel_id: Uuid::nil(),
            messages: Vec::new(),
            changes: Vec::new(),
            seq: head,
            rev: until,
            truncated: false,
            reset,
            horizon_seq: horizon,
            horizon_id: (horizon > 0).then(|| id(horizon)),
        };
        Prepared::Sync { newest, missing, changed: changes, head }
    }

    pub(super) fn make(&self, prepared: Prepared) -> Made {
        let view = |seq: i64| self.row(seq).map(Row::view);
        match prepared {
            Prepared::Sync { newest, missing, changed, mut head } => {
                head.messages = newest.into_iter().filter_map(view).collect();
                head.truncated = head.messages.len() < missing;
                let changes = changed.into_iter();
                let changes = changes.filter_map(|(rev, seq)| {
                    view(seq).map(|message| json!({ "rev": rev, "message": message }))
                });
                head.changes = changes.map(|change| serde_json::from_value(change).unwrap()).collect();
                Made::Sync(head)
            }
            Prepared::History { seqs } => {
                let mut messages: Vec<Message> = seqs.into_iter().filter_map(view).collect();
                let has_more_after = messages.len() > PAGE;
                messages.truncate(PAGE);
                Made::History(Page { messages, has_more_before: false, has_more_after })
            }
            Prepared::Messages { ids } => Made::Messages(
                self.present().filter(|row| ids.contains(&id(row.seq))).map(Row::view).collect(),
            ),
        }
    }
}
