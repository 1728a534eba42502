//! The mentions in messages: rows from which unread mentions are counted.
//!
//! Who has a role, and who is online, is looked up when a message is sent; each of them gets a row. So a role that
//! somebody gets later brings no old mentions, and one that is lost takes none away.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::append::records::{Record, Removable};
use super::rows::{Column, RowsSql, sql_number};
use super::text::Mentions;
use crate::clock::Micros;

sql_number! {
    /// `message_mention.kind`: a user.
    pub(crate) const MENTION_USER: i64 = mention_user = 0;
    /// `message_mention.kind`: a user who had a mentioned role.
    pub(crate) const MENTION_ROLE: i64 = mention_role = 1;
    /// `message_mention.kind`: everybody in the channel.
    pub(crate) const MENTION_CHANNEL: i64 = mention_channel = 2;
    /// `message_mention.kind`: a user who was online, or, where too many were, everybody in the channel.
    pub(crate) const MENTION_HERE: i64 = mention_here = 3;
    /// `message_mention.kind`: no mention, but a message of the author after their own read position.
    pub(crate) const MENTION_SELF: i64 = mention_self = 4;
}

/// Why a message mentions a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MentionKind {
    /// The user is mentioned.
    User,
    /// A role of the user is mentioned.
    Role,
    /// Everybody in the channel is mentioned.
    Channel,
    /// Everybody who is online is mentioned.
    Here,
}

impl MentionKind {
    /// Returns `message_mention.kind`.
    fn stored(self) -> i64 {
        match self {
            Self::User => MENTION_USER,
            Self::Role => MENTION_ROLE,
            Self::Channel => MENTION_CHANNEL,
            Self::Here => MENTION_HERE,
        }
    }

    /// Converts `message_mention.kind`.
    pub(crate) fn from_stored(kind: i64) -> Self {
        match kind {
            MENTION_ROLE => Self::Role,
            MENTION_CHANNEL => Self::Channel,
            MENTION_HERE => Self::Here,
            _ => Self::User,
        }
    }
}

/// The people behind the roles and `here` of a message, as they were when it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mentioned {
    /// The members of the channel who had a mentioned role.
    pub with_role: Vec<Uuid>,
    /// The members of the channel who were online, if `here` is mentioned.
    pub online: Online,
}

/// The people that `here` stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Online {
    /// The message does not mention `here`.
    #[default]
    Nobody,
    /// These users were online.
    Users(Vec<Uuid>),
    /// More than [`MENTIONED_PEOPLE_MAX`] were online: it counts for everybody in the channel.
    Many,
}

impl Mentioned {
    /// Returns everybody who is mentioned by somebody else than themselves, once each, with the first reason of: by name,
    /// by role, as online. `channel` stands for everybody in it.
    pub fn people(&self, mentions: &Mentions, channel: Uuid, author: Uuid) -> Vec<(MentionKind, Uuid)> {
        let users = mentions.users.iter().map(|user| (MentionKind::User, *user));
        let mut people: Vec<(MentionKind, Uuid)> = users.collect();
        if mentions.channel {
            people.push((MentionKind::Channel, channel));
        } else {
            people.extend(self.with_role.iter().map(|user| (MentionKind::Role, *user)));
            match &self.online {
                Online::Nobody => {}
                Online::Users(users) => people.extend(users.iter().map(|user| (MentionKind::Here, *user))),
                Online::Many => people.push((MentionKind::Here, channel)),
            }
        }
        let mut known = HashSet::with_capacity(people.len());
        people.retain(|(_, target)| *target != author && known.insert(*target));
        people
    }
}

/// The rows of one message in `message_mention` that mention somebody, which are written and removed together.
#[derive(Debug)]
pub(crate) struct MentionRows {
    pub message_id: Uuid,
    pub author_id: Uuid,
    pub channel_id: Uuid,
    pub seq: i64,
    pub thread_id: Option<Uuid>,
    pub at: Micros,
    /// The kind and target of each row, without duplicates.
    pub targets: Vec<(MentionKind, Uuid)>,
}

