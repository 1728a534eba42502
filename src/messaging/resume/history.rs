//! What a client has, by its offset and the stored journal of the node that gave it. Pure.
//!
//! In doubt there is no answer: a client that is told that nothing is missing does not look for it.

use std::collections::HashMap;

use uuid::Uuid;

use super::journal::{Delivery, Part, Place};
use super::record::Record;

/// The stored part of a journal.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Deliveries that began up to this number are known by the last one of each channel only.
    folded: u64,
    /// Deliveries that began up to this number are known.
    upto: u64,
    /// In the order in which they began.
    deliveries: Vec<Delivery>,
    /// The places in `deliveries` of those of a channel.
    of_channel: HashMap<Uuid, Vec<usize>>,
}

/// What is known of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// How far it has come in each channel that its session follows.
    Has(HashMap<Uuid, Place>),
    /// Nothing for sure yet: its node has not stored that part of the journal, or never will. If the event itself is in that
    /// part, how far it had come in each channel before: what came between that and the event is not known.
    NotYet(Option<Before>),
    /// Nothing: the offset is too old, of another session, or of two events that came at the same time.
    Nothing,
}

/// How far a client had come in each channel when the journal was last stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Before {
    /// Up to which number it is stored.
    pub(super) upto: u64,
    pub(super) has: HashMap<Uuid, Place>,
}

impl History {
    /// Adds the next part.
    pub(super) fn add(&mut self, part: Part) {
        for delivery in part.deliveries {
            self.of_channel.entry(delivery.channel).or_default().push(self.deliveries.len());
            self.deliveries.push(delivery);
        }
        self.upto = self.upto.max(part.upto);
    }

    /// Notes up to which number deliveries were known by the last ones only, when the first parts were read. What was made
    /// short since is here as it was.
    pub(super) fn begins_after(&mut self, number: u64) {
        self.folded = number;
        self.upto = self.upto.max(number);
    }

    /// Whether the last deliveries of its channels say something about a session. What began before the session did, that was
    /// told of when it began.
    pub(super) fn needs_lasts(&self, record: &Record) -> bool {
        record.began.number < self.folded
    }

    /// Returns how far the client of a session has come that has this offset. `lasts` has the last delivery of each
    /// channel among those that are known by it only.
    pub(super) fn of(&self, record: &Record, number: u64, lasts: &HashMap<Uuid, Delivery>) -> Known {
        if number == record.began.number {
            return Known::Has(record.followed().map(|(channel, from, _)| (channel, from)).collect());
        }
        if number < record.began.number {
            return Known::Nothing;
        }
        if number > self.upto {
            // Whatever is stored and had not ended when it began may be of the same time.
            let has = self.places(record, (number, u64::MAX), lasts);
            return has.map_or(Known::Nothing, |has| Known::NotYet(Some(Before { upto: self.upto, has })));
        }
        let folded = || lasts.values().find(|last| last.began == number && number <= self.folded);
        match self.find(number).or_else(folded) {
            Some(event) if event.ended > self.upto => Known::NotYet(None),
            Some(event) => {
                self.places(record, (number, event.ended), lasts).map_or(Known::Nothing, Known::Has)
            }
            None => Known::Nothing,
        }
    }

    /// Returns how far the client of a session has come in each channel. `None` if that is not known for one.
    fn places(
        &self,
        record: &Record,
        event: (u64, u64),
        lasts: &HashMap<Uuid, Delivery>,
    ) -> Option<HashMap<Uuid, Place>> {
        let followed = record.followed().map(|(channel, from, _)| {
            let place = self.place(channel, event, lasts.get(&channel))?;
            Some((channel, place.map_or(from, |place| from.and(place))))
        });
        followed.collect()
    }

