//! What ties a socket to its session, and what a client says to go on with one.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::log::{Epoch, Position};
use super::sent::SentPositions;
use crate::error::ImksResult;
use crate::socket::data::SavedData;
use crate::socket::socket_id::SocketId;

/// Private id of a session: 128 random bits. Whoever knows it can take the session over, so it is never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pid([u8; 16]);

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

/// What ties a socket to its session.
pub(crate) struct Link {
    pub(super) pid: Pid,
    pub(super) id: SocketId,
    /// Tells this socket from others that want to be, or were, the same session.
    pub(super) claim: u64,
    pub(super) sent: Arc<SentPositions>,
    pub(super) resume: Option<Resume>,
}

/// A client that says it was here before, and was believed so far.
pub(super) struct Resume {
    /// Position up to which it has everything; none if it never got a packet.
    pub(super) offset: Option<Position>,
    pub(super) data: SavedData,
    /// The connect hook is asked.
    pub(super) asked: bool,
}

impl Link {
    /// Id of the socket.
    pub(crate) fn socket_id(&self) -> SocketId {
        self.id
    }

    /// Private id, for the client and nobody else.
    pub(crate) fn pid(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pid.0)
    }

    /// Whether the client came back.
    pub(crate) fn is_resumed(&self) -> bool {
        self.resume.is_some()
    }

    /// Whether the connect hook need not be asked.
    pub(crate) fn is_trusted(&self) -> bool {
        self.resume.as_ref().is_some_and(|back| !back.asked)
    }

    /// What the application kept with the session.
    pub(crate) fn data(&self) -> SavedData {
        self.resume.as_ref().map(|back| back.data.clone()).unwrap_or_default()
    }

    /// A packet with this position is on its way to the client.
    pub(crate) fn note_sent(&self, position: Position) {
        self.sent.note(position);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What the stock client adds to the payload of CONNECT.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    pid: &'a str,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
}

/// The session that a client names, and how far it got there.
pub(super) struct Credentials {
    pub(super) pid: Pid,
    /// None if the client never got a packet.
    pub(super) offset: Option<Position>,
}

impl Credentials {
    /// Reads them from the payload of CONNECT.
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
