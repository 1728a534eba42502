//! Login sessions of the page. After a login with the password, it may return without it for a day.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::ImksResult;

/// A store of login sessions.
///
/// With a store that all servers share (for example Redis), a page can switch to any server without a new
/// login, even to one that was started later.
pub trait SessionStore: Send + Sync {
    /// Whether this session exists and has not expired.
    fn contains<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ImksResult<bool>>;

    /// Stores a session for `ttl`.
    fn insert<'a>(&'a self, id: &'a str, ttl: Duration) -> BoxFuture<'a, ImksResult<()>>;
}

/// The sessions in the memory of this process. If it is full, those that expire first are dropped.
#[derive(Debug, Default)]
pub(super) struct MemorySessions(Mutex<HashMap<Box<str>, Instant>>);

impl MemorySessions {
    pub(super) fn contains(&self, id: &str, now: Instant) -> bool {
        self.0.lock().get(id).is_some_and(|end| now < *end)
    }

    pub(super) fn insert(&self, id: &str, now: Instant, ttl: Duration) {
        let mut sessions = self.0.lock();
        if sessions.len() >= SESSIONS_MAX {
            sessions.retain(|_, end| now < *end);
        }
        while sessions.len() >= SESSIONS_MAX {
            let Some(oldest) = sessions.iter().min_by_key(|(_, end)| **end).map(|(id, _)| id.clone()) else {
                break;
            };
            sessions.remove(&oldest);
        }
        sessions.insert(id.into(), now + ttl);
    }
}

/// The lifetime of a session from its login.
pub const SESSION_TTL: Duration = Duration::from_secs(86_400);
/// The maximum number of sessions in memory.
pub const SESSIONS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_a_day() {
        let (sessions, now) = (MemorySessions::default(), Instant::now());
        sessions.insert("a", now, SESSION_TTL);
        assert!(sessions.contains("a", now + SESSION_TTL - Duration::from_secs(1)));
        assert!(!sessions.contains("a", now + SESSION_TTL));
        assert!(!sessions.contains("b", now));
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_make_room() {
        let (sessions, start) = (MemorySessions::default(), Instant::now());
        for n in 0..SESSIONS_MAX + 10 {
            sessions.insert(&n.to_string(), start + Duration::from_secs(n as u64), SESSION_TTL);
        }
        let now = start + Duration::from_secs(SESSIONS_MAX as u64 + 10);
        assert_eq!(sessions.0.lock().len(), SESSIONS_MAX);
        assert!(!sessions.contains("9", now) && sessions.contains("10", now));
    }
}
