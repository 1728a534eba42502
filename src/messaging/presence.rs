//! The events of presence: `presence:set`, `presence:active`, `presence:subscribe`, `presence:unsubscribe`,
//! `presence:list`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::acquaintances::{self, watched_by};
use super::ctx::Ctx;
use super::input::BoundedList;
use super::parts::timed;
use super::presence_board::{ACTIVE_LEASE, Choice, Presence, Status, room_of, to_stored};
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Registry, Request};
use super::session::Session;
use crate::clock::{self, Micros, Timestamp};
use crate::models::user_presence::{self, StoredChoice};
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
    events.advertise("presence_lease_ms", ACTIVE_LEASE.as_secs() * 1_000);
    let limit = events.rate_limit("presence:user", RATE);
    let limit_of_set = limit.clone();
    events.on(SET, move |ctx, request| set(ctx, request, limit_of_set.clone()));
    events.on_socket(ACTIVE, active);
    events.on_socket(SUBSCRIBE, move |ctx, socket, request| subscribe(ctx, socket, request, limit.clone()));
    events.on_socket(UNSUBSCRIBE, unsubscribe);
    events.on(LIST, list);
}

/// The payload of `presence:set`.
#[derive(Debug, Deserialize)]
struct Set {
    status: Choice,
    #[serde(default)]
    until: Option<Timestamp>,
}

/// The answer to `presence:set`, and the payload of `presence:own`.
#[derive(Debug, Serialize)]
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
    let stored = StoredChoice { choice: to_stored(status), until: until_micros };
    timed("presence_set", user_presence::set(own.db(), own.user(), stored, now)).await?;
    ctx.presence().choose(ctx.namespace(), ctx.user(), status, until_micros);
    let chosen = Chosen { status, until };
    ctx.tell_user(&OWN, &chosen);
    Ok(chosen)
}

/// The payload of `presence:active`.
#[derive(Debug, Deserialize)]
struct Active {}

#[derive(Debug, Serialize)]
struct Done {}

async fn active(ctx: Ctx, socket: Socket, _: Active) -> ImksResult<Done> {
    ctx.presence().active(&socket, ctx.user());
    Ok(Done {})
}

/// The payload of `presence:subscribe` and `presence:unsubscribe`.
#[derive(Debug, Deserialize)]
struct Users {
    user_ids: BoundedList<Uuid, USERS_MAX>,
}

/// The answer to `presence:subscribe`. Users who share no channel with the caller are left out.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Deserialize)]
struct List {
    channel_id: Uuid,
    #[serde(default)]
    cursor: Option<Uuid>,
}

/// The answer to `presence:list`: the users in the room of the channel who are not offline, by id.
#[derive(Debug, Serialize)]
struct Listed {
    presences: Vec<Presence>,
    /// The `cursor` of the next page; null after the last one.
    next: Option<Uuid>,
}

async fn list(ctx: Ctx, request: List) -> ImksResult<Listed> {
    let channel = ctx.visible(request.channel_id).await?;
    let sockets = ctx.namespace().sockets_in(&channel.id().to_string());
    let user_of = |socket: &Socket| Some(socket.data::<Session>()?.identity().user_id);
    let users: BTreeSet<Uuid> = sockets.iter().filter_map(user_of).collect();
    let after = users.into_iter().filter(|user| request.cursor.is_none_or(|cursor| *user > cursor));
    let mut presences = ctx.presence().shown(&after.collect::<Vec<_>>());
    presences.retain(|presence| presence.status != Status::Offline);
    let next = presences.get(PAGE_LIMIT - 1).filter(|_| presences.len() > PAGE_LIMIT).map(|it| it.user_id);
    presences.truncate(PAGE_LIMIT);
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
/// The rate at which one user may choose a presence, and watch others.
const RATE: Rate = Rate::new(1, 10);
