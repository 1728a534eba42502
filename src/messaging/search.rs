//! The event `search`, and the task that keeps the index of search up to date.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::budget::{AnswerSize, Reservation};
use super::ctx::Ctx;
use super::parts::Messaging;
use super::rates::RateLimit;
use super::registry::{Large, Registry, Request};
use super::timed::timed;
use crate::clock::Timestamp;
use crate::models::message::MessageDetail;
use crate::models::message_search::{Found, Has, Query};
use crate::models::message_search_index::{self, MESSAGES_AT_ONCE};
use crate::models::text::{ShortText, described};
use crate::rate_limit::Rate;
use crate::{ImksError, ImksResult};

const SEARCH: Request<Search, Answer> = Request::new("search");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.advertise("search_chars", QUERY_CHARS_MAX);
    let limits = Limits {
        of_user: events.rate_limit("search:user", RATE),
        at_once: Arc::new(Semaphore::new(SEARCHES_AT_ONCE)),
    };
    events
        .on_read(SEARCH, move |ctx, room, request| search(ctx, room, request, limits.clone()))
        .get("/search");
}

/// What bounds the cost of searches, besides the statement timeout of the database.
#[derive(Clone)]
struct Limits {
    of_user: RateLimit<Uuid>,
    /// Searches in progress, each with a connection to the database.
    at_once: Arc<Semaphore>,
}

impl Limits {
    async fn begin(&self) -> ImksResult<SemaphorePermit<'_>> {
        match timeout(WAIT, self.at_once.acquire()).await {
            Ok(permit) => permit.map_err(|_| ImksError::Internal("the limit of searches is closed")),
            Err(_elapsed) => Err(ImksError::Overloaded { retry_after: WAIT }),
        }
    }
}

/// The payload of `search`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Search {
    #[serde(default)]
    q: ShortText<0, QUERY_CHARS_MAX>,
    #[serde(default)]
    channel_ids: Option<Listed<Uuid, CHANNELS_NAMED_MAX>>,
    #[serde(default)]
    from: Option<Uuid>,
    #[serde(default)]
    mentions: Option<Uuid>,
    #[serde(default)]
    has: Option<Listed<Has, HAS_MAX>>,
    #[serde(default)]
    before: Option<Timestamp>,
    #[serde(default)]
    after: Option<Timestamp>,
    #[serde(default)]
    cursor: Option<Uuid>,
    #[serde(default = "page_size")]
    #[schemars(range(min = 1, max = PAGE_LIMIT))]
    limit: u32,
}

fn page_size() -> u32 {
    PAGE_DEFAULT
}

impl Large for Search {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::of_messages(self.limit as usize)
    }
}

/// The answer to `search`: messages, newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct Answer {
    messages: Vec<MessageDetail>,
    /// The `cursor` of the next page; null at the end.
    next: Option<Uuid>,
}

async fn search(ctx: Ctx, room: Reservation, request: Search, limits: Limits) -> ImksResult<Answer> {
    let (query, cursor, limit) = (request.query()?, request.cursor, request.limit as usize);
    limits.of_user.take(ctx.user())?;
    let channels = match request.channel_ids {
        Some(named) => named_channels(&ctx, named.0).await?,
        None => ctx.channels().await?,
    };
    if channels.len() > CHANNELS_SEARCHED_MAX {
        return Err(ImksError::LimitReached("search_channels"));
    }
    let (readable, _) = ctx.readable_among(&channels).await?;
    // Only now: a core that is slow to answer must not hold up the searches of others.
    let _permit = limits.begin().await?;
    let Found { messages, next } = readable.search(&room, &query, cursor, limit).await?;
    Ok(Answer { messages, next })
}

/// Returns the channels that the caller named.
///
/// # Errors
/// [`ImksError::NotFound`] if the caller may not read one of them.
async fn named_channels(ctx: &Ctx, channels: Vec<Uuid>) -> ImksResult<Vec<Uuid>> {
    match ctx.readable_among(&channels).await? {
        (_, hidden) if hidden.is_empty() => Ok(channels),
        _ => Err(ImksError::NotFound("channel")),
    }
}

impl Search {
    fn query(&self) -> ImksResult<Query> {
        if !(1..=PAGE_LIMIT).contains(&self.limit) {
            return Err(ImksError::invalid("limit", format!("must be between 1 and {PAGE_LIMIT}")));
        }
        let query = Query {
            from: self.from,
            mentions: self.mentions,
            has: self.has.as_ref().map(|has| has.0.clone()).unwrap_or_default(),
            before: self.before.map(|at| at.0),
            after: self.after.map(|at| at.0),
            ..Query::new(self.q.as_str())?
        };
        if query.is_empty() {
            return Err(ImksError::invalid("q", "has no word to search for"));
        }
        Ok(query)
    }
}

