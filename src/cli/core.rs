//! `imks core`: the embedded directory as a core of its own, over gRPC.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::app::reachable;
use crate::config::Config;
use crate::{ImksError, ImksResult};

/// Serves on the address of `--listen`, 127.0.0.1:9000 unless one is set, until `shutdown` ends. There is no
/// authentication: the port belongs on a private network.
///
/// # Errors
/// `Io` when the address cannot be listened on; `Config` when an external core is configured; `Database`.
pub async fn run(config: &Config, shutdown: impl Future<Output = ()> + Send) -> ImksResult<()> {
    let directory = super::token::open(config).await?;
    // The server's own default is taken by the server that this core is for.
    let wanted = if config.listen == Config::default().listen { ADDRESS } else { config.listen };
    let listener = tokio::net::TcpListener::bind(wanted)
        .await
        .map_err(ImksError::io(format!("listening on {wanted}")))?;
    let address = listener.local_addr().map_err(ImksError::io("reading the listening address"))?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this port reads the directory: keep it on a private network");
    }
    super::say(&format!("The core is ready: IMKS_CORE_URL=http://{}", reachable(address)))?;
    directory.serve_on(listener, shutdown).await?;
    directory.close().await;
    Ok(())
}

const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000));
