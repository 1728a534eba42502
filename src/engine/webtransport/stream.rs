//! The server end of a WebTransport session, which carries the Engine.IO session on one bidirectional stream
//! of the peer.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Version, header};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wtransport::quinn::{ConnectionError, RecvStream, SendStream};

use crate::engine::close::WireEnd;
use crate::engine::outbox::Backlog;
use crate::engine::read_buffer::with_read_buffer;
use crate::engine::webtransport::http3::Session;
use crate::engine::webtransport::reader::{Incoming, Reader, Violation};
use crate::engine::{CloseReason, Frame, Message, Packet, Secure, codec};

/// The wire of one session, or of a candidate that wants to take over.
pub(crate) struct WebTransport {
    /// The first field, so that it is dropped first.
    session: Session,
    sending: SendStream,
    receiving: RecvStream,
    reader: Reader,
    /// The bytes that were read together with the first packet.
    early: Option<Box<[u8]>>,
    writing: VecDeque<Frame>,
    /// The number of bytes of the first frame in `writing` that are already sent, as encoded on this wire.
    written: usize,
    /// The close code for the peer.
    code: u16,
    /// Whether the peer was told that the session ended.
    told: bool,
    /// The future of a close, ready when the peer has everything and had a moment to disconnect itself.
    leaving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// The request in the first packet of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Open a new session.
    Open,
    /// Take over the session with this id.
    Upgrade(String),
}

impl WebTransport {
    /// Waits for the first stream of the peer and its first packet. Later frames may have `payload_max`
    /// bytes. Returns `None` if the peer violates the protocol or disconnects.
    pub(crate) async fn open(mut session: Session, payload_max: usize) -> Option<(Box<Self>, First)> {
        let (sending, receiving, early) = session.stream().await?;
        let mut wire = Box::new(Self {
            sending,
            receiving,
            reader: Reader::new(FIRST_PACKET_BYTES_MAX),
            early: (!early.is_empty()).then(|| early.into()),
            writing: VecDeque::new(),
            written: 0,
            code: 1000,
            told: false,
            leaving: None,
            session,
        });
        let first = poll_fn(|cx| wire.poll_first(cx)).await.ok()?;
        wire.reader = Reader::new(payload_max);
        Some((wire, first))
    }

