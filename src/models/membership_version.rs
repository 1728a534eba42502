//! The versions of memberships, as back ends have told them, so that a call that arrives late changes nothing.

use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::Micros;

/// A membership in one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct MembershipVersion {
    /// The user.
    pub user_id: Uuid,
    /// The channel.
    pub channel_id: Uuid,
    /// The version, which rises with every change of the membership.
    pub version: i64,
    /// Whether the user is a member from this version on.
    pub is_member: bool,
}

impl MembershipVersion {
    /// Stores the version, unless a newer one is stored. Returns the stored one if that is newer. The same version may
    /// be stored again, because a call that failed is repeated.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn store(&self, db: &Db, now: Micros) -> ImksResult<Option<Self>> {
        on!(db, pool => {
            let query = sqlx::query(STORE).bind(self.user_id).bind(self.channel_id).bind(self.version);
            query.bind(self.is_member).bind(now).execute(pool).await?;
        });
        self.newer(db).await
    }

    /// Returns the stored version of the membership if it is newer than this one.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn newer(&self, db: &Db) -> ImksResult<Option<Self>> {
        Ok(on!(db, pool => {
            let query = sqlx::query_as(NEWER).bind(self.user_id).bind(self.channel_id).bind(self.version);
            query.fetch_optional(pool).await?
        }))
    }
}

/// Removes up to [`SWEEP_STEP`] versions that were stored before `before`. Returns how many it removed.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sweep(db: &Db, before: Micros) -> ImksResult<u64> {
    Ok(on!(db, pool => {
        sqlx::query(SWEEP).bind(before).bind(SWEEP_STEP).execute(pool).await?.rows_affected()
    }))
}

const STORE: &str = "INSERT INTO membership_version (user_id, channel_id, version, is_member, at) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id, channel_id) DO UPDATE \
    SET version = excluded.version, is_member = excluded.is_member, at = excluded.at \
    WHERE membership_version.version <= excluded.version";
const NEWER: &str = "SELECT user_id, channel_id, version, is_member FROM membership_version \
    WHERE user_id = $1 AND channel_id = $2 AND version > $3";
const SWEEP: &str = "DELETE FROM membership_version WHERE (user_id, channel_id) IN \
    (SELECT user_id, channel_id FROM membership_version WHERE at < $1 ORDER BY at LIMIT $2)";
/// The most rows that one sweep removes.
pub const SWEEP_STEP: i64 = 1_000;
