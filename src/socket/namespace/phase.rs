//! The phase of a socket: joining, open or closed. Packets sent while it is joining are buffered, because they
//! must not overtake the CONNECT reply.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::engine::SendError;
use crate::socket::codec::dialect::Renderings;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::recovery::session_store::Position;

/// The phase of one socket. It starts as joining, and changes at most twice.
#[derive(Default)]
pub(super) struct Phase {
    /// One of `JOINING`, `OPEN` and `CLOSED`. It is atomic because every packet reads it.
    now: AtomicU8,
    /// The packets sent while joining.
    buffered: Mutex<Vec<Buffered>>,
}

/// A packet that waits for the CONNECT reply.
pub(super) struct Buffered {
    pub packet: EncodedPacket,
    /// The position in the log of the namespace, if there is a log.
    pub position: Option<Position>,
}

/// The outcome of an attempt to buffer a packet.
pub(super) enum Buffering {
    /// The socket is joining, and the packet is buffered.
    Joining,
    /// The socket is joining, and [`BUFFERED_PACKETS_MAX`] packets are buffered already.
    Full,
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
    pub(super) fn buffer(&self, packet: &Renderings<'_>, position: Option<Position>) -> Buffering {
        match self.now.load(Ordering::Acquire) {
            OPEN => Buffering::Open,
            JOINING => self.buffer_in_order(packet, position),
            _ => Buffering::Closed,
        }
    }

    fn buffer_in_order(&self, packet: &Renderings<'_>, position: Option<Position>) -> Buffering {
        let mut buffered = self.buffered.lock();
        // Read again under the lock, because `open` empties the buffer under it.
        match self.now.load(Ordering::Acquire) {
            OPEN => Buffering::Open,
            JOINING if buffered.len() >= BUFFERED_PACKETS_MAX => Buffering::Full,
            JOINING => {
                buffered.push(Buffered { packet: packet.packet().clone(), position });
                Buffering::Joining
            }
            _ => Buffering::Closed,
        }
    }

    /// Sends the buffered packets with `send`, and opens the socket. No packet can be buffered meanwhile.
    ///
    /// # Errors
    /// The error of `send`, and [`SendError::Closed`] if the socket was closed.
    pub(super) fn open(
        &self,
        send: impl FnOnce(Vec<Buffered>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let mut buffered = self.buffered.lock();
        send(std::mem::take(&mut *buffered))?;
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
        self.buffered.lock().clear();
    }
}

const JOINING: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

/// The maximum number of packets buffered while the connect hook runs. One more closes the connection,
/// because the client would miss it.
pub const BUFFERED_PACKETS_MAX: usize = 1_024;
