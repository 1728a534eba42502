//! The events of threads: `thread:follow`, `thread:unfollow`, `thread:list`, `thread:followed`, and `thread:state`
//! for the user's devices. Replies are messages with a `thread_id`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, COPIES, Reservation};
use super::ctx::Ctx;
use super::page::{PageSize, next_page};
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Large, Registry, Request};
use super::timed::timed;
use crate::ImksResult;
use crate::models::append::ChangeEvent;
use crate::models::message::MessageDetail;
use crate::models::message_thread;
use crate::models::message_thread::ThreadUpdate;
use crate::models::message_thread_member::{self, ThreadMember};
use crate::rate_limit::Rate;

/// Sent to the devices of a user when their position in a thread, or whether they follow it, has changed.
const STATE: Push<ThreadMember> = Push::new("thread:state");

const FOLLOW: Request<Target, ThreadMember> = Request::new("thread:follow");
const UNFOLLOW: Request<Target, ThreadMember> = Request::new("thread:unfollow");
const LIST: Request<List, Threads> = Request::new("thread:list");
const FOLLOWED: Request<Followed, FollowedThreads> = Request::new("thread:followed");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&STATE);
    events.sends(&Push::<ChangeEvent<ThreadUpdate>>::new("thread:updated"));
    let limit = events.rate_limit("thread:user", RATE);
    let limit_of_unfollow = limit.clone();
    events.on(FOLLOW, move |ctx, request| follow(ctx, request, true, limit.clone()));
    events.on(UNFOLLOW, move |ctx, request| follow(ctx, request, false, limit_of_unfollow.clone()));
    events.on_read(LIST, list).get("/channels/{channel_id}/threads");
    events.on_read(FOLLOWED, followed).get("/threads/followed");
}

/// The payload of `thread:follow` and `thread:unfollow`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Target {
    channel_id: Uuid,
    thread_id: Uuid,
}

async fn follow(
    ctx: Ctx,
    request: Target,
    following: bool,
    limit: RateLimit<Uuid>,
) -> ImksResult<ThreadMember> {
    limit.take(ctx.user())?;
    let channel = ctx.visible(request.channel_id).await?;
    let thread = request.thread_id;
    let changed = message_thread_member::follow(channel.db(), ctx.user(), channel.id(), thread, following);
    Ok(tell(&ctx, timed("thread_change", changed).await?))
}

/// Moves the caller's position in a thread forward, for `read:mark`.
pub(super) async fn mark(ctx: &Ctx, channel: Uuid, thread: Uuid, seq: i64) -> ImksResult<ThreadMember> {
    let channel = ctx.visible(channel).await?;
    let marked = message_thread_member::mark(channel.db(), ctx.user(), channel.id(), thread, seq);
    Ok(tell(ctx, timed("thread_change", marked).await?))
}

/// Tells the user's devices about a position that has changed, and returns it.
fn tell(ctx: &Ctx, (member, changed): (ThreadMember, bool)) -> ThreadMember {
    if changed {
        ctx.tell_user(&STATE, &member);
    }
    member
}

/// The payload of `thread:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    channel_id: Uuid,
    /// Only threads whose newest reply has a smaller `seq`.
    #[serde(default)]
    before: Option<i64>,
    #[serde(default)]
    limit: PageSize,
}

impl Large for List {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::of_messages(self.limit.rows())
    }
}

/// The answer to `thread:list`.
#[derive(Debug, Serialize, JsonSchema)]
struct Threads {
    /// The first messages of the threads, the thread with the newest reply first.
    threads: Vec<MessageDetail>,
    /// The `before` of the next page; null after the last one.
    next: Option<i64>,
}

async fn list(ctx: Ctx, room: Reservation, request: List) -> ImksResult<Threads> {
    let channel = ctx.readable(request.channel_id).await?;
    let before = request.before.unwrap_or(i64::MAX);
    let listed = message_thread::list(channel.db(), channel.id(), before, request.limit.get().into());
    let roots = timed("threads", listed).await?;
    let ids: Vec<Uuid> = roots.iter().map(|(root, _)| *root).collect();
    let (threads, covered) = channel.first_messages(&room, &ids).await?;
    let is_full = covered < roots.len() || roots.len() == request.limit.rows();
    let next = covered.checked_sub(1).and_then(|last| roots.get(last)).map(|(_, seq)| *seq);
    Ok(Threads { threads, next: next.filter(|_| is_full) })
}

/// The payload of `thread:followed`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Followed {
    #[serde(default)]
    before: Option<i64>,
    #[serde(default)]
    limit: PageSize,
    /// Whether to leave out threads without unread replies.
    #[serde(default)]
    unread: bool,
}

impl Large for Followed {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::up_to(self.limit.rows() * MEMBER_BYTES * COPIES)
    }
}

/// The answer to `thread:followed`.
#[derive(Debug, Serialize, JsonSchema)]
struct FollowedThreads {
    threads: Vec<ThreadMember>,
    /// The `before` of the next page; null after the last one.
    next: Option<i64>,
}

/// Needs no permission: positions are the caller's own. The replies come with `history`, which checks.
async fn followed(ctx: Ctx, _room: Reservation, request: Followed) -> ImksResult<FollowedThreads> {
    let (own, before) = (ctx.own(), request.before.unwrap_or(i64::MAX));
    let listed = message_thread_member::followed(
        own.db(),
        own.user(),
        before,
        request.limit.get().into(),
        request.unread,
    );
    let threads = timed("threads_followed", listed).await?;
    let next = next_page(&threads, request.limit.rows(), |thread| thread.user_rev);
    Ok(FollowedThreads { threads, next })
}

/// The most bytes of a position in a thread.
const MEMBER_BYTES: usize = 512;
/// The rate at which one user may follow and unfollow threads.
const RATE: Rate = Rate::new(2, 10);
