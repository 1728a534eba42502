//! How a namespace sends: what waits, what is in the outbox, and what finds no room.

use tokio::time::Instant;

use super::super::action::{Action, Emit, Reply, Ticket};
use super::super::context::Context;
use super::super::outbox::Outcome;
use super::{Namespace, Phase};
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::socket::codec::outgoing::Outgoing;

impl Namespace {
    /// Sends what waits.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        if self.moving.is_held {
            return;
        }
        for (id, emit) in std::mem::take(&mut self.buffer) {
            match cx.fitting(Outgoing::event(cx.settings.encoding, &self.path, id, &emit.event, &emit.args)) {
                Ok(packet) => {
                    match id {
                        Some(id) => self.answers.handle_sent(id, cx.now),
                        None => self.moving.sent(cx.now),
                    }
                    cx.push(packet, Some(emit.place));
                }
                Err(error) => {
                    id.and_then(|id| self.answers.take(id));
                    self.unsent(cx, emit, error);
                }
            }
        }
    }

    /// Sends the next entry of the outbox, if it is time for it. Those that can never be sent end here: the server
    /// would end every connection on which they come, and nothing behind them would ever be sent.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        while self.phase == Phase::Connected && !self.moving.is_held {
            let next = self.outbox.next(cx.now, self.next_ack, &cx.settings.retry);
            let Some((entry, place)) = next else { return };
            let packet = Outgoing::event(
                cx.settings.encoding,
                &self.path,
                Some(self.next_ack),
                &entry.event,
                &entry.args,
            );
            self.next_ack += 1;
            match cx.fitting(packet) {
                Ok(packet) => return cx.push(packet, Some(place)),
                Err(error) => {
                    drop(place);
                    self.outbox.refuse(error).into_iter().for_each(|outcome| report(cx, outcome));
                }
            }
        }
    }

    /// Drops the oldest events that wait for a connection, while more waits than there is room for. With a connection
    /// that is only the newest one, because the others are with the transport.
    pub(super) fn make_room(&mut self, cx: &mut Context<'_>) {
        while cx.budget.is_over() {
            let Some((id, emit)) = self.buffer.pop_front() else { return };
            id.and_then(|id| self.answers.take(id));
            self.unsent(cx, emit, ClientError::Dropped);
        }
    }

    /// Reports that an event was not sent: to whom waits for its answer, or else to whom listens for errors. That
    /// a volatile event was dropped is no error.
    pub(super) fn unsent(&self, cx: &mut Context<'_>, emit: Emit, error: ClientError) {
        match emit.answer {
            Some((ticket, _)) => cx.answer(ticket, Err(error)),
            None if emit.is_volatile => {}
            None => cx.notify(ClientEvent::Error(error)),
        }
    }

    /// Waits for the answer to an event. Returns the ack id for it.
    pub(super) fn expect(&mut self, ticket: Ticket, deadline: Instant) -> u64 {
        let id = self.next_ack;
        self.next_ack += 1;
        self.answers.expect(id, ticket, deadline);
        id
    }
}

/// Tells everybody how an entry of the outbox ended.
pub(super) fn report(cx: &mut Context<'_>, outcome: Outcome) {
    let Outcome { id, ticket, result } = outcome;
    cx.actions.push_back(Action::Forget(id));
    cx.notify(match &result {
        Ok(_) => ClientEvent::MessageSent { id },
        Err(error) => ClientEvent::MessageFailed { id, error: error.clone() },
    });
    if let Some(ticket) = ticket {
        cx.answer(ticket, result.map(Reply::Answer));
    }
}
