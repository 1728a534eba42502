//! `imks core`: the embedded directory as a core of its own, over gRPC.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::app::reachable;
use crate::config::Config;
use crate::{ImksError, ImksResult};

/// Returns the configuration that file, environment and flags are read over. The server's own default address is taken
/// by the server that this core is for.
pub(super) fn base() -> Config {
    Config { listen: ADDRESS, ..Config::default() }
}

/// Serves on the configured address until `shutdown` ends. There is no authentication: the port belongs on a private
/// network.
///
/// # Errors
/// `Io` when the address cannot be listened on; `Config` when an external core is configured; `Database`.
pub async fn run(config: &Config, shutdown: impl Future<Output = ()> + Send) -> ImksResult<()> {
    let directory = super::token::open(config).await?;
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .map_err(ImksError::io(format!("listening on {}", config.listen)))?;
    let address = listener.local_addr().map_err(ImksError::io("reading the listening address"))?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this port reads the directory: keep it on a private network");
    }
    super::say(&format!("The core is ready: IMKS_CORE_URL=http://{}", reachable(address)))?;
    directory.serve_on(listener, shutdown).await?;
    directory.close().await;
    Ok(())
}

/// Where the core listens unless something else is said.
const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000));
