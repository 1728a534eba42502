//! `sync`: what a client missed while it was away.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ctx::{Ctx, timed};
use super::registry::Registry;
use crate::auth::Permission;
use crate::models::message_read_state::{ReadState, unread};
use crate::models::message_sync::{self, ChannelSync, Cursor, SYNC_LIMIT};
use crate::{ImksError, ImksResult};

/// The events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on("sync", sync);
}

/// Payload of `sync`.
#[derive(Debug, Deserialize)]
struct Sync {
    channels: Vec<Cursor>,
    #[serde(default = "per_channel")]
    limit_per_channel: i64,
    #[serde(default = "in_total")]
    total_limit: usize,
}

/// Answer to `sync`.
#[derive(Debug, Serialize)]
struct Synced {
    channels: Vec<ChannelSync>,
    /// Channels that the user may not read (any more).
    removed_channels: Vec<Uuid>,
    user: UserSync,
    /// Not all channels were answered: ask again for those that are missing.
    more: bool,
}

/// What belongs to the user alone.
#[derive(Debug, Serialize)]
struct UserSync {
    rev: i64,
    read_states: Vec<ReadState>,
    drafts: [(); 0],
    bookmarks: [(); 0],
}

async fn sync(ctx: Ctx, request: Sync) -> ImksResult<Synced> {
    request.check()?;
    let ids: Vec<Uuid> = request.channels.iter().map(|cursor| cursor.channel_id).collect();
    ctx.messaging().permissions().warm(ctx.user(), &ids).await?;
    let (allowed, removed_channels) = split(&ctx, request.channels).await?;
    let (channels, more) = answer(&ctx, &allowed, request.limit_per_channel, request.total_limit).await?;
    let answered: Vec<Uuid> = channels.iter().map(|channel| channel.channel_id).collect();
    let read_states = timed("unread", unread(ctx.messaging().db(), ctx.user(), &answered)).await?;
    let rev = read_states.iter().map(|state| state.user_rev).max().unwrap_or(0);
    let user = UserSync { rev, read_states, drafts: [], bookmarks: [] };
    Ok(Synced { channels, removed_channels, user, more })
}

/// Cursors of channels that may be read, and the other channels.
async fn split(ctx: &Ctx, cursors: Vec<Cursor>) -> ImksResult<(Vec<Cursor>, Vec<Uuid>)> {
    let (mut allowed, mut removed) = (Vec::with_capacity(cursors.len()), Vec::new());
    for cursor in cursors {
        match ctx.channel(cursor.channel_id, Permission::ReadHistory).await {
            Ok(_) => allowed.push(cursor),
            Err(ImksError::NotFound(_) | ImksError::Forbidden(_)) => removed.push(cursor.channel_id),
            Err(error) => return Err(error),
        }
    }
    Ok((allowed, removed))
}

/// Channel by channel in small groups, until the limit of the whole answer is reached.
async fn answer(
    ctx: &Ctx,
    cursors: &[Cursor],
    per_channel: i64,
    in_total: usize,
) -> ImksResult<(Vec<ChannelSync>, bool)> {
    let (mut channels, mut items) = (Vec::with_capacity(cursors.len()), 0);
    for group in cursors.chunks(GROUP) {
        if items >= in_total {
            return Ok((channels, true));
        }
        let answers = timed("sync", message_sync::sync(ctx.messaging().db(), group, per_channel)).await?;
        items += answers.iter().map(|answer| answer.messages.len() + answer.changes.len()).sum::<usize>();
        channels.extend(answers);
    }
    Ok((channels, false))
}

impl Sync {
    fn check(&self) -> ImksResult<()> {
        if self.channels.len() > CHANNELS_MAX {
            return Err(ImksError::invalid("channels", format!("has more than {CHANNELS_MAX} items")));
        }
        if !(1..=SYNC_LIMIT).contains(&self.limit_per_channel) {
            return Err(ImksError::invalid(
                "limit_per_channel",
                format!("must be between 1 and {SYNC_LIMIT}"),
            ));
        }
        if !(1..=TOTAL_MAX).contains(&self.total_limit) {
            return Err(ImksError::invalid("total_limit", format!("must be between 1 and {TOTAL_MAX}")));
        }
        let mut seen = HashSet::new();
        let wrong = |cursor: &Cursor| cursor.seq < 0 || cursor.rev < 0 || !seen.insert(cursor.channel_id);
        if self.channels.iter().any(wrong) {
            return Err(ImksError::invalid("channels", "has a negative number, or a channel twice"));
        }
        Ok(())
    }
}

fn per_channel() -> i64 {
    SYNC_LIMIT
}

fn in_total() -> usize {
    TOTAL_MAX
}

/// Channels in one call.
const CHANNELS_MAX: usize = 500;
/// Messages and changes in one answer; the group in which it is reached is still answered whole.
const TOTAL_MAX: usize = 2_000;
/// Channels between two looks at the total.
const GROUP: usize = 10;
