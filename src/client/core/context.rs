//! What a namespace works with: the time, the settings, and what it wants done.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::action::{Action, PayloadMax, Reply, Sending, Settings, Ticket};
use crate::client::budget::{Budget, Place};
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::ClientEvent;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::outgoing::Outgoing;

/// What the methods of a namespace read from and write to.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) settings: &'a Settings,
    pub(super) budget: &'a Budget,
    pub(super) payload_max: PayloadMax,
    pub(super) random: fn() -> f64,
    pub(super) actions: &'a mut VecDeque<Action>,
    /// The time from an event to its answer, where this was measured.
    pub(super) rtt: Option<Duration>,
}

impl Context<'_> {
    pub(super) fn answer(&mut self, ticket: Ticket, result: Result<Reply, ClientError>) {
        self.actions.push_back(Action::Answer(ticket, result));
    }

    pub(super) fn notify(&mut self, event: ClientEvent) {
        self.actions.push_back(Action::Notify(event));
    }

    pub(super) fn send(&mut self, packet: ImksResult<Outgoing>) {
        self.send_with(packet, None);
    }

    pub(super) fn send_with(&mut self, packet: ImksResult<Outgoing>, place: Option<Place>) {
        match self.fitting(packet) {
            Ok(packet) => self.push(packet, place),
            Err(error) => self.notify(ClientEvent::Error(error)),
        }
    }

    /// Returns the packet, unless it could not be encoded or the server would not take it.
    pub(super) fn fitting(&self, packet: ImksResult<Outgoing>) -> ClientResult<Outgoing> {
        let packet = packet.map_err(ClientError::invalid)?;
        let PayloadMax { bytes, is_base64 } = self.payload_max;
        match packet.largest_message(is_base64) <= bytes {
            true => Ok(packet),
            false => Err(ClientError::invalid(ImksError::LimitReached("maxPayload of the server"))),
        }
    }

    pub(super) fn push(&mut self, packet: Outgoing, place: Option<Place>) {
        self.actions.push_back(Action::Send(Sending { packet, place }));
    }
}
