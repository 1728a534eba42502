//! What users have chosen to show of their presence, so that it outlives their connections.

use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::Micros;

/// A row of `user_presence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct StoredChoice {
    /// The number of the chosen status.
    pub choice: i32,
    /// When the choice ends; `None` if the user has to end it.
    pub until: Option<Micros>,
}

/// Stores what a user has chosen.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn set(db: &Db, user: Uuid, stored: StoredChoice, now: Micros) -> ImksResult<()> {
    on!(db, pool => {
        let query = sqlx::query(SET).bind(user).bind(stored.choice).bind(stored.until).bind(now);
        query.execute(pool).await?;
    });
    Ok(())
}

/// Returns what a user has chosen; `None` if they never chose.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn get(db: &Db, user: Uuid) -> ImksResult<Option<StoredChoice>> {
    Ok(on!(read db, pool => sqlx::query_as(GET).bind(user).fetch_optional(pool).await?))
}

const GET: &str = "SELECT choice, until FROM user_presence WHERE user_id = $1";
const SET: &str = "INSERT INTO user_presence (user_id, choice, until, updated_at) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (user_id) DO UPDATE SET choice = excluded.choice, until = excluded.until, \
      updated_at = excluded.updated_at";
