//! The log of a channel's changes: one row per `rev`, so that a returning client learns what to read again.

use uuid::Uuid;

use super::rows::{Column, RowsSql};
use crate::clock::Micros;

/// Declares the kinds of changes, with their stored numbers and the events that tell clients of them.
macro_rules! change_kinds {
    ($($name:ident = $number:literal: $event:literal,)*) => {
        /// The values of `channel_change.kind`: how a message was changed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(i32)]
        pub(crate) enum ChangeKind {
            $($name = $number,)*
        }

        impl ChangeKind {
            /// The events that tell clients of changes.
            pub(crate) const EVENTS: &[&str] = &[$($event,)*];

            /// Returns the event that tells clients of a change whose stored kind is `number`. A kind of a later
            /// version is told as an update.
            pub(crate) fn event(number: i32) -> &'static str {
                match number {
                    $($number => $event,)*
                    _ => "message:updated",
                }
            }
        }
    };
}

// A feature with changes adds one line.
change_kinds! {
    Edit = 0: "message:updated",
    Delete = 1: "message:deleted",
    Reaction = 2: "reaction:updated",
    Pin = 3: "pin:updated",
    Poll = 4: "poll:updated",
    Thread = 5: "thread:updated",
    Embeds = 6: "message:updated",
    Stream = 7: "message:updated",
    Ack = 8: "ack:updated",
    Author = 9: "message:updated",
}

/// A row of `channel_change`.
#[derive(Debug)]
pub(crate) struct Change {
    pub channel_id: Uuid,
    pub rev: i64,
    pub kind: ChangeKind,
    pub message_id: Uuid,
    pub seq: i64,
    pub actor_id: Uuid,
    pub at: Micros,
}

impl Change {
    /// Returns the input of [`INSERT`].
    pub(crate) fn columns(changes: &[Self]) -> Vec<Column<'_>> {
        vec![
            Column::Ids(changes.iter().map(|change| change.channel_id).collect()),
            Column::Numbers(changes.iter().map(|change| change.rev).collect()),
            Column::Numbers(changes.iter().map(|change| i64::from(change.kind as i32)).collect()),
            Column::Ids(changes.iter().map(|change| change.message_id).collect()),
            Column::Numbers(changes.iter().map(|change| change.seq).collect()),
            Column::Ids(changes.iter().map(|change| change.actor_id).collect()),
            Column::Numbers(changes.iter().map(|change| change.at).collect()),
        ]
    }

    /// Returns the input of [`FIND`].
    pub(crate) fn key_columns(&self) -> Vec<Column<'_>> {
        vec![
            Column::Ids(vec![self.channel_id]),
            Column::Numbers(vec![self.rev]),
            Column::Ids(vec![self.message_id]),
            Column::Numbers(vec![self.at]),
        ]
    }
}

pub(crate) static INSERT: RowsSql = RowsSql::new(
    "channel_id, rev, kind, message_id, seq, actor_id, at",
    "INSERT INTO channel_change (channel_id, rev, kind, message_id, seq, actor_id, at) \
     SELECT * FROM r WHERE r.channel_id IS NOT NULL",
);
pub(crate) static FIND: RowsSql = RowsSql::new(
    "channel_id, rev, message_id, at",
    "SELECT c.rev FROM r JOIN channel_change c ON c.channel_id = r.channel_id AND c.rev = r.rev \
     AND c.message_id = r.message_id AND c.at = r.at",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_a_column_for_each_of_its_table() {
        let change = Change {
            channel_id: Uuid::nil(),
            rev: 1,
            kind: ChangeKind::Reaction,
            message_id: Uuid::nil(),
            seq: 2,
            actor_id: Uuid::nil(),
            at: 3,
        };
        assert_eq!(change.key_columns().len(), FIND.width());
        assert_eq!(Change::columns(&[change]).len(), INSERT.width());
    }

    #[test]
    fn stored_kinds_never_change() {
        let kinds = [ChangeKind::Edit, ChangeKind::Delete, ChangeKind::Reaction];
        assert_eq!(kinds.map(|kind| kind as i32), [0, 1, 2]);
    }
}
