//! Forwarded messages: a copy of what was forwarded, which is stored with the message that forwards it.

use std::collections::HashMap;

use uuid::Uuid;

use super::append::records::Record;
use super::db::Db;
use super::message::{Forward, MessageDetail};
use super::rows::{Column, RowsSql};
use crate::ImksResult;
use crate::clock::Micros;

/// Returns a copy of a message. Of one that only forwards another, it is a copy of that other one.
pub fn copy_of(source: MessageDetail) -> Box<Forward> {
    match source.forward_of {
        Some(original) if source.body.is_empty() => original,
        _ => Box::new(Forward {
            channel_id: source.channel_id,
            id: source.id,
            author: source.author,
            body: source.body,
            content_type: source.content_type,
            created_at: source.created_at,
            deleted_at: source.deleted_at,
        }),
    }
}

/// Whose message is forwarded where.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// The message that forwards another one.
    pub message_id: Uuid,
    pub channel_id: Uuid,
    /// The author of the forwarded message.
    pub author_id: Uuid,
    /// The message that is forwarded.
    pub original_id: Uuid,
}

impl Record for Forwarded {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn insert() -> &'static RowsSql {
        &INSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.message_id),
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| row.author_id),
            Column::of(rows, |row| row.original_id),
        ]
    }
}

/// Removes the text of forwarded messages whose original is deleted, or gone altogether.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub(crate) async fn hide_deleted(db: &Db, messages: &mut [MessageDetail]) -> ImksResult<()> {
    let originals: Vec<Uuid> =
        messages.iter().filter_map(|it| it.forward_of.as_ref().map(|it| it.id)).collect();
    if originals.is_empty() {
        return Ok(());
    }
    let found: Vec<(Uuid, Option<Micros>)> = ORIGINALS.read(db, &[Column::Ids(originals)]).await?;
    let found: HashMap<Uuid, Option<Micros>> = found.into_iter().collect();
    for forward in messages.iter_mut().filter_map(|message| message.forward_of.as_mut()) {
        match found.get(&forward.id) {
            Some(None) => {}
            Some(Some(at)) => forward.hide(*at),
            None => forward.hide_gone(),
        }
    }
    Ok(())
}

/// An original that is deleted at this moment may have lost its text before the copy is here to be found.
static INSERT: RowsSql = RowsSql::new(
    "message_id, channel_id, author_id, original_id",
    "INSERT INTO message_forward (message_id, channel_id, author_id, original_id, original_gone) \
     SELECT r.*, NOT EXISTS (SELECT 1 FROM message m WHERE m.id = r.original_id AND m.deleted_at IS NULL) \
     FROM r WHERE r.message_id IS NOT NULL",
);
static ORIGINALS: RowsSql = RowsSql::new(
    "id",
    "SELECT m.id, m.deleted_at FROM r JOIN message m ON m.id = r.id WHERE r.id IS NOT NULL",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::message_row::Message;

    #[test]
    fn a_copy_is_read_back_as_it_was_and_one_of_a_mere_forward_is_one_of_the_original() {
        let original = Message {
            id: Uuid::from_u128(1),
            body: "\"hi\"".into(),
            created_at: 1_500_000,
            ..Message::default()
        };
        let first = copy_of(original.into_detail(None).unwrap());
        let stored = first.stored().unwrap();
        assert_eq!(Forward::from_stored(Some(&stored)).unwrap(), Some(first.clone()));
        let forward = |body: &str| Message {
            id: Uuid::from_u128(2),
            body: body.into(),
            forward_of: Some(stored.clone()),
            ..Message::default()
        };
        assert_eq!(copy_of(forward("").into_detail(None).unwrap()), first);
        assert_eq!(copy_of(forward("look").into_detail(None).unwrap()).body, "look");
    }
}