/// A list of one to `MAX` items: a JSON array, or a text with commas in the query of an HTTP request.
#[derive(Debug, Clone)]
struct Listed<T, const MAX: usize>(Vec<T>);

described!([T: JsonSchema, const MAX: usize] Listed<T, MAX>, generator => {
    "type": "array", "items": generator.subschema_for::<T>(), "minItems": 1, "maxItems": MAX,
});

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Listed<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = deserializer.deserialize_any(ListVisitor(std::marker::PhantomData))?;
        match items.len() {
            1.. if items.len() <= MAX => Ok(Self(items)),
            0 => Err(crate::models::text::refusal("is empty")),
            _ => Err(crate::models::text::refusal(format_args!("has more than {MAX} items"))),
        }
    }
}

struct ListVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Vec<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        let item = |item: &str| T::deserialize(serde::de::value::StringDeserializer::new(item.to_owned()));
        text.split(',').map(item).collect()
    }
}

/// Keeps the index up to date with what is written, until `stop`. What this node has not heard of (a crash, another
/// node that ended, a database from before the index) is found by comparing all channels from time to time.
pub(super) async fn index(messaging: Messaging, stop: CancellationToken) {
    let written = messaging.appender().written();
    let mut compare_at = Instant::now();
    while !stop.is_cancelled() {
        if Instant::now() >= compare_at {
            compare(&messaging, &stop).await;
            compare_at = Instant::now() + COMPARE_EVERY;
        }
        let channels = written.take(CHANNELS_AT_ONCE);
        if channels.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = written.added() => {}
                () = tokio::time::sleep_until(compare_at) => {}
            }
            continue;
        }
        let pause = follow(&messaging, channels).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Follows some channels once. Returns how long to wait before the next pass: the longer, the more messages share it.
async fn follow(messaging: &Messaging, channels: Vec<Uuid>) -> Duration {
    let written = messaging.appender().written();
    let (before, began) = (written.additions(), Instant::now());
    match timed("search_index", message_search_index::follow(messaging.db(), channels.clone())).await {
        Ok(behind) if behind.is_empty() => PAUSE,
        Ok(behind) => {
            let is_busy = written.additions() != before;
            written.add(behind);
            // Who writes meanwhile comes first: with SQLite, a pass keeps everybody else from writing.
            if is_busy { began.elapsed() * PASSES_LEFT_OUT } else { Duration::ZERO }
        }
        Err(error) => {
            tracing::warn!(%error, "the index of search is late");
            written.add(channels);
            PAUSE_AFTER_FAILURE
        }
    }
}

/// Looks for channels with which the index is not up to date, and follows them.
async fn compare(messaging: &Messaging, stop: &CancellationToken) {
    let mut after = Some(Uuid::nil());
    while let Some(from) = after.filter(|_| !stop.is_cancelled()) {
        match timed("search_compare", message_search_index::behind(messaging.db(), from)).await {
            Ok((behind, next)) => {
                messaging.appender().written().add(behind);
                after = next;
            }
            Err(error) => return tracing::warn!(%error, "the index of search was not compared"),
        }
    }
}

/// The longest text of a search, in characters.
const QUERY_CHARS_MAX: usize = 256;
/// The most channels that one search may name.
const CHANNELS_NAMED_MAX: usize = 500;
/// The most channels that are searched at once.
const CHANNELS_SEARCHED_MAX: usize = 2_000;
/// The most kinds of content in one search.
const HAS_MAX: usize = 3;
/// The most messages in one page.
const PAGE_LIMIT: u32 = 50;
const PAGE_DEFAULT: u32 = 20;
/// The rate at which one user may search.
const RATE: Rate = Rate::new(1, 10);
/// The searches that this server runs at once.
const SEARCHES_AT_ONCE: usize = 4;
/// How long a search waits for others.
const WAIT: Duration = Duration::from_secs(2);
/// The channels that are followed in one pass.
const CHANNELS_AT_ONCE: usize = MESSAGES_AT_ONCE as usize;
/// The time between two passes that were not full.
const PAUSE: Duration = Duration::from_millis(100);
/// How many passes are left out after a full one while messages are written.
const PASSES_LEFT_OUT: u32 = 5;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How often all channels are compared with the index.
const COMPARE_EVERY: Duration = Duration::from_secs(300);
