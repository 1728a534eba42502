//! The keys with which back ends call imks.

use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// A row of `api_key`.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct ApiKey {
    /// The id, which is a part of the key.
    pub id: Uuid,
    /// The name, unique among keys that are not revoked.
    pub name: String,
    /// The SHA-256 hash of the secret.
    pub hash: Vec<u8>,
    /// The names of the scopes, with commas between them.
    pub scopes: String,
    /// When the key was created.
    pub created_at: Micros,
    /// When the key stops working; `None` for never.
    pub expires_at: Option<Micros>,
    /// About when the key was last used.
    pub last_used_at: Option<Micros>,
    /// When the key was revoked.
    pub revoked_at: Option<Micros>,
}

/// Stores a new key.
///
/// # Errors
/// [`ImksError::Conflict`] if the name is taken, [`ImksError::LimitReached`] if there are [`LIVE_KEYS_MAX`] keys
/// already, and [`ImksError::Database`].
pub async fn insert(db: &Db, key: &ApiKey) -> ImksResult<()> {
    if live(db).await?.len() >= LIVE_KEYS_MAX {
        return Err(ImksError::LimitReached("api_keys"));
    }
    let inserted = on!(db, pool => {
        let query = sqlx::query(INSERT).bind(key.id).bind(&key.name).bind(&key.hash).bind(&key.scopes);
        query.bind(key.created_at).bind(key.expires_at).execute(pool).await?.rows_affected()
    });
    if inserted == 1 { Ok(()) } else { Err(ImksError::Conflict { what: "API key", name: key.name.clone() }) }
}

/// Returns the keys that are not revoked.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn live(db: &Db) -> ImksResult<Vec<ApiKey>> {
    let most = i64::try_from(LIVE_KEYS_MAX).unwrap_or(i64::MAX);
    Ok(on!(read db, pool => sqlx::query_as(LIVE).bind(most).fetch_all(pool).await?))
}

/// Returns all keys, the newest first, at most [`LIST_MAX`].
///
/// # Errors
/// [`ImksError::Database`].
pub async fn list(db: &Db) -> ImksResult<Vec<ApiKey>> {
    Ok(on!(read db, pool => sqlx::query_as(LIST).bind(LIST_MAX).fetch_all(pool).await?))
}

/// Revokes the key with this name.
///
/// # Errors
/// [`ImksError::UnknownName`] and [`ImksError::Database`].
pub async fn revoke(db: &Db, name: &str, now: Micros) -> ImksResult<()> {
    let revoked = on!(db, pool => {
        sqlx::query(REVOKE).bind(name).bind(now).execute(pool).await?.rows_affected()
    });
    if revoked == 1 { Ok(()) } else { Err(ImksError::UnknownName { what: "API key", name: name.into() }) }
}

/// Notes that a key was used.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn used(db: &Db, id: Uuid, now: Micros) -> ImksResult<()> {
    on!(db, pool => { sqlx::query(USED).bind(id).bind(now).execute(pool).await?; });
    Ok(())
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, hash, scopes, created_at, expires_at, last_used_at, revoked_at FROM api_key ",
            $rest
        )
    };
}

const INSERT: &str = "INSERT INTO api_key (id, name, hash, scopes, created_at, expires_at) \
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
const LIVE: &str = select!("WHERE revoked_at IS NULL ORDER BY id LIMIT $1");
const LIST: &str = select!("ORDER BY id DESC LIMIT $1");
const REVOKE: &str = "UPDATE api_key SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL";
const USED: &str =
    "UPDATE api_key SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
/// The most keys that are not revoked. Every node keeps them in memory.
pub const LIVE_KEYS_MAX: usize = 1_000;
/// The most keys in a list.
const LIST_MAX: i64 = 10_000;
