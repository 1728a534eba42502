//! permessage-deflate (RFC 7692) for incoming messages. No state is kept between messages, and all
//! connections of a thread share one decompressor.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

#[cfg(feature = "socketio")]
use crate::engine::metrics::{self, DeflateStep};

/// The reason why a compressed message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// The message has at least this many bytes.
    TooLarge(u64),
    /// The message is not a complete DEFLATE stream.
    Corrupt,
}

/// Inflates the payload of a compressed message. Stops as soon as the message is longer than `max` bytes.
pub(crate) fn inflate(payload: &[u8], max: usize) -> Result<Bytes, InflateError> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.input.extend_from_slice(payload);
        inflater.input.extend_from_slice(&END);
        let message = inflater.message(payload, max).map(Bytes::copy_from_slice);
        inflater.rest();
        #[cfg(feature = "socketio")]
        if let Ok(message) = &message {
            metrics::DEFLATE_BYTES.of(DeflateStep::ToInflate).add(payload.len() as u64);
            metrics::DEFLATE_BYTES.of(DeflateStep::Inflated).add(message.len() as u64);
        }
        message
    })
}

/// The decompressor of a thread and its scratch space.
struct Inflater {
    decompressor: Decompress,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Inflater {
    fn new() -> Self {
        Self { decompressor: Decompress::new(false), input: Vec::new(), output: Vec::new() }
    }

    fn message(&mut self, payload: &[u8], max: usize) -> Result<&[u8], InflateError> {
        let limit = max.saturating_add(1);
        let mut room = limit.min(SCRATCH_BYTES);
        let status = loop {
            self.output.resize(room, 0);
            self.decompressor.reset(false);
            // Inflated in one call, so that the output buffer holds the whole message. A reference to an
            // earlier message, from a client that keeps its context despite our response, is then an error
            // instead of zeros.
            let status = self.decompressor.decompress(&self.input, &mut self.output, FlushDecompress::Finish);
            let full = self.decompressor.total_out() == room as u64;
            match status {
                Ok(Status::Ok | Status::BufError) if full && room < limit => room = limit.min(room * GROWTH),
                Ok(_) if full && room == limit => return Err(InflateError::TooLarge(room as u64)),
                status => break status,
            }
        };
        let consumed = self.decompressor.total_in() as usize;
        // The last block may be marked as the last one. An empty block follows it nevertheless (RFC 7692
        // section 7.2.3.4).
        let own_end = consumed + 1 == payload.len() && payload.last() == Some(&EMPTY_BLOCK);
        match status {
            Ok(Status::StreamEnd) if own_end || consumed == self.input.len() => {
                Ok(&self.output[..self.decompressor.total_out() as usize])
            }
            _ => Err(InflateError::Corrupt),
        }
    }

    /// Frees the memory that only a large message needs.
    fn rest(&mut self) {
        self.input.clear();
        self.input.shrink_to(SCRATCH_BYTES);
        self.output.truncate(SCRATCH_BYTES);
        self.output.shrink_to(SCRATCH_BYTES);
    }
}

thread_local! {
    /// Created when the first connection of this thread needs it: 42 KiB, and the scratch space.
    static INFLATER: RefCell<Inflater> = RefCell::new(Inflater::new());
}

/// The bytes appended to a payload: the length of the empty stored block that the sender omitted (RFC 7692
/// section 7.2.1), then an empty last block. It is read as a block only where one may begin, so a truncated
/// payload is detected.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
/// An empty stored block without its length.
const EMPTY_BLOCK: u8 = 0;
/// The maximum size of the scratch space that a thread keeps for input and for output.
const SCRATCH_BYTES: usize = 256 << 10;
/// The growth factor of the output buffer. The message is inflated again from its start, which costs at most
/// a third more.
const GROWTH: usize = 4;
