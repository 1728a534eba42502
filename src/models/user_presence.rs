//! What users have chosen to show of their presence, so that it outlives their connections.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::Micros;

/// A row of `user_presence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow, Serialize, Deserialize)]
pub struct StoredChoice {
    /// The number of the chosen status.
    pub choice: i32,
    /// When the choice ends; `None` if the user has to end it.
    pub until: Option<Micros>,
    /// When it was chosen. Greater with each choice of a user, whatever the clocks of the nodes: of two choices, the
    /// one with the greater number holds.
    pub set_at: Micros,
}

/// Stores what a user has chosen. Returns the row.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn set(
    db: &Db,
    user: Uuid,
    choice: i32,
    until: Option<Micros>,
    now: Micros,
) -> ImksResult<StoredChoice> {
    Ok(on!(db, pool => {
        let query = sqlx::query_as(SET).bind(user).bind(choice).bind(until).bind(now);
        query.fetch_one(pool).await?
    }))
}

/// Returns what a user has chosen; `None` if they never chose.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn get(db: &Db, user: Uuid) -> ImksResult<Option<StoredChoice>> {
    Ok(on!(read db, pool => sqlx::query_as(GET).bind(user).fetch_optional(pool).await?))
}

const GET: &str = "SELECT choice, until, updated_at AS set_at FROM user_presence WHERE user_id = $1";
const SET: &str = "INSERT INTO user_presence (user_id, choice, until, updated_at) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (user_id) DO UPDATE SET choice = excluded.choice, until = excluded.until, updated_at = \
      CASE WHEN excluded.updated_at > user_presence.updated_at THEN excluded.updated_at \
        ELSE user_presence.updated_at + 1 END \
    RETURNING choice, until, updated_at AS set_at";
