//! The visitors of the first page: users whom anybody may be, and who are therefore members of one channel and of
//! nothing else (docs/adr/0058).

use uuid::Uuid;

use super::change::{Change, record};
use super::member::admit;
use super::place::Place;
use super::role::MEMBER;
use super::user::{BY_NAME, INSERT as ADD_USER, checked_name};
use super::workspace::{INSERT as ADD_WORKSPACE, LOCK as LOCK_WORKSPACE};
use super::{Directory, RoomKind, User};
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, transaction};

impl Directory {
    /// Returns the visitor of the first page with this name, a member of `playground/first-page`, and creates what is
    /// missing of the user, the workspace, the channel and the membership: all of it or nothing.
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed; `NotVisitor` if it is that of any other user, or of a visitor with more
    /// than the role `member`; `TooManyVisitors`; `PlaygroundTaken`; `FailedPrecondition` if the visitor is banned;
    /// `Database`.
    pub async fn ensure_visitor(&self, username: &str) -> ImksResult<User> {
        let name = checked_name("username", username)?;
        let db = self.db().clone();
        self.settled(async move { admit_visitor(&db, name, now_micros()).await }).await
    }
}

/// Whether a user was made for the first page. The id says so for good: whatever becomes of the channel and of the name,
/// tokens of this user may be in the hands of anybody.
pub(super) fn is_visitor(user: Uuid) -> bool {
    user.as_u64_pair().0 == FAMILY
}

/// Whether a user and a place, given by its workspace, keep apart what has to be: visitors are members in the
/// playground and of nothing else, and nobody else is a member there.
pub(super) fn may_enter(user: Uuid, workspace: Option<Uuid>) -> bool {
    is_visitor(user) == (workspace == Some(PLAYGROUND))
}

/// Returns the id of a new visitor: a UUID of version 8, with the random half of one of version 7.
fn new_id() -> Uuid {
    let (_, random) = Uuid::now_v7().as_u64_pair();
    Uuid::from_u64_pair(FAMILY, random)
}

async fn admit_visitor(db: &Db, name: String, now: Micros) -> ImksResult<User> {
    Ok(transaction!(db, tx => {
        sqlx::query(ADD_WORKSPACE).bind(PLAYGROUND).bind(WORKSPACE_NAME).bind(now).execute(&mut *tx).await?;
        // One visitor after the other, so that no two of them are the last one.
        if sqlx::query(LOCK_WORKSPACE).bind(PLAYGROUND).execute(&mut *tx).await?.rows_affected() != 1 {
            Err(ImksError::PlaygroundTaken)?;
        }
        let is_new = sqlx::query(ADD_CHANNEL)
            .bind(Uuid::now_v7()).bind(PLAYGROUND).bind(CHANNEL_NAME).bind(RoomKind::Public.number()).bind(now)
            .execute(&mut *tx).await?.rows_affected() == 1;
        let channel: Uuid =
            sqlx::query_scalar(CHANNEL).bind(PLAYGROUND).bind(CHANNEL_NAME).fetch_one(&mut *tx).await?;
        sqlx::query(ADD_USER).bind(new_id()).bind(&name).bind(false).bind(now).execute(&mut *tx).await?;
        let user: User = sqlx::query_as(BY_NAME).bind(&name).fetch_one(&mut *tx).await?;
        let elsewhere: i64 =
            sqlx::query_scalar(ELSEWHERE).bind(user.id).bind(channel).bind(MEMBER).fetch_one(&mut *tx).await?;
        if !is_visitor(user.id) || elsewhere > 0 {
            Err(ImksError::NotVisitor { name: name.clone() })?;
        }
        let place = Place { workspace: Some(PLAYGROUND), channel: Some(channel) };
        if admit!(tx, place, user.id, None, now) {
            let visitors: i64 = sqlx::query_scalar(VISITORS).bind(channel).fetch_one(&mut *tx).await?;
            if visitors > VISITORS_MAX {
                Err(ImksError::TooManyVisitors { max: VISITORS_MAX })?;
            }
            let made = is_new.then(|| Change::channel(channel));
            let changes: Vec<Change> = made.into_iter().chain([Change::joined(user.id, channel)]).collect();
            record!(tx, now, &changes);
        }
        user
    }))
}

/// The first half of the ids of visitors, which no other user has: `playgr`, and the version for what has a meaning of its
/// own (RFC 9562).
const FAMILY: u64 = 0x706c_6179_6772_8000;
/// The workspace of the first page.
pub(super) const PLAYGROUND: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0011);
const WORKSPACE_NAME: &str = "playground";
const CHANNEL_NAME: &str = "first-page";
/// The number of visitors of the first page. Each name that somebody types there is one.
const VISITORS_MAX: i64 = 100;
const ADD_CHANNEL: &str = "INSERT INTO directory_channel (id, workspace_id, name, kind, created_at) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
const CHANNEL: &str = "SELECT id FROM directory_channel WHERE workspace_id = $1 AND name = $2";
const VISITORS: &str = "SELECT COUNT(*) FROM directory_member WHERE channel_id = $1";
/// Counts what a user has beside the membership in a channel, and one role there.
const ELSEWHERE: &str = "SELECT (SELECT COUNT(*) FROM directory_member WHERE user_id = $1 AND channel_id <> $2) \
     + (SELECT COUNT(*) FROM directory_workspace_member WHERE user_id = $1) \
     + (SELECT COUNT(*) FROM directory_member_role WHERE user_id = $1 AND NOT (place_id = $2 AND role_id = $3))";

#[cfg(test)]
mod tests {
    use super::super::workspace::MAIN;
    use super::*;

    #[test]
    fn visitors_and_all_other_users_keep_apart() {
        let (visitor, other) = (new_id(), Uuid::now_v7());
        assert_ne!(visitor, new_id());
        assert_eq!(visitor.get_version_num(), 8, "{visitor}");
        for (user, workspace, allowed) in [
            (visitor, Some(PLAYGROUND), true),
            (visitor, Some(MAIN), false),
            (visitor, None, false),
            (other, Some(PLAYGROUND), false),
            (other, Some(MAIN), true),
            (other, None, true),
        ] {
            assert_eq!(may_enter(user, workspace), allowed, "{user} {workspace:?}");
        }
        for id in [Uuid::new_v5(&visitor, b"a login"), Uuid::nil(), Uuid::max(), PLAYGROUND] {
            assert!(!is_visitor(id), "{id}");
        }
    }
}
