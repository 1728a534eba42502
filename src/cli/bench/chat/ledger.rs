//! The ledger of a conversation: what was written and acknowledged, what readers saw, and what both say about the
//! history that the server kept.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::super::numbers::Numbers;

/// What the people of a conversation know.
#[derive(Debug)]
pub(in crate::cli) struct Ledger {
    /// What the messages of this conversation begin with, so that those of others in the channel are told apart.
    run: String,
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    retried: u64,
    /// Those of `retried` for the rate limit.
    limited: u64,
    refused: u64,
    last_refusal: Option<String>,
    is_full: bool,
}

#[derive(Debug, Default)]
struct Writer {
    sent: Vec<Instant>,
    /// The `seq` that the acknowledgement of each message named.
    acknowledged: Vec<Option<i64>>,
}

#[derive(Debug, Default)]
struct Reader {
    first: Option<i64>,
    latest: i64,
    got: Numbers,
    seen: u64,
    doubled: u64,
    out_of_order: u64,
}

/// A message as the history has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Stored {
    pub(in crate::cli) seq: i64,
    pub(in crate::cli) body: String,
}

/// What the ledger and the history say about each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Verdict {
    /// Messages that were given to the client library.
    pub(in crate::cli) sent: u64,
    /// Messages that the server has acknowledged.
    pub(in crate::cli) acknowledged: u64,
    /// Messages of this conversation in the history, each counted once.
    pub(in crate::cli) in_history: u64,
    /// Messages in the history that were never acknowledged: allowed, because their writers stopped waiting.
    pub(in crate::cli) unacknowledged_in_history: u64,
    /// Acknowledged, and not in the history.
    pub(in crate::cli) lost: u64,
    /// In the history more than once.
    pub(in crate::cli) doubled: u64,
    /// In the history before a message that the same person wrote earlier, or with a number that does not grow.
    pub(in crate::cli) out_of_order: u64,
    /// In the history under another number than the acknowledgement said.
    pub(in crate::cli) moved: u64,
    /// Numbers that the history leaves out.
    pub(in crate::cli) holes: u64,
    /// Deliveries that readers saw as they happened, all readers together.
    pub(in crate::cli) seen_live: u64,
    /// Deliveries that a reader got twice.
    pub(in crate::cli) live_doubled: u64,
    /// Deliveries that a reader got after a later one.
    pub(in crate::cli) live_out_of_order: u64,
    /// Refusals for a cause that passes, after which the message was sent again.
    pub(in crate::cli) refused_retryable: u64,
    /// Refusals for good.
    pub(in crate::cli) refused: u64,
    /// Some of the messages that are lost, doubled, moved or out of order, as `writer/number: what`.
    pub(in crate::cli) examples: Vec<String>,
}

impl Verdict {
    /// Whether the promise was kept: nothing acknowledged was lost, doubled, moved or out of order, for the history
    /// and for each reader, and the numbers have no holes.
    pub(in crate::cli) fn is_kept(&self) -> bool {
        let Self { lost, doubled, out_of_order, moved, holes, live_doubled, live_out_of_order, .. } = self;
        [lost, doubled, out_of_order, moved, holes, live_doubled, live_out_of_order]
            .into_iter()
            .all(|it| *it == 0)
    }

    fn example(&mut self, (writer, number): Mark, what: &str) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{writer}/{number}: {what}"));
        }
    }
}

/// The writer of a message, and which of theirs it is, both from 0.
type Mark = (usize, usize);

impl Ledger {
    pub(in crate::cli) fn new(run: String, writers: usize, readers: usize) -> Self {
        let writers = std::iter::repeat_with(Writer::default).take(writers).collect();
        let readers = std::iter::repeat_with(Reader::default).take(readers).collect();
        Self { run, writers, readers, retried: 0, limited: 0, refused: 0, last_refusal: None, is_full: false }
    }

    /// Notes that a writer sends the next message, and returns its number and its body, filled up to `bytes`. `None`
    /// if there is no such writer, or no room for more.
    pub(in crate::cli) fn write(
        &mut self,
        writer: usize,
        bytes: usize,
        now: Instant,
    ) -> Option<(usize, String)> {
        let mut body = format!("{} {writer}/{} ", self.run, self.writers.get(writer)?.sent.len());
        let missing = bytes.saturating_sub(body.len());
        body.push_str(&"x".repeat(missing));
        let writer = self.writers.get_mut(writer)?;
        if writer.sent.len() >= MESSAGES_MAX {
            self.is_full = true;
            return None;
        }
        writer.sent.push(now);
        writer.acknowledged.push(None);
        Some((writer.sent.len() - 1, body))
    }

