//! The events `poll:vote`, `poll:close` and `poll:voters`. A poll starts with the message that carries it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ctx::Ctx;
use super::input::BoundedList;
use super::page::next_page;
use super::parts::Messaging;
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Registry, Request};
use super::ticks;
use super::timed::timed;
use super::turn::Turn;
use crate::auth::Permission;
use crate::clock::{self, Micros, Timestamp};
use crate::models::append::ChangeEvent;
use crate::models::message::AuthorInfo;
use crate::models::message_poll::{NewPoll, OPTIONS_MAX, OptionText, Question};
use crate::models::message_poll_vote::PollUpdate;
use crate::models::message_poll_vote::{self, ClosePoll, OverduePoll, Polled, Vote};
use crate::rate_limit::Rate;
use crate::{ImksError, ImksResult};

const VOTE: Request<Choose, Polled> = Request::new("poll:vote");
const CLOSE: Request<Close, Polled> = Request::new("poll:close");
const VOTERS: Request<Voters, Page> = Request::new("poll:voters");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&Push::<ChangeEvent<PollUpdate>>::new("poll:updated"));
    events.advertise("poll_options", OPTIONS_MAX);
    let limit = events.rate_limit("poll:user", RATE);
    let limit_of_close = limit.clone();
    events.on_write(VOTE, move |ctx, turn, request| vote(ctx, turn, request, limit.clone()));
    events.on_write(CLOSE, move |ctx, turn, request| close(ctx, turn, request, limit_of_close.clone()));
    events.on(VOTERS, voters).get("/channels/{channel_id}/messages/{message_id}/poll/{option_id}/voters");
}

/// The field `poll` of `message:send`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct StartPoll {
    question: Question,
    options: BoundedList<OptionText, OPTIONS_MAX>,
    /// The most options that one voter may choose.
    #[serde(default = "one")]
    max_choices: usize,
    #[serde(default)]
    anonymous: bool,
    #[serde(default)]
    hide_results: bool,
    #[serde(default = "yes")]
    allow_change: bool,
    #[serde(default)]
    closes_at: Option<Timestamp>,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

impl StartPoll {
    /// Checks the rules that concern several fields.
    pub(super) fn check(&self) -> ImksResult<()> {
        let options = self.options.0.len();
        if options < 2 {
            return Err(ImksError::invalid("poll.options", "has fewer than 2 items"));
        }
        if !(1..=options).contains(&self.max_choices) {
            return Err(ImksError::invalid(
                "poll.max_choices",
                "must be between 1 and the number of options",
            ));
        }
        Ok(())
    }

    /// Checks when a poll that starts at `now` closes.
    pub(super) fn check_time(&self, now: Micros) -> ImksResult<()> {
        match self.open_for(now) {
            Some(time) if !(OPEN_FOR_MIN..=OPEN_FOR_MAX).contains(&time) => {
                Err(ImksError::invalid("poll.closes_at", "must be in 1 minute to 30 days"))
            }
            _ => Ok(()),
        }
    }

    fn open_for(&self, now: Micros) -> Option<Micros> {
        self.closes_at.map(|Timestamp(at)| at - now)
    }

    /// Draws the secret of a poll that starts at `now`.
    pub(super) fn start(self, now: Micros) -> ImksResult<NewPoll> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        Ok(NewPoll {
            open_for: self.open_for(now),
            question: self.question,
            options: self.options.0,
            max_choices: self.max_choices,
            anonymous: self.anonymous,
            hide_results: self.hide_results,
            allow_change: self.allow_change,
            secret: Uuid::from_bytes(secret),
        })
    }
}

/// The payload of `poll:vote`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Choose {
    channel_id: Uuid,
    message_id: Uuid,
    /// Everything that the caller chooses; empty to take the vote back.
    option_ids: Vec<usize>,
}

