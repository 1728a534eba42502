//! The part of signing in that is about a client which comes back: its session continues where it was, or a new one begins
//! (docs/adr/0066).

use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;
use uuid::Uuid;

use super::access::{self, LEFT, Left};
use super::activity::{self, ACTIVITY};
use super::budget::{AnswerSize, COPIES, ConnectionBudget, Reservation};
use super::channel_rooms;
use super::connect::{Attempt, Mode};
use super::greeting::Greeting;
use super::metrics::{self, Resumed};
use super::parts::Messaging;
use super::resume::{Beginning, Behind, Facts, Found, Moment, Place, Replay};
use super::session::Session;
use super::standings::ChannelStates;
use crate::ImksResult;
use crate::auth::{Identity, Membership, Permission};
use crate::models::channel_state::{ChannelHead, heads};
use crate::socket::{Accept, ConnectPayload, Socket};

/// A client that may come back: now, or later to the session that begins.
#[derive(Default)]
pub(super) struct ComingBack {
    /// Since when it has got events with offsets; `None` if it gets none.
    moment: Option<Moment>,
    /// Whether it gets digests.
    is_light: bool,
    /// The session to which it comes back.
    found: Option<Found>,
    /// The channels that it followed and still may, of which it is no member.
    others: Vec<ChannelHead>,
    /// What it has missed, and the memory for that.
    missed: Replay,
    room: Option<Reservation>,
}

impl ComingBack {
    /// Finds the session to which a client comes back, unless it has no mode in which it may. Called before it enters rooms, so that all that it gets there has an
    /// offset.
    pub(super) async fn find(
        messaging: &Messaging,
        socket: &Socket,
        (payload, identity): (&ConnectPayload, &Identity),
        mode: Option<Mode>,
        attempt: &Attempt,
    ) -> ImksResult<Self> {
        let Some(mode) = mode else { return Ok(Self::default()) };
        let is_light = mode == Mode::Light;
        let moment = messaging.resume().keep_offsets(socket);
        let found = match attempt.begins_anew {
            true => None,
            false => messaging.resume().find(payload, identity.user_id, is_light).await?,
        };
        Ok(Self { moment, is_light, found, ..Self::default() })
    }

    /// Leaves out the channels that the client has left by itself.
    pub(super) fn leave_out(&self, session: &Session, memberships: &mut Vec<&Membership>) {
        let Some(found) = &self.found else { return };
        memberships.retain(|membership| !found.has_left(membership.channel_id));
        found.left().for_each(|channel| session.unsubscribe(channel));
    }

    /// Follows the channels again that the client followed without being a member, as far as it may see them.
    pub(super) async fn follow_others(
        &mut self,
        messaging: &Messaging,
        socket: &Socket,
        session: &Session,
        memberships: &[&Membership],
    ) -> ImksResult<()> {
        let Some(found) = &self.found else { return Ok(()) };
        let members: HashSet<Uuid> = memberships.iter().map(|it| it.channel_id).collect();
        let others: Vec<Uuid> = found.followed().filter(|channel| !members.contains(channel)).collect();
        if others.is_empty() {
            return Ok(());
        }
        let (user, permissions) = (session.identity().user_id, messaging.permissions());
        permissions.warm(user, &others).await?;
        let mut entered = Vec::new();
        for channel in others {
            channel_rooms::join(socket, session, channel);
            // Afterwards, so that nobody who ends it now does not find the socket.
            match permissions.require(user, channel, Permission::ViewChannel).await {
                Ok(_) => entered.push(channel),
                Err(error) if error.is_retryable() => return Err(error),
                Err(_) => drop(channel_rooms::leave(socket, channel)),
            }
        }
        self.others = heads(messaging.db(), &entered).await?;
        Ok(())
    }

    /// Returns the channels that the client follows without being a member.
    pub(super) fn others(&self) -> impl Iterator<Item = &ChannelHead> {
        self.others.iter()
    }

    /// Reads what the client has missed. Returns false if it cannot get that.
    pub(super) async fn read_missed(
        &mut self,
        messaging: &Messaging,
        session: &Session,
        memberships: &[&Membership],
        states: &ChannelStates,
    ) -> ImksResult<bool> {
        let Some(found) = &mut self.found else { return Ok(true) };
        let mut now: HashMap<Uuid, Place> = self.others.iter().map(|it| (it.channel_id, place(it))).collect();
        now.extend(memberships.iter().map(|it| (it.channel_id, place_in(states, it.channel_id))));
        if !messaging.resume().make_sure(found, &now).await? {
            return Ok(false);
        }
        let Some(behind) = found.behind(&now) else { return Ok(refused()) };
        // A digest tells all.
        if self.is_light {
            return Ok(true);
        }
        let missed = behind.iter().map(|cursor| {
            let now = now.get(&cursor.channel_id).copied().unwrap_or_default();
            usize::try_from(now.number() - cursor.seq - cursor.rev).unwrap_or(usize::MAX)
        });
        let missed = missed.fold(0, usize::saturating_add);
        if missed > messaging.config().resume.missed {
            return Ok(refused());
        }
        let user = session.identity().user_id;
        for cursor in &behind {
            let permission = Permission::ReadHistory;
            match messaging.permissions().require(user, cursor.channel_id, permission).await {
                Ok(_) => {}
                Err(error) if error.is_retryable() => return Err(error),
                Err(_) => return Ok(refused()),
            }
        }
        if behind.is_empty() {
            return Ok(true);
        }
        let size = AnswerSize::of_messages(missed);
        // The connection has no room for two large answers at once, and asks for nothing yet: only its user and the server count.
        let connection = ConnectionBudget::default();
        let room = messaging.answers().reserve(&connection, user, size).await?;
        let behind = Behind { cursors: behind, missed, bytes: room.answer_bytes() };
        let Some(missed) = messaging.resume().replay(behind).await? else { return Ok(false) };
        // Others wait for what was too much.
        room.shrink_to(AnswerSize::of_channels(memberships.len()).most() + missed.bytes() * COPIES);
        (self.missed, self.room) = (missed, Some(room));
        Ok(true)
    }

