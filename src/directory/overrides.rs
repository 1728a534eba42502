//! Overrides: permissions that a channel gives to, or takes from, a role or a user.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::change::{Change, record};
use super::permission::VIEW_CHANNEL;
use super::role::{AFFECTED_LIMIT, AFFECTED_MAX};
use super::user::unknown;
use super::{Directory, shown};
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, on, transaction};

/// An override of a channel.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct ChannelOverride {
    /// The id of the channel.
    pub channel_id: Uuid,
    /// The id of the role or user that it is for.
    pub subject_id: Uuid,
    /// Whether it is for a role.
    pub is_role: bool,
    /// The name of the role or user.
    pub name: String,
    /// The permissions that it gives: a bit set, and their names in JSON.
    #[serde(rename = "allow", serialize_with = "shown::permissions")]
    #[schemars(schema_with = "shown::permission_list")]
    pub allow_bits: i64,
    /// The permissions that it takes: a bit set, and their names in JSON.
    #[serde(rename = "deny", serialize_with = "shown::permissions")]
    #[schemars(schema_with = "shown::permission_list")]
    pub deny_bits: i64,
}

/// The role or user that an override is for, by name or id.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Everybody with a role.
    Role(&'a str),
    /// One user.
    User(&'a str),
}

impl Directory {
    /// Returns the overrides of a channel.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn overrides(&self, channel: &str) -> ImksResult<Vec<ChannelOverride>> {
        let channel = self.channel_by_name(channel).await?.id;
        Ok(on!(read self.db(), pool => sqlx::query_as(ALL).bind(channel).fetch_all(pool).await?))
    }

    /// Sets the permissions that a channel gives to and takes from a role or a user. Replaces an earlier override
    /// of the same subject; one that gives and takes nothing is removed.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` if a permission is given and taken; `FailedPrecondition` in a direct
    /// conversation; `LimitReached`; `Database`.
    pub async fn set_override(
        &self,
        channel: &str,
        subject: Subject<'_>,
        allow: u64,
        deny: u64,
    ) -> ImksResult<()> {
        if allow & deny != 0 {
            return Err(ImksError::invalid("deny", "has a permission that is also in allow"));
        }
        let row = self.row(channel, subject, allow, deny).await?;
        if is_full(&self.overrides(channel).await?, row.subject_id) {
            return Err(ImksError::LimitReached("overrides_per_channel"));
        }
        let db = self.db().clone();
        self.settled(async move { store(&db, row, now_micros()).await }).await.map(drop)
    }

    /// Removes the override of a role or a user.
    ///
    /// # Errors
    /// `UnknownName` if there is none; `Database`.
    pub async fn remove_override(&self, channel: &str, subject: Subject<'_>) -> ImksResult<()> {
        let row = self.row(channel, subject, 0, 0).await?;
        let (db, name) = (self.db().clone(), row.name.clone());
        match self.settled(async move { store(&db, row, now_micros()).await }).await? {
            true => Ok(()),
            false => Err(unknown("override for", &name)),
        }
    }

    async fn row(
        &self,
        channel: &str,
        subject: Subject<'_>,
        allow: u64,
        deny: u64,
    ) -> ImksResult<ChannelOverride> {
        let channel = self.channel_by_name(channel).await?;
        let Some(workspace) = channel.workspace_id else {
            return Err(ImksError::FailedPrecondition(Precondition::DirectConversation));
        };
        let (subject_id, name) = match subject {
            Subject::User(name) => (self.user_by_name(name).await?.id, name),
            Subject::Role(name) => (self.role(&workspace.to_string(), name).await?.id, name),
        };
        Ok(ChannelOverride {
            channel_id: channel.id,
            subject_id,
            is_role: matches!(subject, Subject::Role(_)),
            name: name.to_owned(),
            allow_bits: allow.cast_signed(),
            deny_bits: deny.cast_signed(),
        })
    }
}

/// Whether a channel has no room for an override of this subject. One that it has already can be replaced.
fn is_full(overrides: &[ChannelOverride], subject: Uuid) -> bool {
    overrides.iter().filter(|other| other.subject_id != subject).count() >= OVERRIDES_MAX
}

