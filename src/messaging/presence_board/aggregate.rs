//! The presence of users: one status for each user, aggregated over all their devices. Pure: `now` is an
//! argument, and the caller sends what is returned.
//!
//! ```text
//! shown = the status that the user has set (dnd, invisible), while it lasts
//!       > online, if any device is active > idle, if any device is connected > offline, after a grace period
//! ```
//!
//! Devices of this node are known one by one. Each other node reports what its own devices say together, which
//! counts as one device more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::user::{Moment, Presence, User};
use super::wire::{Devices, Record};
use crate::models::user_presence::StoredChoice;
use crate::node::NodeId;

/// The users with a device, or with one a moment ago.
#[derive(Debug)]
pub(super) struct Presences {
    users: BTreeMap<Uuid, User>,
    /// When to look at a user again.
    looks: BTreeSet<(Instant, Uuid)>,
    /// How long a user without a device is shown as before.
    grace: Duration,
    /// The highest version of all users who were forgotten. One who is heard of again is shown under a higher one, or
    /// clients would take the news for old.
    forgotten: i64,
    /// The users of whom the other nodes have to be told, if there can be any.
    news: Option<BTreeSet<Uuid>>,
}

impl Presences {
    /// Creates the presence of nobody.
    pub(super) fn new(reaches_others: bool) -> Self {
        let (grace, news) = match reaches_others {
            true => (GRACE + GRACE_MARGIN, Some(BTreeSet::new())),
            false => (GRACE, None),
        };
        Self { users: BTreeMap::new(), looks: BTreeSet::new(), grace, forgotten: 0, news }
    }

    /// Notes that a device of this node is there, and what its user has chosen before. Returns what has to be told.
    pub(super) fn arrived(
        &mut self,
        (user, device): (Uuid, &str),
        is_idle: bool,
        chosen: Option<StoredChoice>,
        now: Moment,
    ) -> Option<Presence> {
        let entry = self.users.entry(user).or_insert_with(|| User::new(user));
        chosen.map(|chosen| entry.choose(chosen, now));
        match is_idle {
            true => entry.has(device, now),
            false => entry.is_active_on(device, now),
        }
        self.look(user, now, Version::Next)
    }

    /// Notes that a device of this node is active.
    pub(super) fn active(&mut self, user: Uuid, device: &str, now: Moment) -> Option<Presence> {
        self.users.entry(user).or_insert_with(|| User::new(user)).is_active_on(device, now);
        self.look(user, now, Version::Next)
    }

    /// Notes that a device of this node is gone.
    pub(super) fn gone(&mut self, user: Uuid, device: &str, now: Moment) -> Option<Presence> {
        let until = now.after(self.grace);
        self.users.get_mut(&user)?.lost(device, now, until);
        self.look(user, now, Version::Next)
    }

    /// Notes what a user has chosen to show, unless a later choice is known.
    pub(super) fn choose(&mut self, user: Uuid, chosen: StoredChoice, now: Moment) -> Option<Presence> {
        let entry = self.users.entry(user).or_insert_with(|| User::new(user));
        if entry.choose(chosen, now)
            && let Some(news) = &mut self.news
        {
            entry.has_chosen_here(now);
            news.insert(user);
        }
        self.look(user, now, Version::Next)
    }

    /// Notes what another node has reported under a number. `sent` is when, by the clock of that node.
    pub(super) fn report(
        &mut self,
        (node, number): (NodeId, u64),
        record: &Record,
        sent: Moment,
    ) -> Option<Presence> {
        let user = record.user;
        if record.devices != Devices::Gone && self.users.len() < KNOWN_MAX {
            self.users.entry(user).or_insert_with(|| User::new(user));
        }
        let entry = self.users.get_mut(&user)?;
        if entry.reported_by(node).is_some_and(|known| known.number > number) {
            return None;
        }
        match record.devices {
            Devices::Gone => {
                entry.is_off(node, sent, sent.at(record.since.min(sent.micros)).after(self.grace));
            }
            Devices::Idle | Devices::Active => entry.is_on((node, number), record),
        }
        record.chosen.map(|chosen| entry.choose(chosen, sent));
        record.last_active.inspect(|at| entry.was_active((*at).min(sent.micros)));
        self.look(user, sent, Version::Reported(record.version))
    }

    /// Notes that another node has no users any more but those that it has reported since a number.
    pub(super) fn forget(&mut self, node: NodeId, since: Option<u64>, now: Moment) -> Vec<Presence> {
        let is_old = |user: &User| {
            user.reported_by(node).is_some_and(|known| since.is_none_or(|since| known.number < since))
        };
        let (until, mut gone) = (now.after(self.grace), Vec::new());
        for (id, user) in self.users.iter_mut().filter(|(_, user)| is_old(user)) {
            user.is_off(node, now, until);
            gone.push(*id);
        }
        gone.into_iter().filter_map(|user| self.look(user, now, Version::Next)).collect()
    }

