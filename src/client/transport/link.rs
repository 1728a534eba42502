//! The open transport of a session: sends and receives packets, and changes from polling to another transport.

use std::io;
use std::net::UdpSocket;
use std::task::{Context, Poll};
use std::time::Duration;

use super::duplex::Duplex;
use super::polling::Polling;
use super::wire::LinkEvent;
use crate::client::core::Sending;
use crate::client::error::{ClientError, ClientResult};

/// An open transport.
#[derive(Debug)]
pub(crate) enum Link {
    Duplex(Duplex),
    Polling(Box<Polling>),
}

impl Link {
    /// Sends a packet when the transport can take it.
    pub(crate) fn send(&mut self, sending: Sending) {
        match self {
            Self::Duplex(duplex) => duplex.send(sending),
            Self::Polling(polling) => polling.send(sending),
        }
    }

    /// Whether a packet would have to wait for others.
    pub(crate) fn is_congested(&self) -> bool {
        match self {
            Self::Duplex(duplex) => duplex.is_congested(),
            Self::Polling(polling) => polling.is_congested(),
        }
    }

    /// Goes on from another address of this device, where the transport can.
    pub(crate) fn rebind(&mut self, socket: UdpSocket) -> io::Result<()> {
        match self {
            Self::Duplex(duplex) => duplex.rebind(socket),
            Self::Polling(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends what waits, and returns what happened. Packets are returned only if `read`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<LinkEvent> {
        let event = match self {
            Self::Duplex(duplex) => duplex.poll(cx, read),
            Self::Polling(polling) => polling.poll(cx, read),
        };
        if let Self::Polling(polling) = self
            && let Some(successor) = polling.take_successor()
        {
            *self = Self::Duplex(successor);
        }
        event
    }

    /// Sends what waits and ends the transport, within `timeout`.
    pub(crate) async fn close(self, timeout: Duration) {
        self.end(timeout, false).await;
    }

    /// Sends what waits, ends the transport, and waits until the server has ended it too, within `timeout`.
    pub(crate) async fn leave(self, timeout: Duration) {
        self.end(timeout, true).await;
    }

    async fn end(mut self, timeout: Duration, waits: bool) {
        let closing = async {
            let sent = std::future::poll_fn(|cx| self.poll_write(cx)).await;
            match &mut self {
                _ if sent.is_err() => {}
                Self::Duplex(duplex) => {
                    duplex.close().await;
                    if waits {
                        duplex.ended().await;
                    }
                }
                Self::Polling(polling) if waits => polling.ended().await,
                Self::Polling(_) => {}
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
                Self::Duplex(duplex) => return duplex.poll_write(cx).map_err(ClientError::ConnectionClosed),
                Self::Polling(polling) if !polling.is_ending() => return polling.poll_write(cx),
                // What waits goes to the transport that takes over.
                Self::Polling(_) => match std::task::ready!(self.poll(cx, true)) {
                    LinkEvent::Closed(reason) => {
                        return Poll::Ready(Err(ClientError::ConnectionClosed(reason)));
                    }
                    LinkEvent::Packet(_)
                    | LinkEvent::Bulk(_)
                    | LinkEvent::Switched(_)
                    | LinkEvent::NotUpgraded(_) => {}
                },
            }
        }
    }
}
