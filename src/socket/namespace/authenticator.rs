//! Authenticators: the application's own check of who a client is, before it joins a namespace.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::builder::NamespaceBuilder;
use super::connect::{ConnectPayload, Owner};
use super::refusal::ConnectError;
use super::socket::Socket;
use crate::engine::Handshake;

/// Decides who a client is when it joins a namespace; see [`NamespaceBuilder::authenticate`].
///
/// An asynchronous function or closure that takes [`Credentials`] is one. Ready ones are [`StaticTokens`] for tests
/// and, with the feature `server`, those in `imks::authenticators`: keys that sign JSON Web Tokens, and an HTTP hook.
pub trait Authenticator: Send + Sync + 'static {
    /// What is known about an authenticated client. Handlers find it as [`Socket::data`].
    type Identity: Send + Sync + 'static;

    /// Returns the identity of a client, or why it may not join.
    ///
    /// # Errors
    /// A [`ConnectError`] that is final, such as [`ConnectError::unauthenticated`], is sent to the client, which then
    /// stays away. For a cause that passes, [`ConnectError::reconnect`] ends the transport, so that a stock client
    /// comes back by itself.
    fn authenticate(
        &self,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Self::Identity, ConnectError>> + Send;

    /// Returns the name of the user, if only the same user may recover the session; see
    /// [`Accept::with_owner`](crate::socket::Accept::with_owner).
    fn owner(&self, identity: &Self::Identity) -> Option<String> {
        let _ = identity;
        None
    }
}

impl<F, Fut, T> Authenticator for F
where
    F: Fn(Credentials) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, ConnectError>> + Send,
    T: Send + Sync + 'static,
{
    type Identity = T;

    fn authenticate(
        &self,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Self::Identity, ConnectError>> + Send {
        self(credentials)
    }
}

/// What a client presents when it joins a namespace. `Debug` omits the payload, which contains secrets.
#[derive(Clone)]
pub struct Credentials {
    handshake: Arc<Handshake>,
    payload: ConnectPayload,
}

impl Credentials {
    /// Returns the token of the client: the text in `auth.token`, or else in the header `Authorization: Bearer` of the
    /// handshake. Never one in the query string, which ends up in logs.
    pub fn token(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Auth {
            token: Option<String>,
        }
        let in_payload = self.payload.parse::<Auth>().ok().and_then(|auth| auth.token);
        in_payload.filter(|token| !token.is_empty()).or_else(|| token_in_header(&self.handshake))
    }

    /// Returns the `auth` option of the client.
    pub fn payload(&self) -> &ConnectPayload {
        &self.payload
    }

    /// Returns the first request of the connection: its address, headers and query.
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("handshake", &self.handshake).finish_non_exhaustive()
    }
}

/// Returns the token in the header `Authorization: Bearer` of a handshake.
pub(crate) fn token_in_header(handshake: &Handshake) -> Option<String> {
    handshake.header("authorization").and_then(bearer).map(str::to_owned)
}

/// Returns the token of an `Authorization` header. The scheme is case-insensitive (RFC 9110).
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim_start().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The limits of an [`Authenticator`].
#[derive(Debug, Clone, Copy)]
pub struct AuthenticatorLimits {
    /// How long an answer may take, including the wait for its turn. After it, the transport of the client ends, and
    /// a stock client comes back by itself.
    pub deadline: Duration,
    /// The number of clients that are authenticated at once. Further ones wait within their deadline.
    pub calls_max: usize,
    /// The number of clients that wait for their turn. The transport of any further one ends at once.
    pub waiting_max: usize,
}

impl Default for AuthenticatorLimits {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5), calls_max: 256, waiting_max: 8_192 }
    }
}

