//! Who is connected, who has left, and who comes back again and again: the samples of `imks top`, put together.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

/// A connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Session {
    pub(super) user_id: String,
    /// The name of the user; empty where a server of an older version does not tell it.
    pub(super) username: String,
    pub(super) socket_id: String,
    pub(super) node: String,
    pub(super) transport: String,
    pub(super) peer: String,
    pub(super) client_name: String,
    pub(super) client_version: String,
    pub(super) connected_us: i64,
    /// The last time from a ping to its pong; 0 if it is not known.
    pub(super) rtt_us: i64,
}

impl Session {
    /// Returns what people call the user: the name, or the id without one.
    pub(super) fn who(&self) -> &str {
        if self.username.is_empty() { &self.user_id } else { &self.username }
    }
}

/// What a server says at one time.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) sessions: Vec<Session>,
    /// How many sessions were closed since its start, by reason; `None` if it does not tell.
    pub(super) closed: Option<BTreeMap<String, u64>>,
}

/// A connection that has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Left {
    pub(super) session: Session,
    pub(super) left_us: i64,
    /// Why, if all that were closed at that time were closed for one reason.
    pub(super) reason: Option<String>,
}

/// The order of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Order {
    /// The slowest first, by the time from a ping to its pong; those without one last, pollers before the others
    #[default]
    Slowest,
    /// Those who come back most often first, then the slowest transport, then the newest
    Trouble,
    /// The newest first
    Newest,
    /// The oldest first
    Oldest,
    /// By user
    User,
    /// By address
    Peer,
}

impl Order {
    /// Returns the order after this one.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Slowest => Self::Trouble,
            Self::Trouble => Self::Newest,
            Self::Newest => Self::Oldest,
            Self::Oldest => Self::User,
            Self::User => Self::Peer,
            Self::Peer => Self::Slowest,
        }
    }

    /// Returns the word for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slowest => "slowest",
            Self::Trouble => "trouble",
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::User => "user",
            Self::Peer => "peer",
        }
    }
}

/// All that the samples have shown.
#[derive(Debug, Default)]
pub(super) struct Table {
    sessions: Vec<Session>,
    left: VecDeque<Left>,
    /// How often a user has come back while this watched.
    returns: HashMap<String, u64>,
    /// How many sessions were closed while this watched, by reason.
    reasons: BTreeMap<String, u64>,
    counters: Option<BTreeMap<String, u64>>,
    failure: Option<String>,
    samples: u64,
}

impl Table {
    /// Takes a sample, at the time `now_us`.
    pub(super) fn take(&mut self, sample: Sample, now_us: i64) {
        let changes = self.count(sample.closed);
        if self.samples > 0 {
            self.compare(&sample.sessions, changes, now_us);
        }
        self.samples += 1;
        self.failure = None;
        self.sessions = sample.sessions;
    }

    /// Notes that a sample failed. What is known stays.
    pub(super) fn fail(&mut self, why: &str) {
        self.failure = Some(why.to_owned());
    }

    /// Returns the connections in an order.
    pub(super) fn sorted(&self, order: Order) -> Vec<&Session> {
        let mut sorted: Vec<&Session> = self.sessions.iter().collect();
        sorted.sort_by(|one, other| {
            let ordering = match order {
                Order::Slowest => slowness(other).cmp(&slowness(one)),
                Order::Trouble => self.trouble(other).cmp(&self.trouble(one)),
                Order::Newest => other.connected_us.cmp(&one.connected_us),
                Order::Oldest => one.connected_us.cmp(&other.connected_us),
                Order::User => (one.who(), &one.user_id).cmp(&(other.who(), &other.user_id)),
                Order::Peer => one.peer.cmp(&other.peer),
            };
            ordering.then_with(|| one.socket_id.cmp(&other.socket_id))
        });
        sorted
    }

    /// Returns how often a user has come back.
    pub(super) fn returns(&self, user: &str) -> u64 {
        self.returns.get(user).copied().unwrap_or_default()
    }

    /// Returns those who have left, the last first.
    pub(super) fn left(&self) -> impl Iterator<Item = &Left> {
        self.left.iter()
    }

    /// Returns how many were closed for which reason while this watched; `None` if the server does not tell.
    pub(super) fn reasons(&self) -> Option<&BTreeMap<String, u64>> {
        self.counters.as_ref().map(|_| &self.reasons)
    }

    /// Returns why the last sample failed, if it did.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Returns how many connections there are, by transport.
    pub(super) fn transports(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for session in &self.sessions {
            *counts.entry(&*session.transport).or_default() += 1;
        }
        counts
    }

    fn trouble(&self, session: &Session) -> (u64, bool, i64) {
        (self.returns(&session.user_id), session.transport == "polling", session.connected_us)
    }

    /// Takes the counters of reasons. Returns those that have changed since the sample before.
    fn count(&mut self, counters: Option<BTreeMap<String, u64>>) -> Vec<String> {
        let mut changed = Vec::new();
        if let (Some(before), Some(now)) = (&self.counters, &counters) {
            for (reason, count) in now {
                // A server that was started again begins from 0.
                let more = count.saturating_sub(before.get(reason).copied().unwrap_or_default());
                if more > 0 {
                    changed.push(reason.clone());
                    *self.reasons.entry(reason.clone()).or_default() += more;
                }
            }
        }
        self.counters = counters;
        changed
    }

