//! The channels of the directory.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::Directory;
use super::change::{Kind, record};
use super::user::{LIST_MAX, checked_name, unknown};
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult};
use crate::models::db::{Db, on, transaction};
use crate::pb::v1::channel::Kind as ChannelKind;

/// A channel of the directory.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Channel {
    /// The id of the channel.
    pub id: Uuid,
    /// The name, which is unique.
    pub name: String,
    /// The number of the kind in core/v1/channel.proto.
    pub kind: i64,
    /// Whether the channel is archived, so that it can no longer change.
    pub archived: bool,
    /// Whether only owners may write.
    pub read_only: bool,
    /// The minimum number of seconds between two messages of one user; 0 means no minimum.
    pub slow_mode_s: i64,
    /// The number of days that messages are kept; 0 means without limit.
    pub retention_days: i64,
    /// The version of the channel, which increases with every change.
    pub version: i64,
    /// When the channel was created.
    pub created_at: Micros,
}

/// The properties of a new channel.
#[derive(Debug, Clone, Default)]
pub struct NewChannel {
    /// The name of the channel.
    pub name: String,
    /// Whether the channel is visible to its members only.
    pub private: bool,
    /// Whether only owners may write.
    pub read_only: bool,
    /// The minimum number of seconds between two messages of one user; 0 means no minimum.
    pub slow_mode_s: u32,
}

impl Directory {
    /// Creates a channel without members.
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed; `Conflict` if it is taken; `Database`.
    pub async fn create_channel(&self, new: NewChannel) -> ImksResult<Channel> {
        let kind = if new.private { ChannelKind::Private } else { ChannelKind::Public };
        let channel = Channel {
            id: Uuid::now_v7(),
            name: checked_name("channel", &new.name)?,
            kind: i64::from(i32::from(kind)),
            archived: false,
            read_only: new.read_only,
            slow_mode_s: new.slow_mode_s.into(),
            retention_days: 0,
            version: 1,
            created_at: now_micros(),
        };
        let (db, row) = (self.db().clone(), channel.clone());
        self.settled(async move { insert(&db, row).await }).await?;
        Ok(channel)
    }

    /// Returns the channel with this name, if there is one.
    ///
    /// # Errors
    /// `Database`.
    pub async fn channel_named(&self, name: &str) -> ImksResult<Option<Channel>> {
        Ok(on!(read self.db(), pool => sqlx::query_as(BY_NAME).bind(name).fetch_optional(pool).await?))
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

    /// Returns all channels, ordered by name, at most 10,000.
    ///
    /// # Errors
    /// `Database`.
    pub async fn channels(&self) -> ImksResult<Vec<Channel>> {
        Ok(on!(read self.db(), pool => sqlx::query_as(ALL).bind(LIST_MAX).fetch_all(pool).await?))
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
        let channel = self.channel_named(name).await?.ok_or_else(|| unknown("channel", name))?;
        let archived = archived.unwrap_or(channel.archived);
        let read_only = read_only.unwrap_or(channel.read_only);
        let (db, id) = (self.db().clone(), channel.id);
        self.settled(async move { set_state(&db, id, archived, read_only, now_micros()).await }).await
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

async fn insert(db: &Db, channel: Channel) -> ImksResult<()> {
    let done = transaction!(db, tx => {
        let done = sqlx::query(INSERT)
            .bind(channel.id)
            .bind(&channel.name)
            .bind(channel.kind)
            .bind(channel.read_only)
            .bind(channel.slow_mode_s)
            .bind(channel.created_at)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if done == 1 {
            let at = channel.created_at;
            record!(tx, Kind::Channel, user: None, channel: Some(channel.id), session: None, at: at);
        }
        done
    });
    if done == 1 { Ok(()) } else { Err(ImksError::Conflict { what: "channel", name: channel.name }) }
}

async fn set_state(db: &Db, id: Uuid, archived: bool, read_only: bool, now: Micros) -> ImksResult<()> {
    transaction!(db, tx => {
        sqlx::query(SET_STATE).bind(id).bind(archived).bind(read_only).execute(&mut *tx).await?;
        record!(tx, Kind::Channel, user: None, channel: Some(id), session: None, at: now);
    });
    Ok(())
}

const INSERT: &str = "INSERT INTO directory_channel (id, name, kind, read_only, slow_mode_s, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
const BY_NAME: &str = "SELECT id, name, kind, archived, read_only, slow_mode_s, retention_days, version, created_at \
     FROM directory_channel WHERE name = $1";
const BY_IDS: &str = "SELECT id, name, kind, archived, read_only, slow_mode_s, retention_days, version, created_at \
     FROM directory_channel WHERE id IN (";
const ALL: &str = "SELECT id, name, kind, archived, read_only, slow_mode_s, retention_days, version, created_at \
     FROM directory_channel ORDER BY name LIMIT $1";
const SET_STATE: &str =
    "UPDATE directory_channel SET archived = $2, read_only = $3, version = version + 1 WHERE id = $1";
