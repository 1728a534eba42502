//! The clients that are known: those that are connected, and those that were shortly before. A client is known by its
//! address, and by the header `Authorization` of its first request if it sends one.
//!
//! Only hashes are kept, with a key of this process: neither addresses nor tokens can be read out of its memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::rate_limit::network;

/// The known clients of one node.
#[derive(Debug, Default)]
pub(crate) struct KnownClients {
    hasher: RandomState,
    /// How many sessions each one has: as many entries as there are sessions at most, or two times as many.
    connected: DashMap<u64, u32>,
    gone: Mutex<Gone>,
}

/// The clients whose last session has ended, in two generations: the older one is forgotten as a whole.
#[derive(Debug, Default)]
struct Gone {
    /// When the younger generation began.
    since: Option<Instant>,
    younger: HashSet<u64>,
    older: HashSet<u64>,
}

impl KnownClients {
    /// Whether somebody at this address is connected, or was shortly before.
    pub(crate) fn knows_address(&self, ip: IpAddr) -> bool {
        self.has(self.of_address(ip), Instant::now())
    }

    /// Whether somebody at this address, or with this `Authorization`, is connected or was shortly before.
    pub(crate) fn knows(&self, ip: IpAddr, authorization: Option<&str>) -> bool {
        let now = Instant::now();
        self.names(ip, authorization).any(|name| self.has(name, now))
    }

    /// Notes that a client has a session more.
    pub(crate) fn arrived(&self, ip: IpAddr, authorization: Option<&str>) {
        for name in self.names(ip, authorization) {
            *self.connected.entry(name).or_default() += 1;
        }
    }

    /// Notes that a session of a client has ended, for which it had arrived.
    pub(crate) fn left(&self, ip: IpAddr, authorization: Option<&str>) {
        let now = Instant::now();
        for name in self.names(ip, authorization) {
            let Entry::Occupied(mut entry) = self.connected.entry(name) else { continue };
            match entry.get() {
                0 | 1 => drop(entry.remove()),
                more => *entry.get_mut() = more - 1,
            }
            self.gone.lock().add(name, now);
        }
    }

    fn has(&self, name: u64, now: Instant) -> bool {
        self.connected.contains_key(&name) || self.gone.lock().has(name, now)
    }

    fn names(&self, ip: IpAddr, authorization: Option<&str>) -> impl Iterator<Item = u64> {
        let authorization = authorization.filter(|text| !text.is_empty());
        let of_credential = authorization.map(|text| self.name(("authorization", text)));
        std::iter::once(self.of_address(ip)).chain(of_credential)
    }

    fn of_address(&self, ip: IpAddr) -> u64 {
        self.name(("address", network(ip)))
    }

    fn name(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }
}

impl Gone {
    fn add(&mut self, name: u64, now: Instant) {
        self.turn(now);
        if self.younger.len() >= GONE_MAX {
            self.begin(now);
        }
        self.younger.insert(name);
    }

    fn has(&mut self, name: u64, now: Instant) -> bool {
        self.turn(now);
        self.younger.contains(&name) || self.older.contains(&name)
    }

    /// Forgets what is older than two generations may be.
    fn turn(&mut self, now: Instant) {
        let age = self.since.map(|since| now.saturating_duration_since(since));
        if age.is_none_or(|age| age >= GENERATION) {
            self.begin(now);
        }
        if age.is_some_and(|age| age >= 2 * GENERATION) {
            self.older = HashSet::new();
        }
    }

    fn begin(&mut self, now: Instant) {
        self.since = Some(now);
        self.older = std::mem::take(&mut self.younger);
    }
}

/// How long a client is known at least after its last session, unless very many leave.
const GENERATION: Duration = Duration::from_mins(5);
/// The number of clients in one generation of those that have gone; the next one begins a new generation.
const GONE_MAX: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_known_while_it_is_connected_and_some_minutes_longer() {
        let known = KnownClients::default();
        let (here, there) = (ip("203.0.113.9"), ip("203.0.113.10"));
        assert!(!known.knows_address(here));
        known.arrived(here, None);
        known.arrived(here, None);
        tokio::time::advance(Duration::from_hours(9)).await;
        assert!(known.knows_address(here) && !known.knows_address(there));
        known.left(here, None);
        tokio::time::advance(Duration::from_hours(9)).await;
        assert!(known.knows_address(here), "one of two is still there");
        known.left(here, None);
        tokio::time::advance(GENERATION - Duration::from_secs(1)).await;
        assert!(known.knows_address(here));
        tokio::time::advance(2 * GENERATION).await;
        assert!(!known.knows_address(here));
        assert!(known.connected.is_empty());
    }

    #[tokio::test]
    async fn a_client_that_comes_from_elsewhere_is_known_by_its_authorization() {
        let known = KnownClients::default();
        known.arrived(ip("203.0.113.9"), Some("Bearer a"));
        let elsewhere = ip("198.51.100.1");
        assert!(known.knows(elsewhere, Some("Bearer a")));
        assert!(!known.knows(elsewhere, Some("Bearer b")) && !known.knows(elsewhere, None));
        known.left(ip("203.0.113.9"), Some("Bearer a"));
        assert!(known.knows(elsewhere, Some("Bearer a")), "shortly before");
        known.arrived(elsewhere, Some(""));
        assert!(!known.knows(ip("198.51.100.2"), Some("")), "an empty header is nobody's");
    }

    #[tokio::test]
    async fn the_end_of_an_ipv6_address_is_nobody_in_particular() {
        let known = KnownClients::default();
        known.arrived(ip("2001:db8::1"), None);
        assert!(known.knows_address(ip("2001:db8::2")) && !known.knows_address(ip("2001:db8:0:1::1")));
    }

    #[tokio::test]
    async fn however_many_have_gone_the_memory_is_bounded() {
        let known = KnownClients::default();
        for number in 0..3 * u32::try_from(GONE_MAX).unwrap() {
            let address = IpAddr::V4(number.into());
            known.arrived(address, None);
            known.left(address, None);
        }
        let gone = known.gone.lock();
        assert!(gone.younger.len() <= GONE_MAX && gone.older.len() <= GONE_MAX);
        assert!(known.connected.is_empty());
    }

    #[tokio::test]
    async fn an_end_without_a_beginning_changes_nothing() {
        let known = KnownClients::default();
        known.left(ip("203.0.113.9"), Some("Bearer a"));
        assert!(!known.knows(ip("203.0.113.9"), Some("Bearer a")));
    }
}
