//! Sessions directly on a QUIC connection, without HTTP/3: the stream of the session is the first one of the client,
//! and closing the connection ends the session.

use std::net::SocketAddr;
use std::pin::Pin;

use wtransport::quinn::crypto::rustls::HandshakeData;
use wtransport::quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};

use super::Guard;
use super::bulk::Bulk;

/// A new QUIC connection that has named no session yet. Dropping it closes the connection.
pub struct QuicRequest(Raw);

/// A future that is ready at the end of a handshake: whether it succeeded in time.
pub type Confirmed = Pin<Box<dyn Future<Output = bool> + Send>>;

/// A QUIC connection that carries one session and nothing else. Dropping it closes the connection.
pub(crate) struct Raw {
    connection: Connection,
    /// The end of the handshake, if it may be still to come.
    confirmed: Option<Confirmed>,
    /// The code and the text of the close.
    close: (u16, Box<[u8]>),
    _guard: Guard,
}

impl QuicRequest {
    /// Takes a connection, whose first stream will be the session. `guard` is kept until the session has ended.
    pub fn new(connection: Connection, guard: Guard) -> Self {
        Self(Raw { connection, confirmed: None, close: (1000, Box::default()), _guard: guard })
    }

    /// Takes a connection whose handshake may still be under way. The session begins at once; what its client sends
    /// beyond that is held until `confirmed`, because anybody may have sent it who has seen it before.
    pub fn early(connection: Connection, confirmed: Confirmed, guard: Guard) -> Self {
        let mut request = Self::new(connection, guard);
        request.0.confirmed = Some(confirmed);
        request
    }

    /// Returns the address of the other end of the QUIC connection.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.connection.remote_address()
    }

    pub(crate) fn into_raw(self) -> Raw {
        self.0
    }
}

impl Raw {
    pub(super) async fn stream(&mut self) -> Option<(SendStream, RecvStream, Vec<u8>)> {
        let (sending, receiving) = self.connection.accept_bi().await.ok()?;
        Some((sending, receiving, Vec::new()))
    }

    /// Returns the end of the handshake, if it may be still to come.
    pub(super) fn confirmed(&mut self) -> Option<Confirmed> {
        self.confirmed.take()
    }

    /// Returns the name of the server that the peer wants to reach, or nothing if it named none.
    pub(super) fn server_name(&self) -> String {
        let data = self.connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        data.and_then(|data| data.server_name).unwrap_or_default()
    }

    /// Returns the second stream, which the peer may open later.
    pub(super) fn bulk(&self) -> Bulk {
        Bulk::new(self.connection.clone())
    }

    pub(super) fn close_reason(&self) -> Option<ConnectionError> {
        self.connection.close_reason()
    }

    pub(super) fn set_close(&mut self, code: u16, text: &[u8]) {
        self.close = (code, text.into());
    }

    /// Closes the connection. What the peer has not acknowledged is taken back.
    pub(super) fn end(&self) {
        let (code, text) = &self.close;
        self.connection.close(VarInt::from_u32(u32::from(*code)), text);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.end();
    }
}
