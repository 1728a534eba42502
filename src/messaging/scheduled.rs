//! The events of scheduled messages: `schedule:create`, `schedule:get`, `schedule:list`, `schedule:update`,
//! `schedule:cancel`, and `schedule:updated` for the author's devices, also when a message is sent or has failed.

use std::collections::HashMap;

use futures_util::future::join_all;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::budget::{AnswerSize, COPIES, Reservation};
use super::ctx::Ctx;
use super::input::{self, Payload};
use super::message::{SendMessage, prepare};
use super::page::next_page;
use super::parts::Messaging;
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Large, Registry, Request, Status};
use super::timed::timed;
use super::{draft, mention, metrics, preview, ticks};
use crate::auth::UserInfo;
use crate::clock::{self, Micros, Timestamp};
use crate::models::message_scheduled::{
    self, DUE_AT_ONCE, DueMessage, NewScheduled, SCHEDULED_MAX, Scheduled, ScheduledChange, ScheduledState,
};
use crate::models::message_scheduled_send::SendScheduled;
use crate::models::message_send::Sent;
use crate::models::text::{E2EE_BYTES_MAX, Nonce};
use crate::rate_limit::Rate;
use crate::socket::Namespace;
use crate::{ImksError, ImksResult};

/// Sent to the devices of the author when a scheduled message was created, changed, sent or has failed.
const UPDATED: Push<Scheduled> = Push::new("schedule:updated");

const CREATE: Request<Create, Answer> = Request::new("schedule:create");
const GET: Request<Get, Answer> = Request::new("schedule:get");
const LIST: Request<List, Page> = Request::new("schedule:list");
const UPDATE: Request<Update, Answer> = Request::new("schedule:update");
const CANCEL: Request<Cancel, Answer> = Request::new("schedule:cancel");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&UPDATED);
    events.advertise("scheduled", SCHEDULED_MAX);
    let limit = events.rate_limit("schedule:user", RATE);
    let (limit_of_update, limit_of_cancel) = (limit.clone(), limit.clone());
    let created = Status::CreatedUnless(|answer: &Answer| answer.duplicate);
    events
        .on(CREATE, move |ctx, request| create(ctx, request, limit.clone()))
        .post("/scheduled-messages", created);
    events.on_read(GET, get).get("/scheduled-messages/{id}");
    events.on_read(LIST, list).get("/scheduled-messages");
    events
        .on(UPDATE, move |ctx, request| update(ctx, request, limit_of_update.clone()))
        .patch("/scheduled-messages/{id}");
    events
        .on(CANCEL, move |ctx, request| cancel(ctx, request, limit_of_cancel.clone()))
        .delete("/scheduled-messages/{id}");
}

/// The payload of `schedule:create`: when to send, beside the payload of `message:send`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Create {
    send_at: Timestamp,
    #[serde(flatten)]
    #[schemars(with = "SendMessage")]
    message: Map<String, Value>,
}

/// The answer to `schedule:create`, `schedule:get`, `schedule:update` and `schedule:cancel`.
#[derive(Debug, Serialize, JsonSchema)]
struct Answer {
    scheduled: Scheduled,
    /// Whether a request with the same nonce created it before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

async fn create(ctx: Ctx, request: Create, limit: RateLimit<Uuid>) -> ImksResult<Answer> {
    limit.take(ctx.user())?;
    let Timestamp(send_at) = request.send_at;
    let mut send = parsed(&request.message)?;
    let (channel_id, thread) = (send.channel_id, send.thread_id);
    // What is stored is sent with a nonce of its own, and the draft that it was is cleared now.
    let (nonce, clears) = (send.nonce.take(), std::mem::take(&mut send.clear_draft));
    let new = NewScheduled {
        author_id: ctx.user(),
        channel_id,
        nonce,
        payload: serde_json::to_string(&send)?,
        attachments: send.attachments.clone(),
        send_at,
        clears_draft: clears.then_some(thread),
    };
    // A repeat may come when its time has passed, and the author may send no more.
    if let Some(scheduled) = timed("schedule_get", message_scheduled::first(ctx.own().db(), &new)).await? {
        return Ok(Answer { scheduled, duplicate: true });
    }
    check(&ctx, &send, send_at).await?;
    let (scheduled, is_new) =
        timed("schedule_change", message_scheduled::create(ctx.own().db(), new)).await?;
    if is_new {
        ctx.tell_user(&UPDATED, &scheduled);
    }
    if clears {
        draft::tell_cleared(&ctx, channel_id, thread).await;
    }
    Ok(Answer { scheduled, duplicate: !is_new })
}

fn parsed(message: &Map<String, Value>) -> ImksResult<SendMessage> {
    let json = serde_json::to_string(message)?;
    let send: SendMessage = input::request(&Payload::Json(json.into()))?;
    send.check()?;
    send.check_later()?;
    Ok(send)
}

/// Checks that the caller may send a message at `send_at`, as far as that is known today.
async fn check(ctx: &Ctx, send: &SendMessage, send_at: Micros) -> ImksResult<()> {
    let now = clock::now_micros();
    if !(now..=now + AHEAD_MAX).contains(&send_at) {
        return Err(ImksError::invalid("send_at", "must be in the future, and within a year"));
    }
    prepare(ctx, send, send_at).await.map(drop)
}

/// The payload of `schedule:get`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Get {
    id: Uuid,
}

