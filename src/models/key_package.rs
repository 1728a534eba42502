//! Key packages of devices, for groups that encrypt end to end (RFC 9420): stored by their owner, handed out once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, detached, json_ids, on, transaction};
use super::text::ShortText;
use super::user_rev::LOCK_USER;
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// A key package as its owner publishes it. Its text is opaque to the server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct KeyPackage {
    /// The owner's name for it, for example its hash.
    pub id: ShortText<1, 64>,
    /// The package.
    pub package: ShortText<1, PACKAGE_CHARS_MAX>,
    /// Whether it is handed out again and again when no other is left.
    #[serde(default)]
    pub last_resort: bool,
}

/// A key package that is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, JsonSchema)]
pub struct ClaimedPackage {
    /// The owner.
    pub user_id: Uuid,
    /// The owner's device.
    pub device_id: String,
    /// The owner's name for the package.
    pub id: String,
    /// The package.
    pub package: String,
    /// Whether others may get it too.
    pub last_resort: bool,
}

/// Stores packages of a device, and returns how many it has that can be handed out, without that of last resort. A
/// package that is there, or was handed out a short while ago, is not stored again.
///
/// # Errors
/// [`ImksError::LimitReached`] for more than [`PACKAGES_MAX`] packages of the device, or devices of the user than
/// [`DEVICES_MAX`]; [`ImksError::Database`].
pub async fn publish(
    db: &Db,
    user: Uuid,
    device: String,
    packages: Vec<KeyPackage>,
    now: Micros,
) -> ImksResult<i64> {
    let db = db.clone();
    detached(async move { publish_in_task(&db, user, &device, &packages, now).await }).await
}

async fn publish_in_task(
    db: &Db,
    user: Uuid,
    device: &str,
    packages: &[KeyPackage],
    now: Micros,
) -> ImksResult<i64> {
    Ok(transaction!(db, tx => {
        // One request of a user after the other, so that all of them together stay within the limits.
        sqlx::query(LOCK_USER).bind(user).execute(&mut *tx).await?;
        for package in packages {
            let (id, text) = (package.id.as_str(), package.package.as_str());
            if package.last_resort {
                sqlx::query(REPLACE_LAST).bind(user).bind(device).bind(id).execute(&mut *tx).await?;
            }
            let insert = sqlx::query(INSERT).bind(user).bind(device).bind(id).bind(text);
            insert.bind(package.last_resort).bind(now).execute(&mut *tx).await?;
        }
        let (available, devices): (i64, i64) =
            sqlx::query_as(COUNTS).bind(user).bind(device).fetch_one(&mut *tx).await?;
        if available > PACKAGES_MAX {
            return Err(ImksError::LimitReached("key_packages"));
        }
        if devices > DEVICES_MAX {
            return Err(ImksError::LimitReached("key_package_devices"));
        }
        available
    }))
}

/// Hands out a package of each device of these users: nobody else gets it, unless it is that of last resort.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn claim(db: &Db, users: &[Uuid], now: Micros) -> ImksResult<Vec<ClaimedPackage>> {
    let (db, users) = (db.clone(), json_ids(users));
    let claim = match db {
        Db::Postgres(_) => CLAIM_POSTGRES,
        Db::Sqlite(_) => CLAIM_SQLITE,
    };
    detached(async move {
        Ok(on!(&db, pool => sqlx::query_as(claim).bind(&users).bind(now).fetch_all(pool).await?))
    })
    .await
}

/// Forgets up to [`FORGET_STEP`] packages that were handed out longer than a day ago. Returns how many.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn forget_claimed(db: &Db, now: Micros) -> ImksResult<u64> {
    Ok(on!(db, pool => {
        let query = sqlx::query(FORGET).bind(now - CLAIMED_KEPT).bind(FORGET_STEP);
        query.execute(pool).await?.rows_affected()
    }))
}

const INSERT: &str = "INSERT INTO key_package (user_id, device_id, id, package, last_resort, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, device_id, id) DO NOTHING";
/// A device has one package of last resort.
const REPLACE_LAST: &str =
    "DELETE FROM key_package WHERE user_id = $1 AND device_id = $2 AND last_resort AND id <> $3";
const COUNTS: &str = "SELECT COUNT(CASE WHEN device_id = $2 AND NOT last_resort THEN 1 END), \
    COUNT(DISTINCT device_id) FROM key_package WHERE user_id = $1 AND claimed_at IS NULL";
/// Takes the first package of each device that nobody else is taking, and locks no other. Where there is none, that of last
/// resort is handed out, which changes nothing.
const CLAIM_POSTGRES: &str = "WITH devices AS MATERIALIZED (SELECT DISTINCT user_id, device_id FROM key_package \
      WHERE claimed_at IS NULL AND user_id IN (SELECT value::uuid FROM json_array_elements_text($1::json))), \
    first AS MATERIALIZED (SELECT p.user_id, p.device_id, p.id FROM devices d CROSS JOIN LATERAL (\
      SELECT k.user_id, k.device_id, k.id FROM key_package k WHERE k.user_id = d.user_id \
        AND k.device_id = d.device_id AND k.claimed_at IS NULL AND NOT k.last_resort \
      ORDER BY k.created_at, k.id LIMIT 1 FOR UPDATE SKIP LOCKED) AS p), \
    claimed AS (UPDATE key_package k SET claimed_at = $2 FROM first f \
      WHERE k.user_id = f.user_id AND k.device_id = f.device_id AND k.id = f.id \
      RETURNING k.user_id, k.device_id, k.id, k.package, k.last_resort) \
    SELECT user_id, device_id, id, package, last_resort FROM claimed UNION ALL \
    SELECT l.user_id, l.device_id, l.id, l.package, l.last_resort FROM devices d \
      JOIN key_package l ON l.user_id = d.user_id AND l.device_id = d.device_id AND l.last_resort \
        AND l.claimed_at IS NULL \
      WHERE NOT EXISTS (SELECT 1 FROM claimed c WHERE c.user_id = l.user_id AND c.device_id = l.device_id)";
/// Needs no row locks: a statement that writes holds SQLite's only write lock.
const CLAIM_SQLITE: &str = "UPDATE key_package SET claimed_at = CASE WHEN last_resort THEN NULL ELSE $2 END \
    WHERE (user_id, device_id, id) IN (SELECT user_id, device_id, id FROM (\
      SELECT user_id, device_id, id, ROW_NUMBER() OVER (\
        PARTITION BY user_id, device_id ORDER BY last_resort, created_at, id) AS place \
      FROM key_package WHERE claimed_at IS NULL AND user_id IN (SELECT unhex(value) FROM json_each($1))) AS waiting \
      WHERE place = 1) RETURNING user_id, device_id, id, package, last_resort";
const FORGET: &str = "DELETE FROM key_package WHERE (user_id, device_id, id) IN (\
    SELECT user_id, device_id, id FROM key_package WHERE claimed_at < $1 ORDER BY claimed_at LIMIT $2)";

/// The longest key package, in characters.
pub const PACKAGE_CHARS_MAX: usize = 8 * 1024;
/// The most key packages of one device that wait to be handed out.
pub const PACKAGES_MAX: i64 = 200;
/// The most devices of one user that have key packages.
pub const DEVICES_MAX: i64 = 20;
/// How long it is known that a package was handed out: as long as a nonce.
const CLAIMED_KEPT: Micros = 24 * 3_600 * 1_000_000;
/// The packages that one call forgets.
pub const FORGET_STEP: i64 = 1_000;
