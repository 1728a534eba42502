//! A stream of QUIC as a transport, whatever the stream belongs to: frames with packets of Engine.IO.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use wtransport::quinn::{ConnectionError, RecvStream};

use super::duplex::PacketStream;
use super::queue::{Piece, SendQueue};
use super::wire::Dialer;
use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::client::event::TransportKind;
use crate::engine::codec;
use crate::engine::packet::{Message, Packet};
use crate::engine::webtransport::{BINARY, Incoming, Reader, Violation};
use crate::error::{Cause, ImksError};

/// What a stream belongs to. Dropping it closes the connection.
pub(super) trait Carrier: fmt::Debug + Send + Sync {
    fn kind(&self) -> TransportKind;

    /// Goes on from another address of this device, where it can.
    fn rebind(&self, _: UdpSocket) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens a second stream, on which the server sends large answers, if there can be one.
    fn open_bulk(&self) -> BoxFuture<'_, ClientResult<Option<RecvStream>>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// The two directions of a stream.
pub(super) struct Directions {
    pub(super) sending: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) receiving: Box<dyn AsyncRead + Send + Unpin>,
    /// Ready when the server has everything, or will never have it.
    pub(super) delivered: BoxFuture<'static, ()>,
}

/// An open stream.
pub(super) struct Stream {
    /// The first field, so that everything is closed before the others are dropped.
    carrier: Box<dyn Carrier>,
    sending: Box<dyn AsyncWrite + Send + Unpin>,
    delivered: BoxFuture<'static, ()>,
    receiving: Receiving,
    /// A second stream, on which large answers come in.
    bulk: Option<Receiving>,
    message_bytes_max: usize,
    /// Frames of the pieces that were taken out of the queue.
    writing: BytesMut,
    /// See [`Dialer::heard_at`].
    heard_at: Arc<Mutex<Instant>>,
}

/// What comes in on a stream.
struct Receiving {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    reader: Reader,
    /// What was read last, and the part of it that has not been looked at.
    buffer: Box<[u8]>,
    unread: Range<usize>,
}

impl Stream {
    pub(super) fn new(dialer: &Dialer, carrier: impl Carrier + 'static, directions: Directions) -> Self {
        let Directions { sending, receiving, delivered } = directions;
        Self {
            carrier: Box::new(carrier),
            sending,
            delivered,
            receiving: Receiving::new(receiving, dialer.message_bytes_max),
            bulk: None,
            message_bytes_max: dialer.message_bytes_max,
            writing: BytesMut::new(),
            heard_at: dialer.heard_at.clone(),
        }
    }

    /// Sends the first packets, before which the server says nothing.
    pub(super) async fn begin(&mut self, first: &[String]) -> ClientResult<()> {
        first.iter().for_each(|text| put_frame(&mut self.writing, 0, text.as_bytes()));
        let mut nothing_more = SendQueue::default();
        let sent = poll_fn(|cx| self.poll_drain(&mut nothing_more, cx)).await;
        sent.map_err(|error| ClientError::connect(self.kind().name(), error))
    }

    /// Forgets everything that was sent, and goes on with another stream.
    pub(super) fn restart(&mut self, directions: Directions) {
        let Directions { sending, receiving, delivered } = directions;
        (self.sending, self.delivered) = (sending, delivered);
        self.receiving = Receiving::new(receiving, self.message_bytes_max);
        self.writing.clear();
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
}

impl Receiving {
    fn new(stream: Box<dyn AsyncRead + Send + Unpin>, message_bytes_max: usize) -> Self {
        let buffer = vec![0; READ_BUFFER_BYTES].into();
        Self { stream, reader: Reader::new(message_bytes_max), buffer, unread: 0..0 }
    }

    fn poll_packet(
        &mut self,
        cx: &mut Context<'_>,
        heard_at: &Mutex<Instant>,
    ) -> Poll<Result<Packet, DisconnectReason>> {
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
                None => ready!(self.poll_fill(cx, heard_at))?,
            }
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        heard_at: &Mutex<Instant>,
    ) -> Poll<Result<(), DisconnectReason>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).map_err(failure)?;
        self.unread = 0..buffer.filled().len();
        if self.unread.is_empty() {
            return Poll::Ready(Err(DisconnectReason::TransportClosed));
        }
        *heard_at.lock() = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl PacketStream for Stream {
    fn kind(&self) -> TransportKind {
        self.carrier.kind()
    }

    fn poll_send(
        &mut self,
        queue: &mut SendQueue,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), DisconnectReason>> {
        self.poll_drain(queue, cx).map_err(failure)
    }

    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, DisconnectReason>> {
        self.receiving.poll_packet(cx, &self.heard_at)
    }

    fn poll_bulk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, DisconnectReason>> {
        let Some(bulk) = &mut self.bulk else { return Poll::Pending };
        let packet = ready!(bulk.poll_packet(cx, &self.heard_at));
        if matches!(packet, Err(DisconnectReason::TransportClosed)) {
            // Whether the connection has ended, the first stream says.
            self.bulk = None;
            return Poll::Pending;
        }
        Poll::Ready(packet)
    }

    fn open_bulk(&mut self) -> BoxFuture<'_, ClientResult<()>> {
        Box::pin(async {
            let receiving = self.carrier.open_bulk().await?;
            self.bulk = receiving.map(|stream| Receiving::new(Box::new(stream), self.message_bytes_max));
            Ok(())
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Self { sending, delivered, .. } = self;
            // Closing the connection before the server has everything would take back what is on its way.
            if poll_fn(|cx| Pin::new(&mut *sending).poll_shutdown(cx)).await.is_ok() {
                delivered.await;
            }
        })
    }

    fn rebind(&mut self, socket: UdpSocket) -> io::Result<()> {
        self.carrier.rebind(socket)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Stream({:?})", self.carrier)
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

/// Returns why a stream has failed. Where the connection is gone, its own words are those of the server.
fn failure(error: io::Error) -> DisconnectReason {
    let first = error.get_ref().map(|error| error as &dyn Error);
    let mut causes = std::iter::successors(first, |error| (*error).source());
    let lost = causes.find_map(|error| error.downcast_ref::<ConnectionError>()).cloned();
    DisconnectReason::TransportFailed(Arc::new(lost.map_or_else(|| Cause::new(error), Cause::new)))
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
}
