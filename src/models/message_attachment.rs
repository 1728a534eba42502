//! The files that are attached to messages: what is known of them besides their bytes. A message shows its attachments
//! from its own row; the rows here are for uploads, quotas and removal.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::Lookup;
use super::db::{Db, detached, on, transaction};
use super::legal_hold::not_held;
use super::rows::{Column, RowsSql};
use super::text::{described, refusal};
use super::user_rev::LOCK_USER;
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// The name of a file: 1 to [`FILENAME_CHARS_MAX`] characters without control characters and without directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filename(String);

/// A media type without parameters, in lower case: `image/png`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mime(String);

/// The SHA-256 of a file, in lower case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum(String);

/// Implements `Deserialize` for a text with a rule.
macro_rules! checked {
    ($name:ident, $refused:literal, |$text:ident| $rule:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let $text = String::deserialize(deserializer)?;
                if $rule { Ok(Self($text)) } else { Err(refusal($refused)) }
            }
        }

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

checked!(Filename, "must be a file name of up to 255 characters", |text| {
    let forbidden = |character: char| character.is_control() || matches!(character, '/' | '\\');
    let length = text.chars().take(FILENAME_CHARS_MAX + 1).count();
    !text.trim().is_empty()
        && length <= FILENAME_CHARS_MAX
        && !text.contains(forbidden)
        && text != "."
        && text != ".."
});
checked!(Mime, "must be a media type like image/png, in lower case", |text| {
    let is_token = |part: &str| {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'+' | b'-' | b'_');
        !part.is_empty() && part.bytes().all(allowed)
    };
    text.len() <= MIME_BYTES_MAX
        && text.split_once('/').is_some_and(|(one, two)| is_token(one) && is_token(two))
});
checked!(Checksum, "must be 64 hex digits in lower case", |text| {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'a'..=b'f' | b'0'..=b'9'))
});

described!([] Filename, _ => { "type": "string", "minLength": 1, "maxLength": FILENAME_CHARS_MAX });
described!([] Mime, _ => { "type": "string", "maxLength": MIME_BYTES_MAX, "pattern": "^[a-z0-9.+_-]+/[a-z0-9.+_-]+$" });
described!([] Checksum, _ => { "type": "string", "pattern": "^[0-9a-f]{64}$" });

/// A file to upload.
#[derive(Debug, Clone)]
pub struct NewAttachment {
    /// The id of the attachment.
    pub id: Uuid,
    /// The channel whose messages may have it.
    pub channel_id: Uuid,
    /// The user who uploads it.
    pub uploader_id: Uuid,
    /// The name of the file.
    pub filename: Filename,
    /// The media type of the file.
    pub mime: Mime,
    /// The size of the file in bytes.
    pub size: i64,
    /// The checksum of the file.
    pub sha256: Option<Checksum>,
    /// The width of a picture.
    pub width: Option<i32>,
    /// The height of a picture.
    pub height: Option<i32>,
}

/// An attachment, as messages show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, JsonSchema)]
pub struct Attachment {
    /// The id of the attachment.
    pub id: Uuid,
    /// The name of the file.
    pub filename: String,
    /// The media type that the uploader named.
    pub mime: String,
    /// The size of the file in bytes.
    #[serde(rename = "size")]
    #[sqlx(rename = "size_bytes")]
    pub size: i64,
    /// The checksum that the uploader named.
    pub sha256: Option<String>,
    /// The width of a picture.
    pub width: Option<i32>,
    /// The height of a picture.
    pub height: Option<i32>,
    #[serde(skip)]
    pub(super) channel_id: Uuid,
    #[serde(skip)]
    pub(super) uploader_id: Uuid,
    #[serde(skip)]
    pub(super) message_id: Option<Uuid>,
    /// The scheduled message that it is kept for.
    #[serde(skip)]
    pub(super) scheduled_id: Option<Uuid>,
    #[serde(skip)]
    pub(super) created_at: Micros,
    #[serde(skip)]
    pub(super) completed_at: Option<Micros>,
    #[serde(skip)]
    pub(super) deleted_at: Option<Micros>,
}

/// Records a file that is going to be uploaded. A file that was given up counts until nothing can be uploaded under its
/// address any more.
///
/// # Errors
/// [`ImksError::LimitReached`] when all files of the user would have more than `user_bytes_max` bytes, or the user has
/// [`UNUSED_MAX`] that no message has; [`ImksError::Database`].
pub async fn create(db: &Db, new: NewAttachment, user_bytes_max: u64, now: Micros) -> ImksResult<Attachment> {
    let db = db.clone();
    detached(async move { create_in_task(&db, &new, user_bytes_max, now).await }).await
}

