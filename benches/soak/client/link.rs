//! One Engine.IO session of a raw client, on whatever carries it.

mod polling;
mod websocket;
mod webtransport;

use std::net::SocketAddr;

use self::{polling::Polling, websocket::WebSocket, webtransport::WebTransport};
use super::{Outcome, packet::Packet};

pub use self::webtransport::Dialer;

/// Version of Engine.IO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V3,
    V4,
}

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Polling,
    WebSocket,
    /// Polling, then WebSocket.
    Upgrade,
    WebTransport,
}

/// Where the server is.
pub struct Target {
    pub address: SocketAddr,
    pub dialer: Dialer,
}

/// An open session.
pub struct Link {
    wire: Wire,
    version: Version,
}

enum Wire {
    Polling(Polling),
    WebSocket(WebSocket),
    WebTransport(WebTransport),
}

impl Link {
    /// Opens a session; an upgrade comes later, with [`Link::upgrade`].
    pub async fn open(target: &Target, carrier: Carrier, version: Version) -> Outcome<Self> {
        let mut wire = match carrier {
            Carrier::Polling | Carrier::Upgrade => {
                return Ok(Self {
                    wire: Wire::Polling(Polling::open(target.address, version).await?),
                    version,
                });
            }
            Carrier::WebSocket => Wire::WebSocket(WebSocket::open(target.address, version, None).await?),
            Carrier::WebTransport => Wire::WebTransport(target.dialer.open(target.address).await?),
        };
        match wire.next().await? {
            Some(Packet::Text(open)) if open.starts_with('0') => Ok(Self { wire, version }),
            other => Err(format!("no OPEN packet: {other:?}").into()),
        }
    }

    /// Moves a session from polling to a WebSocket.
    pub async fn upgrade(&mut self, target: &Target) -> Outcome<()> {
        let Wire::Polling(polling) = &self.wire else { return Ok(()) };
        let mut socket = WebSocket::open(target.address, self.version, Some(&polling.sid)).await?;
        socket.send(&Packet::Text("2probe".into())).await?;
        match socket.next().await? {
            Some(Packet::Text(pong)) if pong == "3probe" => {}
            other => return Err(format!("the probe was answered with {other:?}").into()),
        }
        socket.send(&Packet::Text("5".into())).await?;
        self.wire = Wire::WebSocket(socket);
        Ok(())
    }

    pub async fn send(&mut self, packet: &Packet) -> Outcome<()> {
        match &mut self.wire {
            Wire::Polling(polling) => polling.send(packet).await,
            Wire::WebSocket(socket) => socket.send(packet).await,
            Wire::WebTransport(stream) => stream.send(packet).await,
        }
    }

    /// The next message; `None` at the end of the session. Pings are answered.
    pub async fn next(&mut self) -> Outcome<Option<Packet>> {
        loop {
            let Some(packet) = self.wire.next().await? else { return Ok(None) };
            match &packet {
                Packet::Binary(_) => return Ok(Some(packet)),
                Packet::Text(text) => match text.as_bytes().first() {
                    Some(b'1') => return Ok(None),
                    Some(b'2') => self.send(&Packet::Text("3".into())).await?,
                    Some(b'4') => return Ok(Some(packet)),
                    _ => {}
                },
            }
        }
    }

    /// Says nothing any more, not even pong, until the server ends the session.
    pub async fn outlive(mut self) -> Outcome<()> {
        while self.wire.next().await?.is_some() {}
        Ok(())
    }

    /// Ends the session as a client should.
    pub async fn close(mut self) -> Outcome<()> {
        match &mut self.wire {
            Wire::Polling(polling) => polling.send(&Packet::Text("1".into())).await,
            Wire::WebSocket(socket) => socket.close().await,
            Wire::WebTransport(stream) => stream.close().await,
        }
    }

    /// Is gone, without a word. A server notices the end of a connection or of a poll; who is gone before the server
    /// has seen the poll is found by the heartbeat.
    pub async fn vanish(mut self) -> Outcome<()> {
        match &mut self.wire {
            Wire::Polling(polling) => polling.poll().await,
            Wire::WebSocket(_) | Wire::WebTransport(_) => Ok(()),
        }
    }
}

impl Wire {
    async fn next(&mut self) -> Outcome<Option<Packet>> {
        match self {
            Self::Polling(polling) => polling.next().await,
            Self::WebSocket(socket) => socket.next().await,
            Self::WebTransport(stream) => stream.next().await,
        }
    }
}
