//! The presence of users: one status for each user, aggregated over all their devices. Pure: `now` is an
//! argument, and the caller sends what is returned.
//!
//! ```text
//! shown = the status that the user has set (dnd, invisible), while it lasts
//!       > online, if any device is active > idle, if any device is connected > offline, after a grace period
//! ```
//!
//! A [`Source`] is a device, or another node that has aggregated its own devices.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::{Micros, Timestamp};

/// What others see of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::messaging) enum Status {
    Online,
    Idle,
    Dnd,
    Offline,
}

impl Status {
    /// Returns the name on the wire.
    pub(in crate::messaging) fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Idle => "idle",
            Self::Dnd => "dnd",
            Self::Offline => "offline",
        }
    }
}

/// What a user has chosen to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::messaging) enum Choice {
    /// What the devices say.
    Online,
    /// Away, whatever the devices say.
    Idle,
    /// Not to be disturbed.
    Dnd,
    /// Offline, whatever the devices say.
    Invisible,
}

/// The presence of a user: the payload of `presence:update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::messaging) struct Presence {
    pub user_id: Uuid,
    pub status: Status,
    /// When a device was last active, to the minute; `None` if that is not known.
    pub last_active_at: Option<Timestamp>,
    /// Grows with each change; greater after a restart too.
    pub version: i64,
}

impl Presence {
    pub(super) fn unknown(user_id: Uuid) -> Self {
        Self { user_id, status: Status::Offline, last_active_at: None, version: 0 }
    }
}

/// The two clocks: one for deadlines, one for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub instant: Instant,
    pub micros: Micros,
}

/// What reports a connection of a user: a socket, or another node.
pub(super) type Source = Box<str>;

/// The users with a connection, a choice, or a connection a moment ago.
#[derive(Debug, Default)]
pub(super) struct Presences {
    users: HashMap<Uuid, User>,
    /// When to look at a user again.
    looks: BTreeSet<(Instant, Uuid)>,
}

#[derive(Debug)]
struct User {
    /// Until when each source is active.
    sources: HashMap<Source, Instant>,
    choice: Choice,
    /// When the choice ends.
    choice_until: Option<Instant>,
    /// Until when a user without a source is still shown as before.
    grace_until: Option<Instant>,
    look_at: Option<Instant>,
    shown: Presence,
}

impl Presences {
    /// Notes that a source of a user is there, and active. Returns what has to be told.
    pub(super) fn active(&mut self, user: Uuid, source: &str, now: Now) -> Option<Presence> {
        let entry = self.users.entry(user).or_insert_with(|| User::new(user));
        entry.sources.insert(source.into(), now.instant + ACTIVE_LEASE);
        entry.grace_until = None;
        entry.shown.last_active_at = Some(Timestamp(now.micros - now.micros.rem_euclid(MINUTE)));
        self.look(user, now)
    }

    /// Notes that a source of a user is there, and idle.
    pub(super) fn idle(&mut self, user: Uuid, source: &str, now: Now) -> Option<Presence> {
        let entry = self.users.entry(user).or_insert_with(|| User::new(user));
        entry.sources.insert(source.into(), now.instant);
        entry.grace_until = None;
        self.look(user, now)
    }

    /// Notes that a source of a user is gone.
    pub(super) fn gone(&mut self, user: Uuid, source: &str, now: Now) -> Option<Presence> {
        let entry = self.users.get_mut(&user)?;
        if entry.sources.remove(source).is_some() && entry.sources.is_empty() {
            entry.grace_until = Some(now.instant + GRACE);
        }
        self.look(user, now)
    }

    /// Notes what a user has chosen to show, until a time or until they choose otherwise.
    pub(super) fn choose(
        &mut self,
        user: Uuid,
        choice: Choice,
        until: Option<Instant>,
        now: Now,
    ) -> Option<Presence> {
        let entry = self.users.entry(user).or_insert_with(|| User::new(user));
        (entry.choice, entry.choice_until) = (choice, until);
        self.look(user, now)
    }

