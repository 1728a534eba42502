//! Messages: the stored row, the view that goes over the wire, and reading them back.

use std::collections::HashMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, json_ids, on};
use super::message_id::seq_of;
use super::rows::{RowsSql, sql_number};
use super::text::{Mentions, Nonce};
use crate::clock::{Micros, Timestamp};
use crate::{ImksError, ImksResult};

/// A stored message.
#[derive(Debug, Clone, Default, FromRow)]
#[allow(missing_docs, reason = "named as the columns, which the migrations and docs/protocol.md explain")]
pub struct Message {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub seq: i64,
    /// Messages up to and including this one that count as unread.
    pub cseq: i64,
    pub author_id: Uuid,
    pub author_username: String,
    #[sqlx(rename = "type")]
    pub kind: i32,
    pub content_type: i32,
    pub body: String,
    pub thread_id: Option<Uuid>,
    pub reply_to_message_id: Option<Uuid>,
    pub mentions: Option<String>,
    pub flags: i32,
    pub nonce: Option<String>,
    pub version: i64,
    pub rev: i64,
    pub created_at: Micros,
    pub edited_at: Option<Micros>,
    pub edit_count: i32,
    pub deleted_at: Option<Micros>,
    pub deleted_by: Option<Uuid>,
    pub pinned_at: Option<Micros>,
    pub reactions: Option<String>,
    pub attachment_count: i32,
}

/// The columns of [`Message`], for `concat!`.
macro_rules! message_columns {
    () => {
        "id, channel_id, seq, cseq, author_id, author_username, type, content_type, body, thread_id, \
         reply_to_message_id, mentions, flags, nonce, version, rev, created_at, edited_at, edit_count, \
         deleted_at, deleted_by, pinned_at, reactions, attachment_count"
    };
}

/// Who wrote a message, as it was known at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorInfo {
    /// The user.
    pub id: Uuid,
    /// Display only; the id is the identity.
    pub username: Box<str>,
}

/// Declares an enum whose numbers are stored and whose names are on the wire.
macro_rules! stored_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs, reason = "the names say it")]
        #[repr(i32)]
        pub enum $name {
            $($(#[$of_variant])* $variant = $number,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// From the stored number; a number of a later version reads as the default.
            pub fn from_stored(number: i32) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    _ => Self::default(),
                }
            }
        }
    };
}

stored_enum! {
    /// `type` of a message.
    pub enum MessageType {
        #[default]
        Default = 0,
        Reply = 1,
        Poll = 2,
        Bot = 3,
        Webhook = 4,
        Call = 5,
        E2ee = 6,
        Forwarded = 7,
        SystemJoin = 16,
        SystemLeave = 17,
        SystemRename = 18,
        SystemPin = 19,
    }
}

stored_enum! {
    /// How a body is to be read.
    pub enum ContentType {
        #[default]
        Markdown = 0,
        Plain = 1,
        E2ee = 2,
    }
}

/// `flags`: no notification at all.
pub const FLAG_SILENT: i32 = 1;
/// `flags`: no link previews.
pub const FLAG_SUPPRESS_EMBEDS: i32 = 2;
/// `flags`: mentions are links only.
pub const FLAG_NO_MENTION_NOTIFY: i32 = 4;
sql_number! {
    /// `flags`: a thread reply that also stands in the channel. Set by the server from `also_send_to_channel`.
    pub const FLAG_ALSO_IN_CHANNEL: i32 = flag_also_in_channel = 8;
    /// `flags`: a program sent it in the author's name, who has therefore not read up to it. Set by the server; the
    /// index `message_own` is about messages without it.
    pub const FLAG_AUTOMATED: i32 = flag_automated = 16;
}

/// The message a reply answers, as it is now: an edit shows, a deleted one has no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplyPreview {
    /// The message.
    pub id: Uuid,
    /// Its number.
    pub seq: i64,
    /// Who wrote it.
    pub author: AuthorInfo,
    /// Its first [`PREVIEW_CHARS`] characters; empty when deleted.
    pub body: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
}

/// Characters of a message that its replies quote.
pub const PREVIEW_CHARS: usize = 200;

