//! `Watch`: the feed for back ends, as a stream over gRPC and as a long poll over HTTP.
//!
//! A stream is a task that reads the feed and hands over one event at a time, so that a back end that does not read
//! holds one page, and no connection to the database.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout_at};

use super::Ctx;
use super::input::ids;
use super::operation::Never;
use super::watchers::Slot;
use crate::error::{Cause, Precondition};
use crate::models::feed::{Cursor, Event, Filter, Follower, Position, Reason, Step};
use crate::pb::control::{Durable, Gap, Heartbeat, WatchRequest, WatchResponse, gap, watch_response};
use crate::{ImksError, ImksResult, clock};

/// The request of a long poll.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PollRequest {
    cursor: String,
    #[serde(deserialize_with = "crate::pb::json::list")]
    channel_ids: Vec<String>,
    #[serde(deserialize_with = "crate::pb::json::list")]
    events: Vec<String>,
    /// How long to wait for events, in seconds.
    wait: u64,
}

impl Default for PollRequest {
    fn default() -> Self {
        let (channel_ids, events) = (Vec::new(), Vec::new());
        Self { cursor: String::new(), channel_ids, events, wait: WAIT_SECONDS_MAX }
    }
}

/// The answer to a long poll.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PollAnswer {
    events: Vec<Durable>,
    cursor: String,
    /// Whether events before the cursor cannot be told.
    gap: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_reason: Option<&'static str>,
}

/// A page of events, and where the next ones are.
struct Page {
    events: Vec<Event>,
    next: Position,
    gap: Option<Reason>,
}

/// A follower of the feed that knows where it is.
struct Reader {
    follower: Follower,
    /// Where the next event is; `None` for the oldest one, whose place is not known yet.
    position: Option<Position>,
}

/// `Watch` over gRPC.
pub(super) async fn watch(
    ctx: Ctx,
    request: WatchRequest,
) -> ImksResult<BoxStream<'static, ImksResult<WatchResponse>>> {
    let WatchRequest { cursor, channel_ids, events } = request;
    let filter = filter(&channel_ids, events)?;
    let slot = slot(&ctx)?;
    let reader = tokio::select! {
        () = ctx.control.0.stop.cancelled() => return Err(ImksError::Stopping),
        reader = Reader::open(&ctx, &cursor, filter) => reader?,
    };
    let (items, received) = mpsc::channel(1);
    let tasks = ctx.control.0.tasks.clone();
    let watching = Watching { ctx, items, sent: Mutex::new(reader.position) };
    let task = tasks.spawn(watching.run(reader, slot));
    Ok(stream::unfold(Some((received, task)), next).boxed())
}

type Received = (mpsc::Receiver<WatchResponse>, JoinHandle<ImksResult<Never>>);

/// Returns what a stream sends next, and at last why it ends.
async fn next(state: Option<Received>) -> Option<(ImksResult<WatchResponse>, Option<Received>)> {
    let (mut received, task) = state?;
    if let Some(item) = received.recv().await {
        return Some((Ok(item), Some((received, task))));
    }
    let error = match task.await {
        Ok(Err(error)) => error,
        Err(error) => ImksError::Task(Cause::new(error)),
    };
    Some((Err(error), None))
}

/// The events of the feed over HTTP: at once if there are some, or when there are some.
pub(super) async fn poll(ctx: Ctx, request: PollRequest) -> ImksResult<PollAnswer> {
    if !(1..=WAIT_SECONDS_MAX).contains(&request.wait) {
        return Err(ImksError::invalid("wait", format!("must be 1 to {WAIT_SECONDS_MAX} seconds")));
    }
    let deadline = Instant::now() + Duration::from_secs(request.wait);
    let filter = filter(&request.channel_ids, request.events)?;
    let _slot = slot(&ctx)?;
    let opening = tokio::select! {
        () = ctx.control.0.stop.cancelled() => return Err(ImksError::Stopping),
        opening = timeout_at(deadline, Reader::open(&ctx, &request.cursor, filter)) => opening,
    };
    let mut reader = opening.unwrap_or(Err(ImksError::Timeout("the feed was not read in time")))?;
    loop {
        let page = tokio::select! {
            () = ctx.control.0.stop.cancelled() => None,
            page = timeout_at(deadline, reader.next()) => page.ok(),
        };
        let Some(page) = page else { return Ok(answer(Vec::new(), show(reader.position), None)) };
        let page = page?;
        // The key may have been revoked while this waited.
        ctx.still_allowed().await?;
        if page.gap.is_some() || !page.events.is_empty() {
            return Ok(answer(page.events, page.next.to_string(), page.gap));
        }
    }
}

fn answer(events: Vec<Event>, cursor: String, gap: Option<Reason>) -> PollAnswer {
    let gap_reason = gap.map(|reason| match reason {
        Reason::Removed => "removed",
        Reason::UnknownCursor => "unknown_cursor",
    });
    PollAnswer { events: events.into_iter().map(durable).collect(), cursor, gap: gap.is_some(), gap_reason }
}

