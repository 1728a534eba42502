//! The request scanner, which finds where requests begin and end in an HTTP/1 connection, ahead of hyper.
//!
//! It serves two purposes: query characters that Node accepts and `http::Uri` rejects are escaped, and a
//! drain can distinguish a peer that has not finished its request from one that waits for a response.

use memchr::memchr;

/// The scanner of one connection, which tracks the framing of requests and does no I/O.
#[derive(Debug)]
pub(super) struct RequestScanner(State);

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before the first byte of a request; empty lines may precede it.
    Start,
    Line(Part),
    Headers(Header, Framing),
    /// Inside a body with this many bytes to come.
    Body(u64),
    /// Inside a chunked body (RFC 9112 section 7.1).
    Chunked(Chunk),
    /// Inside a body whose end the scanner cannot find, because its lengths contradict each other.
    Untracked,
}

/// The part of the request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Method,
    Path,
    Query,
    Version,
}

/// The position in a header line.
#[derive(Debug, Clone, Copy)]
enum Header {
    /// In the name, which so far equals this many bytes of a relevant name.
    Name(&'static [u8], usize),
    LineStart,
    /// In the value of `Content-Length`.
    Length(Digits),
    /// In the rest of a line that does not matter.
    Skip,
}

/// The position in a chunked body.
#[derive(Debug, Clone, Copy)]
enum Chunk {
    /// In the size of a chunk, which is this so far.
    Size(u64),
    /// In the rest of a size line.
    Extension(u64),
    /// In a chunk with this many bytes to come, including the line break after it.
    Data(u64),
    /// In the lines after the last chunk; with `true` at the start of one.
    Trailer(bool),
}

#[derive(Debug, Clone, Copy)]
enum Digits {
    None,
    Some(u64),
    /// In the space after the digits.
    Done(u64),
}

/// The length of the body, according to the headers read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    Unclear,
}

impl RequestScanner {
    pub(super) fn new() -> Self {
        Self(State::Start)
    }

    /// Whether the peer has begun a request and has not sent the rest of it.
    pub(super) fn is_incomplete(&self) -> bool {
        !matches!(self.0, State::Start | State::Untracked)
    }

    /// Whether the peer has begun the head of a request and not sent the rest of it.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.0, State::Line(_) | State::Headers(..))
    }

    /// Scans the next bytes of the connection. Returns the escaped bytes if they must be replaced.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut escaped: Option<Vec<u8>> = None;
        let (mut at, mut copied) = (0, 0);
        while at < bytes.len() {
            if let State::Line(Part::Query) = self.0
                && let Some(escape) = escape(bytes[at])
            {
                let escaped = escaped.get_or_insert_default();
                escaped.extend_from_slice(&bytes[copied..at]);
                escaped.extend_from_slice(escape);
                copied = at + 1;
            }
            at += self.step(&bytes[at..]);
        }
        if let Some(escaped) = &mut escaped {
            escaped.extend_from_slice(&bytes[copied..]);
        }
        escaped
    }

    /// Advances by at least one byte, and returns the number of bytes.
    fn step(&mut self, rest: &[u8]) -> usize {
        match self.0 {
            State::Start => {
                if !matches!(rest[0], b'\r' | b'\n') {
                    self.0 = State::Line(Part::Method);
                }
                1
            }
            State::Line(part) => {
                self.0 = match (part, rest[0]) {
                    (_, b'\n') => State::Headers(Header::LineStart, Framing::None),
                    (Part::Method, b' ') => State::Line(Part::Path),
                    (Part::Path, b'?') => State::Line(Part::Query),
                    (Part::Path | Part::Query, b' ') => State::Line(Part::Version),
                    _ => return 1,
                };
                1
            }
            State::Headers(header, framing) => self.step_header(header, framing, rest),
            State::Body(left) => {
                let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.0 = State::after_body(left - taken as u64);
                taken
            }
            State::Chunked(chunk) => {
                let (state, taken) = chunk.step(rest);
                self.0 = state;
                taken
            }
            State::Untracked => rest.len(),
        }
    }

    fn step_header(&mut self, header: Header, framing: Framing, rest: &[u8]) -> usize {
        let byte = rest[0];
        let (header, framing) = match header {
            Header::LineStart => match byte {
                b'\r' => (Header::LineStart, framing),
                b'\n' => {
                    self.0 = framing.body();
                    return 1;
                }
                b'c' | b'C' => (Header::Name(CONTENT_LENGTH, 1), framing),
                b't' | b'T' => (Header::Name(TRANSFER_ENCODING, 1), framing),
                _ => (Header::Skip, framing),
            },
            Header::Name(name, known) => match name.get(known) {
                Some(expected) if byte.eq_ignore_ascii_case(expected) => {
                    (Header::Name(name, known + 1), framing)
                }
                None if byte == b':' && name == CONTENT_LENGTH => (Header::Length(Digits::None), framing),
                None if byte == b':' => (Header::Skip, framing.with_chunks()),
                _ if byte == b'\n' => (Header::LineStart, framing),
                _ => (Header::Skip, framing),
            },
            Header::Length(digits) => match digits.next(byte) {
                Some(digits) => (Header::Length(digits), framing),
                None if byte == b'\n' => (Header::LineStart, framing.with_length(digits)),
                None => (Header::Skip, Framing::Unclear),
            },
            Header::Skip => match memchr(b'\n', rest) {
                Some(end) => {
                    self.0 = State::Headers(Header::LineStart, framing);
                    return end + 1;
                }
                None => return rest.len(),
            },
        };
        self.0 = State::Headers(header, framing);
        1
    }
}

