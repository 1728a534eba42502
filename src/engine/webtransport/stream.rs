//! The server end of a session on QUIC, which is one bidirectional stream of the peer: in a WebTransport session, or
//! directly on the connection.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Version, header};
use serde::Deserialize;
use tokio::io::{AsyncRead, ReadBuf};
use wtransport::quinn::{ConnectionError, RecvStream, SendStream};

use super::ends::{Receiving, Sending, carried};
use crate::engine::close::WireEnd;
use crate::engine::outbox::Backlog;
use crate::engine::raw_stream::LateStream;
use crate::engine::read_buffer::with_read_buffer;
use crate::engine::webtransport::bulk::Bulk;
use crate::engine::webtransport::http3::Session;
use crate::engine::webtransport::raw::{Confirmed, Raw};
use crate::engine::webtransport::reader::{Incoming, Reader, Violation};
use crate::engine::webtransport::writer::Writer;
use crate::engine::{CloseReason, Frame, Message, Packet, Secure, Transport, codec};

/// The wire of one session, or of a candidate that wants to take over.
pub(crate) struct StreamWire {
    /// The first field, so that it is dropped first.
    channel: Channel,
    writer: Writer,
    /// The second stream of the peer, for large answers, if it may have one.
    bulk: Option<Bulk>,
    receiving: Receiving,
    reader: Reader,
    /// The bytes that were read together with the first packet.
    early: Option<Box<[u8]>>,
    /// The end of the handshake, while it is still to come.
    unconfirmed: Option<Confirmed>,
    /// The first frame that has to wait for it. What follows stays unread, in `early` and in the stream.
    held: Option<Incoming>,
    /// Whether the peer was told that the session ended.
    told: bool,
    /// The future of a close, ready when the peer has everything and had a moment to disconnect itself.
    leaving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What the stream of a session belongs to.
pub(crate) enum Channel {
    WebTransport(Session),
    Quic(Raw),
    /// A WebTransport session with another node, which carries the bytes of its stream.
    Carried,
}

impl Channel {
    /// Waits for the peer's first bidirectional stream. Also returns the bytes already read from it.
    async fn stream(&mut self) -> Option<(SendStream, RecvStream, Vec<u8>)> {
        match self {
            Self::WebTransport(session) => session.stream().await,
            Self::Quic(raw) => raw.stream().await,
            Self::Carried => None,
        }
    }

    fn transport(&self) -> Transport {
        match self {
            Self::WebTransport(_) | Self::Carried => Transport::WebTransport,
            Self::Quic(_) => Transport::Quic,
        }
    }

    /// Ready when the peer has ended the session, other than by its stream or its connection.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::WebTransport(session) => session.poll_ended(cx),
            Self::Quic(_) | Self::Carried => Poll::Pending,
        }
    }

    fn close_reason(&self) -> Option<ConnectionError> {
        match self {
            Self::WebTransport(session) => session.close_reason(),
            Self::Quic(raw) => raw.close_reason(),
            Self::Carried => None,
        }
    }

    /// Sets the code that the peer is told at the end, and a text that only QUIC itself has room for.
    fn set_close(&mut self, code: u16, text: &[u8]) {
        match self {
            Self::WebTransport(session) => session.set_code(code),
            Self::Quic(raw) => raw.set_close(code, text),
            // The other node sees the end of the stream, and nothing else.
            Self::Carried => {}
        }
    }

    /// Tells the peer the end.
    fn end(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match self {
            Self::WebTransport(session) => Box::pin(session.end()),
            Self::Quic(raw) => {
                raw.end();
                Box::pin(std::future::ready(()))
            }
            Self::Carried => Box::pin(std::future::ready(())),
        }
    }

    /// Returns the second stream, if the peer may open one.
    fn bulk(&self) -> Option<Bulk> {
        match self {
            Self::WebTransport(_) | Self::Carried => None,
            Self::Quic(raw) => Some(raw.bulk()),
        }
    }

    /// The maximum size of the first packet: of a session id on WebTransport, whose request had the rest, or of a
    /// whole request.
    fn first_packet_bytes_max(&self) -> usize {
        match self {
            Self::WebTransport(_) | Self::Carried => ID_BYTES_MAX,
            Self::Quic(_) => REQUEST_BYTES_MAX,
        }
    }
}

/// The request in the first packet of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Open a new session.
    Open,
    /// Open a new session for this request.
    Request { url: String, headers: HashMap<String, String> },
    /// Take over the session with this id.
    Upgrade(String),
}

