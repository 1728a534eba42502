//! The parser of frames on a WebTransport stream (Engine.IO protocol, "WebTransport"). It does no I/O.
//!
//! A frame has a header of 1, 3 or 9 bytes. Bit 7 of the first byte is set for binary. The other bits are the
//! length, or 126 followed by two bytes of length, or 127 followed by eight. This equals a WebSocket frame
//! from its second byte on, so outgoing messages need no other form.

use bytes::{Buf, Bytes};

/// A complete frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// An Engine.IO packet, not yet validated as UTF-8.
    Text(Bytes),
    /// The content of a binary message.
    Binary(Bytes),
}

/// A violation of the protocol by the peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A frame without a payload.
    Empty,
    /// A frame of this many bytes.
    TooLarge(u64),
}

/// The state of the parser between reads.
pub(crate) struct Reader {
    payload_max: usize,
    /// A frame whose end has not arrived yet.
    partial: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Header {
    binary: bool,
    /// The size of the header in bytes.
    size: usize,
    /// The size of the payload in bytes.
    length: usize,
}

impl Reader {
    /// Creates a reader of frames with at most `payload_max` bytes.
    pub(crate) fn new(payload_max: usize) -> Self {
        Self { payload_max, partial: Vec::new() }
    }

    /// Returns the next frame, or `None` when `input` is used up. The buffer grows with the data that has
    /// arrived, never with an announced length.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, Violation> {
        if self.partial.is_empty() {
            return self.whole_frame(input);
        }
        loop {
            let missing = match self.header(&self.partial)? {
                Some(header) => match (header.size + header.length).saturating_sub(self.partial.len()) {
                    0 => {
                        let mut frame = Bytes::from(std::mem::take(&mut self.partial));
                        frame.advance(header.size);
                        return Ok(Some(incoming(header, frame)));
                    }
                    missing => missing,
                },
                None => 1,
            };
            let more = take(input, missing);
            if more.is_empty() {
                return Ok(None);
            }
            self.partial.extend_from_slice(more);
        }
    }

    fn whole_frame(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, Violation> {
        match self.header(input)? {
            Some(header) if input.len() - header.size >= header.length => {
                let frame = take(input, header.size + header.length);
                Ok(Some(incoming(header, Bytes::copy_from_slice(&frame[header.size..]))))
            }
            _ => {
                self.partial.extend_from_slice(take(input, usize::MAX));
                Ok(None)
            }
        }
    }

    /// Parses the header at the start of `bytes`, or returns `None` if it is incomplete. An invalid length is
    /// reported at once.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Violation> {
        let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
        let (length, size) = match first & !BINARY {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 3),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 9),
                None => return Ok(None),
            },
            short => (u64::from(short), 1),
        };
        match usize::try_from(length) {
            Ok(0) => Err(Violation::Empty),
            Ok(length) if length <= self.payload_max => {
                Ok(Some(Header { binary: first & BINARY != 0, size, length }))
            }
            _ => Err(Violation::TooLarge(length)),
        }
    }
}

fn incoming(header: Header, payload: Bytes) -> Incoming {
    if header.binary { Incoming::Binary(payload) } else { Incoming::Text(payload) }
}

/// Takes the next `count` bytes of `input`, or all of them if there are fewer.
fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken
}

/// The bit of a header's first byte that marks a binary frame.
pub(crate) const BINARY: u8 = 0x80;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use bytes::Bytes;

    use super::{Incoming, Reader};

    /// Reads `data` like the client's side of a stream, in pieces of `piece` bytes. Returns all frames, with
    /// whether they are binary, and whether the stream was refused after them.
    pub fn read_webtransport(data: &[u8], piece: usize, payload_max: usize) -> (Vec<(bool, Bytes)>, bool) {
        let mut reader = Reader::new(payload_max);
        let mut frames = Vec::new();
        for mut piece in data.chunks(piece.max(1)) {
            loop {
                match reader.next(&mut piece) {
                    Ok(Some(Incoming::Text(payload))) => frames.push((false, payload)),
                    Ok(Some(Incoming::Binary(payload))) => frames.push((true, payload)),
                    Ok(None) => break,
                    Err(_) => return (frames, true),
                }
            }
        }
        (frames, false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Frame;

    fn frame(binary: bool, payload: &[u8]) -> Vec<u8> {
        let flag = if binary { BINARY } else { 0 };
        let mut bytes = match payload.len() {
            length @ 0..126 => vec![flag | length as u8],
            length @ 126..65_536 => [&[flag | 126][..], &(length as u16).to_be_bytes()].concat(),
            length => [&[flag | 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Reads `bytes` in pieces of `size`.
    fn read(reader: &mut Reader, bytes: &[u8], size: usize) -> Result<Vec<Incoming>, Violation> {
        let mut frames = Vec::new();
        for mut piece in bytes.chunks(size) {
            while let Some(frame) = reader.next(&mut piece)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn text_and_binary_are_told_apart_by_the_first_bit() {
        let bytes = [frame(false, b"4hello"), frame(true, &[1, 2, 3])].concat();
        let frames = read(&mut Reader::new(100), &bytes, 100).unwrap();
        assert_eq!(frames, [Incoming::Text("4hello".into()), Incoming::Binary(vec![1, 2, 3].into())]);
    }

    #[test]
    fn a_frame_without_content_is_refused() {
        for header in [&[0][..], &[0x80], &[126, 0, 0], &[127, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(read(&mut Reader::new(100), header, 100), Err(Violation::Empty), "{header:?}");
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_by_its_header() {
        let huge = [&[0xFF][..], &u64::MAX.to_be_bytes()].concat();
        assert_eq!(read(&mut Reader::new(100), &huge, 1), Err(Violation::TooLarge(u64::MAX)));
        assert_eq!(read(&mut Reader::new(100), &[101], 1), Err(Violation::TooLarge(101)));
        assert!(read(&mut Reader::new(100), &frame(false, &[b'4'; 100]), 7).is_ok());
    }

    #[test]
    fn an_idle_reader_owns_nothing() {
        let mut reader = Reader::new(100_000);
        read(&mut reader, &frame(true, &[7; 70_000]), 1000).unwrap();
        assert_eq!(reader.partial.capacity(), 0);
    }

    #[test]
    fn an_outgoing_message_is_a_websocket_frame_without_its_first_byte() {
        for length in [1, 125, 126, 65_535, 65_536] {
            let message = Frame::binary(&vec![7; length]);
            let (first, rest) = message.stream_parts();
            assert_eq!([&[first][..], rest].concat(), frame(true, &vec![7; length]), "{length}");
        }
        let text = Frame::text("a");
        assert_eq!(text.stream_parts(), (2, &b"4a"[..]));
        assert_eq!(Frame::binary(&[]).stream_parts(), (1, &b"b"[..]), "an empty frame is not allowed");
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_how_the_bytes_were_cut(
            payloads in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 1..300)), 1..6),
            size in 1usize..400,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|(binary, payload)| frame(*binary, payload)).collect();
            let expected: Vec<_> = payloads
                .into_iter()
                .map(|(binary, payload)| if binary { Incoming::Binary(payload.into()) } else { Incoming::Text(payload.into()) })
                .collect();
            prop_assert_eq!(read(&mut Reader::new(1000), &bytes, size).unwrap(), expected);
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in 1usize..50) {
            let _ = read(&mut Reader::new(100), &bytes, size);
        }
    }
}
