//! The way to a server before a session begins on it: TCP, and TLS where it is asked for, or QUIC with its settings.

use std::sync::Arc;

use http::HeaderValue;

use super::compressed::Compressed;
use super::duplex::Duplex;
use super::http::HttpConnection;
use super::io::Io;
#[cfg(feature = "client-quic")]
use super::quic::Quic;
use super::websocket::WebSocket;
#[cfg(feature = "client-quic")]
use super::webtransport::Http3;
use super::wire::{Dialer, Joins, Session};
use crate::client::core::Early;
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::TransportKind;

/// A way to a server, which does not know of a session yet.
pub(crate) enum Reached {
    Polling(HttpConnection),
    Duplex(Carrier),
}

/// The way for a transport that carries packets in both directions.
pub(crate) enum Carrier {
    WebSocket(Io),
    #[cfg(feature = "client-quic")]
    WebTransport(Http3),
    #[cfg(feature = "client-quic")]
    Quic(Quic),
}

impl Reached {
    /// Reaches the server as a transport needs it.
    pub(crate) async fn open(dialer: &Dialer, transport: TransportKind) -> ClientResult<Self> {
        match transport {
            TransportKind::Polling => HttpConnection::open(dialer).await.map(Self::Polling),
            other => Carrier::open(dialer, other, None).await.map(Self::Duplex),
        }
    }
}

impl Carrier {
    #[cfg_attr(
        not(feature = "client-quic"),
        expect(unused_variables, reason = "a WebSocket sends them later")
    )]
    async fn open(
        dialer: &Dialer,
        transport: TransportKind,
        cookies: Option<&HeaderValue>,
    ) -> ClientResult<Self> {
        match transport {
            TransportKind::WebSocket => Io::connect(transport.name(), dialer).await.map(Self::WebSocket),
            #[cfg(feature = "client-quic")]
            TransportKind::WebTransport => Http3::connect(dialer, cookies).await.map(Self::WebTransport),
            #[cfg(feature = "client-quic")]
            TransportKind::Quic => Quic::connect(dialer).await.map(Self::Quic),
            other => Err(ClientError::Config(format!("{other} is not built in, or takes over from nothing"))),
        }
    }

    /// Opens the transport, for a new session or for one that was begun on polling.
    /// `joins` are the namespaces that may be joined at once; those that were are returned.
    #[cfg_attr(not(feature = "client-quic"), expect(unused_variables, reason = "only QUIC can join early"))]
    pub(super) async fn begin(
        self,
        dialer: &Dialer,
        session: Option<&Session>,
        joins: Option<Joins>,
    ) -> ClientResult<(Duplex, Option<Early>)> {
        let duplex = match self {
            Self::WebSocket(io) if dialer.compresses => {
                Duplex::new(Compressed::open(dialer, io, session).await?)
            }
            Self::WebSocket(io) => Duplex::new(WebSocket::open(dialer, io, session).await?),
            #[cfg(feature = "client-quic")]
            Self::WebTransport(http3) => Duplex::new(http3.begin(dialer, session).await?),
            #[cfg(feature = "client-quic")]
            Self::Quic(quic) => {
                let (stream, early) = quic.begin(dialer, joins).await?;
                return Ok((Duplex::new(stream), early));
            }
        };
        Ok((duplex, None))
    }
}

/// Opens a transport that could take over a session from polling, and asks the server whether it may.
pub(super) async fn probe(
    dialer: Arc<Dialer>,
    session: Session,
    transport: TransportKind,
) -> ClientResult<Duplex> {
    let carrier = Carrier::open(&dialer, transport, session.cookies.as_ref()).await?;
    let (mut duplex, _) = carrier.begin(&dialer, Some(&session), None).await?;
    duplex.probe().await?;
    Ok(duplex)
}