async fn create_in_task(
    db: &Db,
    new: &NewAttachment,
    user_bytes_max: u64,
    now: Micros,
) -> ImksResult<Attachment> {
    Ok(transaction!(db, tx => {
        // One request of a user after the other, so that all of them together stay within the quota.
        sqlx::query(LOCK_USER).bind(new.uploader_id).execute(&mut *tx).await?;
        let (bytes, unused): (i64, i64) =
            sqlx::query_as(USED).bind(new.uploader_id).fetch_one(&mut *tx).await?;
        if u64::try_from(bytes.saturating_add(new.size)).unwrap_or(u64::MAX) > user_bytes_max {
            return Err(ImksError::LimitReached("attachment_bytes"));
        }
        if unused >= UNUSED_MAX {
            return Err(ImksError::LimitReached("attachments_unused"));
        }
        sqlx::query_as(CREATE)
            .bind(new.id).bind(new.channel_id).bind(new.uploader_id)
            .bind(new.filename.as_str()).bind(new.mime.as_str()).bind(new.size)
            .bind(new.sha256.as_ref().map(Checksum::as_str)).bind(new.width).bind(new.height).bind(now)
            .fetch_one(&mut *tx).await?
    }))
}

/// Returns an attachment that `user` has created.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::Database`].
pub async fn own(db: &Db, user: Uuid, id: Uuid) -> ImksResult<Attachment> {
    let found = on!(read db, pool => sqlx::query_as(OWN).bind(id).bind(user).fetch_optional(pool).await?);
    found.ok_or(ImksError::NotFound("attachment"))
}

/// Records that an attachment of `user` has been uploaded.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::Database`].
pub async fn complete(db: &Db, user: Uuid, id: Uuid, now: Micros) -> ImksResult<Attachment> {
    let found =
        on!(db, pool => sqlx::query_as(COMPLETE).bind(id).bind(user).bind(now).fetch_optional(pool).await?);
    found.ok_or(ImksError::NotFound("attachment"))
}

/// Returns an attachment that messages of `channel` may show to `reader`: that of a message, or the reader's own.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::Database`].
pub async fn in_channel(db: &Db, channel: Uuid, reader: Uuid, id: Uuid) -> ImksResult<Attachment> {
    let found = on!(read db, pool => {
        sqlx::query_as(IN_CHANNEL).bind(id).bind(channel).bind(reader).fetch_optional(pool).await?
    });
    found.ok_or(ImksError::NotFound("attachment"))
}

/// Gives up an attachment of `user` that no message has. Returns whether there was one.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn give_up(db: &Db, user: Uuid, id: Uuid, now: Micros) -> ImksResult<bool> {
    let given_up = on!(db, pool => {
        sqlx::query(GIVE_UP).bind(id).bind(user).bind(now).execute(pool).await?.rows_affected()
    });
    Ok(given_up > 0)
}

/// An attachment whose bytes are to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Removable {
    /// The attachment.
    pub id: Uuid,
    /// Whether nothing can be uploaded under its address any more. Before that, its bytes are removed once at once, and
    /// again later.
    pub is_last: bool,
}

/// Returns up to [`REMOVED_AT_ONCE`] attachments whose bytes are to be removed: their message was deleted, or neither a
/// message nor a scheduled one had them for a day. Addresses of attachments from before `closed` are not valid any more.
/// Those on hold stay until it is released.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn removable(db: &Db, now: Micros, closed: Micros) -> ImksResult<Vec<Removable>> {
    on!(db, pool => {
        let query = sqlx::query(GIVE_UP_UNUSED).bind(now).bind(now - UNUSED_LIFETIME).bind(REMOVED_AT_ONCE);
        query.execute(pool).await?;
    });
    Ok(on!(read db, pool => {
        sqlx::query_as(REMOVABLE).bind(closed).bind(REMOVED_AT_ONCE).fetch_all(pool).await?
    }))
}

/// Records that the bytes of an attachment have been removed. Forgets it if that was the last time.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn removed(db: &Db, removed: Removable, now: Micros) -> ImksResult<()> {
    on!(db, pool => {
        let query = match removed.is_last {
            true => sqlx::query(FORGET).bind(removed.id),
            false => sqlx::query(REMOVED).bind(removed.id).bind(now),
        };
        query.execute(pool).await?;
    });
    Ok(())
}

impl Lookup for Attachment {
    /// The attachment.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id
    }

    fn select() -> &'static RowsSql {
        &BY_ID
    }

    fn key_columns(ids: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::of(ids, |id| *id)]
    }
}

