//! The ledger of one room: which broadcasts are under way, who has got them, and what went wrong.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::numbers::Numbers;

/// A room with one sender, whose broadcasts are numbered from 1. The first member is the sender.
#[derive(Debug)]
pub(crate) struct Room {
    members: usize,
    first: u64,
    under_way: VecDeque<Broadcast>,
    /// Broadcasts that were given up: who gets one of them later is late.
    given_up: BTreeSet<u64>,
    /// The largest number that each member has got.
    latest: Vec<u64>,
    /// The members without a connection.
    away: BTreeSet<usize>,
    counts: Counts,
}

/// What became of the deliveries of a room: a broadcast to ten members is ten deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Broadcasts that were sent.
    pub(crate) sent: u64,
    /// Deliveries that arrived.
    pub(crate) delivered: u64,
    /// Deliveries that did not arrive in time although the member was there, or had its session restored.
    pub(crate) lost: u64,
    /// Deliveries to members that were away for too long, or whose session was not restored.
    pub(crate) missed_away: u64,
    /// Deliveries of broadcasts that nobody got and whose sender was cut off: they may never have been sent.
    pub(crate) unsure: u64,
    /// Deliveries that arrived again.
    pub(crate) duplicates: u64,
    /// Deliveries that arrived after a later one.
    pub(crate) out_of_order: u64,
    /// Deliveries that arrived after they were given up as lost or missed.
    pub(crate) late: u64,
}

#[derive(Debug)]
struct Broadcast {
    /// When it was to be sent: latencies begin here.
    due: Instant,
    /// When it was sent: patience begins here, because a sender that is behind is not the fault of a delivery.
    sent: Instant,
    got: Numbers,
    /// Members without it that have come back with a new session since.
    excused: Numbers,
    /// The number of members without it that are not excused.
    waiting: usize,
    got_by: usize,
    is_unsure: bool,
}

impl Room {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            members,
            first: 1,
            under_way: VecDeque::new(),
            given_up: BTreeSet::new(),
            latest: vec![0; members],
            away: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Starts a broadcast and returns its number. Without its sender, it waits in the client and may never be sent.
    pub(crate) fn send(&mut self, due: Instant, now: Instant) -> u64 {
        self.counts.sent += 1;
        self.under_way.push_back(Broadcast {
            due,
            sent: now,
            got: Numbers::default(),
            excused: Numbers::default(),
            waiting: self.members,
            got_by: 0,
            is_unsure: self.away.contains(&SENDER),
        });
        self.first + self.under_way.len() as u64 - 1
    }

    /// Counts a delivery, and returns how long it took if it is the first one of this broadcast to this member.
    pub(crate) fn receive(&mut self, member: usize, number: u64, now: Instant) -> Option<Duration> {
        let latest = self.latest.get_mut(member)?;
        let is_early = number < *latest;
        *latest = number.max(*latest);
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(broadcast) = at.and_then(|at| self.under_way.get_mut(at)) else {
            match self.given_up.contains(&number) {
                true => self.counts.late += 1,
                false => self.counts.duplicates += 1,
            }
            return None;
        };
        if !broadcast.got.insert(member) {
            self.counts.duplicates += 1;
            return None;
        }
        if !broadcast.excused.contains(member) {
            broadcast.waiting -= 1;
        }
        broadcast.got_by += 1;
        self.counts.delivered += 1;
        self.counts.out_of_order += u64::from(is_early);
        let took = now.saturating_duration_since(broadcast.due);
        self.settle();
        Some(took)
    }

    /// Notes that a member has come back. With a new session, nobody waits for what it missed.
    pub(crate) fn came_back(&mut self, member: usize, is_renewed: bool) {
        self.away.remove(&member);
        if !is_renewed {
            return;
        }
        for broadcast in &mut self.under_way {
            if !broadcast.got.contains(member) && broadcast.excused.insert(member) {
                broadcast.waiting -= 1;
            }
        }
        self.settle();
    }

    /// Notes that the connection of a member ended. What the sender has sent and nobody has got yet may never have
    /// arrived at the server.
    pub(crate) fn went_away(&mut self, member: usize) {
        self.away.insert(member);
        if member != SENDER {
            return;
        }
        let unseen = self.under_way.iter_mut().filter(|broadcast| broadcast.got_by == 0);
        unseen.for_each(|broadcast| broadcast.is_unsure = true);
    }

    /// Gives up what has been under way for longer than `patience`.
    pub(crate) fn expire(&mut self, now: Instant, patience: Duration) {
        while let Some(oldest) = self.under_way.front() {
            if now.saturating_duration_since(oldest.sent) < patience {
                return;
            }
            self.give_up_oldest();
        }
    }

    /// Returns the number of broadcasts under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Returns the counts so far. What is under way is in none of them but `sent` and `delivered`.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Removes the broadcasts that wait for nobody any more.
    fn settle(&mut self) {
        while self.under_way.front().is_some_and(|oldest| oldest.waiting == 0) {
            self.give_up_oldest();
        }
    }

    fn give_up_oldest(&mut self) {
        let Some(oldest) = self.under_way.pop_front() else { return };
        let missing = self.members - oldest.got_by;
        let is_absent =
            |member: &&usize| !oldest.got.contains(**member) && !oldest.excused.contains(**member);
        let absent = self.away.iter().filter(is_absent).count();
        let (excused, waiting) = (missing - oldest.waiting + absent, oldest.waiting - absent);
        let is_unsure = oldest.is_unsure && oldest.got_by == 0;
        self.counts.missed_away += if is_unsure { 0 } else { excused as u64 };
        self.counts.lost += if is_unsure { 0 } else { waiting as u64 };
        self.counts.unsure += if is_unsure { missing as u64 } else { 0 };
        if missing > 0 {
            self.given_up.insert(self.first);
            if self.given_up.len() > GIVEN_UP_MAX {
                self.given_up.pop_first();
            }
        }
        self.first += 1;
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.missed_away += other.missed_away;
        self.unsure += other.unsure;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.late += other.late;
    }
}

