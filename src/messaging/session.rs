//! What a signed-in caller has: who they are, the token they presented last, their place in line.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::budget::ConnectionBudget;
use super::turn::WriteOrder;
use crate::auth::Identity;
use crate::clock::Micros;
use crate::rate_limit::{Bucket, Rate};
use crate::socket::Socket;
use crate::{ImksError, ImksResult};

/// One signed-in device. Kept with its socket; over HTTP one is made for each request.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    /// Counts for expiry and revocation.
    presented: Mutex<Presented>,
    expires_at: AtomicI64,
    /// When [`super::expiry`] looks at it next.
    look_at: AtomicI64,
    events: Mutex<Bucket>,
    /// Events refused for their rate, less those accepted.
    refusals: AtomicU32,
    writes: WriteOrder,
    answers: ConnectionBudget,
    /// Channels that the client left by itself: a late change at the core does not bring it back. Each was one of
    /// its rooms, so there are no more than it had rooms.
    unsubscribed: Mutex<HashSet<Uuid>>,
}

/// The token presented last, and what it says.
#[derive(Debug)]
struct Presented {
    identity: Identity,
    token: Token,
}

/// A token as it was presented, for questions to the core. Whoever has it is the user: it never reaches a log.
#[derive(Clone)]
pub(super) struct Token(Arc<str>);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(token.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The token in an `Authorization` header; the name of the scheme is compared without regard to case (RFC 9110).
    pub(super) fn bearer(header: &str) -> Option<&str> {
        let (scheme, token) = header.trim_start().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

impl Session {
    /// A session of somebody whose token was verified.
    pub(super) fn new(identity: Identity, token: Token) -> Self {
        Self {
            expires_at: AtomicI64::new(identity.expires_at),
            presented: Mutex::new(Presented { identity: identity.clone(), token }),
            identity,
            look_at: AtomicI64::new(0),
            events: Mutex::default(),
            refusals: AtomicU32::new(0),
            writes: WriteOrder::default(),
            answers: ConnectionBudget::default(),
            unsubscribed: Mutex::default(),
        }
    }

    /// Whose session this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When its token ends; later after `auth:refresh`.
    pub fn expires_at(&self) -> Micros {
        self.expires_at.load(Ordering::Relaxed)
    }

    /// Takes one from the bucket of events. A client that goes on although it is refused has to go.
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
                "disconnected: goes on sending although it is rate limited"
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

    /// Notes that the client left a channel that it was in.
    pub(super) fn unsubscribe(&self, channel: Uuid) {
        self.unsubscribed.lock().insert(channel);
    }

    /// Notes that the client entered a channel.
    pub(super) fn subscribe(&self, channel: Uuid) {
        self.unsubscribed.lock().remove(&channel);
    }

    /// Whether the client left the channel by itself.
    pub(super) fn has_unsubscribed(&self, channel: Uuid) -> bool {
        self.unsubscribed.lock().contains(&channel)
    }

    /// Takes over a new token of the same user.
    pub(super) fn renew(&self, identity: Identity, token: Token) {
        self.expires_at.store(identity.expires_at, Ordering::Relaxed);
        *self.presented.lock() = Presented { identity, token };
    }

    /// What the token presented last says.
    pub(super) fn latest(&self) -> Identity {
        self.presented.lock().identity.clone()
    }

    /// The token presented last.
    pub(super) fn token(&self) -> Token {
        self.presented.lock().token.clone()
    }
}

/// So many more events refused for their rate than accepted, and the connection is closed.
const REFUSALS_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_of_an_authorization_header_may_have_any_case() {
        for header in ["Bearer abc", "bearer abc", "BEARER   abc ", " Bearer abc"] {
            assert_eq!(Token::bearer(header), Some("abc"), "{header:?}");
        }
        for header in ["Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc", ""] {
            assert_eq!(Token::bearer(header), None, "{header:?}");
        }
    }
}