    /// Returns what has to be told because of the time.
    pub(super) fn due(&mut self, now: Now) -> Vec<Presence> {
        let mut told = Vec::new();
        while let Some(&(at, user)) = self.looks.first()
            && at <= now.instant
        {
            self.looks.pop_first();
            if let Some(entry) = self.users.get_mut(&user) {
                entry.look_at = None;
            }
            told.extend(self.look(user, now));
        }
        told
    }

    /// Returns what others see of a user.
    pub(super) fn shown(&self, user: Uuid) -> Presence {
        self.users.get(&user).map_or_else(|| Presence::unknown(user), |entry| entry.shown)
    }

    /// Whether the user has a source now.
    pub(super) fn is_known(&self, user: Uuid) -> bool {
        self.users.contains_key(&user)
    }

    /// Aggregates again, plans the next look, and forgets a user about whom there is nothing to know.
    fn look(&mut self, user: Uuid, now: Now) -> Option<Presence> {
        let entry = self.users.get_mut(&user)?;
        let (status, look_at) = entry.aggregate(now.instant);
        if entry.look_at != look_at {
            entry.look_at.take().map(|at| self.looks.remove(&(at, user)));
            look_at.map(|at| self.looks.insert((at, user)));
            entry.look_at = look_at;
        }
        let changed = status != entry.shown.status;
        if changed {
            entry.shown.status = status;
            entry.shown.version = (entry.shown.version + 1).max(now.micros / 1_000);
        }
        let shown = entry.shown;
        if entry.sources.is_empty() && look_at.is_none() {
            self.users.remove(&user);
        }
        changed.then_some(shown)
    }
}

impl User {
    fn new(user: Uuid) -> Self {
        Self {
            sources: HashMap::new(),
            choice: Choice::Online,
            choice_until: None,
            grace_until: None,
            look_at: None,
            shown: Presence::unknown(user),
        }
    }

    /// Returns the status at `now`, and when it may change by itself.
    fn aggregate(&mut self, now: Instant) -> (Status, Option<Instant>) {
        if self.choice_until.is_some_and(|until| until <= now) {
            (self.choice, self.choice_until) = (Choice::Online, None);
        }
        self.grace_until = self.grace_until.filter(|until| *until > now);
        let active_until = self.sources.values().max().copied().filter(|until| *until > now);
        let connected = match (self.sources.is_empty(), self.grace_until, active_until) {
            (true, None, _) => Status::Offline,
            // A short absence is not shown.
            (true, Some(_), _) => match self.shown.status {
                Status::Offline => Status::Offline,
                shown => shown,
            },
            (false, _, Some(_)) => Status::Online,
            (false, _, None) => Status::Idle,
        };
        let status = match (connected, self.choice) {
            (Status::Offline, _) | (_, Choice::Invisible) => Status::Offline,
            (_, Choice::Dnd) => Status::Dnd,
            (_, Choice::Idle) => Status::Idle,
            (connected, Choice::Online) => connected,
        };
        let looks = [self.choice_until.filter(|_| !self.is_away()), self.grace_until, active_until];
        (status, looks.into_iter().flatten().min())
    }

    /// Whether nothing is connected, and nothing was a moment ago.
    fn is_away(&self) -> bool {
        self.sources.is_empty() && self.grace_until.is_none()
    }
}

