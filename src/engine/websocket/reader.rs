//! The parser of WebSocket frames (RFC 6455 section 5). It does no I/O.
//!
//! A message that is complete in the given bytes is unmasked in place and copied (or inflated) once, into
//! memory of its own size. Only a partial frame or a fragmented message owns a buffer. The buffer grows with
//! the data that has arrived, never with an announced length, and is moved into the message.

use bytes::{Buf, Bytes};

use super::frame_header::{BINARY, CLOSE, CONTINUATION, CONTROL, Header, PING, PONG, Sender, TEXT, unmask};
use super::violation::Violation;
use crate::engine::inflate::inflate;

/// A message of the peer that the wire has to handle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A text message, not yet validated as UTF-8.
    Text(Bytes),
    Binary(Bytes),
    /// A ping, with the content that the pong repeats.
    Ping(Bytes),
    /// A close, with the content that the response repeats: nothing, or a code and a reason.
    Close(Bytes),
}

/// Bytes that were read and not yet consumed.
pub(crate) struct Input<'a>(&'a mut [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a mut [u8]) -> Self {
        Self(data)
    }

    /// Returns the number of bytes that are left.
    #[cfg(feature = "client")]
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    /// Takes the next `count` bytes, or all of them if there are fewer.
    fn take(&mut self, count: usize) -> &'a mut [u8] {
        let data = std::mem::take(&mut self.0);
        let count = count.min(data.len());
        let (taken, rest) = data.split_at_mut(count);
        self.0 = rest;
        taken
    }
}

/// The state of the parser between reads.
pub(crate) struct Reader {
    sender: Sender,
    payload_max: usize,
    /// A frame whose end has not arrived yet, still masked.
    partial: Vec<u8>,
    fragments: Option<Box<Fragments>>,
    /// The number of control frames since the last message.
    controls: u16,
    /// Whether messages may be compressed.
    inflates: bool,
    /// The number of message bytes inflated since the last pause.
    inflated: u32,
    early: Option<Box<[u8]>>,
}

struct Fragments {
    opcode: u8,
    deflated: bool,
    data: Vec<u8>,
    /// The number of tiny fragments.
    tiny: u32,
}

enum Payload<'a> {
    Borrowed(&'a [u8]),
    /// Owned memory that starts with this many bytes of header.
    Owned(Vec<u8>, usize),
}

impl Reader {
    /// Creates a reader of messages of a client, with at most `payload_max` bytes.
    pub(crate) fn new(payload_max: usize) -> Self {
        Self {
            sender: Sender::Client,
            payload_max,
            partial: Vec::new(),
            fragments: None,
            controls: 0,
            inflates: false,
            inflated: 0,
            early: None,
        }
    }

    /// Creates a reader of messages of a server, with at most `payload_max` bytes.
    #[cfg(feature = "client")]
    pub(crate) fn of_server(payload_max: usize) -> Self {
        Self { sender: Sender::Server, ..Self::new(payload_max) }
    }

    /// Accepts compressed messages from now on, because permessage-deflate was negotiated without context
    /// takeover.
    pub(crate) fn inflate(&mut self) {
        self.inflates = true;
    }

    /// Stores bytes that must be read before all others: they arrived together with the request, or exceeded
    /// what may be inflated at once.
    pub(crate) fn early(&mut self, data: &[u8]) {
        self.early = (!data.is_empty()).then(|| data.into());
    }

    pub(crate) fn take_early(&mut self) -> Option<Box<[u8]>> {
        self.early.take()
    }