impl State {
    fn after_body(left: u64) -> Self {
        if left == 0 { Self::Start } else { Self::Body(left) }
    }
}

impl Chunk {
    /// Advances by at least one byte. Returns the next state and the number of bytes.
    fn step(self, rest: &[u8]) -> (State, usize) {
        let byte = rest[0];
        match self {
            Self::Size(size) => match (byte, char::from(byte).to_digit(16)) {
                (_, Some(digit)) => match size.checked_mul(16) {
                    Some(size) => (State::Chunked(Self::Size(size + u64::from(digit))), 1),
                    None => (State::Untracked, 1),
                },
                (b'\n', _) => (State::Chunked(Self::after_size(size)), 1),
                (b'\r' | b';' | b' ' | b'\t', _) => (State::Chunked(Self::Extension(size)), 1),
                _ => (State::Untracked, 1),
            },
            Self::Extension(size) => match memchr(b'\n', rest) {
                Some(end) => (State::Chunked(Self::after_size(size)), end + 1),
                None => (State::Chunked(self), rest.len()),
            },
            Self::Data(left) => {
                let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - taken as u64;
                (State::Chunked(if left == 0 { Self::Size(0) } else { Self::Data(left) }), taken)
            }
            Self::Trailer(true) if byte == b'\n' => (State::Start, 1),
            Self::Trailer(at_start) => {
                (State::Chunked(Self::Trailer(byte == b'\n' || (at_start && byte == b'\r'))), 1)
            }
        }
    }

    fn after_size(size: u64) -> Self {
        if size == 0 { Self::Trailer(true) } else { Self::Data(size.saturating_add(2)) }
    }
}

impl Digits {
    /// Continues the value of a length header with a byte. Returns `None` if it is no longer a number.
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::None, b' ' | b'\t') => Some(self),
            (Self::None, b'0'..=b'9') => Some(Self::Some(u64::from(byte - b'0'))),
            (Self::Some(value), b'0'..=b'9') => {
                Some(Self::Some(value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?))
            }
            (Self::Some(value) | Self::Done(value), b' ' | b'\t' | b'\r') => Some(Self::Done(value)),
            _ => None,
        }
    }
}

