//! Bans: who may not be a member of a channel or a workspace, until an end or until the ban is lifted.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::change::{Change, record};
use super::member::dismiss;
use super::place::Place;
use super::user::{CHANGES_AT_ONCE, LIST_MAX, unknown};
use super::{Directory, shown};
use crate::clock::{Micros, Timestamp, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, on, transaction};

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct Ban {
    /// The id of the channel or workspace.
    pub place_id: Uuid,
    /// The id of the user.
    pub user_id: Uuid,
    /// The name of the user.
    pub username: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// When the ban began.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub banned_at: Micros,
    /// When the ban ends by itself. Somebody has to lift one without an end.
    #[serde(serialize_with = "shown::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    pub ends_at: Option<Micros>,
}

impl Directory {
    /// Ends what a user is a member of in a place, and keeps them out of it. Replaces an earlier ban.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` if the reason is too long or the end has passed; `FailedPrecondition` for a
    /// direct conversation; `Database`.
    pub async fn ban(
        &self,
        place: &str,
        username: &str,
        reason: &str,
        ends_at: Option<Micros>,
    ) -> ImksResult<()> {
        let user = self.user_by_name(username).await?.id;
        let place = self.place(place).await?;
        let now = now_micros();
        if place.workspace.is_none() {
            return Err(ImksError::FailedPrecondition(Precondition::DirectConversation));
        }
        if reason.chars().count() > REASON_CHARS_MAX {
            return Err(ImksError::invalid("reason", format!("has more than {REASON_CHARS_MAX} characters")));
        }
        if ends_at.is_some_and(|end| end <= now) {
            return Err(ImksError::invalid("ends_at", "is in the past"));
        }
        let (db, reason) = (self.db().clone(), reason.to_owned());
        self.settled(async move { store(&db, place, user, reason, ends_at, now).await }).await
    }

    /// Lifts a ban. The user is a member of nothing until somebody adds them, or they join.
    ///
    /// # Errors
    /// `UnknownName` if the user is not banned; `Database`.
    pub async fn lift_ban(&self, place: &str, username: &str) -> ImksResult<()> {
        let user = self.user_by_name(username).await?.id;
        let place = self.place(place).await?.id();
        let db = self.db().clone();
        let lifted = self.settled(async move {
            Ok(transaction!(&db, tx => {
                let now = now_micros();
                let lifted =
                    sqlx::query(LIFT).bind(place).bind(user).bind(now).execute(&mut *tx).await?.rows_affected() == 1;
                if lifted {
                    record!(tx, now, &[Change::permissions(Some(user), None)]);
                }
                lifted
            }))
        });
        if lifted.await? { Ok(()) } else { Err(unknown("ban of", username)) }
    }

    /// Returns the bans in a place that have not ended, the newest first, at most 10,000.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn bans(&self, place: &str) -> ImksResult<Vec<Ban>> {
        let (place, now) = (self.place(place).await?.id(), now_micros());
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(ALL).bind(place).bind(now).bind(LIST_MAX).fetch_all(pool).await?
        }))
    }

    pub(super) async fn is_banned(&self, place: Place, user: Uuid) -> ImksResult<bool> {
        let now = now_micros();
        let bans: i64 = on!(read self.db(), pool => {
            sqlx::query_scalar(super::member::BANS)
                .bind(user).bind(place.id()).bind(place.workspace_id()).bind(now)
                .fetch_one(pool).await?
        });
        Ok(bans > 0)
    }
}

/// Removes bans that have ended.
pub(super) async fn trim(db: &Db, now: Micros) -> ImksResult<()> {
    on!(db, pool => { sqlx::query(TRIM).bind(now).execute(pool).await?; });
    Ok(())
}

async fn store(
    db: &Db,
    place: Place,
    user: Uuid,
    reason: String,
    ends_at: Option<Micros>,
    now: Micros,
) -> ImksResult<()> {
    transaction!(db, tx => {
        let mut changes = dismiss!(tx, place, user);
        sqlx::query(BAN)
            .bind(place.id()).bind(user).bind(reason).bind(now).bind(ends_at)
            .execute(&mut *tx).await?;
        // Also for who was no member, but could look into an open channel.
        changes.push(Change::permissions(Some(user), None));
        for changes in changes.chunks(CHANGES_AT_ONCE) {
            record!(tx, now, changes);
        }
    });
    Ok(())
}

/// The length of the longest reason of a ban, in characters.
const REASON_CHARS_MAX: usize = 500;
const BAN: &str = "INSERT INTO directory_ban (place_id, user_id, reason, banned_at, ends_at) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (place_id, user_id) DO UPDATE SET reason = excluded.reason, \
     banned_at = excluded.banned_at, ends_at = excluded.ends_at";
const LIFT: &str =
    "DELETE FROM directory_ban WHERE place_id = $1 AND user_id = $2 AND (ends_at IS NULL OR ends_at > $3)";
const ALL: &str = "SELECT b.place_id, b.user_id, u.username, b.reason, b.banned_at, b.ends_at FROM directory_ban b \
     JOIN directory_user u ON u.id = b.user_id WHERE b.place_id = $1 AND (b.ends_at IS NULL OR b.ends_at > $2) \
     ORDER BY b.banned_at DESC LIMIT $3";
const TRIM: &str = "DELETE FROM directory_ban WHERE ends_at <= $1";
