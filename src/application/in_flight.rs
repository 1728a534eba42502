//! The events in progress of each user: bounded, so that one user cannot take the places of all.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::{ImksError, ImksResult};

/// The number of events in progress, by user. Users without any are not in the map.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<Uuid, usize>>);

impl InFlight {
    /// Takes a place of a user, which is free again when the value is dropped.
    pub(super) fn begin(&self, user: Uuid) -> ImksResult<Place<'_>> {
        let mut users = self.0.lock();
        let count = users.entry(user).or_default();
        if *count >= PER_USER_MAX {
            return Err(ImksError::RateLimited { bucket: "app:user", retry_after: RETRY_AFTER });
        }
        *count += 1;
        Ok(Place { users: self, user })
    }
}

/// A place that is taken.
pub(super) struct Place<'a> {
    users: &'a InFlight,
    user: Uuid,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut users = self.users.0.lock();
        match users.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(users.remove(&self.user)),
        }
    }
}

/// The most events of one user in progress at once.
pub(super) const PER_USER_MAX: usize = 8;
const RETRY_AFTER: Duration = Duration::from_secs(1);