impl Large for Get {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::up_to(SCHEDULED_BYTES * COPIES)
    }
}

async fn get(ctx: Ctx, _room: Reservation, request: Get) -> ImksResult<Answer> {
    let own = ctx.own();
    let found = message_scheduled::get(own.db(), own.user(), request.id);
    Ok(Answer { scheduled: timed("schedule_get", found).await?, duplicate: false })
}

/// The payload of `schedule:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    #[serde(default)]
    state: Option<ScheduledState>,
    #[serde(default)]
    before: Option<i64>,
}

impl Large for List {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::up_to(PAGE_LIMIT * SCHEDULED_BYTES * COPIES)
    }
}

/// The answer to `schedule:list`: scheduled messages, the last changed first.
#[derive(Debug, Serialize, JsonSchema)]
struct Page {
    scheduled: Vec<Scheduled>,
    /// The `before` of the next page; null after the last one.
    next: Option<i64>,
}

async fn list(ctx: Ctx, _room: Reservation, request: List) -> ImksResult<Page> {
    let (own, before) = (ctx.own(), request.before.unwrap_or(i64::MAX));
    let limit = i64::try_from(PAGE_LIMIT).unwrap_or(1);
    let listed = message_scheduled::list(own.db(), own.user(), request.state, before, limit);
    let scheduled = timed("schedule_list", listed).await?;
    let next = next_page(&scheduled, PAGE_LIMIT, |scheduled| scheduled.user_rev);
    Ok(Page { scheduled, next })
}

/// The payload of `schedule:update`: what to change. An absent field stays as it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(transform = only_id_is_required)]
struct Update {
    id: Uuid,
    #[serde(default)]
    expected_version: Option<i64>,
    #[serde(default)]
    send_at: Option<Timestamp>,
    #[serde(flatten)]
    #[schemars(with = "SendMessage")]
    message: Map<String, Value>,
}

async fn update(ctx: Ctx, request: Update, limit: RateLimit<Uuid>) -> ImksResult<Answer> {
    limit.take(ctx.user())?;
    let (own, Update { id, expected_version, send_at, message }) = (ctx.own(), request);
    let stored = timed("schedule_get", message_scheduled::get(own.db(), own.user(), id)).await?;
    let Timestamp(send_at) = send_at.unwrap_or(stored.send_at);
    let mut merged: Map<String, Value> = serde_json::from_str(&stored.payload)?;
    merged.extend(message);
    let mut send = parsed(&merged)?;
    check(&ctx, &send, send_at).await?;
    if send.channel_id != stored.channel_id {
        return Err(ImksError::invalid("channel_id", "cannot be changed"));
    }
    (send.nonce, send.clear_draft) = (None, false);
    let payload = serde_json::to_string(&send)?;
    let replace = ScheduledChange::Replace { send_at, payload, attachments: send.attachments };
    // Without an expectation, what was read above may not have changed meanwhile.
    change(&ctx, id, expected_version.or(Some(stored.version)), replace).await
}

/// Makes the fields of a message that is changed optional.
fn only_id_is_required(schema: &mut Schema) {
    schema.insert("required".into(), json!(["id"]));
}

/// The payload of `schedule:cancel`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Cancel {
    id: Uuid,
    #[serde(default)]
    expected_version: Option<i64>,
}

/// Needs no permission: what one wrote oneself can be cancelled after leaving the channel.
async fn cancel(ctx: Ctx, request: Cancel, limit: RateLimit<Uuid>) -> ImksResult<Answer> {
    limit.take(ctx.user())?;
    change(&ctx, request.id, request.expected_version, ScheduledChange::Cancel).await
}

async fn change(ctx: &Ctx, id: Uuid, expected: Option<i64>, change: ScheduledChange) -> ImksResult<Answer> {
    let own = ctx.own();
    let changed = message_scheduled::change(own.db(), own.user(), id, expected, change);
    let (scheduled, changed) = timed("schedule_change", changed).await?;
    if changed {
        ctx.tell_user(&UPDATED, &scheduled);
    }
    Ok(Answer { scheduled, duplicate: false })
}

/// Sends messages when they are due, until `stop`. However many nodes do so, each message is sent once.
pub(super) async fn dispatch(messaging: Messaging, namespace: Namespace, stop: CancellationToken) {
    ticks::repeat(DISPATCH_EVERY, &stop, || dispatch_due(&messaging, &namespace)).await;
}

