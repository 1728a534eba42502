//! The admission of QUIC connections: how many there may be, in total and from one network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::metrics;
use crate::engine::for_anybody;
use crate::rate_limit::network;

/// The admission of connections.
#[derive(Debug)]
pub(super) struct Admission {
    connections_max: usize,
    per_address_max: usize,
    /// The number of connections that have sent no session request yet.
    handshakes: AtomicUsize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// What is known of the sender of a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Its address may be forged.
    Unproven,
    /// Its address is its own, and nobody is known there.
    New,
    /// Its address is its own, and a client there is connected, or was shortly before.
    ComesBack,
}

/// The decision about a connection.
pub(super) enum Verdict {
    Accept(ConnectionSlot, HandshakeSlot),
    Retry,
    Refuse,
}

impl Admission {
    /// Creates an admission of at most `connections_max` connections, and `per_address_max` from one network.
    pub(super) fn new(connections_max: usize, per_address_max: usize) -> Self {
        Self { connections_max, per_address_max, handshakes: AtomicUsize::new(0), open: Mutex::default() }
    }

    /// Decides about a connection. An address that is not validated may be forged, so it is never the reason
    /// for a refusal, nor for what is kept for clients that come back.
    pub(super) fn decide(self: &Arc<Self>, ip: IpAddr, peer: Peer, connections: usize) -> Verdict {
        let network = network(ip);
        let mut open = self.open.lock();
        let of_network = open.get(&network).copied().unwrap_or(0);
        let handshakes = self.handshakes.load(Ordering::Relaxed);
        let full = connections >= self.connections_max || handshakes >= HANDSHAKES_MAX;
        let kept =
            connections >= for_anybody(self.connections_max) || handshakes >= for_anybody(HANDSHAKES_MAX);
        let validated = peer != Peer::Unproven;
        let crowded = full
            || handshakes >= HANDSHAKES_MAX / 8
            || connections >= self.connections_max / 2
            || of_network >= self.per_address_max / 2;
        if full && (validated || connections >= self.connections_max) {
            return Verdict::Refuse;
        }
        if crowded && !validated {
            return Verdict::Retry;
        }
        if kept && peer != Peer::ComesBack {
            return Verdict::Refuse;
        }
        if of_network >= self.per_address_max {
            return Verdict::Refuse;
        }
        *open.entry(network).or_default() += 1;
        drop(open);
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        metrics::QUIC_CONNECTIONS.add(1);
        Verdict::Accept(ConnectionSlot { admission: self.clone(), network }, HandshakeSlot(self.clone()))
    }
}

/// A permit for one open connection.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    admission: Arc<Admission>,
    network: IpAddr,
}

/// A permit for one connection that has sent no session request yet.
#[derive(Debug)]
pub(super) struct HandshakeSlot(Arc<Admission>);

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        metrics::QUIC_CONNECTIONS.add(-1);
        let mut open = self.admission.open.lock();
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

/// The maximum number of connections that have sent no session request yet.
const HANDSHAKES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        Arc::new(Admission::new(100, 4))
    }

    fn accepted(verdict: Verdict) -> ConnectionSlot {
        match verdict {
            Verdict::Accept(slot, _) => slot,
            Verdict::Retry => panic!("retry"),
            Verdict::Refuse => panic!("refused"),
        }
    }

    #[test]
    fn an_address_with_many_connections_proves_itself_and_is_then_refused() {
        let (admission, ip) = (admission(), "10.0.0.1".parse().unwrap());
        let _first = [(); 2].map(|()| accepted(admission.decide(ip, Peer::Unproven, 0)));
        assert!(matches!(admission.decide(ip, Peer::Unproven, 0), Verdict::Retry));
        let second = [(); 2].map(|()| accepted(admission.decide(ip, Peer::New, 0)));
        assert!(matches!(admission.decide(ip, Peer::New, 0), Verdict::Refuse));
        assert!(matches!(
            admission.decide("10.0.0.2".parse().unwrap(), Peer::Unproven, 0),
            Verdict::Accept(..)
        ));
        drop(second);
        accepted(admission.decide(ip, Peer::New, 0));
    }

    #[test]
    fn a_full_server_refuses_and_a_busy_one_asks_for_proof() {
        let (admission, ip) = (admission(), "10.0.0.1".parse().unwrap());
        assert!(matches!(admission.decide(ip, Peer::New, 100), Verdict::Refuse));
        assert!(matches!(admission.decide(ip, Peer::Unproven, 50), Verdict::Retry));
        accepted(admission.decide(ip, Peer::New, 50));
        assert!(admission.open.lock().is_empty());
    }

    #[test]
    fn the_last_quarter_is_for_clients_that_come_back_and_a_forged_address_is_no_client() {
        let (admission, ip) = (admission(), "10.0.0.1".parse().unwrap());
        assert!(matches!(admission.decide(ip, Peer::New, 75), Verdict::Refuse));
        assert!(matches!(admission.decide(ip, Peer::Unproven, 75), Verdict::Retry));
        accepted(admission.decide(ip, Peer::ComesBack, 75));
        accepted(admission.decide(ip, Peer::New, 74));
        assert!(matches!(admission.decide(ip, Peer::ComesBack, 100), Verdict::Refuse));
        admission.handshakes.store(HANDSHAKES_MAX / 4 * 3, Ordering::Relaxed);
        assert!(matches!(admission.decide(ip, Peer::New, 0), Verdict::Refuse));
        accepted(admission.decide(ip, Peer::ComesBack, 0));
    }

    #[test]
    fn a_network_counts_as_one_address() {
        let [a, b, c] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|ip| network(ip.parse().unwrap()));
        assert!(a == b && a != c);
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), network("10.0.0.1".parse().unwrap()));
    }
}
