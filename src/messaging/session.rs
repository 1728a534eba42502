//! The session of a signed-in caller: identity, latest token, rate limits and order of writes.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::budget::ConnectionBudget;
use super::turn::WriteOrder;
use super::view::View;
use crate::auth::{Identity, Presented};
use crate::clock::{self, Micros};
use crate::rate_limit::{Bucket, Rate};
use crate::shown::is_unseen;
use crate::socket::Socket;
use crate::{ImksError, ImksResult};

/// One signed-in device. Stored with its socket; an HTTP request creates one of its own.
#[derive(Debug)]
pub struct Session {
    /// The id of this connection, unlike that of the token, which several connections may have.
    connection_id: Uuid,
    identity: Identity,
    /// The program that the caller uses, as it says itself.
    client: Option<Client>,
    /// The latest token, which decides expiry and revocation.
    presented: Mutex<Latest>,
    expires_at: AtomicI64,
    /// When [`super::expiry`] checks it next.
    look_at: AtomicI64,
    events: Mutex<Bucket>,
    /// The number of events refused by the rate limit, minus those accepted.
    refusals: AtomicU32,
    writes: WriteOrder,
    answers: ConnectionBudget,
    /// Channels that the client left by itself, so that a late change at the core does not rejoin them.
    /// Bounded, because each was one of the socket's rooms.
    unsubscribed: Mutex<HashSet<Uuid>>,
    /// Channels whose mentions the user does not want to hear of, and until when. Bounded, because the user is a
    /// member of each.
    quiet: Mutex<HashMap<Uuid, Micros>>,
    /// The channels that the client looks at. Locked while the socket changes its rooms.
    view: Mutex<View>,
}

/// The latest token, and the identity in it.
#[derive(Debug)]
struct Latest {
    identity: Identity,
    token: Token,
}

/// A token as presented, for requests to the core. It authenticates the user, so it never reaches a log.
#[derive(Clone)]
pub(super) struct Token {
    text: Arc<str>,
    peer: Option<SocketAddr>,
}

impl Token {
    /// Combines the text of a token with the address of the client.
    pub(super) fn new(text: &str, peer: Option<SocketAddr>) -> Self {
        Self { text: text.into(), peer }
    }

    /// Returns another token of the same client.
    pub(super) fn renewed(&self, text: &str) -> Self {
        Self { text: text.into(), peer: self.peer }
    }

    /// Returns the token for its verification.
    pub(super) fn presented(&self) -> Presented<'_> {
        Presented::new(&self.text, self.peer)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

/// The program that a client says it is, for logs and lists of sessions. Nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ClientInfo")]
pub struct Client {
    /// The name of the program; at most [`CLIENT_CHARS_MAX`] characters.
    pub name: Box<str>,
    /// Its version, bounded like the name.
    pub version: Option<Box<str>>,
}

impl Client {
    /// Reads `auth.client`. What does not have its form is left out, because a client is not refused for it. Long
    /// texts are cut, and characters that are not seen removed.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let text = |field: &str| {
            let shown = value.get(field)?.as_str()?.chars().filter(|c| !is_unseen(*c));
            let text: String = shown.take(CLIENT_CHARS_MAX).collect();
            (!text.trim().is_empty()).then(|| text.trim().into())
        };
        Some(Self { name: text("name")?, version: text("version") })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        self.version.as_ref().map_or(Ok(()), |version| write!(formatter, " {version}"))
    }
}

impl Session {
    /// Creates a session for the owner of a verified token.
    pub(super) fn new(identity: Identity, token: Token, client: Option<Client>) -> Self {
        Self {
            connection_id: clock::new_id(),
            expires_at: AtomicI64::new(identity.expires_at),
            presented: Mutex::new(Latest { identity: identity.clone(), token }),
            identity,
            client,
            look_at: AtomicI64::new(0),
            events: Mutex::default(),
            refusals: AtomicU32::new(0),
            writes: WriteOrder::default(),
            answers: ConnectionBudget::default(),
            unsubscribed: Mutex::default(),
            quiet: Mutex::default(),
            view: Mutex::default(),
        }
    }

    /// Returns the id of this connection.
    pub fn connection_id(&self) -> Uuid {
        self.connection_id
    }

