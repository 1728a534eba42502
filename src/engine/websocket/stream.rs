//! The server end of a WebSocket, directly on the TCP or TLS stream. An idle one owns no buffer: it reads
//! into a buffer of its thread, and writes shared, preframed messages with one vectored write for everything
//! that is due.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::extension;
use super::reader::{Incoming, Input, Reader};
use super::violation::Violation;
use super::write::write_all;
use crate::engine::close::WireEnd;
use crate::engine::deflate::Threshold;
use crate::engine::outbox::Backlog;
use crate::engine::raw_stream::{Held, Io, TakeStream, take_known};
use crate::engine::read_buffer::with_read_buffer;
use crate::engine::{CloseReason, Config, Frame, Message, Packet, Protocol, codec, legacy};
use crate::{ImksError, ImksResult};

/// The wire of one session, or of a candidate that wants to take over.
pub(crate) struct WebSocket {
    io: Io,
    /// What the listener counts this connection by.
    held: Held,
    reader: Reader,
    writing: VecDeque<Frame>,
    /// The number of bytes of the first frame in `writing` that are already sent.
    written: usize,
    /// The number of pongs in `writing`.
    pongs: u8,
    /// The reason why further data of the peer is discarded.
    read_end: Option<ReadEnd>,
    /// Whether TLS may hold bytes that are not sent yet.
    encrypted: bool,
    protocol: Protocol,
    /// The size from which messages to the peer are compressed; [`Threshold::NEVER`] if permessage-deflate
    /// was not negotiated.
    threshold: Threshold,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadEnd {
    /// The peer violated the protocol.
    Violation,
    /// The peer has closed the connection.
    Closed,
}

impl From<Violation> for WireEnd {
    fn from(violation: Violation) -> Self {
        let (reason, code, rule) = match violation {
            Violation::Protocol(rule) => (CloseReason::TransportError, 1002, rule),
            Violation::TooLarge(_) => (CloseReason::TooLarge, 1009, "message too large"),
            Violation::Utf8 => (CloseReason::ParseError, 1007, "text that is not UTF-8"),
            Violation::Deflate => (CloseReason::ParseError, 1007, "message that cannot be inflated"),
            Violation::Flood => (CloseReason::TransportError, 1008, "too many frames without content"),
        };
        Self::Violation { reason, code, rule }
    }
}

impl WebSocket {
    /// Creates a WebSocket for a client of this version whose request is being answered. Also returns the
    /// extensions for the response.
    pub(crate) fn accept(
        upgrade: OnUpgrade,
        request: &Parts,
        protocol: Protocol,
        config: &Config,
    ) -> (Self, Option<HeaderValue>) {
        let mut reader = Reader::new(config.max_payload);
        // Frames for version 3 clients are encoded on sending, too late to be compressed once for all.
        let wanted = config.per_message_deflate && protocol == Protocol::V4;
        let extensions = wanted.then(|| extension::accept(&request.headers)).flatten();
        let mut threshold = Threshold::NEVER;
        if extensions.is_some() {
            threshold = Threshold::bytes(config.per_message_deflate_threshold);
            reader.inflate();
        }
        let wire = Self {
            io: Io::Waiting(upgrade, request.extensions.get().copied()),
            held: None,
            reader,
            writing: VecDeque::new(),
            written: 0,
            pongs: 0,
            read_end: None,
            encrypted: false,
            protocol,
            threshold,
        };
        (wire, extensions)
    }

    /// Returns the size from which messages to the peer should be compressed.
    pub(crate) fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// Waits for the HTTP layer to release the stream. Ready at once afterwards.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireEnd>> {
        let (upgrade, take) = match &mut self.io {
            Io::Open(_) | Io::Secure(_) => return Poll::Ready(Ok(())),
            Io::Gone => return Poll::Ready(Err(GONE)),
            Io::Waiting(upgrade, take) => (upgrade, *take),
        };
        let upgraded = ready!(Pin::new(upgrade).poll(cx));
        self.io = Io::Gone;
        let Ok(upgraded) = upgraded else { return Poll::Ready(Err(GONE)) };
        let TakeStream(take) = take.unwrap_or(TakeStream(take_known));
        let Some((stream, early)) = take(upgraded) else {
            tracing::error!("{UNKNOWN_STREAM}");
            return Poll::Ready(Err(GONE));
        };
        self.reader.early(&early);
        (self.io, self.held) = stream.into_parts();
        Poll::Ready(Ok(()))
    }

