//! The link between a socket and its session, and the credentials with which a client claims one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::log::Epoch;
use super::sent::{Position, SentPositions};
use crate::error::ImksResult;
use crate::socket::data::SavedData;
use crate::socket::recovery::log::SessionKey;
use crate::socket::socket_id::SocketId;

/// The private id of a session: 128 random bits. Whoever knows it can take over the session, so it is never
/// logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pid([u8; 16]);

impl fmt::Debug for Pid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pid")
    }
}

impl From<Pid> for SessionKey {
    fn from(pid: Pid) -> Self {
        Self(pid.0)
    }
}

impl From<SessionKey> for Pid {
    fn from(key: SessionKey) -> Self {
        Self(key.0)
    }
}

impl Pid {
    pub(super) fn random() -> ImksResult<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (read == bytes.len()).then_some(Self(bytes))
    }
}

/// The link between a socket and its session.
pub(crate) struct Link {
    pub(super) pid: Pid,
    pub(super) id: SocketId,
    /// A number that tells this socket from earlier and competing sockets of the same session.
    pub(super) claim: u64,
    pub(super) sent: Arc<SentPositions>,
    pub(super) resume: Option<Resume>,
    /// The number in the queue of the shared log that answers to the client wait for.
    pub(super) waits_for: AtomicU64,
}

/// A client that claims an earlier session with valid credentials.
pub(super) struct Resume {
    /// The position up to which the client has everything, or `None` if it never got a packet.
    pub(super) offset: Option<Position>,
    pub(super) data: SavedData,
    /// Whether the connect hook must run.
    pub(super) asked: bool,
}

impl Link {
    /// Returns the id of the socket.
    pub(crate) fn socket_id(&self) -> SocketId {
        self.id
    }

    /// Returns the private id, which only the client may see.
    pub(crate) fn pid(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pid.0)
    }

    /// Whether the client claims an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.resume.is_some()
    }

    /// Whether the connect hook can be skipped.
    pub(crate) fn is_trusted(&self) -> bool {
        self.resume.as_ref().is_some_and(|back| !back.asked)
    }

    /// Returns the data that the application attached in the earlier session.
    pub(crate) fn data(&self) -> SavedData {
        self.resume.as_ref().map(|back| back.data.clone()).unwrap_or_default()
    }

    /// Makes later answers to the client wait until this number is released.
    pub(super) fn waits_for(&self, number: u64) {
        self.waits_for.fetch_max(number, Ordering::AcqRel);
    }

    /// Records that the packet at this position is being sent to the client.
    pub(crate) fn note_sent(&self, position: Position) {
        self.sent.note(position);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The fields that the stock client adds to the CONNECT payload.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    pid: &'a str,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
}

/// The session that a client claims, and the last position it received.
pub(super) struct Credentials {
    pub(super) pid: Pid,
    /// The last position, or `None` if the client never got a packet.
    pub(super) offset: Option<Position>,
}

impl Credentials {
    /// Parses the credentials in a CONNECT payload.
    pub(super) fn find(payload: &str, epoch: Epoch) -> Option<Self> {
        if !payload.contains("\"pid\"") {
            return None;
        }
        let Wire { pid, offset } = serde_json::from_str(payload).ok()?;
        let offset = match offset.map(RawValue::get) {
            None | Some("null") => None,
            Some(json) => Some(epoch.position(serde_json::from_str(json).ok()?)?),
        };
        Some(Self { pid: Pid::parse(pid)?, offset })
    }
}
