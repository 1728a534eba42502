//! The event `sync`, which returns what a client missed while it was disconnected.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, Reservation};
use super::ctx::Ctx;
use super::registry::{Large, Registry, Request};
use super::timed::timed;
use crate::models::message_bookmark::Bookmark;
use crate::models::message_draft::Draft;
use crate::models::message_read_state::ReadState;
use crate::models::message_scheduled::Scheduled;
use crate::models::message_sync::{ChannelSync, Cursor, Limits, SYNC_LIMIT, TOTAL_LIMIT};
use crate::models::message_thread_member::ThreadMember;
use crate::models::user_stream::{self, USER_CHANGES_BYTES_MAX, UserChanges};
use crate::{ImksError, ImksResult};

const SYNC: Request<Sync, Synced> = Request::new("sync");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on_read(SYNC, sync);
}

/// The payload of `sync`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Sync {
    channels: Vec<Cursor>,
    /// The number of the newest change of the caller's own data that the client has; 0 for none.
    #[serde(default)]
    user_rev: Option<i64>,
    #[serde(default = "per_channel")]
    #[schemars(range(min = 1, max = SYNC_LIMIT))]
    limit_per_channel: usize,
    #[serde(default = "in_total")]
    #[schemars(range(min = 1, max = TOTAL_LIMIT))]
    total_limit: usize,
}

/// The answer to `sync`.
#[derive(Debug, Serialize, JsonSchema)]
struct Synced {
    channels: Vec<ChannelSync>,
    /// Channels that the user may not read, or no longer.
    removed_channels: Vec<Uuid>,
    user: UserSync,
    /// Whether some channels were not answered, so that the client has to request them again.
    more: bool,
}

/// The part that belongs to the user rather than to a channel.
#[derive(Debug, Serialize, JsonSchema)]
struct UserSync {
    rev: i64,
    read_states: Vec<ReadState>,
    /// Whether the client has to discard the drafts, bookmarks, threads and scheduled messages that it has.
    reset: bool,
    drafts: Vec<Draft>,
    bookmarks: Vec<Bookmark>,
    threads: Vec<ThreadMember>,
    scheduled: Vec<Scheduled>,
    /// Whether there are more of these four after `rev`.
    more: bool,
}

impl Large for Sync {
    /// Only one at a time: a slow client cannot request what is already being sent to it.
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::alone(self.own_bytes())
    }
}

async fn sync(ctx: Ctx, room: Reservation, request: Sync) -> ImksResult<Synced> {
    request.check()?;
    let ids: Vec<Uuid> = request.channels.iter().map(|cursor| cursor.channel_id).collect();
    let (readable, removed_channels) = ctx.readable_among(&ids).await?;
    let limits = Limits {
        per_channel: request.limit_per_channel,
        total: request.total_limit,
        bytes: room.answer_bytes().saturating_sub(request.own_bytes()),
    };
    // Read before everything that it numbers, so that the next `sync` brings what changes meanwhile.
    let changes = user_changes(&ctx, request.user_rev).await?;
    let (channels, more) = readable.sync(&room, &request.channels, limits).await?;
    let answered: Vec<Uuid> = channels.iter().map(|channel| channel.channel_id).collect();
    let read_states = readable.read_states(&answered).await?;
    let UserChanges { rev, reset, drafts, bookmarks, threads, scheduled, more: more_of_user } = changes;
    let user =
        UserSync { rev, read_states, reset, drafts, bookmarks, threads, scheduled, more: more_of_user };
    Ok(Synced { channels, removed_channels, user, more })
}

async fn user_changes(ctx: &Ctx, since: Option<i64>) -> ImksResult<UserChanges> {
    let own = ctx.own();
    match since {
        Some(since) => timed("user_changes", user_stream::changes(own.db(), own.user(), since)).await,
        None => {
            let rev = timed("user_changes", user_stream::last_rev(own.db(), own.user())).await?;
            Ok(UserChanges { rev, ..UserChanges::default() })
        }
    }
}

impl Sync {
    /// Returns the most bytes of the caller's own data in the answer.
    fn own_bytes(&self) -> usize {
        if self.user_rev.is_some() { USER_CHANGES_BYTES_MAX } else { 0 }
    }

    fn check(&self) -> ImksResult<()> {
        if self.channels.len() > CHANNELS_MAX {
            return Err(ImksError::invalid("channels", format!("has more than {CHANNELS_MAX} items")));
        }
        if self.user_rev.is_some_and(|rev| rev < 0) {
            return Err(ImksError::invalid("user_rev", "must not be negative"));
        }
        if !(1..=SYNC_LIMIT).contains(&self.limit_per_channel) {
            return Err(ImksError::invalid(
                "limit_per_channel",
                format!("must be between 1 and {SYNC_LIMIT}"),
            ));
        }
        if !(1..=TOTAL_LIMIT).contains(&self.total_limit) {
            return Err(ImksError::invalid("total_limit", format!("must be between 1 and {TOTAL_LIMIT}")));
        }
        let mut seen = HashSet::new();
        let wrong = |cursor: &Cursor| cursor.seq < 0 || cursor.rev < 0 || !seen.insert(cursor.channel_id);
        if self.channels.iter().any(wrong) {
            return Err(ImksError::invalid("channels", "has a negative number, or a channel twice"));
        }
        Ok(())
    }
}

fn per_channel() -> usize {
    SYNC_LIMIT
}

fn in_total() -> usize {
    TOTAL_LIMIT
}

/// The most channels in one request.
const CHANNELS_MAX: usize = 500;