    /// Reads once and passes every complete packet to `on_packet`. Pings are answered here.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        on_packet: &mut dyn FnMut(Packet),
    ) -> Poll<Result<(), WireEnd>> {
        ready!(self.poll_open(cx))?;
        if let Some(mut early) = self.reader.take_early() {
            return Poll::Ready(self.decode(&mut early, on_packet));
        }
        with_read_buffer(|buffer| {
            let filled = ready!(self.poll_fill(cx, buffer))?;
            Poll::Ready(self.decode(&mut buffer[..filled], on_packet))
        })
    }

    /// Reads and discards data after a close. Ready when the peer has closed too.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Nothing can be sent any more.
        self.pongs = PONGS_MAX;
        with_read_buffer(|buffer| {
            for _ in 0..DISCARDS_PER_TURN {
                if self.read_end == Some(ReadEnd::Closed) {
                    return Poll::Ready(());
                }
                if let Some(mut early) = self.reader.take_early() {
                    self.discard(&mut early);
                    continue;
                }
                let Ok(filled) = ready!(self.poll_fill(cx, buffer)) else { return Poll::Ready(()) };
                self.discard(&mut buffer[..filled]);
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
        if let Protocol::V3 { base64 } = self.protocol {
            frames = frames.into_iter().map(|frame| legacy_frame(frame, base64)).collect();
        }
        if self.writing.is_empty() {
            self.writing = frames;
        } else {
            self.writing.append(&mut frames);
        }
    }

    /// Discards everything that is queued, except for a partly written frame.
    pub(crate) fn discard_queue(&mut self) {
        self.writing.truncate(usize::from(self.written > 0));
    }

    /// Writes everything that is queued, as far as the peer accepts it.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireEnd>> {
        if self.writing.is_empty() && !self.encrypted {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_open(cx))?;
        let written = match &mut self.io {
            Io::Open(stream) => write_all(stream, cx, &mut self.writing, &mut self.written).map_err(|_| GONE),
            Io::Secure(stream) => {
                self.encrypted = true;
                let written = write_all(&mut **stream, cx, &mut self.writing, &mut self.written);
                ready!(written).map_err(|_| GONE)?;
                let flushed = ready!(Pin::new(&mut **stream).poll_flush(cx));
                self.encrypted = false;
                Poll::Ready(flushed.map_err(|_| GONE))
            }
            _ => Poll::Ready(Err(GONE)),
        };
        ready!(written)?;
        self.writing = VecDeque::new();
        self.pongs = 0;
        Poll::Ready(Ok(()))
    }

    /// Ends the sending direction.
    pub(crate) fn shutdown(&mut self, cx: &mut Context<'_>) {
        // Immediate on a TCP stream. If it fails, the following drop has the same effect.
        let _ = match &mut self.io {
            Io::Open(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Secure(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            _ => return,
        };
    }

    /// Returns what is queued in the wire.
    pub(crate) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        let mut written = self.written;
        for frame in &self.writing {
            backlog.add(frame, frame.len() - std::mem::take(&mut written));
        }
        backlog
    }

    /// Whether the HTTP layer has released the stream.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.io, Io::Open(_) | Io::Secure(_))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, WireEnd>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match &mut self.io {
            Io::Open(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Io::Secure(stream) => Pin::new(&mut **stream).poll_read(cx, &mut buffer),
            _ => return Poll::Ready(Err(GONE)),
        };
        match ready!(read) {
            Ok(()) if buffer.filled().is_empty() => {
                Poll::Ready(Err(WireEnd::Stream(CloseReason::TransportClose)))
            }
            Ok(()) => Poll::Ready(Ok(buffer.filled().len())),
            Err(_) => Poll::Ready(Err(GONE)),
        }
    }

    fn discard(&mut self, data: &mut [u8]) {
        if self.read_end.is_none() {
            // Only the close frame matters, and it is recorded.
            let _ = self.decode(data, &mut drop);
        }
    }

    fn decode(&mut self, data: &mut [u8], on_packet: &mut dyn FnMut(Packet)) -> Result<(), WireEnd> {
        let decoded = self.decode_frames(data, on_packet);
        match decoded {
            Err(WireEnd::Peer(_)) => self.read_end = Some(ReadEnd::Closed),
            Err(WireEnd::Violation { .. }) => self.read_end = Some(ReadEnd::Violation),
            _ => {}
        }
        decoded
    }

    fn decode_frames(&mut self, data: &mut [u8], on_packet: &mut dyn FnMut(Packet)) -> Result<(), WireEnd> {
        let mut input = Input::new(data);
        while let Some(incoming) = self.reader.next(&mut input)? {
            match incoming {
                Incoming::Text(text) => on_packet(self.decode_text(text).map_err(parse_error)?),
                Incoming::Binary(data) => on_packet(self.decode_binary(data).map_err(parse_error)?),
                Incoming::Ping(content) => self.pong(&content),
                Incoming::Close(content) => return Err(WireEnd::Peer(content)),
            }
        }
        Ok(())
    }

    fn decode_text(&self, text: Bytes) -> ImksResult<Packet> {
        match self.protocol {
            Protocol::V4 => codec::decode_text(text),
            Protocol::V3 { .. } => legacy::decode_text(text),
        }
    }

    fn decode_binary(&self, data: Bytes) -> ImksResult<Packet> {
        match self.protocol {
            Protocol::V4 => Ok(Packet::Message(Message::Binary(data))),
            Protocol::V3 { .. } => legacy::decode_binary(data),
        }
    }

    /// Queues a pong. While the peer reads nothing, only a limited number of its pings is answered, as RFC
    /// 6455 section 5.5.3 allows.
    fn pong(&mut self, content: &Bytes) {
        if self.pongs < PONGS_MAX {
            self.pongs += 1;
            self.writing.push_back(Frame::control(PONG, content));
        }
    }
}

