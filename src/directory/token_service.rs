//! The directory's implementation of the core's token service.

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::FromRow;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Directory;
use super::signing::{Checked, KeyRow};
use super::status::failed;
use super::watch::{Cursored, Item};
use crate::clock::{Micros, now_micros};
use crate::error::ImksResult;
use crate::models::db::{Db, on};
use crate::pb::v1;
use crate::pb::v1::signing_key::{Algorithm, Status as KeyStatus};
use crate::pb::v1::verify_token_response::Reason;
use crate::pb::v1::watch_revocations_response::Event;

#[tonic::async_trait]
impl v1::token_service_server::TokenService for Directory {
    type WatchRevocationsStream = BoxStream<'static, Result<v1::WatchRevocationsResponse, Status>>;

    async fn verify_token(
        &self,
        request: Request<v1::VerifyTokenRequest>,
    ) -> Result<Response<v1::VerifyTokenResponse>, Status> {
        let request = request.into_inner();
        let refused =
            |reason: Reason| v1::VerifyTokenResponse { reason: reason.into(), ..Default::default() };
        let answer = match self.check_token(&request.token, &request.audience).await.map_err(failed)? {
            Checked::Invalid => refused(Reason::Invalid),
            Checked::Expired => refused(Reason::Expired),
            Checked::Revoked => refused(Reason::Revoked),
            Checked::Valid(claims) => v1::VerifyTokenResponse {
                valid: true,
                user_id: claims.sub.to_string(),
                username: claims.username,
                session_id: claims.sid.to_string(),
                issued_at_us: claims.iat.saturating_mul(1_000_000),
                expires_at_us: claims.exp.saturating_mul(1_000_000),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn get_signing_keys(
        &self,
        request: Request<v1::GetSigningKeysRequest>,
    ) -> Result<Response<v1::GetSigningKeysResponse>, Status> {
        let keys = self.keys().await.map_err(failed)?;
        let name = |key: &KeyRow| {
            format!("{}@{}{}", key.kid, key.not_after.unwrap_or_default(), if key.revoked { "!" } else { "" })
        };
        let etag = keys.iter().map(name).collect::<Vec<_>>().join(",");
        let not_modified = request.into_inner().etag == etag;
        let keys = match not_modified {
            true => Vec::new(),
            false => keys.into_iter().map(|key| listed(key, &self.0.config.issuer)).collect(),
        };
        Ok(Response::new(v1::GetSigningKeysResponse { keys, max_age_s: MAX_AGE_S, etag, not_modified }))
    }

    async fn watch_revocations(
        &self,
        request: Request<v1::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let cursor = request.into_inner().cursor;
        let from_the_beginning = cursor.is_empty();
        // The head is read before the snapshot, so that later revocations arrive through the log, possibly twice.
        let changes = self.stream(cursor, self.head(), |_, item| async move {
            Ok(match item {
                Item::Change(change) if change.is(super::change::Kind::Revoked) => {
                    Some(Event::Revoked(revocation(change.user_id, change.session_id, change.changed_at)))
                }
                Item::Change(_) => None,
                Item::CaughtUp => Some(Event::CaughtUp(v1::CaughtUp {})),
                Item::Reset => Some(Event::Reset(v1::Reset {})),
            })
        });
        let changes = changes.await?;
        let events = if from_the_beginning { self.snapshot().chain(changes).boxed() } else { changes };
        let wire = |(cursor, event)| v1::WatchRevocationsResponse { cursor, event: Some(event) };
        Ok(Response::new(super::watch::mapped(events, wire)))
    }
}

#[derive(FromRow)]
struct RevocationRow {
    subject_id: Uuid,
    is_session: bool,
    revoked_at: Micros,
}

impl From<RevocationRow> for v1::Revocation {
    fn from(RevocationRow { subject_id, is_session, revoked_at }: RevocationRow) -> Self {
        match is_session {
            true => revocation(None, Some(subject_id), revoked_at),
            false => revocation(Some(subject_id), None, revoked_at),
        }
    }
}

impl Directory {
    /// Returns the revocations that can still concern a token that has not expired, read page by page as they are
    /// sent. They have no cursor, so that an interrupted snapshot is sent again from its beginning.
    fn snapshot(&self) -> Cursored<Event> {
        let since = now_micros() - TOKEN_LIFE_MAX;
        let pages =
            stream::try_unfold((self.clone(), Some(Uuid::nil())), move |(directory, after)| async move {
                let Some(after) = after else { return Ok(None) };
                let page = directory.revocations_after(after, since).await.map_err(failed)?;
                let after = page.last().map(|row| row.subject_id);
                Ok::<_, Status>(Some((page, (directory, after))))
            });
        let events = pages.map_ok(|page| {
            stream::iter(page.into_iter().map(|row| Ok((String::new(), Event::Revoked(row.into())))))
        });
        events.try_flatten().take_until(self.0.stop.clone().cancelled_owned()).boxed()
    }

    async fn revocations_after(&self, after: Uuid, since: Micros) -> ImksResult<Vec<RevocationRow>> {
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(LIVE).bind(since).bind(after).bind(SNAPSHOT_PAGE).fetch_all(pool).await?
        }))
    }
}