    /// Returns the next message. Returns `None` when `input` is used up, or when enough was inflated for now
    /// and the rest waits in [`Reader::take_early`].
    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Option<Incoming>, Violation> {
        if self.inflated >= INFLATED_BYTES_AT_ONCE {
            self.inflated = 0;
            self.early(input.take(usize::MAX));
            return Ok(None);
        }
        loop {
            let message = if self.partial.is_empty() {
                let Some((header, frame)) = self.whole_frame(input)? else { return Ok(None) };
                self.accept(header, Payload::Borrowed(&frame[header.size..]))?
            } else {
                let Some(header) = self.complete_partial(input)? else { return Ok(None) };
                let mut frame = std::mem::take(&mut self.partial);
                unmask(&mut frame[header.size..], header.mask);
                self.accept(header, Payload::Owned(frame, header.size))?
            };
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// Returns a frame that is complete in the input, unmasked in place. Otherwise stores the partial frame.
    fn whole_frame<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<(Header, &'a [u8])>, Violation> {
        let header = self.header(input.0)?;
        match header {
            Some(header) if input.0.len() - header.size >= header.length => {
                let frame = input.take(header.size + header.length);
                unmask(&mut frame[header.size..], header.mask);
                Ok(Some((header, frame)))
            }
            _ => {
                self.partial.extend_from_slice(input.take(usize::MAX));
                Ok(None)
            }
        }
    }

    /// Appends to the partial frame until it is complete.
    fn complete_partial(&mut self, input: &mut Input<'_>) -> Result<Option<Header>, Violation> {
        loop {
            let missing = match self.header(&self.partial)? {
                Some(header) => match (header.size + header.length).saturating_sub(self.partial.len()) {
                    0 => return Ok(Some(header)),
                    missing => missing,
                },
                None => 1,
            };
            let more = input.take(missing);
            if more.is_empty() {
                return Ok(None);
            }
            self.partial.extend_from_slice(more);
        }
    }

    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Violation> {
        Header::parse(bytes, (self.sender, self.inflates), |opcode, length| self.check_length(opcode, length))
    }

    /// Checks the length of a frame, together with the fragments before it.
    fn check_length(&self, opcode: u8, length: u64) -> Result<usize, Violation> {
        if opcode & CONTROL != 0 {
            return Ok(length as usize);
        }
        let before = self.fragments.as_ref().map_or(0, |fragments| fragments.data.len() as u64);
        let total = length.saturating_add(before);
        if total > self.payload_max as u64 {
            return Err(Violation::TooLarge(total));
        }
        Ok(length as usize)
    }

    fn accept(&mut self, header: Header, payload: Payload<'_>) -> Result<Option<Incoming>, Violation> {
        match (header.opcode, header.fin) {
            (CONTINUATION, fin) => self.accept_fragment(fin, &payload),
            (TEXT | BINARY, _) if self.fragments.is_some() => {
                Err(Violation::Protocol("message in a message"))
            }
            (TEXT | BINARY, true) => self.message(header.opcode, header.deflated, payload).map(Some),
            (TEXT | BINARY, false) => {
                let Header { opcode, deflated, .. } = header;
                let data = payload.as_slice().to_vec();
                let tiny = u32::from(is_tiny(&data));
                self.fragments = Some(Box::new(Fragments { opcode, deflated, data, tiny }));
                Ok(None)
            }
            _ => self.accept_control(header.opcode, payload),
        }
    }

    fn accept_fragment(&mut self, fin: bool, payload: &Payload<'_>) -> Result<Option<Incoming>, Violation> {
        let Some(mut fragments) = self.fragments.take() else {
            return Err(Violation::Protocol("continuation of nothing"));
        };
        fragments.data.extend_from_slice(payload.as_slice());
        fragments.tiny += u32::from(is_tiny(payload.as_slice()));
        if fragments.tiny > TINY_FRAGMENTS_MAX {
            return Err(Violation::Flood);
        }
        if !fin {
            self.fragments = Some(fragments);
            return Ok(None);
        }
        let Fragments { opcode, deflated, data, .. } = *fragments;
        self.message(opcode, deflated, Payload::Owned(data, 0)).map(Some)
    }

    fn message(&mut self, opcode: u8, deflated: bool, payload: Payload<'_>) -> Result<Incoming, Violation> {
        self.controls = 0;
        let data = match deflated {
            false => payload.into_bytes(),
            true => {
                let data = inflate(payload.as_slice(), self.payload_max)?;
                self.inflated = self.inflated.saturating_add(u32::try_from(data.len()).unwrap_or(u32::MAX));
                data
            }
        };
        Ok(if opcode == TEXT { Incoming::Text(data) } else { Incoming::Binary(data) })
    }

    fn accept_control(&mut self, opcode: u8, payload: Payload<'_>) -> Result<Option<Incoming>, Violation> {
        self.controls += 1;
        if self.controls > CONTROLS_MAX {
            return Err(Violation::Flood);
        }
        match opcode {
            PING => Ok(Some(Incoming::Ping(payload.into_bytes()))),
            PONG => Ok(None),
            CLOSE => {
                check_close(payload.as_slice())?;
                Ok(Some(Incoming::Close(payload.into_bytes())))
            }
            _ => Err(Violation::Protocol("unknown opcode")),
        }
    }
}

impl Payload<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(data) => data,
            Self::Owned(data, header) => &data[*header..],
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(data) => Bytes::copy_from_slice(data),
            Self::Owned(mut data, header) => {
                data.shrink_to_fit();
                let mut bytes = Bytes::from(data);
                bytes.advance(header);
                bytes
            }
        }
    }
}

fn is_tiny(fragment: &[u8]) -> bool {
    fragment.len() < TINY_FRAGMENT_BYTES
}