/// Returns the frame in the form of version 3. An answer remains an answer.
fn legacy_frame(frame: Frame, base64: bool) -> Frame {
    let is_answer = frame.is_answer();
    let frame = legacy::websocket_frame(frame, base64);
    if is_answer { frame.into_answer(None) } else { frame }
}

/// Returns a WebSocket close frame with this content: nothing, or a code and a reason.
pub(crate) fn close_frame(content: &[u8]) -> Frame {
    Frame::control(CLOSE, content)
}

fn parse_error(error: ImksError) -> WireEnd {
    match error {
        ImksError::InvalidPacketUtf8 => Violation::Utf8.into(),
        _ => WireEnd::Violation {
            reason: CloseReason::ParseError,
            code: 1002,
            rule: "not an Engine.IO packet",
        },
    }
}

/// The maximum number of pongs that wait for a blocked wire.
const PONGS_MAX: u8 = 16;
/// The log message for a WebSocket whose stream cannot be recovered.
const UNKNOWN_STREAM: &str = "a WebSocket has no stream: the accept loop runs HTTP on a stream of its own type. Serve \
     TcpStream or tokio_rustls streams (axum::serve, hyper, hyper-util), or put engine::TakeStream into the extensions \
     of its requests";
const DISCARDS_PER_TURN: usize = 16;
const GONE: WireEnd = WireEnd::Stream(CloseReason::TransportError);
const CLOSE: u8 = 0x8;
const PONG: u8 = 0xA;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_violation_has_its_code() {
        let code = |violation: Violation| match WireEnd::from(violation) {
            WireEnd::Violation { code, .. } => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(Violation::TooLarge(7)), 1009);
        assert_eq!(WireEnd::from(Violation::Utf8).reason(), CloseReason::ParseError);
        assert_eq!(close_frame(&1000_u16.to_be_bytes()).wire().as_ref(), b"\x88\x02\x03\xe8");
    }
}
