//! The types of a join: the payload that a client sends, and the application's acceptance.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::offsets::Session;
use crate::engine::Reservation;
use crate::error::ImksResult;
use crate::socket::codec::arguments::One;
use crate::socket::codec::binary;
use crate::socket::codec::encoder::{EncodedPacket, encode_event};
use crate::socket::codec::packet::Payload;
use crate::socket::recovery::event::{RecoverableEvent, encode_with_offset};

/// The payload that a client sends when it joins a namespace. `Debug` omits it, because it contains secrets.
#[derive(Clone)]
pub struct ConnectPayload {
    auth: Option<Arc<Payload>>,
    /// Whether the client gets a new session even if it names an earlier one.
    without_recovery: bool,
}

impl ConnectPayload {
    pub(crate) fn new(auth: Option<Payload>) -> Self {
        Self { auth: auth.map(Arc::new), without_recovery: false }
    }

    /// Returns the payload for a client that cannot recover its earlier session.
    pub(crate) fn without_recovery(self) -> Self {
        Self { without_recovery: true, ..self }
    }

    /// Returns the JSON that may name an earlier session.
    pub(crate) fn credentials(&self) -> Option<&str> {
        self.auth.as_ref().filter(|_| !self.without_recovery).map(|auth| auth.json.as_str())
    }

    /// Returns the `auth` option as JSON, or `{}` if the client gave none.
    pub fn json(&self) -> &str {
        self.auth.as_ref().map_or("{}", |auth| &auth.json)
    }

    /// Deserializes the `auth` option.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        let attachments = self.auth.as_ref().map_or(&[][..], |auth| &auth.attachments);
        Ok(binary::reading(attachments, || serde_json::from_str(self.json()))?)
    }
}

impl fmt::Debug for ConnectPayload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectPayload").finish_non_exhaustive()
    }
}

/// The acceptance of a client. Its events reach the client right after the CONNECT reply, before any other
/// event.
#[derive(Debug, Default)]
pub struct Accept {
    events: Vec<FirstEvent>,
    /// How many of them, the last ones, are what a client of the application's own session had missed.
    missed: usize,
    owner: Option<Box<str>>,
    reservation: Option<Reservation>,
    /// The session that the application keeps itself.
    pub(super) session: Option<Session>,
}

impl Accept {
    /// Adds an event with one argument.
    pub fn with_event(mut self, event: &str, data: &impl Serialize) -> ImksResult<Self> {
        self.events.push((event.into(), serde_json::value::to_raw_value(data)?));
        Ok(self)
    }

    /// Adds an event that the client had missed in its session of the application's own, after all others. It carries an offset of
    /// its own, so that a client which gets only some of them says so.
    pub(crate) fn with_missed(mut self, event: &str, data: &impl Serialize) -> ImksResult<Self> {
        self.missed += 1;
        self.with_event(event, data)
    }

    /// Sets the owner whom the connect hook authenticated.
    ///
    /// With connection state recovery, only a client of the same owner can recover this session. Others that
    /// know its private id get a new one.
    pub fn with_owner(mut self, owner: impl Into<Box<str>>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Holds a reservation while the events are in the outbox.
    ///
    /// `hold` gets the size of the events in bytes. The reservation is released when they have been sent or
    /// are lost with the connection.
    pub fn holding(mut self, hold: impl FnOnce(usize) -> Reservation) -> Self {
        let bytes = self.events.iter().map(|(event, data)| event.len() + data.get().len()).sum();
        self.reservation = Some(hold(bytes));
        self
    }

    /// Returns the session of the application's own.
    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(crate) fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    pub(crate) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Encodes the events. In a session of the application's own, the last one has its offset.
    pub(crate) fn encode(&self, namespace: &str) -> ImksResult<Vec<EncodedPacket>> {
        let Some(session) = &self.session else {
            return self.events.iter().map(|event| encode(namespace, event)).collect();
        };
        let (last, missed) = (self.events.len().saturating_sub(1), self.events.len() - self.missed);
        let encode = |(place, event): (usize, &FirstEvent)| match place {
            place if place == last => encode_with(namespace, event, &session.offset),
            place if place >= missed => encode_with(namespace, event, &session.in_part),
            _ => encode(namespace, event),
        };
        self.events.iter().enumerate().map(encode).collect()
    }

    /// Encodes the events, the last one with room for an offset: a client that has the last has them all.
    pub(crate) fn encode_recoverable(
        &self,
        namespace: &str,
    ) -> ImksResult<(Vec<EncodedPacket>, Option<RecoverableEvent>)> {
        let Some(((event, data), earlier)) = self.events.split_last() else { return Ok((Vec::new(), None)) };
        let last = RecoverableEvent::new(namespace, event, &One(data))?;
        let earlier = earlier.iter().map(|event| encode(namespace, event)).collect::<ImksResult<_>>()?;
        Ok((earlier, Some(last)))
    }
}

type FirstEvent = (Box<str>, Box<serde_json::value::RawValue>);

fn encode(namespace: &str, (event, data): &FirstEvent) -> ImksResult<EncodedPacket> {
    encode_event(namespace, None, event, &One(data))
}

fn encode_with(namespace: &str, (event, data): &FirstEvent, offset: &str) -> ImksResult<EncodedPacket> {
    encode_with_offset(namespace, event, &One(data), offset)
}

/// The owner of a session whom an authenticator named, unless the connect hook names another one.
pub(super) struct Owner(pub(super) Box<str>);

impl From<()> for Accept {
    fn from((): ()) -> Self {
        Self::default()
    }
}
