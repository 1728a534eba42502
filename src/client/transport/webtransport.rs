//! The transport that is one stream of a WebTransport session: HTTP/3 on QUIC, by `wtransport`.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderValue;
use wtransport::config::{DnsLookupFuture, DnsResolver};
use wtransport::endpoint::{ConnectOptions, endpoint_side};
use wtransport::error::ConnectingError;
use wtransport::{ClientConfig, Connection, Endpoint, VarInt};

use super::io::{HEAD_START, addresses, any_port};
use super::quic_config::QuicConfig;
use super::staggered::first;
use super::stream::{Carrier, Directions, Stream};
use super::wire::{Dialer, Session};
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::TransportKind;
use crate::error::Cause;

const NAME: &str = TransportKind::WebTransport.name();

/// A WebTransport session without a stream: the server knows of no session of Engine.IO yet.
#[derive(Debug)]
pub(crate) struct Http3 {
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

impl Http3 {
    /// Connects to a server and asks for a session, with the cookies of another transport if there are any.
    pub(super) async fn connect(dialer: &Dialer, cookies: Option<&HeaderValue>) -> ClientResult<Self> {
        let failed = |error| ClientError::connect(NAME, error);
        let headers = headers(dialer, cookies)?;
        let found = addresses(&dialer.address.host, dialer.address.port).await.map_err(failed)?;
        let attempts = found.into_iter().map(|address| Self::connect_to(dialer, address, headers.clone()));
        let none = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        first(attempts, HEAD_START, failed(none)).await
    }

    async fn connect_to(
        dialer: &Dialer,
        address: SocketAddr,
        headers: HashMap<String, String>,
    ) -> ClientResult<Self> {
        let Some(QuicConfig(quic)) = dialer.quic.clone() else {
            return Err(ClientError::Config("the client was built without WebTransport".into()));
        };
        let mut config =
            ClientConfig::builder().with_bind_address(any_port(address)).build_with_quic_config(quic);
        config.set_dns_resolver(Resolved(address));
        let endpoint = Endpoint::client(config).map_err(|error| ClientError::connect(NAME, error))?;
        let endpoint = Closing(endpoint);
        let url = ConnectOptions::builder(dialer.address.url(NAME));
        let options = headers.iter().fold(url, |options, (name, value)| options.add_header(name, value));
        let connection = endpoint.0.connect(options.build()).await.map_err(refused)?;
        Ok(Self { _endpoint: endpoint, connection })
    }

    /// Opens the stream, for a new session or for one that was begun on polling.
    pub(super) async fn begin(self, dialer: &Dialer, session: Option<&Session>) -> ClientResult<Stream> {
        let opening = self.connection.open_bi().await.map_err(|error| ClientError::connect(NAME, error))?;
        let (sending, receiving) = opening.await.map_err(|error| ClientError::connect(NAME, error))?;
        let stopped = sending.quic_stream().stopped();
        let delivered = Box::pin(async move { drop(stopped.await) });
        let directions = Directions { sending: Box::new(sending), receiving: Box::new(receiving), delivered };
        let first = match session {
            None => "0".to_owned(),
            Some(session) => format!("0{}", serde_json::json!({ "sid": session.sid })),
        };
        let mut stream = Stream::new(dialer, self, directions);
        stream.begin(&[first]).await?;
        Ok(stream)
    }
}

// It cannot move: the endpoint belongs to the library.
impl Carrier for Http3 {
    fn kind(&self) -> TransportKind {
        TransportKind::WebTransport
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

impl fmt::Debug for Closing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Closing({:?})", self.0.local_addr())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_tls_are_told_from_those_of_the_network() {
        assert!(is_of_tls("invalid peer certificate: UnknownIssuer (code: 304)"));
        assert!(is_of_tls("connection aborted by peer: the cryptographic handshake failed: error 116"));
        for other in ["connection timed out", "the server refused to accept a new connection (code: 2)", ""] {
            assert!(!is_of_tls(other), "{other}");
        }
    }
}