    /// Returns what has to be told because of the time, after up to [`LOOKS_AT_ONCE`] looks.
    pub(super) fn due(&mut self, now: Moment) -> Vec<Presence> {
        let mut told = Vec::new();
        for _ in 0..LOOKS_AT_ONCE {
            if !self.is_due(now) {
                break;
            }
            let Some((_, user)) = self.looks.pop_first() else { break };
            // As of when it was due, so that all nodes find the same version.
            let due = self.users.get_mut(&user).and_then(|entry| entry.look_at.take());
            told.extend(self.look(user, due.unwrap_or(now), Version::Next));
        }
        told
    }

    /// Whether [`Presences::due`] has something to look at.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.looks.first().is_some_and(|(at, _)| *at <= now.instant)
    }

    /// Returns what others see of a user.
    pub(super) fn shown(&self, user: Uuid, now: Moment) -> Presence {
        self.users.get(&user).map_or_else(|| Presence::unknown(user), |entry| entry.seen(now.micros))
    }

    /// Returns how many devices of a user other nodes have reported.
    pub(super) fn elsewhere(&self, user: Uuid) -> usize {
        self.users.get(&user).map_or(0, User::elsewhere)
    }

    /// Returns what a user has chosen, if the user is known here.
    pub(super) fn chosen(&self, user: Uuid) -> Option<Option<StoredChoice>> {
        self.users.get(&user).map(User::chosen)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.looks.is_empty()
    }

    /// Whether the other nodes have to be told something.
    pub(super) fn has_news(&self) -> bool {
        self.news.as_ref().is_some_and(|news| !news.is_empty())
    }

    /// Takes up to `most` of what the other nodes have to be told.
    pub(super) fn take_news(&mut self, most: usize, now: Moment) -> Vec<Record> {
        let users: Vec<Uuid> = std::iter::from_fn(|| self.news.as_mut()?.pop_first()).take(most).collect();
        let record = |user: Uuid| match self.users.get(&user) {
            Some(entry) => entry.record(),
            None => Record { since: now.micros, ..User::new(user).record() },
        };
        users.into_iter().map(record).collect()
    }

    /// Returns up to `most` of the users with devices on this node, or who have chosen here, by id after `after`.
    pub(super) fn page(&self, after: Option<Uuid>, most: usize) -> Vec<Record> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let own = self.users.range((start, Bound::Unbounded)).filter(|(_, user)| user.is_ours());
        own.take(most).map(|(_, user)| user.record()).collect()
    }

    /// Aggregates again, plans the next look, and forgets a user about whom there is nothing to know.
    fn look(&mut self, user: Uuid, now: Moment, version: Version) -> Option<Presence> {
        let entry = self.users.get_mut(&user)?;
        let (status, look_at) = entry.aggregate(now);
        if entry.listen_to_devices(now) {
            self.news.as_mut().map(|news| news.insert(user));
        }
        if entry.look_at != look_at {
            entry.look_at.take().map(|at| self.looks.remove(&(at.instant, user)));
            look_at.map(|at| self.looks.insert((at.instant, user)));
            entry.look_at = look_at;
        }
        let (changed, shown) = (status != entry.shown.status, &mut entry.shown);
        shown.status = status;
        let next = shown.version.max(self.forgotten).saturating_add(1);
        shown.version = match (changed, version) {
            (true, Version::Next) => next.max(now.micros / 1_000),
            (true, Version::Reported(version)) => next.max(version),
            (false, Version::Reported(version)) => shown.version.max(version),
            (false, Version::Next) => shown.version,
        };
        let shown = *shown;
        if entry.is_nowhere() && look_at.is_none() {
            self.forgotten = self.forgotten.max(shown.version);
            self.users.remove(&user);
        }
        changed.then_some(shown)
    }
}

/// Which version a change gets.
#[derive(Debug, Clone, Copy)]
enum Version {
    /// The next one, which is the time where that is later.
    Next,
    /// The one that another node has reported, if it is greater than the last.
    Reported(i64),
}

