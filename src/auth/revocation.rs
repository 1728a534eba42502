//! Withdrawn tokens, as far as they could still be used. Pure: the time goes in.

use std::collections::HashMap;

use uuid::Uuid;

use crate::clock::Micros;
use crate::pb::Revocation;

/// The users and sessions whose tokens are withdrawn, each up to a time.
#[derive(Default)]
pub(super) struct Revocations {
    void_until: HashMap<Uuid, Micros>,
    /// Every token issued up to then is withdrawn: what remains of revocations that had to be forgotten.
    floor: Micros,
}

impl Revocations {
    /// Takes a revocation in at `now`; those older than `lifetime_max` can concern no token any more.
    pub(super) fn add(&mut self, revocation: Revocation, now: Micros, lifetime_max: Micros) {
        if self.void_until.len() >= ENTRIES_MAX {
            self.void_until.retain(|_, until| until.saturating_add(lifetime_max) > now);
        }
        if self.void_until.len() >= ENTRIES_MAX {
            self.raise_floor();
        }
        // Ids of users and sessions are UUIDs: they cannot be mistaken for each other.
        for id in [revocation.user_id, revocation.session_id].into_iter().flatten() {
            let until = self.void_until.entry(id).or_default();
            *until = revocation.revoked_at.max(*until);
        }
    }

    /// Whether a token of this user and session, issued at `issued_at`, is withdrawn.
    pub(super) fn contains(&self, user: Uuid, session: Option<Uuid>, issued_at: Micros) -> bool {
        let void = |id: &Uuid| self.void_until.get(id).is_some_and(|until| issued_at <= *until);
        issued_at <= self.floor || void(&user) || session.as_ref().is_some_and(void)
    }

    /// Full: the older half becomes one rule that withdraws too much rather than too little.
    fn raise_floor(&mut self) {
        let mut times: Vec<Micros> = self.void_until.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        self.floor = self.floor.max(*median);
        let floor = self.floor;
        self.void_until.retain(|_, until| *until > floor);
        tracing::error!(
            kept = self.void_until.len(),
            "too many revocations: tokens of a whole time are void"
        );
    }
}

/// Most revocations that are kept one by one.
const ENTRIES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_user_can_sign_in_again_with_a_newer_token() {
        let (user, mut set) = (Uuid::now_v7(), Revocations::default());
        set.add(Revocation { user_id: Some(user), session_id: None, revoked_at: 100 }, 100, 1_000);
        assert!(set.contains(user, None, 100));
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
