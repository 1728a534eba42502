//! The transport that is one stream of a WebTransport session: HTTP/3 on QUIC, by `wtransport`.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use futures_util::future::BoxFuture;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use wtransport::config::{DnsLookupFuture, DnsResolver};
use wtransport::endpoint::{ConnectOptions, endpoint_side};
use wtransport::error::ConnectingError;
use wtransport::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, VarInt};

use super::duplex::PacketStream;
use super::io::{HEAD_START, addresses};
use super::queue::{Piece, SendQueue};
use super::quic::QuicConfig;
use super::staggered::first;
use super::wire::{Dialer, Session};
use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::client::event::TransportKind;
use crate::engine::codec;
use crate::engine::packet::{Message, Packet};
use crate::engine::webtransport::{BINARY, Incoming, Reader, Violation};
use crate::error::{Cause, ImksError};

const NAME: &str = TransportKind::WebTransport.name();

/// A WebTransport session without a stream: the server knows of no session of Engine.IO yet.
#[derive(Debug)]
pub(crate) struct Quic {
    /// The first field, so that everything is closed before the others are dropped.
    _endpoint: Closing,
    connection: Connection,
}

/// The one connection of an endpoint, which is closed when this is dropped: the tasks of the library would keep it
/// open.
struct Closing(Endpoint<endpoint_side::Client>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(VarInt::from_u32(0), b"");
    }
}

impl Quic {
    /// Connects to a server and asks for a session, with the cookies of another transport if there are any.
    pub(super) async fn connect(dialer: &Dialer, cookies: Option<&HeaderValue>) -> ClientResult<Self> {
        let failed = |error| ClientError::connect(NAME, error);
        let headers = headers(dialer, cookies)?;
        let found = addresses(&dialer.address).await.map_err(failed)?;
        let attempts = found.into_iter().map(|address| Self::connect_to(dialer, address, headers.clone()));
        let none = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        first(attempts, HEAD_START, failed(none)).await
    }

    async fn connect_to(
        dialer: &Dialer,
        address: SocketAddr,
        headers: HashMap<String, String>,
    ) -> ClientResult<Self> {
        let own: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let Some(QuicConfig(quic)) = dialer.quic.clone() else {
            return Err(ClientError::Config("the client was built without WebTransport".into()));
        };
        let mut config = ClientConfig::builder().with_bind_address(own).build_with_quic_config(quic);
        config.set_dns_resolver(Resolved(address));
        let endpoint = Endpoint::client(config).map_err(|error| ClientError::connect(NAME, error))?;
        let endpoint = Closing(endpoint);
        let url = ConnectOptions::builder(dialer.address.url(NAME));
        let options = headers.iter().fold(url, |options, (name, value)| options.add_header(name, value));
        let connection = endpoint.0.connect(options.build()).await.map_err(refused)?;
        Ok(Self { _endpoint: endpoint, connection })
    }
}

/// An address that was looked up before.
#[derive(Debug)]
struct Resolved(SocketAddr);

impl DnsResolver for Resolved {
    fn resolve(&self, _: &str) -> Pin<Box<dyn DnsLookupFuture>> {
        let address = self.0;
        Box::pin(async move { Ok(Some(address)) })
    }
}

fn headers(dialer: &Dialer, cookies: Option<&HeaderValue>) -> ClientResult<HashMap<String, String>> {
    let mut headers = HashMap::<String, String>::new();
    for (name, value) in &dialer.headers(cookies) {
        let value = value.to_str().map_err(|error| ClientError::connect(NAME, error))?;
        // The library takes each name once, and HTTP reads several values as a list.
        let known = headers.entry(name.to_string());
        known.and_modify(|known| *known = format!("{known}, {value}")).or_insert_with(|| value.to_owned());
    }
    Ok(headers)
}

/// An open stream.
pub(super) struct WebTransport {
    quic: Quic,
    sending: SendStream,
    receiving: RecvStream,
    reader: Reader,
    /// What was read last, and the part of it that has not been looked at.
    buffer: Box<[u8]>,
    unread: Range<usize>,
    /// Frames of the pieces that were taken out of the queue.
    writing: BytesMut,
    /// See [`Dialer::heard_at`].
    heard_at: Arc<Mutex<Instant>>,
}

impl WebTransport {
    /// Opens the stream, for a new session or for one that was begun on polling.
    pub(super) async fn open(dialer: &Dialer, quic: Quic, session: Option<&Session>) -> ClientResult<Self> {
        let opening = quic.connection.open_bi().await.map_err(|error| ClientError::connect(NAME, error))?;
        let (sending, receiving) = opening.await.map_err(|error| ClientError::connect(NAME, error))?;
        let mut writing = BytesMut::new();
        let first = match session {
            None => "0".to_owned(),
            Some(session) => format!("0{}", serde_json::json!({ "sid": session.sid })),
        };
        put_frame(&mut writing, 0, first.as_bytes());
        let mut opened = Self {
            quic,
            sending,
            receiving,
            reader: Reader::new(dialer.message_bytes_max),
            buffer: vec![0; READ_BUFFER_BYTES].into(),
            unread: 0..0,
            writing,
            heard_at: dialer.heard_at.clone(),
        };
        // The server says nothing before the first packet.
        let mut nothing_more = SendQueue::default();
        let sent = poll_fn(|cx| opened.poll_drain(&mut nothing_more, cx)).await;
        sent.map(|()| opened).map_err(|error| ClientError::connect(NAME, error))
    }