    /// Continues the session, or begins one. Returns the first events, and the memory for them, which is `room` for those
    /// of a new session. `None` if another connection was faster.
    pub(super) async fn greet(
        self,
        socket: &Socket,
        greeting: &Greeting<'_>,
        room: Reservation,
    ) -> ImksResult<Option<(Accept, Reservation)>> {
        let Some(moment) = self.moment else { return Ok(Some((greeting.welcome(None)?, room))) };
        let user_rev = greeting.states.values().map(|it| it.read.user_rev).max().unwrap_or_default();
        let (channels, digests) = (self.channels(greeting), self.digests(greeting)?);
        let relay = greeting.messaging.relay();
        let has_been_told =
            |channel: Uuid, place: i64| relay.is_some_and(|relay| relay.has_told(channel, place));
        let identity = greeting.identity();
        let is_light = self.is_light;
        let beginning =
            Beginning { identity, moment, channels, user_rev, is_light, has_been_told: &has_been_told };
        let resume = greeting.messaging.resume();
        let Some(found) = self.found else {
            let session = resume.begin(socket, &beginning)?;
            return Ok(Some((greeting.welcome(None)?.with_session(session), room)));
        };
        let knows = |membership: &Membership| {
            let state = greeting.states.get(&membership.channel_id);
            let user_rev = state.map_or(0, |state| state.read.user_rev);
            found.knows(membership.channel_id, facts(greeting.states, membership), user_rev)
        };
        let mut accept = greeting.welcome(Some(&knows))?;
        let follows: HashSet<Uuid> = beginning.channels.iter().map(|(channel, ..)| *channel).collect();
        for channel_id in found.thought().filter(|channel| !follows.contains(channel)) {
            let user = greeting.identity().user_id;
            let reason = access::why_lost(greeting.messaging, user, channel_id).await;
            accept = accept.with_event(LEFT.name(), &Left::new(channel_id, reason))?;
        }
        metrics::RESUME_REPLAYED.add(self.missed.events().count() as u64);
        for (event, payload) in self.missed.events() {
            accept = accept.with_missed(event, payload)?;
        }
        for digests in digests {
            accept = accept.with_event(ACTIVITY.name(), &digests)?;
        }
        // Last, because what comes after it must not fail.
        let session = resume.take(socket, found, &beginning).await?;
        Ok(session.map(|session| (accept.with_session(session), self.room.unwrap_or(room))))
    }

    /// Returns the digests of a client that gets them, of the channels in which something has happened since its session began.
    fn digests(&self, greeting: &Greeting<'_>) -> ImksResult<Vec<Box<RawValue>>> {
        let Some(found) = self.found.as_ref().filter(|_| self.is_light) else { return Ok(Vec::new()) };
        let members = greeting.memberships.iter().filter_map(|it| greeting.states.get(&it.channel_id));
        let heads = members.map(|state| &state.head).chain(&self.others);
        let known = heads.filter_map(|head| Some((head, found.place_in(head.channel_id)?)));
        let news: Vec<_> = known.filter(|(head, known)| place(head) != *known).collect();
        activity::digests(&news)
    }

    /// Returns the channels that the client follows, where its session is in each, and what else it knows of them.
    fn channels(&self, greeting: &Greeting<'_>) -> Vec<(Uuid, Place, Option<Facts>)> {
        let places = self.missed.places();
        let at = |channel: Uuid, now: Place| places.get(&channel).copied().unwrap_or(now);
        let members = greeting.memberships.iter().map(|it| {
            let now = place_in(greeting.states, it.channel_id);
            (it.channel_id, at(it.channel_id, now), Some(facts(greeting.states, it)))
        });
        let others = self.others.iter().map(|it| (it.channel_id, at(it.channel_id, place(it)), None));
        members.chain(others).collect()
    }
}

/// Counts a client that cannot get what it has missed.
fn refused() -> bool {
    metrics::RESUMES.of(Resumed::MissedTooMuch).increment();
    false
}

fn facts(states: &ChannelStates, membership: &Membership) -> Facts {
    let id = membership.channel_id;
    Facts::of(membership, &states.get(&id).map_or_else(|| ChannelHead::empty(id), |state| state.head))
}

fn place_in(states: &ChannelStates, channel: Uuid) -> Place {
    states.get(&channel).map(|state| place(&state.head)).unwrap_or_default()
}

fn place(head: &ChannelHead) -> Place {
    Place { seq: head.last_seq, rev: head.last_rev }
}
