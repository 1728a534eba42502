//! `imks core`: serves the embedded directory as a separate core over gRPC.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::reachable;
use crate::config::Config;
use crate::http::mutual_tls::MutualTls;
use crate::http::tls::{Callers, Certificates, Tls};
use crate::{ImksError, ImksResult};

/// Returns the configuration that file, environment and flags override. Its default address differs from the
/// server's, so that a core and a server can run on one machine.
pub(super) fn base() -> Config {
    Config { listen: ADDRESS, ..Config::default() }
}

/// Serves on the configured address until `shutdown` completes. Without a CA for clients there is no
/// authentication, so the port must be on a private network.
///
/// # Errors
/// `Io` if the address cannot be bound; `Config` if an external core is configured, or a certificate cannot be
/// used; `Database`.
pub async fn run(config: &Config, shutdown: impl Future<Output = ()> + Send) -> ImksResult<()> {
    let tls = secured(config)?;
    let directory = super::token::open(config).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(ImksError::io(format!("listening on {}", config.listen)))?;
    let address = listener.local_addr().map_err(ImksError::io("reading the listening address"))?;
    if !address.ip().is_loopback() && config.directory.client_ca.is_none() {
        tracing::warn!(%address, "whoever reaches this port reads the directory: keep it on a private network, or set IMKS_DIRECTORY_CLIENT_CA");
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    super::say(&format!("The core is ready: IMKS_CORE_URL={scheme}://{}", reachable(address)))?;
    match tls {
        None => directory.serve_on(listener, shutdown).await?,
        Some(secured) => {
            let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
            secured.watch(&tasks, &stop);
            let incoming = accept(secured, listener, &tasks, &stop);
            directory.serve(incoming, shutdown).await?;
            stop.cancel();
        }
    }
    directory.close().await;
    Ok(())
}

/// Reads the certificates, if there are any.
fn secured(config: &Config) -> ImksResult<Option<MutualTls>> {
    let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) else { return Ok(None) };
    let certificates = Certificates::open(cert.clone(), key.clone())?;
    let callers = config.directory.client_ca.clone().map_or(Callers::Anonymous, Callers::Required);
    MutualTls::open(certificates, config.tls.clone(), callers, &["h2"]).map(Some)
}

type Secure = io::Result<TlsStream<TcpStream>>;

/// Returns the connections whose handshake succeeded.
fn accept(
    mut secured: MutualTls,
    listener: TcpListener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> impl Stream<Item = Secure> + use<> {
    let (ready, streams) = mpsc::channel::<Secure>(HANDSHAKES_QUEUE);
    let (own, stop) = (tasks.clone(), stop.clone());
    let limit = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    tasks.spawn(stop.run_until_cancelled_owned(async move {
        loop {
            let Ok(place) = limit.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the core was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            own.spawn(handshake(secured.acceptor(), stream, ready.clone(), place));
        }
    }));
    futures_util::stream::unfold(streams, |mut streams| async { Some((streams.recv().await?, streams)) })
}

/// Hands a connection over when its handshake succeeded. `place` is held meanwhile.
async fn handshake(tls: Tls, stream: TcpStream, ready: mpsc::Sender<Secure>, place: OwnedSemaphorePermit) {
    // Without it the core still works, only slower.
    let _ = stream.set_nodelay(true);
    if let Some(stream) = tls.accept(stream).await {
        // The receiver is gone when the core stops.
        let _ = ready.send(Ok(stream)).await;
    }
    drop(place);
}

/// The default address of the core.
const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000));
/// The number of connections that may be in their handshake; further ones wait to be accepted.
const HANDSHAKES_MAX: usize = 256;
/// The number of connections that may wait to be served.
const HANDSHAKES_QUEUE: usize = 64;
/// The pause after a connection that was not accepted, for example because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