    /// Returns the identity of the caller.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the program that the caller uses, if it said so.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Returns when the token expires. `auth:refresh` moves it.
    pub fn expires_at(&self) -> Micros {
        self.expires_at.load(Ordering::Relaxed)
    }

    /// Takes a token from the bucket of events. Disconnects a client that keeps sending although it is
    /// refused.
    pub(super) fn count_event(&self, rate: &Rate, socket: &Socket) -> ImksResult<()> {
        let taken = self.events.lock().take(rate, Instant::now());
        if let Err(retry_after) = taken {
            self.note_refusal(socket);
            return Err(ImksError::RateLimited { bucket: "events:socket", retry_after });
        }
        if self.refusals.load(Ordering::Relaxed) > 0 {
            self.refusals.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn note_refusal(&self, socket: &Socket) {
        if self.refusals.fetch_add(1, Ordering::Relaxed) == REFUSALS_MAX {
            tracing::warn!(
                socket_sid = socket.id(),
                "disconnected: it keeps sending although it is rate limited"
            );
            socket.disconnect(true);
        }
    }

    pub(super) fn writes(&self) -> &WriteOrder {
        &self.writes
    }

    pub(super) fn answers(&self) -> &ConnectionBudget {
        &self.answers
    }

    pub(super) fn look_at(&self) -> Micros {
        self.look_at.load(Ordering::Relaxed)
    }

    pub(super) fn set_look_at(&self, at: Micros) {
        self.look_at.store(at, Ordering::Relaxed);
    }

    /// Records that the client left a channel.
    pub(super) fn unsubscribe(&self, channel: Uuid) {
        self.unsubscribed.lock().insert(channel);
    }

    /// Records that the client joined a channel.
    pub(super) fn subscribe(&self, channel: Uuid) {
        self.unsubscribed.lock().remove(&channel);
    }

    /// Whether the client left the channel by itself.
    pub(super) fn has_unsubscribed(&self, channel: Uuid) -> bool {
        self.unsubscribed.lock().contains(&channel)
    }

    /// Records until when the user does not want to hear of mentions in a channel.
    pub(super) fn set_quiet(&self, channel: Uuid, until: Option<Micros>) {
        let mut quiet = self.quiet.lock();
        match until {
            Some(until) => drop(quiet.insert(channel, until)),
            None => drop(quiet.remove(&channel)),
        }
    }

    /// Whether the user does not want to hear of mentions in a channel at `now`.
    pub(super) fn is_quiet(&self, channel: Uuid, now: Micros) -> bool {
        self.quiet.lock().get(&channel).is_some_and(|until| *until > now)
    }

    /// Returns the channels that the client looks at. Nobody changes the rooms of the socket until it is dropped.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock()
    }

    /// Replaces the token with a new one of the same user.
    pub(super) fn renew(&self, identity: Identity, token: Token) {
        self.expires_at.store(identity.expires_at, Ordering::Relaxed);
        *self.presented.lock() = Latest { identity, token };
    }

    /// Returns the identity in the latest token.
    pub(super) fn latest(&self) -> Identity {
        self.presented.lock().identity.clone()
    }

    /// Returns the latest token.
    pub(super) fn token(&self) -> Token {
        self.presented.lock().token.clone()
    }
}

/// The surplus of refused over accepted events at which the connection is closed.
const REFUSALS_MAX: u32 = 1_000;
/// The characters of a client's name, and of its version, that are kept.
const CLIENT_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_says_what_it_is_in_a_few_characters_or_not_at_all() {
        let read = |value: Value| Client::read(&value).map(|client| client.to_string());
        assert_eq!(
            read(json!({"name": "web", "version": "1.4.0", "platform": "x"})),
            Some("web 1.4.0".into())
        );
        assert_eq!(read(json!({"name": "we\u{1b}b\n"})), Some("web".into()));
        assert_eq!(read(json!({"name": "ä".repeat(1_000), "version": 7})), Some("ä".repeat(64)));
        for nothing in [json!(null), json!("web"), json!({}), json!({"name": " "}), json!({"name": ["web"]})]
        {
            assert_eq!(read(nothing.clone()), None, "{nothing}");
        }
    }
}
