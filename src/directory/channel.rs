//! The channels of the directory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::change::{Change, record};
use super::user::{LIST_MAX, checked_name, unknown};
use super::{Directory, shown};
use crate::clock::{Micros, Timestamp, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, on, transaction};
use crate::pb::v1::channel::Kind as ChannelKind;

/// A channel of the directory.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct Channel {
    /// The id of the channel.
    pub id: Uuid,
    /// The workspace of the channel. A direct conversation has none.
    pub workspace_id: Option<Uuid>,
    /// The name, which is unique in the workspace.
    pub name: String,
    /// The kind: its number in core/v1/channel.proto, and its name in JSON.
    #[serde(serialize_with = "shown::channel_kind")]
    #[schemars(schema_with = "shown::channel_kinds")]
    pub kind: i64,
    /// Whether the channel is archived, so that it can no longer change.
    pub archived: bool,
    /// Whether only those who manage the channel may write.
    pub read_only: bool,
    /// The minimum number of seconds between two messages of one user; 0 means no minimum.
    pub slow_mode_s: i64,
    /// The number of days that messages are kept; 0 means without limit.
    pub retention_days: i64,
    /// The version of the channel, which increases with every change.
    pub version: i64,
    /// When the channel was created.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub created_at: Micros,
}

/// The kinds of channels that belong to a workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RoomKind {
    /// Open to all members of the workspace.
    #[default]
    Public,
    /// Visible to its members only.
    Private,
    /// Open to all members of the workspace, written by those who manage it.
    Announcement,
}

/// The properties of a new channel.
#[derive(Debug, Clone, Default)]
pub struct NewChannel {
    /// The name of the channel: `team` in the first workspace, or `acme/team`.
    pub name: String,
    /// Who sees the channel, and who writes in it.
    pub kind: RoomKind,
    /// Whether only those who manage the channel may write.
    pub read_only: bool,
    /// The minimum number of seconds between two messages of one user; 0 means no minimum.
    pub slow_mode_s: u32,
}

/// A change of a channel. `None` leaves a property as it is.
#[derive(Debug, Clone, Default)]
pub struct ChannelChange {
    /// The new name, without a workspace.
    pub name: Option<String>,
    /// Who sees the channel, and who writes in it.
    pub kind: Option<RoomKind>,
    /// Whether the channel is archived.
    pub archived: Option<bool>,
    /// Whether only those who manage the channel may write.
    pub read_only: Option<bool>,
    /// The minimum number of seconds between two messages of one user.
    pub slow_mode_s: Option<u32>,
    /// The number of days that messages are kept.
    pub retention_days: Option<u32>,
}

impl RoomKind {
    pub(super) fn number(self) -> i64 {
        let kind = match self {
            Self::Public => ChannelKind::Public,
            Self::Private => ChannelKind::Private,
            Self::Announcement => ChannelKind::Announcement,
        };
        i64::from(i32::from(kind))
    }
}

impl Channel {
    /// Whether the channel is a conversation of a fixed set of people.
    pub fn is_direct(&self) -> bool {
        self.workspace_id.is_none()
    }
}

impl ChannelChange {
    /// Checks the values, whatever channel they are for.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn check(&self) -> ImksResult<()> {
        NewValues::try_from(self.clone()).map(drop)
    }
}

/// The checked values of a change. What it leaves as it is, is `None`, so that of two changes at the same time
/// neither takes the other back.
struct NewValues {
    name: Option<String>,
    kind: Option<i64>,
    archived: Option<bool>,
    read_only: Option<bool>,
    slow_mode_s: Option<i64>,
    retention_days: Option<i64>,
}

impl TryFrom<ChannelChange> for NewValues {
    type Error = ImksError;

    fn try_from(change: ChannelChange) -> ImksResult<Self> {
        Ok(Self {
            name: change.name.map(|name| checked_name("channel", &name)).transpose()?,
            kind: change.kind.map(RoomKind::number),
            archived: change.archived,
            read_only: change.read_only,
            slow_mode_s: change.slow_mode_s.map(slow_mode).transpose()?,
            retention_days: change.retention_days.map(retention).transpose()?,
        })
    }
}

impl NewValues {
    fn are_those_of(&self, channel: &Channel) -> bool {
        self.name.as_ref().is_none_or(|name| *name == channel.name)
            && self.kind.is_none_or(|kind| kind == channel.kind)
            && self.archived.is_none_or(|archived| archived == channel.archived)
            && self.read_only.is_none_or(|read_only| read_only == channel.read_only)
            && self.slow_mode_s.is_none_or(|seconds| seconds == channel.slow_mode_s)
            && self.retention_days.is_none_or(|days| days == channel.retention_days)
    }
}

