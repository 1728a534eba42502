//! Forwarded messages: a copy of what was forwarded, which is stored with the message that forwards it.

use std::collections::HashMap;

use uuid::Uuid;

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

/// Removes the text of forwarded messages whose original is deleted.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub(crate) async fn hide_deleted(db: &Db, messages: &mut [MessageDetail]) -> ImksResult<()> {
    let originals: Vec<Uuid> =
        messages.iter().filter_map(|it| it.forward_of.as_ref().map(|it| it.id)).collect();
    if originals.is_empty() {
        return Ok(());
    }
    let deleted: Vec<(Uuid, Micros)> = DELETED.read(db, &[Column::Ids(originals)]).await?;
    let deleted: HashMap<Uuid, Micros> = deleted.into_iter().collect();
    for forward in messages.iter_mut().filter_map(|message| message.forward_of.as_mut()) {
        if let Some(at) = deleted.get(&forward.id) {
            forward.hide(*at);
        }
    }
    Ok(())
}

static DELETED: RowsSql = RowsSql::new(
    "id",
    "SELECT m.id, m.deleted_at FROM r JOIN message m ON m.id = r.id \
     WHERE r.id IS NOT NULL AND m.deleted_at IS NOT NULL",
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
        let first = copy_of(original.into_detail(None));
        assert_eq!(Forward::from_stored(Some(&first.stored())), Some(first.clone()));
        let forward = |body: &str| Message {
            id: Uuid::from_u128(2),
            body: body.into(),
            forward_of: Some(first.stored()),
            ..Message::default()
        };
        assert_eq!(copy_of(forward("").into_detail(None)), first);
        assert_eq!(copy_of(forward("look").into_detail(None)).body, "look");
    }
}