async fn vote(ctx: Ctx, turn: Turn, request: Choose, limit: RateLimit<Uuid>) -> ImksResult<Polled> {
    limit.take(ctx.user())?;
    let Choose { channel_id, message_id, option_ids } = request;
    if option_ids.len() > OPTIONS_MAX {
        return Err(ImksError::invalid("option_ids", format!("has more than {OPTIONS_MAX} items")));
    }
    let channel = ctx.writable(channel_id, Permission::SendMessages).await?;
    channel.submit(turn, Vote { message_id, option_ids })?.await
}

/// The payload of `poll:close`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Close {
    channel_id: Uuid,
    message_id: Uuid,
}

async fn close(ctx: Ctx, turn: Turn, request: Close, limit: RateLimit<Uuid>) -> ImksResult<Polled> {
    limit.take(ctx.user())?;
    let close = ClosePoll { message_id: request.message_id, if_over: false };
    let receipt = match ctx.writable(request.channel_id, Permission::SendMessages).await {
        Ok(channel) => channel.submit(turn, close)?,
        // A moderator may lack the permission to write in the channel.
        Err(ImksError::Forbidden(_)) => ctx.moderated(request.channel_id).await?.submit(turn, close)?,
        Err(error) => return Err(error),
    };
    match receipt.await {
        // The core is asked each time whether the user may close the polls of others.
        Err(ImksError::NotAuthor) => {
            let channel = ctx.moderated(request.channel_id).await?;
            channel.submit(ctx.next_turn().await, close)?.await
        }
        closed => closed,
    }
}

/// The payload of `poll:voters`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Voters {
    channel_id: Uuid,
    message_id: Uuid,
    option_id: usize,
    #[serde(default)]
    after: Option<Uuid>,
}

/// The answer to `poll:voters`: users by id.
#[derive(Debug, Serialize, JsonSchema)]
struct Page {
    user_ids: Vec<Uuid>,
    /// The `after` of the next page; null after the last one.
    next: Option<Uuid>,
}

async fn voters(ctx: Ctx, request: Voters) -> ImksResult<Page> {
    let channel = ctx.readable(request.channel_id).await?;
    let Voters { message_id, option_id, after, .. } = request;
    let limit = i64::try_from(PAGE_LIMIT).unwrap_or(1);
    let after = after.unwrap_or_default();
    let page = message_poll_vote::voters(channel.db(), channel.id(), message_id, option_id, after, limit);
    let user_ids = timed("poll_voters", page).await?;
    let next = next_page(&user_ids, PAGE_LIMIT, |user| *user);
    Ok(Page { user_ids, next })
}

/// Closes polls whose time is over, until `stop`. Several nodes may do so: only the first one changes anything.
pub(super) async fn close_overdue(messaging: Messaging, stop: CancellationToken) {
    ticks::repeat(CLOSE_EVERY, &stop, || close_some(&messaging)).await;
}

/// Returns that the rest can wait.
async fn close_some(messaging: &Messaging) -> bool {
    let overdue =
        timed("polls_overdue", message_poll_vote::overdue(messaging.db(), clock::now_micros())).await;
    for poll in overdue.unwrap_or_else(|error| {
        tracing::warn!(%error, "polls are closed late");
        Vec::new()
    }) {
        if let Err(error) = close_one(messaging, poll).await {
            tracing::warn!(%error, "a poll is closed late");
        }
    }
    false
}

async fn close_one(messaging: &Messaging, poll: OverduePoll) -> ImksResult<()> {
    let actor = AuthorInfo { id: poll.author_id, username: poll.author_username.into() };
    let close = ClosePoll { message_id: poll.message_id, if_over: true };
    messaging.submit_as(poll.channel_id, actor, close)?.await.map(drop)
}

/// The users in one page of `poll:voters`.
const PAGE_LIMIT: usize = 100;
/// How often the server looks for polls whose time is over.
const CLOSE_EVERY: Duration = Duration::from_secs(1);
/// The shortest time that a poll with a closing time is open, in microseconds.
const OPEN_FOR_MIN: Micros = 60 * 1_000_000;
/// The longest time that a poll with a closing time is open, in microseconds.
const OPEN_FOR_MAX: Micros = 30 * 24 * 3_600 * 1_000_000;
/// The rate at which one user may vote and close polls.
const RATE: Rate = Rate::new(2, 10);