/// Stores or removes an override. Returns whether there is or was one.
async fn store(db: &Db, row: ChannelOverride, now: Micros) -> ImksResult<bool> {
    let is_empty = row.allow_bits == 0 && row.deny_bits == 0;
    Ok(transaction!(db, tx => {
        if sqlx::query(super::member::LOCK_CHANNEL).bind(row.channel_id).execute(&mut *tx).await?.rows_affected() != 1 {
            Err(unknown("channel", &row.channel_id.to_string()))?;
        }
        let before: Option<(i64, i64)> =
            sqlx::query_as(ONE).bind(row.channel_id).bind(row.subject_id).fetch_optional(&mut *tx).await?;
        sqlx::query(DELETE).bind(row.channel_id).bind(row.subject_id).execute(&mut *tx).await?;
        if !is_empty {
            sqlx::query(INSERT)
                .bind(row.channel_id).bind(row.subject_id).bind(row.is_role).bind(row.allow_bits).bind(row.deny_bits)
                .execute(&mut *tx).await?;
        }
        let (allowed, denied) = before.unwrap_or_default();
        let mut changes = vec![Change::permissions(None, Some(row.channel_id))];
        if ((allowed ^ row.allow_bits) | (denied ^ row.deny_bits)) & VIEW_CHANNEL.cast_signed() != 0 {
            // Members who see the channel again have to learn it.
            let members: Vec<Uuid> = sqlx::query_scalar(MEMBERS)
                .bind(row.channel_id).bind(row.subject_id).bind(AFFECTED_LIMIT)
                .fetch_all(&mut *tx).await?;
            if members.len() <= AFFECTED_MAX {
                changes.extend(members.into_iter().map(|user| Change::joined(user, row.channel_id)));
            }
        }
        record!(tx, now, &changes);
        before.is_some() || !is_empty
    }))
}

/// The number of overrides in a channel.
const OVERRIDES_MAX: usize = 250;
const ALL: &str = "SELECT o.channel_id, o.subject_id, o.is_role, COALESCE(r.name, u.username, '') AS name, \
     o.allow_bits, o.deny_bits FROM directory_override o LEFT JOIN directory_role r ON r.id = o.subject_id \
     LEFT JOIN directory_user u ON u.id = o.subject_id WHERE o.channel_id = $1 ORDER BY o.is_role DESC, name";
const ONE: &str =
    "SELECT allow_bits, deny_bits FROM directory_override WHERE channel_id = $1 AND subject_id = $2";
const DELETE: &str = "DELETE FROM directory_override WHERE channel_id = $1 AND subject_id = $2";
const INSERT: &str = "INSERT INTO directory_override (channel_id, subject_id, is_role, allow_bits, deny_bits) \
     VALUES ($1, $2, $3, $4, $5)";
/// The members of a channel that a subject stands for: the user, or those who have the role there.
const MEMBERS: &str = "SELECT m.user_id FROM directory_member m JOIN directory_channel c ON c.id = m.channel_id \
     WHERE m.channel_id = $1 AND (m.user_id = $2 OR EXISTS (SELECT 1 FROM directory_member_role r \
     WHERE r.user_id = m.user_id AND r.role_id = $2 AND r.place_id IN (c.id, c.workspace_id))) LIMIT $3";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_full_channel_an_override_can_be_replaced_but_none_added() {
        let of = |subject: u128| ChannelOverride {
            channel_id: Uuid::nil(),
            subject_id: Uuid::from_u128(subject),
            is_role: false,
            name: String::new(),
            allow_bits: 1,
            deny_bits: 0,
        };
        let overrides: Vec<ChannelOverride> = (1..=250).map(of).collect();
        assert!(!is_full(&overrides, Uuid::from_u128(7)));
        assert!(is_full(&overrides, Uuid::from_u128(1_000)));
        assert!(!is_full(&overrides[1..], Uuid::from_u128(1_000)));
    }
}