/// Returns the kind and target of each mention as the sender wrote it, sorted and without duplicates.
pub(crate) fn written(mentions: &Mentions) -> Vec<(i64, Uuid)> {
    let users = mentions.users.iter().map(|user| (MENTION_USER, *user));
    let roles = mentions.roles.iter().map(|role| (MENTION_ROLE, *role));
    let wide = [(mentions.channel, MENTION_CHANNEL), (mentions.here, MENTION_HERE)];
    let wide = wide.into_iter().filter(|(set, _)| *set).map(|(_, kind)| (kind, Uuid::nil()));
    let mut all: Vec<_> = users.chain(roles).chain(wide).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl MentionRows {
    /// Returns the input of [`INSERT`]: a message, and the kind and target of each row.
    fn columns_of<'a>(rows: &[(&Self, i64, Uuid)]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |(row, ..)| row.message_id),
            Column::of(rows, |(_, kind, _)| *kind),
            Column::of(rows, |(.., target)| *target),
            Column::of(rows, |(row, ..)| row.author_id),
            Column::of(rows, |(row, ..)| row.channel_id),
            Column::of(rows, |(row, ..)| row.seq),
            Column::of(rows, |(row, ..)| row.thread_id),
            Column::of(rows, |(row, ..)| row.at),
        ]
    }
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
        let of = |row: &&'a Self| {
            let row = *row;
            row.targets.iter().map(move |(kind, target)| (row, kind.stored(), *target))
        };
        Self::columns_of(&rows.iter().flat_map(of).collect::<Vec<_>>())
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

/// The row of a message that its author may not have read: one of kind "self".
#[derive(Debug)]
pub(crate) struct OwnRow(pub MentionRows);

impl Record for OwnRow {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.0.message_id
    }

    fn insert() -> &'static RowsSql {
        &INSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        let each = rows.iter().map(|row| (&row.0, MENTION_SELF, row.0.author_id));
        MentionRows::columns_of(&each.collect::<Vec<_>>())
    }
}

impl Removable for OwnRow {
    fn delete() -> &'static RowsSql {
        &DELETE_OWN
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
    concat!(
        "DELETE FROM message_mention WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL) AND kind <> ",
        mention_self!()
    ),
);
static DELETE_OWN: RowsSql = RowsSql::new(
    "id",
    concat!(
        "DELETE FROM message_mention WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL) AND kind = ",
        mention_self!()
    ),
);
/// The most people that roles, or `here`, may stand for in one message.
pub const MENTIONED_PEOPLE_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::MentionKind::{Channel, Here, Role, User};
    use super::*;

    const AUTHOR: Uuid = Uuid::from_u128(9);

    fn ids(numbers: &[u128]) -> Vec<Uuid> {
        numbers.iter().map(|number| Uuid::from_u128(*number)).collect()
    }

    fn people(mentions: &Mentions, mentioned: &Mentioned) -> Vec<(MentionKind, u128)> {
        let people = mentioned.people(mentions, Uuid::from_u128(7), AUTHOR);
        people.into_iter().map(|(kind, target)| (kind, target.as_u128())).collect()
    }

    #[test]
    fn everybody_is_mentioned_once_and_nobody_by_themselves() {
        let mentions = Mentions { users: ids(&[1, 1, 9]), here: true, ..Mentions::default() };
        let online = Online::Users(ids(&[1, 2, 3, 9]));
        let mentioned = Mentioned { with_role: ids(&[2, 1, 9]), online };
        assert_eq!(people(&mentions, &mentioned), [(User, 1), (Role, 2), (Here, 3)]);
        let many = Mentioned { online: Online::Many, ..mentioned.clone() };
        assert_eq!(people(&mentions, &many), [(User, 1), (Role, 2), (Here, 7)]);
        let everybody = Mentions { channel: true, ..mentions };
        assert_eq!(people(&everybody, &mentioned), [(User, 1), (Channel, 7)]);
    }
}