impl Framing {
    fn with_length(self, digits: Digits) -> Self {
        match (self, digits) {
            (Self::None, Digits::Some(length) | Digits::Done(length)) => Self::Length(length),
            (Self::Length(before), Digits::Some(length) | Digits::Done(length)) if before == length => self,
            _ => Self::Unclear,
        }
    }

    fn with_chunks(self) -> Self {
        if matches!(self, Self::None | Self::Chunked) { Self::Chunked } else { Self::Unclear }
    }

    fn body(self) -> State {
        match self {
            Self::None => State::Start,
            Self::Length(length) => State::after_body(length),
            Self::Chunked => State::Chunked(Chunk::Size(0)),
            Self::Unclear => State::Untracked,
        }
    }
}

/// Returns the escape of a query character that Node's parser accepts and `http::Uri` rejects.
fn escape(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b'"' => Some(b"%22"),
        b'<' => Some(b"%3C"),
        b'>' => Some(b"%3E"),
        _ => None,
    }
}

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns what hyper reads if the bytes arrive in pieces of `piece`, and whether a request is incomplete
    /// at the end.
    fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let mut scanner = RequestScanner::new();
        let mut read = Vec::new();
        for piece in bytes.chunks(piece) {
            read.extend(scanner.scan(piece).unwrap_or_else(|| piece.to_vec()));
        }
        (read, scanner.is_incomplete())
    }

    #[test]
    fn a_query_is_escaped_and_nothing_else_is() {
        let sent = "GET /<a>?f=\"<b>\" HTTP/1.1\r\nX: \"<>\"\r\ncontent-length: 4\r\n\r\nP ?\"\
                    POST /?> HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET /?< HTTP/1.1\n\n";
        let taken = "GET /<a>?f=%22%3Cb%3E%22 HTTP/1.1\r\nX: \"<>\"\r\ncontent-length: 4\r\n\r\nP ?\"\
                     POST /?%3E HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET /?%3C HTTP/1.1\n\n";
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(read(sent.as_bytes(), piece), (taken.into(), false), "pieces of {piece}");
        }
    }

    #[test]
    fn what_follows_a_body_of_unknown_length_is_left_alone() {
        for framing in [
            "Transfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: 99999999999999999999",
            "Content-Length:",
        ] {
            let sent = format!("POST / HTTP/1.1\r\n{framing}\r\n\r\nGET /?\" HTTP/1.1\r\n\r\n");
            assert_eq!(read(sent.as_bytes(), 5), (sent.clone().into_bytes(), false), "{framing}");
        }
    }

    #[test]
    fn a_peer_owes_the_rest_of_what_it_has_begun() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for begun in ["G", "GET / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n4"] {
            assert!(read(begun.as_bytes(), 1000).1, "{begun}");
        }
        for begun in ["", "5", "5\r\n40", "5;a=b\r\n40abc\r\n", "2\r\n40\r\n0\r\n", "0\r\nA: b\r\n"] {
            assert!(read(format!("{chunked}{begun}").as_bytes(), 3).1, "{begun}");
        }
        for whole in ["0\r\n\r\n", "1A ; x\r\n\"4567890123456789012345678\r\n0\r\nA: b\r\n\r\n"] {
            let sent = format!("{chunked}{whole}GET /?\" HTTP/1.1\r\n\r\n");
            let taken = format!("{chunked}{whole}GET /?%22 HTTP/1.1\r\n\r\n");
            for piece in [1, 2, 3, 7, 1000] {
                assert_eq!(read(sent.as_bytes(), piece), (taken.clone().into_bytes(), false), "{whole}");
            }
        }
        for whole in ["", "\r\n", "GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length : 2\r\n\r\n"] {
            assert!(!read(whole.as_bytes(), 1000).1, "{whole}");
        }
    }

    proptest! {
        #[test]
        fn bodies_of_known_length_arrive_as_they_were_sent(body in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            let mut sent = format!("POST /?a HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
            sent.extend(&body);
            prop_assert_eq!(read(&sent, piece), (sent.clone(), false));
        }
    }
}
