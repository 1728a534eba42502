//! Direct conversations: channels of a fixed set of people, at most one for each set. The id of the channel is
//! computed from the ids of the people, so that two callers at the same time make the same one.

use uuid::Uuid;

use super::change::{Change, record};
use super::member::{GIVE_ROLE, JOIN};
use super::role::MEMBER;
use super::user::{LOCK_USER, unknown};
use super::visitor::is_visitor;
use super::{Channel, Directory, User};
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, transaction};
use crate::pb::v1::channel::Kind as ChannelKind;

impl Directory {
    /// Returns the direct conversation of exactly these users, by name or id, and creates it if it is missing: a
    /// `dm` of two, a `group_dm` of more.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` for fewer than two or more than 20 users; `Database`.
    pub async fn direct(&self, usernames: &[String]) -> ImksResult<Channel> {
        let mut users = Vec::with_capacity(usernames.len());
        for name in usernames.iter().take(PEOPLE_MAX + 1) {
            users.push(self.user_by_name(name).await?);
        }
        users.sort_by_key(|user| user.id);
        users.dedup_by_key(|user| user.id);
        if users.len() < 2 || users.len() > PEOPLE_MAX {
            return Err(ImksError::invalid("users", format!("needs 2 to {PEOPLE_MAX} different users")));
        }
        if users.iter().any(|user| is_visitor(user.id)) {
            return Err(ImksError::FailedPrecondition(Precondition::Playground));
        }
        let (db, channel) = (self.db().clone(), conversation(&users, now_micros()));
        let id = channel.id;
        if self.channels_by_id(&[id]).await?.is_empty() {
            self.settled(async move { insert(&db, channel, users, now_micros()).await }).await?;
        }
        self.channels_by_id(&[id]).await?.pop().ok_or_else(|| unknown("channel", &id.to_string()))
    }
}

/// Returns the channel of users that are sorted by id.
fn conversation(users: &[User], now: Micros) -> Channel {
    let ids: Vec<u8> = users.iter().flat_map(|user| *user.id.as_bytes()).collect();
    let names: Vec<&str> = users.iter().map(|user| user.username.as_str()).collect();
    let kind = if users.len() == 2 { ChannelKind::Dm } else { ChannelKind::GroupDm };
    Channel {
        id: Uuid::new_v5(&NAMESPACE, &ids),
        workspace_id: None,
        name: names.join(", "),
        kind: i64::from(i32::from(kind)),
        archived: false,
        read_only: false,
        slow_mode_s: 0,
        retention_days: 0,
        version: 1,
        created_at: now,
    }
}

async fn insert(db: &Db, channel: Channel, users: Vec<User>, now: Micros) -> ImksResult<()> {
    transaction!(db, tx => {
        for user in &users {
            if sqlx::query(LOCK_USER).bind(user.id).execute(&mut *tx).await?.rows_affected() != 1 {
                Err(unknown("user", &user.username))?;
            }
        }
        let is_new = sqlx::query(INSERT)
            .bind(channel.id).bind(&channel.name).bind(channel.kind).bind(now)
            .execute(&mut *tx).await?.rows_affected() == 1;
        if is_new {
            let mut changes = vec![Change::channel(channel.id)];
            for user in &users {
                sqlx::query(JOIN).bind(channel.id).bind(user.id).bind(now).execute(&mut *tx).await?;
                sqlx::query(GIVE_ROLE).bind(user.id).bind(channel.id).bind(MEMBER).execute(&mut *tx).await?;
                changes.push(Change::joined(user.id, channel.id));
            }
            record!(tx, now, &changes);
        }
    });
    Ok(())
}

/// The number of people in a direct conversation.
const PEOPLE_MAX: usize = 20;
/// The namespace of the ids of direct conversations. It never changes: other ids would be other conversations.
const NAMESPACE: Uuid = Uuid::from_u128(0x7d1b_7a3e_52c4_4d0f_9a86_0f3b_1c5e_8a42);
const INSERT: &str = "INSERT INTO directory_channel (id, name, kind, created_at) VALUES ($1, $2, $3, $4) \
     ON CONFLICT DO NOTHING";
