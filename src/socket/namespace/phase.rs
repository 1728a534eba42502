//! The phase of a socket: joining, open or closed. Packets sent while it is joining are buffered, because they
//! must not overtake the CONNECT reply.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use super::offsets::Subject;
use crate::engine::SendError;
use crate::socket::codec::dialect::Renderings;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::recovery::session_store::Position;

/// The phase of one socket. It starts as joining, and changes at most twice.
#[derive(Default)]
pub(super) struct Phase {
    /// One of `JOINING`, `OPEN` and `CLOSED`. It is atomic because every packet reads it.
    now: AtomicU8,
    buffer: Mutex<Buffer>,
}

/// The packets sent while joining.
#[derive(Default)]
struct Buffer {
    packets: Vec<Buffered>,
    /// Whether there were more than [`BUFFERED_PACKETS_MAX`]. They are dropped, and the client may not join any
    /// more, because it would miss some.
    overflowed: bool,
}

/// A packet that waits for the CONNECT reply.
pub(super) struct Buffered {
    pub packet: EncodedPacket,
    /// The position in the log of the namespace, if there is a log.
    pub position: Option<Position>,
    /// What it is about, if the application has sessions of its own.
    pub subject: Option<Subject>,
}

/// The outcome of an attempt to buffer a packet.
pub(super) enum Buffering {
    /// The socket is joining, and the packet is buffered.
    Joining,
    /// The socket is joining, and there have been more than [`BUFFERED_PACKETS_MAX`] packets.
    Overflowed,
    /// The socket is open; the packet can be sent.
    Open,
    /// The socket is closed.
    Closed,
}

impl Phase {
    /// Whether the socket has joined its namespace and has not left it.
    pub(super) fn is_open(&self) -> bool {
        self.now.load(Ordering::Acquire) == OPEN
    }

    /// Whether the socket has left its namespace, or never will join it.
    pub(super) fn is_closed(&self) -> bool {
        self.now.load(Ordering::Acquire) == CLOSED
    }

    /// Buffers a packet if the socket is joining.
    pub(super) fn buffer(
        &self,
        packet: &Renderings<'_>,
        position: Option<Position>,
        subject: Option<Subject>,
    ) -> Buffering {
        match self.now.load(Ordering::Acquire) {
            OPEN => Buffering::Open,
            JOINING => self.buffer_in_order(packet, position, subject),
            _ => Buffering::Closed,
        }
    }

    fn buffer_in_order(
        &self,
        packet: &Renderings<'_>,
        position: Option<Position>,
        subject: Option<Subject>,
    ) -> Buffering {
        let mut buffer = self.buffer.lock();
        // Read again under the lock, because `open` empties the buffer under it.
        match self.now.load(Ordering::Acquire) {
            OPEN => Buffering::Open,
            JOINING if buffer.overflowed || buffer.packets.len() >= BUFFERED_PACKETS_MAX => {
                *buffer = Buffer { packets: Vec::new(), overflowed: true };
                Buffering::Overflowed
            }
            JOINING => {
                buffer.packets.push(Buffered { packet: packet.packet().clone(), position, subject });
                Buffering::Joining
            }
            _ => Buffering::Closed,
        }
    }

    /// Sends the buffered packets with `send`, and opens the socket. No packet can be buffered meanwhile.
    ///
    /// # Errors
    /// The error of `send`; [`SendError::Closed`] if the socket was closed; [`SendError::Slow`] if there were
    /// more packets than [`BUFFERED_PACKETS_MAX`].
    pub(super) fn open(
        &self,
        send: impl FnOnce(Vec<Buffered>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let mut buffer = self.buffer.lock();
        if self.is_closed() {
            return Err(SendError::Closed);
        }
        if buffer.overflowed {
            return Err(SendError::Slow);
        }
        send(std::mem::take(&mut buffer.packets))?;
        // This fails if the socket was closed in the meantime; it then stays closed.
        let opened = self.now.compare_exchange(JOINING, OPEN, Ordering::AcqRel, Ordering::Acquire);
        opened.map(|_| ()).map_err(|_| SendError::Closed)
    }

    /// Closes the socket. Returns `true` for the one call that did it.
    pub(super) fn close(&self) -> bool {
        self.now.swap(CLOSED, Ordering::AcqRel) != CLOSED
    }

    /// Drops the buffered packets.
    pub(super) fn clear(&self) {
        self.buffer.lock().packets.clear();
    }
}

const JOINING: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

/// The maximum number of packets buffered while the connect hook runs. With one more the client may not join,
/// because it would miss a packet. It gets a CONNECT_ERROR.
pub const BUFFERED_PACKETS_MAX: usize = 1_024;
