//! The events of bookmarks: `bookmark:add`, `bookmark:update`, `bookmark:remove`, `bookmark:list`, and
//! `bookmark:updated` for the user's devices, also when a reminder is due.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::budget::{AnswerSize, COPIES, Reservation};
use super::ctx::Ctx;
use super::page::{PageSize, next_page};
use super::parts::Messaging;
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Large, Registry, Request};
use super::ticks;
use super::timed::timed;
use crate::clock::{self, Micros, Timestamp};
use crate::models::message_bookmark::{
    self, BOOKMARKS_MAX, Bookmark, BookmarkChange, NOTE_CHARS_MAX, Note, REMINDERS_AT_ONCE,
};
use crate::rate_limit::Rate;
use crate::socket::Namespace;
use crate::{ImksError, ImksResult};

/// Sent to the devices of the user when a bookmark was changed or its reminder is due.
const UPDATED: Push<Bookmark> = Push::new("bookmark:updated");

const ADD: Request<Change, Answer> = Request::new("bookmark:add");
const UPDATE: Request<Change, Answer> = Request::new("bookmark:update");
const REMOVE: Request<Remove, Removed> = Request::new("bookmark:remove");
const LIST: Request<List, Bookmarks> = Request::new("bookmark:list");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&UPDATED);
    events.advertise("bookmarks", BOOKMARKS_MAX);
    let limit = events.rate_limit("bookmark:user", RATE);
    let (limit_of_update, limit_of_remove) = (limit.clone(), limit.clone());
    events.on(ADD, move |ctx, request| add(ctx, request, limit.clone())).put("/bookmarks/{message_id}");
    events.on(UPDATE, move |ctx, request| update(ctx, request, limit_of_update.clone()));
    events
        .on(REMOVE, move |ctx, request| remove(ctx, request, limit_of_remove.clone()))
        .delete("/bookmarks/{message_id}");
    events.on_read(LIST, list).get("/bookmarks");
}

/// The payload of `bookmark:add` and `bookmark:update`. An absent field keeps what is stored, null removes it.
#[derive(Debug, Deserialize, JsonSchema)]
struct Change {
    channel_id: Uuid,
    message_id: Uuid,
    #[serde(default, deserialize_with = "present")]
    note: Option<Option<Note>>,
    #[serde(default, deserialize_with = "present")]
    remind_at: Option<Option<Timestamp>>,
}

/// Distinguishes null from an absent field.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The answer to `bookmark:add` and `bookmark:update`.
#[derive(Debug, Serialize, JsonSchema)]
struct Answer {
    bookmark: Bookmark,
}

impl Change {
    fn checked(self, now: Micros) -> ImksResult<BookmarkChange> {
        if let Some(Some(Timestamp(at))) = self.remind_at
            && !(now..=now + REMINDER_AHEAD_MAX).contains(&at)
        {
            return Err(ImksError::invalid("remind_at", "must be in the future, and within a year"));
        }
        Ok(BookmarkChange { note: self.note, remind_at: self.remind_at.map(|at| at.map(|at| at.0)) })
    }
}

async fn add(ctx: Ctx, request: Change, limit: RateLimit<Uuid>) -> ImksResult<Answer> {
    limit.take(ctx.user())?;
    let (channel, message) = (ctx.visible(request.channel_id).await?, request.message_id);
    let change = request.checked(clock::now_micros())?;
    let added = message_bookmark::add(channel.db(), ctx.user(), channel.id(), message, change);
    let added = timed("bookmark_change", added).await?;
    Ok(tell(&ctx, added))
}

async fn update(ctx: Ctx, request: Change, limit: RateLimit<Uuid>) -> ImksResult<Answer> {
    limit.take(ctx.user())?;
    let (own, channel, message) = (ctx.own(), request.channel_id, request.message_id);
    let change = request.checked(clock::now_micros())?;
    let updated = message_bookmark::update(own.db(), own.user(), channel, message, change);
    let updated = timed("bookmark_change", updated).await?;
    Ok(tell(&ctx, updated))
}

/// Tells the user's devices about a bookmark that has changed, and returns the answer.
fn tell(ctx: &Ctx, (bookmark, changed): (Bookmark, bool)) -> Answer {
    if changed {
        ctx.tell_user(&UPDATED, &bookmark);
    }
    Answer { bookmark }
}

/// The payload of `bookmark:remove`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Remove {
    message_id: Uuid,
}

/// The answer to `bookmark:remove`.
#[derive(Debug, Serialize, JsonSchema)]
struct Removed {
    message_id: Uuid,
    removed: bool,
}

/// Needs no permission: what one saved oneself can be removed after leaving the channel.
async fn remove(ctx: Ctx, request: Remove, limit: RateLimit<Uuid>) -> ImksResult<Removed> {
    limit.take(ctx.user())?;
    let (own, message_id) = (ctx.own(), request.message_id);
    let removal = message_bookmark::remove(own.db(), own.user(), message_id);
    if let Some(bookmark) = timed("bookmark_change", removal).await? {
        ctx.tell_user(&UPDATED, &bookmark);
    }
    Ok(Removed { message_id, removed: true })
}

/// The payload of `bookmark:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    #[serde(default)]
    before: Option<i64>,
    #[serde(default)]
    limit: PageSize,
}

impl Large for List {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::up_to(self.limit.rows() * BOOKMARK_BYTES * COPIES)
    }
}

/// The answer to `bookmark:list`: bookmarks, the last changed first.
#[derive(Debug, Serialize, JsonSchema)]
struct Bookmarks {
    bookmarks: Vec<Bookmark>,
    /// The `before` of the next page; null after the last one.
    next: Option<i64>,
}

async fn list(ctx: Ctx, _room: Reservation, request: List) -> ImksResult<Bookmarks> {
    let (own, before) = (ctx.own(), request.before.unwrap_or(i64::MAX));
    let listed = message_bookmark::list(own.db(), own.user(), before, request.limit.get().into());
    let bookmarks = timed("bookmark_list", listed).await?;
    let next = next_page(&bookmarks, request.limit.rows(), |bookmark| bookmark.user_rev);
    Ok(Bookmarks { bookmarks, next })
}

/// Sends reminders when they are due, until `stop`. Each is sent by one node, and kept in the user's stream for
/// devices that are away.
pub(super) async fn remind(messaging: Messaging, namespace: Namespace, stop: CancellationToken) {
    ticks::repeat(REMIND_EVERY, &stop, || remind_due(&messaging, &namespace)).await;
}

/// Returns whether there may be more.
async fn remind_due(messaging: &Messaging, namespace: &Namespace) -> bool {
    let taken = message_bookmark::take_due(messaging.db(), clock::now_micros());
    match timed("reminders", taken).await {
        Ok(due) => {
            due.iter().for_each(|(user, bookmark)| UPDATED.to_user(namespace, *user, bookmark));
            i64::try_from(due.len()).is_ok_and(|taken| taken >= REMINDERS_AT_ONCE)
        }
        Err(error) => {
            tracing::warn!(%error, "reminders are late");
            false
        }
    }
}

/// How far ahead a reminder may be, in microseconds.
const REMINDER_AHEAD_MAX: Micros = 365 * 24 * 3_600 * 1_000_000;
/// How often the server looks for reminders that are due.
const REMIND_EVERY: Duration = Duration::from_secs(1);
/// The most bytes of a bookmark.
const BOOKMARK_BYTES: usize = NOTE_CHARS_MAX * 4 + 512;
/// The rate at which one user may change bookmarks.
const RATE: Rate = Rate::new(5, 20);