    /// Notes that the server has acknowledged a message under a number.
    pub(in crate::cli) fn acknowledge(&mut self, writer: usize, number: usize, seq: i64) {
        let writer = self.writers.get_mut(writer);
        if let Some(acknowledged) = writer.and_then(|writer| writer.acknowledged.get_mut(number)) {
            *acknowledged = Some(seq);
        }
    }

    /// Notes a refusal for a cause that passes.
    pub(in crate::cli) fn retry(&mut self, is_limited: bool) {
        self.retried += 1;
        self.limited += u64::from(is_limited);
    }

    /// Returns how often a message was refused for the rate limit.
    pub(in crate::cli) fn limited(&self) -> u64 {
        self.limited
    }

    /// Notes a refusal for good.
    pub(in crate::cli) fn refuse(&mut self, why: String) {
        self.refused += 1;
        self.last_refusal = Some(why);
    }

    /// Whether somebody had more to write than is remembered.
    pub(in crate::cli) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns why a message was last refused for good.
    pub(in crate::cli) fn last_refusal(&self) -> Option<&str> {
        self.last_refusal.as_deref()
    }

    /// Notes that a reader has got a message as it happened, and returns how long after it was written. `None` for the
    /// messages of others, and for one that this reader has already got.
    pub(in crate::cli) fn see(
        &mut self,
        reader: usize,
        seq: i64,
        body: &str,
        now: Instant,
    ) -> Option<Duration> {
        let (writer, number) = self.mark(body)?;
        let sent = *self.writers.get(writer)?.sent.get(number)?;
        let reader = self.readers.get_mut(reader)?;
        let first = *reader.first.get_or_insert(seq);
        let is_new = match seq.checked_sub(first).map(usize::try_from) {
            Some(Ok(at)) if at < MESSAGES_MAX => reader.got.insert(at),
            // Before the first one that was seen, or too far after it to remember: its number says below whether it is
            // out of order.
            _ => true,
        };
        reader.seen += 1;
        if !is_new {
            reader.doubled += 1;
            return None;
        }
        reader.out_of_order += u64::from(seq <= reader.latest);
        reader.latest = reader.latest.max(seq);
        Some(now.saturating_duration_since(sent))
    }

    /// Returns how many messages were acknowledged so far.
    pub(in crate::cli) fn acknowledged(&self) -> u64 {
        let acknowledged = self.writers.iter().flat_map(|writer| &writer.acknowledged);
        acknowledged.filter(|seq| seq.is_some()).count() as u64
    }

    /// Compares the ledger with the history of the channel after the number `after`, oldest first.
    pub(in crate::cli) fn check(&self, after: i64, history: &[Stored]) -> Verdict {
        let mut verdict = Verdict {
            sent: self.writers.iter().map(|writer| writer.sent.len() as u64).sum(),
            acknowledged: self.acknowledged(),
            seen_live: self.readers.iter().map(|reader| reader.seen).sum(),
            live_doubled: self.readers.iter().map(|reader| reader.doubled).sum(),
            live_out_of_order: self.readers.iter().map(|reader| reader.out_of_order).sum(),
            refused_retryable: self.retried,
            refused: self.refused,
            ..Verdict::default()
        };
        self.check_numbers(after, history, &mut verdict);
        let places = self.check_messages(history, &mut verdict);
        self.check_acknowledged(&places, &mut verdict);
        verdict
    }

    /// Checks that numbers grow by one from message to message, from the one that follows `after`.
    fn check_numbers(&self, after: i64, history: &[Stored], verdict: &mut Verdict) {
        let mut before = after;
        for Stored { seq, body } in history {
            let previous = std::mem::replace(&mut before, *seq);
            if *seq > previous {
                verdict.holes = verdict.holes.saturating_add(seq.abs_diff(previous) - 1);
                continue;
            }
            verdict.out_of_order += 1;
            if let Some(mark) = self.mark(body) {
                verdict.example(mark, "its number does not grow");
            }
        }
    }

    /// Checks that each message is there once and in the order of its writer, and returns where each is.
    fn check_messages(&self, history: &[Stored], verdict: &mut Verdict) -> HashMap<Mark, i64> {
        let mut places = HashMap::new();
        let mut latest: HashMap<usize, usize> = HashMap::new();
        for stored in history {
            let Some((writer, number)) = self.mark(&stored.body) else { continue };
            if places.contains_key(&(writer, number)) {
                verdict.doubled += 1;
                verdict.example((writer, number), "twice in the history");
                continue;
            }
            places.insert((writer, number), stored.seq);
            let latest = latest.entry(writer).or_insert(number);
            if number < *latest {
                verdict.out_of_order += 1;
                verdict.example((writer, number), "after a later message of its writer");
            }
            *latest = number.max(*latest);
        }
        verdict.in_history = places.len() as u64;
        places
    }

