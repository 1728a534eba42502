//! permessage-deflate (RFC 7692), incoming: no state is kept between messages, and each thread has one decompressor for
//! all its connections.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

#[cfg(feature = "socketio")]
use crate::engine::metrics::{self, DeflateStep};

/// Why a compressed message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It has at least this many bytes.
    TooLarge(u64),
    /// It is no complete DEFLATE stream.
    Corrupt,
}

/// The message in the payload of a compressed one. It is given up as soon as it is longer than `max` bytes.
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

/// What a thread keeps for inflating.
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
            // In one go, with everything before it in sight: what refers to an earlier message, as a client would that
            // keeps its context in spite of our answer, is an error, not zeros.
            let status = self.decompressor.decompress(&self.input, &mut self.output, FlushDecompress::Finish);
            let full = self.decompressor.total_out() == room as u64;
            match status {
                Ok(Status::Ok | Status::BufError) if full && room < limit => room = limit.min(room * GROWTH),
                Ok(_) if full && room == limit => return Err(InflateError::TooLarge(room as u64)),
                status => break status,
            }
        };
        let consumed = self.decompressor.total_in() as usize;
        // A last block may say that it is the last; an empty one follows nevertheless (RFC 7692 section 7.2.3.4).
        let own_end = consumed + 1 == payload.len() && payload.last() == Some(&EMPTY_BLOCK);
        match status {
            Ok(Status::StreamEnd) if own_end || consumed == self.input.len() => {
                Ok(&self.output[..self.decompressor.total_out() as usize])
            }
            _ => Err(InflateError::Corrupt),
        }
    }

    /// Gives back what only a large message needs.
    fn rest(&mut self) {
        self.input.clear();
        self.input.shrink_to(SCRATCH_BYTES);
        self.output.truncate(SCRATCH_BYTES);
        self.output.shrink_to(SCRATCH_BYTES);
    }
}

thread_local! {
    /// Made when the first connection of this thread needs it: 42 KiB, and the scratch space.
    static INFLATER: RefCell<Inflater> = RefCell::new(Inflater::new());
}

/// What follows a payload: the length of the empty stored block that the sender left out (RFC 7692 section 7.2.1), then
/// an empty last block. That is read as one only where a block may begin, so a payload that is cut off shows.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
/// An empty stored block without its length.
const EMPTY_BLOCK: u8 = 0;
/// What a thread keeps of its scratch space for input and output.
const SCRATCH_BYTES: usize = 256 << 10;
/// How the room for a message grows. It is inflated again from its start, which costs at most a third more.
const GROWTH: usize = 4;