    /// Reads once and passes every complete packet to `on_packet`.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        on_packet: &mut dyn FnMut(Packet),
    ) -> Poll<Result<(), WireEnd>> {
        if let Some(early) = self.early.take() {
            return Poll::Ready(self.decode(&early, on_packet));
        }
        with_read_buffer(|buffer| {
            let filled = ready!(self.poll_fill(cx, buffer))?;
            Poll::Ready(self.decode(&buffer[..filled], on_packet))
        })
    }

    /// Reads and discards data after a close. Ready when the peer has disconnected, or has received
    /// everything and does not disconnect.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let leaving = self.leaving.get_or_insert_with(|| {
            let stopped = self.sending.stopped();
            Box::pin(async move {
                // Ready when everything is acknowledged, or can no longer be.
                let _ = stopped.await;
                tokio::time::sleep(GRACE).await;
            })
        });
        if leaving.as_mut().poll(cx).is_ready() {
            if std::mem::replace(&mut self.told, true) {
                return Poll::Ready(());
            }
            self.leaving = Some(Box::pin(self.session.end(self.code)));
            cx.waker().wake_by_ref();
        }
        with_read_buffer(|buffer| {
            for _ in 0..DISCARDS_PER_TURN {
                if ready!(self.poll_fill(cx, buffer)).is_err() {
                    return Poll::Ready(());
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Queues one message.
    pub(crate) fn push(&mut self, frame: Frame) {
        self.writing.push_back(frame);
    }

    /// Queues one message before all others that are not partly written.
    pub(crate) fn push_first(&mut self, frame: Frame) {
        self.writing.insert(usize::from(self.written > 0), frame);
    }

    /// Queues several messages.
    pub(crate) fn extend(&mut self, mut frames: VecDeque<Frame>) {
        self.writing.append(&mut frames);
    }

    /// Sets the close code of the session.
    pub(crate) fn set_code(&mut self, code: u16) {
        self.code = code;
    }

    /// Discards everything that is queued, except for a partly written frame.
    pub(crate) fn discard_queue(&mut self) {
        self.writing.truncate(usize::from(self.written > 0));
    }

    /// Writes everything that is queued, as far as the peer accepts it.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireEnd>> {
        while !self.writing.is_empty() {
            let written = with_write_buffer(|buffer| {
                gather(buffer, &self.writing, self.written);
                AsyncWrite::poll_write(Pin::new(&mut self.sending), cx, buffer)
            });
            match ready!(written) {
                Ok(0) | Err(_) => return Poll::Ready(Err(self.stream_end())),
                Ok(count) => self.written = advance(&mut self.writing, self.written + count),
            }
        }
        self.writing = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    /// Ends the sending direction.
    pub(crate) fn shutdown(&mut self) {
        // Fails only if it was called before, or the peer no longer reads.
        let _ = self.sending.finish();
    }

    /// Returns what is queued in the wire.
    pub(crate) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        let mut written = self.written;
        for frame in &self.writing {
            backlog.add(frame, stream_length(frame) - std::mem::take(&mut written));
        }
        backlog
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<First, WireEnd>> {
        if let Some(early) = self.early.take()
            && let Some(first) = self.decode_first(&early)?
        {
            return Poll::Ready(Ok(first));
        }
        with_read_buffer(|buffer| {
            loop {
                let filled = ready!(self.poll_fill(cx, buffer))?;
                if let Some(first) = self.decode_first(&buffer[..filled])? {
                    return Poll::Ready(Ok(first));
                }
            }
        })
    }

    fn decode_first(&mut self, mut data: &[u8]) -> Result<Option<First>, WireEnd> {
        let Some(frame) = self.reader.next(&mut data)? else { return Ok(None) };
        self.early = (!data.is_empty()).then(|| data.into());
        first_packet(&frame).map(Some).ok_or(NO_PACKET)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, WireEnd>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match AsyncRead::poll_read(Pin::new(&mut self.receiving), cx, &mut buffer) {
            Poll::Ready(read) => read,
            Poll::Pending => {
                ready!(self.session.poll_ended(cx));
                return Poll::Ready(Err(self.stream_end()));
            }
        };
        match read {
            Ok(()) if buffer.filled().is_empty() => {
                Poll::Ready(Err(WireEnd::Stream(CloseReason::TransportClose)))
            }
            Ok(()) => Poll::Ready(Ok(buffer.filled().len())),
            Err(_) => Poll::Ready(Err(self.stream_end())),
        }
    }

    fn decode(&mut self, mut data: &[u8], on_packet: &mut dyn FnMut(Packet)) -> Result<(), WireEnd> {
        while let Some(frame) = self.reader.next(&mut data)? {
            match frame {
                Incoming::Text(text) => on_packet(codec::decode_text(text).map_err(|_| NO_PACKET)?),
                Incoming::Binary(data) => on_packet(Packet::Message(Message::Binary(data))),
            }
        }
        Ok(())
    }

    /// Returns the reason why the stream can carry no more packets. A peer that closes the session, the
    /// connection or its stream leaves intentionally; anything else is an error.
    fn stream_end(&self) -> WireEnd {
        match self.session.close_reason() {
            None | Some(ConnectionError::ApplicationClosed(_)) => {
                WireEnd::Stream(CloseReason::TransportClose)
            }
            Some(_) => WireEnd::Stream(CloseReason::TransportError),
        }
    }
}

/// Converts a session request to the head of an HTTP request, for hooks and the handshake. Returns `None` if
/// it is not valid as one.
pub(crate) fn head(path: &str, authority: &str, headers: &HashMap<String, String>) -> Option<Parts> {
    let mut request = Request::builder().method(Method::CONNECT).version(Version::HTTP_3).uri(path);
    let fields = request.headers_mut()?;
    fields.insert(header::HOST, HeaderValue::from_str(authority).ok()?);
    for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(':')) {
        fields.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
    }
    let mut parts = request.body(()).ok()?.into_parts().0;
    parts.extensions.insert(Secure);
    Some(parts)
}

fn first_packet(frame: &Incoming) -> Option<First> {
    #[derive(Deserialize)]
    struct Data {
        sid: String,
    }
    let Incoming::Text(text) = frame else { return None };
    match text.strip_prefix(b"0")? {
        [] => Some(First::Open),
        data => serde_json::from_slice(data).ok().map(|data: Data| First::Upgrade(data.sid)),
    }
}

impl From<Violation> for WireEnd {
    fn from(violation: Violation) -> Self {
        let (code, rule) = match violation {
            Violation::Empty => (1002, "empty frame"),
            Violation::TooLarge(_) => (1009, "frame too large"),
        };
        Self::Violation { reason: CloseReason::ParseError, code, rule }
    }
}

/// Fills `buffer` with the bytes to write next.
fn gather(buffer: &mut Vec<u8>, frames: &VecDeque<Frame>, written: usize) {
    buffer.clear();
    let mut skip = written;
    for frame in frames {
        let (first, rest) = frame.stream_parts();
        if skip == 0 {
            buffer.push(first);
        }
        let rest = &rest[skip.saturating_sub(1)..];
        skip = 0;
        buffer.extend_from_slice(&rest[..rest.len().min(WRITE_BYTES)]);
        if buffer.len() >= WRITE_BYTES || rest.len() > WRITE_BYTES {
            return;
        }
    }
}

/// Drops the frames that are complete within the first `written` bytes. Returns the bytes that belong to the
/// next frame.
fn advance(frames: &mut VecDeque<Frame>, mut written: usize) -> usize {
    while let Some(length) = frames.front().map(stream_length)
        && written >= length
    {
        written -= length;
        frames.pop_front();
    }
    written
}

fn stream_length(frame: &Frame) -> usize {
    frame.stream_parts().1.len() + 1
}

fn with_write_buffer<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    WRITE_BUFFER.with_borrow_mut(write)
}

thread_local! {
    /// One buffer per thread: QUIC copies written data, but each call has a cost.
    static WRITE_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The end of a stream that carries something other than Engine.IO packets.
const NO_PACKET: WireEnd =
    WireEnd::Violation { reason: CloseReason::ParseError, code: 1002, rule: "not an Engine.IO packet" };
/// The approximate number of bytes that are passed to QUIC at once.
const WRITE_BYTES: usize = 64 << 10;
/// The maximum size of the first packet. An open packet with the longest session id fits.
const FIRST_PACKET_BYTES_MAX: usize = 256;
/// The time that a peer has to read everything it has received before it is told that the session ended. Once
/// told, a browser discards unread data.
const GRACE: Duration = Duration::from_millis(200);
const DISCARDS_PER_TURN: usize = 16;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn first(text: &'static str) -> Option<First> {
        first_packet(&Incoming::Text(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn the_first_packet_opens_or_upgrades() {
        assert_eq!(first("0"), Some(First::Open));
        assert_eq!(first(r#"0{"sid":"abc","more":1}"#), Some(First::Upgrade("abc".into())));
        for text in ["", "1", "2probe", "4hello", "0abc", "0{}", r#"0{"sid":1}"#, r#"0"abc""#] {
            assert_eq!(first(text), None, "{text:?}");
        }
        assert_eq!(first_packet(&Incoming::Binary("0".into())), None);
    }

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let mut frames: VecDeque<_> = [Frame::text("a"), Frame::binary(b"bc"), Frame::text("d")].into();
        let mut all = Vec::new();
        gather(&mut all, &frames, 0);
        assert_eq!(all, b"\x024a\x82bc\x024d");
        let mut written = 0;
        let mut sent = Vec::new();
        while !frames.is_empty() {
            let mut buffer = Vec::new();
            gather(&mut buffer, &frames, written);
            let count = buffer.len().min(2);
            sent.extend_from_slice(&buffer[..count]);
            written = advance(&mut frames, written + count);
        }
        assert_eq!(sent, all);
    }

    #[test]
    fn a_large_message_leaves_in_pieces() {
        let mut frames: VecDeque<_> = [Frame::binary(&vec![7; 3 * WRITE_BYTES]), Frame::text("last")].into();
        let (mut written, mut sent) = (0, Vec::new());
        while !frames.is_empty() {
            let mut buffer = Vec::new();
            gather(&mut buffer, &frames, written);
            assert!(buffer.len() <= WRITE_BYTES + 1);
            sent.extend_from_slice(&buffer);
            written = advance(&mut frames, written + buffer.len());
        }
        let expected =
            [&[0xFF][..], &(3 * WRITE_BYTES as u64).to_be_bytes(), &vec![7; 3 * WRITE_BYTES], b"\x054last"];
        assert_eq!(sent, expected.concat());
    }

    #[test]
    fn the_head_of_a_session_request_is_seen_as_http() {
        let headers = [(":method", "CONNECT"), ("origin", "http://a"), ("user-agent", "x")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let parts = head("/socket.io/?a=1", "localhost:3000", &headers).unwrap();
        assert_eq!((parts.uri.path(), parts.uri.query()), ("/socket.io/", Some("a=1")));
        assert!(parts.headers["host"] == "localhost:3000" && parts.headers["origin"] == "http://a");
        assert_eq!(parts.headers.len(), 3);
    }
}