impl StreamWire {
    /// Waits for the first stream of the peer and its first packet. Later frames may have `payload_max`
    /// bytes. Returns `None` if the peer violates the protocol or disconnects.
    pub(crate) async fn open(mut channel: Channel, payload_max: usize) -> Option<(Box<Self>, First)> {
        let (sending, receiving, early) = channel.stream().await?;
        let unconfirmed = match &mut channel {
            Channel::WebTransport(_) | Channel::Carried => None,
            Channel::Quic(raw) => raw.confirmed(),
        };
        let mut wire = Box::new(Self {
            writer: Writer::new(Sending::Quic(sending)),
            bulk: channel.bulk(),
            receiving: Receiving::Quic(receiving),
            reader: Reader::new(channel.first_packet_bytes_max()),
            early: (!early.is_empty()).then(|| early.into()),
            unconfirmed,
            held: None,
            told: false,
            leaving: None,
            channel,
        });
        // The stream does not tell: on a connection that was closed during its handshake, it looks as after one.
        poll_fn(|cx| Poll::Ready(wire.poll_confirmed(cx))).await.ok()?;
        let first = poll_fn(|cx| wire.poll_first(cx)).await.ok()?;
        wire.reader = Reader::new(payload_max);
        Some((wire, first))
    }

    /// Creates the wire of a client whose WebTransport session is with another node, which has read its first packet.
    pub(crate) fn carried(stream: LateStream, payload_max: usize) -> Box<Self> {
        let (sending, receiving) = carried(stream);
        Box::new(Self {
            channel: Channel::Carried,
            writer: Writer::new(sending),
            bulk: None,
            receiving,
            reader: Reader::new(payload_max),
            early: None,
            unconfirmed: None,
            held: None,
            told: false,
            leaving: None,
        })
    }

    /// Takes the bytes that were read together with the first packet.
    pub(super) fn take_early(&mut self) -> Bytes {
        self.early.take().map(Bytes::from).unwrap_or_default()
    }

    pub(super) fn sending(&mut self) -> &mut Sending {
        &mut self.writer.sending
    }

    /// Reads bytes that this node does not look at. Nothing is read once the peer has ended its session.
    pub(super) fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = AsyncRead::poll_read(Pin::new(&mut self.receiving), cx, buffer);
        if read.is_pending() && self.channel.poll_ended(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        read
    }

    /// Returns the transport of the wire.
    pub(crate) fn transport(&self) -> Transport {
        self.channel.transport()
    }