/// Removes revocations that concern only tokens that have expired.
pub(super) async fn trim(db: &Db, now: Micros) -> ImksResult<()> {
    on!(db, pool => { sqlx::query(TRIM).bind(now - TOKEN_LIFE_MAX).execute(pool).await?; });
    Ok(())
}

fn revocation(user: Option<Uuid>, session: Option<Uuid>, revoked_at_us: Micros) -> v1::Revocation {
    let text = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    v1::Revocation { user_id: text(user), session_id: text(session), revoked_at_us }
}

fn listed(key: KeyRow, issuer: &str) -> v1::SigningKey {
    let status = match (key.revoked, key.not_after) {
        (true, _) => KeyStatus::Revoked,
        (false, None) => KeyStatus::Active,
        (false, Some(_)) => KeyStatus::Retired,
    };
    v1::SigningKey {
        issuer: issuer.to_owned(),
        kid: key.kid,
        algorithm: Algorithm::Eddsa.into(),
        public_key: key.public_key,
        not_before_us: key.created_at - KEY_SKEW,
        not_after_us: key.not_after.unwrap_or_default(),
        status: status.into(),
    }
}

const MAX_AGE_S: u32 = 300;
/// One minute, in microseconds. A key is valid from shortly before its creation, to tolerate clocks that
/// differ.
const KEY_SKEW: Micros = 60_000_000;
/// 32 days, in microseconds: one day more than the longest lifetime of a token of the directory.
const TOKEN_LIFE_MAX: Micros = 32 * 24 * 3_600_000_000;
/// The number of revocations that are read at once.
const SNAPSHOT_PAGE: i64 = 1_000;
const LIVE: &str = "SELECT subject_id, is_session, revoked_at FROM directory_revocation \
     WHERE revoked_at > $1 AND subject_id > $2 ORDER BY subject_id LIMIT $3";
const TRIM: &str = "DELETE FROM directory_revocation WHERE revoked_at <= $1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::user::REVOKE;
    use crate::directory::{Config, Directory};

    #[tokio::test]
    async fn a_revocation_is_kept_for_as_long_as_a_token_can_live() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::models::db::Config { data_dir: folder.path().into(), ..Default::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let (directory, now) = (Directory::view(db.clone(), Config::default()), now_micros());
        let (old, young) = (Uuid::now_v7(), Uuid::now_v7());
        for (subject, at) in [(old, now - TOKEN_LIFE_MAX), (young, now - TOKEN_LIFE_MAX + 1)] {
            on!(&db, pool => { sqlx::query(REVOKE).bind(subject).bind(false).bind(at).execute(pool).await.unwrap(); });
        }
        trim(&db, now).await.unwrap();
        let left = directory.revocations_after(Uuid::nil(), 0).await.unwrap();
        assert_eq!(left.iter().map(|row| row.subject_id).collect::<Vec<_>>(), [young]);
    }
}
