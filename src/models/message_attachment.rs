//! The files that are attached to messages: what is known of them besides their bytes. A message shows its attachments
//! from its own row; the rows here are for uploads, quotas and removal.

use serde::{Deserialize, Deserializer, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Write};
use super::append::{LockedChannel, References};
use super::db::{Db, json_ids, on};
use super::rows::{Column, RowsSql};
use super::text::refusal;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
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
    channel_id: Uuid,
    #[serde(skip)]
    uploader_id: Uuid,
    #[serde(skip)]
    message_id: Option<Uuid>,
    #[serde(skip)]
    created_at: Micros,
    #[serde(skip)]
    completed_at: Option<Micros>,
    #[serde(skip)]
    deleted_at: Option<Micros>,
}

/// Records a file that is going to be uploaded. Requests of one user at the same moment may exceed the quota by what each
/// of them asks for.
///
/// # Errors
/// [`ImksError::LimitReached`] when all files of the user would have more than `user_bytes_max` bytes, or the user has
/// [`UNUSED_MAX`] that no message has; [`ImksError::Database`].
pub async fn create(
    db: &Db,
    new: &NewAttachment,
    user_bytes_max: u64,
    now: Micros,
) -> ImksResult<Attachment> {
    let (bytes, unused): (i64, i64) = on!(read db, pool => {
        sqlx::query_as(USED).bind(new.uploader_id).fetch_one(pool).await?
    });
    if u64::try_from(bytes.saturating_add(new.size)).unwrap_or(u64::MAX) > user_bytes_max {
        return Err(ImksError::LimitReached("attachment_bytes"));
    }
    if unused >= UNUSED_MAX {
        return Err(ImksError::LimitReached("attachments_unused"));
    }
    Ok(on!(db, pool => {
        sqlx::query_as(CREATE)
            .bind(new.id).bind(new.channel_id).bind(new.uploader_id)
            .bind(new.filename.as_str()).bind(new.mime.as_str()).bind(new.size)
            .bind(new.sha256.as_ref().map(Checksum::as_str)).bind(new.width).bind(new.height).bind(now)
            .fetch_one(pool).await?
    }))
}

/// Returns an attachment that `user` has created and that no message has.
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

/// Returns up to [`REMOVED_AT_ONCE`] attachments whose bytes are to be removed: their message was deleted, or no message
/// had them for a day.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn removable(db: &Db, now: Micros) -> ImksResult<Vec<Uuid>> {
    on!(db, pool => {
        let query = sqlx::query(GIVE_UP_UNUSED).bind(now).bind(now - UNUSED_LIFETIME).bind(REMOVED_AT_ONCE);
        query.execute(pool).await?;
    });
    Ok(on!(read db, pool => sqlx::query_scalar(REMOVABLE).bind(REMOVED_AT_ONCE).fetch_all(pool).await?))
}

/// Forgets attachments whose bytes have been removed.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn forget(db: &Db, ids: &[Uuid]) -> ImksResult<()> {
    match db {
        Db::Postgres(pool) => {
            sqlx::query(FORGET_POSTGRES).bind(ids).execute(pool).await?;
        }
        Db::Sqlite(sqlite) => {
            sqlx::query(FORGET_SQLITE).bind(json_ids(ids)).execute(&sqlite.writer).await?;
        }
    }
    Ok(())
}

/// Requests the attachments that a message is sent with.
pub(super) fn refer(references: &mut References<'_>, ids: &[Uuid]) {
    ids.iter().for_each(|id| references.rows::<Attachment>(*id));
}

/// Returns the attachments that a message of the actor may have: uploaded by the actor for this channel, and not in
/// another message.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::InvalidInput`] for one that is not uploaded, [`ImksError::Conflict`] for one
/// that a message has.
pub(super) fn usable(channel: &mut LockedChannel<'_>, ids: &[Uuid]) -> ImksResult<Vec<Attachment>> {
    let (actor, channel_id, now) = (channel.scope().actor.id, channel.scope().channel_id, channel.now());
    let mut attachments = Vec::with_capacity(ids.len());
    for id in ids {
        let found = channel.rows::<Attachment>(id)?.first().cloned();
        let own = found.filter(|it| it.uploader_id == actor && it.channel_id == channel_id);
        let live = own.filter(|it| it.deleted_at.is_none() && it.created_at > now - USABLE_FOR);
        let attachment = live.ok_or(ImksError::NotFound("attachment"))?;
        if attachment.completed_at.is_none() {
            return Err(ImksError::invalid("attachments", format!("{id} is not uploaded")));
        }
        let in_batch = matches!(channel.write_of::<Attached>(id), Some(Write::Stored(_)));
        if in_batch || attachment.message_id.is_some() {
            return Err(ImksError::Conflict { what: "attachment", name: id.to_string() });
        }
        attachments.push(attachment);
    }
    Ok(attachments)
}