impl NamespaceBuilder {
    /// Sets who may join: only clients that `authenticator` names, and nobody while it gives no answer.
    ///
    /// It runs before the connect hook, in the order of the [middleware](NamespaceBuilder::middleware). Its identity
    /// is attached to the socket.
    ///
    /// ```
    /// use imks::socket::{ConnectError, Credentials, Reply, Server, Socket};
    ///
    /// struct User(String);
    ///
    /// async fn who(credentials: Credentials) -> Result<User, ConnectError> {
    ///     match credentials.token().as_deref() {
    ///         Some("secret") => Ok(User("alice".into())),
    ///         _ => Err(ConnectError::unauthenticated()),
    ///     }
    /// }
    ///
    /// # fn main() -> imks::ImksResult<()> {
    /// let server = Server::builder(Default::default())
    ///     .namespace("/", |ns| {
    ///         ns.authenticate(who);
    ///         ns.on_typed("whoami", |socket: Socket, ()| async move {
    ///             Reply(socket.data::<User>().map(|user| user.0.clone()))
    ///         });
    ///     })
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn authenticate(&mut self, authenticator: impl Authenticator) -> &mut Self {
        self.authenticate_within(AuthenticatorLimits::default(), authenticator)
    }

    /// Sets who may join, as [`NamespaceBuilder::authenticate`] does, with other limits.
    pub fn authenticate_within(
        &mut self,
        limits: AuthenticatorLimits,
        authenticator: impl Authenticator,
    ) -> &mut Self {
        let [slots, places] =
            [limits.calls_max, limits.calls_max.saturating_add(limits.waiting_max)].map(permits);
        let gate = Arc::new(Gate { authenticator, slots, places, limits });
        self.middleware(move |socket, payload| {
            let gate = gate.clone();
            async move { gate.pass(socket, payload).await }
        })
    }
}

/// Returns a semaphore of so many permits, as far as there can be that many.
fn permits(count: usize) -> Semaphore {
    Semaphore::new(count.min(Semaphore::MAX_PERMITS))
}

/// An authenticator with its limits.
struct Gate<A> {
    authenticator: A,
    slots: Semaphore,
    /// The slots, and the places of those who wait for one.
    places: Semaphore,
    limits: AuthenticatorLimits,
}

impl<A: Authenticator> Gate<A> {
    async fn pass(&self, socket: Socket, payload: ConnectPayload) -> Result<(), ConnectError> {
        let credentials = Credentials { handshake: socket.handshake().clone(), payload };
        let _place = self.places.try_acquire().map_err(|_| ConnectError::reconnect("no room to wait"))?;
        let asked = async {
            let _slot = self.slots.acquire().await.map_err(|_| ConnectError::reconnect("no slots"))?;
            self.authenticator.authenticate(credentials).await
        };
        let answer = timeout(self.limits.deadline, asked).await;
        let identity = answer.unwrap_or_else(|_| Err(ConnectError::reconnect("no answer in time")))?;
        if let Some(owner) = self.authenticator.owner(&identity) {
            socket.set_data(Owner(owner.into()));
        }
        socket.set_data(identity);
        Ok(())
    }
}

/// An authenticator with a fixed list of tokens, for tests and for development.
#[derive(Clone)]
pub struct StaticTokens<T>(HashMap<String, T>);

impl<T> StaticTokens<T> {
    /// Creates an authenticator from tokens and the identities of their owners.
    pub fn new<S: Into<String>>(tokens: impl IntoIterator<Item = (S, T)>) -> Self {
        Self(tokens.into_iter().map(|(token, identity)| (token.into(), identity)).collect())
    }
}

impl<T: Clone + Send + Sync + 'static> Authenticator for StaticTokens<T> {
    type Identity = T;

    async fn authenticate(&self, credentials: Credentials) -> Result<T, ConnectError> {
        let identity = credentials.token().and_then(|token| self.0.get(&token).cloned());
        identity.ok_or_else(ConnectError::unauthenticated)
    }
}

impl<T> fmt::Debug for StaticTokens<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StaticTokens").field("count", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_of_an_authorization_header_may_have_any_case() {
        for header in ["Bearer abc", "bearer abc", "BEARER   abc ", " Bearer abc"] {
            assert_eq!(bearer(header), Some("abc"), "{header:?}");
        }
        for header in ["Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc", ""] {
            assert_eq!(bearer(header), None, "{header:?}");
        }
    }
}