impl Directory {
    /// Creates a channel without members.
    ///
    /// # Errors
    /// `UnknownName` if there is no such workspace; `InvalidInput` if the name is not allowed; `Conflict` if it is
    /// taken; `Database`.
    pub async fn create_channel(&self, new: NewChannel) -> ImksResult<Channel> {
        let (workspace, name) = self.split(&new.name).await?;
        let channel = Channel {
            id: Uuid::now_v7(),
            workspace_id: Some(workspace),
            name: checked_name("channel", name)?,
            kind: new.kind.number(),
            archived: false,
            read_only: new.read_only,
            slow_mode_s: slow_mode(new.slow_mode_s)?,
            retention_days: 0,
            version: 1,
            created_at: now_micros(),
        };
        let (db, row) = (self.db().clone(), channel.clone());
        self.settled(async move { insert(&db, row).await }).await?;
        Ok(channel)
    }

    /// Returns the channel with this name or id, if there is one.
    ///
    /// # Errors
    /// `UnknownName` if there is no such workspace; `Database`.
    pub async fn channel_named(&self, name: &str) -> ImksResult<Option<Channel>> {
        if let Ok(id) = Uuid::parse_str(name)
            && let Some(channel) = self.channels_by_id(&[id]).await?.pop()
        {
            return Ok(Some(channel));
        }
        let (workspace, name) = self.split(name).await?;
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(BY_NAME).bind(workspace).bind(name).fetch_optional(pool).await?
        }))
    }

    /// Returns the channel with this name, and creates it if it is missing.
    ///
    /// # Errors
    /// The errors of [`Directory::create_channel`].
    pub async fn ensure_channel(&self, new: NewChannel) -> ImksResult<Channel> {
        if let Some(channel) = self.channel_named(&new.name).await? {
            return Ok(channel);
        }
        let name = new.name.clone();
        match self.create_channel(new).await {
            // Another process may have created the channel meanwhile.
            Err(error) => self.channel_named(&name).await?.ok_or(error),
            made => made,
        }
    }

    /// Returns all channels of a workspace, ordered by name, at most 10,000.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn channels(&self, workspace: &str) -> ImksResult<Vec<Channel>> {
        let workspace = self.workspace(workspace).await?.id;
        Ok(
            on!(read self.db(), pool => sqlx::query_as(ALL).bind(workspace).bind(LIST_MAX).fetch_all(pool).await?),
        )
    }

    /// Changes a channel, and returns it as it is then.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput`; `Conflict` if the new name is taken; `FailedPrecondition` for another name or
    /// kind of a direct conversation; `Database`.
    pub async fn set_channel(&self, name: &str, change: ChannelChange) -> ImksResult<Channel> {
        let old = self.channel_by_name(name).await?;
        if old.is_direct() && (change.name.is_some() || change.kind.is_some()) {
            return Err(ImksError::FailedPrecondition(Precondition::DirectConversation));
        }
        let new = NewValues::try_from(change)?;
        if new.are_those_of(&old) {
            return Ok(old);
        }
        let (db, id) = (self.db().clone(), old.id);
        self.settled(async move { update(&db, id, new, now_micros()).await }).await
    }

    /// Sets whether a channel is archived and read-only. `None` leaves a state unchanged.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn set_channel_state(
        &self,
        name: &str,
        archived: Option<bool>,
        read_only: Option<bool>,
    ) -> ImksResult<()> {
        let change = ChannelChange { archived, read_only, ..ChannelChange::default() };
        self.set_channel(name, change).await.map(drop)
    }

    /// Removes a channel with its members, overrides and bans. Its messages stay in the database, and nobody can
    /// reach them.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn remove_channel(&self, name: &str) -> ImksResult<()> {
        let (db, id) = (self.db().clone(), self.channel_by_name(name).await?.id);
        self.settled(async move { remove(&db, id, now_micros()).await }).await
    }

    pub(super) async fn channels_by_id(&self, ids: &[Uuid]) -> ImksResult<Vec<Channel>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        Ok(on!(read self.db(), pool => {
            let mut query = QueryBuilder::new(BY_IDS);
            let mut list = query.separated(", ");
            ids.iter().for_each(|id| { list.push_bind(*id); });
            query.push(")");
            query.build_query_as().fetch_all(pool).await?
        }))
    }
}

/// Whether all members of the workspace may see a channel of this kind.
pub(super) fn is_open(kind: i64) -> bool {
    kind == RoomKind::Public.number() || kind == RoomKind::Announcement.number()
}