/// Records that a message has these attachments.
pub(super) fn attach(channel: &mut LockedChannel<'_>, message_id: Uuid, attachments: &[Attachment]) {
    for attachment in attachments {
        channel.insert(Attached { id: attachment.id, message_id });
    }
}

/// Lets the bytes of a deleted message's attachments be removed.
pub(super) fn detach(channel: &mut LockedChannel<'_>, message_id: Uuid) {
    let at = channel.now();
    channel.insert(Detached { message_id, at });
}

/// Returns the value for the column of the message's row; `None` for a message without attachments.
pub(super) fn stored(attachments: &[Attachment]) -> Option<String> {
    (!attachments.is_empty()).then(|| serde_json::to_string(attachments).unwrap_or_default())
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

/// The message of an attachment.
#[derive(Debug)]
struct Attached {
    id: Uuid,
    message_id: Uuid,
}

impl Record for Attached {
    /// The attachment.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id
    }

    fn insert() -> &'static RowsSql {
        &ATTACH
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![Column::of(rows, |row| row.id), Column::of(rows, |row| row.message_id)]
    }
}

/// A deleted message with attachments.
#[derive(Debug)]
struct Detached {
    message_id: Uuid,
    at: Micros,
}

impl Record for Detached {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn insert() -> &'static RowsSql {
        &DETACH
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![Column::of(rows, |row| row.message_id), Column::of(rows, |row| row.at)]
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
const HOUR: Micros = 3_600 * 1_000_000;
/// How long an attachment that no message has is kept.
pub const UNUSED_LIFETIME: Micros = 24 * HOUR;
/// How long after it was created an attachment can be sent: it is surely not being removed then.
const USABLE_FOR: Micros = 23 * HOUR;

macro_rules! columns {
    () => {
        "id, filename, mime, size_bytes, sha256, width, height, channel_id, uploader_id, message_id, created_at, \
         completed_at, deleted_at"
    };
}
const USED: &str = "SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT), COUNT(*) - COUNT(message_id) \
    FROM message_attachment WHERE uploader_id = $1 AND deleted_at IS NULL";
const CREATE: &str = concat!(
    "INSERT INTO message_attachment \
     (id, channel_id, uploader_id, filename, mime, size_bytes, sha256, width, height, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING ",
    columns!()
);
const OWN: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM message_attachment WHERE id = $1 AND uploader_id = $2 AND message_id IS NULL AND deleted_at IS NULL"
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
    WHERE id = $1 AND uploader_id = $2 AND message_id IS NULL AND deleted_at IS NULL";
const GIVE_UP_UNUSED: &str = "UPDATE message_attachment SET deleted_at = $1 WHERE id IN (\
    SELECT id FROM message_attachment WHERE message_id IS NULL AND deleted_at IS NULL AND created_at < $2 \
    ORDER BY created_at LIMIT $3)";
const REMOVABLE: &str =
    "SELECT id FROM message_attachment WHERE deleted_at IS NOT NULL ORDER BY deleted_at LIMIT $1";
const FORGET_POSTGRES: &str = "DELETE FROM message_attachment WHERE deleted_at IS NOT NULL AND id = ANY($1)";
const FORGET_SQLITE: &str = "DELETE FROM message_attachment WHERE deleted_at IS NOT NULL \
    AND id IN (SELECT unhex(value) FROM json_each($1))";
static BY_ID: RowsSql = RowsSql::new(
    "wanted",
    concat!(
        "SELECT ",
        columns!(),
        " FROM message_attachment WHERE id IN (SELECT wanted FROM r WHERE wanted IS NOT NULL)"
    ),
);
static ATTACH: RowsSql = RowsSql::new(
    "attachment, message",
    "UPDATE message_attachment SET message_id = r.message FROM r WHERE message_attachment.id = r.attachment",
);
static DETACH: RowsSql = RowsSql::new(
    "message, at",
    "UPDATE message_attachment SET deleted_at = r.at FROM r WHERE message_attachment.message_id = r.message",
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
        let (attach, detach) = (ATTACH.sqlite_text(2, 2).unwrap(), DETACH.sqlite_text(2, 2).unwrap());
        for sql in [USED, OWN, IN_CHANNEL, REMOVABLE, GIVE_UP_UNUSED, &attach, &detach] {
            let plan = sqlite_plan(sql).await;
            let uses_index = |line: &&String| line.contains("message_attachment USING");
            assert!(plan.iter().any(|line| uses_index(&line)), "{sql}: {plan:#?}");
        }
    }
}