/// Returns whether there may be more.
async fn dispatch_due(messaging: &Messaging, namespace: &Namespace) -> bool {
    let taken = message_scheduled::take_due(messaging.db(), clock::now_micros());
    let due = match timed("schedule_due", taken).await {
        Ok(due) => due,
        Err(error) => {
            tracing::warn!(%error, "scheduled messages are late");
            return false;
        }
    };
    if due.is_empty() {
        return false;
    }
    let authors: Vec<Uuid> = due.iter().map(|due| due.user_id).collect();
    let authors = messaging.core().users(&authors).await;
    let is_full = i64::try_from(due.len()).is_ok_and(|taken| taken >= DUE_AT_ONCE);
    let sending = match &authors {
        Ok(authors) => {
            let authors: HashMap<Uuid, &UserInfo> =
                authors.iter().map(|author| (author.id, author)).collect();
            let author_of = |due: &DueMessage| authors.get(&due.user_id).copied();
            let sends = due.iter().map(|due| send_one(messaging, namespace, author_of(due), due));
            join_all(sends).await
        }
        Err(error) => join_all(due.iter().map(|due| settle(messaging, namespace, due, Some(error)))).await,
    };
    for error in sending.into_iter().filter_map(Result::err) {
        // The lease ends by itself, and another try begins.
        tracing::warn!(%error, "a scheduled message is late");
    }
    is_full
}

async fn send_one(
    messaging: &Messaging,
    namespace: &Namespace,
    author: Option<&UserInfo>,
    due: &DueMessage,
) -> ImksResult<()> {
    let sent = attempt(messaging, namespace, author, due).await;
    settle(messaging, namespace, due, sent.err().as_ref()).await
}

/// Sends one message as its author, with all checks of a message that is sent now.
async fn attempt(
    messaging: &Messaging,
    namespace: &Namespace,
    author: Option<&UserInfo>,
    due: &DueMessage,
) -> ImksResult<()> {
    let author = author.filter(|author| !author.deleted).ok_or(ImksError::NotFound("user"))?;
    let ctx = Ctx::on_behalf_of(messaging, namespace, author);
    let request: SendMessage = input::request(&Payload::Json(due.payload.as_str().into()))?;
    let (channel, looked_up) = prepare(&ctx, &request, due.send_at).await?;
    let mut message = request.into_message(looked_up, due.send_at)?;
    message.nonce = Some(Nonce::new(&due.id.to_string())?);
    (message.scheduled_id, message.interactive) = (Some(due.id), false);
    let mentioned = message.mentioned.clone();
    let send = SendScheduled { due: due.clone(), message };
    let Sent { message, duplicate } = channel.submit(ctx.next_turn().await, send)?.await?;
    if !duplicate {
        preview::request(&ctx, &message);
        mention::tell(messaging, namespace, &message, &mentioned);
    }
    Ok(())
}

/// Stores what became of a message that this node tried to send, and tells its author.
async fn settle(
    messaging: &Messaging,
    namespace: &Namespace,
    due: &DueMessage,
    problem: Option<&ImksError>,
) -> ImksResult<()> {
    let (db, now) = (messaging.db(), clock::now_micros());
    let settled = match problem {
        None => {
            metrics::SCHEDULED.of(metrics::Scheduled::Sent).increment();
            Some(timed("schedule_get", message_scheduled::get(db, due.user_id, due.id)).await?)
        }
        Some(error) if error.is_retryable() && now < due.send_at + LATE_MAX => {
            metrics::SCHEDULED.of(metrics::Scheduled::Retried).increment();
            let pause = error.retry_after().unwrap_or(RETRY_AFTER).max(RETRY_AFTER);
            let at = now + Micros::try_from(pause.as_micros()).unwrap_or(LATE_MAX);
            timed("schedule_change", message_scheduled::retry(db, due, at)).await?;
            None
        }
        Some(error) => {
            metrics::SCHEDULED.of(metrics::Scheduled::Failed).increment();
            timed("schedule_change", message_scheduled::fail(db, due, error.code())).await?
        }
    };
    if let Some(scheduled) = settled {
        UPDATED.to_user(namespace, due.user_id, &scheduled);
    }
    Ok(())
}

/// How far ahead a message may be scheduled, in microseconds.
const AHEAD_MAX: Micros = 365 * 24 * 3_600 * 1_000_000;
/// How long after its time a message is still tried again, in microseconds.
const LATE_MAX: Micros = 3_600 * 1_000_000;
/// The shortest pause before another try.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often the server looks for messages that are due.
const DISPATCH_EVERY: Duration = Duration::from_secs(1);
/// The scheduled messages in one page of `schedule:list`.
const PAGE_LIMIT: usize = 10;
/// The most bytes of a scheduled message: its text, mentions, poll and embeds.
const SCHEDULED_BYTES: usize = E2EE_BYTES_MAX + (128 << 10);
/// The rate at which one user may create, change and cancel scheduled messages.
const RATE: Rate = Rate::new(2, 10);
