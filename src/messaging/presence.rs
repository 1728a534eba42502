//! The events of presence: `presence:set`, `presence:active`, `presence:subscribe`, `presence:unsubscribe`,
//! `presence:list`.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::acquaintances::{self, watched_by};
use super::ctx::Ctx;
use super::input::BoundedList;
use super::online::{self, Asked};
use super::presence_board::UPDATE;
use super::presence_board::{ACTIVE_LEASE, Choice, Presence, Status, room_of};
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Registry, Request};
use super::timed::timed;
use crate::clock::{self, Micros, Timestamp};
use crate::models::user_presence;
use crate::rate_limit::Rate;
use crate::socket::Socket;
use crate::{ImksError, ImksResult};

/// Sent to the devices of a user when the user has chosen what to show.
const OWN: Push<Chosen> = Push::new("presence:own");

const SET: Request<Set, Chosen> = Request::new("presence:set");
const ACTIVE: Request<Active, Done> = Request::new("presence:active");
const SUBSCRIBE: Request<Users, Seen> = Request::new("presence:subscribe");
const UNSUBSCRIBE: Request<Users, Done> = Request::new("presence:unsubscribe");
const LIST: Request<List, Listed> = Request::new("presence:list");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&OWN);
    events.sends(&UPDATE);
    events.advertise("presence_lease_ms", ACTIVE_LEASE.as_secs() * 1_000);
    let limit = events.rate_limit("presence:user", RATE);
    let (limit_of_set, limit_of_list) = (limit.clone(), limit.clone());
    events.on(SET, move |ctx, request| set(ctx, request, limit_of_set.clone()));
    events.on_socket(ACTIVE, active);
    events.on_socket(SUBSCRIBE, move |ctx, socket, request| subscribe(ctx, socket, request, limit.clone()));
    events.on_socket(UNSUBSCRIBE, unsubscribe);
    events.on(LIST, move |ctx, request| list(ctx, request, limit_of_list.clone()));
}

/// The payload of `presence:set`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Set {
    status: Choice,
    #[serde(default)]
    until: Option<Timestamp>,
}

/// The answer to `presence:set`, and the payload of `presence:own`.
#[derive(Debug, Serialize, JsonSchema)]
struct Chosen {
    status: Choice,
    until: Option<Timestamp>,
}

async fn set(ctx: Ctx, request: Set, limit: RateLimit<Uuid>) -> ImksResult<Chosen> {
    limit.take(ctx.user())?;
    let (now, Set { status, until }) = (clock::now_micros(), request);
    if until.is_some_and(|Timestamp(until)| !(now..=now + CHOICE_AHEAD_MAX).contains(&until)) {
        return Err(ImksError::invalid("until", "must be in the future, and within a year"));
    }
    let (own, until_micros) = (ctx.own(), until.map(|until| until.0));
    let stored = user_presence::set(own.db(), own.user(), status.number(), until_micros, now);
    ctx.presence().choose(ctx.namespace(), ctx.user(), timed("presence_set", stored).await?);
    let chosen = Chosen { status, until };
    ctx.tell_user(&OWN, &chosen);
    Ok(chosen)
}

/// The payload of `presence:active`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Active {}

#[derive(Debug, Serialize, JsonSchema)]
struct Done {}

async fn active(ctx: Ctx, socket: Socket, _: Active) -> ImksResult<Done> {
    ctx.presence().active(&socket, ctx.user());
    Ok(Done {})
}

/// The payload of `presence:subscribe` and `presence:unsubscribe`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Users {
    user_ids: BoundedList<Uuid, USERS_MAX>,
}

/// The answer to `presence:subscribe`. Users who share no channel with the caller are left out.
#[derive(Debug, Serialize, JsonSchema)]
struct Seen {
    presences: Vec<Presence>,
}

async fn subscribe(ctx: Ctx, socket: Socket, request: Users, limit: RateLimit<Uuid>) -> ImksResult<Seen> {
    limit.take(ctx.user())?;
    let wanted: BTreeSet<Uuid> = request.user_ids.0.into_iter().collect();
    if watched_by(&socket).len() + wanted.len() > WATCHED_MAX {
        return Err(ImksError::LimitReached("presence_subscriptions"));
    }
    let users = acquaintances::among(ctx.core(), ctx.user(), wanted.into_iter().collect()).await?;
    // Joined before it is read, so that a change in between arrives as an event.
    users.iter().for_each(|user| socket.join(&room_of(*user)));
    Ok(Seen { presences: ctx.presence().shown(&users) })
}

async fn unsubscribe(_: Ctx, socket: Socket, request: Users) -> ImksResult<Done> {
    request.user_ids.0.into_iter().for_each(|user| socket.leave(&room_of(user)));
    Ok(Done {})
}

/// The payload of `presence:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    channel_id: Uuid,
    #[serde(default)]
    cursor: Option<Uuid>,
}

/// The answer to `presence:list`: the users in the channel who are not offline, on all nodes, by id.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    presences: Vec<Presence>,
    /// The `cursor` of the next page; null after the last one.
    next: Option<Uuid>,
}

async fn list(ctx: Ctx, request: List, limit: RateLimit<Uuid>) -> ImksResult<Listed> {
    let channel = ctx.visible(request.channel_id).await?;
    limit.take(ctx.user())?;
    let asked = Asked { channel_id: channel.id(), after: request.cursor, limit: PAGE_LIMIT + 1 };
    let mut users: Vec<Uuid> =
        online::users(ctx.messaging(), ctx.namespace(), asked).await?.into_iter().collect();
    let next = users.get(PAGE_LIMIT - 1).copied().filter(|_| users.len() > PAGE_LIMIT);
    users.truncate(PAGE_LIMIT);
    let mut presences = ctx.presence().shown(&users);
    // Another node may have seen them a moment before or after this one.
    presences.retain(|presence| presence.status != Status::Offline);
    Ok(Listed { presences, next })
}

/// The most users in one `presence:subscribe`.
const USERS_MAX: usize = 200;
/// The most users that one socket may watch.
const WATCHED_MAX: usize = 1_000;
/// The most users in one page of `presence:list`.
const PAGE_LIMIT: usize = 100;
/// How far ahead the end of a choice may be, in microseconds.
const CHOICE_AHEAD_MAX: Micros = 365 * 24 * 3_600 * 1_000_000;
/// The rate at which one user may choose a presence, watch others, and list those of a channel.
const RATE: Rate = Rate::new(1, 10);
