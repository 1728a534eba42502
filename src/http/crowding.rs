//! What one address may have: connections at a time, and new sessions per second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http::metrics;
use crate::rate_limit::{Bucket, Rate, network};

/// The connections and new sessions of each address. An IPv6 network of 64 bits counts as one address.
#[derive(Debug, Default)]
pub(super) struct Crowding(Mutex<HashMap<IpAddr, Use>>);

#[derive(Debug, Default)]
struct Use {
    connections: usize,
    sessions: Bucket,
}

impl Crowding {
    /// Takes a place for a connection; `None` if the address has `max` already.
    pub(super) fn connect(self: &Arc<Self>, ip: IpAddr, max: usize) -> Option<Place> {
        let network = network(ip);
        let mut all = self.0.lock();
        sweep(&mut all, Instant::now());
        let of_network = all.entry(network).or_default();
        if of_network.connections >= max {
            metrics::CROWDED.increment();
            return None;
        }
        of_network.connections += 1;
        Some(Place { crowding: self.clone(), network })
    }

    /// Counts a new session, or returns the time after which the address may begin one.
    pub(super) fn begin(&self, ip: IpAddr, rate: &Rate, now: Instant) -> Result<(), Duration> {
        let mut all = self.0.lock();
        sweep(&mut all, now);
        let taken = all.entry(network(ip)).or_default().sessions.take(rate, now);
        taken.inspect_err(|_| metrics::CROWDED.increment())
    }
}

/// Forgets addresses that use nothing, each time the map would grow: its size stays that of what is in use.
fn sweep(all: &mut HashMap<IpAddr, Use>, now: Instant) {
    if all.len() == all.capacity() {
        all.retain(|_, known| known.connections > 0 || !known.sessions.is_full(now));
        // With as much room as there are addresses, the next look at all of them is that many new ones away. Without it, a
        // map that is full of addresses in use would be looked through for each connection.
        all.reserve(all.len());
    }
}

/// The place of one connection, also after it has become a WebSocket.
#[derive(Debug)]
pub(super) struct Place {
    crowding: Arc<Crowding>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(known) = self.crowding.0.lock().get_mut(&self.network) {
            known.connections -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn one_address_has_so_many_connections_and_others_are_not_concerned() {
        let crowding = Arc::new(Crowding::default());
        let held: Vec<Place> = (0..3).map(|_| crowding.connect(ip("203.0.113.9"), 3).unwrap()).collect();
        assert!(crowding.connect(ip("203.0.113.9"), 3).is_none());
        assert!(crowding.connect(ip("203.0.113.10"), 3).is_some());
        drop(held);
        assert!(crowding.connect(ip("203.0.113.9"), 3).is_some());
    }

    #[tokio::test]
    async fn who_changes_the_end_of_an_ipv6_address_is_still_one() {
        let crowding = Arc::new(Crowding::default());
        let _held = crowding.connect(ip("2001:db8::1"), 1).unwrap();
        assert!(crowding.connect(ip("2001:db8::ffff"), 1).is_none());
        assert!(crowding.connect(ip("2001:db8:0:1::1"), 1).is_some());
    }

    #[tokio::test]
    async fn a_burst_of_sessions_passes_and_the_wait_is_told() {
        let (crowding, rate, now) = (Crowding::default(), Rate::new(1, 2), Instant::now());
        assert!(crowding.begin(ip("203.0.113.9"), &rate, now).is_ok());
        assert!(crowding.begin(ip("203.0.113.9"), &rate, now).is_ok());
        let wait = crowding.begin(ip("203.0.113.9"), &rate, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        assert!(crowding.begin(ip("203.0.113.9"), &rate, now + wait).is_ok());
    }

    #[tokio::test]
    async fn addresses_that_are_gone_are_forgotten() {
        let (crowding, rate, now) = (Crowding::default(), Rate::new(1, 1), Instant::now());
        for number in 0..100_000_u32 {
            let at = now + Duration::from_millis(u64::from(number));
            crowding.begin(IpAddr::V4(number.into()), &rate, at).unwrap();
        }
        assert!(crowding.0.lock().capacity() < 10_000);
    }

    #[tokio::test]
    async fn after_a_look_at_all_addresses_there_is_room_for_as_many_new_ones() {
        let (mut all, now) = (HashMap::new(), Instant::now());
        while all.is_empty() || all.len() < all.capacity() {
            let number = u32::try_from(all.len()).unwrap();
            all.insert(IpAddr::V4(number.into()), Use { connections: 1, ..Use::default() });
        }
        let in_use = all.len();
        sweep(&mut all, now);
        assert_eq!(all.len(), in_use);
        assert!(all.capacity() >= 2 * in_use, "{} of {in_use}", all.capacity());
    }
}
