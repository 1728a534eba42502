//! Sessions as they are stored in the shared log.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::log::Log;
use super::record::{Memberships, Outcome, Record, SavedMemberships, State, Stored};
use super::sent::{Position, SentPositions};
use crate::error::{Cause, ImksError, ImksResult};
use crate::socket::data::SavedData;
use crate::socket::recovery::log::Found;
use crate::socket::socket_id::SocketId;

/// The values of a socket that other nodes may see, by name.
pub(crate) type SharedValues = serde_json::Map<String, serde_json::Value>;

/// A function that makes the data of a socket of what another node has stored.
pub(crate) type RestoreData<'a> = &'a (dyn Fn(SharedValues) -> SavedData + Send + Sync);

/// The content of a stored session.
#[derive(Serialize, Deserialize)]
struct Saved<'a> {
    id: SocketId,
    #[serde(borrow)]
    owner: Option<Cow<'a, str>>,
    data: SharedValues,
    #[serde(borrow)]
    memberships: SavedMemberships<'a>,
    greeted: bool,
    /// The position up to which this is what the owner knew.
    at: Position,
    /// The position of the last packet for the session before `at`, if it is so long ago that a client which got it has
    /// nothing newer.
    quiet: Option<Position>,
}

/// Encodes a session as it is at the end of the log. `quiet` is the position of its last packet, if it is to be stored.
pub(super) fn encode(record: &Record, log: &Log, quiet: Option<Position>) -> ImksResult<Bytes> {
    let at = match record.state {
        State::Away { position, .. } => position,
        _ => log.last(),
    };
    let saved = Saved {
        id: record.id,
        owner: record.owner.as_deref().map(Cow::Borrowed),
        data: record.data.try_to_json()?,
        memberships: record.memberships.save(),
        greeted: record.greeted,
        at,
        quiet,
    };
    let bytes = rmp_serde::to_vec_named(&saved).map_err(|error| unreadable(Cause::new(error)))?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(ImksError::PayloadTooLarge);
    }
    Ok(bytes.into())
}

/// Returns the session that is stored, as one whose client left at `since`, or `None` if it cannot be continued with
/// this log: a change may be missing in between, or a change ended it.
pub(super) fn decode(
    found: &Found,
    log: &Log,
    since: (Instant, u64),
    restore: RestoreData<'_>,
) -> ImksResult<Option<Record>> {
    let saved: Saved<'_> =
        rmp_serde::from_slice(&found.record).map_err(|error| unreadable(Cause::new(error)))?;
    let lease = found.lease.filter(|_| found.connected).unwrap_or_default();
    let at = saved.at.max(lease);
    if at > log.last() || at + 1 < log.first() {
        return Ok(None);
    }
    let mut record = Record {
        id: saved.id,
        owner: saved.owner.map(|owner| (&*owner).into()),
        data: restore(saved.data),
        memberships: Memberships::restore(saved.memberships),
        state: State::Away { since, position: at },
        sent: Arc::new(saved.quiet.map_or_else(SentPositions::unknown, SentPositions::new)),
        greeted: saved.greeted,
        joining: None,
        stored: Stored { generation: found.generation, copy_of: Some(found.version), ..Stored::default() },
    };
    let mut changes = log.after(at);
    let over = changes
        .any(|(position, entry)| entry.logged.change(&mut record, position, log.first()) == Outcome::Over);
    Ok((!over).then_some(record))
}

fn unreadable(cause: Cause) -> ImksError {
    ImksError::AdapterSerialization(cause)
}

/// The maximum size of a stored session in bytes. A larger one cannot be recovered.
pub(crate) const RECORD_BYTES_MAX: usize = 256 << 10;
