//! The replay of packets that a returning client has missed.

use tokio::time::Instant;

use super::SessionStore;
use super::link::{Credentials, Link, Resume};
use super::log::{Log, Logged};
use super::record::{Joining, Memberships, Record, State};
use super::sent::{Next, Position};
use crate::engine::Frame;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::socket_id::SocketId;

impl SessionStore {
    /// Links a connection to the session that its client claims, if that session can be recovered.
    pub(super) fn claim(&self, credentials: &Credentials) -> Option<Link> {
        let Credentials { pid, offset } = *credentials;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let claim = state.next_claim();
        let record = state.by_pid.get_mut(&pid).filter(|record| !matches!(record.state, State::New))?;
        let asked = !self.config.skip_middlewares || record.owner.is_some();
        // If the hook is skipped, nothing sends the hook's events again.
        if !asked && record.greeted && offset.is_none() {
            return None;
        }
        let from = self.resume_from(&state.log, record, offset)?;
        self.missed(&state.log, record.id, &record.memberships, from)?;
        let memberships = Memberships::new(state.log.last());
        record.joining = Some(Joining { claim, memberships, dropped: Default::default() });
        let resume = Some(Resume { offset, data: record.data.clone(), asked });
        let (id, sent) = (record.id, record.sent.clone());
        Some(Link { pid, id, claim, sent, resume, waits_for: Default::default() })
    }

    /// Returns the position up to which the client has everything, if all later packets are still stored.
    pub(super) fn resume_from(
        &self,
        log: &Log,
        record: &Record,
        offset: Option<Position>,
    ) -> Option<Position> {
        let began = record.memberships.began();
        let mut from = offset.unwrap_or(began).max(began);
        if from > log.last() {
            return None;
        }
        let left_at = match record.state {
            State::Away { since: (since, _), .. } if self.is_too_late(since, Instant::now()) => return None,
            State::Away { position, .. } => position,
            _ => log.last(),
        };
        // Packets between two packets for the same client were for others.
        match record.sent.next(from) {
            Next::Nothing => from = from.max(left_at),
            Next::At(next) => from = next - 1,
            Next::Unknown => {}
        }
        (from >= record.memberships.known_from() && from + 1 >= log.first()).then_some(from)
    }

    /// Returns the packets for a session after a position, unless there are too many.
    pub(super) fn missed(
        &self,
        log: &Log,
        id: SocketId,
        memberships: &Memberships,
        from: Position,
    ) -> Option<Vec<(Position, EncodedPacket)>> {
        let (mut missed, mut bytes) = (Vec::new(), 0);
        for (position, entry) in log.after(from) {
            let (addressees, packet) = match &entry.logged {
                Logged::Packet(addressees, packet) => (addressees, packet),
                Logged::Unreadable => return None,
                Logged::Change(..) | Logged::Taken(..) => continue,
            };
            if !addressees.include(id, memberships, position) {
                continue;
            }
            bytes += packet.iter().map(Frame::len).sum::<usize>();
            if missed.len() >= self.config.replay_packets_max || bytes > self.config.replay_bytes_max {
                return None;
            }
            missed.push((position, packet.clone()));
        }
        Some(missed)
    }
}
