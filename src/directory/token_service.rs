//! The directory's implementation of the core's token service.

use futures_util::stream::BoxStream;
use sqlx::FromRow;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Directory;
use super::signing::{Checked, KeyRow};
use super::status::failed;
use super::watch::Item;
use crate::clock::{Micros, now_micros};
use crate::error::ImksResult;
use crate::models::db::on;
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
        // The head is read before the snapshot, so that later revocations arrive through the log, possibly
        // twice.
        let head = self.head();
        let snapshot = match cursor.is_empty() {
            true => self.live_revocations().await.map_err(failed)?.into_iter().map(Item::Extra).collect(),
            false => Vec::new(),
        };
        self.stream(cursor, head, snapshot, |_, item| async move {
            let event = match item {
                Item::Extra(revocation) => Some(Event::Revoked(revocation)),
                Item::Change(change) if change.is(super::change::Kind::Revoked) => {
                    Some(Event::Revoked(revocation(change.user_id, change.session_id, change.changed_at)))
                }
                Item::Change(_) => None,
                Item::CaughtUp => Some(Event::CaughtUp(v1::CaughtUp {})),
                Item::Reset => Some(Event::Reset(v1::Reset {})),
            };
            Ok(event)
        })
        .await
        .map(|events| {
            let event = |(cursor, event)| v1::WatchRevocationsResponse { cursor, event: Some(event) };
            Response::new(super::watch::mapped(events, event))
        })
    }
}

#[derive(FromRow)]
struct RevocationRow {
    subject_id: Uuid,
    is_session: bool,
    revoked_at: Micros,
}

impl Directory {
    /// Returns the revocations that can still concern a token that has not expired.
    async fn live_revocations(&self) -> ImksResult<Vec<v1::Revocation>> {
        let since = now_micros() - TOKEN_LIFE_MAX;
        let rows: Vec<RevocationRow> =
            on!(read self.db(), pool => sqlx::query_as(LIVE).bind(since).fetch_all(pool).await?);
        let convert = |row: RevocationRow| {
            let (user, session) =
                if row.is_session { (None, Some(row.subject_id)) } else { (Some(row.subject_id), None) };
            revocation(user, session, row.revoked_at)
        };
        Ok(rows.into_iter().map(convert).collect())
    }
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
const LIVE: &str =
    "SELECT subject_id, is_session, revoked_at FROM directory_revocation WHERE revoked_at > $1";