/// A message as everybody in the channel sees it: the payload of `message:new`, field for field
/// (docs/protocol.md). Holds nothing that depends on who looks at it.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the wire contract in docs/protocol.md explains each field")]
pub struct MessageDetail {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub author: AuthorInfo,
    /// Empty once deleted.
    pub body: String,
    pub created_at: Timestamp,
    #[serde(serialize_with = "object_or_empty")]
    pub reactions: Option<Box<RawValue>>,
    pub attachment_count: i32,

    pub seq: i64,
    pub version: i64,
    #[serde(rename = "type")]
    pub kind: MessageType,
    pub content_type: ContentType,
    pub thread_id: Option<Uuid>,
    pub reply_to_message_id: Option<Uuid>,
    pub reply_to: Option<Box<ReplyPreview>>,
    pub attachments: Parts,
    pub embeds: Parts,
    pub poll: Option<Box<RawValue>>,
    pub mentions: Mentions,
    pub flags: i32,
    pub edited_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub pinned: bool,
    pub nonce: Option<Nonce>,
    pub thread: Option<Box<RawValue>>,

    /// Number of the last change to this message; 0 when it was never changed. Goes out beside the message.
    #[serde(skip)]
    pub rev: i64,
}

/// Parts of a message that have tables of their own.
pub type Parts = Vec<Box<RawValue>>;

/// Whether a message counts as unread in its channel; a reply that stands only in its thread does not.
pub(crate) fn is_counted(thread: Option<Uuid>, flags: i32) -> bool {
    thread.is_none() || flags & FLAG_ALSO_IN_CHANNEL != 0
}

impl Message {
    /// The message as everybody sees it, with what it quotes.
    pub(crate) fn into_detail(self, reply_to: Option<Box<ReplyPreview>>) -> MessageDetail {
        let row = self;
        let deleted = row.deleted_at.is_some();
        let mentions = Mentions::from_stored(row.mentions.as_deref().filter(|_| !deleted));
        let reactions = row.reactions.filter(|_| !deleted).and_then(|json| RawValue::from_string(json).ok());
        MessageDetail {
            id: row.id,
            channel_id: row.channel_id,
            author: AuthorInfo { id: row.author_id, username: row.author_username.into() },
            body: if deleted { String::new() } else { row.body },
            created_at: Timestamp(row.created_at),
            reactions,
            attachment_count: if deleted { 0 } else { row.attachment_count },
            seq: row.seq,
            version: row.version,
            kind: MessageType::from_stored(row.kind),
            content_type: ContentType::from_stored(row.content_type),
            thread_id: row.thread_id,
            reply_to_message_id: row.reply_to_message_id,
            reply_to,
            attachments: Vec::new(),
            embeds: Vec::new(),
            poll: None,
            mentions,
            flags: row.flags,
            edited_at: row.edited_at.map(Timestamp),
            deleted_at: row.deleted_at.map(Timestamp),
            pinned: row.pinned_at.is_some() && !deleted,
            nonce: row.nonce.map(Nonce::from_stored),
            thread: None,
            rev: row.rev,
        }
    }
}

impl From<&Message> for ReplyPreview {
    fn from(row: &Message) -> Self {
        let body = match row.deleted_at {
            Some(_) => String::new(),
            None => row.body.chars().take(PREVIEW_CHARS).collect(),
        };
        Self {
            id: row.id,
            seq: row.seq,
            author: AuthorInfo { id: row.author_id, username: row.author_username.as_str().into() },
            body,
            created_at: Timestamp(row.created_at),
            deleted_at: row.deleted_at.map(Timestamp),
        }
    }
}

/// Where in a channel a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The newest messages.
    Latest,
    /// Older than this message, which need not exist any more.
    Before(Uuid),
    /// Newer than this message, which need not exist any more.
    After(Uuid),
    /// This message in the middle; it must exist.
    Around(Uuid),
}

/// A request for a page of history.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Where.
    pub position: Position,
    /// Only replies in this thread.
    pub thread_id: Option<Uuid>,
    /// At most this many, between 1 and [`PAGE_LIMIT`]; anything else is moved there.
    pub limit: u32,
}

/// Most messages in one page.
pub const PAGE_LIMIT: u32 = 100;

/// A page of history, oldest first.
#[derive(Debug, Clone, Serialize)]
pub struct MessagePage {
    /// The messages; deleted ones without their body.
    pub messages: Vec<MessageDetail>,
    /// There are older ones.
    pub has_more_before: bool,
    /// There are newer ones.
    pub has_more_after: bool,
    /// First and last `seq` of the page; nothing when it is empty.
    pub seq_range: Option<(i64, i64)>,
}

