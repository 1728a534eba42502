//! The set of revocations that can still concern a token. Pure: the time is an argument.

use std::collections::HashMap;

use uuid::Uuid;

use crate::clock::Micros;
use crate::pb::Revocation;

/// The users and sessions whose tokens are revoked, each up to a time of issue.
#[derive(Default)]
pub(super) struct Revocations {
    void_until: HashMap<Uuid, Micros>,
    /// The time up to which every issued token counts as revoked. It replaces revocations that no longer fit.
    floor: Micros,
}

impl Revocations {
    /// Adds a revocation at `now`. When the set is full, revocations older than `lifetime_max` are removed:
    /// the tokens that they concern have expired. Returns whether tokens are revoked by it that were not before.
    pub(super) fn add(&mut self, revocation: Revocation, now: Micros, lifetime_max: Micros) -> bool {
        if self.void_until.len() >= ENTRIES_MAX {
            self.void_until.retain(|_, until| until.saturating_add(lifetime_max) > now);
        }
        if self.void_until.len() >= ENTRIES_MAX {
            self.raise_floor(now);
        }
        // One map suffices for users and sessions: their ids are UUIDs and do not collide.
        let mut is_new = false;
        for id in [revocation.user_id, revocation.session_id].into_iter().flatten() {
            let until = self.void_until.entry(id).or_default();
            is_new |= *until < revocation.revoked_at;
            *until = revocation.revoked_at.max(*until);
        }
        is_new
    }

    /// Whether a token of this user and session that was issued at `issued_at` is revoked.
    pub(super) fn contains(&self, user: Uuid, session: Option<Uuid>, issued_at: Micros) -> bool {
        let void = |id: &Uuid| self.void_until.get(id).is_some_and(|until| issued_at <= *until);
        issued_at <= self.floor || void(&user) || session.as_ref().is_some_and(void)
    }

    /// Replaces the older half of a full set with one rule, which revokes too many tokens rather than too
    /// few.
    fn raise_floor(&mut self, now: Micros) {
        let mut times: Vec<Micros> = self.void_until.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        // Sessions may be revoked for a time to come, which must not concern everybody.
        self.floor = self.floor.max((*median).min(now));
        let floor = self.floor;
        self.void_until.retain(|_, until| *until > floor);
        tracing::error!(
            kept = self.void_until.len(),
            "too many revocations: tokens of a whole time are void"
        );
    }
}

/// The largest number of users and sessions in the set.
const ENTRIES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_user_can_sign_in_again_with_a_newer_token() {
        let (user, mut set) = (Uuid::now_v7(), Revocations::default());
        set.add(Revocation { user_id: Some(user), session_id: None, revoked_at: 100 }, 100, 1_000);
        assert!(set.contains(user, None, 100));
        let again = Revocation { user_id: Some(user), session_id: None, revoked_at: 100 };
        assert!(!set.add(again, 100, 1_000), "nothing new");
        assert!(!set.contains(user, None, 101));
        assert!(!set.contains(Uuid::now_v7(), None, 50), "nobody else is concerned");
    }

    #[test]
    fn a_revoked_session_leaves_the_users_other_sessions_alone() {
        let (user, session, mut set) = (Uuid::now_v7(), Uuid::now_v7(), Revocations::default());
        set.add(Revocation { user_id: None, session_id: Some(session), revoked_at: 100 }, 100, 1_000);
        assert!(set.contains(user, Some(session), 90));
        assert!(!set.contains(user, Some(Uuid::now_v7()), 90));
    }
}
