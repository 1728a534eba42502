//! Sessions: an access token that lives for minutes, and a refresh token that is exchanged for the next pair. Each
//! refresh token is good once; a second use means that somebody has a copy, and ends the session (RFC 9700,
//! section 4.14).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::change::{Change, record};
use super::signing::{TTL_MAX, micros};
use super::user::{LIST_MAX, REVOKE, unknown};
use super::{Directory, User, shown};
use crate::clock::{Micros, now_micros};
use crate::error::{Cause, ImksError, ImksResult};
use crate::models::db::{Db, on, transaction};

/// The tokens of a session. It does not implement `Debug`, because the tokens are secrets.
#[derive(Clone, Serialize)]
pub struct Tokens {
    /// The session that the tokens belong to.
    pub session_id: Uuid,
    /// The user of the session.
    pub user_id: Uuid,
    /// The token for imks.
    pub access_token: String,
    /// When the access token expires.
    #[serde(serialize_with = "shown::time")]
    pub expires_at: Micros,
    /// The token for the next pair; good once.
    pub refresh_token: String,
    /// When the session ends, if it is not ended before.
    #[serde(serialize_with = "shown::time")]
    pub session_expires_at: Micros,
}

/// A session of a user.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize)]
pub struct SessionInfo {
    /// The id of the session, `sid` in its tokens.
    pub id: Uuid,
    /// The user of the session.
    pub user_id: Uuid,
    /// When the session began.
    #[serde(serialize_with = "shown::time")]
    pub created_at: Micros,
    /// When the session ends, if it is not ended before.
    #[serde(serialize_with = "shown::time")]
    pub expires_at: Micros,
}

/// The outcome of the use of a refresh token, before new tokens are made.
enum Used {
    Unknown,
    /// It was used before: the session is ended now.
    Again,
    Session(SessionInfo),
}

impl Directory {
    /// Begins a session of a user. With a `key`, the same key and user always are the same session, so that a
    /// retry does not begin another one; its earlier refresh token is then replaced.
    ///
    /// # Errors
    /// `UnknownName` if the account was closed; `Database`.
    pub async fn begin_session(&self, user: &User, key: Option<&str>) -> ImksResult<Tokens> {
        let now = now_micros();
        let session = SessionInfo {
            id: key.map_or_else(Uuid::now_v7, |key| Uuid::new_v5(&user.id, key.as_bytes())),
            user_id: user.id,
            created_at: now,
            expires_at: now.saturating_add(micros(self.0.config.refresh_ttl)),
        };
        let (secret, hash) = secret()?;
        let (db, row) = (self.db().clone(), session.clone());
        let session = self.settled(async move { begin(&db, row, hash, now).await }).await?;
        self.tokens(user, session, secret, now).await
    }

    /// Exchanges a refresh token for new tokens of its session.
    ///
    /// # Errors
    /// `Auth` if the token is not known, was used before, or if its session or account has ended; `Database`.
    pub async fn refresh(&self, refresh_token: &str) -> ImksResult<Tokens> {
        let old = hash(refresh_token)?;
        let (secret, hash) = secret()?;
        let (db, now) = (self.db().clone(), now_micros());
        let used = self.settled(async move { exchange(&db, old, hash, now).await }).await?;
        let session = match used {
            Used::Session(session) => session,
            Used::Unknown => return Err(ImksError::Auth("The refresh token is not known, or has expired")),
            Used::Again => {
                tracing::warn!("a refresh token was used twice; its session has been ended");
                return Err(ImksError::Auth("The refresh token was used before; the session has been ended"));
            }
        };
        let user = self.users_by_id(&[session.user_id]).await?.pop();
        let user = user.filter(|user| user.deleted_at.is_none());
        self.tokens(&user.ok_or(ImksError::Auth("The account is closed"))?, session, secret, now).await
    }

    /// Returns the sessions of a user that have not ended, the newest first.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn sessions(&self, username: &str) -> ImksResult<Vec<SessionInfo>> {
        let (user, now) = (self.user_by_name(username).await?.id, now_micros());
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(OF_USER).bind(user).bind(now).bind(LIST_MAX).fetch_all(pool).await?
        }))
    }

    /// Ends a session: revokes its access tokens, and no refresh token of it is good any more.
    ///
    /// # Errors
    /// `UnknownName` for a text that is not an id; `Database`.
    pub async fn revoke_session(&self, session: &str) -> ImksResult<()> {
        let session = Uuid::parse_str(session).map_err(|_| unknown("session", session))?;
        let db = self.db().clone();
        self.settled(async move {
            transaction!(&db, tx => end!(tx, session));
            Ok(())
        })
        .await
    }

    /// Signs the access token of a session, as of `now`, which is before the session was found to be open: whoever
    /// ends it from then on ends this token as well.
    async fn tokens(
        &self,
        user: &User,
        session: SessionInfo,
        secret: String,
        now: Micros,
    ) -> ImksResult<Tokens> {
        // An access token does not outlive its session.
        let left = u64::try_from(session.expires_at - now).unwrap_or_default();
        let ttl = self.0.config.access_ttl.min(Duration::from_micros(left)).min(TTL_MAX);
        let ttl = ttl.max(Duration::from_secs(1));
        let (access_token, expires_at) = self.sign(user, session.id, ttl, now).await?;
        Ok(Tokens {
            session_id: session.id,
            user_id: user.id,
            access_token,
            expires_at,
            refresh_token: secret,
            session_expires_at: session.expires_at,
        })
    }
}

