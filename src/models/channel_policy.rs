//! What channels allow beside what their core says: set by back ends, and void as soon as the core changes the
//! channel.

use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use crate::{ImksError, ImksResult};

/// A row of `channel_policy`. `None` leaves a property to the core.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct ChannelPolicy {
    /// The channel.
    pub channel_id: Uuid,
    /// The version of the channel at the core when the policy was set.
    pub core_version: i64,
    /// The minimum number of seconds between two messages of one user.
    pub slow_mode_s: Option<i64>,
    /// Whether only those who manage the channel may write.
    pub read_only: Option<bool>,
    /// Whether the channel is archived.
    pub archived: Option<bool>,
    /// The number of days that messages are kept; 0 means without limit.
    pub retention_days: Option<i64>,
}

impl ChannelPolicy {
    /// Stores the properties that are set. The others keep the value that was stored for the same version of the core.
    ///
    /// # Errors
    /// [`ImksError::LimitReached`] if [`POLICIES_MAX`] other channels have a policy, and [`ImksError::Database`].
    pub async fn store(&self, db: &Db) -> ImksResult<()> {
        let others: i64 = on!(read db, pool => {
            sqlx::query_scalar(OTHERS).bind(self.channel_id).fetch_one(pool).await?
        });
        if others >= POLICIES_MAX {
            return Err(ImksError::LimitReached("channel_policies"));
        }
        on!(db, pool => {
            let query = sqlx::query(STORE).bind(self.channel_id).bind(self.core_version).bind(self.slow_mode_s);
            let query = query.bind(self.read_only).bind(self.archived).bind(self.retention_days);
            query.execute(pool).await?;
        });
        Ok(())
    }
}

/// Returns all policies.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn all(db: &Db) -> ImksResult<Vec<ChannelPolicy>> {
    Ok(on!(read db, pool => sqlx::query_as(ALL).bind(POLICIES_MAX).fetch_all(pool).await?))
}

/// Removes the policy of a channel if it was set for an earlier version of the core than this one.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn forget(db: &Db, channel: Uuid, core_version: i64) -> ImksResult<()> {
    on!(db, pool => {
        sqlx::query(FORGET).bind(channel).bind(core_version).execute(pool).await?;
    });
    Ok(())
}

const OTHERS: &str = "SELECT COUNT(*) FROM channel_policy WHERE channel_id <> $1";
const STORE: &str = "INSERT INTO channel_policy \
    (channel_id, core_version, slow_mode_s, read_only, archived, retention_days) VALUES ($1, $2, $3, $4, $5, $6) \
    ON CONFLICT (channel_id) DO UPDATE SET core_version = excluded.core_version, \
    slow_mode_s = CASE WHEN channel_policy.core_version = excluded.core_version \
        THEN COALESCE(excluded.slow_mode_s, channel_policy.slow_mode_s) ELSE excluded.slow_mode_s END, \
    read_only = CASE WHEN channel_policy.core_version = excluded.core_version \
        THEN COALESCE(excluded.read_only, channel_policy.read_only) ELSE excluded.read_only END, \
    archived = CASE WHEN channel_policy.core_version = excluded.core_version \
        THEN COALESCE(excluded.archived, channel_policy.archived) ELSE excluded.archived END, \
    retention_days = CASE WHEN channel_policy.core_version = excluded.core_version \
        THEN COALESCE(excluded.retention_days, channel_policy.retention_days) ELSE excluded.retention_days END";
const ALL: &str = "SELECT channel_id, core_version, slow_mode_s, read_only, archived, retention_days \
    FROM channel_policy ORDER BY channel_id LIMIT $1";
const FORGET: &str = "DELETE FROM channel_policy WHERE channel_id = $1 AND core_version < $2";
/// The most channels with a policy. Every node keeps them in memory.
pub const POLICIES_MAX: i64 = 10_000;