/// How long a user without a device is shown as before.
pub(super) const GRACE: Duration = Duration::from_secs(20);
/// How much longer that is where the news of a return may come from another node.
const GRACE_MARGIN: Duration = Duration::from_secs(2);
/// The most users who are looked at because of the time while others wait: about a millisecond.
const LOOKS_AT_ONCE: usize = 1_000;
/// The number of known users beyond which reports of other nodes bring no new ones. About 500 bytes each.
const KNOWN_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::user::{Choice, Status};
    use super::*;
    use crate::clock::Timestamp;

    const ALICE: Uuid = Uuid::from_u128(1);

    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u64) -> Moment {
            Moment { instant: self.0 + Duration::from_secs(seconds), micros: seconds as i64 * 1_000_000 }
        }
    }

    fn chosen(choice: Choice, until: Option<Moment>, now: Moment) -> StoredChoice {
        StoredChoice { choice: choice.number(), until: until.map(|it| it.micros), set_at: now.micros }
    }

    fn status(told: Option<Presence>) -> Option<Status> {
        told.map(|presence| presence.status)
    }

    fn statuses(told: Vec<Presence>) -> Vec<Status> {
        told.into_iter().map(|presence| presence.status).collect()
    }

    #[test]
    fn a_short_absence_and_a_second_device_are_not_told() {
        let (mut all, clock) = (Presences::new(false), Clock(Instant::now()));
        assert_eq!(status(all.active(ALICE, "phone", clock.at(0))), Some(Status::Online));
        assert_eq!(all.active(ALICE, "laptop", clock.at(1)), None);
        assert_eq!(all.gone(ALICE, "phone", clock.at(2)), None);
        assert_eq!(all.gone(ALICE, "laptop", clock.at(3)), None);
        assert_eq!(all.due(clock.at(22)), []);
        assert_eq!(all.active(ALICE, "laptop", clock.at(22)), None, "back within the grace period");
        assert_eq!(all.gone(ALICE, "laptop", clock.at(23)), None);
        assert_eq!(statuses(all.due(clock.at(43))), [Status::Offline]);
        assert!(all.users.is_empty() && all.looks.is_empty());
    }

    #[test]
    fn an_active_device_that_comes_back_at_once_is_not_told_although_an_idle_one_stayed() {
        let (mut all, clock) = (Presences::new(false), Clock(Instant::now()));
        all.active(ALICE, "phone", clock.at(0));
        all.arrived((ALICE, "tablet"), true, None, clock.at(0));
        assert_eq!(all.gone(ALICE, "phone", clock.at(1)), None);
        assert_eq!(all.active(ALICE, "phone", clock.at(15)), None);
        assert_eq!(all.due(clock.at(30)), []);
        assert_eq!(all.gone(ALICE, "phone", clock.at(31)), None);
        assert_eq!(statuses(all.due(clock.at(51))), [Status::Idle]);
    }

    #[test]
    fn a_device_without_a_sign_for_a_minute_is_idle_until_any_device_is_active() {
        let (mut all, clock) = (Presences::new(false), Clock(Instant::now()));
        all.active(ALICE, "phone", clock.at(0));
        all.active(ALICE, "laptop", clock.at(30));
        assert_eq!(all.due(clock.at(89)), []);
        assert_eq!(statuses(all.due(clock.at(90))), [Status::Idle]);
        assert_eq!(all.arrived((ALICE, "tablet"), true, None, clock.at(91)), None);
        let back = all.active(ALICE, "phone", clock.at(125)).unwrap();
        assert_eq!((back.status, back.last_active_at), (Status::Online, Some(Timestamp(120_000_000))));
    }

    #[test]
    fn what_a_user_chose_is_stronger_than_the_devices_and_ends_in_time() {
        let (mut all, clock) = (Presences::new(false), Clock(Instant::now()));
        all.active(ALICE, "phone", clock.at(0));
        let dnd = chosen(Choice::Dnd, Some(clock.at(10)), clock.at(1));
        assert_eq!(status(all.choose(ALICE, dnd, clock.at(1))), Some(Status::Dnd));
        assert_eq!(all.active(ALICE, "phone", clock.at(2)), None);
        assert_eq!(statuses(all.due(clock.at(10))), [Status::Online]);
        let hidden = chosen(Choice::Invisible, None, clock.at(11));
        assert_eq!(status(all.choose(ALICE, hidden, clock.at(11))), Some(Status::Offline));
        assert_eq!(all.choose(ALICE, dnd, clock.at(12)), None, "an earlier choice that arrives late");
        assert_eq!(all.active(ALICE, "phone", clock.at(70)), None);
        let seen = all.shown(ALICE, clock.at(100));
        assert_eq!(seen.last_active_at, Some(Timestamp(0)), "nobody sees an invisible user work");
        assert_eq!(all.due(clock.at(100)), []);
        assert_eq!(all.gone(ALICE, "phone", clock.at(131)), None, "nobody sees an invisible user leave");
        assert_eq!(all.due(clock.at(200)), []);
        assert!(all.users.is_empty());
        assert_eq!(all.arrived((ALICE, "phone"), false, Some(hidden), clock.at(300)), None, "nor come back");
        assert_eq!(all.shown(ALICE, clock.at(300)).status, Status::Offline);
    }

    #[test]
    fn who_is_heard_of_again_is_shown_under_a_higher_version_than_before() {
        let (mut all, clock) = (Presences::new(true), Clock(Instant::now()));
        let node = NodeId::from_bytes([1; 5]);
        let record = |version| Record { devices: Devices::Active, version, ..User::new(ALICE).record() };
        let online = all.report((node, 1), &record(1_000), clock.at(1)).unwrap();
        all.forget(node, None, clock.at(2));
        let gone = all.due(clock.at(60));
        assert_eq!((online.version, gone[0].status), (1_000, Status::Offline));
        assert!(all.is_empty(), "nothing is known of her any more");
        let back = all.report((node, 1), &record(1_000), clock.at(61)).unwrap();
        assert_eq!(back.status, Status::Online);
        assert!(back.version > gone[0].version, "{} after {}", back.version, gone[0].version);
    }

    #[test]
    fn an_idle_node_that_leaves_does_not_shorten_the_absence_of_an_active_one() {
        let (mut all, clock) = (Presences::new(true), Clock(Instant::now()));
        let [one, two] = [1, 2].map(|n| NodeId::from_bytes([n; 5]));
        let record =
            |devices, now: Moment| Record { devices, since: now.micros, ..User::new(ALICE).record() };
        let (active, idle) = (record(Devices::Active, clock.at(0)), record(Devices::Idle, clock.at(0)));
        assert_eq!(status(all.report((one, 1), &active, clock.at(0))), Some(Status::Online));
        assert_eq!(all.report((two, 1), &idle, clock.at(0)), None);
        assert_eq!(all.report((one, 2), &record(Devices::Gone, clock.at(1)), clock.at(1)), None);
        assert_eq!(all.report((two, 2), &record(Devices::Gone, clock.at(0)), clock.at(2)), None);
        assert_eq!(all.due(clock.at(22)), []);
        assert_eq!(statuses(all.due(clock.at(23))), [Status::Offline]);
        assert!(all.is_empty());
    }

    #[test]
    fn many_absences_that_end_together_are_told_in_pieces() {
        let (mut all, clock) = (Presences::new(false), Clock(Instant::now()));
        for user in (0..=LOOKS_AT_ONCE as u128).map(Uuid::from_u128) {
            all.active(user, "phone", clock.at(0));
            all.gone(user, "phone", clock.at(0));
        }
        assert!(!all.is_due(clock.at(19)) && all.is_due(clock.at(20)));
        assert_eq!(all.due(clock.at(20)).len(), LOOKS_AT_ONCE);
        assert!(all.is_due(clock.at(20)));
        assert_eq!(all.due(clock.at(20)).len(), 1);
        assert!(all.is_empty());
    }

    #[test]
    fn versions_grow_with_each_change() {
        let (mut all, clock) = (Presences::new(false), Clock(Instant::now()));
        let first = all.active(ALICE, "phone", clock.at(5)).unwrap();
        let second = all.choose(ALICE, chosen(Choice::Dnd, None, clock.at(5)), clock.at(5)).unwrap();
        assert!(first.version >= 5_000 && second.version > first.version);
    }

    #[test]
    fn a_single_node_notes_nothing_for_others() {
        let (mut all, clock) = (Presences::new(false), Clock(Instant::now()));
        all.active(ALICE, "phone", clock.at(5));
        assert!(!all.has_news() && all.take_news(10, clock.at(5)).is_empty());
    }

    proptest! {
        #[test]
        fn one_event_for_each_change_and_nothing_is_left_when_all_are_gone(
            steps in prop::collection::vec((0..6_u8, 0..3_usize, 1..40_u64), 0..120)
        ) {
            let (mut all, clock, mut seconds) = (Presences::new(false), Clock(Instant::now()), 0);
            let mut seen = Status::Offline;
            let devices = ["a", "b", "c"];
            for (step, device, passed) in steps {
                seconds += passed;
                let now = clock.at(seconds);
                let mut told = all.due(now);
                let until = Some(now.after(Duration::from_secs(30)));
                told.extend(match step {
                    0 | 1 => all.active(ALICE, devices[device], now),
                    2 => all.arrived((ALICE, devices[device]), true, None, now),
                    3 => all.gone(ALICE, devices[device], now),
                    4 => all.choose(ALICE, chosen(Choice::Dnd, until, now), now),
                    _ => all.choose(ALICE, chosen(Choice::Online, None, now), now),
                });
                for presence in told {
                    prop_assert_ne!(presence.status, seen, "an event without a change");
                    seen = presence.status;
                }
                prop_assert_eq!(all.shown(ALICE, now).status, seen);
            }
            for device in devices {
                all.gone(ALICE, device, clock.at(seconds));
            }
            all.due(clock.at(seconds + 20));
            prop_assert!(all.users.is_empty() && all.looks.is_empty());
        }
    }
}