fn filter(channel_ids: &[String], events: Vec<String>) -> ImksResult<Filter> {
    if events.iter().any(|event| !Filter::names().any(|name| name == event)) {
        let known = Filter::names().collect::<Vec<_>>().join(", ");
        return Err(ImksError::invalid("events", format!("must be some of {known}")));
    }
    let channels = ids("channel_ids", channel_ids, CHANNELS_MAX)?;
    Ok(Filter { channels: channels.into_iter().collect(), events: events.into_iter().collect() })
}

fn slot(ctx: &Ctx) -> ImksResult<Slot> {
    if !ctx.feed().is_on() {
        return Err(ImksError::FailedPrecondition(Precondition::FeedOff));
    }
    ctx.control.0.watchers.take(ctx.caller.id)
}

fn durable(event: Event) -> Durable {
    Durable {
        event: event.name.to_owned(),
        channel_id: event.channel_id.to_string(),
        seq: event.seq,
        rev: event.rev,
        at_us: event.at,
        message_json: (*event.message).to_owned(),
        actor_id: event.actor_id.to_string(),
    }
}

impl Reader {
    async fn open(ctx: &Ctx, cursor: &str, filter: Filter) -> ImksResult<Self> {
        let cursor = cursor.parse()?;
        let mut follower = ctx.feed().follow(cursor, filter);
        let position = match cursor {
            Cursor::Now => Some(follower.begun().await?),
            Cursor::Oldest => None,
            Cursor::At(position) => Some(position),
        };
        Ok(Self { follower, position })
    }

    /// Waits for the next page. Cancelling loses nothing.
    async fn next(&mut self) -> ImksResult<Page> {
        let page = match self.follower.next().await? {
            Step::Gap(next, reason) => Page { events: Vec::new(), next, gap: Some(reason) },
            Step::Events(events, next) => Page { events, next, gap: None },
        };
        self.position = Some(page.next);
        Ok(page)
    }
}

/// A stream of events.
struct Watching {
    ctx: Ctx,
    items: mpsc::Sender<WatchResponse>,
    /// The place after the last event that was sent; `None` for the oldest event.
    sent: Mutex<Option<Position>>,
}

impl Watching {
    /// Sends events until the client leaves, its key is revoked or the server stops. Returns the reason.
    async fn run(self, reader: Reader, _slot: Slot) -> ImksResult<Never> {
        tokio::select! {
            () = self.ctx.control.0.stop.cancelled() => Err(ImksError::Stopping),
            () = self.items.closed() => Err(GONE),
            ended = self.send_all(reader) => ended,
        }
    }

    /// Begins with a heartbeat, so that the client has a cursor from the start.
    async fn send_all(&self, reader: Reader) -> ImksResult<Never> {
        self.send_heartbeat().await?;
        tokio::select! {
            ended = self.send_heartbeats() => ended,
            ended = self.send_events(reader) => ended,
        }
    }

    async fn send_events(&self, mut reader: Reader) -> ImksResult<Never> {
        loop {
            let page = reader.next().await?;
            self.ctx.still_allowed().await?;
            for event in page.events {
                self.send(event.next, watch_response::Event::Durable(durable(event))).await?;
            }
            if let Some(reason) = page.gap {
                let reason = match reason {
                    Reason::Removed => gap::Reason::Removed,
                    Reason::UnknownCursor => gap::Reason::UnknownCursor,
                };
                self.send(page.next, watch_response::Event::Gap(Gap { reason: reason.into() })).await?;
            }
            *self.sent.lock() = Some(page.next);
        }
    }

    async fn send(&self, next: Position, event: watch_response::Event) -> ImksResult<()> {
        let room = self.items.reserve().await.map_err(|_| GONE)?;
        *self.sent.lock() = Some(next);
        room.send(WatchResponse { cursor: show(Some(next)), event: Some(event) });
        Ok(())
    }

    /// Checks the key at intervals, and says how far the stream is if the client has read everything so far.
    async fn send_heartbeats(&self) -> ImksResult<Never> {
        let pause = self.ctx.control.0.gate.config().heartbeat;
        let mut ticks = interval_at(Instant::now() + pause, pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.ctx.still_allowed().await?;
            self.send_heartbeat().await?;
        }
    }

    async fn send_heartbeat(&self) -> ImksResult<()> {
        let Ok(room) = self.items.try_reserve() else { return Ok(()) };
        let sent = *self.sent.lock();
        let lag_us = self.ctx.feed().lag(sent).await?;
        let heartbeat = watch_response::Event::Heartbeat(Heartbeat { at_us: clock::now_micros(), lag_us });
        room.send(WatchResponse { cursor: show(sent), event: Some(heartbeat) });
        Ok(())
    }
}

/// Returns a place as a back end keeps it.
fn show(position: Option<Position>) -> String {
    position.map_or_else(|| OLDEST.into(), |position| position.to_string())
}

const GONE: ImksError = ImksError::Unavailable("client");
/// The most channels that a filter names.
const CHANNELS_MAX: usize = 1_000;
/// The longest wait of a long poll, in seconds: shorter than a request over HTTP may take.
const WAIT_SECONDS_MAX: u64 = 25;
/// The cursor of the oldest event.
const OLDEST: &str = "0";
