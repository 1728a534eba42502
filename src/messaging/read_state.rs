//! The events `read:mark`, `read:mark_unread` and `read:mark_all`, which move a user's read positions on all
//! their devices.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ctx::Ctx;
use super::input::BoundedList;
use super::push::Push;
use super::registry::{Registry, Request};
use super::timed::timed;
use super::{receipt, thread};
use crate::models::message::MessageDetail;
use crate::models::message_read_state::{self, ReadState};
use crate::models::message_thread_member::ThreadMember;
use crate::{ImksError, ImksResult};

/// Sent to the devices of the user with the new position.
const UPDATED: Push<ReadUpdated> = Push::new("read:updated");

/// Sent to the devices of the user with many new positions.
const UPDATED_MANY: Push<ManyReadUpdated> = Push::new("read:updated_many");

const MARK: Request<Mark, Marked> = Request::new("read:mark");
const MARK_UNREAD: Request<MarkUnread, Marked> = Request::new("read:mark_unread");
const MARK_ALL: Request<MarkAll, AllMarked> = Request::new("read:mark_all");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&UPDATED);
    events.sends(&UPDATED_MANY);
    events.on(MARK, mark);
    events.on(MARK_UNREAD, mark_unread);
    events.on(MARK_ALL, mark_all);
}

/// The payload of `read:mark`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Mark {
    channel_id: Uuid,
    seq: i64,
    #[serde(default)]
    thread_id: Option<Uuid>,
}

/// The answer to `read:mark`.
#[derive(Debug, Serialize, JsonSchema)]
struct Marked {
    read_seq: i64,
    unread_count: i64,
    mention_count: i64,
}

/// The payload of `read:updated`.
#[derive(Debug, Serialize, JsonSchema)]
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
    if let Some(thread) = request.thread_id {
        let state = thread::mark(&ctx, request.channel_id, thread, request.seq).await?;
        let ThreadMember { read_seq, unread_count, mention_count, .. } = state;
        return Ok(Marked { read_seq, unread_count, mention_count });
    }
    let channel = ctx.visible(request.channel_id).await?;
    let (state, moved) = channel.mark_read(request.seq).await?;
    if moved {
        receipt::tell(&ctx, channel.id(), state.read_seq).await;
    }
    Ok(tell(&ctx, state))
}

/// Tells the user's devices about a new position, and returns the answer.
fn tell(ctx: &Ctx, state: ReadState) -> Marked {
    let ReadState { channel_id, read_seq, unread_count, mention_count, user_rev } = state;
    let thread_id = None;
    let update = ReadUpdated { channel_id, thread_id, read_seq, unread_count, mention_count, user_rev };
    ctx.tell_user(&UPDATED, &update);
    Marked { read_seq, unread_count, mention_count }
}

/// Tells the sender's other devices that sending has marked the channel as read up to the new message.
pub(super) fn tell_read_by_sending(ctx: &Ctx, message: &MessageDetail) {
    ctx.tell_other_devices(&UPDATED, || ReadUpdated {
        channel_id: message.channel_id,
        thread_id: None,
        read_seq: message.seq,
        unread_count: 0,
        mention_count: 0,
        user_rev: 0,
    });
}

/// The payload of `read:mark_unread`.
#[derive(Debug, Deserialize, JsonSchema)]
struct MarkUnread {
    channel_id: Uuid,
    from_seq: i64,
}

async fn mark_unread(ctx: Ctx, request: MarkUnread) -> ImksResult<Marked> {
    if request.from_seq < 1 {
        return Err(ImksError::invalid("from_seq", "must be at least 1"));
    }
    let channel = ctx.visible(request.channel_id).await?;
    let marked = message_read_state::mark_unread(channel.db(), ctx.user(), channel.id(), request.from_seq);
    let state = timed("read_mark", marked).await?;
    Ok(tell(&ctx, state))
}

/// The payload of `read:mark_all`.
#[derive(Debug, Deserialize, JsonSchema)]
struct MarkAll {
    /// The channels; all of the caller's if absent.
    #[serde(default)]
    channel_ids: Option<BoundedList<Uuid, CHANNELS_MAX>>,
}

/// The answer to `read:mark_all`.
#[derive(Debug, Serialize, JsonSchema)]
struct AllMarked {
    /// The number of channels whose position moved.
    updated: usize,
}

/// The payload of `read:updated_many`.
#[derive(Debug, Serialize, JsonSchema)]
struct ManyReadUpdated {
    read_states: Vec<ReadState>,
}

/// Needs no permission: only the caller's own positions move, and nothing is told but their numbers.
async fn mark_all(ctx: Ctx, request: MarkAll) -> ImksResult<AllMarked> {
    let mine = ctx.channels().await?;
    let channels: Vec<Uuid> = match request.channel_ids {
        None => mine,
        Some(wanted) => {
            let mine: HashSet<Uuid> = mine.into_iter().collect();
            wanted.0.into_iter().filter(|channel| mine.contains(channel)).collect()
        }
    };
    let own = ctx.own();
    let states = timed("read_mark", message_read_state::mark_all(own.db(), own.user(), &channels)).await?;
    for read_states in states.chunks(STATES_PER_EVENT) {
        ctx.tell_user(&UPDATED_MANY, &ManyReadUpdated { read_states: read_states.to_vec() });
    }
    Ok(AllMarked { updated: states.len() })
}

/// The most channels in one `read:mark_all`.
const CHANNELS_MAX: usize = 500;
/// The positions in one `read:updated_many`.
const STATES_PER_EVENT: usize = 500;
