//! The first events of a session: `session:ready`, and `session:channels` where there are many channels.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::connect::Mode;
use super::parts::Messaging;
use super::push::Push;
use super::server_facts::{Limits, NAME, PROTOCOL, VERSION};
use super::session::{Client, Session};
use super::standings::ChannelStates;
use crate::ImksResult;
use crate::auth::{Identity, Membership};
use crate::clock::{self, Timestamp};
use crate::contract::FEATURE_LEVEL;
use crate::models::channel_state::ChannelHead;
use crate::socket::Accept;

/// What the first events of a session are made of.
pub(super) struct Greeting<'a> {
    pub(super) messaging: &'a Messaging,
    pub(super) limits: &'a Limits,
    pub(super) session: &'a Session,
    pub(super) mode: Mode,
    pub(super) memberships: &'a [&'a Membership],
    pub(super) states: &'a ChannelStates,
}

impl Greeting<'_> {
    pub(super) fn identity(&self) -> &Identity {
        self.session.identity()
    }

    /// Sends `session:ready`, and as many `session:channels` as the remaining channels need. Channels that the client knows
    /// already, because its session continues, are left out.
    pub(super) fn welcome(&self, knows: Option<&dyn Fn(&Membership) -> bool>) -> ImksResult<Accept> {
        let (now, identity) = (clock::now_micros(), self.session.identity());
        let listed = self.memberships.iter().filter(|it| knows.is_none_or(|knows| !knows(it)));
        let channels: Vec<ChannelState<'_>> =
            listed.map(|membership| ChannelState::new(membership, self.states, now)).collect();
        let mut chunks = channels.chunks(CHANNELS_PER_EVENT);
        let first = chunks.next().unwrap_or_default();
        let config = self.messaging.config();
        let ready = SessionReady {
            connection_id: self.session.connection_id(),
            session_id: identity.session_id.unwrap_or_else(|| self.session.connection_id()),
            protocol: PROTOCOL,
            feature_level: FEATURE_LEVEL,
            mode: self.mode,
            resumed: knows.is_some(),
            server: ServerInfo {
                name: NAME,
                version: VERSION,
                node: config.node.as_deref().unwrap_or_default(),
            },
            server_time: Timestamp(now),
            client: self.session.client(),
            user: User { id: identity.user_id, username: &identity.username },
            token_expires_at: Timestamp(identity.expires_at),
            limits: self.limits,
            channels: first,
            channels_complete: chunks.len() == 0,
        };
        let mut accept = Accept::default().with_event(READY.name(), &ready)?;
        while let Some(chunk) = chunks.next() {
            let more = SessionChannels { channels: chunk, channels_complete: chunks.len() == 0 };
            accept = accept.with_event(CHANNELS.name(), &more)?;
        }
        Ok(accept)
    }
}

/// The payload of `session:ready`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SessionReady<'a> {
    /// The id of this connection, which no other one has.
    connection_id: Uuid,
    /// The session that the token belongs to. Where its issuer names none, the id of this connection.
    session_id: Uuid,
    protocol: u32,
    feature_level: u32,
    mode: Mode,
    resumed: bool,
    server: ServerInfo<'a>,
    server_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a Client>,
    user: User<'a>,
    token_expires_at: Timestamp,
    limits: &'a Limits,
    channels: &'a [ChannelState<'a>],
    channels_complete: bool,
}

/// The payload of `session:channels`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SessionChannels<'a> {
    channels: &'a [ChannelState<'a>],
    channels_complete: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ServerInfo<'a> {
    name: &'static str,
    version: &'static str,
    node: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SessionUser")]
struct User<'a> {
    id: Uuid,
    username: &'a str,
}

/// The state of a channel for this user.
#[derive(Debug, Serialize, JsonSchema)]
struct ChannelState<'a> {
    channel_id: Uuid,
    name: &'a str,
    last_seq: i64,
    rev: i64,
    last_message_id: Option<Uuid>,
    /// Only where messages were removed because their time was over, as `horizon_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    horizon_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    horizon_id: Option<Uuid>,
    read_seq: i64,
    unread_count: i64,
    mention_count: i64,
    muted: bool,
    muted_until: Option<Timestamp>,
    notify_level: &'static str,
}

impl<'a> ChannelState<'a> {
    fn new(membership: &'a Membership, states: &ChannelStates, now: clock::Micros) -> Self {
        let id = membership.channel_id;
        let state = states.get(&id);
        let head = state.map_or_else(|| ChannelHead::empty(id), |state| state.head);
        let read = state.map(|state| state.read);
        Self {
            channel_id: id,
            name: &membership.name,
            last_seq: head.last_seq,
            rev: head.last_rev,
            last_message_id: head.last_message_id,
            horizon_seq: (head.horizon_seq > 0).then_some(head.horizon_seq),
            horizon_id: head.horizon_id,
            read_seq: read.map_or(head.last_seq, |read| read.read_seq),
            unread_count: read.map_or(0, |read| read.unread_count),
            mention_count: read.map_or(0, |read| read.mention_count),
            muted: membership.is_muted(now),
            muted_until: membership.muted_until.filter(|until| *until > now).map(Timestamp),
            notify_level: membership.notify_level.as_str(),
        }
    }
}

/// The first event of a connection.
pub(super) const READY: Push<SessionReady<'_>> = Push::new("session:ready");
/// The event with the channels that do not fit into the first one.
pub(super) const CHANNELS: Push<SessionChannels<'_>> = Push::new("session:channels");
/// The most channels in one event.
const CHANNELS_PER_EVENT: usize = 500;
