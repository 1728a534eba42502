//! Sessions that continue where they were, on any node (docs/adr/0066). The events are in the database already; what is
//! stored here is who has got which of them.
//!
//! ```text
//! journal    what this node has delivered, and in which order (pure)
//! record     a session: its channels, and where it began in each (pure)
//! history    what a client has that knows an offset (pure)
//! trail      what an offset says by itself, of what its node did not live to store (pure)
//! sessions   the sessions of this node, and what is to be stored of them
//! keeper     stores both in the background, and forgets them in time
//! returning  a client comes back: what it has, what it missed, and who may continue
//! together   what such clients ask of the database, for many with one query
//! ```

mod history;
mod journal;
mod keeper;
mod record;
mod returning;
mod sessions;
mod together;
mod trail;
mod varint;

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use uuid::Uuid;

use self::journal::{Begun, Journal, Mark};
pub(super) use self::journal::{Kind, Place};
use self::keeper::Writer;
pub(super) use self::record::Facts;
use self::returning::Histories;
pub(super) use self::returning::{Beginning, Found, Replay};
use self::sessions::Sessions;
pub(super) use self::together::Behind;
use self::together::Together;
use crate::auth::Revocation;
use crate::models::Db;
use crate::models::resume as rows;
use crate::socket::Socket;
use crate::socket::stamped::{Offset, Stamp, Subject};
use crate::{ImksError, ImksResult};

/// The settings of sessions that continue where they were.
#[derive(Debug, Clone)]
pub struct ResumeConfig {
    /// How long a client may be away; zero: nobody continues.
    pub window: Duration,
    /// The most sessions of clients that are away, of all nodes together. Those that left first are forgotten first.
    pub sessions: u32,
    /// The most bytes of the journal of one node that are kept as they are. Of what is older, only clients are known whose
    /// channels have been quiet since.
    pub journal_bytes: usize,
    /// The most messages and changes that a client may have missed, of all its channels together.
    pub missed: usize,
}

impl Default for ResumeConfig {
    fn default() -> Self {
        Self { window: Duration::from_mins(2), sessions: 200_000, journal_bytes: 16 << 20, missed: 1_000 }
    }
}

/// The sessions of this node that can continue. Cheap to clone.
#[derive(Clone)]
pub(super) struct Resume(Option<Arc<Inner>>);

struct Inner {
    config: ResumeConfig,
    db: Db,
    journal: Journal,
    /// Whether a client of this node has ever kept offsets. Until then an event costs one atomic load here.
    is_used: AtomicBool,
    sessions: Sessions,
    histories: Histories,
    together: Together,
    /// The bytes for sessions to which clients come back.
    room: Arc<Semaphore>,
    writer: tokio::sync::Mutex<Writer>,
    /// The number of times that the keeper has begun to store.
    begun: AtomicU64,
    /// The number of the last time that it has stored everything.
    stored: watch::Sender<u64>,
    /// Notified when somebody waits for that.
    hurry: Notify,
    /// Notified when something has happened after everything was stored.
    news: Notify,
}

/// The delivery of an event, under way. It stays on its thread: while one runs alone, all others wait.
#[must_use]
pub(super) struct Delivering<'a>(Option<(&'a Inner, Begun)>, PhantomData<*const ()>);

impl Resume {
    /// Creates the sessions of a node.
    ///
    /// # Errors
    /// [`ImksError::Randomness`].
    pub(super) fn new(config: ResumeConfig, db: Db) -> ImksResult<Self> {
        if config.window.is_zero() {
            return Ok(Self(None));
        }
        let mut epoch = [0; 8];
        getrandom::fill(&mut epoch)?;
        let epoch = i64::from_be_bytes(epoch);
        Ok(Self(Some(Arc::new(Inner {
            config,
            db,
            journal: Journal::new(epoch),
            is_used: AtomicBool::new(false),
            sessions: Sessions::default(),
            histories: Histories::default(),
            together: Together::default(),
            room: Arc::new(Semaphore::new(RETURNING_BYTES_MAX)),
            writer: tokio::sync::Mutex::new(Writer::new(epoch)),
            begun: AtomicU64::new(0),
            stored: watch::Sender::new(0),
            hurry: Notify::new(),
            news: Notify::new(),
        }))))
    }