    fn poll_drain(&mut self, queue: &mut SendQueue, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.writing.len() < WRITE_BUFFER_BYTES
                && let Some(piece) = queue.pop()
            {
                put_piece(&mut self.writing, &piece);
            }
            if self.writing.is_empty() {
                // A large message does not occupy its room for ever.
                self.writing = BytesMut::new();
                return Poll::Ready(Ok(()));
            }
            let written = ready!(Pin::new(&mut self.sending).poll_write(cx, &self.writing))?;
            self.writing.advance(written);
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DisconnectReason>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.receiving).poll_read(cx, &mut buffer)).map_err(failure)?;
        self.unread = 0..buffer.filled().len();
        if self.unread.is_empty() {
            return Poll::Ready(Err(DisconnectReason::TransportClosed));
        }
        *self.heard_at.lock() = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl PacketStream for WebTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::WebTransport
    }

    fn poll_send(
        &mut self,
        queue: &mut SendQueue,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), DisconnectReason>> {
        self.poll_drain(queue, cx).map_err(failure)
    }

    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, DisconnectReason>> {
        loop {
            let mut unread = &self.buffer[self.unread.clone()];
            let frame = self.reader.next(&mut unread).map_err(violation)?;
            self.unread.start = self.unread.end - unread.len();
            match frame {
                Some(Incoming::Text(text)) => {
                    let packet = codec::decode_text(text);
                    return Poll::Ready(packet.map_err(|error| DisconnectReason::Protocol(Arc::new(error))));
                }
                Some(Incoming::Binary(bytes)) => {
                    return Poll::Ready(Ok(Packet::Message(Message::Binary(bytes))));
                }
                None => ready!(self.poll_fill(cx))?,
            }
        }
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Ready when the server has everything. Closing the connection earlier would take back what is on its way.
            let _ = self.sending.finish().await;
        })
    }
}

impl fmt::Debug for WebTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WebTransport({})", self.quic.connection.remote_address())
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Closing({:?})", self.0.local_addr())
    }
}

fn put_piece(out: &mut BytesMut, piece: &Piece) {
    match piece {
        Piece::Text(text) => put_frame(out, 0, text.as_bytes()),
        // There are no frames without a payload.
        Piece::Attachment(bytes) if bytes.is_empty() => put_frame(out, 0, b"b"),
        Piece::Attachment(bytes) => put_frame(out, BINARY, bytes),
    }
}

/// Writes a frame, whose header is that of a WebSocket from its second byte on.
fn put_frame(out: &mut BytesMut, kind: u8, payload: &[u8]) {
    match payload.len() {
        length @ 0..126 => out.put_u8(kind | length as u8),
        length @ 126..65_536 => {
            out.put_u8(kind | 126);
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(kind | 127);
            out.put_u64(length as u64);
        }
    }
    out.put_slice(payload);
}

fn violation(violation: Violation) -> DisconnectReason {
    DisconnectReason::Protocol(Arc::new(match violation {
        Violation::Empty => ImksError::EmptyEnginePacket,
        Violation::TooLarge(_) => ImksError::LimitReached("bytes of one message"),
    }))
}

fn failure(error: io::Error) -> DisconnectReason {
    DisconnectReason::TransportFailed(Arc::new(Cause::new(error)))
}

fn refused(error: ConnectingError) -> ClientError {
    match is_of_tls(&error.to_string()) {
        true => ClientError::Tls(Arc::new(Cause::new(error))),
        false => ClientError::connect(NAME, error),
    }
}

/// Whether the text of an error is about the handshake of TLS. The library shows the codes of QUIC only there: those of
/// TLS are its alerts from 256 on (RFC 9001 section 4.8).
fn is_of_tls(error: &str) -> bool {
    let code = error.rsplit_once("(code: ").and_then(|(_, code)| code.trim_end_matches(')').parse().ok());
    code.is_some_and(|code: u64| (0x100..0x200).contains(&code)) || error.contains("cryptographic handshake")
}

/// The size of the buffer that a stream is read into.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// The number of bytes up to which packets are written together.
const WRITE_BUFFER_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_written(payload in proptest::collection::vec(any::<u8>(), 1..70_000)) {
            let mut bytes = BytesMut::new();
            put_piece(&mut bytes, &Piece::Attachment(payload.clone().into()));
            let mut input = &bytes[..];
            let frame = Reader::new(usize::MAX).next(&mut input).unwrap();
            prop_assert_eq!(frame, Some(Incoming::Binary(payload.into())));
            prop_assert!(input.is_empty());
        }
    }

    #[test]
    fn an_empty_attachment_is_a_message_too() {
        let mut bytes = BytesMut::new();
        put_piece(&mut bytes, &Piece::Attachment(Default::default()));
        let Ok(Some(Incoming::Text(text))) = Reader::new(9).next(&mut &bytes[..]) else {
            panic!("{bytes:?}")
        };
        let packet = codec::decode_text(text).unwrap();
        assert!(matches!(packet, Packet::Message(Message::Binary(bytes)) if bytes.is_empty()));
    }

    #[test]
    fn failures_of_tls_are_told_from_those_of_the_network() {
        assert!(is_of_tls("invalid peer certificate: UnknownIssuer (code: 304)"));
        assert!(is_of_tls("connection aborted by peer: the cryptographic handshake failed: error 116"));
        for other in ["connection timed out", "the server refused to accept a new connection (code: 2)", ""] {
            assert!(!is_of_tls(other), "{other}");
        }
    }
}
