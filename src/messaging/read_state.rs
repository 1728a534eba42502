//! The event `read:mark`, which moves a user's read position on all their devices.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ctx::Ctx;
use super::push::Push;
use super::registry::{Registry, Request};
use crate::models::message_read_state::ReadState;
use crate::{ImksError, ImksResult};

/// Sent to the devices of the user with the new position.
const UPDATED: Push<ReadUpdated> = Push::new("read:updated");

const MARK: Request<Mark, Marked> = Request::new("read:mark");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on(MARK, mark);
}

/// The payload of `read:mark`.
#[derive(Debug, Deserialize)]
struct Mark {
    channel_id: Uuid,
    seq: i64,
    #[serde(default)]
    thread_id: Option<Uuid>,
}

/// The answer to `read:mark`.
#[derive(Debug, Serialize)]
struct Marked {
    read_seq: i64,
    unread_count: i64,
    mention_count: i64,
}

/// The payload of `read:updated`.
#[derive(Debug, Serialize)]
struct ReadUpdated {
    channel_id: Uuid,
    thread_id: Option<Uuid>,
    read_seq: i64,
    unread_count: i64,
    mention_count: i64,
    user_rev: i64,
}

async fn mark(ctx: Ctx, request: Mark) -> ImksResult<Marked> {
    if request.seq < 0 {
        return Err(ImksError::invalid("seq", "must not be negative"));
    }
    if request.thread_id.is_some() {
        return Err(ImksError::invalid("thread_id", "is not supported by this version"));
    }
    let channel = ctx.visible(request.channel_id).await?;
    let state = channel.mark_read(request.seq).await?;
    let ReadState { read_seq, unread_count, mention_count, user_rev, .. } = state;
    let (channel_id, thread_id) = (channel.id(), None);
    let update = ReadUpdated { channel_id, thread_id, read_seq, unread_count, mention_count, user_rev };
    ctx.tell_user(&UPDATED, &update);
    Ok(Marked { read_seq, unread_count, mention_count })
}