/// A page of a channel's history.
///
/// # Errors
/// [`ImksError::NotFound`] when the message to look around does not exist in this channel, otherwise
/// [`ImksError::Database`].
pub async fn page(db: &Db, channel: Uuid, page: Page) -> ImksResult<MessagePage> {
    let limit = i64::from(page.limit.clamp(1, PAGE_LIMIT));
    let scan = Scan { db, channel, thread: page.thread_id };
    let (rows, before, after) = match page.position {
        Position::Latest => {
            let (rows, more) = scan.older(i64::MAX, limit).await?;
            (rows, more, false)
        }
        Position::Before(id) => {
            let (rows, more) = scan.older(seq_of(id), limit).await?;
            (rows, more, scan.any_from(seq_of(id)).await?)
        }
        Position::After(id) => {
            let (rows, more) = scan.newer(seq_of(id), limit).await?;
            (rows, seq_of(id) > 0 && scan.any_until(seq_of(id)).await?, more)
        }
        Position::Around(id) => scan.around(id, limit).await?,
    };
    let seq_range = rows.first().zip(rows.last()).map(|(first, last)| (first.seq, last.seq));
    let messages = with_replies(db, rows).await?;
    Ok(MessagePage { messages, has_more_before: before, has_more_after: after, seq_range })
}

/// The messages with these ids that are in this channel, oldest first. Unknown ids are left out.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn get_many(db: &Db, channel: Uuid, ids: &[Uuid]) -> ImksResult<Vec<MessageDetail>> {
    let mut rows = rows_by_id(db, ids).await?;
    rows.retain(|row| row.channel_id == channel);
    rows.sort_unstable_by_key(|row| row.seq);
    with_replies(db, rows).await
}

/// One message of this channel.
///
/// # Errors
/// [`ImksError::NotFound`] when there is none with this id, [`ImksError::Database`].
pub async fn get(db: &Db, channel: Uuid, id: Uuid) -> ImksResult<MessageDetail> {
    get_many(db, channel, &[id]).await?.pop().ok_or(ImksError::NotFound("message"))
}

/// Up to `limit` messages with a `seq` greater than `seq`, oldest first, and whether there are more.
pub(crate) async fn newer_than(
    db: &Db,
    channel: Uuid,
    seq: i64,
    limit: i64,
) -> ImksResult<(Vec<MessageDetail>, bool)> {
    let (rows, more) = Scan { db, channel, thread: None }.newer(seq, limit).await?;
    Ok((with_replies(db, rows).await?, more))
}

/// Rows to views, with what replies quote: one more query when there are replies, none otherwise.
pub(crate) async fn with_replies(db: &Db, rows: Vec<Message>) -> ImksResult<Vec<MessageDetail>> {
    let missing: Vec<Uuid> = rows.iter().filter_map(|row| row.reply_to_message_id).collect();
    let quoted: HashMap<Uuid, ReplyPreview> = match missing.is_empty() {
        true => HashMap::new(),
        false => rows_by_id(db, &missing).await?.iter().map(|row| (row.id, row.into())).collect(),
    };
    let view = |row: Message| {
        let reply_to = row.reply_to_message_id.and_then(|id| quoted.get(&id)).cloned().map(Box::new);
        row.into_detail(reply_to)
    };
    Ok(rows.into_iter().map(view).collect())
}

pub(crate) async fn rows_by_id(db: &Db, ids: &[Uuid]) -> ImksResult<Vec<Message>> {
    Ok(match db {
        Db::Postgres(pool) => sqlx::query_as(BY_IDS_POSTGRES).bind(ids).fetch_all(pool).await?,
        Db::Sqlite(sqlite) => {
            sqlx::query_as(BY_IDS_SQLITE).bind(json_ids(ids)).fetch_all(&sqlite.reader).await?
        }
    })
}

struct Scan<'a> {
    db: &'a Db,
    channel: Uuid,
    thread: Option<Uuid>,
}

