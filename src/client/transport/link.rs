//! The open transport of a session: sends and receives packets, and changes from polling to a WebSocket.

use std::task::{Context, Poll};
use std::time::Duration;

use super::polling::Polling;
use super::websocket::WebSocket;
use super::wire::LinkEvent;
use crate::client::core::Sending;
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::TransportKind;

/// An open transport.
#[derive(Debug)]
pub(crate) enum Link {
    WebSocket(Box<WebSocket>),
    Polling(Box<Polling>),
}

impl Link {
    /// Sends a packet when the transport can take it.
    pub(crate) fn send(&mut self, sending: Sending) {
        match self {
            Self::WebSocket(websocket) => websocket.send(sending),
            Self::Polling(polling) => polling.send(sending),
        }
    }

    /// Whether a packet would have to wait for others.
    pub(crate) fn is_congested(&self) -> bool {
        match self {
            Self::WebSocket(websocket) => websocket.is_congested(),
            Self::Polling(polling) => polling.is_congested(),
        }
    }

    /// Sends what waits, and returns what happened. Packets are returned only if `read`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<LinkEvent> {
        let event = match self {
            Self::WebSocket(websocket) => websocket.poll(cx, read),
            Self::Polling(polling) => polling.poll(cx, read),
        };
        if let Self::Polling(polling) = self
            && let Some(websocket) = polling.take_successor()
        {
            *self = Self::WebSocket(websocket);
        }
        event
    }

    /// Sends what waits and ends the transport, within `timeout`.
    pub(crate) async fn close(mut self, timeout: Duration) {
        let closing = async {
            let sent = std::future::poll_fn(|cx| self.poll_write(cx)).await;
            if let (Ok(()), Self::WebSocket(websocket)) = (&sent, &mut self) {
                websocket.close().await;
            }
            sent
        };
        match tokio::time::timeout(timeout, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the last packets could not be sent"),
            Err(_) => tracing::debug!("the last packets could not be sent in time"),
        }
    }

    /// Sends what waits. Ready when all of it was sent.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<ClientResult<()>> {
        loop {
            match self {
                Self::WebSocket(websocket) => {
                    let failed = |error| ClientError::connect(TransportKind::WebSocket.name(), error);
                    return websocket.poll_write(cx).map_err(failed);
                }
                Self::Polling(polling) if !polling.is_ending() => return polling.poll_write(cx),
                // What waits goes to the WebSocket that takes over.
                Self::Polling(_) => match std::task::ready!(self.poll(cx, true)) {
                    LinkEvent::Closed(reason) => {
                        return Poll::Ready(Err(ClientError::ConnectionClosed(reason)));
                    }
                    LinkEvent::Packet(_) | LinkEvent::Switched(_) | LinkEvent::NotUpgraded(_) => {}
                },
            }
        }
    }
}