/// How long a source counts as active after its last sign.
pub(in crate::messaging) const ACTIVE_LEASE: Duration = Duration::from_secs(60);
/// How long a user without a connection is shown as before.
pub(super) const GRACE: Duration = Duration::from_secs(20);
const MINUTE: Micros = 60_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALICE: Uuid = Uuid::from_u128(1);

    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u64) -> Now {
            Now { instant: self.0 + Duration::from_secs(seconds), micros: seconds as i64 * 1_000_000 }
        }
    }

    fn status(told: Option<Presence>) -> Option<Status> {
        told.map(|presence| presence.status)
    }

    fn statuses(told: Vec<Presence>) -> Vec<Status> {
        told.into_iter().map(|presence| presence.status).collect()
    }

    #[test]
    fn a_short_absence_and_a_second_device_are_not_told() {
        let (mut all, clock) = (Presences::default(), Clock(Instant::now()));
        assert_eq!(status(all.active(ALICE, "phone", clock.at(0))), Some(Status::Online));
        assert_eq!(all.active(ALICE, "laptop", clock.at(1)), None);
        assert_eq!(all.gone(ALICE, "phone", clock.at(2)), None);
        assert_eq!(all.gone(ALICE, "laptop", clock.at(3)), None);
        assert_eq!(all.due(clock.at(22)), []);
        assert_eq!(all.active(ALICE, "laptop", clock.at(22)), None, "back within the grace period");
        assert_eq!(all.gone(ALICE, "laptop", clock.at(23)), None);
        assert_eq!(statuses(all.due(clock.at(43))), [Status::Offline]);
        assert!(!all.is_known(ALICE) && all.looks.is_empty());
    }

    #[test]
    fn a_device_without_a_sign_for_a_minute_is_idle_until_any_device_is_active() {
        let (mut all, clock) = (Presences::default(), Clock(Instant::now()));
        all.active(ALICE, "phone", clock.at(0));
        all.active(ALICE, "laptop", clock.at(30));
        assert_eq!(all.due(clock.at(89)), []);
        assert_eq!(statuses(all.due(clock.at(90))), [Status::Idle]);
        assert_eq!(all.idle(ALICE, "tablet", clock.at(91)), None);
        let back = all.active(ALICE, "phone", clock.at(125)).unwrap();
        assert_eq!((back.status, back.last_active_at), (Status::Online, Some(Timestamp(120_000_000))));
    }

    #[test]
    fn what_a_user_chose_is_stronger_than_the_devices_and_ends_in_time() {
        let (mut all, clock) = (Presences::default(), Clock(Instant::now()));
        all.active(ALICE, "phone", clock.at(0));
        let until = Some(clock.at(10).instant);
        assert_eq!(status(all.choose(ALICE, Choice::Dnd, until, clock.at(1))), Some(Status::Dnd));
        assert_eq!(all.active(ALICE, "phone", clock.at(2)), None);
        assert_eq!(statuses(all.due(clock.at(10))), [Status::Online]);
        assert_eq!(status(all.choose(ALICE, Choice::Invisible, None, clock.at(11))), Some(Status::Offline));
        assert_eq!(all.due(clock.at(100)), []);
        assert_eq!(all.gone(ALICE, "phone", clock.at(101)), None, "nobody sees an invisible user leave");
        assert_eq!(all.due(clock.at(200)), []);
        assert!(!all.is_known(ALICE));
    }

    #[test]
    fn versions_grow_with_each_change() {
        let (mut all, clock) = (Presences::default(), Clock(Instant::now()));
        let first = all.active(ALICE, "phone", clock.at(5)).unwrap();
        let second = all.choose(ALICE, Choice::Dnd, None, clock.at(5)).unwrap();
        assert!(first.version >= 5_000 && second.version > first.version);
    }

    proptest! {
        #[test]
        fn one_event_for_each_change_and_nothing_is_left_when_all_are_gone(
            steps in prop::collection::vec((0..6_u8, 0..3_usize, 1..40_u64), 0..120)
        ) {
            let (mut all, clock, mut seconds) = (Presences::default(), Clock(Instant::now()), 0);
            let mut seen = Status::Offline;
            let devices = ["a", "b", "c"];
            for (step, device, passed) in steps {
                seconds += passed;
                let now = clock.at(seconds);
                let mut told = all.due(now);
                told.extend(match step {
                    0 | 1 => all.active(ALICE, devices[device], now),
                    2 => all.idle(ALICE, devices[device], now),
                    3 => all.gone(ALICE, devices[device], now),
                    4 => all.choose(ALICE, Choice::Dnd, Some(now.instant + Duration::from_secs(30)), now),
                    _ => all.choose(ALICE, Choice::Online, None, now),
                });
                for presence in told {
                    prop_assert_ne!(presence.status, seen, "an event without a change");
                    seen = presence.status;
                }
                prop_assert_eq!(all.shown(ALICE).status, seen);
            }
            for device in devices {
                all.gone(ALICE, device, clock.at(seconds));
            }
            all.due(clock.at(seconds + 20));
            prop_assert!(all.users.is_empty() && all.looks.is_empty());
        }
    }
}
