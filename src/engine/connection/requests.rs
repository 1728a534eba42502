//! The handling of a polling client's requests, and of its change to a duplex carrier.

use std::task::{Context, Poll};

use super::carrier::Carrier;
use super::duplex::DuplexCarrier;
use super::{Connection, Phase};
use crate::engine::close::close_content;
use crate::engine::duplex::Duplex;
use crate::engine::metrics::{self, Upgrade};
use crate::engine::polling::{GetReply, Inputs, Post};
use crate::engine::session::Wire;
use crate::engine::{CloseReason, Transport, frame};

impl Connection {
    /// Takes the requests that have arrived. Packets are handled first, so that a pong that arrived in time
    /// counts; then deadlines, so that a request that arrived too late finds the session closed; then the
    /// rest.
    pub(super) fn take_requests(&mut self, cx: &mut Context<'_>) {
        let Carrier::Polling(polling) = &self.carrier else { return };
        let Inputs { get, post, candidate, failure } = polling.inbox.take();
        if let Some(post) = post {
            self.take_post(post, cx);
        }
        self.session.handle_timeout(self.now);
        self.outputs(cx);
        if get.is_some() {
            self.session.handle_poll(self.now);
        }
        if let Some(wire) = candidate {
            self.take_candidate(wire, get.is_some());
        }
        // Read before the poll is taken: after the upgrade packet a poll is refused.
        self.read_candidate(cx);
        if let Some(get) = get {
            self.take_get(get);
        }
        if let Some(reason) = failure {
            self.session.handle_lost(Wire::Current, reason);
            self.outputs(cx);
        }
    }

    fn take_post(&mut self, post: Post, cx: &mut Context<'_>) {
        for packet in post.packets {
            self.session.handle_packet(Wire::Current, packet, self.now);
        }
        if post.malformed {
            // Dropping the reply refuses the request.
            self.session.handle_lost(Wire::Current, CloseReason::ParseError);
        } else if let Carrier::Polling(polling) = &mut self.carrier {
            polling.post = Some(post.reply);
        }
        self.outputs(cx);
        if let Carrier::Polling(polling) = &mut self.carrier
            && self.session.is_closed()
        {
            // Its packets arrive too late, which is not the client's fault.
            polling.answer_post();
        }
    }

    fn take_get(&mut self, get: GetReply) {
        let Carrier::Polling(polling) = &mut self.carrier else { return };
        polling.handle_get(&mut self.session, self.now);
        match self.phase {
            Phase::Live => polling.get = Some(get),
            Phase::Ending { reason, .. } => {
                polling.get = Some(get);
                polling.answer_last(frame::NOOP);
                self.finish(reason);
            }
            Phase::Ended(_) => drop(get),
        }
    }

    fn take_candidate(&mut self, wire: Box<Duplex>, polls: bool) {
        let Carrier::Polling(polling) = &mut self.carrier else { return };
        let poll_waits = polls || polling.get.is_some();
        if self.session.handle_attach(wire.transport(), poll_waits, self.now) {
            polling.candidate = Some(wire);
        }
    }

    fn read_candidate(&mut self, cx: &mut Context<'_>) {
        while let Carrier::Polling(polling) = &mut self.carrier
            && let Some(candidate) = &mut polling.candidate
        {
            let (session, now) = (&mut self.session, self.now);
            let read = candidate.poll_read(cx, &mut |packet| {
                // Packets that follow the upgrade packet in the same read already belong to the session.
                let wire = match session.transport() {
                    Transport::Polling => Wire::Candidate,
                    Transport::WebSocket | Transport::WebTransport | Transport::Quic => Wire::Current,
                };
                session.handle_packet(wire, packet, now);
            });
            match read {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) if session.transport() != Transport::Polling => self.lose(&end),
                Poll::Ready(Err(end)) => {
                    if let Some(content) = end.reply() {
                        polling.refuse_candidate(&content, cx);
                    }
                    self.session.handle_lost(Wire::Candidate, end.reason());
                }
            }
            self.outputs(cx);
        }
    }

    /// Answers the probe of the candidate. The flush at the end of the turn writes it.
    pub(super) fn answer_probe(&mut self) {
        if let Carrier::Polling(polling) = &mut self.carrier {
            polling.push_candidate(frame::PONG_PROBE);
        }
    }

    /// Makes the candidate the carrier of the session. Queued packets that were not polled are sent there.
    pub(super) fn switch(&mut self) {
        let Carrier::Polling(polling) = &mut self.carrier else { return };
        let Some(mut wire) = polling.candidate.take() else { return };
        polling.answer_last(frame::NOOP);
        polling.answer_post();
        wire.extend(std::mem::take(&mut polling.own));
        let (transport, inbox) = (wire.transport(), polling.inbox.clone());
        let queue = &self.outbox.0;
        queue.switch_to(transport);
        queue.compress_from(wire.threshold());
        // Closed after the switch, so that a refused request is told about the upgrade.
        inbox.close();
        self.carrier = Carrier::Duplex(DuplexCarrier::new(*wire));
        metrics::UPGRADES.of(Upgrade::Succeeded).increment();
        if let Some(registry) = &self.registry {
            registry.switched(&self.handshake.sid, transport);
        }
    }

    /// Drops the candidate. Another one may follow.
    pub(super) fn drop_candidate(&mut self, cx: &mut Context<'_>) {
        let Carrier::Polling(polling) = &mut self.carrier else { return };
        polling.refuse_candidate(&close_content(UPGRADE_REFUSED, "the upgrade did not follow its rules"), cx);
        polling.inbox.free_candidate();
        metrics::UPGRADES.of(Upgrade::Failed).increment();
    }
}

/// The close code of a wire that could not take over.
const UPGRADE_REFUSED: u16 = 1008;