/// Checks the content of a close frame: nothing, or a permitted code (RFC 6455 section 7.4) and a reason.
fn check_close(content: &[u8]) -> Result<(), Violation> {
    match content {
        [] => Ok(()),
        [_] => Err(Violation::Protocol("close frame of one byte")),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            1000..=1003 | 1007..=1014 | 3000..=4999 => {
                std::str::from_utf8(reason).map(drop).map_err(|_| Violation::Utf8)
            }
            _ => Err(Violation::Protocol("close code that may not be sent")),
        },
    }
}

/// The size below which a fragment is tiny.
const TINY_FRAGMENT_BYTES: usize = 64;
/// The maximum number of tiny fragments of one message. Larger ones are limited by the size of the message.
const TINY_FRAGMENTS_MAX: u32 = 16_384;
/// The maximum number of control frames between two messages. A client that only keeps the heartbeat sends
/// one message per interval.
const CONTROLS_MAX: u16 = 1024;
/// The number of inflated bytes after which the layer above gets its turn. Otherwise 64 KiB of input could
/// become 64 MiB.
const INFLATED_BYTES_AT_ONCE: u32 = 64 << 10;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::{Incoming, Input, Reader};

    /// Reads `data` like the client's side of a WebSocket, in pieces of `piece` bytes. Returns the size of
    /// all messages in bytes.
    pub fn read_websocket(data: &[u8], piece: usize, payload_max: usize) -> usize {
        read(Reader::new(payload_max), data, piece)
    }

    /// Reads `data` like [`read_websocket`], after permessage-deflate was negotiated.
    pub fn read_deflated_websocket(data: &[u8], piece: usize, payload_max: usize) -> usize {
        let mut reader = Reader::new(payload_max);
        reader.inflate();
        read(reader, data, piece)
    }

    fn read(mut reader: Reader, data: &[u8], piece: usize) -> usize {
        let mut bytes = 0;
        for piece in data.chunks(piece.max(1)) {
            let mut waiting = Some(Box::from(piece));
            while let Some(mut piece) = waiting {
                if !read_piece(&mut reader, &mut piece, &mut bytes) {
                    return bytes;
                }
                waiting = reader.take_early();
            }
        }
        bytes
    }

    /// Returns false if the peer violated the protocol.
    fn read_piece(reader: &mut Reader, piece: &mut [u8], bytes: &mut usize) -> bool {
        let mut input = Input::new(piece);
        loop {
            match reader.next(&mut input) {
                Ok(Some(Incoming::Text(data) | Incoming::Binary(data))) => {
                    assert!(data.len() <= reader.payload_max);
                    *bytes += data.len();
                }
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
pub(crate) use tests::client_frame;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::websocket::frame_header::{FIN, MASKED};

    /// Returns a masked client frame.
    pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0x22, 0x33, 0x44];
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(MASKED | short as u8),
            medium @ 126..=0xFFFF => {
                frame.push(MASKED | 126);
                frame.extend_from_slice(&(medium as u16).to_be_bytes());
            }
            long => {
                frame.push(MASKED | 127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        let start = frame.len();
        frame.extend_from_slice(payload);
        unmask(&mut frame[start..], mask);
        frame
    }

    /// Reads `bytes` in pieces of `size` and returns the messages.
    fn read(reader: &mut Reader, bytes: &[u8], size: usize) -> Result<Vec<Incoming>, Violation> {
        let mut messages = Vec::new();
        for piece in bytes.to_vec().chunks_mut(size) {
            let mut input = Input::new(piece);
            while let Some(message) = reader.next(&mut input)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    fn read_once(bytes: &[u8]) -> Result<Vec<Incoming>, Violation> {
        read(&mut Reader::new(100_000), bytes, usize::MAX)
    }

    #[test]
    fn a_message_is_unmasked() {
        let message = read_once(&client_frame(FIN | TEXT, b"4hello world")).unwrap();
        assert_eq!(message, [Incoming::Text(Bytes::from_static(b"4hello world"))]);
    }

    #[test]
    fn fragments_become_one_message_with_controls_in_between() {
        let mut bytes = client_frame(TEXT, b"4he");
        bytes.extend(client_frame(FIN | PING, b"x"));
        bytes.extend(client_frame(CONTINUATION, b"l"));
        bytes.extend(client_frame(FIN | CONTINUATION, b"lo"));
        let expected =
            [Incoming::Ping(Bytes::from_static(b"x")), Incoming::Text(Bytes::from_static(b"4hello"))];
        assert_eq!(read_once(&bytes).unwrap(), expected);
    }

    #[test]
    fn rude_frames_are_refused() {
        let unmasked = vec![FIN | TEXT, 1, b'4'];
        let cases = [
            ("unmasked", unmasked),
            ("reserved bits", client_frame(FIN | 0x40 | TEXT, b"4")),
            ("unknown opcode", client_frame(FIN | 0x3, b"")),
            ("unknown control", client_frame(FIN | 0xB, b"")),
            ("long ping", client_frame(FIN | PING, &[0; 126])),
            ("ping in fragments", client_frame(PING, b"")),
            ("continuation of nothing", client_frame(FIN | CONTINUATION, b"")),
            ("message in a message", [client_frame(TEXT, b""), client_frame(FIN | TEXT, b"4")].concat()),
            ("close of one byte", client_frame(FIN | CLOSE, b"x")),
            ("close code 1005", client_frame(FIN | CLOSE, &1005u16.to_be_bytes())),
        ];
        for (name, bytes) in cases {
            assert!(matches!(read_once(&bytes), Err(Violation::Protocol(_))), "{name}");
        }
        assert_eq!(read_once(&client_frame(FIN | CLOSE, b"\x03\xe8\xff")), Err(Violation::Utf8));
    }

    #[test]
    fn an_announced_length_above_the_limit_is_refused_before_anything_arrives() {
        let header = [&[FIN | TEXT, MASKED | 127][..], &u64::MAX.to_be_bytes()].concat();
        let mut reader = Reader::new(100);
        assert_eq!(read(&mut reader, &header, 1), Err(Violation::TooLarge(u64::MAX)));
        assert!(reader.partial.capacity() < 64);
    }

    #[test]
    fn fragments_are_limited_in_sum_and_in_number() {
        let piece = client_frame(CONTINUATION, &[0; 60]);
        let bytes = [client_frame(BINARY, &[0; 60]), piece].concat();
        assert_eq!(read(&mut Reader::new(100), &bytes, usize::MAX), Err(Violation::TooLarge(120)));
        let mut bytes = client_frame(BINARY, b"");
        (1..16_384).for_each(|_| bytes.extend(client_frame(CONTINUATION, b"")));
        assert_eq!(read_once(&bytes), Ok(vec![]));
        bytes.extend(client_frame(CONTINUATION, b"x"));
        assert_eq!(read_once(&bytes), Err(Violation::Flood));
    }

    #[test]
    fn fragments_of_an_honest_client_are_not_counted_as_a_flood() {
        for (size, count) in [(512, 1_172), (64, 20_000), (1, 16_000)] {
            let mut bytes = client_frame(BINARY, &vec![7; size]);
            (2..count).for_each(|_| bytes.extend(client_frame(CONTINUATION, &vec![7; size])));
            bytes.extend(client_frame(FIN | CONTINUATION, &vec![7; size]));
            let messages = read(&mut Reader::new(2_000_000), &bytes, 1_000).unwrap();
            assert_eq!(messages, [Incoming::Binary(vec![7; size * count].into())], "{size}");
        }
    }

    #[test]
    fn a_close_frame_keeps_its_code_and_reason() {
        for content in [&b""[..], &1000_u16.to_be_bytes(), b"\x03\xf6gateway", b"\x0f\xa0mine"] {
            let closed = read_once(&client_frame(FIN | CLOSE, content)).unwrap();
            assert_eq!(closed, [Incoming::Close(Bytes::copy_from_slice(content))]);
        }
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            let refused = read_once(&client_frame(FIN | CLOSE, &code.to_be_bytes()));
            assert_eq!(refused, Err(Violation::Protocol("close code that may not be sent")), "{code}");
        }
    }

    #[test]
    fn a_flood_of_pings_or_pongs_is_cut() {
        let (ping, pong) = (client_frame(FIN | PING, b""), client_frame(FIN | PONG, b""));
        assert_eq!(read_once(&ping.repeat(1024)).map(|pings| pings.len()), Ok(1024));
        assert_eq!(read_once(&pong.repeat(1024)), Ok(vec![]));
        for flood in [ping.repeat(1025), pong.repeat(1025), [ping, pong].concat().repeat(513)] {
            assert_eq!(read_once(&flood), Err(Violation::Flood));
        }
    }

    #[test]
    fn an_idle_reader_owns_nothing() {
        let mut reader = Reader::new(100_000);
        read(&mut reader, &client_frame(FIN | BINARY, &[7; 70_000]), 1000).unwrap();
        assert_eq!(reader.partial.capacity(), 0);
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_how_the_bytes_were_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6),
            size in 1usize..400,
        ) {
            let bytes: Vec<u8> =
                messages.iter().flat_map(|message| client_frame(FIN | BINARY, message)).collect();
            let expected: Vec<_> =
                messages.into_iter().map(|message| Incoming::Binary(message.into())).collect();
            prop_assert_eq!(read(&mut Reader::new(1000), &bytes, size).unwrap(), expected);
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in 1usize..50) {
            let _ = read(&mut Reader::new(100), &bytes, size);
        }
    }
}
