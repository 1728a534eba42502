//! The stream of a user: it numbers the changes that only the user's own devices see (read positions, drafts,
//! bookmarks, threads, scheduled messages), so that a returning device learns what changed after its `user_rev`.

use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use super::message_bookmark::{self, Bookmark};
use super::message_draft::{self, Draft};
use super::message_scheduled::{self, Scheduled};
use super::message_thread_member::{self, ThreadMember};
use crate::ImksResult;

/// The changes of a user's own data after a `user_rev`.
#[derive(Debug, Default)]
pub struct UserChanges {
    /// The number up to which the changes are complete.
    pub rev: i64,
    /// Whether changes before the requested number are forgotten, so that everything is returned anew.
    pub reset: bool,
    /// The drafts that were set or cleared, in the order of the changes.
    pub drafts: Vec<Draft>,
    /// The bookmarks that were added, changed or removed, in the order of the changes.
    pub bookmarks: Vec<Bookmark>,
    /// The threads that were followed, unfollowed or read, in the order of the changes.
    pub threads: Vec<ThreadMember>,
    /// The scheduled messages that were created, changed or settled, in the order of the changes.
    pub scheduled: Vec<Scheduled>,
    /// Whether there are more changes after `rev`.
    pub more: bool,
}

/// Returns the number of a user's newest change; 0 if there was none.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn last_rev(db: &Db, user: Uuid) -> ImksResult<i64> {
    Ok(head(db, user).await?.last_rev)
}

/// Returns what changed in a user's own data after `since`, until the answer is full. From 0, it returns
/// everything there is.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn changes(db: &Db, user: Uuid, since: i64) -> ImksResult<UserChanges> {
    let head = head(db, user).await?;
    let reset = since > 0 && (since < head.forgotten_rev || since > head.last_rev);
    let since = if reset { 0 } else { since };
    if since == head.last_rev {
        return Ok(UserChanges { rev: since, reset, ..UserChanges::default() });
    }
    let mut drafts = message_draft::changed(db, user, since, DRAFTS_AT_ONCE).await?;
    let mut bookmarks = message_bookmark::changed(db, user, since, BOOKMARKS_AT_ONCE).await?;
    let mut threads = message_thread_member::changed(db, user, since, THREADS_AT_ONCE).await?;
    let mut scheduled = message_scheduled::changed(db, user, since, SCHEDULED_AT_ONCE).await?;
    let end_of_drafts = drafts.last().filter(|_| is_full(&drafts, DRAFTS_AT_ONCE)).map(|it| it.user_rev);
    let full = is_full(&bookmarks, BOOKMARKS_AT_ONCE);
    let end_of_bookmarks = bookmarks.last().filter(|_| full).map(|it| it.user_rev);
    // Each list holds every change up to its own end.
    let end_of_threads = threads.last().filter(|_| is_full(&threads, THREADS_AT_ONCE)).map(|it| it.user_rev);
    let full = is_full(&scheduled, SCHEDULED_AT_ONCE);
    let end_of_scheduled = scheduled.last().filter(|_| full).map(|it| it.user_rev);
    let ends = [end_of_drafts, end_of_bookmarks, end_of_threads, end_of_scheduled];
    let rev = ends.into_iter().flatten().fold(head.last_rev, i64::min);
    let more = rev < head.last_rev;
    if more {
        drafts.retain(|draft| draft.user_rev <= rev);
        bookmarks.retain(|bookmark| bookmark.user_rev <= rev);
        threads.retain(|thread| thread.user_rev <= rev);
        scheduled.retain(|scheduled| scheduled.user_rev <= rev);
    }
    Ok(UserChanges { rev, reset, drafts, bookmarks, threads, scheduled, more })
}

fn is_full<T>(rows: &[T], at_once: i64) -> bool {
    i64::try_from(rows.len()).is_ok_and(|length| length >= at_once)
}

#[derive(Debug, Clone, Copy, Default, FromRow)]
struct Head {
    last_rev: i64,
    forgotten_rev: i64,
}

async fn head(db: &Db, user: Uuid) -> ImksResult<Head> {
    let head: Option<Head> =
        on!(read db, pool => sqlx::query_as(HEAD).bind(user).fetch_optional(pool).await?);
    Ok(head.unwrap_or_default())
}

/// The drafts of one answer; a few more if they were changed together.
const DRAFTS_AT_ONCE: i64 = 8;
/// The bookmarks of one answer; a few more if they were changed together.
const BOOKMARKS_AT_ONCE: i64 = 100;
/// The threads of one answer; a few more if they were changed together.
const THREADS_AT_ONCE: i64 = 100;
/// The scheduled messages of one answer; a few more if they were changed together.
const SCHEDULED_AT_ONCE: i64 = 2;
/// The most bytes of the changes in one answer: drafts of 32 KiB, scheduled messages of 192 KiB, bookmarks
/// with notes of 2 KiB.
pub const USER_CHANGES_BYTES_MAX: usize = 896 << 10;

const HEAD: &str = "SELECT last_rev, forgotten_rev FROM user_state WHERE user_id = $1";
