//! Sessions that the application keeps itself, where the namespace has none (`Config::recovery`): the application numbers its
//! events, stores what it needs, and decides in its connect hook who comes back. The stock client sees the same as with
//! the sessions of a namespace.
#![cfg_attr(
    not(feature = "server"),
    allow(dead_code, unused_imports, reason = "the messaging server alone has such sessions")
)]

use std::cell::OnceCell;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::cluster_link::{Target, Waits};
use super::connect::{Accept, ConnectPayload};
use super::namespace::Namespace;
pub(crate) use super::offsets::{Numbers, Offset, Session, Stamp, Subject, TRAIL_MAX};
use super::socket::Socket;
use crate::error::ImksResult;
use crate::socket::codec::arguments::Arguments;
use crate::socket::codec::dialect::Renderings;
use crate::socket::codec::encoder::{EncodedPacket, encode_event};
use crate::socket::recovery::event::encode_with_offset;

/// What a client that comes back says about its session.
#[derive(Deserialize)]
pub(crate) struct Returning<'a> {
    /// The private id that it was given.
    #[serde(borrow)]
    pub(crate) pid: &'a str,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
}

impl<'a> Returning<'a> {
    /// Returns what a client says about its session, if it says anything.
    pub(crate) fn find(payload: &'a ConnectPayload) -> Option<Self> {
        let json = payload.credentials().filter(|json| json.contains("\"pid\""))?;
        serde_json::from_str(json).ok()
    }

    /// Returns the offset. Clients take any text that comes last in an event for one.
    pub(crate) fn offset(&self) -> Option<Offset> {
        Offset::parse(serde_json::from_str(self.offset?.get()).ok()?)
    }
}

impl Accept {
    /// Gives the client a session of the application's own: it may come back to it, and the last one of the first events
    /// carries its offset. Call [`Socket::keep_offsets`] before the socket enters rooms.
    pub(crate) fn with_session(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }
}

impl Namespace {
    /// Whether [`Self::emit_stamped`] takes a fraction of a millisecond for an event of so many bytes.
    pub(crate) fn sends_soon(&self, room: &str, bytes: usize) -> bool {
        let receivers = self.rooms().get(room).map_or(0, |room| room.len());
        receivers <= RECEIVERS_SOON && bytes <= BYTES_SOON && !self.watches_outgoing()
    }

    /// Sends an event to the sockets of this node in a room, with its offset for those that keep offsets. It replaces an
    /// earlier one with the same key as [`Broadcast::latest`](super::broadcast::Broadcast::latest) says.
    pub(crate) fn emit_stamped(
        &self,
        room: &str,
        (event, args): (&str, &impl Arguments),
        stamp: &Stamp,
        latest: Option<&str>,
    ) -> ImksResult<()> {
        let target = Target { rooms: vec![room], except: Vec::new() };
        let waits = Waits { latest, ..Waits::default() };
        if self.watches_outgoing() {
            self.show(&target, None, &encode_event(self.path(), None, event, args)?);
        }
        let stamped = encode_with_offset(self.path(), event, args, &stamp.offset.text())?;
        let stamped = Renderings::new(&stamped);
        // Most rooms have nobody who needs it.
        let encoded = OnceCell::<Option<EncodedPacket>>::new();
        let encode = || encode_event(self.path(), None, event, args).ok();
        let plain = OnceCell::<Option<Renderings<'_>>>::new();
        let slot = self.slot(&target, waits.latest);
        self.send_to_each(&target, None, |socket| {
            let (packet, subject) = match socket.keeps_offsets() {
                true => (Some(&stamped), stamp.subject),
                false => {
                    let plain =
                        plain.get_or_init(|| encoded.get_or_init(encode).as_ref().map(Renderings::new));
                    (plain.as_ref(), None)
                }
            };
            let Some(packet) = packet else { return };
            if let Err(error) = socket.deliver_about(packet, subject, slot) {
                tracing::trace!(socket_sid = %socket.id(), ?error, "not delivered");
            }
        });
        Ok(())
    }
}

impl Socket {
    /// Sends this client the offsets of events, because it may come back to a session of the application's own.
    pub(crate) fn keep_offsets(&self) {
        self.offsets().keep();
    }

    fn keeps_offsets(&self) -> bool {
        self.offsets().keeps()
    }
}

/// The most receivers, and the most bytes of an event, that take a fraction of a millisecond.
const RECEIVERS_SOON: usize = 256;
const BYTES_SOON: usize = 8 << 10;