    /// Checks that each acknowledged message is where the acknowledgement said.
    fn check_acknowledged(&self, places: &HashMap<Mark, i64>, verdict: &mut Verdict) {
        let mut kept = 0;
        for (at, writer) in self.writers.iter().enumerate() {
            for (number, seq) in writer.acknowledged.iter().enumerate() {
                let Some(seq) = seq else { continue };
                match places.get(&(at, number)) {
                    Some(place) if place == seq => kept += 1,
                    Some(_) => {
                        kept += 1;
                        verdict.moved += 1;
                        verdict.example((at, number), "under another number than was acknowledged");
                    }
                    None => {
                        verdict.lost += 1;
                        verdict.example((at, number), "acknowledged and lost");
                    }
                }
            }
        }
        verdict.unacknowledged_in_history = verdict.in_history - kept;
    }

    /// Reads the mark of a message of this conversation.
    fn mark(&self, body: &str) -> Option<Mark> {
        let rest = body.strip_prefix(&*self.run)?.strip_prefix(' ')?;
        let (writer, rest) = rest.split_once('/')?;
        let (number, _) = rest.split_once(' ')?;
        Some((writer.parse().ok()?, number.parse().ok()?))
    }
}

/// The maximum number of messages that one writer sends in a conversation.
const MESSAGES_MAX: usize = 1_000_000;

/// The number of characters of a body that can be the mark: the run, which is a UUID, and two numbers.
pub(super) const MARK_CHARS: usize = 80;