/// The most attachments of one message.
pub const ATTACHMENTS_MAX: usize = 10;
/// The longest file name, in characters.
pub const FILENAME_CHARS_MAX: usize = 255;
/// The longest media type, in bytes.
const MIME_BYTES_MAX: usize = 127;
/// The most attachments of one user that no message has.
const UNUSED_MAX: i64 = 100;
/// The attachments that one call of [`removable`] returns.
pub const REMOVED_AT_ONCE: i64 = 100;
pub(super) const NOT_FOUND: ImksError = ImksError::NotFound("attachment");
pub(super) const HOUR: Micros = 3_600 * 1_000_000;
/// How long an attachment that no message has is kept.
pub const UNUSED_LIFETIME: Micros = 24 * HOUR;

macro_rules! columns {
    () => {
        "id, filename, mime, size_bytes, sha256, width, height, channel_id, uploader_id, message_id, scheduled_id, \
         created_at, completed_at, deleted_at"
    };
}
const USED: &str = "SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT), \
    COUNT(CASE WHEN message_id IS NULL AND scheduled_id IS NULL AND deleted_at IS NULL THEN 1 END) \
    FROM message_attachment WHERE uploader_id = $1";
const CREATE: &str = concat!(
    "INSERT INTO message_attachment \
     (id, channel_id, uploader_id, filename, mime, size_bytes, sha256, width, height, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING ",
    columns!()
);
const OWN: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM message_attachment WHERE id = $1 AND uploader_id = $2 AND deleted_at IS NULL"
);
const COMPLETE: &str = concat!(
    "UPDATE message_attachment SET completed_at = COALESCE(completed_at, $3) \
     WHERE id = $1 AND uploader_id = $2 AND deleted_at IS NULL RETURNING ",
    columns!()
);
const IN_CHANNEL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM message_attachment WHERE id = $1 AND channel_id = $2 AND completed_at IS NOT NULL AND deleted_at IS NULL \
     AND (message_id IS NOT NULL OR uploader_id = $3)"
);
const GIVE_UP: &str = "UPDATE message_attachment SET deleted_at = $3 \
    WHERE id = $1 AND uploader_id = $2 AND message_id IS NULL AND scheduled_id IS NULL AND deleted_at IS NULL";
const GIVE_UP_UNUSED: &str = "UPDATE message_attachment SET deleted_at = $1 WHERE id IN (\
    SELECT id FROM message_attachment WHERE message_id IS NULL AND scheduled_id IS NULL AND deleted_at IS NULL \
      AND created_at < $2 ORDER BY created_at LIMIT $3)";
const REMOVABLE: &str = concat!(
    "SELECT id, created_at < $1 AS is_last FROM message_attachment \
     WHERE deleted_at IS NOT NULL AND (removed_at IS NULL OR created_at < $1) AND ",
    not_held!("message_attachment.channel_id", "message_attachment.uploader_id"),
    " ORDER BY deleted_at LIMIT $2"
);
const REMOVED: &str = "UPDATE message_attachment SET removed_at = $2 WHERE id = $1";
const FORGET: &str = "DELETE FROM message_attachment WHERE id = $1 AND deleted_at IS NOT NULL";
pub(super) static BY_ID: RowsSql = RowsSql::new(
    "wanted",
    concat!(
        "SELECT ",
        columns!(),
        " FROM message_attachment WHERE id IN (SELECT wanted FROM r WHERE wanted IS NOT NULL)"
    ),
);

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::models::db::sqlite_plan;

    #[test]
    fn names_types_and_checksums_break_no_header_and_no_path() {
        for name in ["a.png", "文件 1.txt", "...", &"x".repeat(255)] {
            assert!(from_value::<Filename>(json!(name)).is_ok(), "{name}");
        }
        for name in ["", " ", "..", "a/b", "a\\b", "a\nb", "a\0b", &"x".repeat(256)] {
            assert!(from_value::<Filename>(json!(name)).is_err(), "{name}");
        }
        for (mime, valid) in [
            ("image/png", true),
            ("a/b; c", false),
            ("image", false),
            ("/", false),
            ("Image/png", false),
            ("a/b/c", false),
        ] {
            assert_eq!(from_value::<Mime>(json!(mime)).is_ok(), valid, "{mime}");
        }
        assert!(from_value::<Checksum>(json!("0a".repeat(32))).is_ok());
        assert!(from_value::<Checksum>(json!("0A".repeat(32))).is_err());
    }

    #[tokio::test]
    async fn attachments_are_found_by_their_indexes() {
        for sql in [USED, OWN, IN_CHANNEL, REMOVABLE, GIVE_UP_UNUSED] {
            let plan = sqlite_plan(sql).await;
            let uses_index = |line: &&String| line.contains("message_attachment USING");
            assert!(plan.iter().any(|line| uses_index(&line)), "{sql}: {plan:#?}");
        }
    }
}
