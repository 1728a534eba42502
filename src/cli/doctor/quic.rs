//! The checks of `imks doctor` whether QUIC over UDP gets through: WebTransport, and sessions without HTTP/3.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;

use tokio::time::timeout;
use wtransport::config::{DnsLookupFuture, DnsResolver};
use wtransport::endpoint::ConnectOptions;
use wtransport::{ClientConfig, Endpoint};

use super::network::Route;
use super::report::{Fault, Outcome};
use super::{ANSWER_MAX, advice, in_vain};
use crate::cli::terminal;
use crate::client::{ClientBuilder, ClientError, Reconnect, TransportKind, Transports};

/// Opens a WebTransport session.
pub(super) async fn examine(route: &Route) -> (Option<()>, Outcome) {
    match timeout(ANSWER_MAX, open(route)).await {
        Ok(Ok(())) => (Some(()), Outcome::Good("a session was opened over UDP".into())),
        Ok(Err(error)) => (None, Outcome::Failed(advice::quic(&error))),
        Err(_) => (None, Outcome::Failed(advice::quic(&in_vain("no answer over UDP")))),
    }
}

/// Opens a session on WebTransport with the client library, which can be told the hash of a certificate to trust.
pub(super) async fn webtransport(builder: ClientBuilder) -> (Option<()>, Outcome) {
    open_on(builder, TransportKind::WebTransport, advice::quic).await
}

/// Opens a session on QUIC without HTTP/3.
pub(super) async fn raw(builder: ClientBuilder) -> (Option<()>, Outcome) {
    open_on(builder, TransportKind::Quic, advice::raw_quic).await
}

async fn open_on(
    builder: ClientBuilder,
    transport: TransportKind,
    advise: fn(&str) -> Fault,
) -> (Option<()>, Outcome) {
    let builder = builder.transports(Transports::only(transport)).reconnect(Reconnect::never());
    let failed = |error: ClientError| (None, Outcome::Failed(advise(&terminal::causes(&error))));
    let client = match builder.connect_timeout(ANSWER_MAX).build() {
        Ok(client) => client,
        Err(error) => return failed(error),
    };
    let connected = client.connect().await;
    client.close().await;
    match connected {
        Ok(()) => (Some(()), Outcome::Good("a session was opened over UDP".into())),
        Err(error) => failed(error),
    }
}

async fn open(route: &Route) -> Result<(), String> {
    let Some(tls) = &route.tls else { return Err("WebTransport needs https://".into()) };
    let mut tls = (**tls).clone();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let any: SocketAddr = match route.socket {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let config = ClientConfig::builder()
        .with_bind_address(any)
        .with_custom_tls(tls)
        .dns_resolver(Known(route.socket))
        .build();
    let endpoint = Endpoint::client(config).map_err(|error| error.to_string())?;
    let path = route.address.target("webtransport", None);
    let options = ConnectOptions::builder(format!("https://{}{path}", route.address.authority)).build();
    let connection = endpoint.connect(options).await.map_err(|error| error.to_string())?;
    connection.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(())
}

/// The address that has answered over TCP, whatever the name is: the name may have others.
#[derive(Debug)]
struct Known(SocketAddr);

impl DnsResolver for Known {
    fn resolve(&self, _: &str) -> Pin<Box<dyn DnsLookupFuture>> {
        let address = self.0;
        Box::pin(async move { Ok(Some(address)) })
    }
}
