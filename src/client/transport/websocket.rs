//! The transport that is one WebSocket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use futures_util::{Sink, Stream};
use http::Uri;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message};

use super::duplex::PacketStream;
use super::io::Io;
use super::queue::{Piece, SendQueue};
use super::wire::{Dialer, Session};
use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::client::event::TransportKind;
use crate::engine::codec;
use crate::engine::packet::{self, Packet};
use crate::error::Cause;

const NAME: &str = TransportKind::WebSocket.name();

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    stream: WebSocketStream<Io>,
    /// The pings that were read since the network took all answers.
    unanswered: usize,
}

impl WebSocket {
    /// Opens a WebSocket, for a new session or for one that was begun on polling.
    pub(super) async fn open(dialer: &Dialer, io: Io, session: Option<&Session>) -> ClientResult<Self> {
        let failed = |error| ClientError::connect(NAME, error);
        let address = &dialer.address;
        let scheme = if address.is_secure { "wss" } else { "ws" };
        let url =
            format!("{scheme}://{}{}", address.authority, address.target(NAME, session.map(|it| &*it.sid)));
        let uri: Uri =
            url.parse().map_err(|error: http::uri::InvalidUri| ClientError::connect(NAME, error))?;
        let mut request = uri.into_client_request().map_err(failed)?;
        let cookies = session.and_then(|session| session.cookies.as_ref());
        request.headers_mut().extend(dialer.headers(cookies));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(dialer.message_bytes_max))
            .max_frame_size(Some(dialer.message_bytes_max));
        let (stream, _) = client_async_with_config(request, io, Some(config)).await.map_err(failed)?;
        Ok(Self { stream, unanswered: 0 })
    }

    fn poll_drain(&mut self, queue: &mut SendQueue, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut stream = Pin::new(&mut self.stream);
        while !queue.is_empty() {
            ready!(stream.as_mut().poll_ready(cx))?;
            match queue.pop() {
                Some(Piece::Text(text)) => stream.as_mut().start_send(Message::Text(text))?,
                Some(Piece::Attachment(bytes)) => stream.as_mut().start_send(Message::Binary(bytes))?,
                None => {}
            }
        }
        stream.poll_flush(cx)
    }
}

impl PacketStream for WebSocket {
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
                ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(failure)?;
                self.unanswered = 0;
            }
            let message = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(message) => message.map_err(failure)?,
                None => return Poll::Ready(Err(DisconnectReason::TransportClosed)),
            };
            self.unanswered += usize::from(message.is_ping());
            if let Some(packet) = read_message(message)? {
                return Poll::Ready(Ok(packet));
            }
        }
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let _ = self.stream.close(None).await;
        })
    }
}

/// Reads the packet in a message. The bytes are shared, not copied. Frames of the WebSocket's own have none.
fn read_message(message: Message) -> Result<Option<Packet>, DisconnectReason> {
    match message {
        Message::Text(text) => codec::decode_text(text.into())
            .map(Some)
            .map_err(|error| DisconnectReason::Protocol(Arc::new(error))),
        Message::Binary(bytes) => Ok(Some(Packet::Message(packet::Message::Binary(bytes)))),
        Message::Close(_) => Err(DisconnectReason::TransportClosed),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}

fn failure(error: Error) -> DisconnectReason {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => DisconnectReason::TransportClosed,
        other => DisconnectReason::TransportFailed(Arc::new(Cause::new(other))),
    }
}

/// The number of pings after which the network has to take all answers before more is read.
pub(super) const UNANSWERED_PINGS_MAX: usize = 64;

/// The size of the buffer that a WebSocket reads into.
const READ_BUFFER_BYTES: usize = 32 * 1024;
