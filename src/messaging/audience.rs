//! Those who follow channels on this node, and what they are told of committed events.

use uuid::Uuid;

use super::activity::{Activity, MESSAGE_NEW};
use super::channel_rooms;
use super::resume::{Kind, Place, Resume};
use crate::ImksResult;
use crate::models::append::Told;
use crate::models::message_sync::SYNC_REQUIRED;
use crate::node::NodeId;
use crate::socket::Namespace;
use crate::socket::parser::RawArgs;

/// Those who follow channels on this node, whom what is committed is told.
#[derive(Debug, Clone)]
pub(super) struct Audience {
    namespace: Namespace,
    activity: Activity,
    resume: Resume,
}

impl Audience {
    pub(super) fn new(namespace: &Namespace, activity: &Activity, resume: &Resume) -> Self {
        Self { namespace: namespace.clone(), activity: activity.clone(), resume: resume.clone() }
    }

    /// Whether anybody follows a channel.
    pub(super) fn follows(&self, channel: Uuid) -> bool {
        channel_rooms::is_followed(&self.namespace, channel)
    }

    /// Returns the other nodes that are known to be alive.
    pub(super) fn other_nodes(&self) -> Vec<NodeId> {
        self.namespace.cluster().others()
    }

    /// Tells an event. A failure is only logged: a client that misses an event learns of it by `sync`.
    pub(super) fn tell(&self, channel: Uuid, news: News<'_>) {
        let News { head, event, json, state_of } = news;
        let (room, key) = (channel_rooms::whole_room(channel), state_of.map(|id| format!("{event}:{id}")));
        if self.namespace.has_room(&room)
            && let Err(error) = self.emit(&room, channel, &news, key.as_deref())
        {
            tracing::debug!(event, %error, "event not sent");
        }
        // Afterwards, so that who moves from one room to the other gets one of the two.
        self.activity.note(&self.namespace, channel, head, event, json);
    }

    /// Sends an event to those who look at its channel here, and notes in which order they get it among others.
    fn emit(&self, room: &str, channel: Uuid, news: &News<'_>, key: Option<&str>) -> ImksResult<()> {
        let ((seq, rev), args) = (news.head, RawArgs { json: news.json, attachments: &[] });
        let at = Place { seq, rev };
        let delivering =
            self.resume.delivering(channel, at, self.namespace.sends_soon(room, news.json.len()));
        match (delivering.stamp(channel, at, kind(news.event)), key) {
            (Some(stamp), key) => self.namespace.emit_stamped(room, (news.event, &args), &stamp, key),
            (None, Some(key)) => self.namespace.to(room).local().latest(key).emit_args(news.event, &args),
            (None, None) => self.namespace.to(room).local().emit_args(news.event, &args),
        }
    }

    /// Tells an event without a number to those who look at the channel, on all nodes. Clients that cannot take it right
    /// then miss it.
    pub(super) fn tell_in_passing(&self, channel: Uuid, event: &str, json: &str) {
        let room = channel_rooms::whole_room(channel);
        let args = RawArgs { json, attachments: &[] };
        if let Err(error) = self.namespace.to(&room).volatile().emit_args(event, &args) {
            tracing::debug!(event, %error, "event not sent");
        }
    }
}

/// Returns which number an event has; `None` if it stands for several that were missed.
fn kind(event: &str) -> Option<Kind> {
    match event {
        MESSAGE_NEW => Some(Kind::Message),
        SYNC_REQUIRED => None,
        _ => Some(Kind::Change),
    }
}

/// A committed event of a channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct News<'a> {
    /// The `seq` and `rev` of the channel after it.
    pub(super) head: (i64, i64),
    pub(super) event: &'a str,
    pub(super) json: &'a str,
    /// What the event tells the whole state of.
    pub(super) state_of: Option<Uuid>,
}

impl<'a> News<'a> {
    /// Returns an event with its payload as text, unless it has no number.
    pub(super) fn of(told: &'a Told, json: &'a str) -> Option<Self> {
        Some(Self { head: told.head()?, event: told.event(), json, state_of: told.state_of() })
    }
}
