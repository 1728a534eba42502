//! A cache of the channels of users, as the core has listed them. Pure: the time is an argument.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::grant_cache::Concerned;
use super::recent::{Bounds, Recent};
use crate::pb::Membership;

/// The channels of a user at the time when the core was asked for them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Memberships {
    list: Arc<[Membership]>,
    asked_at: Instant,
}

impl Memberships {
    /// Combines an answer of the core with the time when it was asked.
    pub(super) fn new(list: Vec<Membership>, asked_at: Instant) -> Self {
        Self { list: list.into(), asked_at }
    }

    /// Returns about how many bytes the list takes.
    fn weight(&self) -> usize {
        let of_one =
            |it: &Membership| size_of::<Membership>() + it.name.len() + it.role_ids.len() * size_of::<Uuid>();
        self.list.iter().map(of_one).sum()
    }
}

impl Deref for Memberships {
    type Target = [Membership];

    fn deref(&self) -> &[Membership] {
        &self.list
    }
}

/// The lists of users. A change of a user or of a channel is only noted, with its time; a list that is older than a
/// change of its user, or of one of its channels, is not used.
pub(super) struct MembershipCache {
    lists: Recent<Uuid, Memberships>,
    /// When something changed about a user or a channel.
    changed_at: HashMap<Uuid, Instant>,
    /// When something changed that concerns all.
    all_changed_at: Option<Instant>,
}

impl Default for MembershipCache {
    fn default() -> Self {
        Self { lists: Recent::new(BOUNDS), changed_at: HashMap::new(), all_changed_at: None }
    }
}

impl MembershipCache {
    /// Returns the channels of a user as they are at `now`, if that is known.
    pub(super) fn get(&self, user: Uuid, now: Instant) -> Option<Memberships> {
        self.lists.get(&user, now).filter(|list| self.is_current(user, list)).cloned()
    }

    /// Whether nothing has changed about a user and their channels since they were asked for.
    pub(super) fn is_current(&self, user: Uuid, list: &Memberships) -> bool {
        let holds =
            |changed_at: Option<&Instant>| changed_at.is_none_or(|changed_at| *changed_at < list.asked_at);
        let holds_for = |id: &Uuid| holds(self.changed_at.get(id));
        holds(self.all_changed_at.as_ref())
            && holds_for(&user)
            && list.iter().all(|membership| holds_for(&membership.channel_id))
    }

    /// Stores the channels of a user until `until`.
    pub(super) fn store(&mut self, user: Uuid, list: Memberships, until: Instant, now: Instant) {
        let weight = list.weight();
        self.lists.insert(user, list, weight, Some(until), now);
    }

    /// Notes that something has changed until `now`: lists that were asked for until then are not used any more.
    pub(super) fn change(&mut self, Concerned { user, channel }: Concerned, now: Instant) {
        let Some(id) = user.or(channel).filter(|_| self.changed_at.len() < CHANGES_MAX) else {
            self.changed_at.clear();
            self.all_changed_at = Some(now);
            return;
        };
        self.changed_at.insert(id, now);
    }
}

/// The bounds of the lists: those of about a hundred thousand users with ten channels each.
const BOUNDS: Bounds = Bounds { entries: 1 << 18, bytes: 256 << 20 };
/// The number of users and channels whose changes are noted one by one. With more, all lists are asked for again.
const CHANGES_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pb::NotifyLevel;

    const SECOND: Duration = Duration::from_secs(1);
    const NOBODY: Concerned = Concerned { user: None, channel: None };

    fn member(user: Uuid, channel: Uuid) -> Membership {
        Membership {
            channel_id: channel,
            user_id: user,
            name: "general".into(),
            joined_at: 0,
            joined_seq: None,
            notify_level: NotifyLevel::All,
            muted_until: None,
            role_ids: Vec::new(),
            workspace_id: None,
        }
    }

    #[test]
    fn a_list_is_used_until_it_is_too_old_or_something_about_it_has_changed() {
        let [alice, general, other] = [1, 2, 3].map(Uuid::from_u128);
        let of_user = |id| Concerned { user: Some(id), channel: None };
        let of_channel = |id| Concerned { user: None, channel: Some(id) };
        let in_channel = |user, channel| Concerned { user: Some(user), channel: Some(channel) };
        let start = Instant::now();
        let changes = [
            (of_user(other), true),
            (of_channel(other), true),
            (in_channel(other, general), true),
            (of_user(alice), false),
            (of_channel(general), false),
            (in_channel(alice, other), false),
            (NOBODY, false),
        ];
        for (number, (change, is_used)) in changes.into_iter().enumerate() {
            let mut cache = MembershipCache::default();
            let list = Memberships::new(vec![member(alice, general)], start);
            cache.store(alice, list.clone(), start + 60 * SECOND, start);
            assert_eq!(cache.get(alice, start + 59 * SECOND).map(|list| list.len()), Some(1));
            assert!(cache.get(alice, start + 60 * SECOND).is_none(), "too old");
            assert!(cache.get(other, start).is_none(), "nobody asked");
            cache.change(change, start);
            assert_eq!(cache.get(alice, start).is_some(), is_used, "change {number}");
            // An answer that was under way when the change came is as old as its question.
            cache.store(alice, list, start + 60 * SECOND, start + SECOND);
            assert_eq!(cache.get(alice, start + SECOND).is_some(), is_used, "change {number}");
            let new = Memberships::new(vec![member(alice, general)], start + SECOND);
            cache.store(alice, new, start + 60 * SECOND, start + SECOND);
            assert!(cache.get(alice, start + SECOND).is_some(), "asked after change {number}");
        }
    }

    #[test]
    fn more_changes_than_are_noted_concern_everybody() {
        let (mut cache, start, alice) =
            (MembershipCache::default(), Instant::now(), Uuid::from_u128(7 << 64));
        cache.store(alice, Memberships::new(Vec::new(), start), start + 60 * SECOND, start);
        for number in 0..=CHANGES_MAX as u128 {
            assert!(cache.get(alice, start).is_some());
            cache.change(Concerned { user: Some(Uuid::from_u128(number)), channel: None }, start + SECOND);
            assert!(cache.changed_at.len() <= CHANGES_MAX);
        }
        assert!(cache.get(alice, start).is_none());
    }
}