    /// Notes that the delivery of an event begins, after which its channel is at this place. It may run alone if it is short: if it
    /// takes a fraction of a millisecond.
    pub(super) fn delivering(&self, channel: Uuid, at: Place, is_short: bool) -> Delivering<'_> {
        let inner = self.0.as_deref().filter(|inner| inner.is_used.load(Ordering::Acquire));
        Delivering(inner.map(|inner| (inner, inner.journal.begin(channel, at, is_short))), PhantomData)
    }

    /// Whether a client may be given a session that can continue: unless its `auth.recovery` is false, or it is known to
    /// take the offset for one more argument that its handlers do not expect.
    pub(super) fn suits(&self, socket: &Socket, wanted: Option<&Value>) -> bool {
        let handshake = socket.handshake();
        let agent = handshake.header("user-agent").unwrap_or_default();
        self.0.is_some()
            && !socket.is_of_version2()
            && match wanted {
                Some(wanted) => wanted == true,
                None => !STRICT_CLIENTS.iter().any(|client| agent.contains(client)),
            }
    }

    /// Makes a socket keep offsets, and returns the moment after which it gets events with offsets.
    pub(super) fn keep_offsets(&self, socket: &Socket) -> Option<Moment> {
        let inner = self.0.as_deref()?;
        inner.is_used.store(true, Ordering::Release);
        socket.keep_offsets();
        Some(Moment(inner.journal.moment()))
    }

    /// Ends all sessions of a user, also of clients that are away.
    pub(super) async fn end_all_of(&self, user: Uuid) -> ImksResult<()> {
        match &self.0 {
            Some(inner) => rows::end_all_of(&inner.db, user).await,
            None => Ok(()),
        }
    }

    /// Ends the sessions that began with tokens which were withdrawn.
    pub(super) async fn end_revoked(&self, revocation: &Revocation) {
        let Some(inner) = &self.0 else { return };
        let ended = match (revocation.user_id, revocation.session_id) {
            (Some(user), None) => rows::end_all_of(&inner.db, user).await,
            (_, Some(session)) => rows::end_with_token(&inner.db, session).await,
            (None, None) => Ok(()),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "sessions with a token that was withdrawn were not ended");
        }
    }
}

impl fmt::Debug for Resume {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Resume").field("is_on", &self.0.is_some()).finish_non_exhaustive()
    }
}

/// A moment in the journal of this node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(Mark);

impl Delivering<'_> {
    /// Returns what the event carries to clients that keep offsets. `kind` says which number of its channel it has; `None` for
    /// one that stands for several.
    pub(super) fn stamp(&self, channel: Uuid, at: Place, kind: Option<Kind>) -> Option<Stamp> {
        let (_, Begun { mark, trail }) = self.0.as_ref()?;
        let offset = Offset { trail: trail.encode(mark.number), ..mark.offset() };
        let subject = |kind| Subject { of: channel.as_u128(), at: at.numbers(), kind: kind as usize };
        Some(Stamp { offset, subject: kind.map(subject) })
    }
}

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        if let Some((inner, begun)) = self.0.take()
            && inner.journal.end(begun.mark)
        {
            inner.news.notify_one();
        }
    }
}

impl Inner {
    /// Waits until everything that has happened so far is stored.
    ///
    /// # Errors
    /// [`ImksError::Timeout`] after [`STORED_WITHIN`].
    async fn settled(&self) -> ImksResult<()> {
        // What has begun may have missed the last of it.
        let number = self.begun.load(Ordering::Acquire) + 1;
        let mut stored = self.stored.subscribe();
        self.hurry.notify_one();
        let waiting = stored.wait_for(|stored| *stored >= number);
        match timeout(STORED_WITHIN, waiting).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ImksError::Timeout("sessions were not stored in time")),
        }
    }
}

/// What clients are called whose handlers take the arguments of an event one by one, and fail if there is one more: they know
/// nothing of offsets. Others of that kind say `"recovery":false` in `auth`.
const STRICT_CLIENTS: [&str; 4] = ["python", "Python", "aiohttp", "Dart"];
/// The most bytes of sessions to which clients come back at the same time. They wait for the room for what they are told first,
/// so only sessions with far more channels than their clients have now need as much.
const RETURNING_BYTES_MAX: usize = 64 << 20;
/// How long a client waits until its session is found. Then it begins a new one, which is always right.
const RETURNS_WITHIN: Duration = Duration::from_secs(2);
/// How long a request waits until what it has changed is stored.
const STORED_WITHIN: Duration = Duration::from_secs(2);

/// The places of channels.
type Places = HashMap<Uuid, Place>;
