//! API keys: `imks_` and 64 characters of base64url, which are the id of the key (16 bytes) and its secret (32
//! bytes). The database has the hash of the secret only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::caller::{Caller, Scopes};
use crate::clock::{self, Micros};
use crate::models::Db;
use crate::models::api_key::{self, ApiKey};
use crate::secret::{Secret, is_same, sha256};
use crate::{ImksError, ImksResult};

/// Creates a key and returns it. It cannot be read again.
///
/// # Errors
/// [`ImksError::InvalidInput`] for a name that cannot be used, and those of [`api_key::insert`].
pub async fn create(db: &Db, name: &str, scopes: Scopes, expires_at: Option<Micros>) -> ImksResult<Secret> {
    let is_name = (1..=NAME_CHARS_MAX).contains(&name.chars().count())
        && name.trim() == name
        && !name.chars().any(char::is_control);
    if !is_name {
        let reason = format!("must have 1 to {NAME_CHARS_MAX} characters, and no white space around it");
        return Err(ImksError::invalid("name", reason));
    }
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes)?;
    let id = clock::new_id();
    bytes[..ID_BYTES].copy_from_slice(id.as_bytes());
    let row = ApiKey {
        id,
        name: name.to_owned(),
        hash: sha256(&bytes[ID_BYTES..])?.to_vec(),
        scopes: scopes.show(),
        created_at: clock::now_micros(),
        expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    api_key::insert(db, &row).await?;
    Ok(Secret::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

/// The keys that are not revoked, as the database had them within the last second.
#[derive(Debug)]
pub(super) struct Keys {
    db: Db,
    current: RwLock<Loaded>,
    /// Held while the keys are read, so that many requests cause one query. Says when the last one failed.
    loading: Mutex<Option<Instant>>,
    tasks: TaskTracker,
}

#[derive(Debug, Clone, Default)]
struct Loaded {
    keys: Arc<HashMap<Uuid, Key>>,
    at: Option<Instant>,
}

#[derive(Debug)]
struct Key {
    caller: Caller,
    hash: Vec<u8>,
    expires_at: Option<Micros>,
    last_used_at: AtomicI64,
}

/// A key as a caller presents it.
struct Presented {
    id: Uuid,
    hash: [u8; 32],
}

impl Keys {
    pub(super) fn new(db: Db) -> Self {
        Self { db, current: RwLock::default(), loading: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Returns the caller to whom a key belongs.
    ///
    /// # Errors
    /// [`ImksError::Auth`] for a key that is malformed, unknown, revoked or expired; [`ImksError::Database`].
    pub(super) async fn caller(&self, text: &str) -> ImksResult<Caller> {
        let presented = Presented::read(text)?;
        let mut loaded = self.loaded(FRESH).await?;
        if !loaded.keys.contains_key(&presented.id) {
            // It may be new. Guesses wait, so that they cause few queries.
            if let Some(at) = loaded.at {
                sleep_until(at + FRESH_UNKNOWN).await;
            }
            loaded = self.loaded(FRESH_UNKNOWN).await?;
        }
        let key = loaded.keys.get(&presented.id).filter(|key| is_same(&key.hash, &presented.hash));
        let key = key.ok_or(ImksError::Auth("The API key is not known, or was revoked"))?;
        let now = clock::now_micros();
        if key.expires_at.is_some_and(|at| at <= now) {
            return Err(ImksError::Auth("The API key has expired"));
        }
        self.note_use(key, now);
        Ok(key.caller.clone())
    }

    /// Checks that the key with this id is still good, for a call that goes on for long.
    ///
    /// # Errors
    /// [`ImksError::Auth`] if it was revoked or has expired; [`ImksError::Database`].
    pub(super) async fn check(&self, id: Uuid) -> ImksResult<()> {
        let loaded = self.loaded(FRESH).await?;
        let now = clock::now_micros();
        let is_good = |key: &Key| key.expires_at.is_none_or(|at| now < at);
        match loaded.keys.get(&id).is_some_and(is_good) {
            true => Ok(()),
            false => Err(ImksError::Auth("The API key was revoked, or has expired")),
        }
    }

    /// Returns the keys as they were at most `age` ago.
    async fn loaded(&self, age: Duration) -> ImksResult<Loaded> {
        if let Some(loaded) = self.loaded_within(age) {
            return Ok(loaded);
        }
        let asked = Instant::now();
        let mut failed = self.loading.lock().await;
        if let Some(loaded) = self.loaded_within(age) {
            return Ok(loaded);
        }
        // Those who waited for a query that failed share its outcome; whoever comes later tries again.
        if failed.is_some_and(|at| at >= asked) {
            return Err(ImksError::Unavailable("database"));
        }
        let at = Some(Instant::now());
        let rows = match api_key::live(&self.db).await {
            Ok(rows) => rows,
            Err(error) => {
                *failed = Some(Instant::now());
                return Err(error);
            }
        };
        let keys = rows.into_iter().filter_map(Key::of).collect();
        let loaded = Loaded { keys: Arc::new(keys), at };
        *self.current.write() = loaded.clone();
        Ok(loaded)
    }

    fn loaded_within(&self, age: Duration) -> Option<Loaded> {
        let loaded = self.current.read().clone();
        loaded.at.is_some_and(|at| at.elapsed() < age).then_some(loaded)
    }

    /// Stores once a minute that the key is used. The caller does not wait for it.
    fn note_use(&self, key: &Key, now: Micros) {
        let last = key.last_used_at.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(last) >= USE_NOTED_EVERY;
        let order = Ordering::Relaxed;
        if !is_due || key.last_used_at.compare_exchange(last, now, order, order).is_err() {
            return;
        }
        let (db, id) = (self.db.clone(), key.caller.id);
        self.tasks.spawn(async move {
            if let Err(error) = api_key::used(&db, id, now).await {
                tracing::warn!(%error, "the use of an API key was not noted");
            }
        });
    }
}

impl Key {
    fn of(row: ApiKey) -> Option<(Uuid, Self)> {
        let Ok(scopes) = Scopes::parse(&row.scopes) else {
            tracing::warn!(name = row.name, "an API key has scopes that this version does not know");
            return None;
        };
        let caller = Caller { id: row.id, name: row.name.into(), scopes, has_key: true };
        let last_used_at = AtomicI64::new(row.last_used_at.unwrap_or_default());
        Some((row.id, Self { caller, hash: row.hash, expires_at: row.expires_at, last_used_at }))
    }
}

impl Presented {
    fn read(text: &str) -> ImksResult<Self> {
        let malformed = ImksError::Auth("This is not an API key: `imks key add` makes one");
        let Some(encoded) = text.strip_prefix(PREFIX) else { return Err(malformed) };
        let mut bytes = [0; KEY_BYTES];
        match URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes) {
            Ok(KEY_BYTES) => {
                let (id, secret) = bytes.split_at(ID_BYTES);
                Ok(Self { id: Uuid::from_slice(id).unwrap_or_default(), hash: sha256(secret)? })
            }
            _ => Err(malformed),
        }
    }
}

/// What every key begins with, so that scanners find keys that were published by mistake.
const PREFIX: &str = "imks_";
const ID_BYTES: usize = 16;
const KEY_BYTES: usize = 48;
/// The longest name of a key, in characters.
const NAME_CHARS_MAX: usize = 64;
/// How long keys are used before they are read again: a revoked key works no longer than that.
const FRESH: Duration = Duration::from_secs(1);
/// How long keys are used before they are read again for a key that is not among them.
const FRESH_UNKNOWN: Duration = Duration::from_millis(100);
/// The time between two notes that a key was used.
const USE_NOTED_EVERY: Micros = 60 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_refused_without_a_look_at_the_database() {
        let good = format!("{PREFIX}{}", "A".repeat(64));
        assert!(Presented::read(&good).is_ok());
        for text in
            ["", "imks_", &good[1..], &good[..68], &format!("{good}A"), "imks_\u{1f600}", "eyJhbGciOi"]
        {
            assert!(Presented::read(text).is_err(), "{text}");
        }
    }
    #[tokio::test]
    async fn keys_that_could_not_be_read_are_read_by_the_next_call() {
        use crate::models::db::Config;
        let config = Config { url: Some(String::from("sqlite::memory:").into()), ..Config::default() };
        let db = Db::connect(&config).await.unwrap();
        let keys = Keys::new(db.clone());
        let unknown = format!("{PREFIX}{}", "A".repeat(64));
        let calls = (0..50).map(|_| keys.caller(&unknown));
        for refused in futures_util::future::join_all(calls).await {
            assert!(refused.unwrap_err().is_retryable(), "the database has no schema yet");
        }
        db.migrate().await.unwrap();
        let key = create(&db, "shop", Scopes::ALL, None).await.unwrap();
        assert_eq!(&*keys.caller(key.expose()).await.unwrap().name, "shop");
    }
}
