//! Authentication of Admin UI pages: by name and password, or by the session of an earlier login.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Auth;
use super::sessions::{MemorySessions, SESSION_TTL, SessionStore};
use crate::error::{ImksError, ImksResult};
use crate::socket::namespace::builder::NamespaceBuilder;
use crate::socket::namespace::connect::{Accept, ConnectPayload};
use crate::socket::namespace::refusal::ConnectError;
use crate::socket::namespace::socket::Socket;

/// The authentication of Admin UI pages.
pub(super) struct Login {
    /// The name and password, or `None` if everybody may enter.
    credentials: Option<Credentials>,
    sessions: Sessions,
    /// The permits for password comparisons in progress.
    checks: Arc<Semaphore>,
    /// The permits for logins that wait for a comparison or perform one.
    waiting: Semaphore,
}

struct Credentials {
    username: String,
    hash: Arc<str>,
}

enum Sessions {
    /// Sessions in the memory of this node. New ones are announced to the other nodes.
    Memory(Arc<MemorySessions>),
    Elsewhere(Arc<dyn SessionStore>),
}

/// The `auth` option that a page sends.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    session_id: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Login {
    pub(super) fn new(auth: Auth, sessions: Option<Arc<dyn SessionStore>>) -> ImksResult<Self> {
        let credentials = match auth {
            Auth::None => {
                tracing::warn!("the Admin UI is open to everybody who reaches this server");
                None
            }
            Auth::Basic { username, password_hash } => {
                check_hash(&password_hash)
                    .map_err(|why| ImksError::Config(format!("password hash: {why}")))?;
                Some(Credentials { username, hash: password_hash.into() })
            }
        };
        let sessions = match sessions {
            Some(store) => Sessions::Elsewhere(store),
            None => Sessions::Memory(Arc::default()),
        };
        let (checks, waiting) = (Arc::new(Semaphore::new(CHECKS_MAX)), Semaphore::new(LOGINS_MAX));
        Ok(Self { credentials, sessions, checks, waiting })
    }

    /// Stores sessions that other nodes have opened.
    pub(super) fn listen(&self, builder: &mut NamespaceBuilder) {
        let Sessions::Memory(sessions) = &self.sessions else { return };
        let sessions = sessions.clone();
        builder.on_server_event(SESSION, move |event| {
            let sessions = sessions.clone();
            async move {
                if let Ok((id,)) = event.parse::<(String,)>()
                    && is_session_id(&id)
                {
                    sessions.insert(&id, Instant::now(), SESSION_TTL);
                }
            }
        });
    }

    /// Decides whether a page may enter. After a login by password, the page also gets a session.
    pub(super) async fn admit(
        &self,
        socket: &Socket,
        payload: &ConnectPayload,
    ) -> Result<Accept, ConnectError> {
        let Some(credentials) = &self.credentials else { return Ok(Accept::default()) };
        let claim: Claim = payload.parse().unwrap_or_default();
        if let Some(id) = claim.session_id.filter(|id| is_session_id(id))
            && self.knows(&id).await
        {
            return Ok(Accept::default());
        }
        let (Some(username), Some(password)) = (claim.username, claim.password) else {
            return Err(invalid_credentials());
        };
        let peer = socket.handshake().peer;
        if !self.is_right(credentials, &username, password).await? {
            tracing::warn!(%peer, "login to the Admin UI refused");
            return Err(invalid_credentials());
        }
        tracing::info!(%peer, username, "login to the Admin UI");
        let accept = match self.open_session(socket).await {
            Ok(id) => Accept::default().with_event(SESSION, &id),
            Err(error) => Err(error),
        };
        accept.map_err(|error| {
            tracing::error!(%error, "no session for the Admin UI");
            ConnectError::new("the session could not be kept, try again")
        })
    }

    async fn knows(&self, id: &str) -> bool {
        let store = match &self.sessions {
            Sessions::Memory(sessions) => return sessions.contains(id, Instant::now()),
            Sessions::Elsewhere(store) => store,
        };
        store.contains(id).await.unwrap_or_else(|error| {
            tracing::error!(%error, "sessions of the Admin UI cannot be read");
            false
        })
    }

    async fn open_session(&self, socket: &Socket) -> ImksResult<String> {
        let id = new_session_id()?;
        match &self.sessions {
            Sessions::Elsewhere(store) => store.insert(&id, SESSION_TTL).await?,
            Sessions::Memory(sessions) => {
                sessions.insert(&id, Instant::now(), SESSION_TTL);
                socket.namespace().server_side_emit(SESSION, &(&id,))?;
            }
        }
        Ok(id)
    }

    /// Compares name and password on a blocking thread.
    ///
    /// Passwords are compared one at a time with a pause after each wrong one, so a flood of guesses takes
    /// only a fraction of one thread.
    async fn is_right(
        &self,
        credentials: &Credentials,
        username: &str,
        password: String,
    ) -> Result<bool, ConnectError> {
        let _place = self.waiting.try_acquire().map_err(|_| ConnectError::new(BUSY))?;
        let check = self.checks.clone().acquire_owned().await.map_err(|_| ConnectError::new(BUSY))?;
        let (known, hash) = (username == credentials.username, credentials.hash.clone());
        let comparing = tokio::task::spawn_blocking(move || {
            // Always compare the password, so that the response time does not reveal whether the name is
            // right.
            let right = bcrypt::verify(password, &hash).map(|matches| matches && known);
            if !matches!(right, Ok(true)) {
                // Pause on this thread, so that the pause holds even if the client stops waiting.
                std::thread::sleep(REFUSAL_PAUSE);
            }
            drop(check);
            right
        });
        match comparing.await {
            Ok(Ok(right)) => Ok(right),
            Ok(Err(error)) => Err(not_compared(&error)),
            Err(error) => Err(not_compared(&error)),
        }
    }
}

