//! permessage-deflate (RFC 7692) for outgoing messages. Each message is compressed on its own, so that one
//! compressed frame serves all receivers, and all connections of a thread share one compressor.
//!
//! The wire decides which messages are compressed. See docs/adr/0019-permessage-deflate-without-context.md.

use std::cell::RefCell;

use flate2::{Compress, Compression, FlushCompress};

#[cfg(feature = "socketio")]
use crate::engine::metrics::{self, DeflateStep};

/// The size in bytes from which the messages of a connection are compressed.
#[cfg(feature = "socketio")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threshold(u32);

#[cfg(feature = "socketio")]
impl Threshold {
    /// The threshold of a peer that cannot read compressed messages.
    pub(crate) const NEVER: Self = Self(u32::MAX);

    /// Returns the threshold of `bytes` bytes.
    pub(crate) fn bytes(bytes: usize) -> Self {
        Self(u32::try_from(bytes).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }

    /// Returns the number of bytes, for comparison with a length.
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

/// Appends the compressed `message` to `out` as a payload. Returns false if it would not become smaller.
pub(crate) fn deflate(message: &[u8], out: &mut Vec<u8>) -> bool {
    COMPRESSOR.with_borrow_mut(|(compressor, scratch)| {
        compressor.reset();
        // The compressed message is useful only if it fits here.
        scratch.resize(message.len(), 0);
        let flushed = compressor.compress(message, scratch, FlushCompress::Sync);
        let written = compressor.total_out() as usize;
        let whole =
            flushed.is_ok() && compressor.total_in() == message.len() as u64 && written < scratch.len();
        let payload = scratch[..written].strip_suffix(&FLUSHED).filter(|_| whole);
        let smaller = payload.is_some();
        if let Some(payload) = payload {
            #[cfg(feature = "socketio")]
            {
                metrics::DEFLATE_BYTES.of(DeflateStep::ToCompress).add(message.len() as u64);
                metrics::DEFLATE_BYTES.of(DeflateStep::Compressed).add(payload.len() as u64);
            }
            out.extend_from_slice(payload);
        }
        scratch.truncate(SCRATCH_BYTES);
        scratch.shrink_to(SCRATCH_BYTES);
        smaller
    })
}

thread_local! {
    /// Created when the first connection of this thread needs it: 271 KiB, and the scratch space.
    static COMPRESSOR: RefCell<(Compress, Vec<u8>)> =
        RefCell::new((Compress::new(Compression::fast(), false), Vec::new()));
}

/// The length of the empty stored block that ends a flush. A sender omits it (RFC 7692 section 7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];
/// The maximum size of the scratch space that a thread keeps.
const SCRATCH_BYTES: usize = 256 << 10;
