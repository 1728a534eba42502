//! The stored row of a message: its columns, and the statements that find, insert and update it. A column is one
//! line of [`Message`]; a column that is set when a message is sent is also one line of [`Appended`].

use std::sync::Arc;

use serde_json::value::RawValue;
use sqlx::FromRow;
use uuid::Uuid;

use super::message::{MessageDetail, PREVIEW_CHARS};
use super::rows::{Column, RowsSql, Value};
use super::text::Nonce;
use crate::clock::Micros;

/// Declares [`Message`], the list of its columns, and the statement that updates the changeable ones. `renamed`
/// lists the fields whose column has another name.
macro_rules! message_row {
    (
        text $text:literal
        constant { $($(#[$meta:meta])* $name:ident: $type:ty,)* }
        renamed { $($renamed:ident = $sql:literal: $renamed_type:ty,)* }
        changeable { $($changeable:ident: $of:ty,)* }
    ) => {
        /// A stored message.
        #[derive(Debug, Clone, Default, FromRow)]
        #[allow(missing_docs, reason = "named as the columns, which the migrations and docs/protocol.md explain")]
        pub struct Message {
            $($(#[$meta])* pub $name: $type,)*
            $(#[sqlx(rename = $sql)] pub $renamed: $renamed_type,)*
            pub body: String,
            $(pub $changeable: $of,)*
        }

        /// The columns of [`Message`], for `concat!`.
        macro_rules! message_columns {
            () => {
                concat!(
                    $text,
                    " AS body",
                    $(", ", stringify!($name),)*
                    $(", ", $sql,)*
                    $(", ", stringify!($changeable)),*
                )
            };
        }
        pub(crate) use message_columns;

        /// The text of a message, for `concat!`.
        macro_rules! text_so_far {
            () => {
                $text
            };
        }
        pub(crate) use text_so_far;

        impl Message {
            /// Returns about the most bytes that the message takes in an answer. In memory it takes less.
            pub(crate) fn bytes(&self) -> usize {
                let quoted = if self.reply_to_message_id.is_some() { PREVIEW_BYTES } else { 0 };
                let others = Value::text_bytes(&self.forward_of) + Value::text_bytes(&self.metadata);
                DETAIL_BYTES + escaped_len(&self.body) + quoted + others $(+ Value::text_bytes(&self.$changeable))*
            }

            /// Returns the input of [`UPDATE`]: the messages, and the new text of those whose text changes.
            pub(crate) fn update_columns<'a>(changed: &[(&'a Self, Option<&'a str>)]) -> Vec<Column<'a>> {
                vec![
                    Column::of(changed, |(row, _)| row.id),
                    Column::of(changed, |(_, body)| *body),
                    $(Column::of(changed, |(row, _)| &row.$changeable),)*
                ]
            }
        }

        /// Updates every changeable column. Without a new body, the stored one stays untouched.
        pub(crate) static UPDATE: RowsSql = RowsSql::new(
            concat!("id, body", $(", ", stringify!($changeable)),*),
            concat!(
                "UPDATE message SET body = COALESCE(r.body, message.body)",
                $(", ", stringify!($changeable), " = r.", stringify!($changeable),)*
                " FROM r WHERE message.id = r.id"
            ),
        );
    };
}

message_row! {
    // While more text may come, its end is in a table of its own (`super::message_stream`). One statement reads both.
    text "CASE WHEN stream = 0 THEN body || COALESCE((SELECT tail FROM message_stream \
          WHERE message_stream.message_id = message.id), '') ELSE body END"
    constant {
        id: Uuid,
        channel_id: Uuid,
        seq: i64,
        /// The number of messages that count as unread, up to and including this one.
        cseq: i64,
        author_id: Uuid,
        author_username: String,
        content_type: i32,
        thread_id: Option<Uuid>,
        reply_to_message_id: Option<Uuid>,
        flags: i32,
        nonce: Option<String>,
        metadata: Option<String>,
        created_at: Micros,
        forward_of: Option<String>,
        priority: i32,
    }
    renamed {
        kind = "type": i32,
    }
    changeable {
        mentions: Option<String>,
        version: i64,
        rev: i64,
        edited_at: Option<Micros>,
        edit_count: i32,
        deleted_at: Option<Micros>,
        deleted_by: Option<Uuid>,
        pinned_at: Option<Micros>,
        expires_at: Option<Micros>,
        reactions: Option<String>,
        poll: Option<String>,
        thread: Option<String>,
        attachment_count: i32,
        attachments: Option<String>,
        embeds: Option<String>,
        stream: Option<i32>,
        acks: Option<i64>,
    }
}

/// Returns the number of bytes of a text inside a JSON string (RFC 8259 section 7).
fn escaped_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

/// The size of a message besides its text.
const DETAIL_BYTES: usize = 512;
/// The most bytes of a quoted message: its escaped text, and the other fields.
const PREVIEW_BYTES: usize = PREVIEW_CHARS * 6 + DETAIL_BYTES;

/// A new message, with the columns that its view does not show.
#[derive(Debug)]
pub(crate) struct Appended {
    pub message: Arc<MessageDetail>,
    pub cseq: i64,
    pub content_hash: i64,
    /// The mentions as stored.
    pub mentions: Option<String>,
    /// The attachments as stored.
    pub attachments: Option<String>,
    /// The embeds as stored.
    pub embeds: Option<String>,
    /// The copy of the forwarded message as stored.
    pub forward_of: Option<String>,
}

/// Declares the columns that are set when a message is sent, and the statement that inserts them.
macro_rules! inserted {
    (|$row:ident| $first:literal = $first_value:expr, $($name:literal = $value:expr,)*) => {
        impl Appended {
            /// Returns the input of [`INSERT`].
            pub(crate) fn columns(rows: &[Self]) -> Vec<Column<'_>> {
                vec![Column::of(rows, |$row| $first_value), $(Column::of(rows, |$row| $value),)*]
            }
        }

        /// Inserts new messages.
        pub(crate) static INSERT: RowsSql = RowsSql::new(
            concat!($first $(, ", ", $name)*),
            concat!(
                "INSERT INTO message (", $first $(, ", ", $name)*, ") SELECT * FROM r WHERE r.id IS NOT NULL"
            ),
        );
    };
}

inserted! {
    |row|
    "id" = row.message.id,
    "channel_id" = row.message.channel_id,
    "seq" = row.message.seq,
    "cseq" = row.cseq,
    "author_id" = row.message.author.id,
    "author_username" = &*row.message.author.username,
    "type" = row.message.kind as i32,
    "content_type" = row.message.content_type as i32,
    "body" = row.message.body.as_str(),
    "thread_id" = row.message.thread_id,
    "reply_to_message_id" = row.message.reply_to_message_id,
    "mentions" = row.mentions.as_deref(),
    "flags" = row.message.flags,
    "nonce" = row.message.nonce.as_ref().map(Nonce::as_str),
    "metadata" = row.message.metadata.as_deref().map(RawValue::get),
    "content_hash" = row.content_hash,
    "created_at" = row.message.created_at.0,
    "attachment_count" = row.message.attachment_count,
    "attachments" = row.attachments.as_deref(),
    "embeds" = row.embeds.as_deref(),
    "forward_of" = row.forward_of.as_deref(),
    "expires_at" = row.message.expires_at.map(|at| at.0),
    "priority" = row.message.priority as i32,
    "acks" = row.message.ack_requested.then_some(row.message.ack_count),
    "stream" = row.message.stream.map(|stream| stream.state as i32),
}

/// Finds messages by id inside a transaction.
pub(crate) static BY_IDS: RowsSql = RowsSql::new(
    "wanted",
    concat!(
        "SELECT ",
        message_columns!(),
        " FROM message WHERE id IN (SELECT wanted FROM r WHERE wanted IS NOT NULL)"
    ),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_text_in_an_answer_is_that_of_its_json() {
        let every_ascii: String = (1..=127_u8).map(char::from).collect();
        for text in
            [every_ascii.as_str(), "", "grüß \u{1f600}", "\u{1}\u{1f}", "a\"b\\c/\n\r\t\u{8}\u{c}\u{b}"]
        {
            let quotes = 2;
            assert_eq!(escaped_len(text) + quotes, serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
    }

    #[test]
    fn what_programs_read_beside_the_text_counts_as_well() {
        let metadata = Some("x".repeat(1_000));
        assert_eq!(Message { metadata, ..Message::default() }.bytes(), Message::default().bytes() + 1_000);
    }

    #[test]
    fn the_statements_take_a_column_for_each_value_of_a_row() {
        let row = Message { body: "hello".into(), mentions: Some("{}".into()), ..Message::default() };
        assert_eq!(Message::update_columns(&[(&row, None)]).len(), UPDATE.width());
        let appended = Appended {
            message: Arc::new(row.clone().into_detail(None).unwrap()),
            cseq: 1,
            content_hash: 2,
            mentions: row.mentions.clone(),
            attachments: None,
            embeds: None,
            forward_of: None,
        };
        assert_eq!(Appended::columns(&[appended]).len(), INSERT.width());
        assert_eq!(row.bytes(), DETAIL_BYTES + "hello{}".len());
    }

    #[test]
    fn a_field_with_another_name_in_the_table_is_read_under_that_name() {
        let columns: Vec<&str> = message_columns!().split(" AS body, ").nth(1).unwrap().split(", ").collect();
        assert!(columns.contains(&"type") && !columns.contains(&"kind"));
        let distinct: std::collections::HashSet<&&str> = columns.iter().collect();
        assert_eq!(distinct.len(), columns.len());
    }
}