fn slow_mode(seconds: u32) -> ImksResult<i64> {
    if seconds > SLOW_MODE_S_MAX {
        return Err(ImksError::invalid(
            "slow_mode_s",
            format!("{seconds} is more than {SLOW_MODE_S_MAX} seconds"),
        ));
    }
    Ok(i64::from(seconds))
}

fn retention(days: u32) -> ImksResult<i64> {
    if days > RETENTION_DAYS_MAX {
        return Err(ImksError::invalid("retention_days", format!("must be at most {RETENTION_DAYS_MAX}")));
    }
    Ok(i64::from(days))
}

async fn insert(db: &Db, channel: Channel) -> ImksResult<()> {
    let workspace = channel.workspace_id.unwrap_or_default();
    let done = transaction!(db, tx => {
        let exists = sqlx::query(super::workspace::LOCK).bind(workspace).execute(&mut *tx).await?.rows_affected();
        if exists != 1 {
            Err(unknown("workspace", &workspace.to_string()))?;
        }
        let done = sqlx::query(INSERT)
            .bind(channel.id)
            .bind(channel.workspace_id)
            .bind(&channel.name)
            .bind(channel.kind)
            .bind(channel.read_only)
            .bind(channel.slow_mode_s)
            .bind(channel.created_at)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if done == 1 {
            record!(tx, channel.created_at, &[Change::channel(channel.id)]);
        }
        done
    });
    if done == 1 { Ok(()) } else { Err(ImksError::Conflict { what: "channel", name: channel.name }) }
}

async fn update(db: &Db, id: Uuid, new: NewValues, now: Micros) -> ImksResult<Channel> {
    let channel: Option<Channel> = transaction!(db, tx => {
        let channel: Option<Channel> = sqlx::query_as(UPDATE)
            .bind(id)
            .bind(new.name.as_deref())
            .bind(new.kind)
            .bind(new.archived)
            .bind(new.read_only)
            .bind(new.slow_mode_s)
            .bind(new.retention_days)
            .fetch_optional(&mut *tx)
            .await?;
        if channel.is_some() {
            record!(tx, now, &[Change::channel(id)]);
        }
        channel
    });
    channel.ok_or_else(|| match new.name {
        Some(name) => ImksError::Conflict { what: "channel", name },
        None => unknown("channel", &id.to_string()),
    })
}

async fn remove(db: &Db, channel: Uuid, now: Micros) -> ImksResult<()> {
    transaction!(db, tx => {
        for sql in DELETE {
            sqlx::query(sql).bind(channel).execute(&mut *tx).await?;
        }
        record!(tx, now, &[Change::channel(channel)]);
    });
    Ok(())
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, workspace_id, name, kind, archived, read_only, slow_mode_s, retention_days, version, ",
            "created_at FROM directory_channel ",
            $rest
        )
    };
}

/// The longest slow mode, in seconds.
const SLOW_MODE_S_MAX: u32 = 21_600;
/// The longest time that the messages of a channel are kept, in days; 0 days are for ever.
const RETENTION_DAYS_MAX: u32 = 36_500;
const INSERT: &str = "INSERT INTO directory_channel \
     (id, workspace_id, name, kind, read_only, slow_mode_s, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
const BY_NAME: &str = select!("WHERE workspace_id = $1 AND name = $2");
const BY_IDS: &str = select!("WHERE id IN (");
const ALL: &str = select!("WHERE workspace_id = $1 ORDER BY name LIMIT $2");
const UPDATE: &str = "UPDATE directory_channel SET name = COALESCE($2, name), kind = COALESCE($3, kind), \
     archived = COALESCE($4, archived), read_only = COALESCE($5, read_only), \
     slow_mode_s = COALESCE($6, slow_mode_s), retention_days = COALESCE($7, retention_days), \
     version = version + 1 \
     WHERE id = $1 AND (workspace_id IS NULL OR NOT EXISTS (SELECT 1 FROM directory_channel other \
     WHERE other.workspace_id = directory_channel.workspace_id AND other.name = $2 AND other.id <> $1)) \
     RETURNING id, workspace_id, name, kind, archived, read_only, slow_mode_s, retention_days, version, created_at";
/// The row of the channel first: it is what others lock to add to the channel.
const DELETE: [&str; 6] = [
    "DELETE FROM directory_channel WHERE id = $1",
    "DELETE FROM directory_member WHERE channel_id = $1",
    "DELETE FROM directory_member_role WHERE place_id = $1",
    "DELETE FROM directory_override WHERE channel_id = $1",
    "DELETE FROM directory_ban WHERE place_id = $1",
    "DELETE FROM directory_webhook WHERE channel_id = $1",
];
