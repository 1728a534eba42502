//! The mentions in messages: rows from which unread mentions are counted.

use uuid::Uuid;

use super::append::records::{Record, Removable};
use super::rows::{Column, RowsSql, sql_number};
use super::text::Mentions;
use crate::clock::Micros;

sql_number! {
    /// `message_mention.kind`: a user.
    pub(crate) const MENTION_USER: i64 = mention_user = 0;
    /// `message_mention.kind`: a role.
    pub(crate) const MENTION_ROLE: i64 = mention_role = 1;
    /// `message_mention.kind`: everybody in the channel.
    pub(crate) const MENTION_CHANNEL: i64 = mention_channel = 2;
    /// `message_mention.kind`: everybody who is online.
    pub(crate) const MENTION_HERE: i64 = mention_here = 3;
    /// `message_mention.kind`: no mention, but a message of the author after their own read position.
    pub(crate) const MENTION_SELF: i64 = mention_self = 4;
}

/// All rows of one message in `message_mention`, which are written and removed together.
#[derive(Debug)]
pub(crate) struct MentionRows {
    pub message_id: Uuid,
    pub author_id: Uuid,
    pub channel_id: Uuid,
    pub seq: i64,
    pub thread_id: Option<Uuid>,
    pub at: Micros,
    /// The kind and target of each row, without duplicates.
    pub targets: Vec<(i64, Uuid)>,
}

/// Returns the kind and target of each mention, sorted and without duplicates.
pub(crate) fn targets(mentions: &Mentions, channel: Uuid) -> Vec<(i64, Uuid)> {
    let users = mentions.users.iter().map(|user| (MENTION_USER, *user));
    let roles = mentions.roles.iter().map(|role| (MENTION_ROLE, *role));
    let wide = [(mentions.channel, MENTION_CHANNEL), (mentions.here, MENTION_HERE)];
    let wide = wide.into_iter().filter(|(set, _)| *set).map(|(_, kind)| (kind, channel));
    let mut all: Vec<_> = users.chain(roles).chain(wide).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Record for MentionRows {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn insert() -> &'static RowsSql {
        &INSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        let each =
            || rows.iter().flat_map(|row| row.targets.iter().map(|(kind, target)| (*row, *kind, *target)));
        vec![
            Column::Ids(each().map(|(row, ..)| row.message_id).collect()),
            Column::Numbers(each().map(|(_, kind, _)| kind).collect()),
            Column::Ids(each().map(|(.., target)| target).collect()),
            Column::Ids(each().map(|(row, ..)| row.author_id).collect()),
            Column::Ids(each().map(|(row, ..)| row.channel_id).collect()),
            Column::Numbers(each().map(|(row, ..)| row.seq).collect()),
            Column::MaybeIds(each().map(|(row, ..)| row.thread_id).collect()),
            Column::Numbers(each().map(|(row, ..)| row.at).collect()),
        ]
    }
}

impl Removable for MentionRows {
    fn delete() -> &'static RowsSql {
        &DELETE
    }

    fn key_columns(messages: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::Ids(messages.to_vec())]
    }
}

static INSERT: RowsSql = RowsSql::new(
    "message_id, kind, target_id, author_id, channel_id, seq, thread_id, created_at",
    "INSERT INTO message_mention (message_id, kind, target_id, author_id, channel_id, seq, thread_id, created_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL",
);
static DELETE: RowsSql = RowsSql::new(
    "id",
    "DELETE FROM message_mention WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_a_target_once_and_wide_mentions_aim_at_the_channel() {
        let (alice, role, channel) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let mentions = Mentions { users: vec![alice, alice], roles: vec![role], channel: true, here: true };
        let expected = [
            (MENTION_USER, alice),
            (MENTION_ROLE, role),
            (MENTION_CHANNEL, channel),
            (MENTION_HERE, channel),
        ];
        assert_eq!(targets(&mentions, channel), expected);
    }
}