/// The maximum number of examples in a verdict.
const EXAMPLES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    /// A ledger of `writers` that have written `messages` each, all acknowledged, and the history that belongs to it.
    fn conversation(writers: usize, messages: usize) -> (Ledger, Vec<Stored>) {
        let mut ledger = Ledger::new("run".into(), writers, 1);
        let mut history = Vec::new();
        for _ in 0..messages {
            for writer in 0..writers {
                let (number, body) = ledger.write(writer, 0, Instant::now()).unwrap();
                let seq = 7 + history.len() as i64;
                ledger.acknowledge(writer, number, seq);
                history.push(Stored { seq, body });
            }
        }
        (ledger, history)
    }

    fn renumbered(mut history: Vec<Stored>) -> Vec<Stored> {
        (7..).zip(&mut history).for_each(|(seq, stored)| stored.seq = seq);
        history
    }

    #[test]
    fn a_history_with_everything_in_its_place_keeps_the_promise() {
        let (ledger, history) = conversation(3, 5);
        let verdict = ledger.check(6, &history);
        assert!(verdict.is_kept(), "{verdict:?}");
        assert_eq!((verdict.sent, verdict.acknowledged, verdict.in_history), (15, 15, 15));
    }

    #[test]
    fn an_acknowledged_message_that_is_gone_is_lost_and_leaves_a_hole() {
        let (ledger, mut history) = conversation(2, 3);
        history.remove(2);
        let verdict = ledger.check(6, &history);
        assert_eq!((verdict.lost, verdict.holes, verdict.in_history), (1, 1, 5));
        assert_eq!(verdict.examples, ["0/1: acknowledged and lost"]);
        assert!(!verdict.is_kept());
    }

    #[test]
    fn a_number_that_is_missing_before_the_first_message_is_a_hole() {
        let (ledger, history) = conversation(1, 3);
        let verdict = ledger.check(5, &history);
        assert_eq!((verdict.lost, verdict.holes), (0, 1));
        assert!(!verdict.is_kept());
    }

    #[test]
    fn numbers_at_both_ends_of_what_there_can_be_do_not_overflow() {
        let (ledger, _) = conversation(1, 1);
        let ends = [i64::MAX, i64::MIN, i64::MAX].map(|seq| Stored { seq, body: String::new() });
        let verdict = ledger.check(0, &ends);
        assert_eq!((verdict.holes, verdict.out_of_order), (u64::MAX, 1));
    }

    #[test]
    fn a_delivery_that_comes_twice_is_noticed_however_many_came_before() {
        let (mut ledger, history) = conversation(1, 2);
        let far = history[0].seq + MESSAGES_MAX as i64;
        for (at, seq) in [(0, history[0].seq), (1, far), (1, far)] {
            ledger.see(0, seq, &history[at].body, Instant::now());
        }
        assert!(!ledger.check(6, &history).is_kept());
    }

    #[test]
    fn a_lost_last_message_is_found_although_it_leaves_no_hole() {
        let (ledger, mut history) = conversation(1, 3);
        history.pop();
        let verdict = ledger.check(6, &history);
        assert_eq!((verdict.lost, verdict.holes), (1, 0));
        assert!(!verdict.is_kept());
    }

    #[test]
    fn a_message_that_was_stored_twice_is_doubled() {
        let (ledger, mut history) = conversation(1, 3);
        history.push(Stored { seq: 10, body: history[1].body.clone() });
        let verdict = ledger.check(6, &history);
        assert_eq!((verdict.doubled, verdict.lost, verdict.in_history), (1, 0, 3));
        assert!(!verdict.is_kept());
    }

    #[test]
    fn messages_that_changed_places_are_out_of_order_and_not_where_the_server_said() {
        let (ledger, mut history) = conversation(1, 3);
        history.swap(0, 1);
        let verdict = ledger.check(6, &renumbered(history));
        assert_eq!((verdict.out_of_order, verdict.moved), (1, 2));
        assert!(!verdict.is_kept());
    }

    #[test]
    fn numbers_that_do_not_grow_are_out_of_order() {
        let (ledger, mut history) = conversation(2, 1);
        history[1].seq = history[0].seq;
        assert_eq!(ledger.check(6, &history).out_of_order, 1);
    }

    #[test]
    fn a_message_without_an_acknowledgement_may_be_stored_or_not() {
        let (mut ledger, mut history) = conversation(1, 2);
        let (_, stored) = ledger.write(0, 0, Instant::now()).unwrap();
        ledger.write(0, 0, Instant::now()).unwrap();
        history.push(Stored { seq: 9, body: stored });
        let verdict = ledger.check(6, &history);
        assert!(verdict.is_kept(), "{verdict:?}");
        assert_eq!((verdict.sent, verdict.acknowledged, verdict.unacknowledged_in_history), (4, 2, 1));
    }

    #[test]
    fn a_reader_that_gets_a_message_twice_or_late_is_believed() {
        let (mut ledger, history) = conversation(1, 4);
        let mut see = |at: usize| ledger.see(0, history[at].seq, &history[at].body, Instant::now()).is_some();
        assert_eq!([1, 2, 2, 3, 0].map(&mut see), [true, true, false, true, true]);
        let verdict = ledger.check(6, &history);
        assert_eq!((verdict.seen_live, verdict.live_doubled, verdict.live_out_of_order), (5, 1, 1));
        assert!(!verdict.is_kept());
    }

    #[test]
    fn what_others_write_meanwhile_is_not_ours() {
        let (mut ledger, mut history) = conversation(1, 2);
        for body in ["hello", "run", "run 0", "run 0/x y", "other 0/0 ", "run 9/0 "] {
            assert_eq!(ledger.see(0, 1, body, Instant::now()), None, "{body}");
        }
        history.insert(1, Stored { seq: 0, body: "hello".into() });
        let verdict = ledger.check(6, &renumbered(history));
        assert_eq!(verdict.moved, 1, "the second message has another number now");
    }

    #[test]
    fn whoever_has_written_all_that_is_remembered_stops_and_it_is_known() {
        let (mut ledger, _) = conversation(1, 1);
        assert!(!ledger.is_full());
        ledger.writers[0].sent = vec![Instant::now(); MESSAGES_MAX];
        assert_eq!(ledger.write(0, 0, Instant::now()), None);
        assert!(ledger.is_full());
    }

    #[test]
    fn a_body_has_the_wanted_size() {
        let mut ledger = Ledger::new("run".into(), 1, 0);
        assert_eq!(ledger.write(0, 100, Instant::now()).unwrap().1.len(), 100);
        assert_eq!(ledger.write(1, 100, Instant::now()), None);
    }

    proptest! {
        #[test]
        fn any_single_fault_breaks_the_promise(
            (writers, messages) in (1_usize..4, 2_usize..8), at in any::<prop::sample::Index>(), fault in 0..4,
        ) {
            let (ledger, mut history) = conversation(writers, messages);
            let at = at.index(history.len());
            match fault {
                0 => drop(history.remove(at)),
                1 => history.insert(at, history[at].clone()),
                2 => history[at].seq += 1,
                _ => {
                    let last = history.len() - 1;
                    history.swap(at, if at == last { 0 } else { last });
                }
            }
            prop_assert!(!ledger.check(6, &history).is_kept());
        }

        #[test]
        fn no_history_panics(bodies in prop::collection::vec("(run )?[0-9]{0,30}/?[0-9]{0,30} ?x?", 0..20), seq in any::<i32>()) {
            let (mut ledger, _) = conversation(2, 2);
            let stored = |body: &String| Stored { seq: i64::from(seq), body: body.clone() };
            for body in &bodies {
                ledger.see(0, i64::from(seq), body, Instant::now());
            }
            let verdict = ledger.check(6, &bodies.iter().map(stored).collect::<Vec<_>>());
            prop_assert!(verdict.lost <= 4);
        }
    }
}