/// Removes sessions that have ended, and used tokens that are too old to tell anything.
pub(super) async fn trim(db: &Db, now: Micros) -> ImksResult<()> {
    let old = now - USED_KNOWN;
    on!(db, pool => {
        sqlx::query(TRIM_TOKENS).bind(now).bind(old).execute(pool).await?;
        sqlx::query(TRIM_SESSIONS).bind(now).execute(pool).await?;
    });
    Ok(())
}

/// Ends a session in the transaction `tx`.
macro_rules! end {
    ($tx:expr, $session:expr) => {{
        for sql in END {
            sqlx::query(sql).bind($session).execute(&mut *$tx).await?;
        }
        // Read after the rows are locked: a token that another use of the session brought meanwhile is older.
        let now = now_micros();
        sqlx::query(REVOKE).bind($session).bind(true).bind(now).execute(&mut *$tx).await?;
        record!($tx, now, &[Change::revoked_session($session)]);
    }};
}
use end;

async fn begin(db: &Db, session: SessionInfo, hash: String, now: Micros) -> ImksResult<SessionInfo> {
    Ok(transaction!(db, tx => {
        if sqlx::query(super::member::LOCK_USER).bind(session.user_id).execute(&mut *tx).await?.rows_affected() != 1 {
            Err(unknown("user", &session.user_id.to_string()))?;
        }
        let session: SessionInfo = sqlx::query_as(BEGIN)
            .bind(session.id).bind(session.user_id).bind(session.created_at).bind(session.expires_at)
            .fetch_one(&mut *tx).await?;
        sqlx::query(FORGET).bind(session.id).execute(&mut *tx).await?;
        sqlx::query(ADD).bind(hash).bind(session.id).bind(now).execute(&mut *tx).await?;
        session
    }))
}

async fn exchange(db: &Db, old: String, new: String, now: Micros) -> ImksResult<Used> {
    Ok(transaction!(db, tx => {
        let session: Option<Uuid> =
            sqlx::query_scalar(USE).bind(&old).bind(now).fetch_optional(&mut *tx).await?;
        let used_before: Option<Uuid> = match session {
            Some(_) => None,
            None => sqlx::query_scalar(USED).bind(&old).fetch_optional(&mut *tx).await?,
        };
        if let Some(session) = used_before {
            end!(tx, session);
        }
        let session: Option<SessionInfo> = match session {
            Some(id) => sqlx::query_as(LIVE).bind(id).bind(now).fetch_optional(&mut *tx).await?,
            None => None,
        };
        if let Some(session) = &session {
            sqlx::query(ADD).bind(new).bind(session.id).bind(now).execute(&mut *tx).await?;
        }
        match (session, used_before) {
            (Some(session), _) => Used::Session(session),
            (None, Some(_)) => Used::Again,
            (None, None) => Used::Unknown,
        }
    }))
}

/// Creates a refresh token, and returns it with its hash.
fn secret() -> ImksResult<(String, String)> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random)?;
    let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = hash(&secret)?;
    Ok((secret, hash))
}

/// Returns the hash under which a refresh token is stored: an HMAC-SHA-256 with a fixed key. A token has 256 random
/// bits, so no salt and no slow hash is needed.
fn hash(token: &str) -> ImksResult<String> {
    let key = EncodingKey::from_secret(HASH_KEY);
    jsonwebtoken::crypto::sign(token.as_bytes(), &key, Algorithm::HS256)
        .map_err(|error| ImksError::Signing(Cause::new(error)))
}

/// The start of a refresh token, by which people and scanners for leaked secrets know it.
const PREFIX: &str = "imks_refresh_";
const HASH_KEY: &[u8] = b"imks refresh token, version 1";
/// Seven days, in microseconds: how long a used token is kept, so that a second use is noticed.
const USED_KNOWN: Micros = 7 * 24 * 3_600_000_000;
/// A session that exists stays as it is.
const BEGIN: &str = "INSERT INTO directory_session (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (id) DO UPDATE SET user_id = directory_session.user_id \
     RETURNING id, user_id, created_at, expires_at";
const FORGET: &str = "DELETE FROM directory_refresh_token WHERE session_id = $1 AND used_at IS NULL";
const ADD: &str = "INSERT INTO directory_refresh_token (hash, session_id, created_at) VALUES ($1, $2, $3)";
const USE: &str = "UPDATE directory_refresh_token SET used_at = $2 WHERE hash = $1 AND used_at IS NULL \
     RETURNING session_id";
const USED: &str = "SELECT session_id FROM directory_refresh_token WHERE hash = $1";
const LIVE: &str = "SELECT id, user_id, created_at, expires_at FROM directory_session \
     WHERE id = $1 AND expires_at > $2";
const OF_USER: &str = "SELECT id, user_id, created_at, expires_at FROM directory_session \
     WHERE user_id = $1 AND expires_at > $2 ORDER BY created_at DESC LIMIT $3";
const END: [&str; 2] = [
    "DELETE FROM directory_refresh_token WHERE session_id = $1",
    "DELETE FROM directory_session WHERE id = $1",
];
const TRIM_TOKENS: &str = "DELETE FROM directory_refresh_token WHERE used_at < $2 \
     OR session_id IN (SELECT id FROM directory_session WHERE expires_at < $1)";
const TRIM_SESSIONS: &str = "DELETE FROM directory_session WHERE expires_at < $1";
