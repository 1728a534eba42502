//! The transport that is one WebSocket with permessage-deflate (RFC 7692), where the server takes it.
//!
//! Both sides compress each message by itself, with the compressor and the inflater of the server. Frames are read by the
//! parser of the server too.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::duplex::PacketStream;
use super::io::Io;
use super::queue::{Piece, SendQueue};
use super::upgrade::{Upgraded, upgrade};
use super::websocket::UNANSWERED_PINGS_MAX;
use super::wire::{Dialer, Session};
use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::client::event::TransportKind;
use crate::engine::codec;
use crate::engine::deflate::deflate;
use crate::engine::packet::{Message, Packet};
use crate::engine::websocket::{
    BINARY, CLOSE, DEFLATED, FIN, Incoming, Input, PONG, Reader, TEXT, Violation, client_frame,
};
use crate::error::{Cause, ImksError};

const NAME: &str = TransportKind::WebSocket.name();

/// An open WebSocket whose messages may be compressed.
pub(super) struct Compressed {
    io: Io,
    reader: Reader,
    /// What was read and not looked at.
    unread: BytesMut,
    /// Frames that are not sent yet.
    writing: BytesMut,
    deflates: bool,
    scratch: Vec<u8>,
    /// The pings that were read since the network took all answers.
    unanswered: usize,
    is_closing: bool,
}

impl Compressed {
    /// Opens a WebSocket and offers compression, for a new session or for one that was begun on polling.
    pub(super) async fn open(dialer: &Dialer, io: Io, session: Option<&Session>) -> ClientResult<Self> {
        let Upgraded { io, early, deflates } = upgrade(dialer, io, session).await?;
        let mut reader = Reader::of_server(dialer.message_bytes_max);
        if deflates {
            reader.inflate();
        }
        Ok(Self {
            io,
            reader,
            unread: BytesMut::from(&early[..]),
            writing: BytesMut::new(),
            deflates,
            scratch: Vec::new(),
            unanswered: 0,
            is_closing: false,
        })
    }

    fn put(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        self.scratch.clear();
        let is_smaller =
            self.deflates && payload.len() >= DEFLATE_BYTES_MIN && deflate(payload, &mut self.scratch);
        let mask = mask()?;
        match is_smaller {
            true => client_frame(&mut self.writing, FIN | DEFLATED | kind, &self.scratch, mask),
            false => client_frame(&mut self.writing, FIN | kind, payload, mask),
        }
        // A large message does not occupy its room for ever.
        self.scratch.shrink_to(WRITE_BUFFER_BYTES);
        Ok(())
    }

    /// Sends the frames that wait.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writing.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.writing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.writing.advance(written);
        }
        self.writing = BytesMut::new();
        self.unanswered = 0;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_drain(&mut self, queue: &mut SendQueue, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.writing.len() < WRITE_BUFFER_BYTES
                && let Some(piece) = queue.pop()
            {
                match piece {
                    Piece::Text(text) => self.put(TEXT, text.as_bytes())?,
                    Piece::Attachment(bytes) => self.put(BINARY, &bytes)?,
                }
            }
            ready!(self.poll_write(cx))?;
            if queue.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Returns the next message in what was read.
    fn next(&mut self) -> Result<Option<Incoming>, Violation> {
        loop {
            let mut input = Input::new(&mut self.unread);
            let message = self.reader.next(&mut input)?;
            let left = input.left();
            self.unread.advance(self.unread.len() - left);
            match (message, self.reader.take_early()) {
                (None, Some(rest)) => self.unread = BytesMut::from(&rest[..]),
                (message, _) => return Ok(message),
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DisconnectReason>> {
        let mut bytes = [0; READ_BUFFER_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)).map_err(failure)?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(DisconnectReason::TransportClosed));
        }
        self.unread.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Reads the packet in a message. Frames of the WebSocket's own have none.
    fn read(&mut self, message: Incoming) -> Result<Option<Packet>, DisconnectReason> {
        match message {
            Incoming::Text(text) => {
                let packet = codec::decode_text(text);
                packet.map(Some).map_err(|error| DisconnectReason::Protocol(Arc::new(error)))
            }
            Incoming::Binary(bytes) => Ok(Some(Packet::Message(Message::Binary(bytes)))),
            Incoming::Ping(content) => {
                let mask = mask().map_err(failure)?;
                client_frame(&mut self.writing, FIN | PONG, &content, mask);
                self.unanswered += 1;
                Ok(None)
            }
            Incoming::Close(_) => {
                self.is_closing = true;
                Err(DisconnectReason::TransportClosed)
            }
        }
    }
}

impl PacketStream for Compressed {
    fn kind(&self) -> TransportKind {
        TransportKind::WebSocket
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
            if self.unanswered == UNANSWERED_PINGS_MAX {
                // The answers to whoever asks and does not read them would fill the memory.
                ready!(self.poll_write(cx)).map_err(failure)?;
            }
            let Some(message) = self.next().map_err(violation)? else {
                // Pongs leave before more is waited for, as far as the network takes them. What it does not take keeps
                // nobody from reading: the server may be waiting for just that.
                if !self.writing.is_empty()
                    && let Poll::Ready(Err(error)) = self.poll_write(cx)
                {
                    return Poll::Ready(Err(failure(error)));
                }
                ready!(self.poll_fill(cx))?;
                continue;
            };
            if let Some(packet) = self.read(message)? {
                return Poll::Ready(Ok(packet));
            }
        }
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if std::mem::replace(&mut self.is_closing, true) {
                return;
            }
            if let Ok(mask) = mask() {
                client_frame(&mut self.writing, FIN | CLOSE, &[], mask);
                // Whoever is gone needs no goodbye.
                let _ = std::future::poll_fn(|cx| self.poll_write(cx)).await;
            }
        })
    }
}

impl fmt::Debug for Compressed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Compressed({:?}, deflates: {})", self.io, self.deflates)
    }
}

/// Returns a mask that nobody can foresee (RFC 6455 section 10.3).
fn mask() -> io::Result<[u8; 4]> {
    getrandom::u32().map(u32::to_ne_bytes).map_err(io::Error::other)
}

fn violation(violation: Violation) -> DisconnectReason {
    let error = match violation {
        Violation::TooLarge(_) => ImksError::LimitReached("bytes of one message"),
        other => return DisconnectReason::TransportFailed(Arc::new(Cause::new(broken(&other)))),
    };
    DisconnectReason::Protocol(Arc::new(error))
}

fn broken(violation: &Violation) -> ClientError {
    ClientError::connect(NAME, format!("the server broke the rules of WebSockets: {violation:?}"))
}

fn failure(error: io::Error) -> DisconnectReason {
    DisconnectReason::TransportFailed(Arc::new(Cause::new(error)))
}

/// The size in bytes from which a message is compressed.
const DEFLATE_BYTES_MIN: usize = 1_024;

/// The number of bytes that are read at once.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The number of bytes up to which packets are written together.
const WRITE_BUFFER_BYTES: usize = 32 * 1024;
