//! The leases of those who are typing. Pure: `now` is an argument, and the caller sends what is returned.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::models::message::AuthorInfo;

/// A channel, or a thread in it.
pub(super) type Place = (Uuid, Option<Uuid>);

/// Everybody who is typing on this node.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_place: HashMap<Place, Vec<Lease>>,
    /// The end of each lease.
    ends: BTreeSet<(Instant, Place, Uuid)>,
    /// The places in which each socket is typing.
    by_socket: HashMap<Box<str>, Vec<Place>>,
}

#[derive(Debug)]
struct Lease {
    user: AuthorInfo,
    /// The socket that renewed it last.
    socket: Box<str>,
    ends_at: Instant,
    told_at: Instant,
}

/// What became of a `typing:start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::messaging) enum Started {
    /// Others have to be told.
    Tell,
    /// The lease is longer now, and others were told a moment ago.
    Renewed,
    /// Too many others are typing there.
    Full,
}

impl Leases {
    /// Starts or renews the lease of a user.
    pub(super) fn start(&mut self, place: Place, user: &AuthorInfo, socket: &str, now: Instant) -> Started {
        let leases = self.by_place.entry(place).or_default();
        let ends_at = now + LEASE;
        if let Some(lease) = leases.iter_mut().find(|lease| lease.user.id == user.id) {
            self.ends.remove(&(lease.ends_at, place, user.id));
            self.ends.insert((ends_at, place, user.id));
            lease.ends_at = ends_at;
            if &*lease.socket != socket {
                unlink(&mut self.by_socket, &lease.socket, place);
                lease.socket = socket.into();
                self.by_socket.entry(socket.into()).or_default().push(place);
            }
            if now < lease.told_at + TELL_AGAIN {
                return Started::Renewed;
            }
            lease.told_at = now;
            return Started::Tell;
        }
        if leases.len() >= TYPISTS_MAX {
            return Started::Full;
        }
        leases.push(Lease { user: user.clone(), socket: socket.into(), ends_at, told_at: now });
        self.ends.insert((ends_at, place, user.id));
        self.by_socket.entry(socket.into()).or_default().push(place);
        Started::Tell
    }

    /// Ends the lease of a user. Returns the user if there was one.
    pub(super) fn stop(&mut self, place: Place, user: Uuid) -> Option<AuthorInfo> {
        let leases = self.by_place.get_mut(&place)?;
        let lease = leases.swap_remove(leases.iter().position(|lease| lease.user.id == user)?);
        if leases.is_empty() {
            self.by_place.remove(&place);
        }
        self.ends.remove(&(lease.ends_at, place, user));
        unlink(&mut self.by_socket, &lease.socket, place);
        Some(lease.user)
    }

    /// Ends the leases of a socket: those in one channel, or all of them.
    pub(super) fn stop_socket(
        &mut self,
        socket: &str,
        channel: Option<Uuid>,
        user: Uuid,
    ) -> Vec<(Place, AuthorInfo)> {
        let places = self.by_socket.get(socket).cloned().unwrap_or_default();
        let wanted = places.into_iter().filter(|place| channel.is_none_or(|channel| channel == place.0));
        wanted.filter_map(|place| Some((place, self.stop(place, user)?))).collect()
    }

    /// Ends the leases that are over at `now`.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Place, AuthorInfo)> {
        let mut over = Vec::new();
        while let Some(&(ends_at, place, user)) = self.ends.first()
            && ends_at <= now
        {
            over.extend(self.stop(place, user).map(|user| (place, user)));
        }
        over
    }

    /// Returns the number of leases.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

fn unlink(by_socket: &mut HashMap<Box<str>, Vec<Place>>, socket: &str, place: Place) {
    let Some(places) = by_socket.get_mut(socket) else { return };
    places.retain(|typed| *typed != place);
    if places.is_empty() {
        by_socket.remove(socket);
    }
}

/// How long somebody is shown as typing after their last `typing:start`.
pub(super) const LEASE: Duration = Duration::from_secs(6);
/// How often others are told again that somebody is still typing, at most.
const TELL_AGAIN: Duration = Duration::from_secs(3);
/// The most users that are shown as typing in one channel or thread.
pub(super) const TYPISTS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = (Uuid::nil(), None);

    fn user(number: u128) -> AuthorInfo {
        AuthorInfo { id: Uuid::from_u128(number), username: "alice".into() }
    }

    #[test]
    fn nobody_types_for_longer_than_six_seconds_after_the_last_sign() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        assert_eq!(leases.start(PLACE, &user(1), "a", start), Started::Tell);
        assert_eq!(leases.start(PLACE, &user(1), "a", start + Duration::from_secs(2)), Started::Renewed);
        assert_eq!(leases.start(PLACE, &user(1), "a", start + Duration::from_secs(4)), Started::Tell);
        assert!(leases.expire(start + Duration::from_millis(9_999)).is_empty());
        assert_eq!(leases.expire(start + Duration::from_secs(10)), [(PLACE, user(1))]);
        assert_eq!((leases.len(), leases.by_place.len(), leases.by_socket.len()), (0, 0, 0));
    }

    #[test]
    fn twenty_type_and_the_next_waits_for_one_to_stop() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        for number in 0..20 {
            assert_eq!(leases.start(PLACE, &user(number), "s", now), Started::Tell);
        }
        assert_eq!(leases.start(PLACE, &user(20), "s", now), Started::Full);
        assert_eq!(leases.stop(PLACE, user(3).id), Some(user(3)));
        assert_eq!(leases.stop(PLACE, user(3).id), None);
        assert_eq!(leases.start(PLACE, &user(20), "s", now), Started::Tell);
    }

    #[test]
    fn a_second_device_takes_over_so_that_the_first_may_leave() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.start(PLACE, &user(1), "phone", now);
        leases.start(PLACE, &user(1), "laptop", now);
        assert!(leases.stop_socket("phone", None, user(1).id).is_empty());
        assert_eq!(leases.stop_socket("laptop", None, user(1).id), [(PLACE, user(1))]);
    }

    proptest! {
        #[test]
        fn the_indexes_agree_after_any_steps(steps in prop::collection::vec((0..4_u8, 0..3_u128, 0..3_u128), 0..200)) {
            let (mut leases, mut now) = (Leases::default(), Instant::now());
            for (step, who, place) in steps {
                let (place, socket) = ((Uuid::from_u128(place), None), format!("s{who}"));
                match step {
                    0 => drop(leases.start(place, &user(who), &socket, now)),
                    1 => drop(leases.stop(place, user(who).id)),
                    2 => drop(leases.stop_socket(&socket, None, user(who).id)),
                    _ => {
                        now += Duration::from_secs(4);
                        leases.expire(now);
                    }
                }
                let all: usize = leases.by_place.values().map(Vec::len).sum();
                let linked: usize = leases.by_socket.values().map(Vec::len).sum();
                prop_assert_eq!((all, linked), (leases.len(), leases.len()));
                prop_assert!(leases.by_place.values().all(|leases| !leases.is_empty()));
            }
        }
    }
}
