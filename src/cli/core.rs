//! `imks core`: the embedded directory as a core of its own, over gRPC.

use std::future::Future;
use std::net::SocketAddr;

use crate::config::Config;
use crate::{ImksError, ImksResult};

/// Options of `imks core`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port of the gRPC services. There is no authentication: keep it on a private network
    #[arg(
        long = "core-listen",
        env = "IMKS_CORE_LISTEN",
        default_value = "127.0.0.1:9000",
        value_name = "ADDRESS"
    )]
    address: SocketAddr,
}

/// Serves until `shutdown` ends.
///
/// # Errors
/// `Io` when the address cannot be listened on; `Config` when an external core is configured; `Database`.
pub async fn run(args: Args, config: &Config, shutdown: impl Future<Output = ()> + Send) -> ImksResult<()> {
    let directory = super::token::open(config).await?;
    let listener = tokio::net::TcpListener::bind(args.address)
        .await
        .map_err(ImksError::io(format!("listening on {}", args.address)))?;
    let address = listener.local_addr().map_err(ImksError::io("reading the listening address"))?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this port reads the directory: keep it on a private network");
    }
    super::say(&format!("The core is ready: IMKS_CORE_URL=http://{address}"))?;
    directory.serve_on(listener, shutdown).await?;
    directory.close().await;
    Ok(())
}