    /// Returns up to which number deliveries are known.
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }

    fn find(&self, number: u64) -> Option<&Delivery> {
        let place = self.deliveries.partition_point(|delivery| delivery.began < number);
        self.deliveries.get(place).filter(|delivery| delivery.began == number)
    }

    /// Returns how far a client has come in a channel, by the last delivery that came before the event or is it. `None` if
    /// one began before the event had ended that did not come before it, or if the one before is not known any more.
    fn place(&self, channel: Uuid, event: (u64, u64), last: Option<&Delivery>) -> Option<Option<Place>> {
        let (number, end) = event;
        let comes_first = |it: &Delivery| it.ended < number || it.began == number;
        if last.is_some_and(|last| !comes_first(last) && last.began < end) {
            return None;
        }
        let all = self.of_channel.get(&channel).map_or(&[][..], |places| places);
        let delivery = |place: &usize| self.deliveries.get(*place);
        let before = all.partition_point(|place| delivery(place).is_some_and(comes_first));
        let next = all.get(before).and_then(delivery);
        if next.is_some_and(|next| next.began < end) {
            return None;
        }
        let newest = before.checked_sub(1).and_then(|place| all.get(place)).and_then(delivery);
        // It took the place of an earlier one, which may have come before the event.
        if newest.is_none() && last.is_some_and(|last| !comes_first(last)) {
            return None;
        }
        let known = newest.into_iter().chain(last.filter(|last| comes_first(last)));
        Some(known.map(|it| it.at).reduce(Place::and))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::journal::{Begun, Journal, Mark};
    use super::super::record::Standing;
    use super::super::trail::Trail;
    use super::*;

    fn channel(n: u8) -> Uuid {
        Uuid::from_bytes([n; 16])
    }

    fn delivery(began: u64, ended: u64, n: u8, seq: i64) -> Delivery {
        Delivery { began, ended, channel: channel(n), at: Place { seq, rev: 0 } }
    }

    fn record(began: u64, channels: &[(u8, i64)]) -> Record {
        let follows = |(n, seq): &(u8, i64)| {
            (channel(*n), Standing::Follows { from: Place { seq: *seq, rev: 0 }, facts: 0 })
        };
        let channels = channels.iter().map(follows).collect();
        Record { began: Mark { epoch: 1, number: began }, user_rev: 0, is_light: false, channels }
    }

    fn history(deliveries: Vec<Delivery>, upto: u64) -> History {
        let mut history = History::default();
        history.add(Part { epoch: 1, upto, deliveries });
        history
    }

    fn has(places: &[(u8, i64)]) -> Known {
        Known::Has(places.iter().map(|(n, seq)| (channel(*n), Place { seq: *seq, rev: 0 })).collect())
    }

    #[test]
    fn an_offset_means_everything_that_ended_before_and_the_event_itself() {
        let history = history(vec![delivery(2, 3, 1, 5), delivery(4, 5, 2, 8), delivery(6, 7, 1, 6)], 7);
        let (record, none) = (record(1, &[(1, 4), (2, 7), (3, 9)]), HashMap::new());
        assert_eq!(history.of(&record, 1, &none), has(&[(1, 4), (2, 7), (3, 9)]), "the beginning alone");
        assert_eq!(history.of(&record, 2, &none), has(&[(1, 5), (2, 7), (3, 9)]));
        assert_eq!(history.of(&record, 4, &none), has(&[(1, 5), (2, 8), (3, 9)]));
        assert_eq!(history.of(&record, 6, &none), has(&[(1, 6), (2, 8), (3, 9)]));
        assert_eq!(history.of(&record, 0, &none), Known::Nothing, "of an earlier session");
        assert_eq!(history.of(&record, 5, &none), Known::Nothing, "no event has it");
        let Known::Has(has) = has(&[(1, 6), (2, 8), (3, 9)]) else { unreachable!() };
        let before = Before { upto: 7, has };
        assert_eq!(history.of(&record, 8, &none), Known::NotYet(Some(before)), "and what came since");
    }

    #[test]
    fn who_got_later_messages_before_earlier_changes_has_both() {
        let at = |began: u64, seq: i64, rev: i64| Delivery {
            began,
            ended: began + 1,
            channel: channel(1),
            at: Place { seq, rev },
        };
        // The session began at 3 and 5, on a node that was at 2 and 0.
        let history = history(vec![at(2, 4, 0), at(4, 5, 0), at(6, 5, 6)], 7);
        let from = Standing::Follows { from: Place { seq: 3, rev: 5 }, facts: 0 };
        let channels = HashMap::from([(channel(1), from)]);
        let session = Record { channels, ..record(1, &[]) };
        for (number, seq, rev) in [(2, 4, 5), (4, 5, 5), (6, 5, 6)] {
            let has = HashMap::from([(channel(1), Place { seq, rev })]);
            assert_eq!(history.of(&session, number, &HashMap::new()), Known::Has(has));
        }
    }

    #[test]
    fn two_events_at_the_same_time_leave_a_doubt_if_the_session_gets_both() {
        let history = history(vec![delivery(2, 5, 1, 5), delivery(3, 4, 2, 8)], 5);
        let none = HashMap::new();
        for offset in [2, 3] {
            assert_eq!(history.of(&record(1, &[(1, 4), (2, 7)]), offset, &none), Known::Nothing);
        }
        assert_eq!(history.of(&record(1, &[(1, 4)]), 2, &none), has(&[(1, 5)]));
    }

    #[test]
    fn a_quiet_client_is_known_by_the_last_events_of_its_channels() {
        let mut history = history(vec![delivery(12, 13, 3, 1)], 13);
        history.begins_after(10);
        let lasts = HashMap::from([(channel(1), delivery(4, 5, 1, 5)), (channel(2), delivery(6, 7, 2, 8))]);
        assert_eq!(history.of(&record(1, &[(1, 3)]), 4, &lasts), has(&[(1, 5)]));
        assert_eq!(history.of(&record(1, &[(1, 3), (2, 7)]), 6, &lasts), has(&[(1, 5), (2, 8)]));
        assert_eq!(history.of(&record(1, &[(1, 3), (2, 7)]), 4, &lasts), Known::Nothing, "2 came later");
        assert_eq!(history.of(&record(1, &[(1, 3), (3, 0)]), 4, &lasts), has(&[(1, 5), (3, 0)]));
        assert_eq!(history.of(&record(1, &[(1, 3), (3, 0)]), 12, &lasts), has(&[(1, 5), (3, 1)]));
    }

    #[test]
    fn a_quiet_client_is_known_whatever_has_come_since_the_journal_was_made_short() {
        let mut history = history(vec![delivery(12, 13, 1, 6), delivery(14, 15, 2, 9)], 15);
        history.begins_after(10);
        let lasts = HashMap::from([(channel(1), delivery(6, 7, 1, 5)), (channel(2), delivery(4, 5, 2, 8))]);
        assert_eq!(history.of(&record(1, &[(1, 3), (2, 7)]), 6, &lasts), has(&[(1, 5), (2, 8)]));
        assert_eq!(history.of(&record(1, &[(1, 3), (2, 7)]), 4, &lasts), Known::Nothing, "1 came later");
        assert_eq!(history.of(&record(1, &[(2, 7)]), 4, &lasts), has(&[(2, 8)]));
    }

    #[test]
    fn what_was_made_short_since_the_journal_was_read_leaves_a_doubt() {
        let mut history = history(vec![delivery(12, 13, 2, 1), delivery(15, 16, 1, 6)], 16);
        history.begins_after(10);
        let session = record(1, &[(1, 3), (2, 0)]);
        let before = HashMap::from([(channel(1), delivery(4, 5, 1, 5))]);
        assert_eq!(history.of(&session, 12, &before), has(&[(1, 5), (2, 1)]));
        let since =
            HashMap::from([(channel(1), delivery(15, 16, 1, 6)), (channel(2), delivery(12, 13, 2, 1))]);
        assert_eq!(history.of(&session, 12, &since), Known::Nothing, "5 was in the place of 6");
        assert_eq!(history.of(&session, 15, &since), has(&[(1, 6), (2, 1)]));
        assert!(history.needs_lasts(&session));
        let later = record(11, &[(1, 5), (2, 0)]);
        assert!(!history.needs_lasts(&later), "it was told of them when it began");
        assert_eq!(history.of(&later, 12, &HashMap::new()), has(&[(1, 5), (2, 1)]));
    }

    /// A step of a node with several threads: a thread delivers the next event of its channel to the next client, if it need not
    /// wait for one that runs alone; or the journal is stored, known to be stored, made short, or read by another node.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Deliver { n: u8, is_short: bool },
        Store,
        Stored,
        Fold,
        Read,
    }

    /// The event that a thread delivers, and the clients that have not got it yet.
    type UnderWay = (Event, VecDeque<usize>);

    /// An event as clients get it.
    #[derive(Clone)]
    struct Event {
        n: u8,
        at: Place,
        mark: Mark,
        trail: Box<[u8]>,
    }

    /// What one client has got.
    type Inbox = Vec<Event>;

    /// What is left of a node that was killed.
    struct Left {
        history: History,
        lasts: HashMap<Uuid, Delivery>,
        inboxes: Vec<Inbox>,
        /// Where the channels are.
        now: HashMap<Uuid, Place>,
    }

    /// A node. Thread `n` delivers channel `n`.
    struct Node<'a> {
        journal: Journal,
        members: &'a [Vec<u8>],
        inboxes: Vec<Inbox>,
        under_way: HashMap<u8, UnderWay>,
        now: HashMap<Uuid, Place>,
        /// The parts that are stored, and up to which number they are.
        parts: VecDeque<Part>,
        upto: u64,
        lasts: HashMap<Uuid, Delivery>,
        folded: u64,
        /// What another node has read.
        read: Option<(VecDeque<Part>, u64)>,
    }

    impl<'a> Node<'a> {
        fn new(members: &'a [Vec<u8>]) -> Self {
            let journal = Journal::new(1);
            journal.moment();
            Self {
                journal,
                members,
                inboxes: vec![Inbox::new(); members.len()],
                under_way: HashMap::new(),
                now: (0..3).map(|n| (channel(n), Place::default())).collect(),
                parts: VecDeque::new(),
                upto: 0,
                lasts: HashMap::new(),
                folded: 0,
                read: None,
            }
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Store => {
                    let part = self.journal.take(self.upto);
                    self.upto = part.as_ref().map_or(self.upto, |part| part.upto);
                    self.parts.extend(part);
                }
                Step::Stored => self.journal.stored(1, self.upto),
                Step::Read => {
                    self.read = self.read.take().or_else(|| Some((self.parts.clone(), self.folded)))
                }
                Step::Fold => {
                    let Some(part) = self.parts.pop_front() else { return };
                    self.folded = part.upto;
                    self.lasts.extend(part.deliveries.iter().map(|it| (it.channel, *it)));
                }
                Step::Deliver { n, is_short } => self.deliver(n, is_short),
            }
        }

        fn deliver(&mut self, n: u8, is_short: bool) {
            let Some((event, left)) = self.under_way.get_mut(&n) else { return self.begin(n, is_short) };
            match left.pop_front() {
                Some(client) => self.inboxes[client].push(event.clone()),
                None => {
                    self.journal.end(event.mark);
                    self.under_way.remove(&n);
                }
            }
        }

        fn begin(&mut self, n: u8, is_short: bool) {
            let at = Place { seq: self.now[&channel(n)].seq + 1, rev: 0 };
            let Some(Begun { mark, trail }) = self.journal.try_begin(channel(n), at, is_short) else {
                return;
            };
            let trail = trail.encode(mark.number);
            let receivers = (0..self.members.len()).filter(|client| self.members[*client].contains(&n));
            self.now.insert(channel(n), at);
            self.under_way.insert(n, (Event { n, at, mark, trail }, receivers.collect()));
        }

        /// Returns the stored journal with its folded part, and the inboxes.
        fn killed(self) -> Left {
            let mut history = History::default();
            let (parts, folded) = self.read.unwrap_or((self.parts, self.folded));
            history.begins_after(folded);
            parts.into_iter().for_each(|part| history.add(part));
            Left { history, lasts: self.lasts, inboxes: self.inboxes, now: self.now }
        }
    }

    fn run(steps: &[Step], members: &[Vec<u8>]) -> Left {
        let mut node = Node::new(members);
        steps.iter().for_each(|step| node.take(*step));
        node.killed()
    }

    /// The number of the offset of a client that got this.
    fn offset_of(got: &[Event]) -> u64 {
        got.last().map_or(2, |event| event.mark.number)
    }

    impl Left {
        /// Returns what is known of a client that got this.
        fn known(&self, session: &Record, got: &[Event]) -> Option<HashMap<Uuid, Place>> {
            let number = offset_of(got);
            let Before { upto, has } = match self.history.of(session, number, &self.lasts) {
                Known::Has(has) => return Some(has),
                Known::NotYet(before) => before?,
                Known::Nothing => return None,
            };
            let mut now = self.now.clone();
            for (channel, from, _) in session.followed() {
                now.entry(channel).and_modify(|now| *now = now.and(from));
            }
            Trail::decode(number, &got.last()?.trail).unwrap().find(&has, upto, &now)
        }

        /// Checks what is known of the clients, each of which got so many events until its connection was cut.
        fn check(&self, begun: Sessions<'_>, cut: usize, is_always_known: bool) -> Result<(), TestCaseError> {
            for (channels, inbox) in begun.members.iter().zip(&self.inboxes) {
                let got = &inbox[..inbox.len().min(cut)];
                let followed = channels.iter().filter(|n| **n != 2 || !begun.is_added_later);
                let from = |n: u8| if n == 0 { begun.ahead } else { 0 };
                let session = record(2, &followed.clone().map(|n| (*n, from(*n))).collect::<Vec<_>>());
                let places = self.known(&session, got);
                prop_assert!(places.is_some() || !is_always_known);
                for n in followed.filter(|_| places.is_some()) {
                    let last = got.iter().rev().find(|event| event.n == *n).map_or(0, |event| event.at.seq);
                    prop_assert_eq!(places.as_ref().unwrap()[&channel(*n)].seq, last.max(from(*n)));
                }
            }
            Ok(())
        }
    }

    /// The sessions of some clients.
    #[derive(Clone, Copy)]
    struct Sessions<'a> {
        /// The channels whose events each of them gets.
        members: &'a [Vec<u8>],
        /// How far channel 0 was when they began: their node was behind.
        ahead: i64,
        /// Whether they were added to channel 2 since they began.
        is_added_later: bool,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            24 => (0..3_u8, any::<bool>()).prop_map(|(n, is_short)| Step::Deliver { n, is_short }),
            4 => Just(Step::Store),
            4 => Just(Step::Stored),
            2 => Just(Step::Fold),
            1 => Just(Step::Read),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_threads_do_at_once_a_client_has_what_its_offset_says(
            steps in proptest::collection::vec(step(), 0..60),
            members in proptest::collection::vec(proptest::sample::subsequence(vec![0_u8, 1, 2], 1..=3), 1..4),
            cut in 0..20_usize,
            ahead in 0..6_i64,
            is_added_later in any::<bool>(),
        ) {
            let begun = Sessions { members: &members, ahead, is_added_later };
            run(&steps, &members).check(begun, cut, false)?;
        }

        #[test]
        fn a_client_of_one_channel_is_known_whatever_its_node_did_not_live_to_store(
            steps in proptest::collection::vec(prop_oneof![8 => Just(Step::Deliver { n: 0, is_short: false }), 1 => Just(Step::Store)], 0..60),
            cut in 0..20_usize,
        ) {
            let members = [vec![0]];
            let begun = Sessions { members: &members, ahead: 0, is_added_later: false };
            run(&steps, &members).check(begun, cut, true)?;
        }

        #[test]
        fn a_client_of_several_is_known_if_they_are_small(
            steps in proptest::collection::vec(prop_oneof![24 => (0..3_u8).prop_map(|n| Step::Deliver { n, is_short: true }), 4 => Just(Step::Store), 4 => Just(Step::Stored)], 0..60),
            cut in 0..20_usize,
            ahead in 0..6_i64,
            is_added_later in any::<bool>(),
        ) {
            let members = [vec![0, 1], vec![0, 1, 2]];
            let begun = Sessions { members: &members, ahead, is_added_later };
            run(&steps, &members).check(begun, cut, true)?;
        }

        #[test]
        fn what_never_ran_at_once_and_was_stored_is_always_known(
            order in proptest::collection::vec(0..3_u8, 0..20),
            cut in 0..20_usize,
        ) {
            let members = [vec![0, 1], vec![0, 1, 2]];
            let whole = |n: u8| (0..=1 + members.iter().filter(|it| it.contains(&n)).count()).map(move |_| Step::Deliver { n, is_short: false });
            let mut steps: Vec<Step> = order.iter().flat_map(|n| whole(*n)).collect();
            steps.push(Step::Store);
            let left = run(&steps, &members);
            for (channels, inbox) in members.iter().zip(&left.inboxes) {
                let session = record(2, &channels.iter().map(|n| (*n, 0)).collect::<Vec<_>>());
                let offset = offset_of(&inbox[..inbox.len().min(cut)]);
                prop_assert!(matches!(left.history.of(&session, offset, &left.lasts), Known::Has(_)));
            }
        }
    }
}