    fn compare(&mut self, now: &[Session], reasons: Vec<String>, now_us: i64) {
        let ids = |sessions: &[Session]| -> HashSet<String> {
            sessions.iter().map(|session| session.socket_id.clone()).collect()
        };
        let (before, here) = (ids(&self.sessions), ids(now));
        let reason = <[String; 1]>::try_from(reasons).ok().map(|[reason]| reason);
        for session in self.sessions.iter().filter(|session| !here.contains(&session.socket_id)) {
            self.left.push_front(Left { session: session.clone(), left_us: now_us, reason: reason.clone() });
        }
        let came = now.iter().filter(|session| !before.contains(&session.socket_id));
        for session in came {
            let was_here = self.left.iter().any(|left| left.session.user_id == session.user_id);
            let is_known = self.returns.contains_key(&session.user_id);
            if was_here && (is_known || self.returns.len() < USERS_MAX) {
                *self.returns.entry(session.user_id.clone()).or_default() += 1;
            }
        }
        self.left.truncate(LEFT_MAX);
    }
}

fn slowness(session: &Session) -> (i64, bool) {
    (session.rtt_us, session.transport == "polling")
}

/// The most connections that have ended and are remembered.
const LEFT_MAX: usize = 1_000;
/// The most users whose returns are counted.
const USERS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn session(user: &str, socket: &str, transport: &str, connected_us: i64) -> Session {
        Session {
            user_id: user.into(),
            socket_id: socket.into(),
            transport: transport.into(),
            connected_us,
            ..Session::default()
        }
    }

    fn sample(sessions: Vec<Session>, slow: u64, close: u64) -> Sample {
        let closed = BTreeMap::from([("slow".into(), slow), ("transport_close".into(), close)]);
        Sample { sessions, closed: Some(closed) }
    }

    #[test]
    fn who_comes_back_again_and_again_stands_first_then_who_polls() {
        let mut table = Table::default();
        let steady = session("a", "1", "websocket", 5);
        let polling = session("b", "2", "polling", 1);
        table
            .take(sample(vec![steady.clone(), polling.clone(), session("c", "3", "websocket", 2)], 0, 0), 10);
        table.take(sample(vec![steady.clone(), polling.clone()], 0, 1), 20);
        table.take(sample(vec![steady, polling, session("c", "4", "websocket", 25)], 0, 1), 30);
        let users: Vec<&str> = table.sorted(Order::Trouble).iter().map(|session| &*session.user_id).collect();
        assert_eq!((users, table.returns("c")), (vec!["c", "b", "a"], 1));
        let oldest: Vec<&str> = table.sorted(Order::Oldest).iter().map(|session| &*session.user_id).collect();
        assert_eq!(oldest, ["b", "a", "c"]);
    }

    #[test]
    fn the_slowest_stand_first_and_those_without_a_round_trip_last() {
        let mut table = Table::default();
        let with = |user: &str, transport: &str, rtt_us: i64| Session {
            rtt_us,
            ..session(user, user, transport, 0)
        };
        let sessions = [
            ("a", "websocket", 0),
            ("b", "websocket", 9_000),
            ("c", "polling", 0),
            ("d", "websocket", 90_000),
        ];
        let sessions = sessions.map(|(user, transport, rtt_us)| with(user, transport, rtt_us));
        table.take(sample(sessions.into(), 0, 0), 1);
        let users: Vec<&str> =
            table.sorted(Order::default()).iter().map(|session| &*session.user_id).collect();
        assert_eq!(users, ["d", "b", "c", "a"]);
    }

    #[test]
    fn who_has_left_is_told_with_the_reason_where_there_was_only_one() {
        let mut table = Table::default();
        let (one, two) = (session("a", "1", "websocket", 5), session("b", "2", "polling", 1));
        table.take(sample(vec![one.clone(), two.clone()], 7, 7), 10);
        table.take(sample(vec![two], 8, 7), 20);
        table.take(sample(vec![], 9, 8), 30);
        let left: Vec<(&str, Option<&str>)> =
            table.left().map(|left| (&*left.session.user_id, left.reason.as_deref())).collect();
        assert_eq!(left, [("b", None), ("a", Some("slow"))]);
        assert_eq!(
            table.reasons().unwrap(),
            &BTreeMap::from([("slow".into(), 2), ("transport_close".into(), 1)])
        );
    }

    #[test]
    fn a_server_that_was_started_again_and_one_that_tells_nothing_break_nothing() {
        let mut table = Table::default();
        table.take(sample(vec![], 9, 9), 1);
        table.take(sample(vec![], 0, 1), 2);
        assert!(table.reasons().unwrap().is_empty());
        table.take(Sample::default(), 3);
        assert_eq!(table.reasons(), None);
        table.fail("no answer");
        assert_eq!(table.failure(), Some("no answer"));
    }
}
