//! The change of a living connection to another transport, which loses nothing.
//!
//! The other transport is open already, with a session of Engine.IO and no namespace. Nothing new is sent any more
//! while what is under way comes to its end. Then the old transport closes, and when the server has seen that, the
//! namespaces are joined on the other one, where the server restores them and sends what was missed in between.

use std::time::Duration;

use tokio::time::Instant;

use super::action::{Action, Opened, earlier, later};
use super::namespace::{Namespace, Rest};
use super::{Core, Phase, decoder};
use crate::client::event::ClientEvent;
use crate::socket::codec::outgoing::Outgoing;

/// How far a change is.
#[derive(Debug)]
pub(super) enum Switch {
    /// What is under way is waited for, no longer than until then.
    Holding { opened: Opened, until: Instant },
    /// The old transport says goodbye.
    Leaving { opened: Opened },
}

impl Core {
    /// Whether the connection could change its transport now.
    pub(crate) fn may_switch(&self) -> bool {
        let without_recovery = self.settings.switch_without_recovery;
        matches!(self.phase, Phase::Open { .. })
            && self.switch.is_none()
            && self.namespaces.values().any(Namespace::is_wanted)
            && self.namespaces.values().all(|namespace| namespace.may_move(without_recovery))
    }

    /// Handles a transport that has opened beside the one in use, and is to take its place.
    pub(crate) fn handle_successor(&mut self, now: Instant, opened: Opened) {
        if !self.may_switch() {
            return self.actions.push_back(Action::DropSuccessor);
        }
        self.switch = Some(Switch::Holding { opened, until: later(now, HOLD_MAX) });
        self.namespaces.values_mut().for_each(Namespace::hold);
        self.advance_switch(now);
    }

    /// Notes whether the transport has not taken yet what was sent.
    pub(crate) fn handle_congestion(&mut self, is_congested: bool) {
        self.is_congested = is_congested;
    }

    /// Handles a successor that has ended before its turn.
    pub(crate) fn handle_successor_lost(&mut self, now: Instant) {
        match self.switch {
            Some(Switch::Holding { .. }) => self.stay(now),
            _ => self.actions.push_back(Action::DropSuccessor),
        }
    }

    /// Handles the end of the transport that [`Action::HandOver`] closes: the successor is in its place.
    pub(crate) fn handle_handed_over(&mut self, now: Instant) {
        let Some(Switch::Leaving { opened }) =
            self.switch.take_if(|switch| matches!(switch, Switch::Leaving { .. }))
        else {
            return;
        };
        // Nothing was joined together with the handshake.
        let Opened { transport, silence_max, payload_max, early: _ } = opened;
        self.payload_max = payload_max;
        self.phase = Phase::Open { silence_max, dead_at: now + silence_max };
        self.decoder = decoder(&self.settings);
        self.last_rtt = None;
        self.notify(ClientEvent::TransportSwitched { transport });
        self.with_all(now, Namespace::release);
    }

    /// Hands over if nothing is under way any more, or stays if that takes too long.
    pub(super) fn advance_switch(&mut self, now: Instant) {
        let Some(Switch::Holding { until, .. }) = self.switch else { return };
        let without_recovery = self.settings.switch_without_recovery;
        let namespaces = self.namespaces.values_mut();
        let rest = namespaces.map(|namespace| namespace.rest(now, without_recovery)).max();
        match rest.unwrap_or(Rest::Still) {
            // The goodbye might leave behind what the transport has not taken.
            _ if self.is_congested && now < until => {}
            _ if self.is_congested => self.stay(now),
            Rest::Still => self.hand_over(now),
            Rest::Outbox if until <= now => self.hand_over(now),
            _ if until <= now => self.stay(now),
            _ => {}
        }
    }

    /// Returns when [`Core::advance_switch`] has something to do.
    pub(super) fn poll_switch(&self) -> Option<Instant> {
        let Some(Switch::Holding { until, .. }) = self.switch else { return None };
        self.namespaces.values().map(Namespace::settles_at).fold(Some(until), earlier)
    }

    /// Forgets a change, because the connection has ended. Returns whether the old transport is saying goodbye.
    pub(super) fn forget_switch(&mut self) -> bool {
        let switch = self.switch.take();
        if switch.is_some() {
            self.namespaces.values_mut().for_each(Namespace::forget_move);
        }
        matches!(switch, Some(Switch::Leaving { .. }))
    }

    fn hand_over(&mut self, now: Instant) {
        let Phase::Open { dead_at, .. } = self.phase else { return };
        let Some(Switch::Holding { opened, .. }) = self.switch.take() else { return };
        // Nothing is heard any more on the old transport, and its goodbye has a limit of its own.
        self.phase = Phase::Open { silence_max: opened.silence_max, dead_at: later(now, Duration::MAX) };
        self.switch = Some(Switch::Leaving { opened });
        self.namespaces.values_mut().for_each(Namespace::depart);
        self.send(Outgoing { text: "1".into(), attachments: Vec::new() });
        self.actions.push_back(Action::HandOver(dead_at.min(now + LEAVE_MAX)));
    }

    fn stay(&mut self, now: Instant) {
        self.switch = None;
        self.actions.push_back(Action::DropSuccessor);
        self.with_all(now, Namespace::release);
    }
}

/// How long the server may take to end the old transport. One that is silent for longer than the heartbeat allows is taken
/// for gone before.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// How long what is under way may take before the connection stays on its transport. New events wait for as long.
const HOLD_MAX: Duration = Duration::from_secs(3);
