//! What channels allow beside what the core says: limits that back ends have set, applied to the core's answers.

use std::collections::HashMap;

use parking_lot::RwLock;
use uuid::Uuid;

use crate::pb::{ChannelInfo, Effective};

/// The limits of one channel. `None` leaves a property to the core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The version of the channel at the core when the limits were set: they end with it.
    pub core_version: i64,
    /// The minimum number of seconds between two messages of one user.
    pub slow_mode_s: Option<u32>,
    /// Whether only those who manage the channel may write.
    pub read_only: Option<bool>,
    /// Whether the channel is archived.
    pub archived: Option<bool>,
    /// The number of days that messages are kept; 0 means without limit.
    pub retention_days: Option<u32>,
}

/// The policies by channel.
#[derive(Debug, Default)]
pub(super) struct Policies(RwLock<HashMap<Uuid, Policy>>);

impl Policies {
    /// Replaces all policies. Returns the channels that now have another one, or none.
    pub(super) fn replace(&self, policies: HashMap<Uuid, Policy>) -> Vec<Uuid> {
        let mut current = self.0.write();
        let ids = current.keys().chain(policies.keys());
        let mut changed: Vec<Uuid> = ids.copied().filter(|id| current.get(id) != policies.get(id)).collect();
        *current = policies;
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// Returns the policy of a channel.
    pub(super) fn get(&self, channel: Uuid) -> Option<Policy> {
        self.0.read().get(&channel).copied()
    }

    /// Returns the channels that have a policy.
    pub(super) fn channels(&self) -> Vec<Uuid> {
        self.0.read().keys().copied().collect()
    }

    /// Applies the policy of the channel to permissions in it.
    pub(super) fn limit(&self, effective: &Effective) -> Effective {
        let Some(policy) = self.get(effective.channel_id) else { return *effective };
        Effective {
            archived: policy.archived.unwrap_or(effective.archived),
            read_only: policy.read_only.unwrap_or(effective.read_only),
            slow_mode_s: policy.slow_mode_s.unwrap_or(effective.slow_mode_s),
            ..*effective
        }
    }

    /// Applies the policy of the channel to what the core says about it, unless the core has changed it since.
    pub(super) fn apply(&self, channel: ChannelInfo) -> ChannelInfo {
        let policy = self.get(channel.id).filter(|policy| channel.version <= policy.core_version);
        let Some(policy) = policy else { return channel };
        let days = policy.retention_days.map(|days| (days > 0).then_some(days));
        ChannelInfo {
            archived: policy.archived.unwrap_or(channel.archived),
            read_only: policy.read_only.unwrap_or(channel.read_only),
            slow_mode_s: policy.slow_mode_s.unwrap_or(channel.slow_mode_s),
            retention_days: days.unwrap_or(channel.retention_days),
            ..channel
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::v1;

    fn channel(version: i64) -> ChannelInfo {
        let channel = v1::Channel {
            id: Uuid::from_u128(7).to_string(),
            kind: v1::channel::Kind::Public.into(),
            read_only: true,
            slow_mode_s: 5,
            retention_days: 30,
            version,
            ..v1::Channel::default()
        };
        ChannelInfo::try_from(channel).unwrap()
    }

    #[test]
    fn what_a_policy_leaves_open_stays_as_the_core_has_it_until_the_core_changes_the_channel() {
        let policies = Policies::default();
        let policy =
            Policy { core_version: 3, archived: Some(true), retention_days: Some(0), ..Policy::default() };
        assert_eq!(policies.replace(HashMap::from([(Uuid::from_u128(7), policy)])), [Uuid::from_u128(7)]);
        let limited = policies.apply(channel(3));
        assert_eq!((limited.archived, limited.read_only, limited.slow_mode_s), (true, true, 5));
        assert_eq!(limited.retention_days, None, "0 days are for ever");
        assert_eq!(policies.apply(channel(4)), channel(4));
        assert_eq!(policies.replace(HashMap::from([(Uuid::from_u128(7), policy)])), Vec::<Uuid>::new());
        assert_eq!(policies.replace(HashMap::new()), [Uuid::from_u128(7)]);
        assert_eq!(policies.apply(channel(3)), channel(3));
    }
}
