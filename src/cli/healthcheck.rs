//! `imks healthcheck`: for containers without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Config;
use crate::{ImksError, ImksResult};

/// Options of `imks healthcheck`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also fail while the server is draining or a part it needs is away
    #[arg(long)]
    ready: bool,
}

/// Exits with 0 when the server on the configured port is well, with 1 otherwise.
pub(super) async fn run(args: Args, config: &Config) -> ImksResult<ExitCode> {
    let path = if args.ready { "/health/ready" } else { "/health/live" };
    let status = match tokio::time::timeout(DEADLINE, status(reachable(config.listen), path)).await {
        Ok(status) => status?,
        Err(_) => return Err(ImksError::Timeout("no answer from the server")),
    };
    super::say(&format!("{path} answers {status}"))?;
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// "Any address" is reached through this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn status(address: SocketAddr, path: &str) -> ImksResult<u16> {
    let mut stream =
        TcpStream::connect(address).await.map_err(ImksError::io(format!("connecting to {address}")))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(ImksError::io("asking for the health"))?;
    let mut head = [0; STATUS_LINE];
    stream.read_exact(&mut head).await.map_err(ImksError::io("reading the health"))?;
    let status = head.get(STATUS_DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
    status.and_then(|digits| digits.parse().ok()).ok_or(ImksError::Unavailable("the answer is not HTTP"))
}

/// `HTTP/1.1 200`
const STATUS_LINE: usize = 12;
const STATUS_DIGITS: std::ops::Range<usize> = 9..12;
const DEADLINE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_any_address_is_asked_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:3000".parse().unwrap()).to_string(), "127.0.0.1:3000");
        assert_eq!(reachable("[::]:3000".parse().unwrap()).to_string(), "[::1]:3000");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