    /// Reads once and passes every complete packet to `on_packet`.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        on_packet: &mut dyn FnMut(Packet),
    ) -> Poll<Result<(), WireEnd>> {
        if !self.poll_confirmed(cx)? && self.held.is_some() {
            return Poll::Pending;
        }
        if let Some(frame) = self.held.take() {
            return Poll::Ready(packet(frame).map(on_packet));
        }
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
            let delivered = self.writer.sending.delivered();
            Box::pin(async move {
                delivered.await;
                tokio::time::sleep(GRACE).await;
            })
        });
        if leaving.as_mut().poll(cx).is_ready() {
            if std::mem::replace(&mut self.told, true) {
                return Poll::Ready(());
            }
            self.leaving = Some(self.channel.end());
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
        match &mut self.bulk {
            Some(bulk) if bulk.takes(&frame) => bulk.push(frame),
            _ => self.writer.push(frame),
        }
    }

    /// Queues one message before all others that are not partly written.
    pub(crate) fn push_first(&mut self, frame: Frame) {
        self.writer.push_first(frame);
    }

    /// Queues several messages.
    pub(crate) fn extend(&mut self, frames: VecDeque<Frame>) {
        frames.into_iter().for_each(|frame| self.push(frame));
    }

    /// Sets the code that the peer is told at the end, and a text where there is room for one.
    pub(crate) fn set_close(&mut self, code: u16, text: &[u8]) {
        self.channel.set_close(code, text);
    }

    /// Discards everything that is queued, except for partly written frames.
    pub(crate) fn discard_queue(&mut self) {
        self.writer.discard();
        self.bulk.iter_mut().for_each(Bulk::discard);
    }

    /// Writes everything that is queued, as far as the peer accepts it. What is left on the second stream does not
    /// keep it from being ready: nothing has to wait for that.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireEnd>> {
        let flushed = self.writer.poll_flush(cx);
        if let Some(bulk) = &mut self.bulk {
            if bulk.flush(cx).is_err() {
                return Poll::Ready(Err(self.stream_end()));
            }
            if bulk.poll_stalled(cx).is_ready() {
                return Poll::Ready(Err(WireEnd::Stream(CloseReason::Slow)));
            }
        }
        flushed.map_err(|_| self.stream_end())
    }

    /// Whether nothing is left on the second stream either.
    pub(crate) fn is_flushed(&self) -> bool {
        self.bulk.as_ref().is_none_or(Bulk::is_empty)
    }

    /// Ends the sending direction, once the peer has what left on the second stream: the session ends with the first one,
    /// and so do the requests that wait for an answer.
    pub(crate) fn shutdown(&mut self, cx: &mut Context<'_>) {
        if self.bulk.as_mut().is_none_or(|bulk| bulk.poll_end(cx).is_ready()) {
            self.writer.finish();
        }
    }

    /// Returns what is queued in the wire for the first stream.
    pub(crate) fn backlog(&self) -> Backlog {
        self.writer.backlog()
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
                ready!(self.channel.poll_ended(cx));
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
            if self.unconfirmed.is_some() && !is_replay_safe(&frame) {
                self.held = Some(frame);
                self.early = (!data.is_empty()).then(|| data.into());
                return Ok(());
            }
            on_packet(packet(frame)?);
        }
        Ok(())
    }

    /// Whether the handshake is over. It is an error if it fails or takes too long.
    fn poll_confirmed(&mut self, cx: &mut Context<'_>) -> Result<bool, WireEnd> {
        let Some(unconfirmed) = &mut self.unconfirmed else { return Ok(true) };
        let Poll::Ready(has_succeeded) = unconfirmed.as_mut().poll(cx) else { return Ok(false) };
        self.unconfirmed = None;
        if has_succeeded { Ok(true) } else { Err(WireEnd::Stream(CloseReason::TransportError)) }
    }

    /// Waits until the handshake is over, however it ends.
    pub(crate) async fn confirmed(&mut self) {
        let over = |cx: &mut Context<'_>| match self.poll_confirmed(cx) {
            Ok(false) => Poll::Pending,
            Ok(true) | Err(_) => Poll::Ready(()),
        };
        poll_fn(over).await;
    }

    /// Whether the session has begun before the end of the handshake.
    pub(crate) fn is_early(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// Returns the name of the server that the peer wants to reach, if it is not in a request.
    pub(crate) fn server_name(&self) -> String {
        match &self.channel {
            Channel::WebTransport(_) | Channel::Carried => String::new(),
            Channel::Quic(raw) => raw.server_name(),
        }
    }

    /// Returns the reason why the stream can carry no more packets. A peer that closes the session, the
    /// connection or its stream leaves intentionally; anything else is an error.
    fn stream_end(&self) -> WireEnd {
        match self.channel.close_reason() {
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

fn packet(frame: Incoming) -> Result<Packet, WireEnd> {
    match frame {
        Incoming::Text(text) => codec::decode_text(text).map_err(|_| NO_PACKET),
        Incoming::Binary(data) => Ok(Packet::Message(Message::Binary(data))),
    }
}

/// Whether a frame may come from somebody who repeats what they have seen: the CONNECT of Socket.IO, which begins
/// something that nobody can read without the keys of the handshake. One that asks for a session to be restored would end
/// the connection that has it; a backslash may hide that.
fn is_replay_safe(frame: &Incoming) -> bool {
    let Incoming::Text(text) = frame else { return false };
    text.starts_with(b"40") && !text.contains(&b'\\') && memchr::memmem::find(text, b"\"pid\"").is_none()
}

fn first_packet(frame: &Incoming) -> Option<First> {
    #[derive(Deserialize)]
    struct Data {
        sid: Option<String>,
        url: Option<String>,
        #[serde(default)]
        headers: HashMap<String, String>,
    }
    let Incoming::Text(text) = frame else { return None };
    let data = match text.strip_prefix(b"0")? {
        [] => return Some(First::Open),
        data => serde_json::from_slice::<Data>(data).ok()?,
    };
    match (data.sid, data.url) {
        (Some(sid), None) => Some(First::Upgrade(sid)),
        (None, Some(url)) => Some(First::Request { url, headers: data.headers }),
        _ => None,
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

/// The end of a stream that carries something other than Engine.IO packets.
const NO_PACKET: WireEnd =
    WireEnd::Violation { reason: CloseReason::ParseError, code: 1002, rule: "not an Engine.IO packet" };
/// The maximum size of a first packet that may have a session id. One with the longest id fits.
const ID_BYTES_MAX: usize = 256;
/// The maximum size of a first packet that may be a request.
const REQUEST_BYTES_MAX: usize = 8 << 10;
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
    fn a_connect_that_takes_a_session_over_waits_for_the_handshake() {
        let is_safe =
            |text: &'static str| is_replay_safe(&Incoming::Text(Bytes::from_static(text.as_bytes())));
        assert!(is_safe("40") && is_safe(r#"40/news,{"token":"t"}"#));
        for held in [
            r#"40{"pid":"p","offset":"o"}"#,
            r#"40/news,{"a":1,"pid" :"p"}"#,
            r#"40{"\u0070id":"p"}"#,
            "42[1]",
        ] {
            assert!(!is_safe(held), "{held}");
        }
        assert!(!is_replay_safe(&Incoming::Binary(Bytes::from_static(b"40"))));
    }

    #[test]
    fn the_first_packet_opens_or_upgrades() {
        assert_eq!(first("0"), Some(First::Open));
        assert_eq!(first(r#"0{"sid":"abc","more":1}"#), Some(First::Upgrade("abc".into())));
        let request = r#"0{"url":"/socket.io/?EIO=4","headers":{"x":"y"}}"#;
        let headers = [("x".to_owned(), "y".to_owned())].into();
        assert_eq!(first(request), Some(First::Request { url: "/socket.io/?EIO=4".into(), headers }));
        let both = r#"0{"sid":"abc","url":"/"}"#;
        for text in ["", "1", "2probe", "4hello", "0abc", "0{}", r#"0{"sid":1}"#, r#"0"abc""#, both] {
            assert_eq!(first(text), None, "{text:?}");
        }
        assert_eq!(first_packet(&Incoming::Binary("0".into())), None);
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