fn not_compared(error: &dyn std::fmt::Display) -> ConnectError {
    tracing::error!(%error, "password of the Admin UI not compared");
    ConnectError::new("the password could not be compared")
}

/// Creates the error for which the page shows its login again. The page expects exactly this text.
fn invalid_credentials() -> ConnectError {
    ConnectError::new("invalid credentials")
}

/// Creates a session id of 16 hexadecimal digits from the random numbers of the operating system.
fn new_session_id() -> ImksResult<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    Ok(format!("{:016x}", u64::from_be_bytes(random)))
}

fn is_session_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Checks that `hash` is a bcrypt hash that can be compared in reasonable time.
///
/// # Errors
/// A sentence for the operator.
pub fn check_hash(hash: &str) -> Result<(), String> {
    let parts: bcrypt::HashParts = hash
        .parse()
        .map_err(|_| "it must be a bcrypt hash, for example from `imks admin hash`".to_owned())?;
    match parts.get_cost() {
        cost if cost > BCRYPT_COST_MAX => {
            Err(format!("its cost is {cost}; more than {BCRYPT_COST_MAX} takes seconds per login"))
        }
        _ => Ok(()),
    }
}

/// Returns the bcrypt hash of a password, for [`Auth::Basic`]. It takes a considerable part of a second.
///
/// # Errors
/// [`ImksError::InvalidInput`] if the password is empty or longer than 72 bytes, the limit of bcrypt.
pub fn hash_password(password: &str) -> ImksResult<String> {
    if password.is_empty() {
        return Err(ImksError::invalid("password", "must not be empty"));
    }
    bcrypt::non_truncating_hash(password, BCRYPT_COST)
        .map_err(|error| ImksError::invalid("password", error.to_string()))
}

/// The event that carries a session, to the page and between nodes.
const SESSION: &str = "session";
/// The cost of new hashes: 2^12 rounds, a quarter of a second.
pub const BCRYPT_COST: u32 = 12;
/// The maximum cost that is accepted. Each step doubles the time.
const BCRYPT_COST_MAX: u32 = 15;
/// The maximum number of concurrent comparisons. Guessing takes at most one core.
const CHECKS_MAX: usize = 1;
/// The maximum number of concurrent logins. More are asked to try again.
pub(super) const LOGINS_MAX: usize = 16;
/// The pause after a wrong password, before the next comparison.
const REFUSAL_PAUSE: Duration = Duration::from_millis(250);
pub(super) const BUSY: &str = "too many logins at once, try again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_checked_before_it_is_needed() {
        // `htpasswd -B` writes `2y`, bcryptjs `2a`, and imks `2b`.
        for version in ["2a", "2b", "2y"] {
            let hash = format!("${version}$10$heqvAkYMez.Va6Et2uXInOnkCT6/uQj1brkrbyG3LpopDklcq7ZOS");
            assert_eq!(check_hash(&hash), Ok(()));
        }
        assert!(check_hash("secret").unwrap_err().contains("imks admin hash"));
        let slow = "$2b$31$heqvAkYMez.Va6Et2uXInOnkCT6/uQj1brkrbyG3LpopDklcq7ZOS";
        assert!(check_hash(slow).unwrap_err().contains("cost"));
    }

    #[test]
    fn a_password_is_hashed_whole_or_not_at_all() {
        assert!(hash_password("").is_err());
        assert!(hash_password(&"x".repeat(73)).is_err());
    }

    #[test]
    fn session_ids_have_16_digits() {
        let (a, b) = (new_session_id().unwrap(), new_session_id().unwrap());
        assert!(a != b && is_session_id(&a) && is_session_id(&b));
        assert!(!is_session_id("") && !is_session_id("0123456789abcdeg") && !is_session_id(&format!("{a}0")));
    }
}