/// The member who sends.
const SENDER: usize = 0;

/// The maximum number of broadcasts that a room remembers as given up. An older one that arrives is a duplicate.
const GIVEN_UP_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_broadcast_that_reaches_everybody_is_done() {
        let (mut room, start) = (Room::new(2), Instant::now());
        assert_eq!(room.send(start, start), 1);
        assert_eq!(room.receive(0, 1, after(start, 3)), Some(Duration::from_millis(3)));
        assert_eq!(room.under_way(), 1);
        assert!(room.receive(1, 1, after(start, 5)).is_some());
        assert_eq!(room.under_way(), 0);
        assert_eq!(room.counts(), Counts { sent: 1, delivered: 2, ..Counts::default() });
    }

    #[test]
    fn a_delivery_that_comes_twice_or_after_a_later_one_is_noticed() {
        let (mut room, start) = (Room::new(2), Instant::now());
        for _ in 0..3 {
            room.send(start, start);
        }
        for number in [1, 3, 2, 2] {
            room.receive(0, number, start);
        }
        assert_eq!((room.counts().out_of_order, room.counts().duplicates), (1, 1));
        for number in 1..=3 {
            room.receive(1, number, start);
        }
        room.receive(1, 3, start);
        assert_eq!(room.counts().duplicates, 2, "also when the broadcast is done");
    }

    #[test]
    fn what_does_not_arrive_in_time_is_lost_and_later_it_is_late() {
        let (mut room, start) = (Room::new(3), Instant::now());
        room.send(start, start);
        room.receive(0, 1, start);
        room.expire(after(start, 9_999), PATIENCE);
        assert_eq!(room.counts().lost, 0);
        room.expire(after(start, 10_000), PATIENCE);
        assert_eq!(room.counts().lost, 2);
        room.receive(1, 1, after(start, 11_000));
        assert_eq!((room.counts().late, room.counts().duplicates), (1, 0));
    }

    #[test]
    fn who_comes_back_with_a_new_session_has_missed_what_was_under_way() {
        let (mut room, start) = (Room::new(2), Instant::now());
        room.send(start, start);
        room.receive(0, 1, start);
        room.came_back(1, true);
        assert_eq!((room.under_way(), room.counts().missed_away, room.counts().lost), (0, 1, 0));
    }

    #[test]
    fn who_is_away_for_too_long_has_missed_it_and_who_came_back_in_time_is_owed_it() {
        let (mut room, start) = (Room::new(3), Instant::now());
        room.send(start, start);
        room.receive(0, 1, start);
        room.went_away(1);
        room.went_away(2);
        room.came_back(2, false);
        room.expire(after(start, 10_000), PATIENCE);
        assert_eq!((room.counts().missed_away, room.counts().lost), (1, 1));
    }

    #[test]
    fn what_a_sender_without_a_connection_sends_may_never_leave() {
        let (mut room, start) = (Room::new(2), Instant::now());
        room.went_away(0);
        room.send(start, start);
        room.expire(after(start, 10_000), PATIENCE);
        assert_eq!((room.counts().unsure, room.counts().lost), (2, 0));
    }

    #[test]
    fn a_sender_that_is_behind_shows_in_the_latency_and_loses_nothing() {
        let (mut room, start) = (Room::new(1), Instant::now());
        let sent = after(start, 15_000);
        room.send(start, sent);
        room.expire(sent, PATIENCE);
        assert_eq!(room.receive(0, 1, after(sent, 1)), Some(Duration::from_millis(15_001)));
        assert_eq!(room.counts().lost, 0);
    }

    #[test]
    fn what_a_sender_that_was_cut_off_sent_and_nobody_got_is_not_called_lost() {
        let (mut room, start) = (Room::new(2), Instant::now());
        room.send(start, start);
        room.send(start, start);
        room.receive(1, 1, start);
        room.went_away(0);
        room.expire(after(start, 10_000), PATIENCE);
        let Counts { lost, missed_away, unsure, .. } = room.counts();
        assert_eq!((lost, missed_away, unsure), (0, 1, 2));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send,
        Receive(usize, u64),
        CameBack(usize, bool),
        Away(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Send),
            9 => (0_usize..4, 1_u64..20).prop_map(|(member, number)| Step::Receive(member, number)),
            1 => (0_usize..4, any::<bool>()).prop_map(|(member, is_renewed)| Step::CameBack(member, is_renewed)),
            1 => (0_usize..4).prop_map(Step::Away),
            1 => (0_u64..12_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn every_delivery_becomes_exactly_one_thing(steps in prop::collection::vec(step(), 0..100)) {
            let (mut room, start) = (Room::new(4), Instant::now());
            let mut now = start;
            for step in steps {
                match step {
                    Step::Send => drop(room.send(start, now)),
                    Step::Receive(member, number) if number <= room.counts().sent => drop(room.receive(member, number, now)),
                    Step::Receive(..) => {}
                    Step::CameBack(member, is_renewed) => room.came_back(member, is_renewed),
                    Step::Away(member) => room.went_away(member),
                    Step::Wait(ms) => {
                        now += Duration::from_millis(ms);
                        room.expire(now, PATIENCE);
                    }
                }
            }
            room.expire(now + PATIENCE, PATIENCE);
            let counts = room.counts();
            let accounted = counts.delivered + counts.lost + counts.missed_away + counts.unsure;
            prop_assert_eq!(accounted, counts.sent * 4);
            prop_assert_eq!(room.under_way(), 0);
        }
    }
}
