//! Sessions: an access token that lives for minutes, and a refresh token that is exchanged for the next pair. Each
//! refresh token is good once; a second use means that somebody has a copy, and ends the session (RFC 9700,
//! section 4.14).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::change::{Change, record};
use super::signing::{REVOKED, TTL_MAX};
use super::user::{LIST_MAX, LOCK_USER, REVOKE, unknown};
use super::{Directory, User, shown};
use crate::clock::{Micros, Timestamp, micros, now_micros};
use crate::error::{Cause, ImksError, ImksResult, Precondition};
use crate::models::db::{Db, on, transaction};

/// The tokens of a session. It does not implement `Debug`, because the tokens are secrets.
#[derive(Clone, Serialize, JsonSchema)]
pub struct Tokens {
    /// The session that the tokens belong to.
    pub session_id: Uuid,
    /// The user of the session.
    pub user_id: Uuid,
    /// The token for imks.
    pub access_token: String,
    /// When the access token expires.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub expires_at: Micros,
    /// The token for the next pair; good once.
    pub refresh_token: String,
    /// When the session ends, if it is not ended before.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub session_expires_at: Micros,
}

/// A session of a user.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct SessionInfo {
    /// The id of the session, `sid` in its tokens.
    pub id: Uuid,
    /// The user of the session.
    pub user_id: Uuid,
    /// When the session began.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub created_at: Micros,
    /// When the session ends, if it is not ended before.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub expires_at: Micros,
}

/// The outcome of the use of a refresh token, before new tokens are made.
enum Used {
    Unknown,
    /// It was used before: the session, of this user, is ended now.
    Again(Uuid, Option<Uuid>),
    Session(SessionInfo),
}

/// The outcome of an attempt to begin a session.
enum Begun {
    /// The session, and when its first token is issued.
    Session(SessionInfo, Micros),
    /// Tokens of the user or session were withdrawn within this second. Tokens have whole seconds, so a new one would
    /// count as withdrawn.
    TooSoon,
}

impl Directory {
    /// Begins a session of a user. With a `key`, the same key and user are the same session for as long as it lasts, so
    /// that a retry does not begin another one; its earlier refresh token is then replaced.
    ///
    /// # Errors
    /// `FailedPrecondition` if the operator's own application issues the tokens; `UnknownName` if the account was
    /// closed; `Overloaded` if tokens of the user were withdrawn at a time that this clock has not reached yet;
    /// `Database`.
    pub async fn begin_session(&self, user: &User, key: Option<&str>) -> ImksResult<Tokens> {
        self.check_issuer()?;
        let id = key.map_or_else(Uuid::now_v7, |key| Uuid::new_v5(&user.id, key.as_bytes()));
        let (secret, hash) = secret(PREFIX)?;
        let deadline = Instant::now() + TOO_SOON_MAX;
        let (session, now) = loop {
            let (db, user, hash, ttl) =
                (self.db().clone(), user.id, hash.clone(), micros(self.0.config.refresh_ttl));
            match self.settled(async move { begin(&db, (id, user), hash, ttl).await }).await? {
                Begun::Session(session, now) => break (session, now),
                Begun::TooSoon if Instant::now() < deadline => sleep(SECOND_SHARE).await,
                // The clock was stepped back.
                Begun::TooSoon => return Err(ImksError::Overloaded { retry_after: TOO_SOON_MAX }),
            }
        };
        self.tokens(user, session, secret, now).await
    }

