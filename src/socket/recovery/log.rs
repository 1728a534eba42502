//! A recovery log that the nodes of a cluster share: what a driver for a database or a broker has to offer.

use std::fmt;

use bytes::Bytes;

use crate::bus::BoxFuture;
use crate::error::ImksResult;
use crate::node::NodeId;

/// A log of the events of namespaces, and the sessions of their clients, for all nodes of a cluster.
///
/// A bucket is the log of one namespace. Its entries have consecutive positions, in the order in which they were
/// appended by whichever node. Nothing that was acknowledged to a client rests on it: a driver may lose everything, as
/// long as the bucket has another epoch afterwards.
pub trait RecoveryLog: Send + Sync + 'static {
    /// Returns the name for logs.
    fn name(&self) -> &'static str;

    /// Returns the maximum size of an entry in bytes. A larger one is refused.
    fn entry_bytes_max(&self) -> usize {
        ENTRY_BYTES_MAX
    }

    /// Appends the entries of a batch and stores its sessions, all or nothing.
    ///
    /// A batch that is written again after an error is stored once, also if the first attempt has succeeded without an
    /// answer. An attempt that arrives after a later batch of the node has no effect. If the bucket has another epoch
    /// than the batch, the entries are appended and nothing else is stored: sessions and leases are full of positions.
    fn write<'a>(&'a self, bucket: &'a str, batch: &'a Batch) -> BoxFuture<'a, ImksResult<Written>>;

    /// Reads entries after a position, oldest first. Returns as many as it likes, but at least one if there are any.
    fn read<'a>(&'a self, bucket: &'a str, after: u64) -> BoxFuture<'a, ImksResult<Tail>>;

    /// Finds a session.
    fn find<'a>(&'a self, bucket: &'a str, key: SessionKey) -> BoxFuture<'a, ImksResult<Option<Found>>>;

    /// Makes a node the owner of a session, and raises its generation by one, if the session is the expected one. Of
    /// several nodes that try, one succeeds.
    fn take<'a>(
        &'a self,
        bucket: &'a str,
        key: SessionKey,
        expected: Expected,
        node: NodeId,
    ) -> BoxFuture<'a, ImksResult<bool>>;

    /// Removes what is not kept any longer.
    fn trim<'a>(&'a self, bucket: &'a str, keep: Keep) -> BoxFuture<'a, ImksResult<()>>;
}

/// The key of a session: its private id. It is a secret, of which a driver stores no more than a hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(pub [u8; 16]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionKey")
    }
}

/// What a node writes in one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The node that writes.
    pub node: NodeId,
    /// The number of the batch among all that this node has written to the bucket.
    pub serial: u64,
    /// The epoch of the positions in the sessions and in the lease.
    pub epoch: u64,
    /// The number of the first entry among all that this node has appended to the bucket.
    pub number: u64,
    /// The entries to append, in their order.
    pub entries: Vec<Bytes>,
    /// The sessions that changed.
    pub sessions: Vec<SavedSession>,
    /// The sessions that ended, with their generations.
    pub ended: Vec<(SessionKey, u64)>,
    /// A position up to which the stored sessions of this node are current. The node is alive.
    pub lease: Option<u64>,
    /// Whether this is a further attempt.
    pub again: bool,
}

/// A session to store. It replaces one of the same generation, or none.
#[derive(Debug, Clone)]
pub struct SavedSession {
    /// The key.
    pub key: SessionKey,
    /// The number of nodes that have taken the session so far, counted from 1.
    pub generation: u64,
    /// A number that changes when its node changes the session otherwise than by entries.
    pub version: u64,
    /// For how many milliseconds the client has been absent, or `None` if it is connected.
    pub away_millis: Option<u64>,
    /// The content, which a driver does not interpret.
    pub record: Bytes,
}

/// The outcome of a batch.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// The epoch of the bucket.
    pub epoch: u64,
    /// The positions of the entries, in ascending order. Entries of other nodes may be in between. None if an earlier
    /// attempt has written them, and they have been removed since.
    pub positions: Vec<u64>,
    /// The sessions that were not stored, because another node has taken them.
    pub taken: Vec<SessionKey>,
}

/// The end of a bucket.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// The epoch: a random number that changes when the bucket is lost.
    pub epoch: u64,
    /// The position of the newest entry, 0 if there never was one.
    pub last: u64,
    /// The position of the first of `entries`.
    pub first: u64,
    /// Consecutive entries.
    pub entries: Vec<Bytes>,
}

/// A stored session.
#[derive(Debug, Clone)]
pub struct Found {
    /// The epoch of the bucket.
    pub epoch: u64,
    /// The position of the newest entry in the bucket.
    pub last: u64,
    /// The node that owns or owned the session.
    pub node: NodeId,
    /// The generation.
    pub generation: u64,
    /// The version.
    pub version: u64,
    /// Whether the client was connected to the node as far as that has told.
    pub connected: bool,
    /// For how many milliseconds the client has been absent, or its node silent.
    pub away_millis: u64,
    /// How many milliseconds ago the session was taken, or `None` if it never was.
    pub taken_millis: Option<u64>,
    /// The position up to which the stored session of a connected client is current, if its node has told.
    pub lease: Option<u64>,
    /// The content.
    pub record: Bytes,
}

/// A session as the node that takes it knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The generation.
    pub generation: u64,
    /// The version that was found, or `None` for a session that only this node has stored.
    pub version: Option<u64>,
}

/// The maximum size of an entry in bytes, unless a log takes less.
pub const ENTRY_BYTES_MAX: usize = 12_000_000;

/// What is kept of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The age of entries, and of sessions without a client, in milliseconds.
    pub millis: u64,
    /// The maximum number of entries.
    pub entries: u64,
    /// The maximum size of the entries in bytes.
    pub bytes: u64,
    /// The maximum number of sessions without a client.
    pub sessions: u64,
}