impl Scan<'_> {
    /// Rows with a smaller `seq`, oldest first, and whether there are even older ones.
    async fn older(&self, seq: i64, limit: i64) -> ImksResult<(Vec<Message>, bool)> {
        let (mut rows, more) = self.rows([OLDER, OLDER_IN_THREAD], seq, limit).await?;
        rows.reverse();
        Ok((rows, more))
    }

    /// Rows with a greater `seq`, oldest first, and whether there are even newer ones.
    async fn newer(&self, seq: i64, limit: i64) -> ImksResult<(Vec<Message>, bool)> {
        self.rows([NEWER, NEWER_IN_THREAD], seq, limit).await
    }

    async fn around(&self, id: Uuid, limit: i64) -> ImksResult<(Vec<Message>, bool, bool)> {
        let found = rows_by_id(self.db, &[id]).await?.pop().filter(|row| row.channel_id == self.channel);
        let seq = found.ok_or(ImksError::NotFound("message"))?.seq;
        let (mut rows, before) = self.older(seq, limit / 2).await?;
        let (newer, after) = self.newer(seq - 1, limit - limit / 2).await?;
        rows.extend(newer);
        Ok((rows, before, after))
    }

    async fn any_from(&self, seq: i64) -> ImksResult<bool> {
        Ok(!self.newer(seq - 1, 1).await?.0.is_empty())
    }

    async fn any_until(&self, seq: i64) -> ImksResult<bool> {
        Ok(!self.older(seq + 1, 1).await?.0.is_empty())
    }

    async fn rows(&self, sql: [&'static str; 2], seq: i64, limit: i64) -> ImksResult<(Vec<Message>, bool)> {
        let one_more = limit + 1;
        let mut rows: Vec<Message> = match self.thread {
            None => on!(read self.db, pool => {
                sqlx::query_as(sql[0]).bind(self.channel).bind(seq).bind(one_more).fetch_all(pool).await?
            }),
            Some(thread) => on!(read self.db, pool => {
                let query = sqlx::query_as(sql[1]).bind(self.channel).bind(seq).bind(one_more).bind(thread);
                query.fetch_all(pool).await?
            }),
        };
        let more = rows.len() > usize::try_from(limit).unwrap_or(0);
        if more {
            rows.pop();
        }
        Ok((rows, more))
    }
}

fn object_or_empty<S: Serializer>(value: &Option<Box<RawValue>>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(json) => json.serialize(serializer),
        None => serializer.serialize_map(Some(0))?.end(),
    }
}

const OLDER: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE channel_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3"
);
const NEWER: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE channel_id = $1 AND seq > $2 ORDER BY seq LIMIT $3"
);
const OLDER_IN_THREAD: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE thread_id = $4 AND seq < $2 AND channel_id = $1 ORDER BY seq DESC LIMIT $3"
);
const NEWER_IN_THREAD: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE thread_id = $4 AND seq > $2 AND channel_id = $1 ORDER BY seq LIMIT $3"
);
const BY_IDS_POSTGRES: &str = concat!("SELECT ", message_columns!(), " FROM message WHERE id = ANY($1)");
const BY_IDS_SQLITE: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE id IN (SELECT unhex(value) FROM json_each($1))"
);

/// Messages by id, inside a transaction.
pub(crate) static BY_IDS: RowsSql = RowsSql::new(
    "wanted",
    concat!(
        "SELECT ",
        message_columns!(),
        " FROM message WHERE id IN (SELECT wanted FROM r WHERE wanted IS NOT NULL)"
    ),
);
pub(crate) static INSERT: RowsSql = RowsSql::new(
    "id, channel_id, seq, cseq, author_id, author_username, type, content_type, body, thread_id, \
     reply_to_message_id, mentions, flags, nonce, content_hash, created_at",
    "INSERT INTO message (id, channel_id, seq, cseq, author_id, author_username, type, content_type, body, \
     thread_id, reply_to_message_id, mentions, flags, nonce, content_hash, created_at) \
     SELECT * FROM r WHERE r.id IS NOT NULL",
);
/// Everything about a message that can change. Without a body the old one stays, wherever the database keeps it.
pub(crate) static UPDATE: RowsSql = RowsSql::new(
    "id, body, mentions, version, rev, edited_at, edit_count, deleted_at, deleted_by, pinned_at, reactions",
    "UPDATE message SET body = COALESCE(r.body, message.body), mentions = r.mentions, version = r.version, \
     rev = r.rev, edited_at = r.edited_at, edit_count = r.edit_count, deleted_at = r.deleted_at, \
     deleted_by = r.deleted_by, pinned_at = r.pinned_at, reactions = r.reactions FROM r WHERE message.id = r.id",
);
