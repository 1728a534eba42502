//! permessage-deflate (RFC 7692), without kept state: each message is compressed by itself, so that one compressed
//! frame serves all receivers, and each thread has one compressor and one decompressor for all its connections.
//!
//! Bytes in, bytes out; the wire decides when. See docs/adr/0019-permessage-deflate-without-context.md.

use std::cell::RefCell;

use bytes::Bytes;
#[cfg(feature = "server")]
use flate2::{Compress, Compression, FlushCompress};
use flate2::{Decompress, FlushDecompress, Status};
#[cfg(feature = "server")]
use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};

use super::wire_reader::Violation;
#[cfg(feature = "server")]
use crate::telemetry::metrics;

/// From how many bytes on the messages of a connection are compressed.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Threshold(u32);

#[cfg(feature = "server")]
impl Threshold {
    /// The peer cannot read compressed messages.
    pub(super) const NEVER: Self = Self(u32::MAX);

    /// From this many bytes on.
    pub(super) fn bytes(bytes: usize) -> Self {
        Self(u32::try_from(bytes).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }

    /// As a number that can be compared with a length.
    pub(super) fn get(self) -> u32 {
        self.0
    }
}

/// The `Sec-WebSocket-Extensions` of the response, for the first offer that can be kept; `None` if there is none.
#[cfg(feature = "server")]
pub(super) fn accept(request: &HeaderMap) -> Option<HeaderValue> {
    // A quoted value is a token inside its quotes (RFC 6455 section 9.1), so it has no comma and no semicolon.
    let values = request.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).find_map(answer).map(HeaderValue::from_static)
}

/// The answer to one offer. Messages are made with a window of 15 bits, whatever the client would like, and a client
/// may use as many as it likes. An offer with anything that is unknown, malformed or said twice is declined (RFC 7692
/// section 7.1).
#[cfg(feature = "server")]
fn answer(offer: &str) -> Option<&'static str> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let (mut seen, mut accepted) = (Vec::new(), WITHOUT_CONTEXT);
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
            None => (parameter, None),
        };
        let known = match (name, value) {
            (
                "server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits",
                None,
            ) => true,
            ("client_max_window_bits", Some(bits)) => WINDOW_BITS.contains(&bits),
            ("server_max_window_bits", Some("15")) => {
                accepted = WITHOUT_CONTEXT_WINDOW_15;
                true
            }
            _ => false,
        };
        if !known || seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(accepted)
}

#[cfg(feature = "server")]
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Appends `message` to `out` as the payload of a compressed message; false if that would make it no smaller.
#[cfg(feature = "server")]
pub(super) fn deflate(message: &[u8], out: &mut Vec<u8>) -> bool {
    COMPRESSOR.with_borrow_mut(|(compressor, scratch)| {
        compressor.reset();
        // What does not fit here is not worth it.
        scratch.resize(message.len(), 0);
        let flushed = compressor.compress(message, scratch, FlushCompress::Sync);
        let written = compressor.total_out() as usize;
        let whole =
            flushed.is_ok() && compressor.total_in() == message.len() as u64 && written < scratch.len();
        let payload = scratch[..written].strip_suffix(&END[..FLUSHED_BYTES]).filter(|_| whole);
        let smaller = payload.is_some();
        if let Some(payload) = payload {
            metrics::DEFLATE_TAKEN.add(message.len() as u64);
            metrics::DEFLATE_MADE.add(payload.len() as u64);
            out.extend_from_slice(payload);
        }
        scratch.truncate(SCRATCH_BYTES);
        scratch.shrink_to(SCRATCH_BYTES);
        smaller
    })
}

/// The message in the payload of a compressed one. It is given up as soon as it is longer than `max` bytes.
pub(super) fn inflate(payload: &[u8], max: usize) -> Result<Bytes, Violation> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.input.extend_from_slice(payload);
        inflater.input.extend_from_slice(&END);
        let message = inflater.message(payload, max).map(Bytes::copy_from_slice);
        inflater.rest();
        #[cfg(feature = "server")]
        if let Ok(message) = &message {
            metrics::INFLATE_TAKEN.add(payload.len() as u64);
            metrics::INFLATE_MADE.add(message.len() as u64);
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

    fn message(&mut self, payload: &[u8], max: usize) -> Result<&[u8], Violation> {
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
                Ok(_) if full && room == limit => return Err(Violation::TooLarge(room as u64)),
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
            _ => Err(Violation::Deflate),
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

#[cfg(feature = "server")]
thread_local! {
    /// The same: 271 KiB, and the scratch space.
    static COMPRESSOR: RefCell<(Compress, Vec<u8>)> =
        RefCell::new((Compress::new(Compression::fast(), false), Vec::new()));
}

#[cfg(feature = "server")]
const WITHOUT_CONTEXT: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
#[cfg(feature = "server")]
const WITHOUT_CONTEXT_WINDOW_15: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";
/// Values of a window: no leading zero, no sign.
#[cfg(feature = "server")]
const WINDOW_BITS: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];
/// What follows a payload: the length of the empty stored block that the sender left out (RFC 7692 section 7.2.1), then
/// an empty last block. That is read as one only where a block may begin, so a payload that is cut off shows.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
/// How many of these bytes a sender leaves out.
#[cfg(feature = "server")]
const FLUSHED_BYTES: usize = 4;
/// An empty stored block without its length.
const EMPTY_BLOCK: u8 = 0;
/// What a thread keeps of its scratch space for input and output.
const SCRATCH_BYTES: usize = 256 << 10;
/// How the room for a message grows. It is inflated again from its start, which costs at most a third more.
const GROWTH: usize = 4;
