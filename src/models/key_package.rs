//! Key packages of devices, for groups that encrypt end to end (RFC 9420): stored by their owner, handed out once.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, detached, json_ids, on, transaction};
use super::text::ShortText;
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// A key package as its owner publishes it. Its text is opaque to the server.
#[derive(Debug, Clone, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
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
    let (lock, claim) = match db {
        Db::Postgres(_) => (LOCK_POSTGRES, CLAIM_POSTGRES),
        Db::Sqlite(_) => (LOCK_SQLITE, CLAIM_SQLITE),
    };
    detached(async move {
        Ok(transaction!(&db, tx => {
            // Whoever waits here sees what the one before has left.
            sqlx::query(lock).bind(&users).execute(&mut *tx).await?;
            sqlx::query_as(claim).bind(&users).bind(now).fetch_all(&mut *tx).await?
        }))
    })
    .await
}

/// Forgets packages that were handed out longer than a day ago.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn forget_claimed(db: &Db, now: Micros) -> ImksResult<()> {
    on!(db, pool => {
        let query = sqlx::query(FORGET).bind(now - CLAIMED_KEPT).bind(FORGET_STEP);
        query.execute(pool).await?.rows_affected()
    });
    Ok(())
}

const INSERT: &str = "INSERT INTO key_package (user_id, device_id, id, package, last_resort, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, device_id, id) DO NOTHING";
/// A device has one package of last resort.
const REPLACE_LAST: &str =
    "DELETE FROM key_package WHERE user_id = $1 AND device_id = $2 AND last_resort AND id <> $3";
const COUNTS: &str = "SELECT COUNT(CASE WHEN device_id = $2 AND NOT last_resort THEN 1 END), \
    COUNT(DISTINCT device_id) FROM key_package WHERE user_id = $1 AND claimed_at IS NULL";
/// Locks in one order, so that two claims never wait for each other.
const LOCK_POSTGRES: &str = "SELECT id FROM key_package WHERE claimed_at IS NULL \
    AND user_id IN (SELECT value::uuid FROM json_array_elements_text($1::json)) \
    ORDER BY user_id, device_id, id FOR UPDATE";
/// Needs no row locks: the transaction already holds SQLite's only write lock.
const LOCK_SQLITE: &str = "SELECT $1";

macro_rules! claim_sql {
    ($users:literal) => {
        concat!(
            "UPDATE key_package SET claimed_at = CASE WHEN last_resort THEN NULL ELSE $2 END \
             WHERE (user_id, device_id, id) IN (SELECT user_id, device_id, id FROM (\
               SELECT user_id, device_id, id, ROW_NUMBER() OVER (\
                 PARTITION BY user_id, device_id ORDER BY last_resort, created_at, id) AS place \
               FROM key_package WHERE claimed_at IS NULL AND user_id IN (",
            $users,
            ")) AS waiting WHERE place = 1) RETURNING user_id, device_id, id, package, last_resort"
        )
    };
}
const CLAIM_POSTGRES: &str = claim_sql!("SELECT value::uuid FROM json_array_elements_text($1::json)");
const CLAIM_SQLITE: &str = claim_sql!("SELECT unhex(value) FROM json_each($1)");
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
const FORGET_STEP: i64 = 1_000;
