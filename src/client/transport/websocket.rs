//! The transport that is one WebSocket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::Uri;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message};

use super::io::Io;
use super::queue::{Piece, SendQueue};
use super::wire::{Dialer, LinkEvent, Session};
use crate::client::core::Sending;
use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::client::event::TransportKind;
use crate::engine::codec;
use crate::engine::packet::{self, PROBE, Packet};
use crate::error::Cause;

const NAME: &str = TransportKind::WebSocket.name();

/// An open WebSocket and what waits to be sent on it.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: WebSocketStream<Io>,
    queue: SendQueue,
    /// Whether the last attempt to send left something behind.
    is_congested: bool,
}

impl WebSocket {
    /// Opens a WebSocket, for a new session or for one that was begun on polling.
    pub(crate) async fn open(dialer: &Dialer, session: Option<&Session>) -> ClientResult<Self> {
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
        let io = Io::connect(NAME, dialer).await?;
        let (stream, _) = client_async_with_config(request, io, Some(config)).await.map_err(failed)?;
        Ok(Self { stream, queue: SendQueue::default(), is_congested: false })
    }

    /// Waits for the first packet of a new session, and returns the text of the handshake.
    pub(crate) async fn handshake(&mut self) -> ClientResult<String> {
        match self.next_packet().await? {
            Packet::Open(text) => Ok(text.to_string()),
            _ => Err(ClientError::connect(NAME, "the server did not begin with a handshake")),
        }
    }

    /// Asks the server whether the WebSocket could take over from polling.
    pub(crate) async fn probe(&mut self) -> ClientResult<()> {
        self.say(&format!("2{PROBE}")).await?;
        match self.next_packet().await? {
            Packet::Pong(content) if content == PROBE => Ok(()),
            _ => Err(ClientError::connect(NAME, "the server did not answer the probe")),
        }
    }

    /// Takes over from polling, with what it had not sent.
    pub(super) fn take_over(&mut self, queue: SendQueue) {
        self.queue = queue;
    }

    pub(crate) async fn say(&mut self, packet: &str) -> ClientResult<()> {
        self.stream.send(Message::text(packet)).await.map_err(|error| ClientError::connect(NAME, error))
    }

    pub(crate) fn send(&mut self, sending: Sending) {
        self.queue.push(sending);
    }

    /// Whether the network takes less than is sent.
    pub(crate) fn is_congested(&self) -> bool {
        self.is_congested
    }

    /// Sends what waits, and returns what has come in if `read`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<LinkEvent> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(LinkEvent::Closed(failure(error)));
        }
        if !read {
            return Poll::Pending;
        }
        loop {
            let message = match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    return Poll::Ready(LinkEvent::Closed(DisconnectReason::TransportClosed));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(LinkEvent::Closed(failure(error))),
                Poll::Ready(Some(Ok(message))) => message,
            };
            match read_message(message) {
                Ok(Some(packet)) => return Poll::Ready(LinkEvent::Packet(packet)),
                Ok(None) => {}
                Err(reason) => return Poll::Ready(LinkEvent::Closed(reason)),
            }
        }
    }

    /// Sends what waits.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut stream = Pin::new(&mut self.stream);
        self.is_congested = true;
        while !self.queue.is_empty() {
            std::task::ready!(stream.as_mut().poll_ready(cx))?;
            match self.queue.pop() {
                Some(Piece::Text(text)) => stream.as_mut().start_send(Message::Text(text))?,
                Some(Piece::Attachment(bytes)) => stream.as_mut().start_send(Message::Binary(bytes))?,
                None => {}
            }
        }
        let flushed = stream.poll_flush(cx);
        self.is_congested = flushed.is_pending();
        flushed
    }

    /// Says goodbye. What the other side says to that does not matter any more.
    pub(crate) async fn close(&mut self) {
        let _ = self.stream.close(None).await;
    }

    async fn next_packet(&mut self) -> ClientResult<Packet> {
        loop {
            let message = match self.stream.next().await {
                Some(message) => message.map_err(|error| ClientError::connect(NAME, error))?,
                None => return Err(ClientError::connect(NAME, "the server closed the WebSocket")),
            };
            match read_message(message) {
                Ok(Some(packet)) => return Ok(packet),
                Ok(None) => {}
                Err(reason) => return Err(ClientError::connect(NAME, reason.to_string())),
            }
        }
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

/// The size of the buffer that a WebSocket reads into.
const READ_BUFFER_BYTES: usize = 32 * 1024;
