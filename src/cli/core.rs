//! `imks core`: serves the embedded directory as a separate core over gRPC.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::app::reachable;
use crate::config::Config;
use crate::{ImksError, ImksResult};

/// Returns the configuration that file, environment and flags override. Its default address differs from the
/// server's, so that a core and a server can run on one machine.
pub(super) fn base() -> Config {
    Config { listen: ADDRESS, ..Config::default() }
}

/// Serves on the configured address until `shutdown` completes. There is no authentication, so the port must
/// be on a private network.
///
/// # Errors
/// `Io` if the address cannot be bound; `Config` if an external core is configured; `Database`.
pub async fn run(config: &Config, shutdown: impl Future<Output = ()> + Send) -> ImksResult<()> {
    let directory = super::token::open(config).await?;
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .map_err(ImksError::io(format!("listening on {}", config.listen)))?;
    let address = listener.local_addr().map_err(ImksError::io("reading the listening address"))?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "everybody who reaches this port can read the directory: keep it on a private network");
    }
    super::say(&format!("The core is ready: IMKS_CORE_URL=http://{}", reachable(address)))?;
    directory.serve_on(listener, shutdown).await?;
    directory.close().await;
    Ok(())
}

/// The default address of the core.
const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000));