    /// Exchanges a refresh token for new tokens of its session.
    ///
    /// # Errors
    /// `FailedPrecondition` if the operator's own application issues the tokens; `Auth` if the token is not known, was
    /// used before, or if its session or account has ended; `Database`.
    pub async fn refresh(&self, refresh_token: &str) -> ImksResult<Tokens> {
        self.check_issuer()?;
        let old = hash(refresh_token)?;
        let (secret, hash) = secret(PREFIX)?;
        let (db, now) = (self.db().clone(), now_micros());
        let used = self.settled(async move { exchange(&db, old, hash, now).await }).await?;
        let session = match used {
            Used::Session(session) => session,
            Used::Unknown => return Err(ImksError::Auth("The refresh token is not known, or has expired")),
            Used::Again(session, user) => {
                let user = user.map(tracing::field::display);
                tracing::warn!(user, %session, "a refresh token was used twice; its session has been ended");
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

    /// Ends a session that has not ended, like [`Directory::revoke_session`].
    ///
    /// # Errors
    /// `UnknownName` if there is no such session; `Database`.
    pub async fn remove_session(&self, session: &str) -> ImksResult<()> {
        let id = Uuid::parse_str(session).map_err(|_| unknown("session", session))?;
        let now = now_micros();
        let there: Option<SessionInfo> = on!(read self.db(), pool => {
            sqlx::query_as(LIVE).bind(id).bind(now).fetch_optional(pool).await?
        });
        there.ok_or_else(|| unknown("session", session))?;
        self.revoke_session(session).await
    }

    /// Ends a session: revokes its access tokens, and no refresh token of it is good any more. It may be one that is
    /// not stored, such as that of a token for development.
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

    /// Checks that somebody accepts the tokens of a session.
    fn check_issuer(&self) -> ImksResult<()> {
        match self.0.config.issues_tokens {
            true => Ok(()),
            false => Err(ImksError::FailedPrecondition(Precondition::OwnLogins)),
        }
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

/// Begins the session `id` of a user, or goes on with it if it has not ended.
async fn begin(db: &Db, (id, user): (Uuid, Uuid), hash: String, ttl: Micros) -> ImksResult<Begun> {
    Ok(transaction!(db, tx => {
        if sqlx::query(LOCK_USER).bind(user).execute(&mut *tx).await?.rows_affected() != 1 {
            Err(unknown("user", &user.to_string()))?;
        }
        // Read after the user is locked: whoever ends their sessions from then on ends this one as well.
        let now = now_micros();
        let revoked_at: Option<Micros> =
            sqlx::query_scalar(REVOKED).bind(user).bind(id).fetch_one(&mut *tx).await?;
        if revoked_at.is_some_and(|at| now / SECOND * SECOND <= at) {
            Begun::TooSoon
        } else {
            let session: SessionInfo = sqlx::query_as(BEGIN)
                .bind(id).bind(user).bind(now).bind(now.saturating_add(ttl))
                .fetch_one(&mut *tx).await?;
            sqlx::query(FORGET).bind(id).execute(&mut *tx).await?;
            sqlx::query(ADD).bind(hash).bind(id).bind(now).execute(&mut *tx).await?;
            Begun::Session(session, now)
        }
    }))
}

async fn exchange(db: &Db, old: String, new: String, now: Micros) -> ImksResult<Used> {
    Ok(transaction!(db, tx => {
        let session: Option<Uuid> =
            sqlx::query_scalar(USE).bind(&old).bind(now).fetch_optional(&mut *tx).await?;
        let used_before: Option<(Uuid, Option<Uuid>)> = match session {
            Some(_) => None,
            None => sqlx::query_as(USED).bind(&old).fetch_optional(&mut *tx).await?,
        };
        if let Some((session, _)) = used_before {
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
            (None, Some((session, user))) => Used::Again(session, user),
            (None, None) => Used::Unknown,
        }
    }))
}

/// Creates a secret token that starts with `prefix`, and returns it with its hash.
pub(super) fn secret(prefix: &str) -> ImksResult<(String, String)> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random)?;
    let secret = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = hash(&secret)?;
    Ok((secret, hash))
}

/// Returns the hash under which a secret token is stored: an HMAC-SHA-256 with a fixed key. A token has 256 random
/// bits, so no salt and no slow hash is needed.
pub(super) fn hash(token: &str) -> ImksResult<String> {
    let key = EncodingKey::from_secret(HASH_KEY);
    jsonwebtoken::crypto::sign(token.as_bytes(), &key, Algorithm::HS256)
        .map_err(|error| ImksError::Signing(Cause::new(error)))
}

/// The start of a refresh token, by which people and scanners for leaked secrets know it.
const PREFIX: &str = "imks_refresh_";
const HASH_KEY: &[u8] = b"imks refresh token, version 1";
/// Seven days, in microseconds: how long a used token is kept, so that a second use is noticed.
const USED_KNOWN: Micros = 7 * 24 * 3_600_000_000;
/// A second, in microseconds.
const SECOND: Micros = 1_000_000;
/// The pause until it is looked again whether a second is over.
const SECOND_SHARE: Duration = Duration::from_millis(100);
/// How long a session that begins waits for the end of the second.
const TOO_SOON_MAX: Duration = Duration::from_secs(2);
/// A session that has not ended stays as it is. One that has, and was not removed yet, begins anew.
const BEGIN: &str = "INSERT INTO directory_session (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (id) DO UPDATE SET \
     created_at = CASE WHEN directory_session.expires_at <= excluded.created_at \
         THEN excluded.created_at ELSE directory_session.created_at END, \
     expires_at = CASE WHEN directory_session.expires_at <= excluded.created_at \
         THEN excluded.expires_at ELSE directory_session.expires_at END \
     RETURNING id, user_id, created_at, expires_at";
const FORGET: &str = "DELETE FROM directory_refresh_token WHERE session_id = $1 AND used_at IS NULL";
const ADD: &str = "INSERT INTO directory_refresh_token (hash, session_id, created_at) VALUES ($1, $2, $3)";
const USE: &str = "UPDATE directory_refresh_token SET used_at = $2 WHERE hash = $1 AND used_at IS NULL \
     RETURNING session_id";
const USED: &str = "SELECT session_id, (SELECT user_id FROM directory_session WHERE id = session_id) \
     FROM directory_refresh_token WHERE hash = $1";
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Config;

    #[tokio::test]
    async fn nobody_waits_for_long_after_the_clock_was_stepped_back() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::models::db::Config { data_dir: folder.path().into(), ..Default::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let directory = Directory::view(db.clone(), Config::default());
        let alice = directory.create_user("alice", false).await.unwrap();
        let in_an_hour = now_micros() + 3_600 * SECOND;
        on!(&db, pool => {
            sqlx::query(REVOKE).bind(alice.id).bind(false).bind(in_an_hour).execute(pool).await.unwrap();
        });
        let refused = directory.begin_session(&alice, None).await.err().unwrap();
        assert_eq!((refused.code(), refused.is_retryable()), (crate::error::Code::Overloaded, true));
    }
}
